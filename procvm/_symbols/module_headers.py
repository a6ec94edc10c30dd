"""The headers of a loaded ELF file, as the file or the memory has them."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

from procvm._base.text import printable
from procvm._space.maps import Vma
from procvm._symbols.elf_dynamic import Dynamic
from procvm._symbols.elf_headers import Elf, Segment
from procvm._symbols.layout import LoadedFile
from procvm._symbols.mapped_file import MappedFile
from procvm.errors import MalformedError, UnsupportedError

__all__ = ["MAGIC", "Headers", "called", "dynamic_of_file", "elf_of", "headers_of", "word_at"]

MAGIC = b"\x7fELF"
"""The first bytes of an ELF file."""


class Headers(NamedTuple):
    """The program headers of a file, its first bytes, and the file if they were read from it."""

    segments: list[Segment]
    head: bytes
    file: MappedFile | None


def headers_of(stream: BinaryIO, file: MappedFile, vma: Vma) -> Headers | None:
    """Returns the headers of the file of a mapping, or None if it is not a valid ELF file."""
    try:
        if stream.read(len(MAGIC)) != MAGIC:
            return None
        elf = Elf(stream, called(vma))
        return Headers(elf.segments(), elf.header, file)
    except (MalformedError, UnsupportedError, OSError):
        return None


class _Head:
    """The first bytes of an ELF file, as a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to an offset, or to the end."""
        self._at = offset if whence == 0 else len(self._data)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next bytes; fewer at the end."""
        return self._data[self._at : self._at + size]


def elf_of(module: LoadedFile) -> Elf:
    """Returns the header of a loaded file, without reading anything."""
    return Elf(_Head(module.header), called(module.first))


def dynamic_of_file(elf: Elf, segments: list[Segment]) -> Dynamic:
    """Returns the dynamic section of a file."""
    return Dynamic(elf, segments, 0, lambda vaddr, n: elf.at(segments, vaddr, n))


def word_at(elf: Elf | None, module: LoadedFile, vaddr: int) -> int:
    """Returns the word that the file has at an address; 0 where it has none."""
    if elf is None:
        return 0
    try:
        return int.from_bytes(elf.at(module.segments, vaddr, elf.bits // 8), "little")
    except MalformedError:
        return 0


def called(vma: Vma) -> str:
    """Returns the name of a mapping's file for messages."""
    return printable(vma.name)
