"""perf_event_open(2): a hardware breakpoint of one thread that tells of a hit by a signal.

The kernel owns the debug register: it clears the register when the descriptor is closed, also
when this process is killed. A breakpoint that PTRACE_POKEUSER sets stays armed after the tracer
has died, and its next hit kills the target with SIGTRAP.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import struct

from procvm._base.c_library import Function, c_function, system_call

__all__ = ["SLOTS", "ExecutionBreakpoint", "is_exact"]

SLOTS = 4
"""Hardware breakpoints of one thread on x86-64; opening one more fails with ENOSPC."""

_PERF_EVENT_OPEN = {"x86_64": 298}
"""Machines where the kernel is known to stop a thread exactly at the breakpoint.

aarch64 (number 241) is left out: its kernel steps over the breakpoint by itself, and it is not
known whether the signal still comes before the instruction.
"""

_PERF_TYPE_BREAKPOINT = 5
_HW_BREAKPOINT_X = 4
_BP_LEN = 8  # the size of the kernel's long, which it demands for an execution breakpoint
_DISABLED = 1 << 0
_EXCLUDE_KERNEL = 1 << 5
_EXCLUDE_HV = 1 << 6
_FLAG_FD_CLOEXEC = 8
_IOC_DISABLE = 0x2401
_IOC_MODIFY_ATTRIBUTES = 0x4008240B
_F_SETSIG = 10
_F_SETOWN_EX = 15
_F_OWNER_TID = 0


class _Attr(ctypes.Structure):
    """``struct perf_event_attr``, version 5."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("bp_addr", ctypes.c_uint64),
        ("bp_len", ctypes.c_uint64),
        ("branch_sample_type", ctypes.c_uint64),
        ("sample_regs_user", ctypes.c_uint64),
        ("sample_stack_user", ctypes.c_uint32),
        ("clockid", ctypes.c_int32),
        ("sample_regs_intr", ctypes.c_uint64),
        ("aux_watermark", ctypes.c_uint32),
        ("sample_max_stack", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16),
    )


@functools.cache
def _functions() -> tuple[Function, Function]:
    return system_call(keeps_errno=True), c_function("ioctl", ctypes.c_int, keeps_errno=True)


@functools.cache
def is_exact() -> bool:
    """Returns whether a hit's signal reaches the thread before the instruction runs.

    The kernel sends the signal from an interrupt to its own CPU, which is taken before the
    thread executes anything. A PREEMPT_RT kernel sends it from a kernel thread, later.
    """
    return os.uname().machine in _PERF_EVENT_OPEN and "PREEMPT_RT" not in os.uname().version


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


class ExecutionBreakpoint:
    """A breakpoint of a stopped thread, disarmed at first, whose hit sends the thread a signal.

    Attributes:
        fd: The descriptor, which the siginfo of the signal names as si_fd.
        signo: The signal.
    """

    __slots__ = ("_attr", "_seen", "_tid", "fd", "signo")

    def __init__(self, tid: int, signo: int) -> None:
        """Opens it.

        Raises:
            OSError: The kernel refused: EACCES or EPERM (perf_event_paranoid), ENOSPC (no
                debug register is free), ENOSYS, ESRCH.
        """
        number = _PERF_EVENT_OPEN.get(os.uname().machine)
        if number is None:
            raise OSError(errno.ENOSYS, "no execution breakpoints on this machine")
        self._tid = tid
        self._seen = 0
        self.fd = -1
        self.signo = 0
        self._attr = _Attr(
            type=_PERF_TYPE_BREAKPOINT,
            size=ctypes.sizeof(_Attr),
            sample_period=1,
            flags=_DISABLED | _EXCLUDE_KERNEL | _EXCLUDE_HV,
            bp_type=_HW_BREAKPOINT_X,
            bp_len=_BP_LEN,
        )
        syscall, _ = _functions()
        long = ctypes.c_long
        # SAFETY: the kernel reads `size` bytes of the attributes, which `self` keeps alive.
        fd = syscall(
            long(number),
            ctypes.byref(self._attr),
            long(tid),
            long(-1),
            long(-1),
            long(_FLAG_FD_CLOEXEC),
        )
        if fd < 0:
            raise _error()
        self.fd = fd
        try:
            fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("@ii", _F_OWNER_TID, tid))
            self.set_signal(signo)
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)
        except BaseException:
            self.close()
            raise

    def set_signal(self, signo: int) -> None:
        """Chooses the signal that a hit sends."""
        if signo != self.signo:
            fcntl.fcntl(self.fd, _F_SETSIG, signo)
            self.signo = signo

    def arm(self, address: int) -> None:
        """Moves it to `address`, and counts the hits from here.

        Raises:
            OSError: The address is not one of user space (EINVAL), or the thread has ended.
        """
        self._attr.bp_addr = address
        self._attr.flags &= ~_DISABLED
        self._seen = self._count()
        _, ioctl = _functions()
        # SAFETY: the kernel reads `size` bytes of the attributes, which `self` keeps alive.
        if ioctl(self.fd, ctypes.c_ulong(_IOC_MODIFY_ATTRIBUTES), ctypes.byref(self._attr)) < 0:
            raise _error()

    def disarm(self) -> None:
        """Takes it out of the debug registers; the slot stays taken."""
        _, ioctl = _functions()
        # SAFETY: numbers only.
        ioctl(self.fd, ctypes.c_ulong(_IOC_DISABLE), ctypes.c_ulong(0))

    @property
    def is_hit(self) -> bool:
        """Whether the thread reached the address since `arm`."""
        return self._count() != self._seen

    def _count(self) -> int:
        data = os.read(self.fd, 8)
        return int.from_bytes(data, "little") if data else self._seen

    def close(self) -> None:
        """Gives the slot back."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)
