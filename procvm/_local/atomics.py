"""Compare-and-exchange on our own memory, by the processor.

libatomic does it where it is installed. It is not on slim systems, so on
x86-64 and aarch64 a few bytes of machine code in a read-execute page replace it;
elsewhere the error names the package.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
from collections.abc import Callable
from typing import Any

from procvm._base.fd import Fd
from procvm._local.buffers import pin
from procvm.errors import UnsupportedError

__all__ = ["compare_exchange", "from_libatomic", "from_machine_code", "prepare"]

_SEQ_CST = 5

# Each takes (pointer, expected, desired) in registers and returns what was there.
_MACHINE_CODE = {
    # mov rax, rsi / lock cmpxchg [rdi], rdx / ret
    ("x86_64", 8): bytes.fromhex("4889f0 f0480fb117 c3"),
    # mov eax, esi / lock cmpxchg [rdi], edx / ret
    ("x86_64", 4): bytes.fromhex("89f0 f00fb117 c3"),
    # 1: ldaxr x3, [x0] / cmp x3, x1 / b.ne 2f / stlxr w4, x2, [x0] / cbnz w4, 1b
    # 2: mov x0, x3 / ret
    ("aarch64", 8): bytes.fromhex("03fc5fc8 7f0001eb 61000054 02fc04c8 84ffff35 e00303aa c0035fd6"),
    # the same with w registers
    ("aarch64", 4): bytes.fromhex("03fc5f88 7f00016b 61000054 02fc0488 84ffff35 e003032a c0035fd6"),
}

Prepare = Callable[[int, int, int], Callable[[], int]]
"""(address, expected, desired) -> an exchange that returns what was there, unsigned."""


def from_libatomic(size: int) -> Prepare | None:
    """Returns libatomic's compare-and-exchange of `size` bytes, or None without it."""
    try:
        library = ctypes.CDLL("libatomic.so.1")
    except OSError:
        return None
    word: type[Any] = ctypes.c_uint32 if size == 4 else ctypes.c_uint64
    function = library[f"__atomic_compare_exchange_{size}"]
    function.restype = ctypes.c_bool
    order = ctypes.c_int(_SEQ_CST)

    def prepare(address: int, expected: int, desired: int) -> Callable[[], int]:
        cell = word(expected)
        args = (ctypes.c_void_p(address), ctypes.byref(cell), word(desired), order, order)

        def compare_exchange() -> int:
            cell.value = expected
            # SAFETY: the caller vouches for `address`, aligned; `args` keeps `cell`
            # alive, in which the call leaves what was there when the two differ.
            function(*args)
            return int(cell.value)

        return compare_exchange

    return prepare


def from_machine_code(size: int, machine: str | None = None) -> Prepare | None:
    """Returns a compare-and-exchange of `size` bytes made here, or None for this machine."""
    code = _MACHINE_CODE.get((machine or os.uname().machine, size))
    if code is None or sys.maxsize < 2**32:
        return None
    # Written through a memfd and mapped read-execute, so that no page of ours
    # is ever writable and executable at once.
    with Fd.of(os.memfd_create, "procvm-atomics", os.MFD_CLOEXEC) as file:
        fd = file.number
        try:
            os.write(fd, code)
            page = mmap.mmap(fd, len(code), mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
        except OSError:  # a policy that forbids executable mappings
            return None
    word: type[Any] = ctypes.c_uint32 if size == 4 else ctypes.c_uint64
    held = pin(page, writable=False)
    function = ctypes.CFUNCTYPE(word)(held.address)

    def prepare(address: int, expected: int, desired: int) -> Callable[[], int]:
        args = (ctypes.c_void_p(address), word(expected), word(desired))

        def compare_exchange(_keep: object = held) -> int:
            # SAFETY: the caller vouches for `address`, aligned; the page of code is
            # kept mapped by `_keep`.
            return int(function(*args))

        return compare_exchange

    return prepare


@functools.cache
def _prepare(size: int) -> Prepare:
    found = from_libatomic(size) or from_machine_code(size)
    if found is None:
        raise UnsupportedError(
            f"no atomics of {size} bytes on {os.uname().machine}: install libatomic "
            "(the package libatomic1 on Debian, libatomic on Fedora)"
        )
    return found


def prepare(address: int, size: int, expected: int, desired: int) -> Callable[[], int]:
    """Returns `compare_exchange` with its arguments at hand, for one thread at a time.

    The caller keeps the memory at `address` alive for as long as it uses the result.
    """
    return _prepare(size)(address, expected, desired)


def compare_exchange(address: int, size: int, expected: int, desired: int) -> int:
    """Compares and exchanges one aligned word of our own memory.

    Args:
        address: Where; a multiple of `size`, mapped writable.
        size: 4 or 8 bytes.
        expected: The unsigned number that must be there.
        desired: The unsigned number to store if it is.

    Returns:
        What was there, as an unsigned number.

    Raises:
        UnsupportedError: Neither libatomic nor code for this machine.

    Source:
        GCC's libatomic, ``__atomic_compare_exchange_N``.
    """
    return _prepare(size)(address, expected, desired)()
