"""The differences between a copy and other memory."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from procvm._base.address import PAGE_SIZE
from procvm._base.optional import numpy_or_none
from procvm._local.buffers import Pin, Scratch
from procvm._local.find import same
from procvm._mm.extent import Content, Source
from procvm._mm.memory import UserMemory
from procvm._saved.saved_memory import KeptMemory
from procvm._space.walk import parts, read_extents
from procvm.errors import PageFaultError

__all__ = [
    "Run",
    "compared",
    "differences",
    "looks",
    "pairs_in",
    "part_of",
    "runs_of",
    "without",
    "zeros",
]

_COMPARE_LEN = 1 << 21
_BLOCK_LEN = 1 << 16


class Run(NamedTuple):
    """Consecutive bytes that differ.

    Attributes:
        address: The address of the first one.
        old: The bytes of the snapshot.
        new: The bytes of the other memory, as many.
    """

    address: int
    old: bytes
    new: bytes


def differences(
    kept: KeptMemory, other: UserMemory, where: list[tuple[int, int]] | None
) -> Iterator[Run]:
    """Yields the runs that differ; those that meet at a border of two looks are joined."""
    at = end = -1
    old: list[bytes] = []
    new: list[bytes] = []
    for start, stop, kept_bytes in looks(kept, where):
        for address, was, now in compared(start, stop, kept_bytes, other):
            if address != end:
                if old:
                    yield Run(at, b"".join(old), b"".join(new))
                at, old, new = address, [], []
            old.append(was)
            new.append(now)
            end = address + len(was)
    if old:
        yield Run(at, b"".join(old), b"".join(new))


def looks(
    kept: KeptMemory, where: list[tuple[int, int]] | None
) -> Iterator[tuple[int, int, Pin | None]]:
    """Yields (start, end, bytes) of the copy: data a few MiB at a time, zeros whole.

    The bytes of zeros, which may be terabytes, are None.
    """
    pieces = kept.pieces()
    if where is None:
        where = [(pieces[0].start, pieces[-1].end)] if pieces else []
    for part in parts(kept, where, _COMPARE_LEN):
        if part.content is Content.ZEROS:
            yield part.start, part.end, None
        for start, end, _, _ in part.extents:
            yield start, end, _bytes_of(kept, start, end)


def _bytes_of(memory: KeptMemory, start: int, end: int) -> Pin:
    """Returns the readable bytes of a range, in place if they are in the tool's memory."""
    n = end - start
    return _in_place(memory, start, end) or _read(memory, Scratch(n), start, n)[0]


def _read(source: Source, room: Scratch, at: int, n: int) -> tuple[Pin, bool]:
    """Reads a range; returns the bytes up to a fault, and whether that is all."""
    try:
        source.read(at, room.address, n)
    except PageFaultError as error:
        return Pin(room.address, error.copied_len, room.view[: error.copied_len]), False
    return Pin(room.address, n, room.view[:n]), True


def pairs_in(
    start: int, end: int, old: Pin | None, other: UserMemory
) -> Iterator[tuple[int, int, Pin | None, Pin | None]]:
    """Yields (start, end, old, new) of the bytes that both have of a look; None means zeros."""
    if old is not None:
        end = start + old.n  # a core file that was cut off since has fewer
    room: Scratch | None = None
    for part in parts(other, [(start, end)], _COMPARE_LEN):
        if part.content is Content.ZEROS:
            was = part_of(old, part.start - start, part.end - part.start) if old else None
            yield part.start, part.end, was, None
        for extent in part.extents:
            low, high = extent.start, extent.end
            new = _in_place(other, low, high)
            if new is not None:
                yield low, high, part_of(old, low - start, high - low) if old else None, new
                continue
            room = room or Scratch(min(end - start, _COMPARE_LEN))
            for at, until, content, _ in read_extents(other, [extent], low, room.address):
                if content is Content.DATA:
                    n = until - at
                    new = Pin(room.address + at - low, n, room.view[at - low : until - low])
                    yield at, until, part_of(old, at - start, n) if old else None, new


