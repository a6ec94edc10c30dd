"""The ptrace requests that a step needs besides those of `requests`, made without a wrapper."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any, NamedTuple

from procvm.tracer.requests import Gone

__all__ = [
    "EFLAGS_RF",
    "SYSCALL_ENTRY",
    "SYSCALL_EXIT",
    "SYSCALL_STOP",
    "TRACESYSGOOD",
    "SigInfo",
    "event_message",
    "rseq_area",
    "set_eflags",
    "set_signal_mask",
    "siginfo",
    "signal_mask",
    "syscall",
    "x86_registers",
]

TRACESYSGOOD = 1
"""The option that every seize has to set.

Without it a tracer that dies in a syscall-stop leaves the kernel a SIGTRAP to send to the
target; with it the kernel finds 0x85, which is no signal.
"""

SYSCALL_STOP = 0x85
"""The signal number of a syscall-stop: SIGTRAP | 0x80."""

SYSCALL_ENTRY, SYSCALL_EXIT = 1, 2
"""The event messages of a syscall-stop. Source: PTRACE_EVENTMSG_SYSCALL_ENTRY and _EXIT."""

EFLAGS_RF = 1 << 16
"""The resume flag: the next instruction runs past a breakpoint at its own address."""

_POKEUSER = 6
_GETREGS = 12
_SYSCALL = 24
_GETEVENTMSG = 0x4201
_GETSIGINFO = 0x4202
_GETSIGMASK = 0x420A
_SETSIGMASK = 0x420B
_GET_RSEQ_CONFIGURATION = 0x420F
_SIGSET_LEN = 8
_SIGINFO_LEN = 128

# The kernel's ``struct user_regs_struct`` of x86-64, also for a 32-bit target.
_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base"),
    *("ds", "es", "fs", "gs"),
)
_REGISTERS = struct.Struct(f"={len(_NAMES)}Q")
_EFLAGS_OFFSET = _NAMES.index("eflags") * 8


def _function() -> Any:
    function = ctypes.CDLL(None, use_errno=True)["ptrace"]  # an object of our own
    function.restype = ctypes.c_long
    function.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return function


_libc_ptrace = _function()


def _ptrace(request: int, tid: int, arg1: Any = None, arg2: Any = None) -> int:
    # SAFETY: buffers among the arguments are alive in the caller, as long as the request needs.
    result = int(_libc_ptrace(request, tid, arg1, arg2))
    if result < 0:
        code = ctypes.get_errno()
        if code == errno.ESRCH:
            raise Gone
        raise OSError(code, os.strerror(code))
    return result


class SigInfo(NamedTuple):
    """What a signal-delivery-stop tells of its signal; `fd` means something for SIGPOLL codes."""

    signo: int
    code: int
    fd: int


def syscall(tid: int, signo: int = 0) -> None:
    """Lets a stopped task run to the next entry or exit of a system call."""
    _ptrace(_SYSCALL, tid, None, signo)


def siginfo(tid: int) -> SigInfo | None:
    """Returns what a task in a signal-delivery-stop is about to get; None in a group-stop."""
    buffer = ctypes.create_string_buffer(_SIGINFO_LEN)
    try:
        # SAFETY: `buffer` has the 128 bytes of a siginfo_t and outlives the call.
        _ptrace(_GETSIGINFO, tid, None, ctypes.addressof(buffer))
    except OSError:
        return None
    signo, code, fd = struct.unpack_from("=i4xi12xi", buffer)
    return SigInfo(signo, code, fd)


def event_message(tid: int) -> int:
    """Returns the message of the event that a task is stopped by."""
    message = ctypes.c_ulong()
    # SAFETY: `message` outlives the call, which writes one long into it.
    _ptrace(_GETEVENTMSG, tid, None, ctypes.addressof(message))
    return message.value


def x86_registers(tid: int) -> dict[str, int]:
    """Returns the general registers of a stopped task on x86-64, by the kernel's names."""
    buffer = ctypes.create_string_buffer(_REGISTERS.size)
    # SAFETY: `buffer` has the size of user_regs_struct and outlives the call.
    _ptrace(_GETREGS, tid, None, ctypes.addressof(buffer))
    return dict(zip(_NAMES, _REGISTERS.unpack(buffer), strict=True))


def set_eflags(tid: int, value: int) -> None:
    """Sets the flags of a stopped task on x86-64, and no other register."""
    _ptrace(_POKEUSER, tid, _EFLAGS_OFFSET, value)


def signal_mask(tid: int) -> int:
    """Returns the signals that a stopped task blocks, as a mask."""
    mask = ctypes.c_uint64()
    # SAFETY: `mask` has the 8 bytes that the request names, and outlives the call.
    _ptrace(_GETSIGMASK, tid, _SIGSET_LEN, ctypes.addressof(mask))
    return mask.value


def set_signal_mask(tid: int, mask: int) -> None:
    """Sets the signals that a stopped task blocks."""
    value = ctypes.c_uint64(mask)
    # SAFETY: `value` has the 8 bytes that the request names, and outlives the call.
    _ptrace(_SETSIGMASK, tid, _SIGSET_LEN, ctypes.addressof(value))


def rseq_area(tid: int) -> int:
    """Returns the address of a task's ``struct rseq``; 0 without one, or before Linux 5.13."""
    buffer = ctypes.create_string_buffer(24)
    try:
        # SAFETY: `buffer` has the 24 bytes that the request names, and outlives the call.
        _ptrace(_GET_RSEQ_CONFIGURATION, tid, len(buffer), ctypes.addressof(buffer))
    except OSError:
        return 0
    return int.from_bytes(buffer.raw[:8], "little")
