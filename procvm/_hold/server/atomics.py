"""Atomics on a stopped tracee, by PTRACE_PEEKDATA and PTRACE_POKEDATA."""

from __future__ import annotations

import errno
import os
import sys

from procvm._base.perms import READ, SHARED, WRITE
from procvm._hold.server import requests
from procvm._hold.server.proof import Program
from procvm._hold.server.requests import Gone
from procvm._linux.libc import errno_error
from procvm._linux.proc_maps import entry_at
from procvm.errors import SharedMemoryError

__all__ = ["operate"]

_WORD = 8


def operate(
    program: Program,
    tid: int,
    address: int,
    size: int,
    expected: bytes | None,
    desired: bytes,
    *,
    forced: bool,
) -> bytes | None:
    """Loads or exchanges an aligned word of private memory while every task is stopped.

    Args:
        program: The program, whose mappings are asked first: peek and poke ignore them.
        tid: A stopped task of it.
        address: Where; a multiple of `size`.
        size: 4 or 8 bytes.
        expected: The bytes that must be there for the exchange; None for a load.
        desired: The bytes to store if they are.
        forced: Whether page protections are ignored.

    Returns:
        What was there; None if the target's own instruction would fault.

    Raises:
        Gone: The task left its stop: it was killed.
        SharedMemoryError: The memory is shared with processes that run.
    """
    pid = tid
    try:
        vma = entry_at(program.maps.number, address)
    except OSError as error:
        code = error.errno or errno.EIO
        raise errno_error(code, "asking for a mapping", pid=pid) from None
    needs = 0 if forced else READ if expected is None else READ | WRITE
    if vma is None or vma.flags & needs != needs:
        return None
    if vma.flags & SHARED:
        raise SharedMemoryError(
            f"the memory at {address:#x} is shared with other processes, which run on while this "
            "one is stopped"
        )
    base = address - address % _WORD
    try:
        word = requests.peek(tid, base).to_bytes(_WORD, sys.byteorder)
        found = word[address - base : address - base + size]
        if found == expected:
            _store(program, tid, address, desired)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EFAULT):
            code = error.errno or errno.EIO
            raise errno_error(code, "an atomic by ptrace", pid=pid) from None
        return None
    return found


def _store(program: Program, tid: int, address: int, desired: bytes) -> None:
    if len(desired) == _WORD:
        requests.poke(tid, address, int.from_bytes(desired, sys.byteorder))
    # POKEDATA would rewrite the neighbour of a 4-byte word as well, which the kernel may be
    # writing at the same time for an asynchronous request of the target.
    elif os.pwrite(program.mem.number, desired, address) != len(desired):
        raise Gone
