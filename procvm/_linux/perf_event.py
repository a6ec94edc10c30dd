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
from procvm._base.fd import Fd
from procvm._linux import procfs
from procvm._linux.libc import errno_error
from procvm.errors import AccessDeniedError, ProcvmError, UnsupportedError

__all__ = [
    "DISABLED",
    "EXCLUDE_HV",
    "EXCLUDE_KERNEL",
    "PERF_TYPE_BREAKPOINT",
    "READS_AND_WRITES",
    "RUNS",
    "SLOTS",
    "WRITES",
    "Attr",
    "HardwareBreakpoint",
    "control",
    "is_exact",
    "open_event",
    "refusal",
]

WRITES, READS_AND_WRITES, RUNS = 2, 3, 4
"""The accesses that hit one. Source: HW_BREAKPOINT_W, HW_BREAKPOINT_RW and HW_BREAKPOINT_X."""


SLOTS = 4
"""Hardware breakpoints of one thread on x86-64; opening one more fails with ENOSPC."""

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241}

_EXACT = frozenset({"x86_64"})
"""Machines where the kernel is known to stop a thread exactly at the breakpoint.

The kernel of aarch64 steps over the breakpoint by itself, and it is not known whether the signal
still comes before the instruction.
"""

PERF_TYPE_BREAKPOINT = 5
_BP_LEN = 8  # the size of the kernel's long, which it demands for an execution breakpoint
DISABLED = 1 << 0
EXCLUDE_KERNEL = 1 << 5
EXCLUDE_HV = 1 << 6
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


def open_event(attr: Attr, tid: int, cpu: int = -1) -> Fd:
    """Opens an event of a thread, on one CPU or on each; its descriptor is close-on-exec.

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
    fd = Fd.of_call(
        syscall,
        long(number),
        ctypes.byref(attr),
        long(tid),
        long(cpu),
        long(-1),
        long(_FLAG_FD_CLOEXEC),
    )
    if fd is None:
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


class HardwareBreakpoint:
    """A breakpoint of a thread, disarmed at first, whose hit sends the thread a signal.

    Attributes:
        fd: The number of the descriptor, which the siginfo of the signal names as si_fd.
        signo: The signal.
    """

    __slots__ = ("_attr", "_file", "_seen", "_tid", "fd", "signo")

    def __init__(self, tid: int, signo: int, kind: int = RUNS, length: int = _BP_LEN) -> None:
        """Opens it.

        Args:
            tid: The thread.
            signo: The signal that a hit sends.
            kind: `RUNS`, `WRITES` or `READS_AND_WRITES`.
            length: Bytes that are watched; that of a long for `RUNS`.

        Raises:
            OSError: The kernel refused: EACCES or EPERM (perf_event_paranoid), ENOSPC (no
                debug register is free), ENOSYS, ESRCH.
        """
        if os.uname().machine not in _EXACT:
            raise OSError(errno.ENOSYS, "no exact execution breakpoints on this machine")
        self._tid = tid
        self._seen = 0
        self.signo = 0
        self._attr = Attr(
            type=PERF_TYPE_BREAKPOINT,
            size=ctypes.sizeof(Attr),
            sample_period=1,
            flags=DISABLED | EXCLUDE_KERNEL | EXCLUDE_HV,
            bp_type=kind,
            bp_len=length,
        )
        self._file = open_event(self._attr, tid)
        self.fd = fd = self._file.number
        try:
            fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("@ii", _F_OWNER_TID, tid))
            self.set_signal(signo)
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)
        except BaseException:
            self.close()  # the traceback of the error refers to this object
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
        self._attr.flags &= ~DISABLED
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

    def take_hits(self) -> int:
        """Returns how often the thread hit it since `arm` or the last call."""
        before = self._seen
        self._seen = self._count()
        return self._seen - before

    def _count(self) -> int:
        data = os.read(self.fd, 8)
        return int.from_bytes(data, "little") if data else self._seen

    def close(self) -> None:
        """Gives the slot back."""
        self._file.close()
        self.fd = self._file.number


def refusal(what: str, pid: int, error: OSError) -> ProcvmError:
    """Returns the error for breakpoints that the kernel does not open.

    Args:
        what: What cannot be done, where, and to which process.
        pid: The process.
        error: As `open_event` raised it.
    """
    code = error.errno or 0
    if code == errno.ENOSPC:
        return UnsupportedError(
            f"{what}: all debug registers of a thread are in use, {SLOTS} on x86-64; close another "
            "trace, watchpoint or breakpoint first"
        )
    if code in (errno.EACCES, errno.EPERM):
        return AccessDeniedError(
            f"{what}: the kernel refuses perf_event_open to this user; "
            f"/proc/sys/kernel/perf_event_paranoid is {_setting('perf_event_paranoid')}, and 2 or "
            "less allows what ptrace allows. CAP_PERFMON allows it as well",
            pid=pid,
            errno=code,
        )
    if code in (errno.ENOSYS, errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV):
        return UnsupportedError(
            f"{what}: this kernel or machine has no hardware breakpoints in perf events"
        )
    if code == errno.EINVAL:
        return UnsupportedError(
            f"{what}: this machine cannot watch that address, or the kernel is older than "
            "Linux 5.13"
        )
    if code in (errno.EMFILE, errno.ENFILE):
        what += " (it takes a descriptor per thread and CPU; close some or raise RLIMIT_NOFILE)"
    return errno_error(code, what, pid=pid)


def _setting(name: str) -> str:
    return procfs.read_text(f"/proc/sys/kernel/{name}") or "unknown"
