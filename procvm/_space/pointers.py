"""`PointerMap`: every pointer of a memory by its value, and the way back from an address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from procvm._base.optional import required
from procvm._base.pods import u32, u64
from procvm._space.ranges import Range, ranges_by_perms
from procvm._space.search import Progress
from procvm._space.space import VmSpace
from procvm.errors import UnsupportedError

__all__ = ["PointerMap", "Step", "Web"]

_MOST_POINTERS = 1 << 26
"""Pointers that are kept at most, each 8 to 40 bytes while the map is made."""

_MOST_EDGES = 1 << 20
"""Pointers that lead to the places of one level, at most; each is a Python object."""


class Step(NamedTuple):
    """A pointer that leads to a place.

    Attributes:
        goal: The place: the address that was asked for, or that of another pointer.
        offset: Bytes from where the pointer points to the place.
    """

    goal: int
    offset: int


class Web(NamedTuple):
    """The pointers that lead to an address, directly or by others.

    Attributes:
        distance: The fewest pointers from an address to the one that was asked for.
        steps: The pointers at an address, or rather the places that it leads to.
        is_whole: Whether nothing was left out to bound the work.
    """

    distance: dict[int, int]
    steps: dict[int, list[Step]]
    is_whole: bool

    def walks(
        self, start: int, depth: int, passed: tuple[int, ...] = ()
    ) -> Iterator[tuple[int, ...]]:
        """Yields the offsets of each way from `start` that takes exactly `depth` pointers.

        No way comes to an address of `passed`, or twice to the same one.
        """
        if depth == 0:
            if self.distance.get(start) == 0:
                yield ()
            return
        here = (*passed, start)
        for step in self.steps.get(start, ()):
            if self.distance[step.goal] < depth and step.goal not in here:
                for rest in self.walks(step.goal, depth - 1, here):
                    yield (step.offset, *rest)


class PointerMap:
    """The aligned words of a memory that are addresses of readable memory, sorted by value."""

    def __init__(
        self, vm: VmSpace, ranges: Iterable[Range] | None, progress: Progress | None
    ) -> None:
        """Reads the memory.

        Raises:
            UnsupportedError: numpy is not installed, or there are too many pointers.
        """
        self._np = np = required("numpy", "a search for pointer paths")
        lands = ranges_by_perms(vm.memory, "r")
        word = u32 if vm.address_size == u32.size else u64
        starts = np.array([low for low, _ in lands], np.uint64)
        ends = np.array([high for _, high in lands], np.uint64)
        lowest, span = (lands[0][0], lands[-1][1] - lands[0][0]) if lands else (1, 0)

        def is_pointer(values: Any) -> Any:
            wide = values.astype(np.uint64, copy=False)
            # Few words are addresses: one comparison leaves these for the slower search.
            found = (wide - np.uint64(lowest)) < np.uint64(span)
            at = np.flatnonzero(found)
            near = wide[at]
            found[at] = near < ends[np.searchsorted(starts, near, "right") - 1]
            return found

        scan = vm.scan(word, value=is_pointer, ranges=ranges, perms="r", progress=progress)
        if len(scan) > _MOST_POINTERS:
            raise UnsupportedError(
                f"there are {len(scan)} pointers, and at most {_MOST_POINTERS} can be searched; "
                "give the ranges to look at"
            )
        values = scan.values().astype(np.uint64, copy=False)
        addresses = scan.addresses()
        del scan
        self.values, self.addresses = self._sorted(values, addresses)

    def _sorted(self, values: Any, addresses: Any) -> tuple[Any, Any]:
        """Returns both arrays in the order of the values."""
        np = self._np
        if not len(values):
            return values, addresses
        index_bits = len(values).bit_length()
        low = values.min()
        if int(values.max() - low).bit_length() + index_bits > 64:
            order = np.argsort(values, kind="stable")
        else:
            # One sort of words is several times as fast as an argsort.
            packed = (values - low) << np.uint64(index_bits)
            packed |= np.arange(len(values), dtype=np.uint64)
            packed.sort()
            packed &= np.uint64((1 << index_bits) - 1)
            order = packed.astype(np.int64)
        return values[order], addresses[order]

    def back(self, address: int, depth: int, max_offset: int, is_base: Any) -> Web:
        """Returns the pointers that lead to an address.

        Args:
            address: The address.
            depth: The most pointers in a row.
            max_offset: The most bytes from where a pointer points to the next place.
            is_base: Returns for an array of addresses which ones are variables of a file, where
                a path begins.
        """
        np = self._np
        distance: dict[int, int] = {address: 0}
        steps: dict[int, list[Step]] = {}
        goals, is_whole = np.array([address], np.uint64), True
        for level in range(1, depth + 1):
            places, to, offsets, fitted = self._leading_to(goals, max_offset)
            is_whole &= fitted
            bases = is_base(places).tolist()
            new: list[int] = []
            for place, goal, offset, base in zip(
                places.tolist(), to.tolist(), offsets.tolist(), bases, strict=True
            ):
                steps.setdefault(place, []).append(Step(goal, offset))
                if place not in distance:
                    distance[place] = level
                    # A path begins at a variable of a file: nothing before it is of use.
                    if not base:
                        new.append(place)
            if not new:
                break
            goals = np.array(sorted(new), np.uint64)
        return Web(distance, steps, is_whole)

    def _leading_to(self, goals: Any, max_offset: int) -> tuple[Any, Any, Any, bool]:
        """Returns (addresses of pointers, their goals, their offsets, whether these are all)."""
        np, reach = self._np, max_offset
        while True:
            lowest = goals - np.minimum(goals, np.uint64(reach))
            first = np.searchsorted(self.values, lowest, "left")
            last = np.searchsorted(self.values, goals, "right")
            counts = last - first
            total = int(counts.sum())
            if total <= _MOST_EDGES or not reach:
                break
            reach //= 2
        counts, first, goals = counts[:_MOST_EDGES], first[:_MOST_EDGES], goals[:_MOST_EDGES]
        total = int(counts.sum())
        skipped = np.repeat(first - (np.cumsum(counts) - counts), counts)
        at = np.arange(total) + skipped
        to = np.repeat(goals, counts)
        return self.addresses[at], to, to - self.values[at], reach == max_offset
