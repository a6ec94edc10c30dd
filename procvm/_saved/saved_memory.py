"""`KeptMemory`: a copy of a user space, in the tool's memory or in a core file."""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from os import pread
from typing import Any, NamedTuple, TypeVar

from procvm._base.fd import Fd
from procvm._base.pods import Pod
from procvm._linux.file import data_runs, read_file
from procvm._local.buffers import Pin, copy, fill_zeros
from procvm._mm.extent import Content, Extent, joined
from procvm._mm.memory import Region, UserMemory
from procvm.errors import AccessDeniedError, ClosedError, PageFaultError

__all__ = ["FilePart", "Gap", "KeptMemory", "Piece"]

T = TypeVar("T")

_FEW = 4096


class FilePart(NamedTuple):
    """Bytes that are kept in a file, and where in it."""

    file: Fd
    offset: int


class Piece(NamedTuple):
    """The bytes of a range without holes.

    Attributes:
        start: First address.
        end: One past the last.
        own: Where they are kept: in our own memory, or in a file; None for zeros.
    """

    start: int
    end: int
    own: Pin | FilePart | None

    def in_memory(self, start: int, end: int) -> Pin | None:
        """Returns the bytes of a range of it if all of them are in our own memory."""
        own = self.own
        if not isinstance(own, Pin) or start < self.start or end > self.end:
            return None
        first = start - self.start
        return Pin(own.address + first, end - start, own.view[first : end - self.start])


class Gap(NamedTuple):
    """A range that was not kept, and the reason."""

    start: int
    end: int
    why: str


