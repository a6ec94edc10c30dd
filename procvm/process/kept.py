"""`KeptMemory`: what was read of a user space, or a core file has of it."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from os import pread
from typing import Any, NamedTuple, TypeVar

from procvm.errors import AccessDeniedError, ClosedError, PageFaultError
from procvm.linux.fds import Fd
from procvm.linux.libc import call, libc
from procvm.mm.memory import Region, UserMemory
from procvm.mm.search import clipped
from procvm.own.buffers import Pin, copy, fill_zeros
from procvm.pod import Pod

__all__ = ["FilePart", "KeptMemory", "Piece"]

T = TypeVar("T")

_FEW = 4096


class FilePart(NamedTuple):
    """Bytes that are kept in a file, and where in it."""

    file: Fd
    offset: int


class Piece(NamedTuple):
    """Bytes that were kept, of a range that has no hole.

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


class KeptMemory(UserMemory):
    """Pieces of a user space that was, each readable as it was then and none writable."""

    def __init__(
        self,
        pieces: list[Piece],
        regions: list[Region],
        end: int,
        pid: int,
        *,
        forced: bool = False,
        what: str = "snapshot",
    ) -> None:
        self._what = what
        self._pieces = pieces
        self._starts = [piece.start for piece in pieces]
        # Of what was mapped what was kept: nothing else is worth a look.
        self._regions = _kept_regions(regions, pieces)
        self._origin: KeptMemory | None = None
        self._end = end
        self._pid = pid
        self._forced = forced
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it, or what it was made of, was closed."""
        return self._closed if self._origin is None else self._origin.closed

    def close(self) -> None:
        """Forgets what was kept, and gives it back."""
        self._closed = True
        self._pieces.clear()
        self._starts.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"{self!r} can not be pickled: it is as large as what it keeps")

    def __repr__(self) -> str:
        return f"a {self._what} of process {self._pid}"

    @property
    def domain(self) -> object:
        """What was kept."""
        return self._pieces

    @property
    def end(self) -> int:
        """One past the last address of user space."""
        return self._end

    @property
    def is_forced(self) -> bool:
        """Whether page protections are ignored."""
        return self._forced

    def forced(self) -> KeptMemory:
        """Returns the same: all that was kept can be read."""
        other = KeptMemory(
            self._pieces, self._regions, self._end, self._pid, forced=True, what=self._what
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
                    # What most reads are, with no step more than it takes.
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
                raise PageFaultError(
                    f"the {self._what} of process {self._pid} has no byte at {at:#x}: nothing was "
                    "mapped there, or it could not be read, or it was not asked for",
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
        # Not from a mapping of the file: should somebody make it shorter, a look at what
        # was cut off would end the tool by SIGBUS.
        got = 0
        while got < n:
            # SAFETY: whoever calls `read` keeps these bytes alive.
            step, code = call(
                libc().pread,
                file.number,
                ctypes.c_void_p(own_address + got),
                ctypes.c_size_t(n - got),
                ctypes.c_int64(offset + got),
            )
            if step <= 0:
                code = code or errno.EFAULT
                raise PageFaultError(
                    f"the file of the {self._what} has no byte for {address + got:#x} any more: "
                    f"{os.strerror(code)}",
                    address=address + got,
                    pid=self._pid,
                    copied_len=done + got,
                    errno=code,
                )
            got += step

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
        """Refuses: what was does not change."""
        raise AccessDeniedError(
            f"a snapshot is not written, at {address:#x} or elsewhere; write to the process"
        )

    def regions(self) -> list[Region]:
        """Returns what was mapped."""
        return self._regions

    def untouched(self, start: int, end: int) -> list[tuple[int, int]]:
        """Returns the runs of zeros that take no room."""
        zeros: list[tuple[int, int]] = []
        for piece in self.between(start, end):
            if piece.own is None:
                zeros.append((piece.start, piece.end))
            elif isinstance(piece.own, FilePart):
                zeros += _holes(piece.own, piece, max(start, piece.start), min(end, piece.end))
        return clipped(zeros, start, end)

    def between(self, start: int, end: int) -> Iterator[Piece]:
        """Yields the pieces that reach into a range."""
        pieces = self.pieces()
        k = max(bisect_right(self._starts, start) - 1, 0)
        while k < len(pieces) and pieces[k].start < end:
            if pieces[k].end > start:
                yield pieces[k]
            k += 1


def _holes(part: FilePart, piece: Piece, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields what of a range is a hole of the file, which reads as zeros."""
    shift = part.offset - piece.start
    at = start
    while at < end:
        try:
            data = os.lseek(part.file.number, at + shift, os.SEEK_DATA) - shift
        except OSError as error:
            # Behind the last byte of data; but not if the file ends before.
            if error.errno != errno.ENXIO or os.fstat(part.file.number).st_size < end + shift:
                return
            data = end
        if at < data:
            yield at, min(data, end)
        if data >= end:
            return
        try:
            at = os.lseek(part.file.number, data + shift, os.SEEK_HOLE) - shift
        except OSError:
            return


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
