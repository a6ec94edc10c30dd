"""`SymbolTable`: which addresses of an ELF file have names."""

from __future__ import annotations

import struct
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, final

from procvm.elf.headers import PT_DYNAMIC, Elf, Segment, string_at
from procvm.errors import MalformedError

__all__ = ["Symbol", "SymbolTable", "symbols_in_memory", "symbols_of"]

_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
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
        """Returns the address of a name, or None."""
        return self._by_name.get(name)

    def at(self, value: int) -> tuple[bytes, int] | None:
        """Returns what an address lies in, and how far; None if in nothing that has a name.

        Of those that do, the one that begins last; of several names of one thing
        the plainest. A name without a size reaches up to the next one in its section.
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
                return symbol.name, value - symbol.value
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
                table = elf.read(section.offset, section.size)
                ends = [one.vaddr + one.size for one in sections]
                return _table(elf, table, elf.read(strings.offset, strings.size), ends)
    return None


def _table(elf: Elf, table: bytes, strings: bytes, ends: Sequence[int] = ()) -> SymbolTable:
    found: list[Symbol] = []
    thread_local: list[bytes] = []
    for at, info, section, value, size in elf.symbols(table):
        kind = info & 15
        if section in (_SHN_UNDEF, _SHN_ABS) or (kind not in _ADDRESSED and kind != _STT_TLS):
            continue
        name = string_at(strings, at)
        if not name or name.startswith(b"$"):  # of the assembler, on some machines
            continue
        # Versions stand behind some names: of one that has several, the one that is linked
        # with now is marked by two signs.
        name, sign, version = name.partition(b"@")
        rank = _RANK.get(info >> 4, 2) + (bool(sign) and not version.startswith(b"@"))
        if kind == _STT_TLS:
            thread_local.append(name)
        else:
            end = ends[section] if section < len(ends) else value + size
            found.append(Symbol(name, value, size, end, rank))
    return SymbolTable(found, thread_local)


_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5
_LONGEST_DYNAMIC = 1 << 16
_LONGEST_TABLE = 1 << 26


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
    if nr_buckets > _LONGEST_TABLE // 4:
        raise MalformedError(f"a symbol table of {nr_buckets} buckets")
    buckets = struct.unpack(f"={nr_buckets}I", read(buckets_at, 4 * nr_buckets))
    last: int = max(buckets, default=0)
    if last < first:
        return first
    chain = buckets_at + 4 * nr_buckets
    for index in range(last, last + _LONGEST_TABLE // 24):
        if int.from_bytes(read(chain + 4 * (index - first), 4), sys.byteorder) & 1:
            return index + 1
    raise MalformedError("a symbol table whose last chain does not end")
