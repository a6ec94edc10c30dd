"""Literals and texts found by an engine: stringzilla, hyperscan, or numpy.

Every engine gives the same hits as memmem at each place, overlapping ones too. Where none is
installed, or where there are so many hits that calls for each would take longer than a comparison
of all places, the functions return None, and `_local.find` looks for each literal by itself.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any, TypeAlias

from procvm._base.optional import numpy_or_none, optional
from procvm._local.pool import Pool
from procvm._space.needle import Needle

__all__ = ["Literals", "TextRuns", "find_literal"]

_FEW = 1000
"""Hits in a piece up to which a call for each is worth while."""

_MANY = 50_000
"""Hits in a piece from which on hyperscan's calls of Python cost more than they save."""

_BLOCK_LEN = 1 << 16

_WORTH = 4
"""Literals from which on one pass for all of them is quicker than one for each."""


def find_literal(view: memoryview, literal: bytes) -> array[int] | None:
    """Returns the offsets of a literal, overlapping ones too; None where no engine serves."""
    stringzilla = optional("stringzilla")
    if stringzilla is None:
        return None
    find = stringzilla.find
    hits = array("Q")
    at = find(view, literal)
    while at >= 0:
        hits.append(at)
        if len(hits) > _FEW:
            return None
        at = find(view, literal, at + 1)
    return hits


_Table: TypeAlias = tuple[Any, Any, list[list[tuple[int, int]]]]


