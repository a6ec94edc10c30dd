"""`Breakpoints`: the hardware breakpoints of a process's tasks, and the signal of their hits."""

from __future__ import annotations

import functools
import os

from procvm._hold.server.requests import SigInfo
from procvm._linux import perf_event, procfs
from procvm._linux.own_means import require_own_means
from procvm._linux.perf_event import HardwareBreakpoint
from procvm._linux.sigsets import SignalSets, read_signal_sets

__all__ = ["Breakpoints", "is_of_descriptor", "may_signal"]

_POLL_IN, _POLL_HUP, _SI_SIGIO = 1, 6, -5
_OVERFLOW_UID = 65534


def is_of_descriptor(info: SigInfo) -> bool:
    """Returns whether a descriptor sent a signal, as F_SETSIG makes it; `SigInfo.fd` names it."""
    return _POLL_IN <= info.code <= _POLL_HUP or info.code == _SI_SIGIO


class Breakpoints:
    """The breakpoints of each task, opened at their first use and armed for one step at a time."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled and perf_event.is_exact()
        self._of: dict[int, list[HardwareBreakpoint]] = {}
        self._signals: dict[int, int | None] = {}
        self._left: dict[int, tuple[int, frozenset[int]]] = {}

    def arm(self, tid: int, addresses: list[int]) -> list[HardwareBreakpoint]:
        """Arms a breakpoint at each address; returns none where the kernel refuses.

        Raises:
            VmError: The tracer lacks descriptors or memory. A step by a trap, which takes none,
                would be one that harms the target if the tracer is killed.
        """
        signo = self._free_signal(tid) if self.enabled else None
        if signo is None or len(addresses) > perf_event.SLOTS:
            return []
        found = self._of.setdefault(tid, [])
        try:
            while len(found) < len(addresses):
                found.append(HardwareBreakpoint(tid, signo))
            for breakpoint_, address in zip(found, addresses, strict=False):
                breakpoint_.set_signal(signo)
                breakpoint_.arm(address)
        except OSError as error:
            for breakpoint_ in found:
                breakpoint_.disarm()
            require_own_means(error, f"a hardware breakpoint of thread {tid}")
            return []
        return found[: len(addresses)]

    def _free_signal(self, tid: int) -> int | None:
        if tid not in self._signals:
            sets = read_signal_sets(tid)
            usable = sets is not None and may_signal(sets)
            self._signals[tid] = sets.free_signal() if sets is not None and usable else None
        return self._signals[tid]

    def forget_signals(self) -> None:
        """Looks up the signal sets again at the next step: the target may have changed them."""
        self._signals.clear()

    def leave(self, tid: int, breakpoints: list[HardwareBreakpoint]) -> None:
        """Records that the signal of a hit is still to come."""
        fds = frozenset(breakpoint_.fd for breakpoint_ in breakpoints)
        self._left[tid] = (breakpoints[0].signo, fds)

    def is_left(self, tid: int, info: SigInfo | None) -> bool:
        """Returns whether a signal is the one that `leave` recorded, and forgets the record."""
        signo, fds = self._left.get(tid, (0, frozenset[int]()))
        if info is None or info.signo != signo or info.fd not in fds:
            return False
        if not is_of_descriptor(info):
            return False
        del self._left[tid]
        return True

    def close(self, tid: int | None = None) -> None:
        """Closes the breakpoints of a task, or of all."""
        self.forget_signals()
        for each in [tid] if tid is not None else list(self._of):
            for breakpoint_ in self._of.pop(each, []):
                breakpoint_.close()


@functools.cache
def _is_root() -> bool:
    """Returns whether this process may signal every target: uid 0 of the first user namespace."""
    if os.geteuid():
        return False
    return (procfs.read_bytes("/proc/self/uid_map") or b"").split() == [b"0", b"0", b"4294967295"]


def may_signal(sets: SignalSets) -> bool:
    """Returns whether a descriptor of ours may signal the target, as sigio_perm() decides.

    Without this a breakpoint is hit, no signal is sent, and the task runs on.
    """
    if _is_root():
        return True
    theirs = {sets.uids[0], sets.uids[2]} - {_OVERFLOW_UID}
    return not theirs.isdisjoint((os.getuid(), os.geteuid()))
