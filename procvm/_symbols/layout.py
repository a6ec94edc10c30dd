"""`LoadedFile`: an ELF file where it is loaded, found by its program headers."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator
from typing import final

from procvm._base.address import PAGE_SIZE, page_end
from procvm._base.perms import Perms
from procvm._space.maps import Vma
from procvm._symbols.elf_headers import PT_LOAD, Segment
from procvm._symbols.elf_symbols import SymbolTable
from procvm._symbols.mapped_file import FileKey

__all__ = ["AT_SIGN", "LoadedFile", "instances_of", "name_of"]

AT_SIGN = b"@0x"
"""Before the address that tells one of several things of a name."""

_NR_GUESSES = 16
_NR_LOADS = 64


@final
class LoadedFile:
    """An ELF file where it is loaded.

    Attributes:
        first: Its lowest mapping.
        vmas: All its mappings of the file, sorted.
        end: One past its last address, with .bss, which is not in the file.
        bias: Its load bias: the address in memory minus the address in the file.
        segments: Its program headers.
        header: The first bytes of the file.
        is_loaded: Whether it may run there; a file that is merely read is not.
        rank: How sure it is that the dynamic linker knows it: 0 if it is in its list or the
            program itself, 1 if not.
        link_name: Its name in the dynamic linker's list; empty if it is not in the list.
        link_place: Where that list has it: the address of its link_map; 0 if it is not there.
        path: The file that its headers were read from; empty if they are from memory.
        key: Tells the content of that file from a later one.
        why: Why names of it may be missing, or empty.
        table: Its symbols, once they were read.
        names: Its soname and the sonames that it needs, once they were read.
        build_id: Its build ID, once it was read; empty if it has none.
        copies: By name, where it has copies of the variables of libraries.
        moved: By its own address of a variable, where the copy of that is.
    """

    def __init__(self, vmas: list[Vma], bias: int, segments: list[Segment], header: bytes) -> None:
        self.vmas = vmas
        self.first = vmas[0]
        self.bias = bias
        loads = [segment for segment in segments if segment.type == PT_LOAD]
        self.end = max(bias + max(load.vaddr + load.memsz for load in loads), vmas[-1].end)
        may_run = any(load.flags & 1 for load in loads)
        # A core file may not tell what was allowed.
        self.is_loaded = not may_run or any(vma.perms & Perms.EXEC or not vma.perms for vma in vmas)
        self.segments = segments
        self.header = header
        self.name = name_of(self.first)
        self.rank = 1
        self.link_name = b""
        self.link_place = 0
        self.path = ""
        self.key: FileKey | None = None
        self.why = ""
        self.table: SymbolTable | None = None
        self.names: tuple[bytes, list[bytes]] | None = None
        self.build_id: bytes | None = None
        self.copies: dict[bytes, int] | None = None
        self.moved: dict[int, int] | None = None

    @property
    def bits(self) -> int:
        """64 or 32, as the file's class says."""
        return 64 if self.header[4:5] == b"\2" else 32

    @property
    def word_len(self) -> int:
        """Bytes of an address there."""
        return self.bits // 8

    @property
    def machine(self) -> int:
        """The ELF number of the processor it is for."""
        return int.from_bytes(self.header[18:20], sys.byteorder)

    def vma_at(self, address: int) -> Vma | None:
        """Returns the mapping of the file that holds an address, or None."""
        k = bisect_right(self.vmas, address, key=lambda vma: vma.start) - 1
        return self.vmas[k] if k >= 0 and address < self.vmas[k].end else None


def name_of(vma: Vma) -> bytes:
    """Returns the name of a mapping in an expression: the last part of a path, or the name."""
    name = vma.plain_name
    return name.rpartition(b"/")[2] if name.startswith(b"/") else name


def instances_of(vmas: list[Vma], segments: list[Segment]) -> Iterator[tuple[int, list[Vma]]]:
    """Yields (bias, mappings) of each place where a file is loaded.

    A mapping's offset alone does not say where a file begins: lld and mold lay several
    segments into the first page of a file, which then is mapped several times.

    Args:
        vmas: The private mappings of the file, sorted.
        segments: Its program headers.
    """
    loads = [one for one in segments if one.type == PT_LOAD and one.filesz][:_NR_LOADS]
    tried: set[int] = set()
    left = vmas
    while left:
        best: tuple[int, list[Vma]] = (0, [])
        most = 0
        guesses = [load for load in loads if _page_range(load.offset, load.filesz, left[0].offset)]
        for load in guesses[:_NR_GUESSES]:
            bias = left[0].start - left[0].offset + load.offset - load.vaddr
            if bias in tried:
                continue
            tried.add(bias)
            found = [_of_load(left, bias, one) for one in loads]
            if sum(map(bool, found)) > most:
                most = sum(map(bool, found))
                best = bias, sorted({vma for of_one in found for vma in of_one})
                if most == len(loads):
                    break
        bias, mine = best
        if not mine:
            left = left[1:]
            continue
        # Mappings between its segments are holes that the linker keeps closed, not another place.
        first, last = mine[0].start, mine[-1].end
        inside = [vma for vma in left if first <= vma.start < last]
        left = [vma for vma in left if not first <= vma.start < last]
        yield bias, inside


def _page_range(offset: int, n: int, at: int) -> bool:
    """Returns whether a page-aligned offset is in the pages of a segment."""
    return offset // PAGE_SIZE * PAGE_SIZE <= at < page_end(offset + n - 1)


def _of_load(vmas: list[Vma], bias: int, load: Segment) -> list[Vma]:
    """Returns the mappings that show a segment at a bias."""
    start = (bias + load.vaddr) // PAGE_SIZE * PAGE_SIZE
    end = page_end(bias + load.vaddr + load.filesz - 1)
    shift = bias + load.vaddr - load.offset
    k = max(bisect_right(vmas, start, key=lambda vma: vma.start) - 1, 0)
    found: list[Vma] = []
    while k < len(vmas) and vmas[k].start < end:
        vma = vmas[k]
        if vma.end > start and vma.start - vma.offset == shift:
            found.append(vma)
        k += 1
    return found