class KeptMemory(UserMemory):
    """Pieces of a user space as it was, which can be read and not written."""

    def __init__(
        self,
        pieces: list[Piece],
        regions: list[Region],
        end: int,
        pid: int,
        *,
        address_size: int = 8,
        forced: bool = False,
        what: str = "snapshot",
        gaps: Sequence[Gap] = (),
    ) -> None:
        self._what = what
        self._gaps = gaps
        self._pieces = pieces
        self._starts = [piece.start for piece in pieces]
        # Without this, a search of a small snapshot looks at all mappings of the process.
        self._regions = _kept_regions(regions, pieces)
        self._origin: KeptMemory | None = None
        self._end = end
        self._pid = pid
        self._address_size = address_size
        self._forced = forced
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it, or what it was made of, was closed."""
        return self._closed if self._origin is None else self._origin.closed

    def close(self) -> None:
        """Frees the copy."""
        self._closed = True
        self._pieces.clear()
        self._starts.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"{self!r} cannot be pickled: it is as large as the memory it copies")

    def __repr__(self) -> str:
        return f"a {self._what} of process {self._pid}"

    @property
    def domain(self) -> object:
        """The list of its pieces, the same for all views of one copy."""
        return self._pieces

    @property
    def end(self) -> int:
        """One past the last address of user space."""
        return self._end

    @property
    def address_size(self) -> int:
        """The bytes of a pointer of the program: 4 or 8."""
        return self._address_size

    @property
    def is_forced(self) -> bool:
        """Whether page protections are ignored."""
        return self._forced

    def forced(self) -> KeptMemory:
        """Returns the same memory: every byte that was kept can be read."""
        other = KeptMemory(
            self._pieces,
            self._regions,
            self._end,
            self._pid,
            address_size=self._address_size,
            forced=True,
            what=self._what,
            gaps=self._gaps,
        )
        other._origin = self
        other._starts = self._starts  # emptied with the pieces
        return other

    def pieces(self) -> list[Piece]:
        """Returns what was kept, sorted and disjoint.

        Raises:
            ClosedError: It was closed.
        """
        if self.closed:
            raise self._gone()
        return self._pieces

    def _gone(self) -> ClosedError:
        return ClosedError(f"the {self._what} of process {self._pid} was closed")

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` kept bytes; see `Memory.read`."""
        try:
            # None are left once it was closed.
            k = bisect_right(self._starts, address) - 1
            if k >= 0 and n <= _FEW:
                start, end, own = self._pieces[k]
                if type(own) is FilePart and address + n <= end:
                    # The path of most reads: a general one takes twice as long.
                    file, offset = own
                    try:
                        data = pread(file.number, n, offset + address - start)
                    except OSError:
                        data = b""  # the other way finds out why
                    if len(data) == n:
                        # SAFETY: the caller keeps `n` bytes at `own_address` alive.
                        copy(own_address, data, n)
                        return
            self._read(address, own_address, n)
        except IndexError:
            raise self._gone() from None  # by another thread, since it was looked for

    read_scratch = read

    def _read(self, address: int, own_address: int, n: int) -> None:
        pieces = self.pieces()
        done = 0
        while done < n:
            at = address + done
            k = bisect_right(self._starts, at) - 1
            if k < 0 or at >= pieces[k].end:
                k = bisect_right(self._gaps, at, key=lambda gap: gap.start) - 1
                why = "it was not mapped, not readable, or not asked for"
                if k >= 0 and at < self._gaps[k].end:
                    why = self._gaps[k].why
                raise PageFaultError(
                    f"the {self._what} of process {self._pid} has no byte at {at:#x}: {why}",
                    address=at,
                    pid=self._pid,
                    copied_len=done,
                )
            piece = pieces[k]
            step = min(n - done, piece.end - at)
            own = piece.own
            if own is None:
                # SAFETY: the caller keeps `n` bytes at `own_address` alive.
                fill_zeros(own_address + done, step)
            elif isinstance(own, Pin):
                # SAFETY: as above, and `own` keeps its own.
                copy(own_address + done, own.address + at - piece.start, step)
            else:
                offset = own.offset + at - piece.start
                self._read_file(own.file, offset, own_address + done, step, at, done)
            done += step

    def _read_file(
        self, file: Fd, offset: int, own_address: int, n: int, address: int, done: int
    ) -> None:
        # SAFETY: the caller of `read` keeps these bytes alive.
        got, code = read_file(file.number, offset, own_address, n)
        if got < n:
            raise PageFaultError(
                f"the file of the {self._what} has no byte for {address + got:#x} any more: "
                f"{os.strerror(code)}",
                address=address + got,
                pid=self._pid,
                copied_len=done + got,
                errno=code,
            )

    def loader(self, pod: Pod[T]) -> Callable[[int], T]:
        """Returns a reader of one value, which takes a number straight from a core file."""
        anyhow = super().loader(pod)
        packer, size = pod.packer, pod.size
        if packer is None:
            return anyhow
        unpack: Callable[[bytes], tuple[T]] = packer.unpack
        pieces, starts = self._pieces, self._starts

        def load(address: int) -> T:
            # None are left once it was closed.
            k = bisect_right(starts, address) - 1
            if k >= 0:
                try:
                    start, end, own = pieces[k]
                    if isinstance(own, FilePart) and address + size <= end:
                        file, offset = own
                        return unpack(pread(file.number, size, offset + address - start))[0]
                except (OSError, struct.error, IndexError):
                    pass  # it was cut off, or closed just now: the other way says so
            return anyhow(address)

        return load

    def write(self, address: int, own_address: int, n: int) -> None:
        """Raises AccessDeniedError: a copy does not change."""
        raise AccessDeniedError(
            f"cannot write at {address:#x}: snapshots and core files are read-only; write to the "
            "live process"
        )

    def regions(self) -> list[Region]:
        """Returns the mapped ranges that were kept."""
        return self._regions

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        """Yields the kept parts of a range; zeros take no room. See `UserMemory.layout`."""
        return joined(self._extents(start, end))

    def _extents(self, start: int, end: int) -> Iterator[Extent]:
        at = start
        for piece in self.between(start, end):
            low, high = max(piece.start, start), min(piece.end, end)
            if at < low:
                yield Extent(at, low, Content.HOLE)
            at = low
            if isinstance(piece.own, FilePart):
                file, shift = piece.own.file, piece.own.offset - piece.start
                for first, last in data_runs(file.number, low + shift, high + shift):
                    if at < first - shift:
                        yield Extent(at, first - shift, Content.ZEROS)
                    yield Extent(first - shift, last - shift, Content.DATA)
                    at = last - shift
            elif piece.own is not None:
                yield Extent(at, high, Content.DATA)
                at = high
            if at < high:
                yield Extent(at, high, Content.ZEROS)
                at = high
        if at < end:
            yield Extent(at, end, Content.HOLE)

    def between(self, start: int, end: int) -> Iterator[Piece]:
        """Yields the pieces that reach into a range."""
        pieces = self.pieces()
        k = max(bisect_right(self._starts, start) - 1, 0)
        while k < len(pieces) and pieces[k].start < end:
            if pieces[k].end > start:
                yield pieces[k]
            k += 1


def _kept_regions(regions: list[Region], pieces: list[Piece]) -> list[Region]:
    found: list[Region] = []
    k = 0
    for region in regions:
        while k and pieces[k - 1].end > region.start:
            k -= 1
        while k < len(pieces) and pieces[k].start < region.end:
            start = max(pieces[k].start, region.start)
            end = min(pieces[k].end, region.end)
            if start < end:
                found.append(Region(start, end, region.flags))
            k += 1
    return found
