"""The headers of an ELF file, checked before they are believed.

pyelftools parses the ELF header. The tables are unpacked here, each in one call: a core
of a process with 30,000 mappings has as many segments, at 20 us each in pyelftools.
Every length is compared with the file's before anything is read, so that a malformed
one costs neither time nor memory.
"""

from __future__ import annotations

import io
import os
import struct
import sys
from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, final

from procvm._base.address import page_end
from procvm._base.optional import required
from procvm.errors import MalformedError, PageFaultError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ET_CORE",
    "NT_GNU_BUILD_ID",
    "PN_XNUM",
    "PT_DYNAMIC",
    "PT_INTERP",
    "PT_LOAD",
    "PT_NOTE",
    "PT_TLS",
    "Elf",
    "Note",
    "Section",
    "Segment",
    "Stream",
    "build_id_in",
    "build_id_of",
    "turned",
]

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_TLS = 1, 2, 3, 4, 7
ET_CORE = 4
PN_XNUM = 0xFFFF
NT_GNU_BUILD_ID = 3

_EHDR_LEN = 64
_ROWS = 1 << 12
_NOTES_LEN = 1 << 24
_NR_NOTES = 1 << 16
"""A core has some four a thread. Walking more of them takes longer than a caller waits."""

_OWNERS = frozenset({b"CORE", b"GNU", b"procvm"})
_NR_SEGMENTS = 1 << 20
_NR_LOADED = 1 << 10
_PT_NULL = 0
_SECTION_NAME_LEN = 256


class Stream(Protocol):
    """A binary file that can be read anywhere."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As of any file."""
        ...

    def read(self, size: int = -1, /) -> bytes | None:
        """As of any file."""
        ...


