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

__all__ = ["SLOTS", "Attr", "ExecutionBreakpoint", "control", "is_exact", "open_event"]

SLOTS = 4
"""Hardware breakpoints of one thread on x86-64; opening one more fails with ENOSPC."""

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241}

_EXACT = frozenset({"x86_64"})
"""Machines where the kernel is known to stop a thread exactly at the breakpoint.

The kernel of aarch64 steps over the breakpoint by itself, and it is not known whether the signal
still comes before the instruction.
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


class Attr(ctypes.Structure):
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
    return os.uname().machine in _EXACT and "PREEMPT_RT" not in os.uname().version


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def open_event(attr: Attr, tid: int, cpu: int = -1) -> int:
    """Opens an event of a thread, on one CPU or on each; returns its descriptor, close-on-exec.

    Raises:
        OSError: The kernel refused: EACCES or EPERM (perf_event_paranoid), ENOSPC (no debug
            register is free), ENOSYS, ESRCH.

    Source:
        perf_event_open(2).
    """
    number = _PERF_EVENT_OPEN.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, "the number of perf_event_open is not known on this machine")
    syscall, _ = _functions()
    long = ctypes.c_long
    # SAFETY: the kernel reads `size` bytes of the attributes, which the caller keeps alive.
    fd = syscall(
        long(number),
        ctypes.byref(attr),
        long(tid),
        long(cpu),
        long(-1),
        long(_FLAG_FD_CLOEXEC),
    )
    if fd < 0:
        raise _error()
    return fd


def control(fd: int, request: int, value: int = 0) -> None:
    """Makes an ioctl of an event with a number.

    Raises:
        OSError: The kernel refused.
    """
    _, ioctl = _functions()
    # SAFETY: numbers only.
    if ioctl(fd, ctypes.c_ulong(request), ctypes.c_ulong(value)) < 0:
        raise _error()


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
        if os.uname().machine not in _EXACT:
            raise OSError(errno.ENOSYS, "no exact execution breakpoints on this machine")
        self._tid = tid
        self._seen = 0
        self.fd = -1
        self.signo = 0
        self._attr = Attr(
            type=_PERF_TYPE_BREAKPOINT,
            size=ctypes.sizeof(Attr),
            sample_period=1,
            flags=_DISABLED | _EXCLUDE_KERNEL | _EXCLUDE_HV,
            bp_type=_HW_BREAKPOINT_X,
            bp_len=_BP_LEN,
        )
        fd = open_event(self._attr, tid)
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
        with contextlib.suppress(OSError):
            control(self.fd, _IOC_DISABLE)

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
