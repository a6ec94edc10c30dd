"""`Modules`: the ELF files that a process has loaded, and what their symbols are called there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from procvm._base.optional import is_installed, required
from procvm._base.text import printable
from procvm._space.maps import Kind, Vma
from procvm._symbols.elf_dynamic import KINDS
from procvm._symbols.elf_symbols import Symbol
from procvm._symbols.layout import AT_SIGN, Module
from procvm._symbols.loaded import LIBRARY, Finder, Loaded
from procvm._symbols.lookup import Meant, Search, reasons
from procvm._symbols.module_files import UNREADABLE, ModuleReader
from procvm.errors import (
    AmbiguousSymbolError,
    Candidate,
    MalformedError,
    NoSuchSymbolError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from procvm._symbols.mapped import Mapped

__all__ = ["Modules", "encoded"]

_RESOLVER = b"@ifunc-resolver"
_NR_SHOWN = 8


def encoded(name: str) -> bytes:
    """Returns a name as its bytes, any of which a str can stand for.

    Raises:
        NoSuchSymbolError: It stands for no bytes: half of a surrogate pair.
    """
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        raise NoSuchSymbolError(f"nothing is called {printable(name)!r}", name=name) from None


@final
class Modules:
    """The ELF files of one process, looked at when they are asked for."""

    def __init__(self, subject: Mapped) -> None:
        self._subject = subject
        self._reader = ModuleReader(subject)
        self._finder = Finder(subject, self._reader)
        self._now = Loaded(None, [], [], [], settled=False)
        # Names that lead to what stays loaded as long as the program runs.
        self._found: dict[str, tuple[int, Vma]] = {}

    def address_of(self, name: str) -> int:
        """Returns the address of a symbol; see `Mapped.symbol`."""
        known = self._found.get(name)
        if known is not None:
            address, first = known
            if self._subject.find_vma(first.start) == first:
                return address
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # not every caller is checked
            raise TypeError(f"a symbol's name must be a str, not {type(name).__name__}")
        required(LIBRARY, "looking symbols up")
        now = self._refresh()
        address, module = self._look_up(now, name)
        if now.settled and module in now.scope:
            self._found[name] = address, module.first
        return address

    # A name

    def _look_up(self, now: Loaded, name: str) -> tuple[int, Module]:
        """Returns the address of a symbol, and the file that it is a name of."""
        file, bang, symbol = name.rpartition("!")
        wanted = encoded(symbol)
        resolver = wanted.endswith(_RESOLVER)
        wanted = wanted.removesuffix(_RESOLVER)
        modules = self._called(now, file, name) if bang else [*now.scope, *now.others]
        search = Search(self._reader, wanted, () if bang else now.unread)
        if bang:
            best = search.all_of(modules, is_named=True)
        else:
            best = search.in_scope(now.scope) or search.all_of(now.others)
        if resolver:
            best = [one for one in best if one.symbol.resolves]
        if not best:
            where = printable(file) if bang else f"the {len(modules)} files that are loaded"
            reason = search.reason()
            raise NoSuchSymbolError(
                f"no symbol {printable(symbol)!r} in {where}" + (reason and f": {reason}"),
                name=name,
                reason=reason,
            )
        address_of = self._resolver if resolver else self._address
        by_address = {address_of(now, meant, name): meant for meant in best}
        if len(by_address) == 1:
            ((address, meant),) = by_address.items()
            return address, meant.module
        candidates = tuple(
            Candidate(printable(self._name(now, meant)), address)
            for address, meant in sorted(by_address.items())
        )
        shown = ", ".join(f"{one.name} ({one.address:#x})" for one in candidates[:_NR_SHOWN])
        more = f" and {len(candidates) - _NR_SHOWN} more" if len(candidates) > _NR_SHOWN else ""
        raise AmbiguousSymbolError(
            f"{printable(name)!r} has {len(candidates)} addresses; give one of {shown}{more}",
            name=name,
            candidates=candidates,
        )

    def _resolver(self, now: Loaded, meant: Meant, name: str) -> int:
        del now, name
        return meant.module.bias + meant.symbol.value

    def _address(self, now: Loaded, meant: Meant, name: str) -> int:
        """Returns where a symbol is for the program.

        Raises:
            NoSuchSymbolError: The dynamic linker did not choose the function yet.
        """
        module, symbol, exact = meant
        if symbol.resolves:
            chosen = self._chosen(now, meant)
            if chosen is None:
                reason = (
                    "it is an IFUNC: a resolver picks the function when it is first used, and no "
                    "loaded file holds its choice; the resolver is "
                    f"{printable(self._name(now, meant))}"
                )
                raise NoSuchSymbolError(
                    f"{printable(name)!r} has no known address: {reason}", name=name, reason=reason
                )
            return chosen
        own = module.bias + symbol.value
        return own if exact else self._moved(now, module).get(symbol.value, own)

    def _moved(self, now: Loaded, module: Module) -> dict[int, int]:
        """Returns, by a library's own addresses, where the program has the live copies.

        The linker copies a variable of a library into a program that names it (a copy
        relocation), and the library then uses that copy.
        """
        if module not in now.scope[1:]:
            return {}
        if module.moved is None:
            module.moved = {}
            for name, address in self._copies(now.scope[0]).items():
                # The copy is of the first library that defines the name.
                for one in now.scope[1:]:
                    found = self._exported(one, name)
                    if found is not None:
                        if one is module:
                            module.moved[found.value] = address
                        break
        return module.moved

    def _copies(self, program: Module) -> dict[bytes, int]:
        if program.copies is None:
            kinds = KINDS.get(program.machine)
            program.copies = {}
            for one in self._reader.relocations(program, frozenset({kinds.copy} if kinds else ())):
                program.copies[one.name] = program.bias + one.reloc.offset
        return program.copies

    def _exported(self, module: Module, name: bytes) -> Symbol | None:
        try:
            found = self._reader.table_of(module).find(name)
        except (MalformedError, UnsupportedError):
            return None
        return found[0] if found and found[0].is_exported else None

    def _chosen(self, now: Loaded, meant: Meant) -> int | None:
        """Returns the function that a resolver chose, from the slots that hold its address."""
        module, symbol = meant.module, meant.symbol
        kinds = KINDS.get(module.machine)
        if kinds is None:
            return None
        for one in dict.fromkeys((module, *now.scope, *now.others)):
            wanted = kinds.slots | {kinds.irelative} if one is module else kinds.slots
            needed = b"" if one is module else symbol.name
            for reloc, name, word in self._reader.relocations(one, wanted, needed):
                if reloc.kind == kinds.irelative:
                    if (word if reloc.addend is None else reloc.addend) != symbol.value:
                        continue
                elif name != symbol.name:
                    continue
                try:
                    raw = self._reader.read(one.bias + reloc.offset, one.word_len, one)
                except UNREADABLE:
                    continue
                value = int.from_bytes(raw, "little")
                # A slot that is not bound yet leads back into the file's own table of jumps.
                unbound = value in (word, one.bias + word, module.bias + symbol.value)
                if not unbound and module.first.start <= value < module.end:
                    return value
        return None

    # The files of a name

    def _called(self, now: Loaded, file: str, name: str) -> list[Module]:
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

    def called(self, now: Loaded, name: bytes) -> list[Module]:
        """Returns the files that a name stands for.

        It may be a path or its last part; what the dynamic linker calls the file, or its
        soname; what the program was started as; or a link to the file beside it.
        """
        found = now.called(name)
        if found or not name:
            return found
        every = [*now.scope, *now.others]
        tests: tuple[Callable[[Module], bool], ...] = (
            lambda one: name in (one.link_name, os.path.basename(one.link_name)),
            lambda one: name == self._reader.names_of(one)[0],
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
        """Returns the mappings of the files that a name stands for, sorted."""
        if not is_installed(LIBRARY):
            return []
        return sorted(vma for one in self.called(self._refresh(), name) for vma in one.vmas)

    def area(self, name: bytes) -> int | None:
        """Returns where the first mapping of a name begins, or None."""
        return self._refresh().first_of(name)

    # An address

    def describe(self, address: int) -> str:
        """Returns what an address is; see `Mapped.describe`."""
        vma = self._subject.find_vma(address)
        if vma is None:
            return f"{address:#x}"
        now = self._now
        module = now.module_at(address) if vma in now else None
        if vma not in now or not (
            module is None or module in now.scope or self._reader.is_current(module)
        ):
            now = self._refresh()
            module = now.module_at(address)
            if not vma.name:
                now.seen.add(vma)
        if module is not None and (vma.kind is not Kind.ANONYMOUS or not vma.name):
            try:
                found = self._reader.table_of(module).at(address - module.bias)
            except (MalformedError, UnsupportedError):
                found = None  # what the file is called is known all the same
            if found is not None and module.is_loaded:
                offset = address - module.bias - found.value
                return printable(self._name(now, Meant(module, found))) + _plus(offset)
            vma = module.first
        called = now.area(vma)
        first = now.first_of(called)
        if not called or first is None or first > address:
            return f"{address:#x}"
        return f"{printable(called)}{_plus(address - first)}"

    def _name(self, now: Loaded, meant: Meant) -> bytes:
        """Returns a name of a symbol that leads back to it.

        The plain one does not where another symbol has it as well, or where the program
        has a copy that is used instead: the address in the file then is behind it.
        """
        module, symbol = meant.module, meant.symbol
        name = now.label(module) + b"!" + symbol.name
        found = self._reader.table_of(module).find(symbol.name)
        is_plain = len(found) == 1 and found[0].value == symbol.value
        if not is_plain or symbol.value in self._moved(now, module):
            name += AT_SIGN + b"%x" % symbol.value
        return name + _RESOLVER if symbol.resolves else name

    def _refresh(self) -> Loaded:
        """Looks at what is mapped now, and returns it; what is known of a file stays."""
        # As a whole: another thread may be looking at it.
        self._now = now = self._finder.look(self._now)
        return now


def _plus(offset: int) -> str:
    return f"+{offset:#x}" if offset else ""
