"""`Extent`: what a part of a range holds, found out without reading it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple, Protocol

__all__ = ["Content", "Extent", "Source", "joined"]


class Content(StrEnum):
    """The kinds of bytes that an extent holds."""

    DATA = "data"
    """Bytes that have to be read."""
    ZEROS = "zeros"
    """Zeros: a page that exists nowhere. A read through the target could allocate it."""
    HOLE = "hole"
    """Bytes that are not read: unmapped, not allowed, or not known without allocating pages."""


class Source(Protocol):
    """A source of the bytes of an extent, such as a mapped file."""

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes at `address`; see `Memory.read`."""
        ...


class Extent(NamedTuple):
    """A part of a range.

    Attributes:
        start: First address.
        end: One past the last.
        content: What it holds.
        source: What to read its data from instead of the memory itself: the file that is
            mapped there. A read through the target would map the pages into the target.
    """

    start: int
    end: int
    content: Content
    source: Source | None = None


def joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Yields extents with neighbours of one content and source made one."""
    last: Extent | None = None
    for extent in extents:
        if last is not None:
            same = last.content is extent.content and last.source is extent.source
            if same and last.end == extent.start:
                last = last._replace(end=extent.end)
                continue
            yield last
        last = extent
    if last is not None:
        yield last
