"""Writes to many ranges of a held target by one process_vm_writev, made by its tracer.

The call takes a number, and a write cannot be taken back. So the number has to name a task of the
opened program at the instant at which the kernel looks it up, whatever happens meanwhile:

*   **The process.** The task was seized, and after that the pidfd proved the process
    (`proof.Proof`). A traced task keeps its number until its tracer reaps it: a dead one stays a
    zombie that its own parent cannot reap either. Only this thread waits for it, and it is busy
    here; the main thread, which reaps for a worker that hangs in a seize, does so under
    `Lease.reaping`.
*   **The program.** The token was compared when all threads were stopped. A task in a ptrace-stop
    cannot exec, and SIGKILL, the one signal that ends the stop, does not let it run user code.
*   **The tracer.** The kernel detaches what a thread traces as that thread ends. This thread
    makes the call itself, so it cannot have ended: SIGKILL takes effect after the call. If the
    tool made the call, a tracer that is killed between the tool's look at the hold and the
    kernel's look at the number would free the target, which may exec or end just then.
*   **The end of the hold.** This thread ends holds, and it is busy here.

So a target that dies loses its memory, and the call fails; it never reaches another one. As for
every hold, a process that shares the memory (CLONE_VM) runs on and sees the write.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from array import array

from procvm._hold.server import requests
from procvm._hold.server.lease import Lease
from procvm._hold.server.tasks import TaskState
from procvm._linux.libc import call, libc
from procvm._local.buffers import address_of_bytes

__all__ = ["write_ranges"]

_RANGE_LEN = 16
_STACKS_STAY = (6, 5)
"""The kernel from which on the call does not make a stack grow that ends above an address."""


def write_ranges(
    lease: Lease, _fds: list[int], ranges: bytes, data: bytes
) -> tuple[int, int] | None:
    """Writes consecutive bytes to ranges of the held target, as far as its pages allow.

    Args:
        lease: The hold.
        ranges: The address and the length of each range, as words.
        data: The bytes.

    Returns:
        The bytes that were written, and the errno if there are none. None if the target is not
        held, runs another program, or the tool does not wait any more; nothing is written then.
    """
    hold = lease.hold
    if not _stacks_stay():
        return 0, errno.ENOSYS
    if not lease.is_held or hold.execed or hold.proof.program is None or lease.given_up():
        return None
    with lease.reaping:
        # A leader that ended before its threads has no memory; theirs is the same.
        tids = sorted(hold.in_state(TaskState.HELD), key=lambda tid: tid != hold.pid)[:1]
        if not tids or not requests.is_stopped(tids[0]):
            return None
        words = array("Q", (address_of_bytes(data), len(data)))
        remote = ctypes.c_void_p(address_of_bytes(ranges))
        # SAFETY: the vectors and `data` live until the call returns.
        done, code = call(
            libc().writev,
            ctypes.c_int(tids[0]),
            ctypes.c_void_p(words.buffer_info()[0]),
            ctypes.c_ulong(1),
            remote,
            ctypes.c_ulong(len(ranges) // _RANGE_LEN),
            ctypes.c_ulong(0),
        )
    return max(done, 0), code


@functools.cache
def _stacks_stay() -> bool:
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdecimal()) >= _STACKS_STAY
