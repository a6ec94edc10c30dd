"""Finds out what a range of a live process holds, without allocating a page in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple, final

from procvm._base.address import PAGE_SIZE
from procvm._base.fd import Fd
from procvm._base.perms import SHARED
from procvm._linux.file import data_runs, read_file
from procvm._linux.objects import Objects
from procvm._linux.own_means import require_own_means
from procvm._linux.pagemap import touched
from procvm._linux.proc_maps import VmaEntry, entries_between
from procvm._live.image import Image
from procvm._mm.extent import Content, Extent, joined
from procvm.errors import PageFaultError

__all__ = ["FileSource", "layout_of"]

_LONG = 1 << 16
"""Shorter runs of zeros are read as data: they use the same page table as the data beside them."""


def layout_of(image: Image, start: int, end: int, need: int) -> Iterator[Extent]:
    """Yields what a range of a process holds; see `UserMemory.layout`.

    * Private memory: the pages of the target are data. The rest is zeros, or the bytes of the
      mapped file.
    * Shared memory and files: the bytes of the object, read from the object itself.
    * Shared memory whose object cannot be opened (no capability, no path, no descriptor): the
      pages of the target are data. The rest is a hole, since another process may have written it.

    Args:
        image: The program.
        start: The first address.
        end: The address after the last.
        need: The permissions that a mapping must have, as numbers of `Perms`.

    Raises:
        VmError: This process lacks descriptors or memory.
    """
    return joined(_extents(image, start, end, need))


def _extents(image: Image, start: int, end: int, need: int) -> Iterator[Extent]:
    at = start
    files = image.open_files()
    pages = _Pages(image)
    try:
        for vma in entries_between(files.maps.number, start, end):
            if vma.start > at:
                yield Extent(at, vma.start, Content.HOLE)
            at, last = max(at, vma.start), min(vma.end, end)
            if vma.flags & need != need:
                yield Extent(at, last, Content.HOLE)
                at = last
                continue
            for extent in pages.of_mapping(vma, at, last):
                yield extent
                at = extent.end
    except OSError as error:
        require_own_means(error, f"the page tables of process {image.pid}")
        # The process has ended, or the kernel refuses. A read of the rest raises the error.
        yield Extent(at, end, Content.DATA)
        return
    if at < end:
        yield Extent(at, end, Content.HOLE)


@final
class _Pages:
    """Finds where the bytes of one process's mappings are, for one walk."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._pagemap = image.open_pagemap()
        self._objects = Objects(image.pid)

    def of_mapping(self, vma: VmaEntry, at: int, end: int) -> Iterator[Extent]:
        """Yields what a part of a mapping holds."""
        shared = bool(vma.flags & SHARED)
        if not vma.inode and vma.dev == (0, 0):
            if shared or _is_special(vma):
                yield Extent(at, end, Content.DATA)
            else:
                yield from self._own(at, end, Content.ZEROS)
            return
        file = self._objects.open(vma)
        if file is None:
            yield from self._without_object(vma, at, end)
        elif self._pagemap is None and shared:
            yield from self._object(vma, file, at, end)
        elif self._pagemap is None:
            yield Extent(at, end, Content.DATA)
        else:
            # The copied pages of a private mapping. Guard pages are among them, and fault.
            for first, last in touched(self._pagemap.number, at, end):
                yield from self._object(vma, file, at, first)
                at = max(at, first)
                if at < last:
                    yield Extent(at, min(last, end), Content.DATA)
                at = max(at, last)
            yield from self._object(vma, file, at, end)

    def _own(
        self, at: int, end: int, rest: Content, *, files: bool = False, least: int = _LONG
    ) -> Iterator[Extent]:
        """Yields the pages that the target has as data, and the others as `rest`."""
        if self._pagemap is None:
            yield Extent(at, end, Content.DATA if rest is Content.ZEROS else rest)
            return
        for first, last in [*touched(self._pagemap.number, at, end, files=files), (end, end)]:
            if first - at >= least:
                yield Extent(at, first, rest)
                at = first
            if at < min(last, end):
                yield Extent(at, min(last, end), Content.DATA)
                at = min(last, end)

    def _without_object(self, vma: VmaEntry, at: int, end: int) -> Iterator[Extent]:
        if not self._objects.is_in_memory(vma):
            # The page cache of a file on a disk. The kernel can drop it when memory is short.
            yield Extent(at, end, Content.DATA)
        elif vma.name.startswith(b"/anon_hugepage") and not vma.flags & SHARED:
            yield from self._own(at, end, Content.ZEROS, least=1)
        else:
            yield from self._own(at, end, Content.HOLE, files=True, least=1)

    def _object(self, vma: VmaEntry, file: Fd, at: int, end: int) -> Iterator[Extent]:
        """Yields what the object holds for a part of a mapping."""
        if at >= end:
            return
        shift = vma.offset - vma.start
        size = os.fstat(file.number).st_size
        file_end = min(-(-size // PAGE_SIZE) * PAGE_SIZE - shift, end)
        source = FileSource(file, shift, vma.name, self._image.pid)
        whole = max(min(size // PAGE_SIZE * PAGE_SIZE - shift, end), at)
        for first, last in data_runs(file.number, at + shift, whole + shift):
            # Rounded to whole pages, since a file system may count in smaller blocks.
            low = max((first - shift) // PAGE_SIZE * PAGE_SIZE, at)
            high = min(-(-(last - shift) // PAGE_SIZE) * PAGE_SIZE, whole)
            if low > at:
                yield Extent(at, low, Content.ZEROS)
            if high > low:
                yield Extent(low, high, Content.DATA, source)
            at = max(at, high)
        if at < whole:
            yield Extent(at, whole, Content.ZEROS)
            at = whole
        if at < file_end:
            # The last page of the file. The bytes after the end of the file are in memory only.
            some = any(True for _ in data_runs(file.number, at + shift, size))
            yield Extent(at, file_end, Content.DATA if some else Content.ZEROS)
            at = file_end
        if at < end:
            yield Extent(at, end, Content.HOLE)


def _is_special(vma: VmaEntry) -> bool:
    """Returns whether the kernel fills the pages of a mapping without a file, such as [vdso]."""
    return vma.name.startswith(b"[") and not vma.name.startswith((b"[heap]", b"[stack", b"[anon:"))


class FileSource(NamedTuple):
    """A mapped file, from which bytes are read without the target's page tables.

    Attributes:
        file: The file.
        shift: The number to add to an address for the offset in the file.
        name: The name of the mapping.
        pid: The process that has mapped the file.
    """

    file: Fd
    shift: int
    name: bytes
    pid: int

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes of the file.

        Raises:
            PageFaultError: The file was truncated, or cannot be read.
        """
        got, code = read_file(self.file.number, address + self.shift, own_address, n)
        if got < n:
            raise PageFaultError(
                f"cannot read the file that process {self.pid} has mapped at "
                f"{address + got:#x}: {os.strerror(code)}",
                address=address + got,
                pid=self.pid,
                copied_len=got,
                errno=code,
            )
