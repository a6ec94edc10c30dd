"""`Snapshot`: the memory of a process as it was, which answers as the process does."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self, final

from procvm.address import PAGE_SIZE, as_address
from procvm.errors import AccessDeniedError, ClosedError, PageFaultError
from procvm.extras import numpy_or_none
from procvm.mm.memory import Region, UserMemory
from procvm.mm.search import behind_hole, clipped, ranges_of
from procvm.mm.space import VmSpace
from procvm.own.buffers import Pin, Scratch, copy, fill_zeros, pin
from procvm.process.maps import Maps, Vma

__all__ = ["Run", "Snapshot", "take_snapshot"]

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


class Piece(NamedTuple):
    """Bytes that were kept, of a range that has no hole.

    Attributes:
        start: First address.
        end: One past the last.
        own: Where they are kept; None for zeros.
    """

    start: int
    end: int
    own: Pin | None


class KeptMemory(UserMemory):
    """Pieces of a user space that was, each readable as it was then and none writable."""

    def __init__(
        self, pieces: list[Piece], regions: list[Region], end: int, pid: int, *, forced: bool
    ) -> None:
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
        return f"a snapshot of process {self._pid}"

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
        other = KeptMemory(self._pieces, self._regions, self._end, self._pid, forced=True)
        other._origin = self
        return other

    def pieces(self) -> list[Piece]:
        """Returns what was kept, sorted and disjoint.

        Raises:
            ClosedError: It was closed.
        """
        if self.closed:
            raise ClosedError("the snapshot was closed")
        return self._pieces

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` kept bytes; see `Memory.read`."""
        pieces = self.pieces()
        done = 0
        while done < n:
            at = address + done
            k = bisect_right(self._starts, at) - 1
            if k < 0 or at >= pieces[k].end:
                raise PageFaultError(
                    f"the snapshot of process {self._pid} has no byte at {at:#x}: nothing was "
                    "mapped there, or it could not be read, or it was not asked for",
                    address=at,
                    pid=self._pid,
                    copied_len=done,
                )
            piece = pieces[k]
            step = min(n - done, piece.end - at)
            if piece.own is None:
                # SAFETY: the caller keeps `n` bytes at `own_address` alive.
                fill_zeros(own_address + done, step)
            else:
                # SAFETY: as above, and `piece` keeps its own.
                copy(own_address + done, piece.own.address + at - piece.start, step)
            done += step

    def write(self, address: int, own_address: int, n: int) -> None:
        """Refuses: what was does not change."""
        raise AccessDeniedError(
            f"a snapshot is not written, at {address:#x} or elsewhere; write to the process"
        )

    def regions(self) -> list[Region]:
        """Returns what was mapped."""
        return self._regions

    def untouched(self, start: int, end: int) -> list[tuple[int, int]]:
        """Returns the runs of zeros that nobody had ever written."""
        zeros = [(piece.start, piece.end) for piece in self.between(start, end) if not piece.own]
        return clipped(zeros, start, end)

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