class Literals:
    """Several literals that are looked for in one pass; pickles without what an engine made."""

    def __init__(self, values: list[bytes]) -> None:
        self._values = values
        self._prepare()

    def _prepare(self) -> None:
        self._database: Any = None
        self._scratches: Pool[Any] | None = None
        self._table: _Table | None = None

    def __getstate__(self) -> tuple[list[bytes]]:
        return (self._values,)

    def __setstate__(self, state: tuple[list[bytes]]) -> None:
        (self._values,) = state
        self._prepare()

    def find(self, view: memoryview) -> list[array[int]] | None:
        """Returns the offsets of each literal, in order; None where no engine serves."""
        if len(self._values) < _WORTH:
            return None
        found = None
        hyperscan = optional("hyperscan")
        if hyperscan is not None:
            found = self._by_hyperscan(hyperscan, view)
        if found is None and numpy_or_none() is not None:
            found = self._by_numpy(numpy_or_none(), view)
        return found

    def _by_hyperscan(self, hyperscan: Any, view: memoryview) -> list[array[int]] | None:
        scratches = self._scratches
        if scratches is None:
            database = hyperscan.Database()
            database.compile(
                # Each byte by its number: none has a meaning in an expression then.
                expressions=[
                    b"".join(b"\\x%02x" % byte for byte in value) for value in self._values
                ],
                ids=list(range(len(self._values))),
                elements=len(self._values),
                flags=[hyperscan.HS_FLAG_DOTALL] * len(self._values),
            )
            first = hyperscan.Scratch(database)
            self._database = database
            scratches = self._scratches = Pool(8, first.clone)
        hits = [array("Q") for _ in self._values]
        lengths = [len(value) for value in self._values]
        left = _MANY

        def note(number: int, _start: int, end: int, _flags: int, _context: object) -> bool:
            nonlocal left
            left -= 1
            hits[number].append(end - lengths[number])
            return left < 0

        # A scratch serves one thread at a time.
        scratch = scratches.take()
        try:
            self._database.scan(view, match_event_handler=note, scratch=scratch)
        except hyperscan.ScanTerminated:
            return None
        finally:
            scratches.leave(scratch)
        return hits

    def _by_numpy(self, np: Any, view: memoryview) -> list[array[int]] | None:
        """Compares every word of two bytes with a table of those that the literals have."""
        if any(len(value) < 2 for value in self._values):
            return None
        if self._table is None:
            self._table = _table_of(np, self._values)
        table, words, groups = self._table
        literals = self._values
        data = np.frombuffer(view, np.uint8)
        hits: list[list[Any]] = [[] for _ in self._values]
        for parity in range(2):
            if len(view) < parity + 2:
                continue
            here = np.frombuffer(view, np.uint16, (len(view) - parity) // 2, parity)
            places = np.flatnonzero(table[here])
            if len(places) > _MANY:
                return None
            found = here[places]
            order = np.argsort(found, kind="stable")
            places, found = places[order] * 2 + parity, found[order]
            lows, highs = np.searchsorted(found, words), np.searchsorted(found, words, "right")
            present: list[int] = np.flatnonzero(highs > lows).tolist()
            for k in present:
                for number, at in groups[k]:
                    value = literals[number]
                    starts: Any = places[lows[k] : highs[k]] - at
                    starts = starts[(starts >= 0) & (starts <= len(data) - len(value))]
                    for offset in range(len(value)):
                        if not len(starts):
                            break
                        starts = starts[data[starts + offset] == value[offset]]
                    if len(starts):
                        hits[number].append(starts)
        return [
            array("Q", np.sort(np.concatenate(some)).astype(np.uint64).tobytes())
            if some
            else array("Q")
            for some in hits
        ]


def _table_of(np: Any, values: list[bytes]) -> _Table:
    """Returns marks by word, the words in order, and of each its (literal, offset) pairs."""
    groups: dict[int, list[tuple[int, int]]] = {}
    for number, value in enumerate(values):
        at = max(range(len(value) - 1), key=lambda at: _rarity(value[at : at + 2]))
        word = int.from_bytes(value[at : at + 2], sys.byteorder)
        groups.setdefault(word, []).append((number, at))
    table = np.zeros(1 << 16, bool)
    words = sorted(groups)
    table[words] = True
    return table, np.array(words, np.uint16), [groups[word] for word in words]


def _rarity(word: bytes) -> int:
    return sum(byte not in (0, 0xFF) for byte in word)


class TextRuns(Needle):
    """The first `min_len` bytes of each run of bytes that are within some ranges."""

    stride = 2
    before = 1

    def __init__(self, ranges: tuple[tuple[int, int], ...], min_len: int) -> None:
        """Makes a needle.

        Args:
            ranges: The first and the last byte of each range.
            min_len: The length of the shortest run.
        """
        self._ranges = ranges
        self.after = min_len - 1

    def find(self, view: memoryview, address: int, base: int) -> array[int]:
        """Returns the offsets at which a run begins; needs numpy."""
        np = numpy_or_none()
        return array("Q", self._starts(np, view).astype(np.uint64).tobytes())

    def find_between(
        self, view: memoryview, address: int, base: int, first: int, last: int
    ) -> array[int]:
        """Returns the address and the end of each run that begins between two offsets."""
        np = numpy_or_none()
        starts = self._starts(np, view)
        starts = starts[(starts >= first) & (starts < last)].astype(np.uint64) + np.uint64(base)
        pairs = np.repeat(starts, 2)
        pairs[1::2] += np.uint64(self.after + 1)
        return array("Q", pairs.tobytes())

    def _starts(self, np: Any, view: memoryview) -> Any:
        data = np.frombuffer(view, np.uint8)
        # In blocks that the caches hold: new pages for a block of MiB take longer than the work.
        parts: list[Any] = []
        for begin in range(0, len(data), _BLOCK_LEN):
            low = max(begin - 1, 0)
            found = self._starts_in(np, data[low : begin + _BLOCK_LEN + self.after])
            parts.append(found[found >= begin - low] + low)
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _starts_in(self, np: Any, data: Any) -> Any:
        is_text = np.zeros(len(data), bool)
        for low, high in self._ranges:
            is_text |= (data - np.uint8(low)) <= np.uint8(high - low)
        # begins[k]: the `n` bytes from k on are all of a text. Twice as many with each step.
        begins, n = is_text, 1
        while n <= self.after:
            step = min(n, self.after + 1 - n)
            if len(begins) <= step:
                return np.zeros(0, np.int64)
            begins = begins[: len(begins) - step] & begins[step:]
            n += step
        begins = begins.copy() if begins is is_text else begins
        begins[1:] &= ~is_text[: len(begins) - 1]
        return np.flatnonzero(begins)
