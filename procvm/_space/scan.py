"""Scan: values that are narrowed down, look by look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, final

from procvm._base.optional import required
from procvm._local.buffers import view_of
from procvm._mm.extent import Content
from procvm._mm.memory import UserMemory
from procvm._space.condition import condition_of
from procvm._space.element import Element
from procvm._space.gather import gather
from procvm._space.patterns import NOTHING, Values
from procvm._space.pieces import (
    Task,
    leave_room,
    nr_threads,
    read_pieces,
    results,
    take_room,
    tasks_of,
)
from procvm._space.ranges import add_range
from procvm._space.walk import clipped

__all__ = ["CHUNK_LEN", "Change", "Scan"]

CHUNK_LEN = 1 << 20
"""Bytes that are looked at at a time; candidates everywhere take several times as much."""

Change = Literal["changed", "unchanged", "increased", "decreased"]
Progress = Callable[[int, int], object]

_DENSE = 32
"""Slots for each hit up to which a bit a slot is smaller than a number a hit."""

_PAGE = 4096


class _Block(NamedTuple):
    """The candidates of one run of memory.

    Attributes:
        start: Where its first slot stands.
        nr: Slots, `align` bytes apart.
        hits: Which of them are candidates: bits, or their numbers.
        is_bits: Which of the two it is.
        values: What stood in each candidate when it was looked at last.
    """

    start: int
    nr: int
    hits: Any
    is_bits: bool
    values: Any


@final
class Scan:
    """The addresses at which a value may be, fewer with each `refine`.

    Where most of memory is a candidate a scan keeps a bit for each place and a
    copy of the values: about what it looks at. It is no iterator: it can be
    gone through again and again, in the order of addresses.

    Attributes:
        skipped: Ranges (start, end) that could not be read, at the first look or
            at a later one; what was there is no candidate any more.
    """

    def __init__(
        self,
        memory: UserMemory,
        element: Element,
        value: Any,
        ranges: list[tuple[int, int]],
        *,
        align: int,
        threads: int | None,
        progress: Progress | None,
    ) -> None:
        self._np = required("numpy", "a scan")
        if element.dtype is None or element.dtype.kind not in "biufc":
            raise TypeError(f"{element.dtype or element.pod} is not a number, and has no order")
        self.skipped: list[tuple[int, int]] = []
        self._memory = memory
        self._element = element
        self._align = align
        self._threads = threads
        condition = self._anything if value is NOTHING else condition_of(value, element)
        needle = Values(element, condition, align)
        total = sum(end - start for start, end in ranges)
        self._blocks: list[_Block] = []
        tasks = tasks_of(memory, needle, ranges, CHUNK_LEN)
        done = 0
        look = _First(self._np, element.dtype, condition, align)
        for found, n in results(look, tasks, nr_threads(threads, None, total), None):
            if found is not None:
                blocks, skipped = found
                self._blocks += blocks
                for start, end in skipped:
                    add_range(self.skipped, start, end)
            done += n
            if progress is not None:
                progress(done, total)

    def _anything(self, values: Any) -> Any:
        return self._np.ones(values.shape, bool)

    def refine(
        self,
        how: Change | None = None,
        *,
        value: Any = NOTHING,
        progress: Progress | None = None,
    ) -> Scan:
        """Looks again at every candidate, and keeps those that fulfil what is asked for.

        Args:
            how: ``"changed"``, ``"unchanged"``, ``"increased"`` or ``"decreased"``
                since the last look.
            value: A number, a range, a pair (lowest, highest), or a predicate over
                arrays. Both may be asked for.
            progress: Is called with (candidates looked at, candidates in all).

        Returns:
            The same scan.

        Raises:
            ValueError: Nothing was asked for, or another word.
        """
        if how is not None and how not in _CHANGES:
            raise ValueError(f"{how!r} is not one of {', '.join(_CHANGES)}")
        if how is None and value is NOTHING:
            raise ValueError("say what to keep: refine('changed'), refine(value=5), ...")
        condition = None if value is NOTHING else condition_of(value, self._element)
        total, done = len(self), 0
        tasks = ((block, len(block.values)) for block in self._blocks)
        again = _Again(self._np, self._memory, self._element, condition, how, self._align)
        kept: list[_Block] = []
        skipped: list[tuple[int, int]] = []
        threads = nr_threads(self._threads, None, total * self._element.size)
        for found, n in results(again, tasks, threads, None):
            if found is not None:
                block, missed = found
                if block is not None:
                    kept.append(block)
                for start, end in missed:
                    add_range(skipped, start, end)
            done += n
            if progress is not None:
                progress(done, total)
        # Only now: an error on the way leaves the scan as it was.
        self._blocks = kept
        self.skipped += skipped
        return self

    def __len__(self) -> int:
        """Returns the number of candidates."""
        return sum(len(block.values) for block in self._blocks)

    def __iter__(self) -> Iterator[int]:
        """Goes through the addresses of the candidates."""
        for block in self._blocks:
            yield from _addresses(self._np, block, self._align).tolist()

    def addresses(self) -> Any:
        """Returns the addresses of all candidates as an array."""
        np = self._np
        parts = [_addresses(np, block, self._align) for block in self._blocks]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)

    def values(self) -> Any:
        """Returns what stood in each candidate at the last look, as an array."""
        np = self._np
        parts = [block.values for block in self._blocks]
        # numpy would turn the bytes of others to the machine's order.
        found = np.empty(len(self), self._element.dtype)
        return np.concatenate(parts, out=found) if parts else found

    def __repr__(self) -> str:
        return f"<Scan of {self._memory!r}: {len(self)} candidates>"


_CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "changed": lambda new, old: new != old,
    "unchanged": lambda new, old: new == old,
    "increased": lambda new, old: new > old,
    "decreased": lambda new, old: new < old,
}


def _block(np: Any, start: int, count: int, hits: Any, values: Any) -> _Block:
    """Returns a block of the candidates with these numbers, kept the smaller way."""
    if len(hits) * _DENSE <= count:
        return _Block(start, count, hits.astype(np.uint32), False, values)
    bits = np.zeros(count, bool)
    bits[hits] = True
    return _Block(start, count, np.packbits(bits), True, values)


def _slots(np: Any, block: _Block) -> Any:
    """Returns the numbers of the candidates of a block."""
    if not block.is_bits:
        return block.hits
    return np.flatnonzero(np.unpackbits(block.hits, count=block.nr))


def _addresses(np: Any, block: _Block, align: int) -> Any:
    return _slots(np, block).astype(np.uint64) * np.uint64(align) + np.uint64(block.start)


class _First:
    """The first look at one range."""

    def __init__(self, np: Any, dtype: Any, condition: Callable[[Any], Any], align: int) -> None:
        self._np = np
        self._dtype = dtype
        self._condition = condition
        self._align = align

    def __call__(self, task: Task) -> tuple[list[_Block], list[tuple[int, int]]]:
        if task.is_hole:
            return [], [(task.start, task.end)]
        np, size, align = self._np, self._dtype.itemsize, self._align
        high = min(task.high, task.end + size - 1)
        room = take_room(high - task.start)
        blocks: list[_Block] = []
        try:
            pieces, skipped = read_pieces(task.memory, task.start, high, room)
            for first, last in pieces:
                start = first + -first % align
                count = (min(last - size, task.end - 1) - start) // align + 1
                if start >= task.end or count <= 0:
                    continue
                places = room.view[start - task.start : last - task.start]
                values = np.ndarray((count,), self._dtype, places, 0, (align,))
                hits = np.flatnonzero(self._condition(values))
                if len(hits):
                    blocks.append(_block(np, start, count, hits, values[hits]))
        finally:
            leave_room(room)
        return blocks, clipped(skipped, task.start, task.end)


class _Again:
    """A later look at one block."""

    def __init__(
        self,
        np: Any,
        memory: UserMemory,
        element: Element,
        condition: Callable[[Any], Any] | None,
        how: str | None,
        align: int,
    ) -> None:
        self._np = np
        self._memory = memory
        self._dtype = element.dtype
        self._condition = condition
        self._change = None if how is None else _CHANGES[how]
        self._align = align

    def __call__(self, block: _Block) -> tuple[_Block | None, list[tuple[int, int]]]:
        np = self._np
        slots = _slots(np, block)
        values, read = self._read(block, slots)
        keep = read.copy()
        if self._condition is not None:
            keep &= self._condition(values)
        if self._change is not None:
            keep &= self._change(values, block.values)
        skipped = self._runs(_addresses(np, block, self._align)[~read])
        if not keep.any():
            return None, skipped
        return _block(np, block.start, block.nr, slots[keep], values[keep]), skipped

    def _runs(self, missed: Any) -> list[tuple[int, int]]:
        """Returns what the values at these addresses take, neighbours as one range."""
        np, size = self._np, self._dtype.itemsize
        if not len(missed):
            return []
        cuts = np.flatnonzero(missed[1:] - missed[:-1] > size) + 1
        starts = missed[np.concatenate(([0], cuts))].tolist()
        ends = missed[np.concatenate((cuts, [len(missed)])) - 1].tolist()
        return [(start, end + size) for start, end in zip(starts, ends, strict=True)]

    def _read(self, block: _Block, slots: Any) -> tuple[Any, Any]:
        """Returns what stands in the candidates now, and which of them could be read."""
        np, size = self._np, self._dtype.itemsize
        low = block.start + int(slots[0]) * self._align
        high = block.start + int(slots[-1]) * self._align + size
        # Single reads through the target would allocate the pages that exist nowhere.
        if len(slots) * _PAGE < high - low and all(
            extent.content is Content.DATA and extent.source is None
            for extent in self._memory.layout(low, high)
        ):
            addresses = slots.astype(np.uint64) * np.uint64(self._align) + np.uint64(block.start)
            values, read = gather(self._memory, addresses, self._dtype, "mask")
            return values, read
        room = take_room(high - low)
        try:
            pieces, _ = read_pieces(self._memory, low, high, room)
            offsets = (slots - slots[0]).astype(np.int64) * self._align
            # A copy: the room is another one's soon.
            data = view_of(room.address, high - low, writable=False)
            count = high - low - size + 1
            values = np.ndarray((count,), self._dtype, data, 0, (1,))[offsets]
        finally:
            leave_room(room)
        read = np.zeros(len(slots), bool)
        for first, last in pieces:
            read |= (offsets >= first - low) & (offsets + size <= last - low)
        return values, read
