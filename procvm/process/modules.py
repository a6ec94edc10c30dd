"""`Modules`: the ELF files that a process has loaded, and what their symbols are called there."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, final

from procvm.address import ADDRESS_END
from procvm.elf.dynamic import KINDS
from procvm.elf.headers import PT_DYNAMIC, PT_INTERP
from procvm.elf.symbols import Symbol
from procvm.errors import (
    AmbiguousSymbolError,
    Candidate,
    MalformedError,
    NoSuchSymbolError,
    UnsupportedError,
)
from procvm.escape import printable
from procvm.extras import is_installed, required
from procvm.perms import Perms
from procvm.process.layout import Module, name_of
from procvm.process.linkmap import Link, read_links
from procvm.process.maps import Kind, Vma
from procvm.process.modulefiles import UNREADABLE, ModuleReader

if TYPE_CHECKING:
    from procvm.process.mapped import Mapped

__all__ = ["Modules", "encoded"]

_LIBRARY = "elftools.elf.elffile"
_AT = b"@0x"
_RESOLVER = b"@ifunc-resolver"
_NR_SHOWN = 8
_NR_REASONS = 3


def encoded(name: str) -> bytes:
    """Returns a name as its bytes, any of which a str can stand for.

    Raises:
        NoSuchSymbolError: It stands for no bytes: half of a surrogate pair.
    """
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        raise NoSuchSymbolError(f"nothing is called {printable(name)!r}", name=name) from None


class _Meant(NamedTuple):
    """A symbol in a module; `exact` if it was asked for by its address in the file."""

    module: Module
    symbol: Symbol
    exact: bool = False


@final
class _Loaded:
    """What is mapped at one time.

    Attributes:
        token: What `Mapped.listing` gave with it.
        vmas: The mappings that have a name.
        seen: Mappings without a name that were there then.
        by_start: The ELF files, by their addresses.
        scope: Those that the program's own names lead to, in the order of the dynamic linker:
            the program, preloaded libraries, and what was loaded at the start.
        others: The rest that is loaded: by dlopen or dlmopen, or by other means.
        settled: Whether the dynamic linker has loaded all that it is about to.
        groups: The ELF files by all mappings of each; none for one that is no ELF file.
        unread: Why the headers of some files cannot be read.
    """

    def __init__(
        self,
        token: object,
        vmas: list[Vma],
        modules: list[Module],
        scope: list[Module],
        *,
        settled: bool,
    ) -> None:
        self.token = token
        self.vmas = vmas
        self.seen: set[Vma] = set()
        self.by_start = sorted(modules, key=lambda one: one.first.start)
        self.scope = scope
        in_scope = set(map(id, scope))
        rest = [one for one in self.by_start if one.is_loaded and id(one) not in in_scope]
        self.others = sorted(rest, key=lambda one: one.rank)
        self.settled = settled
        self.groups: dict[tuple[Vma, ...], list[Module]] = {}
        self.unread: list[str] = []
        self._starts = [module.first.start for module in self.by_start]
        # Where the first mapping of a name begins; by the whole path, and by its last part
        # if no other file has the same.
        self._first: dict[bytes, int] = {}
        last_part: dict[bytes, bytes] = {}
        self._shared: set[bytes] = set()
        for vma in vmas:
            name = vma.plain_name
            short = name_of(vma)
            self._first.setdefault(name, vma.start)
            self._first.setdefault(short, vma.start)
            if last_part.setdefault(short, name) != name:
                self._shared.add(short)
        self._called: dict[bytes, list[Module]] = {}
        for module in (*scope, *self.others):
            for name in {module.name, module.first.plain_name}:
                self._called.setdefault(name, []).append(module)

    def area(self, vma: Vma) -> bytes:
        """Returns what a mapping is called: as shortly as tells it from the others."""
        short = name_of(vma)
        return vma.plain_name if short in self._shared else short

    def first_of(self, label: bytes) -> int | None:
        """Returns where the first mapping begins that is called so, or None."""
        return self._first.get(label)

    def called(self, name: bytes) -> list[Module]:
        """Returns the files of a name or path; those that the linker knows come before others.

        A name may have the address behind it that the file begins at.
        """
        found = self._called.get(name, [])
        if not found and _AT in name:
            plain, _, number = name.rpartition(_AT)
            with suppress(ValueError):
                start = int(number, 16)
                return [one for one in self._called.get(plain, []) if one.first.start == start]
        best = min((one.rank for one in found), default=0)
        return [one for one in found if one.rank == best]

    def label(self, module: Module) -> bytes:
        """Returns a name of a file that means this one alone."""
        label = self.area(module.first)
        if self.called(label) == [module]:
            return label
        return label + _AT + b"%x" % module.first.start

    def __contains__(self, vma: Vma) -> bool:
        if not vma.name:
            return vma in self.seen
        k = bisect_right(self.vmas, vma)
        return k > 0 and self.vmas[k - 1] == vma

    def module_at(self, address: int) -> Module | None:
        """Returns the file whose addresses these are, or None."""
        k = bisect_right(self._starts, address) - 1
        return self.by_start[k] if k >= 0 and address < self.by_start[k].end else None


@final
class Modules:
    """The ELF files of one process, looked at when they are asked for."""

    def __init__(self, subject: Mapped) -> None:
        self._subject = subject
        self._reader = ModuleReader(subject)
        self._now = _Loaded(None, [], [], [], settled=False)
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
        required(_LIBRARY, "looking symbols up")
        now = self._refresh()
        address, module = self._look_up(now, name)
        if now.settled and module in now.scope:
            self._found[name] = address, module.first
        return address

    # A name

    def _look_up(self, now: _Loaded, name: str) -> tuple[int, Module]:
        """Returns the address of a symbol, and the file that it is a name of."""
        file, bang, symbol = name.rpartition("!")
        wanted = encoded(symbol)
        resolver = wanted.endswith(_RESOLVER)
        wanted = wanted.removesuffix(_RESOLVER)
        modules = self._called(now, file, name) if bang else [*now.scope, *now.others]
        search = _Search(self._reader, wanted, () if bang else now.unread)
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

    def _resolver(self, now: _Loaded, meant: _Meant, name: str) -> int:
        del now, name
        return meant.module.bias + meant.symbol.value

    def _address(self, now: _Loaded, meant: _Meant, name: str) -> int:
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

    def _moved(self, now: _Loaded, module: Module) -> dict[int, int]:
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

    def _chosen(self, now: _Loaded, meant: _Meant) -> int | None:
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

    def _called(self, now: _Loaded, file: str, name: str) -> list[Module]:
        found = self.called(now, encoded(file))
        if not found:
            reason = _reasons(now.unread)
            raise NoSuchSymbolError(
                f"no file that is called {printable(file)!r} is loaded"
                + (reason and f": {reason}"),
                name=name,
                reason=reason,
            )
        return found

    def called(self, now: _Loaded, name: bytes) -> list[Module]:
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
        if not is_installed(_LIBRARY):
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
        if vma not in now or not (module is None or module in now.scope or self._stays(module)):
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
                return printable(self._name(now, _Meant(module, found))) + _plus(offset)
            vma = module.first
        called = now.area(vma)
        first = now.first_of(called)
        if not called or first is None or first > address:
            return f"{address:#x}"
        return f"{printable(called)}{_plus(address - first)}"

    def _stays(self, module: Module) -> bool:
        return self._reader.is_current(module)

    def _name(self, now: _Loaded, meant: _Meant) -> bytes:
        """Returns a name of a symbol that leads back to it.

        The plain one does not where another symbol has it as well, or where the program
        has a copy that is used instead: the address in the file then is behind it.
        """
        module, symbol = meant.module, meant.symbol
        name = now.label(module) + b"!" + symbol.name
        found = self._reader.table_of(module).find(symbol.name)
        is_plain = len(found) == 1 and found[0].value == symbol.value
        if not is_plain or symbol.value in self._moved(now, module):
            name += _AT + b"%x" % symbol.value
        return name + _RESOLVER if symbol.resolves else name

    # What is loaded

    def _refresh(self) -> _Loaded:
        """Looks at what is mapped now, and returns it; what is known of a file stays."""
        before = self._now
        token, vmas = self._subject.listing(before.token)
        if vmas is None or vmas == before.vmas:
            if before.settled and all(map(self._stays, before.others)):
                if vmas is not None:  # mappings without a name came or went
                    before.seen.clear()
                    before.token = token
                return before
            vmas = before.vmas
        groups: dict[tuple[Vma, ...], list[Module]] = {}
        if is_installed(_LIBRARY):
            groups = self._groups(vmas, before)
        modules = [module for group in groups.values() for module in group]
        linked, settled = self._linked(modules)
        program = self._program(modules, linked)
        scope = [] if program is None else self._scope(program, linked, modules)
        # As a whole: another thread may be looking at it.
        now = _Loaded(token, vmas, modules, scope, settled=settled or self._subject.is_kept)
        now.groups = groups
        for vmas_of_one, found in groups.items():
            if not found and self._reader.may_wait(vmas_of_one):
                name = printable(vmas_of_one[0].name)
                now.unread.append(f"the file {name} cannot be read: its server does not answer")
        self._now = now
        return now

    def _groups(self, vmas: list[Vma], before: _Loaded) -> dict[tuple[Vma, ...], list[Module]]:
        by_file: dict[tuple[object, ...], list[Vma]] = {}
        for vma in vmas:
            # Shared mappings are data: no linker maps a program so.
            if not vma.perms & Perms.SHARED and (vma.kind is Kind.FILE or vma.name == b"[vdso]"):
                by_file.setdefault((vma.dev, vma.inode, vma.name), []).append(vma)
        found: dict[tuple[Vma, ...], list[Module]] = {}
        for mine in by_file.values():
            known = before.groups.get(tuple(mine))
            if known is None or not all(map(self._stays, known)):
                known = list(self._reader.modules_of(mine))
            found[tuple(mine)] = known
        return found

    def _linked(self, modules: list[Module]) -> tuple[list[Module], bool]:
        """Returns the files in the dynamic linker's order, and whether it has loaded all."""
        for one in modules:
            one.rank = 1
        places: dict[int, Module] = {}
        for one in modules:
            for part in one.segments:
                if part.type == PT_DYNAMIC:
                    places[one.bias + part.vaddr] = one
        dynamic = False
        for one in self._programs(modules):
            dynamic = True
            debug = self._reader.debug_address(one)
            if not debug:
                continue
            now = _Loaded(None, [], modules, [], settled=False)

            def read(address: int, n: int, now: _Loaded = now) -> bytes:
                return self._reader.read(address, n, now.module_at(address))

            try:
                links = read_links(read, debug, one.bits)
            except UNREADABLE:
                continue
            for link in (*links.main, *links.others):
                self._note(places.get(link.dynamic), link)
            main = [places[link.dynamic] for link in links.main if link.dynamic in places]
            return main, links.settled
        return [], not dynamic

    def _note(self, module: Module | None, link: Link) -> None:
        if module is not None:
            module.rank = 0
            module.is_loaded = True
            module.link_name = link.name or module.link_name

    def _programs(self, modules: list[Module]) -> Iterable[Module]:
        """Returns what may be the program, which its dynamic linker leaves its list in."""
        entry = self._subject.program_address()
        asking = [one for one in modules if any(part.type == PT_INTERP for part in one.segments)]
        return sorted(asking, key=lambda one: not one.first.start <= entry < one.end)

    def _program(self, modules: list[Module], linked: list[Module]) -> Module | None:
        if linked:
            return linked[0]
        entry = self._subject.program_address()
        found = (one for one in modules if one.first.start <= entry < one.end)
        program = next(found, None)
        if program is not None:
            program.rank = 0
        return program

    def _scope(self, program: Module, linked: list[Module], modules: list[Module]) -> list[Module]:
        """Returns the files that were loaded at the start, in the order they are searched.

        The linker's list has them first, and after them what dlopen brought in. Without the
        list the order is what the linker would make of what each file needs.
        """
        listed = [one for one in linked if one.first.kind is not Kind.VDSO]
        scope = [program]
        for one in scope:
            for name in self._reader.names_of(one)[1]:
                found = self._needed(name, listed or modules)
                if found is None or found in scope:
                    continue
                # Preloaded files come before the first that is needed, and nobody needs them.
                scope += (
                    [found]
                    if not listed
                    else [
                        other for other in listed[: listed.index(found) + 1] if other not in scope
                    ]
                )
        if not listed:
            return scope
        return [one for one in listed if one in scope]

    def _needed(self, name: bytes, modules: list[Module]) -> Module | None:
        """Returns the file that a DT_NEEDED entry means, or None."""
        for one in modules:
            if name in (one.link_name, os.path.basename(one.link_name), one.name):
                return one
        for one in modules:
            if one.first.kind is not Kind.VDSO and name == self._reader.names_of(one)[0]:
                return one
        return None


