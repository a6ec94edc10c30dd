"""`ModuleSource`: a loaded file whose debug information can be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["ModuleSource", "ThreadState"]


class ModuleSource(NamedTuple):
    """A loaded file.

    Attributes:
        name: A name that no other loaded file has.
        path: Its path, as the target sees it; empty for the vdso.
        start: Its first address.
        end: One past its last address.
        build_id: Its build ID; empty if it has none.
        key: Equal for the same file at the same place, and different for any other.
        open: Opens the file; returns a descriptor that the caller closes, or -1, and why the
            file cannot be used.
    """

    name: str
    path: str
    start: int
    end: int
    build_id: bytes
    key: object
    open: Callable[[], tuple[int, str]]


class ThreadState(NamedTuple):
    """The registers and stack bytes of one thread, from which its stack is unwound.

    Attributes:
        registers: The general registers, by the kernel's names.
        kept: Copies of memory, as (address, bytes) pairs, which count instead of the memory.
    """

    registers: dict[str, int]
    kept: tuple[tuple[int, bytes], ...] = ()
