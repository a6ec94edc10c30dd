"""The hits of a search in their order: none of an expression inside another one of it.

Each piece of work finds the hits of an expression as if no match reached over from the piece
before. Where one does, the search runs again after it, up to the first hit that both runs have:
from there on they agree. So the hits do not depend on where memory was cut.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from procvm._space.patterns import Hit, Needle, Several
from procvm._space.pieces import Found, Task, run_task

__all__ = ["Hits"]

_STEP = 1 << 16
"""Bytes that are searched again at a time."""


class _Pairs(NamedTuple):
    """Hits as (start, end) words, and their bytes one after the other."""

    words: array[int]
    matches: bytearray


class _Matches:
    """The matches of one expression, piece by piece."""

    def __init__(self, needle: Needle) -> None:
        self._needle = needle
        self._end = 0  # of the last match

    def next(self, task: Task, found: _Pairs) -> _Pairs:
        """Returns the hits of a piece that no match before it reaches into."""
        if found.words and found.words[0] < self._end:
            found = self._resumed(task, found)
        if found.words:
            self._end = found.words[-1]
        return found

    def _resumed(self, task: Task, found: _Pairs) -> _Pairs:
        starts = found.words[::2]
        words, matches = array("Q"), bytearray()
        at = self._end
        while at < task.end:
            stop = min(at + _STEP, task.end)
            again = run_task(task._replace(needle=self._needle, start=at, end=stop))
            done = 0
            for k in range(0, len(again.words), 2):
                start, end = again.words[k : k + 2]
                same = bisect_left(starts, start)
                if same < len(starts) and starts[same] == start:
                    before = found.words[: 2 * same]
                    rest = found.matches[sum(before[1::2]) - sum(before[::2]) :]
                    return _Pairs(words + found.words[2 * same :], matches + rest)
                words.extend((start, end))
                matches += again.matches[done : done + end - start]
                done += end - start
            at = max(stop, words[-1] if words else 0)
        return _Pairs(words, matches)


class Hits:
    """Makes hits of what the pieces of work found, which come in their order."""

    def __init__(self) -> None:
        self._matches: dict[int, _Matches] = {}

    def next(self, task: Task, found: Found) -> Iterator[Hit]:
        """Yields the hits of the next piece."""
        needle = task.needle
        if isinstance(needle, Several):
            return self._of_several(task, needle, found)
        if needle.stride == 1:
            return _of_one_size(needle, found)
        pairs = _Pairs(found.words, found.matches)
        return _hits(self._of(0, needle).next(task, pairs) if needle.is_disjoint else pairs)

    def _of(self, number: int, needle: Needle) -> _Matches:
        if number not in self._matches:
            self._matches[number] = _Matches(needle)
        return self._matches[number]

    def _of_several(self, task: Task, several: Several, found: Found) -> Iterator[Hit]:
        hits: list[tuple[int, int, bytes]] = []
        pairs = {
            k: _Pairs(array("Q"), bytearray())
            for k, one in enumerate(several.needles)
            if one.is_disjoint
        }
        done = 0
        words = found.words
        for at, number, end in zip(words[::3], words[1::3], words[2::3], strict=True):
            match = bytes(found.matches[done : done + end - at])
            done += end - at
            if number in pairs:
                pairs[number].words.extend((at, end))
                pairs[number].matches.extend(match)
            else:
                hits.append((at, number, match))
        for number, some in pairs.items():
            kept = self._of(number, several.needles[number]).next(task, some)
            hits += [(int(hit), number, hit.match) for hit in _hits(kept)]
        for at, number, match in sorted(hits):
            yield Hit(at, number, match)


def _hits(pairs: _Pairs) -> Iterator[Hit]:
    done = 0
    for at, end in zip(pairs.words[::2], pairs.words[1::2], strict=True):
        yield Hit(at, 0, bytes(pairs.matches[done : done + end - at]))
        done += end - at


def _of_one_size(needle: Needle, found: Found) -> Iterator[Hit]:
    # Without `Hit.__new__`, which would double the time for each of maybe millions.
    new, literal, size = int.__new__, needle.literal, needle.after + 1
    for k, at in enumerate(found.words):
        hit = new(Hit, at)
        hit.match = bytes(found.matches[k * size : k * size + size]) if literal is None else literal
        yield hit
