"""`modules_in` and `symbols_in`: the loaded files, and their symbols, as lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import translate

from procvm._base.address import page_end
from procvm._base.optional import required
from procvm._base.spellings import file_and_symbol, plain, spelling_of, words_of
from procvm._space.maps import Kind
from procvm._space.ranges import ranges_of
from procvm._symbols.elf_headers import PT_LOAD
from procvm._symbols.elf_symbols import ElfSymbol
from procvm._symbols.layout import LoadedFile
from procvm._symbols.loaded import LIBRARY, Loaded
from procvm._symbols.modules import Binding, Module, Modules, Symbol
from procvm._symbols.names import RESOLVER, Names, encoded
from procvm.errors import MalformedError, UnsupportedError

__all__ = ["modules_in", "symbols_in"]

_WILDCARDS = re.compile(r"[*?\[]")
_SET = re.compile(r"\[[^\]]*\]?")


def modules_in(names: Names) -> Modules:
    """Returns the loaded files; see `Mapped.modules`."""
    required(LIBRARY, "listing modules")
    now = names.refresh()
    modules: list[Module] = []
    aliases: list[set[str]] = []
    for file in now.files():
        soname = names.reader.names_of(file)[0]
        module = _module(names, now, file, soname)
        modules.append(module)
        known = {file.name, file.first.plain_name, soname, os.path.basename(file.link_name)}
        aliases.append({os.fsdecode(one) for one in known if one})
    return Modules(modules, aliases)


def _module(names: Names, now: Loaded, file: LoadedFile, soname: bytes) -> Module:
    first = file.first
    build_id = names.reader.build_id_of(file)
    loads = [one for one in file.segments if one.type == PT_LOAD and one.memsz]
    # Without the segments the variables without initial values are missing: their mapping is
    # anonymous.
    bss = [(vma.start, vma.end) for vma in file.vmas]
    for one in loads:
        start = file.bias + one.vaddr
        bss.append((start, page_end(start + one.memsz - 1)))
    return Module(
        name=os.fsdecode(now.label(file)),
        soname=os.fsdecode(soname) if soname else None,
        path=os.fsdecode(first.plain_name) if first.kind is Kind.FILE else None,
        base=first.start,
        ranges=tuple(ranges_of(bss)),
        build_id=build_id.hex() if build_id else None,
        is_deleted=first.deleted,
    )


def symbols_in(names: Names, glob: str) -> Iterator[Symbol]:
    """Returns an iterator over the symbols that match; see `Mapped.symbols`."""
    if not isinstance(glob, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # not every caller is checked
        raise TypeError(f"a glob must be a str, not {type(glob).__name__}")
    required(LIBRARY, "listing symbols")
    now = names.refresh()
    file, bang, symbol = file_and_symbol(glob)
    is_named = bool(bang) and not _WILDCARDS.search(file)
    if is_named:
        files = names.files_named(now, file, glob)
    elif bang:
        matches = re.compile(os.fsencode(translate(file))).match
        files = [one for one in now.files() if matches(one.name) or matches(now.label(one))]
    else:
        files = now.files()
    pattern = encoded(translate(symbol))
    return _symbols(names, now, files, symbol, pattern, is_named=is_named)


def _symbols(
    names: Names,
    now: Loaded,
    files: list[LoadedFile],
    glob: str,
    pattern: bytes,
    *,
    is_named: bool,
) -> Iterator[Symbol]:
    matches = re.compile(pattern).match
    means = re.compile(translate(plain(glob))).match
    # Without these, a search that has nothing to do with C++ would demangle every name.
    words = words_of(_SET.sub("", glob), is_part=True)
    for file in files:
        try:
            table = names.reader.table_of(file)
        except (MalformedError, UnsupportedError):
            if is_named:
                raise
            continue
        label = os.fsdecode(now.label(file))
        may_mean = frozenset(table.containing(words))
        for one in table.by_address():
            is_match = matches(one.name)
            spelling = spelling_of(one.name) if is_match or one.name in may_mean else None
            if is_match or (spelling is not None and means(plain(spelling.whole))):
                name = one.name + RESOLVER if one.resolves else one.name
                yield Symbol(
                    name=os.fsdecode(name),
                    demangled=None if spelling is None else spelling.whole,
                    address=names.linking.place_of(now, file, one),
                    size=one.size,
                    module=label,
                    binding=_binding(one),
                )


def _binding(symbol: ElfSymbol) -> Binding:
    if not symbol.is_exported:
        return "local"
    return "weak" if symbol.is_weak else "global"