class Segment(NamedTuple):
    """A program header."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int
    align: int


class Section(NamedTuple):
    """A section header."""

    name: bytes
    type: int
    vaddr: int
    offset: int
    size: int
    link: int
    entsize: int


class Note(NamedTuple):
    """A note: its owner, its type, and its bytes."""

    owner: bytes
    type: int
    desc: memoryview


class _Formats(NamedTuple):
    """The structs of a segment, a section and a symbol of one class, and their field order."""

    segment: str
    segment_fields: tuple[int, ...]
    section: str
    symbol: str
    symbol_fields: tuple[int, ...]
    """The places of name, info, shndx, value and size."""


_FORMATS = {
    # type flags offset vaddr paddr filesz memsz align; name info other shndx value size
    64: _Formats("IIQQQQQQ", (0, 1, 2, 3, 5, 6, 7), "IIQQQQIIQQ", "IBBHQQ", (0, 1, 3, 4, 5)),
    # type offset vaddr paddr filesz memsz flags align; name value size info other shndx
    32: _Formats("IIIIIIII", (0, 6, 1, 2, 4, 5, 7), "IIIIIIIIII", "IIIBBH", (0, 3, 5, 1, 2)),
}


@final
class Elf:
    """An ELF file.

    Attributes:
        what: How errors call it.
        bits: 64 or 32.
        kind: One of ET_*.
        machine: Its number, one of EM_*.
        size: Bytes of the file.
        header: Its first 64 bytes, or as many as there are.
        entry: Where a program begins to run, as the file says it.
    """

    def __init__(self, stream: Stream, what: str) -> None:
        """Reads the header.

        Raises:
            MalformedError: Not an ELF file.
            UnsupportedError: Of another byte order than this machine's.
        """
        library: Any = required("elftools.elf.elffile", "reading an ELF file")
        self.what = what
        self._stream = stream
        self.size = stream.seek(0, io.SEEK_END)
        self._nr_notes = self._notes_len = 0
        head = bytearray(self.read(0, min(_EHDR_LEN, self.size)))
        try:
            # Without the tables, whose offsets pyelftools would follow in a crafted file.
            header = library.ELFFile(io.BytesIO(_alone(head))).header
        except (library.ELFError, ValueError) as error:
            raise self.malformed(f"no ELF header ({error})") from None
        self.header = bytes(head)
        self.entry = int(header["e_entry"])
        ident = header["e_ident"]
        self.bits = 64 if ident["EI_CLASS"] == "ELFCLASS64" else 32
        if (ident["EI_DATA"] == "ELFDATA2LSB") != (sys.byteorder == "little"):
            raise UnsupportedError(f"{what} is of a machine of the other byte order")
        self._formats = _FORMATS[self.bits]
        self.kind, self.machine = struct.unpack_from("=HH", head, 16)
        words = "QQ" if self.bits == 64 else "II"
        self._phoff, self._shoff = struct.unpack_from(
            "=" + words, head, 32 if words == "QQ" else 28
        )
        counts = struct.unpack_from("=HHHHH", head, 54 if words == "QQ" else 42)
        self._phentsize, self._phnum, self._shentsize, self._shnum, self._shstrndx = counts

    def malformed(self, why: str) -> MalformedError:
        """Returns the error that says what is wrong with it."""
        return MalformedError(f"{self.what} is malformed: {why}")

    def read(self, offset: int, n: int) -> bytes:
        """Returns `n` bytes of the file.

        Raises:
            MalformedError: It is shorter than that, or the offset is negative.
        """
        if offset < 0 or n > self.size - offset:
            raise self.malformed(f"{n:#x} bytes at {offset:#x} of it are not there")
        parts: list[bytes] = []
        done = 0
        self._stream.seek(offset)
        while done < n:
            try:
                part = self._stream.read(n - done)
            except PageFaultError:
                raise  # memory as a file, which has an error of its own
            except OSError as error:
                raise self.malformed(f"{os.strerror(error.errno or 0)} at {offset:#x}") from None
            if not part:
                raise self.malformed(f"it ends at {offset + done:#x}, before its tables do")
            parts.append(part)
            done += len(part)
        return b"".join(parts)

    def _table(self, layout: str, offset: int, count: int, entsize: int) -> list[tuple[int, ...]]:
        record = struct.Struct("=" + layout)
        if count and entsize != record.size:
            raise self.malformed(f"a table has entries of {entsize} bytes, not {record.size}")
        return list(record.iter_unpack(self.read(offset, count * record.size)))

    def _section_rows(self, first: int = 0) -> list[tuple[int, ...]]:
        count = first or self._shnum
        if not self._shoff:
            return []
        return self._table(self._formats.section, self._shoff, count, self._shentsize)

    def segments(self) -> list[Segment]:
        """Returns the program headers.

        Raises:
            MalformedError: They are not there, or one is of nothing.
        """
        count = self._phnum
        if count == PN_XNUM and self._shoff:
            # More than the field can say: the first section has the number.
            count = self._section_rows(1)[0][7]
        # A file that is loaded has some ten; a core one for each mapping.
        most = _NR_SEGMENTS if self.kind == ET_CORE else _NR_LOADED
        if count > most:
            raise self.malformed(f"{count} program headers, more than {most}")
        layout, fields = self._formats.segment, self._formats.segment_fields
        pick = cast("Callable[[tuple[int, ...]], tuple[int, ...]]", itemgetter(*fields))
        found: list[Segment] = []
        for first in range(0, count, _ROWS):
            offset = self._phoff + first * self._phentsize
            rows = self._table(layout, offset, min(_ROWS, count - first), self._phentsize)
            found += [Segment._make(pick(row)) for row in rows]
            # A file that is long because it is sparse has as many headers as it likes.
            if len(rows) == _ROWS and found[-1].type == _PT_NULL:
                raise self.malformed("a program header of nothing")
        return found

    def at(self, segments: list[Segment], vaddr: int, n: int) -> bytes:
        """Returns `n` bytes that the file has for an address it is loaded at.

        Memory beyond the bytes of the file, such as .bss, is zeros up to the end of its page.

        Raises:
            MalformedError: No segment has them.
        """
        for one in segments:
            end = page_end(max(one.vaddr + one.memsz, 1) - 1)
            if one.type == PT_LOAD and one.vaddr <= vaddr and vaddr + n <= end:
                kept = min(max(one.vaddr + one.filesz - vaddr, 0), n)
                data = self.read(one.offset + vaddr - one.vaddr, kept) if kept else b""
                return data if kept == n else data + bytes(n - kept)
        raise self.malformed(f"no segment has {n:#x} bytes at {vaddr:#x}")

    def sections(self) -> list[Section]:
        """Returns the section headers; none of a file that was stripped of them.

        Raises:
            MalformedError: They are not there.
        """
        rows = self._section_rows()
        if not rows or self._shstrndx >= len(rows):
            return []
        at, n = rows[self._shstrndx][4:6]
        if n > len(rows) * _SECTION_NAME_LEN:
            raise self.malformed(f"names of {n:#x} bytes for {len(rows)} sections")
        strings = self.read(at, n)
        return [
            Section(
                string_at(strings, row[0], _SECTION_NAME_LEN),
                row[1],
                row[3],
                row[4],
                row[5],
                row[6],
                row[9],
            )
            for row in rows
        ]

    def notes(self, part: Segment | Section) -> Iterator[Note]:
        """Yields the notes of a segment or section, those that procvm knows.

        Raises:
            MalformedError: They are not valid, or too many together with the earlier ones.
        """
        n = part.filesz if isinstance(part, Segment) else part.size
        self._notes_len += n
        if self._notes_len > _NOTES_LEN:
            raise self.malformed(f"{self._notes_len:#x} bytes of notes, more than {_NOTES_LEN:#x}")
        head = struct.Struct("=III")
        data = self.read(part.offset, n)
        view = memoryview(data)
        at, last = 0, n - head.size
        while at <= last:
            name_len, desc_len, kind = head.unpack_from(data, at)
            begin = at + head.size + (name_len + 3 & ~3)
            end = begin + desc_len
            self._nr_notes += 1
            if end > n or not name_len or self._nr_notes > _NR_NOTES:
                raise self.malformed(
                    f"the note at {at:#x} of {n:#x} bytes ends at {end:#x}, has no owner, or is "
                    f"one of more than {_NR_NOTES}"
                )
            owner = data[at + head.size : at + head.size + name_len - 1]
            if owner in _OWNERS:
                yield Note(owner, kind, view[begin:end])
            at = end + 3 & ~3

    def symbols(self, table: bytes) -> Iterator[tuple[int, int, int, int, int]]:
        """Yields (name, info, section, value, size) of each symbol of a raw table."""
        name, info, shndx, value, size = self._formats.symbol_fields
        record = struct.Struct("=" + self._formats.symbol)
        for row in record.iter_unpack(table[: len(table) // record.size * record.size]):
            yield row[name], row[info], row[shndx], row[value], row[size]

    @property
    def symbol_len(self) -> int:
        """Bytes of a symbol."""
        return struct.calcsize("=" + self._formats.symbol)


def turned(flags: int) -> int:
    """Returns a segment's flags as those of `Perms`, or these as those: R and X change places."""
    return (flags & 4) >> 2 | flags & 2 | (flags & 1) << 2


def _alone(head: bytearray) -> bytes:
    """Returns an ELF header without what it says of sections, which follow in the real file."""
    copy = bytearray(head)
    if len(copy) == _EHDR_LEN:
        wide = copy[4] == 2
        for start, end in ((40, 48), (60, 64)) if wide else ((32, 36), (48, 52)):
            copy[start:end] = bytes(end - start)
    return bytes(copy)


def string_at(strings: bytes, at: int, most: int) -> bytes:
    """Returns the string that begins at an offset of a table; empty if it does not end soon."""
    end = strings.find(b"\0", at, at + most)
    return strings[at:end] if end >= 0 else b""


def build_id_of(elf: Elf) -> bytes:
    """Returns the build ID of a file, or nothing."""
    for segment in elf.segments():
        if segment.type == PT_NOTE and (found := build_id_in(elf, segment)):
            return found
    return b""


def build_id_in(elf: Elf, part: Segment) -> bytes:
    """Returns the build ID that is in a segment of notes, or nothing."""
    for note in elf.notes(part):
        if note.owner == b"GNU" and note.type == NT_GNU_BUILD_ID:
            return bytes(note.desc)
    return b""
