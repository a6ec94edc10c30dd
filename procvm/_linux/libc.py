"""The C functions that move memory, and the one place that turns an errno into an error.

See `procvm._base.c_library` for the types of the arguments.
"""

from __future__ import annotations

import ctypes
import errno as _errno
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from procvm._base.c_library import Function, c_function, system_call
from procvm.errors import (
    AccessDeniedError,
    PageFaultError,
    ProcessExitedError,
    ProcvmError,
    UnsupportedError,
    VmError,
)

__all__ = [
    "FAULTS",
    "MAX_RW_COUNT",
    "REFUSALS",
    "TRANSIENT",
    "Libc",
    "call",
    "errno_error",
    "libc",
    "same_memory",
]

MAX_RW_COUNT = 0x7FFFF000
"""The most bytes that one system call moves. Source: the kernel's ``MAX_RW_COUNT``."""

FAULTS = frozenset({_errno.EFAULT, _errno.EIO})
"""The errnos of a page fault: EFAULT from process_vm_readv, EIO from /proc/PID/mem."""

REFUSALS = frozenset({_errno.EPERM, _errno.EACCES, _errno.ENOSYS})
"""The errnos of a system call that a security policy denies or an old kernel lacks."""

TRANSIENT = frozenset({_errno.EINTR, _errno.EAGAIN})
"""The errnos after which the same call may succeed."""


class Libc(NamedTuple):
    """The C functions that procvm calls, each with its 64-bit result.

    `readv_quiet` is process_vm_readv without errno, which takes a tenth of a microsecond per
    call. If it fails, the caller calls `readv` to get the errno.
    """

    readv: Function
    readv_quiet: Function
    writev: Function
    pread: Function
    pwrite: Function


@functools.cache
def libc() -> Libc:
    """Returns the C functions; the first call looks them up."""
    loud = functools.partial(c_function, result=ctypes.c_ssize_t, keeps_errno=True)
    try:
        return Libc(
            readv=loud("process_vm_readv"),
            readv_quiet=c_function("process_vm_readv", ctypes.c_ssize_t),
            writev=loud("process_vm_writev"),
            pread=loud("pread64"),
            pwrite=loud("pwrite64"),
        )
    except AttributeError as error:
        raise UnsupportedError(f"this C library lacks a function: {error}") from None


def call(function: Function, *args: Any) -> tuple[int, int]:
    """Calls a C function; returns (result, 0) or (-1, errno)."""
    # SAFETY: the caller keeps the memory that the arguments point to alive.
    result = function(*args)
    return (result, 0) if result >= 0 else (-1, ctypes.get_errno())


_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}
_KCMP_VM = 1


def same_memory(pid: int, other: int) -> bool:
    """Returns whether two tasks run in the same address space; False where it is not known.

    Source:
        kcmp(2), KCMP_VM.
    """
    kcmp = _kcmp()
    return kcmp is not None and kcmp(pid, other) == 0


@functools.cache
def _kcmp() -> Callable[[int, int], int] | None:
    number = _KCMP.get(os.uname().machine)
    if number is None:
        return None
    function = system_call()
    call_number, kind, none = ctypes.c_long(number), ctypes.c_long(_KCMP_VM), ctypes.c_ulong(0)
    # SAFETY: numbers only. The kernel takes both pids as a C int, so they need no wrapper; one
    # would take as long as the call.
    return lambda pid, other: function(call_number, pid, other, kind, none, none)


def errno_error(
    code: int, what: str, *, pid: int, address: int | None = None, copied_len: int = 0
) -> ProcvmError:
    """Returns the error for an errno; every errno has one.

    Args:
        code: The errno.
        what: The call that failed, in words.
        pid: The process that the call was about.
        address: The first address that was not accessed, if the call was an access.
        copied_len: The bytes that were moved before it.
    """
    name = _errno.errorcode.get(code, str(code))
    text = f"{what}: {os.strerror(code)} [{name}]"
    if address is not None and code in FAULTS:
        return PageFaultError(text, address=address, pid=pid, copied_len=copied_len, errno=code)
    if code == _errno.ESRCH:
        return ProcessExitedError(f"process {pid} has ended", pid=pid, copied_len=copied_len)
    if code in (_errno.EPERM, _errno.EACCES):
        return AccessDeniedError(text, pid=pid, copied_len=copied_len, errno=code)
    if code == _errno.ENOSYS:
        return UnsupportedError(f"{text}; this kernel lacks it", copied_len=copied_len)
    return VmError(text, copied_len=copied_len)
