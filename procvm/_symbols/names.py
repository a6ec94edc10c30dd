"""`Names`: the address of a symbol, and the symbol of an address, in what a process has loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, final

from procvm._base.optional import is_installed, required
from procvm._base.spellings import file_and_symbol, spelling_of
from procvm._base.text import printable
from procvm._space.maps import Kind, Vma
from procvm._symbols.elf_symbols import SymbolTable
from procvm._symbols.layout import AT_SIGN, LoadedFile
from procvm._symbols.linking import Linking
from procvm._symbols.loaded import LIBRARY, Finder, Loaded
from procvm._symbols.lookup import Meant, Search, reasons
from procvm._symbols.module_files import ModuleReader
from procvm._symbols.modules import Location
from procvm._symbols.thread_blocks import NoBlockError, ThreadBlocks
from procvm.errors import (
    AmbiguousSymbolError,
    Candidate,
    MalformedError,
    NoSuchSymbolError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from procvm._symbols.subject import Subject

__all__ = ["RESOLVER", "Names", "encoded"]

RESOLVER = b"@ifunc-resolver"
"""Follows the name of the function that chooses the implementation of an IFUNC."""
_NR_SHOWN = 8


def encoded(name: str) -> bytes:
    """Returns a name as bytes, which the str has as `os.fsdecode` makes it.

    Raises:
        NoSuchSymbolError: The str has no bytes: it contains half of a surrogate pair.
    """
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        raise NoSuchSymbolError(f"nothing is called {printable(name)!r}", name=name) from None


@final
class Names:
    """The names in the ELF files of one process; they are read when they are needed."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.reader = ModuleReader(subject)
        self.linking = Linking(self.reader)
        self._finder = Finder(subject, self.reader)
        self._now = Loaded(None, [], [], [], settled=False)
        # Names in files that stay loaded until the program ends.
        self._found: dict[str, tuple[int, Vma]] = {}

    def address_of(self, name: str, thread_pointer: int | None = None) -> int:
        """Returns the address of a symbol; see `Mapped.symbol`.

        Args:
            name: The name.
            thread_pointer: The register fs_base of the thread whose variables count.
        """
        known = self._found.get(name)
        if known is not None:
            address, first = known
            if self._subject.find_vma(first.start) == first:
                return address
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # not every caller is checked
            raise TypeError(f"a symbol's name must be a str, not {type(name).__name__}")
        required(LIBRARY, "looking symbols up")
        now = self.refresh()
        address, module = self._look_up(now, name, thread_pointer)
        if now.settled and module in now.scope and thread_pointer is None:
            self._found[name] = address, module.first
        return address

    # A name

    def _look_up(
        self, now: Loaded, name: str, thread_pointer: int | None, *, of_threads: bool = False
    ) -> tuple[int, LoadedFile]:
        """Returns the address of a symbol, and its file."""
        file, bang, symbol = file_and_symbol(name)
        wanted = encoded(symbol)
        resolver = wanted.endswith(RESOLVER)
        wanted = wanted.removesuffix(RESOLVER)
        modules = self.files_named(now, file, name) if bang else now.files()
        unread = () if bang else now.unread
        searches = [
            Search(self.reader, wanted, unread, spelled=one, of_threads=of_threads)
            for one in (False, True)
        ]
        if bang:
            tries = chain(one.all_of(modules, is_named=True) for one in searches)
        else:
            # The linker's own names come first, but not the statics of libraries.
            in_scope = (one.in_scope(now.scope) for one in searches)
            tries = chain(in_scope, (one.all_of(now.others) for one in searches))
        best = next((found for found in tries if found), list[Meant]())
        if resolver:
            best = [one for one in best if one.symbol.resolves]
        is_thread_local = any(one.is_thread_local for one in searches)
        if not best and is_thread_local and thread_pointer is not None:
            return self._look_up(now, name, thread_pointer, of_threads=True)
        if not best:
            where = printable(file) if bang else f"the {len(modules)} files that are loaded"
            reason = min(searches, key=lambda one: not one.is_thread_local).reason()
            raise NoSuchSymbolError(
                f"no symbol {printable(symbol)!r} in {where}" + (reason and f": {reason}"),
                name=name,
                reason=reason,
            )
        if of_threads:
            blocks = self._blocks(now, thread_pointer or 0)
            by_address = {self._in_block(now, one, blocks, name): one for one in best}
        else:
            address_of = self._resolver if resolver else self._address
            by_address = {address_of(now, meant, name): meant for meant in best}
        if len(by_address) == 1:
            ((address, meant),) = by_address.items()
            return address, meant.module
        candidates = tuple(
            Candidate(self._shown(now, meant), address)
            for address, meant in sorted(by_address.items())
        )
        shown = ", ".join(f"{one.name} ({one.address:#x})" for one in candidates[:_NR_SHOWN])
        more = f" and {len(candidates) - _NR_SHOWN} more" if len(candidates) > _NR_SHOWN else ""
        raise AmbiguousSymbolError(
            f"{printable(name)!r} has {len(candidates)} addresses; give one of {shown}{more}",
            name=name,
            candidates=candidates,
        )

    def _blocks(self, now: Loaded, thread_pointer: int) -> ThreadBlocks:
        def read(address: int, n: int) -> bytes:
            return self.reader.read(address, n, now.module_at(address))

        def place_of(name: bytes) -> int | None:
            found = Search(self.reader, name, ()).in_scope(now.scope)
            return found[0].module.bias + found[0].symbol.value if found else None

        return ThreadBlocks(thread_pointer, read, place_of)

    def _in_block(self, now: Loaded, meant: Meant, blocks: ThreadBlocks, name: str) -> int:
        """Returns the address of a thread-local variable.

        Raises:
            NoSuchSymbolError: The thread has none yet, or the C library does not tell where.
        """
        try:
            start = blocks.start_of(meant.module, is_program=meant.module in now.scope[:1])
        except NoBlockError as error:
            raise NoSuchSymbolError(
                f"{printable(name)!r} has no known address: {error}", name=name, reason=str(error)
            ) from None
        return start + meant.symbol.value

    def _resolver(self, now: Loaded, meant: Meant, name: str) -> int:
        del now, name
        return meant.module.bias + meant.symbol.value

    def _address(self, now: Loaded, meant: Meant, name: str) -> int:
        """Returns the address that the program uses for a symbol.

        Raises:
            NoSuchSymbolError: The dynamic linker did not choose the function yet.
        """
        module, symbol, exact = meant
        if symbol.resolves:
            chosen = self.linking.chosen(now, meant)
            if chosen is None:
                reason = (
                    "it is an IFUNC: a resolver picks the function when it is first used, and no "
                    "loaded file holds its choice; the resolver is "
                    f"{self._shown(now, meant)}"
                )
                raise NoSuchSymbolError(
                    f"{printable(name)!r} has no known address: {reason}", name=name, reason=reason
                )
            return chosen
        return module.bias + symbol.value if exact else self.linking.place_of(now, module, symbol)

    # The files of a name

    def files_named(self, now: Loaded, file: str, name: str) -> list[LoadedFile]:
        """Returns the files that have a name; see `called`.

        Raises:
            NoSuchSymbolError: No loaded file has the name.
        """
        found = self.called(now, encoded(file))
        if not found:
            reason = reasons(now.unread)
            raise NoSuchSymbolError(
                f"no file that is called {printable(file)!r} is loaded"
                + (reason and f": {reason}"),
                name=name,
                reason=reason,
            )
        return found

    def called(self, now: Loaded, name: bytes) -> list[LoadedFile]:
        """Returns the files that have a name.

        It may be a path or its last part; the file's name in the dynamic linker's list; its
        soname; a name that the program was started by; or a link in the folder of the file.
        """
        found = now.called(name)
        if found or not name:
            return found
        every = now.files()
        tests: tuple[Callable[[LoadedFile], bool], ...] = (
            lambda one: name in (one.link_name, os.path.basename(one.link_name)),
            lambda one: name == self.reader.names_of(one)[0],
        )
        for test in tests:
            found = [one for one in every if test(one)]
            if found:
                best = min(one.rank for one in found)
                return [one for one in found if one.rank == best]
        if every and name in self._subject.program_names():
            return every[:1]
        return [one for one in every if self._subject.is_link(name, one.first)]

    def mappings_of(self, name: bytes) -> list[Vma]:
        """Returns the mappings of the files that have a name, sorted."""
        if not is_installed(LIBRARY):
            return []
        return sorted(vma for one in self.called(self.refresh(), name) for vma in one.vmas)

    def area(self, name: bytes) -> int | None:
        """Returns the start of the first mapping with a name, or None."""
        return self.refresh().first_of(name)

    # An address

    def describe(self, address: int) -> Location:
        """Returns the name of an address; see `Mapped.describe`."""
        vma = self._subject.find_vma(address)
        if vma is None:
            return Location(f"{address:#x}")
        now = self._now
        module = now.module_at(address) if vma in now else None
        if vma not in now or not (
            module is None or module in now.scope or self.reader.is_current(module)
        ):
            now = self.refresh()
            module = now.module_at(address)
            if not vma.name:
                now.seen.add(vma)
        if module is not None and (vma.kind is not Kind.ANONYMOUS or not vma.name):
            try:
                found = self.reader.table_of(module).at(address - module.bias)
            except (MalformedError, UnsupportedError):
                found = None  # the file has a name all the same
            if found is not None and module.is_loaded:
                offset = address - module.bias - found.value
                meant = Meant(module, found)
                label = now.label(module)
                spelling = spelling_of(found.name)
                return Location(
                    self._shown(now, meant) + _plus(offset),
                    os.fsdecode(label),
                    os.fsdecode(self._name(now, meant)[len(label) + 1 :]),
                    offset,
                    demangled=None if spelling is None else spelling.whole,
                )
            vma = module.first
        called = now.area(vma)
        first = now.first_of(called)
        if not called or first is None or first > address:
            return Location(f"{address:#x}")
        offset = address - first
        return Location(printable(called) + _plus(offset), os.fsdecode(called), None, offset)

    def _name(self, now: Loaded, meant: Meant) -> bytes:
        """Returns a name of a symbol that leads back to it.

        The address in the file is appended where another symbol has the same name, or where
        the program uses a copy (a copy relocation).
        """
        module, symbol = meant.module, meant.symbol
        name = now.label(module) + b"!" + symbol.name
        found = self.reader.table_of(module).find(symbol.name)
        is_plain = len(found) == 1 and found[0].value == symbol.value
        if not is_plain or symbol.value in self.linking.moved(now, module):
            name += AT_SIGN + b"%x" % symbol.value
        return name + RESOLVER if symbol.resolves else name

    def _shown(self, now: Loaded, meant: Meant) -> str:
        """Returns `_name` for people: printable, and as its source has it."""
        module, symbol = meant.module, meant.symbol
        name = self._name(now, meant)
        spelling = spelling_of(symbol.name)
        if spelling is None:
            return printable(name)
        table = self.reader.table_of(module)
        if symbol.name not in table.is_alone:
            # Both constructors of a class are written alike, and a `static` as a global.
            same = [one for other in table.spelled(spelling.whole) for one in table.find(other)]
            values = {one.value for one in same}
            known = table.find(spelling.whole.encode())
            table.is_alone[symbol.name] = not known and values == {symbol.value}
        label = now.label(module)
        text = printable(label) + "!" + printable(spelling.whole)
        at = f"@0x{symbol.value:x}" if AT_SIGN in name or not table.is_alone[symbol.name] else ""
        return text + at + (RESOLVER.decode() if symbol.resolves else "")

    # Lists of names

    def files(self) -> Iterator[bytes]:
        """Yields the names of the files that were loaded at the last look."""
        return (one.name for one in self._now.files())

    def known(self, file: str | None) -> Iterator[bytes] | None:
        """Returns the symbols whose tables were read, of one file or of all, or None.

        None means that no loaded file has the name.
        """
        files = self._files_of(file)
        return (name for table in _tables(files) for name in table.names()) if files else None

    def known_with(self, words: Iterable[bytes], file: str | None) -> Iterator[bytes]:
        """Yields the mangled ones of `known` that contain a word."""
        tables = list(_tables(self._files_of(file)))
        return (name for word in words for table in tables for name in table.containing([word]))

    def _files_of(self, file: str | None) -> list[LoadedFile]:
        return self._now.files() if file is None else self.called(self._now, encoded(file))

    def refresh(self) -> Loaded:
        """Returns what is mapped now; what was read of a file is kept."""
        # Replaced as a whole: another thread may be reading the old one.
        self._now = now = self._finder.look(self._now)
        return now


def _tables(files: list[LoadedFile]) -> Iterator[SymbolTable]:
    return (one.table for one in files if one.table is not None)


def _plus(offset: int) -> str:
    return f"+{offset:#x}" if offset else ""
