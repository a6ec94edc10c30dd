"""The sets of registers that PTRACE_GETREGSET returns as they are, and what is in a set."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from typing import NamedTuple

from procvm._hold.server.requests import ptrace

__all__ = ["SystemCall", "float_regset", "program_counter", "system_call_of"]

_GET_REGSET = 0x4204
_NT_PRFPREG = 2
_NT_X86_XSTATE = 0x202
_MOST = 1 << 16
_ABSENT = frozenset({errno.EINVAL, errno.ENODEV, errno.EIO})


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


def float_regset(tid: int) -> tuple[str, bool, bytes]:
    """Returns the registers of floating point and vectors of a stopped task.

    Returns:
        The machine; whether the bytes are NT_X86_XSTATE, and not NT_PRFPREG; the bytes, none if
        the kernel has neither.

    Raises:
        Gone: The task left its stop.
        OSError: Any other failure.
    """
    machine = os.uname().machine
    if machine == "x86_64":
        data = _regset(tid, _NT_X86_XSTATE)
        if data:
            return machine, True, data
    return machine, False, _regset(tid, _NT_PRFPREG)


def _regset(tid: int, kind: int) -> bytes:
    room = ctypes.create_string_buffer(_MOST)
    vector = _Iovec(ctypes.addressof(room), _MOST)
    try:
        # SAFETY: the kernel writes at most `len` bytes into `room`; both outlive the call.
        ptrace(_GET_REGSET, tid, kind, ctypes.addressof(vector))
    except OSError as error:
        if error.errno in _ABSENT:
            return b""
        raise
    return room.raw[: vector.len]


def program_counter(registers: Mapping[str, int]) -> int:
    """Returns the address of a task's next instruction, out of its general registers."""
    return registers.get("rip", registers.get("pc", 0))


class SystemCall(NamedTuple):
    """A system call in the registers of a task.

    Attributes:
        number: Its number.
        arguments: Its six arguments, as unsigned numbers.
        result: What it returned: negative for an errno.
        is_64bit: Whether the number is one of a 64-bit program.
    """

    number: int
    arguments: tuple[int, ...]
    result: int
    is_64bit: bool


_COMPAT_CODE = 0x23
_ARGUMENTS = {
    "orig_rax": ("rdi", "rsi", "rdx", "r10", "r8", "r9"),
    "compat": ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
    "regs": ("x0", "x1", "x2", "x3", "x4", "x5"),
}


def system_call_of(registers: Mapping[str, int]) -> SystemCall:
    """Returns the system call that a task stopped in, out of its general registers."""
    if "orig_rax" not in registers:
        names = _ARGUMENTS["regs"]
        arguments = tuple(registers.get(name, 0) for name in names)
        return SystemCall(registers.get("x8", -1), arguments, _signed(arguments[0], 64), True)
    compat = registers["cs"] == _COMPAT_CODE
    bits = 32 if compat else 64
    arguments = tuple(
        registers[name] & (1 << bits) - 1 for name in _ARGUMENTS["compat" if compat else "orig_rax"]
    )
    number = _signed(registers["orig_rax"], 32)
    return SystemCall(number, arguments, _signed(registers["rax"], bits), not compat)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
