"""`Search`: finds the symbols of a name in the symbol tables of some files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from procvm._base.address import ADDRESS_END
from procvm._base.text import printable
from procvm._symbols.elf_symbols import ElfSymbol, SymbolTable
from procvm._symbols.layout import AT_SIGN, LoadedFile
from procvm._symbols.module_files import ModuleReader
from procvm.errors import MalformedError, UnsupportedError

__all__ = ["Meant", "Search", "reasons"]

_NR_REASONS = 3


class Meant(NamedTuple):
    """A symbol in a module; `exact` if it was asked for by its address in the file."""

    module: LoadedFile
    symbol: ElfSymbol
    exact: bool = False


class Search:
    """A search for one name, which records why it may have found no symbol.

    Args:
        reader: Reads the symbol tables.
        wanted: The name.
        unread: Why the headers of some files cannot be read.
        spelled: Whether the name is one of C++ or Rust as its source has it.
        of_threads: Whether to search thread-local variables, in place of all else.
    """

    def __init__(
        self,
        reader: ModuleReader,
        wanted: bytes,
        unread: Iterable[str],
        *,
        spelled: bool = False,
        of_threads: bool = False,
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        self._spelled = spelled
        self._of_threads = of_threads
        self._bad = list(unread)
        self._thread_local: list[LoadedFile] = []
        self._locals: list[Meant] = []

    def in_scope(self, scope: list[LoadedFile]) -> list[Meant]:
        """Returns the symbols that the name means in the program.

        They are its own, statics too, or else the first exported one of a library.
        """
        for module in scope:
            found = self._in(module)
            if found and (module is scope[0] or found[0].symbol.is_exported):
                return found
            self._locals += found
        return []

    def all_of(self, modules: list[LoadedFile], *, is_named: bool = False) -> list[Meant]:
        """Returns the symbols of the name in some files; statics only without exported ones.

        Args:
            modules: The files.
            is_named: Whether the caller named them, so that an invalid file is an error.
        """
        found = [one for module in modules for one in self._in(module, is_named=is_named)]
        exported = [one for one in found if one.symbol.is_exported]
        return exported or found + self._locals

    def _in(self, module: LoadedFile, *, is_named: bool = False) -> list[Meant]:
        try:
            table = self._reader.table_of(module)
        except (MalformedError, UnsupportedError) as error:
            if is_named:
                raise
            self._bad.append(str(error))
            return []
        of_threads = table.thread_local
        if of_threads is not None and self._of_threads:
            table = of_threads
        elif self._of_threads:
            return []
        elif of_threads is not None and self._found_in(of_threads)[0]:
            self._thread_local.append(module)
        found, exact = self._found_in(table)
        if not found and module.why:
            self._bad.append(module.why)
        # Skips symbols whose load address lies outside the address space.
        return [
            Meant(module, one, exact) for one in found if 0 <= module.bias + one.value < ADDRESS_END
        ]

    def _found_in(self, table: SymbolTable) -> tuple[list[ElfSymbol], bool]:
        """Returns the symbols of the name, and whether it says which one by its address."""
        found = [one for name in self._names(table, self._wanted) for one in table.find(name)]
        if not found and AT_SIGN in self._wanted:
            plain, _, number = self._wanted.rpartition(AT_SIGN)
            with suppress(ValueError):
                value = int(number, 16)
                places = (table.find_at(name, value) for name in self._names(table, plain))
                return [one for one in places if one is not None][:1], True
        return found, False

    def _names(self, table: SymbolTable, name: bytes) -> list[bytes]:
        return table.spelled(os.fsdecode(name)) if self._spelled else [name]

    @property
    def is_thread_local(self) -> bool:
        """Whether a file has a thread-local variable of the name."""
        return bool(self._thread_local)

    def reason(self) -> str:
        """Returns why the name may have no address, or nothing."""
        if self._thread_local:
            file = printable(self._thread_local[0].name)
            return f"it is thread-local in {file}: each thread has its own, at its own address"
        return reasons(self._bad)


def reasons(bad: list[str]) -> str:
    """Returns in a sentence why names may be missing, or nothing."""
    shown = "; ".join(bad[:_NR_REASONS])
    return f"the names of {len(bad)} files could not be read: {shown}" if bad else ""
