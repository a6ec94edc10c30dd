"""Where two spaces have other bytes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from procvm.address import PAGE_SIZE
from procvm.errors import PageFaultError
from procvm.extras import numpy_or_none
from procvm.mm.memory import UserMemory
from procvm.mm.search import behind_hole, clipped, common
from procvm.own.buffers import Pin, Scratch
from procvm.own.find import same
from procvm.process.kept import KeptMemory, Piece

__all__ = ["Run", "compared", "differences", "looks", "without"]

_COMPARE_LEN = 1 << 21
_BLOCK_LEN = 1 << 16


class Run(NamedTuple):
    """Bytes that differ, side by side.

    Attributes:
        address: Where the first one is.
        old: What was there.
        new: What is there instead; as many.
    """

    address: int
    old: bytes
    new: bytes


def differences(
    kept: KeptMemory, other: UserMemory, where: list[tuple[int, int]] | None
) -> Iterator[Run]:
    """Yields runs that differ, those that meet over a border of two looks as one."""
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
    """Yields (start, end, bytes) of what was kept, a few MiB at a time; no bytes for zeros."""
    for piece in kept.pieces():
        everything = [(piece.start, piece.end)]
        wanted = everything if where is None else common(piece.start, piece.end, where)
        for start, end in wanted:
            at = start
            while at < end:
                step = min(end - at, _COMPARE_LEN)
                yield at, at + step, _bytes_of(kept, piece, at, step)
                at += step


def _bytes_of(kept: KeptMemory, piece: Piece, at: int, n: int) -> Pin | None:
    if piece.own is None:
        return None
    found = piece.in_memory(at, at + n)
    if found is not None:
        return found
    if kept.untouched(at, at + n) == [(at, at + n)]:
        return None
    return _read(kept, Scratch(n), at, n)[0]


def _read(memory: UserMemory, room: Scratch, at: int, n: int) -> tuple[Pin, bool]:
    """Reads what is there of a range; returns it, and whether that is all."""
    try:
        memory.read(at, room.address, n)
    except PageFaultError as error:
        return Pin(room.address, error.copied_len, room.view[: error.copied_len]), False
    return Pin(room.address, n, room.view[:n]), True


def compared(
    start: int, end: int, old: Pin | None, other: UserMemory
) -> Iterator[tuple[int, bytes, bytes]]:
    """Yields (address, old, new) of each run of a look that differs."""
    if old is not None:
        end = start + old.n  # of a file that was cut off, what is there
    # Where there were zeros what is still untouched is zeros now, and is not read.
    untouched = other.untouched(start, end) if old is None else []
    pieces = list(other.between(start, end)) if isinstance(other, KeptMemory) else []
    there = [(start, end)]
    if isinstance(other, KeptMemory):
        there = [(piece.start, piece.end) for piece in pieces]
    places = without(clipped(there, start, end), untouched)
    room: Scratch | None = None
    for low, high in places:
        at = low
        while at < high:
            new = next((found for one in pieces if (found := one.in_memory(at, high))), None)
            whole = True
            if new is None:
                room = room or Scratch(end - start)
                new, whole = _read(other, room, at, high - at)
            if new.n:
                was = _part(old or _zeros(), at - start if old else 0, new.n)
                for first, last in _runs(was, new):
                    yield at + first, bytes(was.view[first:last]), bytes(new.view[first:last])
            at = high if whole else min(behind_hole(other, at + new.n, high), high)


def _part(of: Pin, offset: int, n: int) -> Pin:
    return Pin(of.address + offset, n, of.view[offset : offset + n])


@functools.cache
def _zeros() -> Pin:
    room = Scratch(_COMPARE_LEN)
    return Pin(room.address, _COMPARE_LEN, room.view)


def without(
    pairs: list[tuple[int, int]], holes: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yields what is left of ranges without others; both are in order."""
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


def _runs(old: Pin, new: Pin) -> list[tuple[int, int]]:
    """Returns the runs of offsets at which two buffers of one length differ."""
    np = numpy_or_none()
    step = PAGE_SIZE if np is None else _BLOCK_LEN
    runs: list[tuple[int, int]] = []
    for begin in range(0, new.n, step):
        n = min(step, new.n - begin)
        # Most of it is as it was, and nothing finds that out as quickly.
        if same(old.address + begin, new.address + begin, n):
            continue
        a, b = old.view[begin : begin + n], new.view[begin : begin + n]
        if np is None:
            found = list(_runs_by_bytes(a, b))
        else:
            found = _runs_by_words(np, np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8))
        for first, last in found:
            if runs and runs[-1][1] == begin + first:
                runs[-1] = (runs[-1][0], begin + last)
            else:
                runs.append((begin + first, begin + last))
    return runs


def _runs_by_bytes(old: memoryview, new: memoryview) -> Iterator[tuple[int, int]]:
    for at, (a, b) in enumerate(zip(old, new, strict=True)):
        if a != b:
            yield at, at + 1


def _runs_by_words(np: Any, a: Any, b: Any) -> list[tuple[int, int]]:
    """Compares whole words first: most pages are as they were."""
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
