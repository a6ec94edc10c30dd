"""The mappings of a process, their resident and dirty bytes, and which share a line."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from procvm._base.text import printable
from procvm._live.process import Process
from procvm._saved.snapshot import Snapshot
from procvm._space.maps import Kind, Vma
from procvm.cli.use import Use, uses_of

__all__ = ["Area", "Row", "areas_of", "gaps_of", "rows_of", "title_of", "use_of"]


_NO_USE = Use(0, 0, 0)


class Area(NamedTuple):
    """A mapping and its use; None if the use is not known."""

    vma: Vma
    use: Use | None


class Row(NamedTuple):
    """Neighbouring mappings that are drawn as one line."""

    areas: list[Area]

    @property
    def start(self) -> int:
        """The first address."""
        return self.areas[0].vma.start

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.areas[-1].vma.end

    @property
    def size(self) -> int:
        """The sizes of the mappings together, in bytes."""
        return sum(area.vma.size for area in self.areas)

    @property
    def use(self) -> Use | None:
        """The use of the mappings together, as far as it is known."""
        return use_of(self.areas)

    @property
    def weight(self) -> float:
        """The rank among rows: the heaviest keep a line of their own."""
        if any(area.vma.kind in (Kind.HEAP, Kind.STACK) for area in self.areas):
            return math.inf
        resident = (self.use or _NO_USE).resident
        return math.log2(self.size + 1) + math.log2(resident + 1)


def use_of(areas: Iterable[Area]) -> Use | None:
    """Returns the use of all areas together; None if no use is known."""
    total: Use | None = None
    for area in areas:
        if area.use is not None:
            total = area.use if total is None else total.plus(area.use)
    return total


# Up to _MOST_SINGLE mappings have a line each. With more, neighbours of one name share a line.
# If that makes more than _MOST_ROWS lines, only the _NR_KEPT heaviest keep their own.
_MOST_SINGLE = 48
_MOST_ROWS = 72
_NR_KEPT = 32
_NR_GAPS = 12
_LEAST_GAP = 1 << 20


def areas_of(target: Process | Snapshot) -> list[Area]:
    """Returns the mappings and their use at this moment."""
    if isinstance(target, Snapshot):
        return [Area(vma, None) for vma in target.maps()]
    uses = uses_of(target).by_range
    # Read after the use: maps() raises if the pid belongs to another process by now.
    return [Area(vma, uses.get((vma.start, vma.end))) for vma in target.maps()]


def gaps_of(areas: Sequence[Area]) -> set[int]:
    """Returns the ends of the largest gaps: the starts of the mappings after them."""
    gaps = [
        (after.vma.start - before.vma.end, after.vma.start)
        for before, after in itertools.pairwise(areas)
    ]
    return {start for size, start in sorted(gaps, reverse=True)[:_NR_GAPS] if size >= _LEAST_GAP}


def rows_of(areas: Sequence[Area], gaps: set[int]) -> list[Row]:
    """Returns the lines of the picture in order, a limited number for any number of mappings."""
    if len(areas) <= _MOST_SINGLE:
        return [Row([area]) for area in areas]
    rows: list[Row] = []
    for area in areas:
        one_name = bool(rows) and rows[-1].areas[-1].vma.name == area.vma.name
        if one_name and area.vma.start not in gaps:
            rows[-1].areas.append(area)
        else:
            rows.append(Row([area]))
    if len(rows) <= _MOST_ROWS:
        return rows
    weights = sorted(((row.weight, k) for k, row in enumerate(rows)), reverse=True)
    kept = {k for _, k in weights[:_NR_KEPT]}
    folded: list[Row] = []
    open_row = False
    for k, row in enumerate(rows):
        if k in kept:
            folded.append(row)
            open_row = False
        elif open_row and row.start not in gaps:
            folded[-1].areas.extend(row.areas)
        else:
            folded.append(row)
            open_row = True
    return folded


def title_of(row: Row) -> str:
    """Returns the printable title of a line."""
    names = Counter(printable(area.vma.name) for area in row.areas)
    if len(names) == 1:
        (name,) = names
        return name or "(anonymous)"
    parts = [
        f"{name.rpartition('/')[2] or name or 'anonymous'}{f' ({n})' if n > 1 else ''}"
        for name, n in names.most_common()
    ]
    return ", ".join(parts)