def _in_place(memory: UserMemory, start: int, end: int) -> Pin | None:
    """Returns the bytes of a range if one piece in the tool's memory has them all."""
    if isinstance(memory, KeptMemory):
        for piece in memory.between(start, end):
            return piece.in_memory(start, end)
    return None


def compared(
    start: int, end: int, old: Pin | None, other: UserMemory
) -> Iterator[tuple[int, bytes, bytes]]:
    """Yields (address, old, new) of each run of a look that differs."""
    for low, high, was, now in pairs_in(start, end, old, other):
        if was is None and now is None:
            continue
        a, b = was or zeros(high - low), now or zeros(high - low)
        for first, last in runs_of(a, b):
            yield low + first, bytes(a.view[first:last]), bytes(b.view[first:last])


def part_of(of: Pin, offset: int, n: int) -> Pin:
    """Returns a part of a buffer."""
    return Pin(of.address + offset, n, of.view[offset : offset + n])


def zeros(n: int) -> Pin:
    """Returns `n` zeros, at most as many as are compared at a time."""
    return part_of(_zeros(), 0, n)


@functools.cache
def _zeros() -> Pin:
    room = Scratch(_COMPARE_LEN)
    return Pin(room.address, _COMPARE_LEN, room.view)


def without(
    pairs: list[tuple[int, int]], holes: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yields the ranges without the holes; both are in order."""
    first = 0
    for start, end in pairs:
        while first < len(holes) and holes[first][1] <= start:
            first += 1
        at, k = start, first
        while k < len(holes) and holes[k][0] < end:
            if at < holes[k][0]:
                yield at, holes[k][0]
            at = holes[k][1]
            k += 1
        if at < end:
            yield at, end


def runs_of(old: Pin, new: Pin) -> list[tuple[int, int]]:
    """Returns the runs of offsets at which two buffers of one length differ."""
    np = numpy_or_none()
    step = PAGE_SIZE if np is None else _BLOCK_LEN
    runs: list[tuple[int, int]] = []
    for begin in range(0, new.n, step):
        n = min(step, new.n - begin)
        # Most blocks are equal, and memcmp finds that out at 10 GB/s.
        if same(old.address + begin, new.address + begin, n):
            continue
        a, b = old.view[begin : begin + n], new.view[begin : begin + n]
        if np is None:
            found = _runs_by_bytes(a, b)
        else:
            found = _runs_by_words(np, np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8))
        if found and runs and runs[-1][1] == begin + found[0][0]:
            # It goes on from the end of the last block.
            runs[-1] = (runs[-1][0], begin + found.pop(0)[1])
        runs.extend([(begin + first, begin + last) for first, last in found])
    return runs


_DIFFERENT = re.compile(rb"[^\0]+")


def _runs_by_bytes(old: memoryview, new: memoryview) -> list[tuple[int, int]]:
    a, b = int.from_bytes(old, "little"), int.from_bytes(new, "little")
    marks = (a ^ b).to_bytes(len(old), "little")
    return [match.span() for match in _DIFFERENT.finditer(marks)]


def _runs_by_words(np: Any, a: Any, b: Any) -> list[tuple[int, int]]:
    """Compares words of 8 bytes first: most are equal."""
    n = len(a) // 8
    unequal = a[: 8 * n].view(np.uint64) != b[: 8 * n].view(np.uint64)
    words = np.flatnonzero(unequal)
    places = (words[:, None] * 8 + np.arange(8)).reshape(-1)
    if len(a) > 8 * n:
        places = np.concatenate((places, np.arange(8 * n, len(a))))
    places = places[a[places] != b[places]]
    if not len(places):
        return []
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    first = np.concatenate(([0], cuts))
    last = np.concatenate((cuts, [len(places)])) - 1
    return list(zip(places[first].tolist(), (places[last] + 1).tolist(), strict=True))
