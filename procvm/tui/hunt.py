"""`Hunt`: a search in a thread, whose hits can be used while it runs."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from contextlib import closing
from typing import Any

from procvm._space.patterns import NOTHING, needle_of
from procvm._space.space import VmSpace
from procvm._space.walk import clipped
from procvm.errors import ProcvmError

__all__ = ["Hunt"]

_MOST = 100_000


class _GivenUpError(Exception):
    """The user cancelled the search."""


class Hunt:
    """A search for all hits: first those from an address on, then those before it.

    Attributes:
        what: The text that the user typed.
        length: The length of a hit in bytes.
        is_done: Whether the search has ended.
        is_cut: Whether it ended because there are too many hits.
        error: The error that ended it.
    """

    def __init__(self, vm: VmSpace, what: str, asked: dict[str, Any], start: int) -> None:
        """Checks the pattern; `run` searches.

        Raises:
            ValueError: The pattern is wrong, or matches everywhere.
            UnsupportedError: A package is not installed; the message names it.
        """
        self.what = what
        self.length = needle_of(asked["what"], asked.get("value", NOTHING), 1, 1).after + 1
        self.is_done = False
        self.is_cut = False
        self.error: ProcvmError | None = None
        self._vm = vm
        self._asked = asked
        self._start = min(start, vm.end)
        # Both ascending. The search fills the second first.
        self._before: list[int] = []
        self._after: list[int] = []
        self._done = 0
        self._total = 1
        self._is_given_up = False

    def run(self) -> None:
        """Searches all readable memory; ends early after `give_up`."""
        try:
            readable = self._vm.ranges(None, "r")
            start, end = self._start, self._vm.end
            parts = (
                (clipped(readable, start, end), self._after),
                (clipped(readable, 0, min(start + self.length - 1, end)), self._before),
            )
            self._total = max(sum(b - a for ranges, _ in parts for a, b in ranges), 1)
            for ranges, hits in parts:
                base = self._done
                self._search(ranges, hits, base)
                if self.is_cut:
                    return
                self._done = base + sum(b - a for a, b in ranges)
        except _GivenUpError:
            return
        except ProcvmError as error:
            self.error = error
        finally:
            self.is_done = True

    def _search(self, ranges: list[tuple[int, int]], hits: list[int], base: int) -> None:
        def progress(done: int, _total: int) -> None:
            if self._is_given_up:
                raise _GivenUpError
            self._done = base + done

        room = _MOST - len(self._after)
        with closing(self._vm.search(**self._asked, ranges=ranges, progress=progress)) as found:
            for hit in itertools.islice(found, room):
                hits.append(int(hit))
                if self._is_given_up:
                    raise _GivenUpError
        self.is_cut = len(hits) >= room

    def give_up(self) -> None:
        """Cancels the search; the hits stay."""
        self._is_given_up = True

    @property
    def percent(self) -> int:
        """The searched part of memory in percent."""
        return min(100 * self._done // self._total, 100)

    @property
    def found(self) -> int:
        """How many hits were found so far."""
        return len(self._before) + len(self._after)

    def hits(self) -> list[int]:
        """Returns the hits so far, ascending."""
        return [*self._before, *self._after]

    def nearest(self) -> int | None:
        """Returns the first hit after the start, else the first of all; None without hits."""
        if self._after:
            return self._after[0]
        return self._before[0] if self._before else None

    def next(self, address: int, by: int) -> int | None:
        """Returns the hit after (1) or before (-1) an address, or None.

        It wraps around the ends of memory once all hits are known.
        """
        hits = self.hits()
        if not hits:
            return None
        at = bisect_right(hits, address) if by > 0 else bisect_left(hits, address) - 1
        if not 0 <= at < len(hits):
            if not self.is_done:
                return None
            at %= len(hits)
        return hits[at]

    def number(self, address: int) -> int:
        """Returns the number of a hit, counted from 1; 0 if the address is not a hit."""
        hits = self.hits()
        at = bisect_left(hits, address)
        return at + 1 if at < len(hits) and hits[at] == address else 0
