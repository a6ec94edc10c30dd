"""`Points`: the breakpoints and watchpoints at which a traced process stops.

Each is a hardware breakpoint of perf events in every thread, whose hit sends the thread a signal
that the target ignores. The kernel stops a traced thread for such a signal too, before its next
instruction, and drops the signal for any other thread. So the target is never harmed: if the
tracer is killed at any instant, the kernel closes the breakpoints and drops what is pending.

An event with ``sigtrap=1`` would send SIGTRAP, which kills a target whose tracer is killed before
it has discarded the signal.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from procvm._hold.server.breakpoints import is_of_descriptor, may_signal
from procvm._hold.server.requests import Gone, SigInfo
from procvm._linux import perf_event
from procvm._linux.perf_event import READS_AND_WRITES, RUNS, SLOTS, WRITES, HardwareBreakpoint
from procvm._linux.sigsets import read_signal_sets
from procvm.errors import UnsupportedError

__all__ = ["Hit", "Point", "Points"]

_KINDS = {"breakpoint": RUNS, "write": WRITES, "access": READS_AND_WRITES}
_numbers = itertools.count(1)


class Point(NamedTuple):
    """A breakpoint or a watchpoint.

    Attributes:
        number: A number that no other point of this tracer has.
        on: "breakpoint", "write" or "access".
        address: Its address.
        size: The bytes that are watched; those of a long for a breakpoint.
    """

    number: int
    on: str
    address: int
    size: int

    def __str__(self) -> str:
        what = "breakpoint" if self.on == "breakpoint" else "watchpoint"
        return f"{what} {self.address:#x}"


class Hit(NamedTuple):
    """A point that a thread reached.

    Attributes:
        point: The point.
        old: The bytes that were there at the last look; none for a breakpoint.
        new: The bytes that are there now; none for a breakpoint.
    """

    point: Point
    old: bytes
    new: bytes


class Points:
    """The points of one process, and the hardware breakpoints that each thread has for them."""

    def __init__(self, pid: int, read: Callable[[int, int], bytes]) -> None:
        """Begins without a point.

        Args:
            pid: The process.
            read: Reads its memory; fewer bytes where it cannot.
        """
        self._pid = pid
        self._read = read
        self._points: dict[int, Point] = {}
        self._values: dict[int, bytes] = {}
        self._armed: dict[int, dict[int, HardwareBreakpoint]] = {}
        self._sent: dict[int, set[tuple[int, int]]] = {}
        self._at: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._points)

    def add(self, on: str, address: int, size: int, tids: Iterable[int]) -> Point:
        """Arms a new point in the threads.

        Raises:
            UnsupportedError: The slots of a thread are in use, the machine has none, or a thread
                would notice the signal of a hit.
            AccessDeniedError: The kernel refuses perf events to the tracer.
        """
        point = Point(next(_numbers), on, address, size)
        if not perf_event.is_exact():
            raise UnsupportedError(
                f"cannot set a {point} in process {self._pid}: exact stops need x86-64 and a "
                "kernel without PREEMPT_RT"
            )
        self._points[point.number] = point
        try:
            for tid in tids:
                self.arm(tid)
        except BaseException:
            self.remove(point.number)
            raise
        return point

    def remove(self, number: int) -> None:
        """Disarms a point in every thread."""
        self._points.pop(number, None)
        self._values.pop(number, None)
        for armed in self._armed.values():
            found = armed.pop(number, None)
            if found is not None:
                found.close()

    def arm(self, tid: int) -> None:
        """Arms the points that a thread does not have yet; see `add`."""
        armed = self._armed.setdefault(tid, {})
        for point in self._points.values():
            if point.number in armed:
                continue
            try:
                self._open(tid, point, armed)
            except Gone:
                return
            except OSError as error:
                if error.errno == errno.ESRCH:
                    return
                what = f"cannot set a {point} in thread {tid} of process {self._pid}"
                if error.errno == errno.ENOSPC:
                    others = [str(each) for each in self._points.values() if each is not point]
                    raise UnsupportedError(
                        f"{what}: the processor has {SLOTS} slots for breakpoints and watchpoints, "
                        f"and none is free. In use: {', '.join(others) or 'none by this tracee'}"
                        + ("" if len(others) >= SLOTS else ", the others by other tools")
                    ) from None
                raise perf_event.refusal(what, self._pid, error) from None

    def _open(self, tid: int, point: Point, armed: dict[int, HardwareBreakpoint]) -> None:
        signo = self._signal(tid)
        breakpoint_ = HardwareBreakpoint(tid, signo, _KINDS[point.on], point.size)
        armed[point.number] = breakpoint_
        self._sent.setdefault(tid, set()).add((signo, breakpoint_.fd))
        breakpoint_.arm(point.address)

    def _signal(self, tid: int) -> int:
        """Returns a signal whose delivery the target does not notice.

        A thread that blocks all of those may do so for a moment only, as around its birth. Its
        hits are found by their count; see `has_hits`.
        """
        sets = read_signal_sets(tid)
        if sets is None:
            raise Gone
        signo = sets.free_signal() or sets._replace(blocked=0).free_signal()
        if signo is None or not may_signal(sets):
            why = (
                "the kernel does not let the tracer's user signal it"
                if signo is not None
                else "the target handles each of the signals that could tell a hit (SIGURG, "
                "SIGWINCH, SIGCHLD), and would notice them"
            )
            raise UnsupportedError(
                f"cannot set a point in thread {tid} of process {self._pid}: {why}"
            )
        return signo

    # While the threads run

    def look(self) -> None:
        """Reads the watched bytes, before the threads run on."""
        for point in self._points.values():
            if point.on != "breakpoint":
                self._values[point.number] = self._read(point.address, point.size)

    def is_ours(self, tid: int, info: SigInfo | None) -> bool:
        """Returns whether a signal comes from a hit, also from one that was told already."""
        armed = self._armed.get(tid, {})
        if info is None:
            return False
        # By the number of the signal as well: the target's own descriptors have such numbers.
        if is_of_descriptor(info) and (info.signo, info.fd) in self._sent.get(tid, ()):
            return True
        # A signal of the same number was pending, and the kernel joined the two; or it had no
        # memory for the siginfo.
        return any(each.signo == info.signo and each.is_hit for each in armed.values())

    def has_hits(self) -> bool:
        """Returns whether a thread has hit a point, and no signal has told it yet.

        A thread that blocks the signal takes it when it unblocks it.
        """
        return any(each.is_hit for armed in self._armed.values() for each in armed.values())

    @property
    def tids(self) -> list[int]:
        """The threads that have points."""
        return list(self._armed)

    def hits(self, tid: int, place: int | None) -> list[Hit]:
        """Returns what a thread has hit since the last call.

        Args:
            tid: The thread, which is stopped or gone.
            place: Its instruction pointer; None if it is gone.
        """
        found: list[Hit] = []
        for number, breakpoint_ in self._armed.get(tid, {}).items():
            if breakpoint_.take_hits() > 0:
                point = self._points[number]
                if point.on == "breakpoint":
                    if place is not None:
                        self._at[tid] = place
                    found.append(Hit(point, b"", b""))
                else:
                    old = self._values.get(number, b"")
                    new = self._values[number] = self._read(point.address, point.size)
                    found.append(Hit(point, old, new))
        return found

    def told_at(self, tid: int) -> int | None:
        """Returns where a thread hit a breakpoint in its last stop, and forgets it."""
        return self._at.pop(tid, None)

    # Their end

    def disarm(self, tid: int | None = None) -> None:
        """Disarms the points of a thread, or of all; `arm` arms them again."""
        for each in [tid] if tid is not None else list(self._armed):
            for breakpoint_ in self._armed.pop(each, {}).values():
                with contextlib.suppress(OSError):
                    breakpoint_.close()

    def forget(self) -> None:
        """Disarms and forgets every point: the program is another one now."""
        self.disarm()
        self._points.clear()
        self._values.clear()
        # A blocked signal of a hit outlives the exec; the thread that made it is the leader now.
        self._sent = {self._pid: set().union(*self._sent.values())}
        self._at.clear()
