"""One look of a scan: at a range of memory for the first time, or again at candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from procvm._local.buffers import view_of
from procvm._mm.extent import Content
from procvm._mm.memory import UserMemory
from procvm._space.gather import gather
from procvm._space.pieces import Task, leave_room, read_pieces, take_room
from procvm._space.walk import clipped

__all__ = ["Again", "Block", "First", "addresses_of", "without"]

_DENSE = 32
"""Slots for each hit up to which a bit a slot is smaller than a number a hit."""

_PAGE = 4096


class Block(NamedTuple):
    """The candidates of one run of memory.

    Attributes:
        start: The address of its first slot.
        nr: The number of slots, `align` bytes apart.
        hits: Which slots are candidates: bits, or the numbers of the slots; None for all.
        is_bits: Whether `hits` holds bits, or none for all.
        values: The value of each candidate at the last look.
    """

    start: int
    nr: int
    hits: Any
    is_bits: bool
    values: Any


def _block(np: Any, start: int, count: int, hits: Any, values: Any) -> Block:
    """Returns a block of the candidates with these slot numbers, kept the smallest way."""
    if len(hits) == count:
        return Block(start, count, None, True, values)
    if len(hits) * _DENSE <= count:
        return Block(start, count, hits.astype(np.uint32), False, values)
    bits = np.zeros(count, bool)
    bits[hits] = True
    return Block(start, count, np.packbits(bits), True, values)


def _slots(np: Any, block: Block) -> Any:
    """Returns the slot numbers of the candidates of a block."""
    if block.hits is None:
        return np.arange(block.nr, dtype=np.uint32)
    if not block.is_bits:
        return block.hits
    return np.flatnonzero(np.unpackbits(block.hits, count=block.nr))


def addresses_of(np: Any, block: Block, align: int) -> Any:
    """Returns the addresses of the candidates of a block as an array."""
    return _slots(np, block).astype(np.uint64) * np.uint64(align) + np.uint64(block.start)


def without(
    np: Any, block: Block, align: int, size: int, ranges: list[tuple[int, int]]
) -> Block | None:
    """Returns the candidates of a block of which no byte is in a range; None if none is left.

    Args:
        np: numpy.
        block: The candidates.
        align: Bytes from one slot to the next.
        size: Bytes of a value.
        ranges: Sorted, disjoint pairs (start, end).
    """
    slots = _slots(np, block)
    addresses = slots.astype(np.uint64) * np.uint64(align) + np.uint64(block.start)
    starts = np.array([start for start, _ in ranges], np.uint64)
    ends = np.array([end for _, end in ranges], np.uint64)
    # The last range that starts before the end of the value is the only one that may touch it.
    last = np.searchsorted(starts, addresses + np.uint64(size - 1), side="right")
    keep = (last == 0) | (ends[np.maximum(last, 1) - 1] <= addresses)
    if keep.all():
        return block
    if not keep.any():
        return None
    return _block(np, block.start, block.nr, slots[keep], block.values[keep])


def _read_values(
    np: Any, memory: UserMemory, start: int, count: int, dtype: Any
) -> tuple[Any, bool]:
    """Returns a new array of consecutive values; None where one of them cannot be read.

    The second value says whether none can.
    """
    values = np.empty(count, dtype)
    end = start + values.nbytes
    # SAFETY: `values` has as many bytes as the range.
    pieces, _ = read_pieces(memory, start, end, int(values.ctypes.data))
    return (values if pieces == [(start, end)] else None), not pieces


class First:
    """The first look at ranges, for values of one width."""

    def __init__(
        self, np: Any, dtype: Any, condition: Callable[[Any], Any] | None, align: int
    ) -> None:
        """Prepares a look.

        Args:
            np: The module numpy.
            dtype: The type of the values.
            condition: Which values are candidates; None for all.
            align: Bytes from one slot to the next.
        """
        self._np = np
        self._dtype = dtype
        self._condition = condition
        self._align = align

    def condition(self, values: Any) -> Any:
        """Returns which of the values are candidates."""
        return (
            self._np.ones(values.shape, bool)
            if self._condition is None
            else self._condition(values)
        )

    @staticmethod
    def all(looks: list[First], task: Task) -> list[tuple[list[Block], list[tuple[int, int]]]]:
        """Reads one range; returns the candidates of each look, and what could not be read."""
        if task.is_hole:
            return [([], [(task.start, task.end)]) for _ in looks]
        if len(looks) == 1 and looks[0]._takes_all:
            block = looks[0]._all_values(task)
            if block is not None:
                return [([block], [])]
        width = max(look._dtype.itemsize for look in looks)
        high = min(task.high, task.end + width - 1)
        room = take_room(high - task.start)
        try:
            pieces, skipped = read_pieces(task.memory, task.start, high, room.address)
            skipped = clipped(skipped, task.start, task.end)
            return [(look._blocks(task, room.view, pieces), skipped) for look in looks]
        finally:
            leave_room(room)

    @property
    def _takes_all(self) -> bool:
        """Whether all values are candidates, one after the other."""
        return self._condition is None and self._align == self._dtype.itemsize

    def _all_values(self, task: Task) -> Block | None:
        """Reads all values straight to where they are kept; None where that cannot be done."""
        count, rest = divmod(task.end - task.start, self._align)
        if task.is_hole or rest or task.start % self._align:
            return None
        values, _ = _read_values(self._np, task.memory, task.start, count, self._dtype)
        return None if values is None else Block(task.start, count, None, True, values)

    def _blocks(self, task: Task, view: memoryview, pieces: list[tuple[int, int]]) -> list[Block]:
        np, size, align = self._np, self._dtype.itemsize, self._align
        blocks: list[Block] = []
        for first, last in pieces:
            start = first + -first % align
            count = (min(last - size, task.end - 1) - start) // align + 1
            if start >= task.end or count <= 0:
                continue
            places = view[start - task.start : last - task.start]
            values = np.ndarray((count,), self._dtype, places, 0, (align,))
            if self._condition is None:
                blocks.append(Block(start, count, None, True, values.copy()))
                continue
            hits = np.flatnonzero(self._condition(values))
            if len(hits):
                blocks.append(_block(np, start, count, hits, values[hits]))
        return blocks


class Again:
    """A later look at blocks of one width.

    Attributes:
        kept: Where the caller keeps the blocks that are left.
    """

    def __init__(
        self,
        np: Any,
        memory: UserMemory,
        dtype: Any,
        condition: Callable[[Any], Any] | None,
        change: Callable[[Any, Any], Any] | None,
        align: int,
        kept: list[Block],
    ) -> None:
        self._np = np
        self._memory = memory
        self._dtype = dtype
        self._condition = condition
        self._change = change
        self._align = align
        self.kept = kept

    def __call__(self, block: Block) -> tuple[Block | None, list[tuple[int, int]]]:
        """Returns the candidates that are left, and the ranges that could not be read."""
        np = self._np
        if block.is_bits:
            found = self._whole(block)
            if found is not None:
                return found
        slots = _slots(np, block)
        values, read = self._read(block, slots)
        keep = read.copy()
        if self._condition is not None:
            keep &= self._condition(values)
        if self._change is not None:
            keep &= self._change(values, block.values)
        skipped = self._runs(addresses_of(np, block, self._align)[~read])
        if not keep.any():
            return None, skipped
        return _block(np, block.start, block.nr, slots[keep], values[keep]), skipped

    def _whole(self, block: Block) -> tuple[Block | None, list[tuple[int, int]]] | None:
        """Looks at a block with many candidates; returns None where a part cannot be read."""
        np, nr = self._np, block.nr
        if self._align == self._dtype.itemsize:
            now, nothing = _read_values(np, self._memory, block.start, nr, self._dtype)
            if nothing and block.hits is None:
                return None, [(block.start, block.start + nr * self._align)]
        else:
            now = self._overlapping(block)
        if now is None:
            return None
        mask = None
        if block.hits is not None:
            mask = np.unpackbits(block.hits, count=nr).view(bool)
            now = now[mask]
        keep = True if self._condition is None else self._condition(now)
        if self._change is not None:
            keep = keep & self._change(now, block.values)
        keep = np.broadcast_to(keep, now.shape)
        left = int(np.count_nonzero(keep))
        if left == len(now):
            return block._replace(values=now), []
        if mask is None:
            mask = keep
        else:
            mask[mask] = keep
        if not left:
            return None, []
        hits = np.flatnonzero(mask).astype(np.uint32) if left * _DENSE <= nr else np.packbits(mask)
        return Block(block.start, nr, hits, left * _DENSE > nr, now[keep]), []

    def _overlapping(self, block: Block) -> Any:
        """Returns the values of all slots of a block; None where one cannot be read."""
        n = (block.nr - 1) * self._align + self._dtype.itemsize
        room = take_room(n)
        try:
            pieces, _ = read_pieces(self._memory, block.start, block.start + n, room.address)
            data = view_of(room.address, n, writable=False)
            values = self._np.ndarray((block.nr,), self._dtype, data, 0, (self._align,))
            # A copy, since another piece of work uses the room next.
            return values.copy() if pieces == [(block.start, block.start + n)] else None
        finally:
            leave_room(room)

    def _runs(self, missed: Any) -> list[tuple[int, int]]:
        """Returns the ranges of the values at these addresses; neighbours are one range."""
        np, size = self._np, self._dtype.itemsize
        if not len(missed):
            return []
        cuts = np.flatnonzero(missed[1:] - missed[:-1] > size) + 1
        starts = missed[np.concatenate(([0], cuts))].tolist()
        ends = missed[np.concatenate((cuts, [len(missed)])) - 1].tolist()
        return [(start, end + size) for start, end in zip(starts, ends, strict=True)]

    def _read(self, block: Block, slots: Any) -> tuple[Any, Any]:
        """Returns the values of the candidates now, and which of them could be read."""
        np, size = self._np, self._dtype.itemsize
        low = block.start + int(slots[0]) * self._align
        high = block.start + int(slots[-1]) * self._align + size
        # Single reads through the target would allocate pages that were never touched.
        if len(slots) * _PAGE < high - low and all(
            extent.content is Content.DATA and extent.source is None
            for extent in self._memory.layout(low, high)
        ):
            addresses = slots.astype(np.uint64) * np.uint64(self._align) + np.uint64(block.start)
            values, read = gather(self._memory, addresses, self._dtype, "mask")
            return values, read
        room = take_room(high - low)
        try:
            pieces, _ = read_pieces(self._memory, low, high, room.address)
            offsets = (slots - slots[0]).astype(np.int64) * self._align
            # A copy, since another piece of work uses the room next.
            data = view_of(room.address, high - low, writable=False)
            count = high - low - size + 1
            values = np.ndarray((count,), self._dtype, data, 0, (1,))[offsets]
        finally:
            leave_room(room)
        read = np.zeros(len(slots), bool)
        for first, last in pieces:
            read |= (offsets >= first - low) & (offsets + size <= last - low)
        return values, read
