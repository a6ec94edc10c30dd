"""The sets of registers that PTRACE_GETREGSET returns as they are."""

from __future__ import annotations

import ctypes
import errno
import os

from procvm._hold.server.requests import ptrace

__all__ = ["float_regset"]

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