class _Search:
    """A search for one name, and why it may have found nothing."""

    def __init__(self, reader: ModuleReader, wanted: bytes, unread: Iterable[str]) -> None:
        self._reader = reader
        self._wanted = wanted
        self._bad = list(unread)
        self._thread_local: list[Module] = []
        self._locals: list[_Meant] = []

    def in_scope(self, scope: list[Module]) -> list[_Meant]:
        """Returns what the program means by the name.

        Its own, its statics too, and else the first that a library lets others link with.
        """
        for module in scope:
            found = self._in(module)
            if found and (module is scope[0] or found[0].symbol.is_exported):
                return found
            self._locals += found
        return []

    def all_of(self, modules: list[Module], *, is_named: bool = False) -> list[_Meant]:
        """Returns all that the name means in some files; statics only if nothing else is found.

        Args:
            modules: The files.
            is_named: Whether they were asked for, so that one that is no good is an error.
        """
        found = [one for module in modules for one in self._in(module, is_named=is_named)]
        exported = [one for one in found if one.symbol.is_exported]
        return exported or found + self._locals

    def _in(self, module: Module, *, is_named: bool = False) -> list[_Meant]:
        try:
            table = self._reader.table_of(module)
        except (MalformedError, UnsupportedError) as error:
            if is_named:
                raise
            self._bad.append(str(error))
            return []
        found = table.find(self._wanted)
        exact = False
        if not found and _AT in self._wanted:
            plain, _, number = self._wanted.rpartition(_AT)
            with suppress(ValueError):
                one = table.find_at(plain, int(number, 16))
                found = [] if one is None else [one]
                exact = True
        if not found and self._wanted in table.thread_local:
            self._thread_local.append(module)
        if not found and module.why:
            self._bad.append(module.why)
        # A file that claims to be loaded where no address is has no symbols.
        return [
            _Meant(module, one, exact)
            for one in found
            if 0 <= module.bias + one.value < ADDRESS_END
        ]

    def reason(self) -> str:
        """Returns why the name may have no address, or nothing."""
        if self._thread_local:
            file = printable(self._thread_local[0].name)
            return f"it is thread-local in {file}: each thread has its own, at its own address"
        return _reasons(self._bad)


def _reasons(bad: list[str]) -> str:
    shown = "; ".join(bad[:_NR_REASONS])
    return f"the names of {len(bad)} files could not be read: {shown}" if bad else ""


def _plus(offset: int) -> str:
    return f"+{offset:#x}" if offset else ""
