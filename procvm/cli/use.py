"""How much of each mapping is resident and dirty, from one read of /proc/PID/smaps."""

from __future__ import annotations

from typing import Any, NamedTuple

from procvm._base.text import printable
from procvm._saved.snapshot import Snapshot
from procvm._symbols.mapped import Mapped

__all__ = ["Use", "Uses", "uses_of"]


class Use(NamedTuple):
    """How much of a range is used, as /proc/PID/smaps counts it.

    Attributes:
        resident: Bytes in physical memory.
        dirty: Resident bytes that were written and are in no file yet.
        swapped: Bytes in swap.
    """

    resident: int
    dirty: int
    swapped: int

    def plus(self, other: Use) -> Use:
        """Returns the sums of both."""
        return Use(*(a + b for a, b in zip(self, other, strict=True)))


class Uses(NamedTuple):
    """The use of each mapping, by its first address and the address after its last.

    Attributes:
        by_range: The uses; empty if they are not known.
        why_not: Why they are not known; empty if they are.
    """

    by_range: dict[tuple[int, int], Use]
    why_not: str = ""


def uses_of(target: Mapped) -> Uses:
    """Returns the use of the mappings at this moment."""
    if isinstance(target, Snapshot):
        return Uses({}, "a core file does not say it")
    import psutil  # noqa: PLC0415 (slow to import)

    try:
        listed: Any = psutil.Process(target.pid).memory_maps(grouped=False)
    except psutil.Error as error:
        return Uses({}, f"/proc/{target.pid}/smaps cannot be read: {printable(str(error))}")
    found: dict[tuple[int, int], Use] = {}
    for one in listed:
        start, _, end = one.addr.partition("-")
        dirty = one.private_dirty + one.shared_dirty
        found[int(start, 16), int(end, 16)] = Use(one.rss, dirty, one.swap)
    if not found:
        return Uses({}, f"/proc/{target.pid}/smaps is empty")
    return Uses(found)
