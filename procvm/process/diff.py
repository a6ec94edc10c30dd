"""Where two spaces have other bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from procvm.address import PAGE_SIZE
from procvm.errors import PageFaultError
from procvm.extras import numpy_or_none
from procvm.mm.memory import UserMemory
from procvm.mm.search import behind_hole, clipped
from procvm.own.buffers import Pin, Scratch
from procvm.process.kept import KeptMemory, Piece

__all__ = ["Run", "compared", "differences", "looks"]

_COMPARE_LEN = 1 << 22


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
    last: Run | None = None
    for start, end, old in looks(kept, where):
        for address, was, now in compared(start, end, old, other):
            if last is not None and last.address + len(last.old) == address:
                last = Run(last.address, last.old + was, last.new + now)
                continue
            if last is not None:
                yield last
            last = Run(address, was, now)
    if last is not None:
        yield last


def looks(
    kept: KeptMemory, where: list[tuple[int, int]] | None
) -> Iterator[tuple[int, int, memoryview | None]]:
    """Yields (start, end, bytes) of what was kept, a few MiB at a time; no bytes for zeros."""
    for piece in kept.pieces():
        for low, high in where if where is not None else [(piece.start, piece.end)]:
            at, end = max(low, piece.start), min(high, piece.end)
            while at < end:
                step = min(end - at, _COMPARE_LEN)
                yield at, at + step, _bytes_of(kept, piece, at, step)
                at += step


def _bytes_of(kept: KeptMemory, piece: Piece, at: int, n: int) -> memoryview | None:
    own = piece.own
    if isinstance(own, Pin):
        return own.view[at - piece.start : at - piece.start + n]
    if own is None or kept.untouched(at, at + n) == [(at, at + n)]:
        return None
    room = Scratch(n)
    kept.read(at, room.address, n)
    return room.view


def compared(
    start: int, end: int, old: memoryview | None, other: UserMemory
) -> Iterator[tuple[int, bytes, bytes]]:
    """Yields (address, old, new) of each run of a look that differs."""
    # Where there were zeros what is still untouched is zeros now, and is not read.
    untouched = other.untouched(start, end) if old is None else []
    if isinstance(other, KeptMemory):
        there = [(piece.start, piece.end) for piece in other.between(start, end)]
    else:
        there = [(start, end)]
    room: Scratch | None = None
    for low, high in _without(clipped(there, start, end), untouched):
        at = low
        while at < high:
            room = room or Scratch(end - start)
            n = high - at
            got, behind = n, high
            try:
                other.read(at, room.address, n)
            except PageFaultError as error:
                got = error.copied_len
                behind = min(behind_hole(other, at + got, high), high)
            if got:
                was = bytes(got) if old is None else old[at - start : at - start + got]
                for first, last in _runs(was, room.view[:got]):
                    yield at + first, bytes(was[first:last]), bytes(room.view[first:last])
            at = behind


def _without(
    pairs: list[tuple[int, int]], holes: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yields what is left of ranges without others; both are in order."""
    for start, end in pairs:
        at = start
        for first, last in holes:
            if last <= at or first >= end:
                continue
            if at < first:
                yield at, first
            at = last
        if at < end:
            yield at, end


def _runs(old: bytes | memoryview, new: memoryview) -> list[tuple[int, int]]:
    """Returns the runs of offsets at which two buffers of one length differ."""
    np = numpy_or_none()
    if np is not None:
        a, b = np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)
        return _runs_by_words(np, a, b)
    if old == new:
        return []
    runs: list[tuple[int, int]] = []
    for page in range(0, len(new), PAGE_SIZE):
        end = min(page + PAGE_SIZE, len(new))
        if old[page:end] == new[page:end]:
            continue
        for at in range(page, end):
            if old[at] != new[at]:
                if runs and runs[-1][1] == at:
                    runs[-1] = (runs[-1][0], at + 1)
                else:
                    runs.append((at, at + 1))
    return runs


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
