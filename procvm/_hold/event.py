"""`Event`: an event that stopped a target during `cont`, and its signal."""

from __future__ import annotations

import signal
import struct
from enum import StrEnum
from typing import Any, NamedTuple, final

from procvm._base.address import as_int
from procvm._base.pods import Pod
from procvm._hold.calls import Calls
from procvm._hold.points import Breakpoint, Watchpoint
from procvm._hold.server.protocol import Op
from procvm._linux.syscall_names import syscall_name

__all__ = ["Event", "EventKind", "SigInfo", "SyscallStop"]


class EventKind(StrEnum):
    """The kind of an event: a signal to be delivered, a group-stop of the process, and so on."""

    SIGNAL = "signal"
    STOP = "stop"
    EXEC = "exec"
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    SYSCALL = "syscall"


class SigInfo(NamedTuple):
    """The fields of a siginfo_t.

    Attributes:
        signo: The signal.
        errno: si_errno.
        code: si_code: who sent it, or the fault that raised it.
        pid: The sender's pid; None for a fault.
        uid: The sender's uid; None for a fault.
        value: The value of sigqueue(3), as an unsigned number; None where there is none.
        address: The address of a fault or trap; None for a signal that was sent.
        raw: All 128 bytes, as the kernel gave them.

    Source:
        sigaction(2), "The siginfo_t argument to a SA_SIGINFO handler".
    """

    signo: int
    errno: int
    code: int
    pid: int | None
    uid: int | None
    value: int | None
    address: int | None
    raw: bytes


class SyscallStop(NamedTuple):
    """The entry or the exit of a system call.

    Attributes:
        number: Its number.
        name: Its name, as ``"write"``; ``"syscall_999"`` if it is not known.
        arguments: Its six arguments, as unsigned numbers; a call with fewer leaves the rest.
        result: What it returned, an errno as a negative number; None at the entry.
    """

    number: int
    name: str
    arguments: tuple[int, ...]
    result: int | None

    @property
    def is_exit(self) -> bool:
        """Whether the call has returned."""
        return self.result is not None


_FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP})
_HEAD = struct.Struct("=iii4x")
_SENT = struct.Struct("=iIQ")
_ADDRESS = struct.Struct("=Q")
_SI_KERNEL = 0x80
_WITH_VALUE = frozenset({-1, -2, -3})  # SI_QUEUE, SI_TIMER, SI_MESGQ


def _parse(raw: bytes) -> SigInfo | None:
    if not raw:
        return None
    signo, errno, code = _HEAD.unpack_from(raw)
    if code > 0 and signo in _FAULTS:
        (address,) = _ADDRESS.unpack_from(raw, _HEAD.size)
        return SigInfo(signo, errno, code, None, None, None, address, raw)
    if code == _SI_KERNEL:
        return SigInfo(signo, errno, code, None, None, None, None, raw)
    pid, uid, value = _SENT.unpack_from(raw, _HEAD.size)
    return SigInfo(signo, errno, code, pid, uid, value if code in _WITH_VALUE else None, None, raw)


def _value(pod: Pod[Any], data: bytes) -> Any:
    """Returns the value of watched bytes; None if they could not be read."""
    return pod.from_bytes(data) if len(data) == pod.size else None


@final
class Event:
    """An event that stopped a target during `cont`; the target is held.

    A signal is delivered when the target runs on, unless it is discarded or replaced before.

    Attributes:
        kind: "signal" (about to be delivered), "stop" (a signal stopped the whole
            process), "exec", "breakpoint", "watchpoint", or "syscall".
        tid: The thread it happened to.
        signo: The signal; 0 for other events.
        siginfo: Who sent the signal, or the fault that raised it; None for other events.
        point: The `Breakpoint` or `Watchpoint`; None for other events.
        address: Where the thread is after a hit: at the instruction of the breakpoint, or at
            the one after the instruction that made the access. None for other events, and
            where the thread was gone before the hit was seen (it blocked the hit's signal).
        old: The value of the watched memory before the hit; None for other events. It was
            read when the target went on, or at the last hit.
        new: The value when the thread stopped. If two threads write at once, the
            event of the first may have the value of the second already.
        syscall: The system call that the thread enters or has left; None for other events.
    """

    point: Breakpoint | Watchpoint | None = None
    address: int | None = None
    old: Any = None
    new: Any = None
    syscall: SyscallStop | None = None

    def __init__(
        self,
        calls: Calls,
        number: int,
        kind: str,
        tid: int,
        signo: int,
        raw: bytes,
        more: tuple[Any, ...],
    ) -> None:
        self._calls = calls
        self._number = number
        self.kind = EventKind(kind)
        self.tid = tid
        self.signo = signo
        self.siginfo = _parse(raw)
        if self.kind in (EventKind.BREAKPOINT, EventKind.WATCHPOINT):
            point, self.address, old, new = more
            self.point = calls.points.get(point)
            if isinstance(self.point, Watchpoint):
                self.old, self.new = (_value(self.point.pod, data) for data in (old, new))

        elif self.kind is EventKind.SYSCALL:
            call, arguments, result, is_64bit = more
            name = syscall_name(call) if is_64bit else f"syscall_{call}"
            self.syscall = SyscallStop(call, name, arguments, result)

    def __repr__(self) -> str:
        if self.syscall is not None:
            return f"Event(kind='syscall', tid={self.tid}, syscall={self.syscall})"
        if self.point is not None:
            place = "None" if self.address is None else hex(self.address)
            change = f", old={self.old!r}, new={self.new!r}" if self.old is not None else ""
            return f"Event(kind={str(self.kind)!r}, tid={self.tid}, address={place}{change})"
        return f"Event(kind={str(self.kind)!r}, tid={self.tid}, signo={self.signo})"

    def __eq__(self, other: object) -> bool:
        """Returns whether both are the same event."""
        if not isinstance(other, Event):
            return NotImplemented
        return self._calls is other._calls and self._number == other._number

    def __hash__(self) -> int:
        return hash(self._number)

    def discard(self) -> None:
        """Discards the signal: the target never takes it.

        This takes effect at once, also if the tool or the tracer ends right after.

        Raises:
            ValueError: The event is not a signal.
            NotStoppedError: The signal was delivered or discarded already.
            ProcessExitedError: The process has ended.
        """
        self._deliver(0)

    def replace(self, signo: int) -> None:
        """Delivers another signal in place of this one, when the target runs on.

        If the tracer ends before that, the kernel delivers the original one.

        Args:
            signo: The signal, 1 to 64.

        Raises:
            ValueError: The event is not a signal, or no signal has that number.
            NotStoppedError: The signal was delivered or discarded already.
            ProcessExitedError: The process has ended.
        """
        signo = as_int(signo, "signo")
        if signo not in signal.valid_signals():
            raise ValueError(f"no signal has the number {signo}")
        self._deliver(signo)

    def _deliver(self, signo: int) -> None:
        if self.kind is not EventKind.SIGNAL:
            raise ValueError(f"a {str(self.kind)!r} event has no signal to deliver")
        self._calls.request(Op.DELIVER, self.tid, self._number, signo)
