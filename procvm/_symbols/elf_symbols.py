"""`SymbolTable`: the symbols of an ELF file, by name and by address."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, final

from procvm._base.spellings import is_mangled, plain, spelling_of, words_of
from procvm._base.text import printable
from procvm._linux.own_means import require_own_means
from procvm._symbols.elf_dynamic import DT_STRSZ, DT_STRTAB, DT_SYMTAB, DT_VERSYM, Dynamic
from procvm._symbols.elf_headers import PT_LOAD, Elf, Section, Segment, build_id_of, string_at
from procvm.errors import MalformedError, UnsupportedError

__all__ = ["ElfSymbol", "SymbolTable", "debug_symbols_of", "symbols_in_memory", "symbols_of"]

_DEBUG_FILES = "/usr/lib/debug/.build-id/{}/{}.debug"
_SHT_SYMTAB, _SHT_DYNSYM, _SHT_GNU_VERSYM = 2, 11, 0x6FFFFFFF
_HIDDEN = 0x8000  # the bit of a version that is not linked with any more
_NAME_LEN = 1 << 16
_LONGEST_TABLE = 1 << 26
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_STT_TLS, _STT_GNU_IFUNC = 6, 10
# No type, an object, a function, and a resolver function: these have an address.
_ADDRESSED = frozenset({0, 1, 2, _STT_GNU_IFUNC})
_WEAK, _OLD, _LOCAL = 1, 2, 4
# By binding; STB_GNU_UNIQUE is global.
_RANK = {1: 0, 2: _WEAK, 10: 0, 0: _LOCAL}
_NR_RIVALS = 256
"""How many addresses of one name are kept: some C++ programs have thousands of a static."""


class ElfSymbol(NamedTuple):
    """A name and its address.

    Attributes:
        name: Any bytes.
        value: Its address, as the file says it.
        size: Bytes of it; 0 if the file does not say.
        end: Up to where it may reach if the file does not say: the end of its section.
        rank: 0 for a name that other files link with; weak adds 1, a version that is not
            linked with any more 2, a name of the file alone 4.
        resolves: Whether the address is that of a resolver (STT_GNU_IFUNC), which the
            dynamic linker calls to find the function itself.
    """

    name: bytes
    value: int
    size: int
    end: int
    rank: int
    resolves: bool = False

    @property
    def is_weak(self) -> bool:
        """Whether a definition of another file is preferred to it."""
        return bool(self.rank & _WEAK)

    @property
    def is_exported(self) -> bool:
        """Whether other files can link with it."""
        return self.rank < _LOCAL


@final
class SymbolTable:
    """The symbols of one file, by name and by address.

    Attributes:
        thread_local: Those that have an address in each thread, and so no single one; their
            values are offsets in a thread's block. None if there are none.
        is_alone: Whether a mangled name is the only one that is written as it is, as far as
            that was asked.
    """

    def __init__(
        self, symbols: Iterable[ElfSymbol], thread_local: SymbolTable | None = None
    ) -> None:
        self._symbols = list(symbols)
        self._by_name: dict[bytes, ElfSymbol] = {}
        self._rivals: dict[bytes, list[ElfSymbol]] = {}
        for symbol in self._symbols:
            known = self._by_name.setdefault(symbol.name, symbol)
            if known is symbol or symbol.rank > known.rank:
                continue
            if symbol.rank < known.rank:
                self._by_name[symbol.name] = symbol
                self._rivals.pop(symbol.name, None)
            elif symbol.value != known.value:
                rivals = self._rivals.setdefault(symbol.name, [known])
                if len(rivals) < _NR_RIVALS:
                    rivals.append(symbol)
        self.thread_local = thread_local
        self._starts: list[int] | None = None
        self._reach: list[int] = []
        self._mangled: bytes | None = None
        self.is_alone: dict[bytes, bool] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def names(self) -> Iterable[bytes]:
        """Returns each name once."""
        return self._by_name.keys()

    def by_address(self) -> Sequence[ElfSymbol]:
        """Returns all symbols in the order of their addresses."""
        self._sorted()
        return self._symbols

    def find(self, name: bytes) -> list[ElfSymbol]:
        """Returns the symbols of a name: one, none, or several that are equally good.

        A name that other files link with is preferred to one of the file alone.
        """
        known = self._by_name.get(name)
        if known is None:
            return []
        rivals = self._rivals.get(name)
        if rivals is None:
            return [known]
        return list({symbol.value: symbol for symbol in rivals}.values())

    def spelled(self, text: str) -> list[bytes]:
        """Returns the mangled names that a name of C++ or Rust means; several if it is short.

        Args:
            text: The name as its source has it, with or without arguments.
        """
        wanted = plain(text)
        found: list[tuple[int, bytes]] = []
        for name in self.containing(words_of(wanted)):
            spelling = spelling_of(name)
            rank = None if spelling is None else spelling.rank(wanted)
            if rank is not None:
                found.append((rank, name))
        best = min((rank for rank, _ in found), default=0)
        return [name for rank, name in found if rank == best]

    def containing(self, words: Iterable[bytes]) -> Iterable[bytes]:
        """Returns the mangled names that contain the rarest of some words; all without any."""
        if self._mangled is None:
            mangled = filter(is_mangled, self._by_name)
            # One search through all names is many times faster than one for each.
            self._mangled = b"\0".join((b"", *mangled, b""))
        whole = self._mangled
        # Demangling takes much longer than counting.
        word = min(words, key=whole.count, default=b"")
        if not word:
            return whole.split(b"\0")[1:-1]
        found: list[bytes] = []
        at = whole.find(word)
        while at >= 0:
            end = whole.index(b"\0", at)
            found.append(whole[whole.rindex(b"\0", 0, at) + 1 : end])
            at = whole.find(word, end)
        return found

    def find_at(self, name: bytes, value: int) -> ElfSymbol | None:
        """Returns the symbol of a name that has exactly this address, or None."""
        found = (one for one in self._symbols if one.value == value and one.name == name)
        return next(found, None)

    def named_at(self, value: int) -> list[ElfSymbol]:
        """Returns all symbols that begin at an address."""
        starts = self._sorted()
        k = bisect_right(starts, value)
        found: list[ElfSymbol] = []
        while k and starts[k - 1] == value:
            k -= 1
            found.append(self._symbols[k])
        return found

    def at(self, value: int) -> ElfSymbol | None:
        """Returns the symbol that an address lies in; None if it lies in none.

        Among those that do, the one that begins last; among several at one address
        the plainest. A symbol without a size reaches up to the next one in its section.
        """
        starts = self._sorted()
        k = bisect_right(starts, value) - 1
        first = k
        while k >= 0 and (self._reach[k] > value or starts[k] == starts[first]):
            symbol = self._symbols[k]
            nearest = not symbol.size and symbol.value == starts[first]
            if value < (symbol.end if nearest else symbol.value + symbol.size):
                return symbol
            k -= 1
        return None

    def _sorted(self) -> list[int]:
        if self._starts is None:
            # The last one at an address is looked at first: a size before none, and the
            # fewest underscores in front, as malloc and not __libc_malloc.
            self._symbols.sort(
                key=lambda symbol: (
                    symbol.value,
                    symbol.size > 0,
                    symbol.resolves,
                    symbol.name[:2].count(b"_") * -1,
                    -symbol.rank,
                    -len(symbol.name),
                    symbol.name,
                )
            )
            # The furthest end of all symbols up to there: without it, `at` looks back to the start.
            ends = (symbol.value + symbol.size for symbol in self._symbols)
            self._reach = list(accumulate(ends, max))
            self._starts = [symbol.value for symbol in self._symbols]
        return self._starts


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
                    _end_in(sections),
                    _versions(elf, sections, section) if wanted == _SHT_DYNSYM else b"",
                )
    return None


def debug_symbols_of(build_id: bytes, elf: Elf) -> SymbolTable | None:
    """Returns the symbols of the split debug file of a stripped file, or None.

    Raises:
        VmError: This process lacks descriptors or memory.
    """
    name = build_id.hex()
    if len(name) < 3 or any(section.name == b".symtab" for section in elf.sections()):
        return None
    path = _DEBUG_FILES.format(name[:2], name[2:])
    try:
        with open(path, "rb", buffering=0) as stream:
            debug = Elf(stream, printable(stream.name))
            return symbols_of(debug) if build_id_of(debug) == build_id else None
    except OSError as error:
        require_own_means(error, path)
        return None
    except (MalformedError, UnsupportedError):
        return None


_NAMES_LEN = 1 << 20


def _end_in(sections: list[Section]) -> Callable[[int, int], int]:
    """Returns a function that gives the end of a symbol's section."""
    ends = [one.vaddr + one.size for one in sections]
    return lambda section, value: ends[section] if section < len(ends) else value


