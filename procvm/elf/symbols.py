"""`SymbolTable`: which addresses of an ELF file have names."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple, final

from procvm.address import page_end
from procvm.elf.headers import PT_DYNAMIC, Elf, Section, Segment, string_at
from procvm.errors import MalformedError

__all__ = ["Symbol", "SymbolTable", "symbols_in_memory", "symbols_of"]

_SHT_SYMTAB, _SHT_DYNSYM, _SHT_GNU_VERSYM = 2, 11, 0x6FFFFFFF
_HIDDEN = 0x8000  # of a version that is not linked with any more
_AT = b"@0x"
_NAME_LEN = 1 << 16
_LONGEST_TABLE = 1 << 26
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_STT_TLS = 6
# What has an address: no type, an object, a function, and one that chooses itself.
_ADDRESSED = frozenset({0, 1, 2, 10})
# A global name before a weak one before a local one.
_RANK = {1: 0, 2: 1, 10: 0, 0: 2}


class Symbol(NamedTuple):
    """A name and what it is of.

    Attributes:
        name: Any bytes.
        value: Its address, where the file says it is loaded.
        size: Bytes of it; 0 if nobody said.
        end: Up to where it may reach if nobody said: the end of its section.
        rank: 0 for global, 1 for weak, 2 for local.
    """

    name: bytes
    value: int
    size: int
    end: int
    rank: int


@final
class SymbolTable:
    """The symbols of one file, by name and by address.

    Attributes:
        thread_local: Names that have an address in each thread, and none here.
    """

    def __init__(self, symbols: Iterable[Symbol], thread_local: Iterable[bytes] = ()) -> None:
        self._symbols = list(symbols)
        # The better one comes last, and stays.
        ordered = sorted(self._symbols, key=lambda symbol: -symbol.rank)
        self._by_name = {symbol.name: symbol.value for symbol in ordered}
        self.thread_local = frozenset(thread_local)
        self._starts: list[int] | None = None
        self._reach: list[int] = []

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: bytes) -> int | None:
        """Returns the address of a name, or None; also of one as `at` tells it."""
        value = self._by_name.get(name)
        if value is None and _AT in name:
            plain, _, number = name.rpartition(_AT)
            with suppress(ValueError):
                wanted = int(number, 16)
                if any(one.value == wanted and one.name == plain for one in self._symbols):
                    return wanted
        return value

    def at(self, value: int) -> tuple[bytes, int] | None:
        """Returns what an address lies in, and how far; None if in nothing that has a name.

        Of those that do, the one that begins last; of several names of one thing
        the plainest. A name without a size reaches up to the next one in its section.
        A name that is another thing's as well has behind it which one is meant.
        """
        if self._starts is None:
            self._sort()
        starts = self._starts or []
        k = bisect_right(starts, value) - 1
        first = k
        while k >= 0 and (self._reach[k] > value or starts[k] == starts[first]):
            symbol = self._symbols[k]
            nearest = not symbol.size and symbol.value == starts[first]
            if value < (symbol.end if nearest else symbol.value + symbol.size):
                name = symbol.name
                if self._by_name[name] != symbol.value:
                    name += _AT + b"%x" % symbol.value
                return name, value - symbol.value
            k -= 1
        return None

    def _sort(self) -> None:
        # Of those at one address the last is looked at first: the one with the fewest
        # underscores before it, as malloc and not __libc_malloc.
        self._symbols.sort(
            key=lambda symbol: (
                symbol.value,
                symbol.size > 0,
                symbol.name[:2].count(b"_") * -1,
                -symbol.rank,
                -len(symbol.name),
                symbol.name,
            )
        )
        self._starts = [symbol.value for symbol in self._symbols]
        # How far anything reaches that begins there or before: who looks back can stop.
        ends = (symbol.value + symbol.size for symbol in self._symbols)
        self._reach = list(accumulate(ends, max))


def symbols_of(elf: Elf) -> SymbolTable | None:
    """Returns the symbols that a file's sections list, or None if it has no such sections.

    Raises:
        MalformedError: The tables are not where it says.
    """
    sections = elf.sections()
    for wanted in (_SHT_SYMTAB, _SHT_DYNSYM):
        for section in sections:
            if section.type == wanted and section.link < len(sections):
                strings = sections[section.link]
                # A table of names is not longer than so many names may be.
                if section.size > _LONGEST_TABLE:
                    raise elf.malformed(f"symbols of {section.size:#x} bytes")
                if strings.size > _NAMES_LEN + section.size // elf.symbol_len * _NAME_LEN:
                    raise elf.malformed(f"names of {strings.size:#x} bytes for its symbols")
                return _table(
                    elf,
                    elf.read(section.offset, section.size),
                    elf.read(strings.offset, strings.size),
                    [one.vaddr + one.size for one in sections],
                    _versions(elf, sections, section) if wanted == _SHT_DYNSYM else b"",
                )
    return None


_NAMES_LEN = 1 << 20


def _versions(elf: Elf, sections: list[Section], symbols: Section) -> bytes:
    """Returns the version of each dynamic symbol, two bytes each; nothing if they have none."""
    for section in sections:
        if section.type == _SHT_GNU_VERSYM:
            most = 2 * (symbols.size // elf.symbol_len)
            return elf.read(section.offset, min(section.size, most))
    return b""


def _table(
    elf: Elf, table: bytes, strings: bytes, ends: Sequence[int] = (), versions: bytes = b""
) -> SymbolTable:
    found: list[Symbol] = []
    thread_local: list[bytes] = []
    # Names may have their ends in common, but not that many of them.
    budget = 8 * len(strings) + _NAMES_LEN
    hidden = memoryview(versions[: len(versions) // 2 * 2]).cast("H")
    for index, (at, info, section, value, size) in enumerate(elf.symbols(table)):
        kind = info & 15
        if section in (_SHN_UNDEF, _SHN_ABS) or (kind not in _ADDRESSED and kind != _STT_TLS):
            continue
        name = string_at(strings, at, _NAME_LEN)
        if not name or name.startswith(b"$"):  # of the assembler, on some machines
            continue
        budget -= len(name)
        if budget < 0:
            raise elf.malformed("its names are longer than the table that they are in")
        # Versions stand behind some names: of one that has several, the one that is linked
        # with now is marked by two signs; or by what another table lacks.
        name, sign, version = name.partition(b"@")
        rank = _RANK.get(info >> 4, 2) + (bool(sign) and not version.startswith(b"@"))
        rank += index < len(hidden) and bool(hidden[index] & _HIDDEN)
        if kind == _STT_TLS:
            thread_local.append(name)
        else:
            end = ends[section] if section < len(ends) else value + size
            found.append(Symbol(name, value, size, end, rank))
    return SymbolTable(found, thread_local)


_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5
_LONGEST_DYNAMIC = 1 << 16
_NR_BUCKETS = 1 << 20


def symbols_in_memory(
    elf: Elf, segments: list[Segment], bias: int, read: Callable[[int, int], bytes]
) -> SymbolTable | None:
    """Returns the symbols that the dynamic linker of a process uses, from its memory.

    Args:
        elf: Its header; of the file nothing else needs to be there.
        segments: Its program headers.
        bias: What is added to the file's addresses.
        read: Of an address and a length, the bytes there.

    Returns:
        None if it is not dynamic.

    Raises:
        MalformedError: The tables are none.
    """
    dynamic = next((segment for segment in segments if segment.type == PT_DYNAMIC), None)
    if dynamic is None or elf.bits != 64:
        return None
    words = read(bias + dynamic.vaddr, min(dynamic.memsz, _LONGEST_DYNAMIC) // 16 * 16)
    tags: dict[int, int] = {}
    for tag, value in struct.iter_unpack("=QQ", words):
        if tag == 0:
            break
        tags[tag] = value
    if not {_DT_SYMTAB, _DT_STRTAB, _DT_STRSZ} <= tags.keys():
        return None

    def address(tag: int) -> int:
        # The dynamic linker makes them addresses in place; that of some systems does not.
        return tags[tag] if tags[tag] >= bias else tags[tag] + bias

    if _DT_HASH in tags:
        count = struct.unpack("=I", read(address(_DT_HASH) + 4, 4))[0]
    elif _DT_GNU_HASH in tags:
        count = _count_by_gnu_hash(address(_DT_GNU_HASH), read)
    else:
        return None
    if max(count * elf.symbol_len, tags[_DT_STRSZ]) > _LONGEST_TABLE:
        raise MalformedError(f"{elf.what} is malformed: it has {count} symbols")
    strings = read(address(_DT_STRTAB), tags[_DT_STRSZ])
    return _table(elf, read(address(_DT_SYMTAB), count * elf.symbol_len), strings)


def _count_by_gnu_hash(table: int, read: Callable[[int, int], bytes]) -> int:
    """Returns how many symbols a DT_GNU_HASH table is about: its last chain has the last one."""
    first: int
    nr_buckets, first, nr_bloom, _ = struct.unpack("=IIII", read(table, 16))
    buckets_at = table + 16 + 8 * nr_bloom
    if nr_buckets > _NR_BUCKETS:
        raise MalformedError(f"a symbol table of {nr_buckets} buckets")
    buckets = array("I", read(buckets_at, 4 * nr_buckets))
    last = max(buckets, default=0)
    if last < first:
        return first
    at = buckets_at + 4 * (nr_buckets + last - first)
    index = last
    while index - last < _LONGEST_TABLE // 24:
        # Up to the end of a page: behind it there may be nothing.
        for word in array("I", read(at, page_end(at) - at & ~3 or 4)):
            index += 1
            at += 4
            if word & 1:
                return index
    raise MalformedError("a symbol table whose last chain does not end")
