"""Ranges of addresses: as a caller gives them, and by what is mapped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeAlias, cast

from procvm._base.address import as_address, as_len
from procvm._base.perms import SHARED, Perms, needed
from procvm._mm.memory import Region, UserMemory
from procvm.errors import Hint, UnsupportedError

__all__ = [
    "Range",
    "Spanned",
    "add_range",
    "near_range",
    "pairs_of",
    "ranges_by_perms",
    "ranges_of",
    "span_of",
    "spans_of",
]


class Spanned(Protocol):
    """An object with a first address and an exclusive end, such as a `Vma`."""

    @property
    def start(self) -> int:
        """The first address."""
        raise NotImplementedError

    @property
    def end(self) -> int:
        """One past the last address."""
        raise NotImplementedError


Range: TypeAlias = Spanned | range | tuple[int, int]
"""A range of addresses as a caller gives it: a mapping, a range object, or (start, end)."""


def add_range(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    """Appends a range to sorted ranges, merged with the last one if they meet or overlap."""
    if ranges and ranges[-1][0] <= start <= ranges[-1][1]:
        ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
    else:
        ranges.append((start, end))


def pairs_of(ranges: Iterable[Range]) -> list[tuple[int, int]]:
    """Returns ranges as (start, end) pairs, in their order.

    Args:
        ranges: Each a mapping (an object with `start` and `end`), a range object, or a pair
            (start, end). The end is exclusive.

    Raises:
        TypeError: A range has another type.
        ValueError: A range ends before it starts.
    """
    pairs: list[tuple[int, int]] = []
    for one in _listed(ranges):
        if isinstance(one, range):
            if one.step != 1:
                raise ValueError(f"{one} leaves addresses out; give a range without a step")
            start, end = one.start, one.stop
        elif hasattr(one, "start") and hasattr(one, "end"):
            start, end = one.start, one.end
        else:
            try:
                start, end = one
            except (TypeError, ValueError):
                raise _not_a_range(one) from None
        start, end = as_address(start, "start"), as_address(end, "end")
        if start > end:
            raise ValueError(f"[{start:#x}, {end:#x}) ends before it starts; give (start, end)")
        pairs.append((start, end))
    return pairs


def _listed(ranges: object) -> Iterator[Any]:
    # A mapping is a tuple, so that without this its fields would be taken for ranges.
    if isinstance(ranges, str | bytes) or hasattr(ranges, "perms"):
        raise _not_a_range(ranges)
    try:
        yield from cast("Iterable[Any]", ranges)
    except TypeError:
        raise _not_a_range(ranges) from None


def _not_a_range(one: object) -> TypeError:
    return TypeError(
        "ranges are mappings, range objects or pairs (start, end), in a list: [(start, end)]; "
        f"{one!r} is not one of these"
    )


def ranges_of(ranges: Iterable[Range]) -> list[tuple[int, int]]:
    """Returns ranges as `pairs_of`, sorted, and merged where they meet or overlap."""
    return _merged(sorted((start, end) for start, end in pairs_of(ranges) if start < end))


def _merged(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in pairs:
        add_range(found, start, end)
    return found


def ranges_by_perms(memory: UserMemory, perms: str | Perms) -> list[tuple[int, int]]:
    """Returns the ranges that are mapped with at least these permissions, as `ranges_of` does."""
    need, private = needed(perms)
    want = int(need)
    regions: list[Region] | None = memory.regions()
    if regions is None:
        raise UnsupportedError(
            "this memory does not tell which of its addresses are mapped", hint=Hint("ranges")
        )
    return _merged(
        (region.start, region.end)
        for region in regions
        if region.flags & want == want
        and not (private and region.flags & SHARED)
        and region.end <= memory.end
    )


def near_range(near: tuple[int, int]) -> tuple[int, int]:
    """Returns the range of the addresses at most `n` bytes from an address.

    Args:
        near: (address, n).

    Raises:
        TypeError: Not a pair of integers.
        InvalidArgsError: One of them is negative.
    """
    if not isinstance(cast("object", near), tuple) or len(near) != 2:
        raise TypeError(f"near is a pair (address, n), not {near!r}")
    address, n = as_address(near[0]), as_len(near[1], "n")
    return max(address - n, 0), address + n + 1


def spans_of(excluded: Iterable[int | Range]) -> list[tuple[int, int]]:
    """Returns addresses and ranges as sorted, disjoint pairs (start, end).

    Args:
        excluded: Each an address, which is a span of a byte, or a range as `pairs_of` takes it.

    Raises:
        TypeError: One has another type.
        ValueError: A range ends before it starts.
    """
    found: list[tuple[int, int]] = []
    for one in excluded:
        if isinstance(one, int):
            found.append((as_address(one), one + 1))
        else:
            found += pairs_of([one])
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if start < end:
            add_range(merged, start, end)
    return merged


def span_of(target: int | Range) -> tuple[int, int]:
    """Returns an address or a range as a pair (start, end) that is not empty."""
    if isinstance(target, int) or hasattr(target, "__index__"):
        address = as_address(target)
        return address, address + 1
    ((low, high),) = pairs_of([target])
    if low == high:
        raise ValueError(f"the range at {low:#x} is empty, so no pointer leads into it")
    return low, high
