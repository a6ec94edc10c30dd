"""What a screen shows of memory: bytes, those that can not be read, those that change."""

from __future__ import annotations

from typing import NamedTuple

from procvm._base.address import page_end
from procvm._space.space import VmSpace
from procvm.errors import PageFaultError

__all__ = ["FADING", "FRESH", "Changes", "Window", "read_window"]

FRESH = 2
"""Changed since the last tick."""
FADING = 1
"""Changed some ticks ago."""

_FADE_TICKS = 8


class Window(NamedTuple):
    """A run of memory as it was at one look.

    Attributes:
        start: Its first address.
        data: Its bytes; 0 where they are not known.
        known: As many bytes, 1 where they are.
    """

    start: int
    data: bytes
    known: bytes

    @property
    def end(self) -> int:
        """One past its last address."""
        return self.start + len(self.data)

    def byte(self, address: int) -> int | None:
        """Returns a byte; None if it could not be read, or is outside."""
        at = address - self.start
        return self.data[at] if 0 <= at < len(self.data) and self.known[at] else None

    def run(self, address: int, most: int) -> bytes:
        """Returns the bytes from an address on, up to the first that is not known."""
        at = address - self.start
        if not 0 <= at < len(self.data):
            return b""
        hole = self.known.find(0, at, at + most)
        return self.data[at : at + most if hole < 0 else hole]


NOTHING = Window(0, b"", b"")


def read_window(vm: VmSpace, start: int, n: int) -> Window:
    """Reads a run of memory in one call; in one more for each page that can not be read.

    Raises:
        ProcessExitedError: It has ended.
        ProcessExecedError: It runs another program.
        ClosedError: It was closed.
    """
    room, known = bytearray(n), bytearray(n)
    at, end = start, min(start + n, vm.end)
    while at < end:
        try:
            vm.read_into(at, memoryview(room)[at - start : end - start])
        except PageFaultError as error:
            behind = at + error.copied_len
            known[at - start : behind - start] = b"\1" * error.copied_len
            room[behind - start :] = bytes(start + n - behind)
            at = page_end(behind)
        else:
            known[at - start : end - start] = b"\1" * (end - at)
            at = end
    return Window(start, bytes(room), bytes(known))


class Changes:
    """Which bytes changed since the last look, and which did lately."""

    def __init__(self) -> None:
        self._last = NOTHING
        self._heat: dict[int, int] = {}

    def look(self, window: Window) -> None:
        """Compares with the last look, where both saw the same addresses."""
        last, self._last = self._last, window
        self._heat = {
            address: left - 1
            for address, left in self._heat.items()
            if left > 1 and window.start <= address < window.end
        }
        low, high = max(last.start, window.start), min(last.end, window.end)
        if low >= high:
            return
        new, old = low - window.start, low - last.start
        n = high - low
        if (
            window.data[new : new + n] == last.data[old : old + n]
            and window.known[new : new + n] == last.known[old : old + n]
        ):
            return
        for k in range(n):
            if (window.data[new + k], window.known[new + k]) != (
                last.data[old + k],
                last.known[old + k],
            ):
                self._heat[low + k] = _FADE_TICKS

    def moved(self, window: Window) -> None:
        """Looks at another place, between two ticks: nothing fades, and nothing is compared."""
        old = self._last
        # What both show is kept as it was, to be compared with at the next tick.
        low, high = max(old.start, window.start), min(old.end, window.end)
        if low < high:
            data, known = bytearray(window.data), bytearray(window.known)
            here = slice(low - window.start, high - window.start)
            there = slice(low - old.start, high - old.start)
            data[here], known[here] = old.data[there], old.known[there]
            window = Window(window.start, bytes(data), bytes(known))
        self._last = window
        self._heat = {
            address: left
            for address, left in self._heat.items()
            if window.start <= address < window.end
        }

    def of(self, address: int) -> int:
        """Returns `FRESH`, `FADING`, or 0 for a byte that did not change."""
        left = self._heat.get(address, 0)
        return FRESH if left == _FADE_TICKS else FADING if left else 0