def _versions(elf: Elf, sections: list[Section], symbols: Section) -> bytes:
    """Returns the version of each dynamic symbol, two bytes each; nothing if they have none."""
    for section in sections:
        if section.type == _SHT_GNU_VERSYM:
            most = 2 * (symbols.size // elf.symbol_len)
            return elf.read(section.offset, min(section.size, most))
    return b""


def _table(
    elf: Elf,
    table: bytes,
    strings: bytes,
    end_of: Callable[[int, int], int],
    versions: bytes = b"",
) -> SymbolTable:
    found: list[ElfSymbol] = []
    thread_local: list[ElfSymbol] = []
    # Strings share their ends in a good file; crafted ones would take gigabytes without a limit.
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
        # .symtab appends the version: two signs mark the one that is linked with now.
        name, sign, version = name.partition(b"@")
        rank = _RANK.get(info >> 4, _LOCAL)
        is_old = bool(sign) and not version.startswith(b"@")
        if is_old or (index < len(hidden) and hidden[index] & _HIDDEN):
            rank |= _OLD
        if kind == _STT_TLS:
            thread_local.append(ElfSymbol(name, value, size, value + size, rank))
        else:
            end = value + size if size else end_of(section, value)
            found.append(ElfSymbol(name, value, size, end, rank, kind == _STT_GNU_IFUNC))
    return SymbolTable(found, SymbolTable(thread_local) if thread_local else None)


def symbols_in_memory(
    elf: Elf, segments: list[Segment], bias: int, read: Callable[[int, int], bytes]
) -> SymbolTable | None:
    """Returns the symbols that the dynamic linker of a process uses, from its memory.

    Args:
        elf: Its header; nothing else of the file needs to be there.
        segments: Its program headers.
        bias: What is added to the file's addresses.
        read: Takes an address and a length, returns the bytes there.

    Returns:
        None if it is not dynamic.

    Raises:
        MalformedError: The tables are not valid.
    """
    dynamic = Dynamic(elf, segments, bias, read)
    if not {DT_SYMTAB, DT_STRTAB, DT_STRSZ} <= dynamic.tags.keys():
        return None
    count = dynamic.nr_symbols()
    if count is None:
        return None
    strings_len = dynamic.tags[DT_STRSZ]
    if max(count * elf.symbol_len, strings_len) > _LONGEST_TABLE:
        raise MalformedError(f"{elf.what} is malformed: it has {count} symbols")

    def end_of(_: int, value: int) -> int:
        # Without section headers the segment is all that bounds a symbol without a size.
        ends = (one.vaddr + one.memsz for one in segments if one.type == PT_LOAD)
        return min((end for end in ends if end > value), default=value)

    strings = read(dynamic.address(DT_STRTAB), strings_len)
    table = read(dynamic.address(DT_SYMTAB), count * elf.symbol_len)
    versions = b""
    if DT_VERSYM in dynamic.tags:
        versions = read(dynamic.address(DT_VERSYM), 2 * count)
    return _table(elf, table, strings, end_of, versions)
