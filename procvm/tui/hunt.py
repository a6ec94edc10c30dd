"""`Hunt`: a search that goes on in a thread while a person looks at what it has found."""

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
    """It is not wanted any more."""


class Hunt:
    """All places where something stands: first those behind an address, then those before it.

    Attributes:
        what: What is looked for, as a person typed it.
        length: Bytes of it.
        is_done: Whether all was looked at, or as much as is.
        is_cut: Whether it stopped since there are too many.
        error: Why it broke off.
    """

    def __init__(self, vm: VmSpace, what: str, asked: dict[str, Any], start: int) -> None:
        """Checks what is asked for; `run` is what takes time.

        Raises:
            ValueError: It stands everywhere, or is no pattern.
            UnsupportedError: A package is not installed, which the message names.
        """
        self.what = what
        self.length = needle_of(asked["what"], asked.get("value", NOTHING), 1, 1).after + 1
        self.is_done = False
        self.is_cut = False
        self.error: ProcvmError | None = None
        self._vm = vm
        self._asked = asked
        self._start = min(start, vm.end)
        # In order, and all those of the first before any of the second.
        self._before: list[int] = []
        self._behind: list[int] = []
        self._done = 0
        self._total = 1
        self._is_given_up = False

    def run(self) -> None:
        """Looks everywhere; ends early once it is given up."""
        try:
            readable = self._vm.ranges(None, "r")
            start, end = self._start, self._vm.end
            parts = (
                (clipped(readable, start, end), self._behind),
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

        room = _MOST - len(self._behind)
        with closing(self._vm.search(**self._asked, ranges=ranges, progress=progress)) as found:
            for hit in itertools.islice(found, room):
                hits.append(int(hit))
                if self._is_given_up:
                    raise _GivenUpError
        self.is_cut = len(hits) >= room

    def give_up(self) -> None:
        """Ends the search soon; what was found stays."""
        self._is_given_up = True

    @property
    def percent(self) -> int:
        """How much was looked at."""
        return min(100 * self._done // self._total, 100)

    @property
    def found(self) -> int:
        """How many places there are, so far."""
        return len(self._before) + len(self._behind)

    def hits(self) -> list[int]:
        """Returns the places, so far, in order."""
        return [*self._before, *self._behind]

    def nearest(self) -> int | None:
        """Returns the first place behind the start, if there is any, else the first of all."""
        if self._behind:
            return self._behind[0]
        return self._before[0] if self._before else None

    def next(self, address: int, by: int) -> int | None:
        """Returns the place behind (1) or before (-1) an address, around the end if all are known.

        None if there is none, or none is known so far.
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
        """Returns which of the places an address is, from 1 on; 0 if it is none of them."""
        hits = self.hits()
        at = bisect_left(hits, address)
        return at + 1 if at < len(hits) and hits[at] == address else 0
