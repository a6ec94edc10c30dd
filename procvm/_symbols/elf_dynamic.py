"""`Dynamic`: the dynamic section of an ELF file, which the dynamic linker goes by."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, final

from procvm._base.address import page_end
from procvm._symbols.elf_headers import PT_DYNAMIC, Elf, Segment
from procvm.errors import MalformedError

__all__ = ["DT_DEBUG", "KINDS", "Dynamic", "Kinds", "Reloc", "relocations_listed"]

_LONGEST_DYNAMIC = 1 << 16
_LONGEST_NAME = 4096
_LONGEST_TABLE = 1 << 25
_SHT_RELA, _SHT_REL = 4, 9

DT_NEEDED, DT_PLTRELSZ, DT_HASH, DT_STRTAB, DT_SYMTAB = 1, 2, 4, 5, 6
DT_RELA, DT_RELASZ, DT_STRSZ, DT_SONAME, DT_REL, DT_RELSZ = 7, 8, 10, 14, 17, 18
DT_PLTREL, DT_DEBUG, DT_JMPREL = 20, 21, 23
DT_GNU_HASH, DT_VERSYM = 0x6FFFFEF5, 0x6FFFFFF0
# Tags whose value the dynamic linker never changes: sizes, counts and offsets of strings.
_KEPT = frozenset({DT_NEEDED, DT_PLTRELSZ, DT_RELASZ, DT_STRSZ, DT_SONAME, DT_RELSZ, 27, 28, 30})


class Kinds(NamedTuple):
    """The relocation types of a machine that say where a symbol leads.

    Attributes:
        copy: The executable has a copy of a library's variable.
        irelative: A slot that holds what a resolver function returned.
        slots: A slot that holds the address of a symbol.
    """

    copy: int
    irelative: int
    slots: frozenset[int]


KINDS = {
    3: Kinds(5, 42, frozenset({1, 6, 7})),
    40: Kinds(20, 160, frozenset({2, 21, 22})),
    62: Kinds(5, 37, frozenset({1, 6, 7})),
    183: Kinds(1024, 1032, frozenset({257, 1025, 1026})),
    243: Kinds(4, 58, frozenset({2, 5})),
}
"""By the ELF number of the machine."""


class Reloc(NamedTuple):
    """A relocation: the place that it changes, its type, its symbol and its addend."""

    offset: int
    kind: int
    symbol: int
    addend: int | None


@final
class Dynamic:
    """The tags of a dynamic section, and the tables that they point to.

    Attributes:
        tags: The first value of each tag, as it is in the bytes that were read.
        rows: All tags with their values, in order.
    """

    def __init__(
        self, elf: Elf, segments: list[Segment], bias: int, read: Callable[[int, int], bytes]
    ) -> None:
        """Reads the section; without one it has no tags.

        Args:
            elf: The file's header.
            segments: Its program headers.
            bias: What is added to the addresses that the file says.
            read: Takes an address (with the bias added) and a length, returns the bytes.
        """
        self._elf = elf
        self._bias = bias
        self._read = read
        self.rows: list[tuple[int, int]] = []
        part = next((segment for segment in segments if segment.type == PT_DYNAMIC), None)
        if part is not None:
            row = struct.Struct("=QQ" if elf.bits == 64 else "=II")
            n = min(part.memsz, _LONGEST_DYNAMIC) // row.size * row.size
            for tag, value in row.iter_unpack(read(bias + part.vaddr, n)):
                if tag == 0:
                    break
                self.rows.append((tag, value))
        self.tags: dict[int, int] = {}
        for tag, value in self.rows:
            self.tags.setdefault(tag, value)

    def address(self, tag: int) -> int:
        """Returns the address that a tag holds, with the bias added."""
        value = self.tags[tag]
        # glibc adds the bias in place; musl and others leave the file's address.
        return value if value >= self._bias else value + self._bias

    def string(self, offset: int) -> bytes:
        """Returns a string of the table of names; empty if it has no such string.

        Raises:
            MalformedError: It is not in the table, or longer than a path may be.
        """
        if DT_STRTAB not in self.tags:
            return b""
        left = self.tags.get(DT_STRSZ, 0) - offset
        at = self.address(DT_STRTAB) + offset
        found = b""
        while len(found) < min(left, _LONGEST_NAME):
            part = self._read(at + len(found), min(64, left - len(found)))
            text, nul, _ = part.partition(b"\0")
            found += text
            if nul:
                return found
        raise self._elf.malformed(f"the name at {offset:#x} of its strings does not end")

    @property
    def soname(self) -> bytes:
        """DT_SONAME; empty if the file has none."""
        return self.string(self.tags[DT_SONAME]) if DT_SONAME in self.tags else b""

    @property
    def needed(self) -> list[bytes]:
        """DT_NEEDED, in order."""
        return [self.string(value) for tag, value in self.rows if tag == DT_NEEDED]

    def is_of_one_build_with(self, other: Dynamic) -> bool:
        """Returns whether the tags that no linker changes are those of `other`."""
        return [tag for tag, _ in self.rows] == [tag for tag, _ in other.rows] and all(
            ours == theirs
            for (tag, ours), (_, theirs) in zip(self.rows, other.rows, strict=True)
            if tag in _KEPT
        )

    def tables(self) -> Iterator[tuple[int, int, bool]]:
        """Yields (address, length, whether it has addends) of each table of relocations."""
        wide = self._elf.bits == 64
        for at, size, addends in (
            (DT_RELA, DT_RELASZ, True),
            (DT_REL, DT_RELSZ, False),
            (DT_JMPREL, DT_PLTRELSZ, self.tags.get(DT_PLTREL, DT_RELA if wide else 0) == DT_RELA),
        ):
            if at in self.tags and self.tags.get(size):
                yield self.address(at), self.tags[size], addends

    def relocations(self, kinds: frozenset[int]) -> Iterator[Reloc]:
        """Yields the relocations of some types.

        Raises:
            MalformedError: A table is longer than any program's.
        """
        for at, n, addends in self.tables():
            if n > _LONGEST_TABLE:
                raise self._elf.malformed(f"relocations of {n:#x} bytes")
            yield from relocations_in(self._elf, self._read(at, n), kinds, addends=addends)

    def symbol_name(self, index: int) -> bytes:
        """Returns the name of a dynamic symbol.

        Raises:
            MalformedError: It is not there.
        """
        n = self._elf.symbol_len
        raw = self._read(self.address(DT_SYMTAB) + index * n, n)
        return self.string(next(self._elf.symbols(raw))[0])

    def may_name(self, name: bytes) -> bool:
        """Returns whether the table of names has one, which a relocation may be for."""
        n = self.tags.get(DT_STRSZ, 0)
        if DT_STRTAB not in self.tags or n > _LONGEST_TABLE:
            return False
        return name + b"\0" in self._read(self.address(DT_STRTAB), n)

    def nr_symbols(self) -> int | None:
        """Returns the number of dynamic symbols, or None if no table says it.

        Raises:
            MalformedError: The hash table is not valid.
        """
        if DT_HASH in self.tags:
            count: int = struct.unpack("=I", self._read(self.address(DT_HASH) + 4, 4))[0]
            return count
        if DT_GNU_HASH in self.tags:
            return _count_by_gnu_hash(self.address(DT_GNU_HASH), self._elf.bits // 8, self._read)
        return None


def relocations_in(
    elf: Elf, table: bytes, kinds: frozenset[int], *, addends: bool
) -> Iterator[Reloc]:
    """Yields the relocations of some types of a raw table."""
    if elf.bits == 64:
        row, shift = struct.Struct("=QQq" if addends else "=QQ"), 32
    else:
        row, shift = struct.Struct("=IIi" if addends else "=II"), 8
    # The types' low bytes in one slice: a browser has half a million relocations, and
    # unpacking each takes longer than all else of a lookup.
    low = table[row.size // (3 if addends else 2) :: row.size]
    for kind in sorted(kinds):
        k = low.find(kind & 0xFF)
        while k >= 0:
            if (k + 1) * row.size > len(table):
                break
            offset, info, *addend = row.unpack_from(table, k * row.size)
            if info & ((1 << shift) - 1) == kind:
                yield Reloc(offset, kind, info >> shift, addend[0] if addend else None)
            k = low.find(kind & 0xFF, k + 1)


def relocations_listed(elf: Elf | None, kinds: frozenset[int]) -> Iterator[Reloc]:
    """Yields the relocations that sections list and that are applied in memory."""
    for section in elf.sections() if elf is not None else ():
        if elf is not None and section.type in (_SHT_RELA, _SHT_REL) and section.vaddr:
            table = elf.read(section.offset, min(section.size, 1 << 20))
            yield from relocations_in(elf, table, kinds, addends=section.type == _SHT_RELA)


_NR_BUCKETS = 1 << 20
_NR_SYMBOLS = 1 << 21


def _count_by_gnu_hash(table: int, word_len: int, read: Callable[[int, int], bytes]) -> int:
    """Returns how many symbols a DT_GNU_HASH table has: the last chain ends at the last one."""
    first: int
    nr_buckets, first, nr_bloom, _ = struct.unpack("=IIII", read(table, 16))
    buckets_at = table + 16 + word_len * nr_bloom
    if nr_buckets > _NR_BUCKETS:
        raise MalformedError(f"a symbol table of {nr_buckets} buckets")
    last = max(struct.unpack(f"={nr_buckets}I", read(buckets_at, 4 * nr_buckets)), default=0)
    if last < first:
        return first
    at = buckets_at + 4 * (nr_buckets + last - first)
    index = last
    while index - last < _NR_SYMBOLS:
        # Never across the end of a page: the next one may not be mapped.
        n = page_end(at) - at & ~3 or 4
        for (word,) in struct.iter_unpack("=I", read(at, n)):
            index += 1
            at += 4
            if word & 1:
                return index
    raise MalformedError("a symbol table whose last chain does not end")
