"""A range of memory as read for a screen, and which of its bytes changed."""

from __future__ import annotations

from typing import NamedTuple

from procvm._base.address import page_end
from procvm._space.space import VmSpace
from procvm.errors import PageFaultError

__all__ = ["AWAITED", "FADING", "FRESH", "Changes", "Window", "read_window"]

FRESH = 2
"""The byte changed since the last tick."""
FADING = 1
"""The byte changed a few ticks ago."""

AWAITED = b"\2"
"""In `Window.known`: the page of the byte has not come yet."""

_FADE_TICKS = 8


class Window(NamedTuple):
    """A range of memory as it was read at one time.

    Attributes:
        start: The first address.
        data: The bytes; 0 for those that could not be read.
        known: A byte for each of `data`: 1 if it could be read, `AWAITED` if its page has not come.
    """

    start: int
    data: bytes
    known: bytes

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.start + len(self.data)

    def byte(self, address: int) -> int | None:
        """Returns the byte at an address; None if it is outside or could not be read."""
        at = address - self.start
        return self.data[at] if 0 <= at < len(self.data) and self.known[at] == 1 else None

    def is_awaited(self, address: int) -> bool:
        """Returns whether the page of an address has not come yet."""
        at = address - self.start
        return 0 <= at < len(self.data) and self.known[at] == AWAITED[0]

    def run(self, address: int, most: int) -> bytes:
        """Returns up to `most` bytes at an address, ended by the first that could not be read."""
        at = address - self.start
        if not 0 <= at < len(self.data):
            return b""
        known = self.known[at : at + most]
        return self.data[at : at + len(known) - len(known.lstrip(b"\1"))]


NOTHING = Window(0, b"", b"")


def read_window(vm: VmSpace, start: int, n: int) -> Window:
    """Reads a range in one call, and one more call per page that cannot be read.

    Raises:
        ProcessExitedError: The process has ended.
        ProcessExecedError: The process runs another program.
        ClosedError: The process was closed.
    """
    room, known = bytearray(n), bytearray(n)
    at, end = start, min(start + n, vm.end)
    while at < end:
        try:
            vm.read_into(at, memoryview(room)[at - start : end - start])
        except PageFaultError as error:
            after = at + error.copied_len
            known[at - start : after - start] = b"\1" * error.copied_len
            room[after - start :] = bytes(start + n - after)
            at = page_end(after)
        else:
            known[at - start : end - start] = b"\1" * (end - at)
            at = end
    return Window(start, bytes(room), bytes(known))


class Changes:
    """Tracks which bytes changed since the last tick, and which did lately."""

    def __init__(self) -> None:
        self._last = NOTHING
        self._heat: dict[int, int] = {}

    def look(self, window: Window) -> None:
        """Compares with the last window at the addresses that both contain."""
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
            if AWAITED[0] in (window.known[new + k], last.known[old + k]):
                continue
            if (window.data[new + k], window.known[new + k]) != (
                last.data[old + k],
                last.known[old + k],
            ):
                self._heat[low + k] = _FADE_TICKS

    def moved(self, window: Window) -> None:
        """Takes another window between two ticks: nothing fades, nothing is compared."""
        old = self._last
        # The old bytes are kept where both overlap: the next tick compares with them.
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
        """Returns `FRESH`, `FADING`, or 0 for an unchanged byte."""
        left = self._heat.get(address, 0)
        return FRESH if left == _FADE_TICKS else FADING if left else 0
