"""`Event`: an event that stopped a target during `cont`, and its signal."""

from __future__ import annotations

import signal
import struct
from enum import StrEnum
from typing import NamedTuple, final

from procvm._base.address import as_int
from procvm._hold.calls import Calls
from procvm._hold.server.protocol import Op

__all__ = ["Event", "EventKind", "SigInfo"]


class EventKind(StrEnum):
    """The kind of an event: a signal to be delivered, a group-stop of the process, an exec."""

    SIGNAL = "signal"
    STOP = "stop"
    EXEC = "exec"


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


@final
class Event:
    """An event that stopped a target during `cont`; the target is held.

    A signal is delivered when the target runs on, unless it is discarded or replaced before.

    Attributes:
        kind: "signal" (about to be delivered), "stop" (a signal stopped the whole
            process), or "exec".
        tid: The thread it happened to.
        signo: The signal; 0 for an exec.
        siginfo: Who sent the signal, or the fault that raised it; None for other events.
    """

    def __init__(
        self, calls: Calls, number: int, kind: str, tid: int, signo: int, raw: bytes
    ) -> None:
        self._calls = calls
        self._number = number
        self.kind = EventKind(kind)
        self.tid = tid
        self.signo = signo
        self.siginfo = _parse(raw)

    def __repr__(self) -> str:
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
