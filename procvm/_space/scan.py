"""Scan: values that are narrowed down, look by look."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from heapq import merge
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final

from procvm._base.optional import required
from procvm._base.pods import Pod, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from procvm._mm.memory import UserMemory
from procvm._space.access import Access
from procvm._space.asked import CHANGES, asked_of, change_of
from procvm._space.condition import About, Number, Wanted
from procvm._space.element import Element, element_of
from procvm._space.look import Again, Block, First, addresses_of, without
from procvm._space.patterns import NOTHING, Needle, Several, Values
from procvm._space.pieces import nr_threads, results, tasks_of
from procvm._space.ranges import Range, add_range, spans_of
from procvm._space.saved_scan import SavedColumn, SavedScan, load_scan, save_scan
from procvm._space.search import Progress

if TYPE_CHECKING:
    from procvm._space.arrays import Array

__all__ = ["CHUNK_LEN", "Change", "Place", "Scan", "readings_of"]

CHUNK_LEN = 1 << 20
"""Bytes that are read at a time; candidates everywhere take several times as much."""

Change = Literal["changed", "unchanged", "increased", "decreased"]

_NUMBERS: tuple[tuple[Pod[Any], ...], ...] = (
    (i8, u8),
    (i16, u16),
    (i32, u32),
    (i64, u64),
    (f32,),
    (f64,),
)
"""The types of ``kind="number"``: those of a row are two readings of the same bytes."""


class Place(NamedTuple):
    """A candidate of a scan.

    Attributes:
        address: Its address.
        kind: The pod or numpy dtype as which it is a candidate; the encoding of a text.
        value: Its value at the last look.
    """

    address: int
    kind: object
    value: object


class _Column(NamedTuple):
    """The candidates of one width.

    Attributes:
        readings: What their bytes may be; the first one is how they are shown.
        align: Bytes from one slot to the next.
        blocks: The candidates, in the order of addresses.
    """

    readings: tuple[Element, ...]
    align: int
    blocks: list[Block]


def readings_of(kind: Any) -> list[tuple[Element, ...]]:
    """Returns the types that a scan is for, those of one width together.

    Raises:
        TypeError: Not a number.
        UnsupportedError: numpy is not installed.
    """
    required("numpy", "a scan")
    if isinstance(kind, str) and kind == "number":
        return [tuple(element_of(pod) for pod in row) for row in _NUMBERS]
    element = element_of(kind)
    if element.dtype is None or element.dtype.kind not in "biufc":
        raise TypeError(f"{element.dtype or element.pod} is not a number, and has no order")
    return [(element,)]


@final
class Scan:
    """The addresses that may hold a value; each `refine` returns a scan with fewer.

    A scan keeps the values, and a bit for each place where many are candidates but not all:
    about as many bytes as it looked at. A scan never changes, so an older one undoes a
    look. It can be iterated again and again, in the order of addresses; with ``kind="number"``
    an address comes once for each type that fits.

    Attributes:
        skipped: Ranges (start, end) that could not be read, at the first look or at a later
            one; their candidates are dropped.
    """

    def __init__(
        self,
        memory: UserMemory,
        readings: list[tuple[Element, ...]],
        value: Any,
        about: About | None,
        ranges: list[tuple[int, int]],
        *,
        align: int | None,
        threads: int | None,
        progress: Progress | None,
    ) -> None:
        self._np = required("numpy", "a scan")
        self.skipped: list[tuple[int, int]] = []
        self._memory = memory
        self._threads = threads
        self._is_number = len(readings) > 1
        self._columns: list[_Column] = []
        looks: list[First] = []
        needles: list[Needle] = []
        is_any = value is NOTHING and about is None
        for row, condition in asked_of(readings, value, about, is_number=self._is_number):
            step = row[0].size if align is None else align
            self._columns.append(_Column(row, step, []))
            looks.append(First(self._np, row[0].dtype, None if is_any else condition, step))
            needles.append(Values(row[0], looks[-1].condition, step))
        needle = needles[0] if len(needles) == 1 else Several(needles)
        total, done = sum(end - start for start, end in ranges), 0
        tasks = tasks_of(memory, needle, ranges, CHUNK_LEN)

        def look(task: Any) -> list[tuple[list[Block], list[tuple[int, int]]]]:
            return First.all(looks, task)

        for found, n in results(look, tasks, nr_threads(threads, None, total), None):
            for column, (blocks, skipped) in zip(self._columns, found or (), strict=False):
                column.blocks.extend(blocks)
                if column is self._columns[0]:
                    for start, end in skipped:
                        add_range(self.skipped, start, end)
            done += n
            if progress is not None:
                progress(done, total)

    def refine(
        self,
        how: Change | None = None,
        *,
        value: Wanted[Number] = NOTHING,
        about: About | None = None,
        progress: Progress | None = None,
    ) -> Scan:
        """Looks again at every candidate; returns a new scan of those that still fit.

        This scan stays as it is: to undo a look go on with it.

        Args:
            how: ``"changed"``, ``"unchanged"``, ``"increased"`` or ``"decreased"`` since the
                last look.
            value: A number, a range, a pair (lowest, highest), or a predicate over arrays.
            about: A number as the target shows it, as `VmSpace.scan` takes it.
            progress: Called with (candidates looked at, candidates in all).

        Raises:
            ValueError: No condition was given, or `how` is another word.
        """
        if how is not None and how not in CHANGES:
            raise ValueError(f"{how!r} is not one of {', '.join(CHANGES)}")
        if how is None and value is NOTHING and about is None:
            raise ValueError(
                "no condition was given; give a change such as 'changed', a value or about"
            )
        kept: list[_Column] = []
        tasks: list[tuple[tuple[Again, Block], int]] = []
        readings = [column.readings for column in self._columns]
        asked = asked_of(readings, value, about, is_number=self._is_number)
        by_size = {(row[0].size, row[0].dtype.kind == "f"): (row, one) for row, one in asked}
        for column in self._columns:
            first = column.readings[0]
            found = by_size.get((first.size, first.dtype.kind == "f"))
            if found is None:
                continue  # the type cannot hold the value
            row, condition = found
            kept.append(_Column(row, column.align, []))
            is_bare = value is NOTHING and about is None
            changes = None if how is None else change_of(how, row)
            again = Again(
                self._np,
                self._memory,
                row[0].dtype,
                None if is_bare else condition,
                changes,
                column.align,
                kept[-1].blocks,
            )
            tasks += [((again, block), len(block.values)) for block in column.blocks]
        return self._narrowed(kept, tasks, progress)

    def _narrowed(
        self,
        columns: list[_Column],
        tasks: list[tuple[tuple[Again, Block], int]],
        progress: Progress | None,
    ) -> Scan:
        """Returns the scan of what is left after a look."""
        new = self._with(columns)
        width = max((column.readings[0].size for column in self._columns), default=1)
        total, done = sum(n for _, n in tasks), 0
        threads = nr_threads(self._threads, None, total * width)

        def look(task: tuple[Again, Block]) -> tuple[list[Block], Block | None, Any]:
            again, block = task
            return again.kept, *again(block)

        for found, n in results(look, iter(tasks), threads, None):
            if found is not None:
                kept, block, missed = found
                if block is not None:
                    kept.append(block)
                for start, end in missed:
                    add_range(new.skipped, start, end)
            done += n
            if progress is not None:
                progress(done, total)
        new.skipped[:0] = self.skipped
        return new

    def _with(self, columns: list[_Column]) -> Scan:
        new = object.__new__(Scan)
        new._np, new._memory, new._threads = self._np, self._memory, self._threads
        new._is_number = self._is_number
        new._columns = columns
        new.skipped = []
        return new

    def without(self, excluded: Iterable[int | Range]) -> Scan:
        """Returns a new scan without some of the candidates; this one stays as it is.

        Args:
            excluded: Addresses, and ranges of them: mappings, range objects or pairs (start,
                end). A candidate of which any byte is there is left out.

        Raises:
            TypeError: One has another type.
            ValueError: A range ends before it starts.
        """
        spans = spans_of(excluded)
        kept: list[_Column] = []
        for column in self._columns:
            blocks: list[Block] = []
            for block in column.blocks:
                size = column.readings[0].size
                left = without(self._np, block, column.align, size, spans) if spans else block
                if left is not None:
                    blocks.append(left)
            kept.append(column._replace(blocks=blocks))
        new = self._with(kept)
        new.skipped = list(self.skipped)
        return new

    def __len__(self) -> int:
        """Returns the number of candidates."""
        return sum(len(block.values) for column in self._columns for block in column.blocks)

    def __iter__(self) -> Iterator[int]:
        """Goes through the addresses of the candidates."""
        if not self._is_number:
            return self._addresses(self._columns[0])
        return merge(*map(self._addresses, self._columns))

    def _addresses(self, column: _Column) -> Iterator[int]:
        for block in column.blocks:
            yield from addresses_of(self._np, block, column.align).tolist()

    def places(self) -> Iterator[Place]:
        """Yields each candidate with its type and its value at the last look."""
        return merge(*map(self._places, self._columns), key=lambda place: place.address)

    def _places(self, column: _Column) -> Iterator[Place]:
        element = column.readings[0]
        kind = element.dtype if element.pod is None else element.pod
        for block in column.blocks:
            addresses = addresses_of(self._np, block, column.align).tolist()
            for address, value in zip(addresses, block.values.tolist(), strict=True):
                yield Place(address, kind, value)

    def addresses(self) -> Array:
        """Returns the addresses of all candidates as an array, in their order."""
        np = self._np
        parts = [
            addresses_of(np, block, column.align)
            for column in self._columns
            for block in column.blocks
        ]
        found: Array = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        return np.sort(found, kind="stable") if self._is_number else found

    def values(self) -> Array:
        """Returns the values of all candidates at the last look as an array.

        It has the dtype of the scan; with ``kind="number"`` it holds Python numbers.
        """
        np = self._np
        if self._is_number:
            found: Array = np.empty(len(self), object)
            found[:] = [place.value for place in self.places()]
            return found
        column = self._columns[0]
        parts = [block.values for block in column.blocks]
        # numpy would turn bytes of another order to the machine's order.
        found = np.empty(len(self), column.readings[0].dtype)
        return np.concatenate(parts, out=found) if parts else found

    def __repr__(self) -> str:
        return f"<Scan of {self._memory!r}: {len(self)} candidates>"

    def save(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        """Writes the candidates and their values to a new file of mode 0600.

        Raises:
            OSError: The file could not be written; what was at `path` is as it was.
        """
        columns = [SavedColumn(*column) for column in self._columns]
        save_scan(path, SavedScan(self._memory.pid, self._is_number, self.skipped, columns))

    @classmethod
    def load(
        cls,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        vm: Access,
        *,
        same_pid: bool = True,
    ) -> Scan:
        """Returns the scan of a file that `save` wrote, to be refined on.

        Args:
            path: The file.
            vm: The space of the process: its addresses must mean the same as when the scan
                was saved.
            same_pid: Whether a space of another process is refused; its addresses rarely mean
                the same.

        Raises:
            MalformedError: The file is not one of `save`, or it is damaged.
            MismatchError: It was saved from a process with another pid.
            OSError: The file could not be read.
            UnsupportedError: numpy is not installed.
        """
        np = required("numpy", "a scan")
        saved = load_scan(path, vm.memory.pid if same_pid else None)
        new = object.__new__(cls)
        new._np, new._memory, new._threads = np, vm.memory, None
        new._is_number = saved.is_number
        new._columns = [_Column(*column) for column in saved.columns]
        new.skipped = saved.skipped
        return new
