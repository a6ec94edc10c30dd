"""`Loaded`: the ELF files of a process at one time, in the order of its dynamic linker."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, final

from procvm._base.optional import is_installed
from procvm._base.perms import Perms
from procvm._base.text import printable
from procvm._space.maps import Kind, Vma
from procvm._symbols.elf_headers import PT_DYNAMIC, PT_INTERP
from procvm._symbols.layout import AT_SIGN, LoadedFile, name_of
from procvm._symbols.link_map import Link, read_links
from procvm._symbols.module_files import UNREADABLE, ModuleReader

if TYPE_CHECKING:
    from procvm._symbols.subject import Subject

__all__ = ["LIBRARY", "Finder", "Loaded"]

LIBRARY = "elftools.elf.elffile"
"""The module without which no ELF file is read."""


@final
class Loaded:
    """The named mappings and ELF files of a process at one time.

    Attributes:
        token: The token that `Subject.listing` returned.
        vmas: The mappings that have a name.
        seen: Mappings without a name that were there then.
        by_start: The ELF files, by their addresses.
        scope: The files in which the program's own names are looked up, in the dynamic linker's
            order: the program, preloaded libraries, and libraries loaded at the start.
        others: The rest that is loaded: by dlopen or dlmopen, or by other means.
        settled: Whether the dynamic linker is not loading or unloading a file just now.
        groups: The ELF files by all mappings of each file; empty for other files.
        unread: Why the headers of some files cannot be read.
    """

    def __init__(
        self,
        token: object,
        vmas: list[Vma],
        modules: list[LoadedFile],
        scope: list[LoadedFile],
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
        self.groups: dict[tuple[Vma, ...], list[LoadedFile]] = {}
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
        self._called: dict[bytes, list[LoadedFile]] = {}
        for module in (*scope, *self.others):
            for name in {module.name, module.first.plain_name}:
                self._called.setdefault(name, []).append(module)

    def files(self) -> list[LoadedFile]:
        """Returns the files in the order in which names are looked up."""
        return [*self.scope, *self.others]

    def area(self, vma: Vma) -> bytes:
        """Returns the shortest name of a mapping that no other file has."""
        short = name_of(vma)
        return vma.plain_name if short in self._shared else short

    def first_of(self, label: bytes) -> int | None:
        """Returns the start of the first mapping with a name, or None."""
        return self._first.get(label)

    def called(self, name: bytes) -> list[LoadedFile]:
        """Returns the files of a name or path; only those of the linker's list if there are any.

        A name may be followed by ``@0x`` and the address at which the file begins.
        """
        found = self._called.get(name, [])
        if not found and AT_SIGN in name:
            plain, _, number = name.rpartition(AT_SIGN)
            with suppress(ValueError):
                start = int(number, 16)
                return [one for one in self._called.get(plain, []) if one.first.start == start]
        best = min((one.rank for one in found), default=0)
        return [one for one in found if one.rank == best]

    def label(self, module: LoadedFile) -> bytes:
        """Returns a name that only this file has."""
        label = self.area(module.first)
        if self.called(label) == [module]:
            return label
        return label + AT_SIGN + b"%x" % module.first.start

    def __contains__(self, vma: Vma) -> bool:
        if not vma.name:
            return vma in self.seen
        k = bisect_right(self.vmas, vma)
        return k > 0 and self.vmas[k - 1] == vma

    def module_at(self, address: int) -> LoadedFile | None:
        """Returns the file that an address lies in, or None."""
        k = bisect_right(self._starts, address) - 1
        return self.by_start[k] if k >= 0 and address < self.by_start[k].end else None


@final
class Finder:
    """Finds the ELF files that a process has loaded."""

    def __init__(self, subject: Subject, reader: ModuleReader) -> None:
        self._subject = subject
        self._reader = reader

    def look(self, before: Loaded) -> Loaded:
        """Returns the present state; `before` itself if no named mapping or file has changed."""
        token, vmas = self._subject.listing(before.token)
        if vmas is None or vmas == before.vmas:
            if before.settled and all(map(self._reader.is_current, before.others)):
                if vmas is not None:  # mappings without a name came or went
                    before.seen.clear()
                    before.token = token
                return before
            vmas = before.vmas
        groups: dict[tuple[Vma, ...], list[LoadedFile]] = {}
        if is_installed(LIBRARY):
            groups = self._groups(vmas, before)
        modules = [module for group in groups.values() for module in group]
        linked, settled = self._linked(modules)
        program = self._program(modules, linked)
        scope = [] if program is None else self._scope(program, linked, modules)
        now = Loaded(token, vmas, modules, scope, settled=settled or self._subject.is_kept)
        now.groups = groups
        for mine, found in groups.items():
            if not found and self._reader.may_wait(mine):
                name = printable(mine[0].name)
                now.unread.append(f"the file {name} cannot be read: its server does not answer")
        return now

    def _groups(self, vmas: list[Vma], before: Loaded) -> dict[tuple[Vma, ...], list[LoadedFile]]:
        by_file: dict[tuple[object, ...], list[Vma]] = {}
        for vma in vmas:
            # Shared mappings are data: a linker maps programs privately.
            if not vma.perms & Perms.SHARED and (vma.kind is Kind.FILE or vma.name == b"[vdso]"):
                by_file.setdefault((vma.dev, vma.inode, vma.name), []).append(vma)
        found: dict[tuple[Vma, ...], list[LoadedFile]] = {}
        for mine in by_file.values():
            known = before.groups.get(tuple(mine))
            if known is None or not all(map(self._reader.is_current, known)):
                known = list(self._reader.modules_of(mine))
            found[tuple(mine)] = known
        return found

    def _linked(self, modules: list[LoadedFile]) -> tuple[list[LoadedFile], bool]:
        """Returns the files in the dynamic linker's order, and whether it has loaded all."""
        for one in modules:
            one.rank = 1
            one.link_place = 0
            one.moved = None  # it depends on what else is loaded
        places: dict[int, LoadedFile] = {}
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
            now = Loaded(None, [], modules, [], settled=False)

            def read(address: int, n: int, now: Loaded = now) -> bytes:
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

    def _note(self, module: LoadedFile | None, link: Link) -> None:
        if module is not None:
            module.rank = 0
            module.is_loaded = True
            module.link_name = link.name or module.link_name
            module.link_place = link.place

    def _programs(self, modules: list[LoadedFile]) -> Iterable[LoadedFile]:
        """Returns the files that may be the program, whose DT_DEBUG points to the linker's list."""
        entry = self._subject.program_address()
        asking = [one for one in modules if any(part.type == PT_INTERP for part in one.segments)]
        return sorted(asking, key=lambda one: not one.first.start <= entry < one.end)

    def _program(self, modules: list[LoadedFile], linked: list[LoadedFile]) -> LoadedFile | None:
        if linked:
            return linked[0]
        entry = self._subject.program_address()
        found = (one for one in modules if one.first.start <= entry < one.end)
        program = next(found, None)
        if program is not None:
            program.rank = 0
        return program

    def _scope(
        self, program: LoadedFile, linked: list[LoadedFile], modules: list[LoadedFile]
    ) -> list[LoadedFile]:
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
                # Preloaded files are listed before the first needed one, and no file needs them.
                before = listed[: listed.index(found)] if listed else []
                scope += [other for other in (*before, found) if other not in scope]
        if not listed:
            return scope
        return [one for one in listed if one in scope]

    def _needed(self, name: bytes, modules: list[LoadedFile]) -> LoadedFile | None:
        """Returns the file that a DT_NEEDED entry means, or None."""
        for one in modules:
            if name in (one.link_name, os.path.basename(one.link_name), one.name):
                return one
        for one in modules:
            if one.first.kind is not Kind.VDSO and name == self._reader.names_of(one)[0]:
                return one
        return None