@final
class Snapshot(VmSpace):
    """The memory of a process as it was: a space whose bytes do not change any more.

    It has what a process has to be read by, `vm`, `maps`, `find_vma`, `pid`, so a
    script that reads a process reads it as well. What was kept is in our own memory
    until it is closed.
    """

    def __init__(self, memory: KeptMemory, maps: Maps, pid: int, origin: VmSpace) -> None:
        super().__init__(memory)
        self._kept = memory
        self._maps = maps
        self._pid = pid
        self._origin = origin

    def __repr__(self) -> str:
        state = "closed" if self._kept.closed else f"{self.kept_len} bytes kept"
        return f"<Snapshot of process {self._pid}, {state}>"

    @property
    def pid(self) -> int:
        """The process that it was taken of."""
        return self._pid

    @property
    def vm(self) -> VmSpace:
        """Itself."""
        return self

    @property
    def kept_len(self) -> int:
        """Bytes that it keeps in our own memory."""
        return sum(piece.end - piece.start for piece in self._kept.pieces() if piece.own)

    def maps(self) -> Maps:
        """Returns the mappings as they were."""
        return self._maps

    def find_vma(self, address: int) -> Vma | None:
        """Returns the mapping that held `address`, or None."""
        return self._maps.find(as_address(address))

    def diff(self, other: VmSpace, ranges: Iterable[Any] | None = None) -> list[Run]:
        """Returns where another space has other bytes, in order.

        What only one of the two has is no difference.

        Args:
            other: A later snapshot, or the space of the process itself.
            ranges: Where to look, as `VmSpace.search` takes them; without it
                everywhere.
        """
        where = None if ranges is None else ranges_of(ranges)
        return list(_differences(self._kept, other.memory, where))

    def restore(self) -> int:
        """Writes back to the process whatever has changed since; returns the bytes written.

        Protections are ignored, as by `VmSpace.forced`. Mappings that have gone since
        are left out.

        Raises:
            PageFaultError: A page can not be written (shared, and read-only);
                `copied_len` bytes were.
        """
        forced = self._origin.forced()
        done = 0
        # Look by look: joined runs of all memory would be copied again and again.
        for start, end, old in _looks(self._kept, None):
            for address, was, _ in _compared(start, end, old, forced.memory):
                try:
                    forced.write_bytes(address, was)
                except PageFaultError as error:
                    error.copied_len += done
                    raise
                done += len(was)
        return done

    def close(self) -> None:
        """Forgets what was kept. Twice is fine."""
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _differences(
    kept: KeptMemory, other: UserMemory, where: list[tuple[int, int]] | None
) -> Iterator[Run]:
    """Yields runs that differ, those that meet over a border of two looks as one."""
    last: Run | None = None
    for start, end, old in _looks(kept, where):
        for address, was, now in _compared(start, end, old, other):
            if last is not None and last.address + len(last.old) == address:
                last = Run(last.address, last.old + was, last.new + now)
                continue
            if last is not None:
                yield last
            last = Run(address, was, now)
    if last is not None:
        yield last


def _looks(
    kept: KeptMemory, where: list[tuple[int, int]] | None
) -> Iterator[tuple[int, int, memoryview | None]]:
    """Yields (start, end, bytes) of what was kept, a few MiB at a time; no bytes for zeros."""
    for piece in kept.pieces():
        for low, high in where if where is not None else [(piece.start, piece.end)]:
            at, end = max(low, piece.start), min(high, piece.end)
            while at < end:
                step = min(end - at, _COMPARE_LEN)
                view = None
                if piece.own is not None:
                    view = piece.own.view[at - piece.start : at - piece.start + step]
                yield at, at + step, view
                at += step


def _compared(
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


def take_snapshot(
    vm: VmSpace,
    maps: Maps,
    pid: int,
    ranges: Iterable[Any] | None,
    *,
    on_page: Callable[[int, int], object] | None = None,
) -> Snapshot:
    """Keeps what can be read of a space; see `Process.snapshot`."""
    memory = vm.memory
    wanted = vm.ranges(ranges, "r")
    mapped = ranges_of(memory.regions() or wanted)
    pieces: list[Piece] = []
    total, done = sum(end - start for start, end in wanted), 0
    for start, end in wanted:
        at = start
        for first, last in [*memory.untouched(start, end), (end, end)]:
            if at < first:
                for low, high in _common([(at, first)], mapped):
                    pieces.extend(_kept(memory, low, high))
            if first < last:
                pieces.append(Piece(first, last, None))
            at = last
        done += end - start
        if on_page is not None:
            on_page(done, total)
    regions = [Region(vma.start, vma.end, int(vma.perms)) for vma in maps]
    kept = KeptMemory(pieces, regions, memory.end, pid, forced=False)
    return Snapshot(kept, maps, pid, vm)


def _common(
    pairs: list[tuple[int, int]], others: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yields what two lists of ranges have in common."""
    ends = [end for _, end in others]
    for start, end in pairs:
        for low, high in others[bisect_right(ends, start) :]:
            if low >= end:
                break
            yield max(low, start), min(high, end)


def _kept(memory: UserMemory, start: int, end: int) -> list[Piece]:
    """Reads a range to memory of our own; what can not be read is left out."""
    # A mapping of its own: it goes back to the system at once when it is forgotten.
    room = mmap.mmap(-1, end - start, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if end - start >= 1 << 21:
        room.madvise(mmap.MADV_HUGEPAGE)
    held = pin(room, writable=True)
    pieces: list[Piece] = []
    at = start
    while at < end:
        try:
            memory.read(at, held.address + at - start, end - at)
        except PageFaultError as error:
            last = at + error.copied_len
            behind = min(behind_hole(memory, last, end), end)
        else:
            last = behind = end
        if at < last:
            address, view = held.address + at - start, held.view[at - start : last - start]
            pieces.append(Piece(at, last, Pin(address, last - at, view)))
        at = behind
    return pieces
