"""The hits of a search in their order: none of an expression inside another one of it.

Each piece of work finds the hits of an expression as if no match came over from the piece before.
Where one does, what follows it is found again, up to the first hit that both have: from there on
they are the same. So the hits do not depend on where memory was cut.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from procvm._space.patterns import Hit, Needle, Several

if TYPE_CHECKING:
    from procvm._space.search import Task

__all__ = ["Hits"]

_STEP = 1 << 16
"""Bytes that are searched again at a time."""


class _Matches:
    """The matches of one expression, piece by piece."""

    def __init__(self, needle: Needle, again: Callable[[Task], array[int]]) -> None:
        self._needle = needle
        self._again = again
        self._end = 0  # of the last match

    def next(self, task: Task, found: array[int]) -> array[int]:
        """Returns the (start, end) pairs of a piece that no match before it reaches into."""
        if found and found[0] < self._end:
            found = self._resumed(task, found)
        if found:
            self._end = found[-1]
        return found

    def _resumed(self, task: Task, found: array[int]) -> array[int]:
        starts = found[::2]
        kept = array("Q")
        at = self._end
        while at < task.end:
            stop = min(at + _STEP, task.end)
            pairs = self._again(task._replace(needle=self._needle, start=at, end=stop))
            for k in range(0, len(pairs), 2):
                same = bisect_left(starts, pairs[k])
                if same < len(starts) and starts[same] == pairs[k]:
                    return kept + found[2 * same :]
                kept.extend(pairs[k : k + 2])
            at = max(stop, kept[-1] if kept else 0)
        return kept


class Hits:
    """Makes hits of what the pieces of work found, which are given in their order."""

    def __init__(self, again: Callable[[Task], array[int]]) -> None:
        """Makes one.

        Args:
            again: Searches a piece; returns what `Found.hits` has.
        """
        self._again = again
        self._matches: dict[int, _Matches] = {}

    def next(self, task: Task, found: array[int]) -> Iterator[int]:
        """Yields the hits of the next piece."""
        needle = task.needle
        if needle.stride == 1:
            yield from found
        elif isinstance(needle, Several):
            yield from self._of_several(task, needle, found)
        else:
            pairs = self._of(0, needle).next(task, found)
            for at, end in zip(pairs[::2], pairs[1::2], strict=True):
                yield Hit(at, 0, end)

    def _of(self, number: int, needle: Needle) -> _Matches:
        if number not in self._matches:
            self._matches[number] = _Matches(needle, self._again)
        return self._matches[number]

    def _of_several(self, task: Task, several: Several, found: array[int]) -> Iterator[Hit]:
        hits: list[tuple[int, int, int]] = []
        pairs = {k: array("Q") for k, one in enumerate(several.needles) if one.stride == 2}
        for at, number, end in zip(found[::3], found[1::3], found[2::3], strict=True):
            if number in pairs:
                pairs[number].extend((at, end))
            else:
                hits.append((at, number, end))
        for number, some in pairs.items():
            kept = self._of(number, several.needles[number]).next(task, some)
            hits += [(kept[k], number, kept[k + 1]) for k in range(0, len(kept), 2)]
        for at, number, end in sorted(hits):
            yield Hit(at, number, end)
