"""The walk over ranges: the one place that decides which bytes of a range are read.

Search, scan, snapshots, core files, streams and differences all read through it, so none
of them allocates a page in the target: `UserMemory.layout` says what is data, the rest is
zeros or is left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from procvm._base.address import page_end
from procvm._base.perms import READ
from procvm._local.buffers import Scratch
from procvm._mm.extent import Content, Extent
from procvm._mm.memory import Region, UserMemory
from procvm.errors import PageFaultError

__all__ = ["Part", "behind_hole", "clipped", "common", "parts", "read_extents"]

_PAGES_TO_TRY = 16


def read_extents(
    memory: UserMemory, extents: Iterable[Extent], low: int, own_address: int
) -> Iterator[Extent]:
    """Reads the data of extents, each byte to its own place, and yields what was found there.

    Args:
        memory: What the extents belong to.
        extents: In order; as `UserMemory.layout` yields them.
        low: The address whose byte goes to `own_address`.
        own_address: Our own memory, up to the end of the last extent. Places of zeros and
            of holes are not written.
    """
    for extent in extents:
        if extent.content is not Content.DATA:
            yield extent
            continue
        source = extent.source or memory
        at, end = extent.start, extent.end
        while at < end:
            try:
                # SAFETY: the caller has room up to the end of the last extent.
                source.read(at, own_address + at - low, end - at)
            except PageFaultError as error:
                bad = at + error.copied_len
                if bad > at:
                    yield Extent(at, bad, Content.DATA)
                # A file that was made shorter has nothing after its end.
                at = end if extent.source else min(behind_hole(memory, bad, end), end)
                yield Extent(bad, at, Content.HOLE)
            else:
                yield Extent(at, end, Content.DATA)
                at = end


class Part(NamedTuple):
    """A part of a walk.

    Attributes:
        start: First address.
        end: One past the last.
        content: What it holds.
        extents: The data, side by side, where it is data.
    """

    start: int
    end: int
    content: Content
    extents: list[Extent]


def parts(
    memory: UserMemory,
    wanted: Iterable[tuple[int, int]],
    step: int,
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[Part]:
    """Yields what ranges hold: data in parts of at most `step` bytes, zeros and holes whole.

    Args:
        memory: The memory.
        wanted: Ranges, in the order to walk them.
        step: The most bytes of data in a part.
        progress: Is called with (bytes done, bytes in all), after each part of data.
    """
    pairs = list(wanted)
    total, done, due = sum(end - start for start, end in pairs), 0, 0
    for start, end in pairs:
        for part in _in_parts(memory.layout(start, end), step):
            # Zeros and holes take no time: they are told together with the data before them.
            if progress is not None and part.extents and due:
                progress(due, total)
            yield part
            done += part.end - part.start
            due = done if part.extents else due
    if progress is not None and total:
        progress(done, total)


def _in_parts(extents: Iterable[Extent], step: int) -> Iterator[Part]:
    group: list[Extent] = []
    room = step
    for extent in extents:
        if extent.content is not Content.DATA:
            yield from _part_of(group)
            group, room = [], step
            yield Part(extent.start, extent.end, extent.content, [])
            continue
        at = extent.start
        while at < extent.end:
            until = min(at + room, extent.end)
            group.append(extent._replace(start=at, end=until))
            room -= until - at
            at = until
            if not room:
                yield from _part_of(group)
                group, room = [], step
    yield from _part_of(group)


def _part_of(group: list[Extent]) -> Iterator[Part]:
    if group:
        yield Part(group[0].start, group[-1].end, Content.DATA, group)


def clipped(ranges: Iterable[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Returns what of the ranges is between two addresses."""
    inside = [(max(low, start), min(high, end)) for low, high in ranges]
    return [(low, high) for low, high in inside if low < high]


def common(start: int, end: int, ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yields what a range has in common with others, which are sorted and disjoint."""
    for k in range(bisect_right(ranges, start, key=lambda one: one[1]), len(ranges)):
        low, high = ranges[k]
        if low >= end:
            break
        yield max(low, start), min(high, end)


def behind_hole(memory: UserMemory, bad: int, end: int) -> int:
    """Returns the next address that can be read, or `end`."""
    byte = Scratch(1)
    at = page_end(bad)
    tries = 0
    while at < end:
        if tries == _PAGES_TO_TRY:
            # A long one, maybe a range where nothing is mapped at all.
            regions = memory.regions()
            if regions is None:
                regions = [Region(at, end, READ)]
            any_will_do = memory.is_forced
            here = [r for r in regions if r.end > at and (any_will_do or r.flags & READ)]
            if here and here[0].start > at:
                at = min(here[0].start, end)
                continue
            if not here:
                return end
        try:
            memory.read(at, byte.address, 1)
        except PageFaultError:
            at = page_end(at)
            tries += 1
            continue
        return at
    return end
