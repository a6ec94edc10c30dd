"""`Modules`: the ELF files that a process has loaded, and what their symbols are called there."""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, final

from procvm.address import ADDRESS_END
from procvm.elf.headers import PT_LOAD, Elf, Segment, build_id_of
from procvm.elf.symbols import SymbolTable, symbols_in_memory, symbols_of
from procvm.errors import (
    AccessDeniedError,
    MalformedError,
    NoSuchSymbolError,
    PageFaultError,
    UnsupportedError,
)
from procvm.escape import printable
from procvm.extras import required
from procvm.mm.file import VmFile
from procvm.perms import Perms
from procvm.process.maps import Kind, Vma

if TYPE_CHECKING:
    from procvm.process.mapped import Mapped

__all__ = ["MappedFile", "Modules", "encoded", "open_mapped"]

_MAGIC = b"\x7fELF"
_DEBUG_FILES = "/usr/lib/debug/.build-id/{}/{}.debug"
_NR_TABLES = 256
_NO_SYMBOLS = SymbolTable([])
# By build and by file: by the build alone, which a file just says, one target could
# make up symbols for all others.
_tables: OrderedDict[tuple[Any, ...], SymbolTable] = OrderedDict()


class MappedFile(NamedTuple):
    """A file that may be the one that was mapped.

    Attributes:
        stream: The file, open.
        exact: Whether it is known to be; else its build has to be compared.
    """

    stream: BinaryIO
    exact: bool


@final
class Module:
    """An ELF file where it is loaded.

    Attributes:
        name: The last part of its path, or what the mapping is called.
        first: The mapping of its beginning.
        end: One past its last address, memory that is not of the file included.
        bias: What is added to the addresses that the file says.
        is_loaded: Whether it may run there; a file that is merely read is not.
    """

    def __init__(self, vmas: list[Vma], segments: list[Segment]) -> None:
        self.first = vmas[0]
        loads = [segment for segment in segments if segment.type == PT_LOAD]
        begin = loads[0]
        self.bias = self.first.start - self.first.offset + begin.offset - begin.vaddr
        last = max(load.vaddr + load.memsz for load in loads)
        self.end = max(self.bias + last, self.first.end)
        may_run = any(load.flags & 1 for load in loads)
        # A core file may not tell what was allowed.
        self.is_loaded = not may_run or any(vma.perms & Perms.EXEC or not vma.perms for vma in vmas)
        self.segments = segments
        self.name = name_of(self.first)
        self.table: SymbolTable | None = None


def encoded(name: str) -> bytes:
    """Returns a name as its bytes, any of which a str can stand for.

    Raises:
        NoSuchSymbolError: It stands for no bytes: half of a surrogate pair.
    """
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        raise NoSuchSymbolError(f"nothing is called {printable(name)!r}", name=name) from None


def name_of(vma: Vma) -> bytes:
    """Returns what a mapping is called in an expression: its name's last part, as a file's."""
    name = vma.plain_name
    return name.rpartition(b"/")[2] if name.startswith(b"/") else name


@final
class _Loaded:
    """What is mapped at one time.

    Attributes:
        vmas: The mappings.
        in_order: The files that are loaded, as they are searched.
        by_start: All of them, by their addresses.
    """

    def __init__(self, vmas: list[Vma], in_order: list[Module], modules: list[Module]) -> None:
        self.vmas = vmas
        self.in_order = in_order
        self.by_start = sorted(modules, key=lambda one: one.first.start)
        self._starts = [module.first.start for module in self.by_start]
        # Where what is called so begins; by the whole path, and by its last part if no other
        # file has the same.
        self._first: dict[bytes, int] = {}
        last_part: dict[bytes, bytes] = {}
        self._shared: set[bytes] = set()
        for vma in vmas:
            name = vma.plain_name
            if name:
                self._first.setdefault(name, vma.start)
                short = name_of(vma)
                self._first.setdefault(short, vma.start)
                if last_part.setdefault(short, name) != name:
                    self._shared.add(short)

    def label(self, vma: Vma) -> bytes:
        """Returns what a mapping is called: as shortly as tells it from the others."""
        short = name_of(vma)
        return vma.plain_name if short in self._shared else short

    def first_of(self, label: bytes) -> int | None:
        """Returns where the first mapping begins that is called so, or None."""
        return self._first.get(label)

    def __contains__(self, vma: Vma) -> bool:
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
        required("elftools.elf.elffile", "looking symbols up")
        self._subject = subject
        self._now = _Loaded([], [], [])
        self._found: dict[str, tuple[int, Vma]] = {}

    def address_of(self, name: str) -> int:
        """Returns the address of a symbol; see `Mapped.symbol`."""
        known = self._found.get(name)
        if known is not None:
            address, first = known
            # As long as the same file begins at the same place: it may have been unloaded.
            if self._subject.find_vma(first.start) == first:
                return address
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # not every caller is checked
            raise TypeError(f"a symbol's name must be a str, not {type(name).__name__}")
        self._found[name] = found = self._look_up(name)
        return found[0]

    def _look_up(self, name: str) -> tuple[int, Vma]:
        """Returns the address of a symbol, and the mapping that its file begins in."""
        file, bang, symbol = name.rpartition("!")
        wanted = encoded(symbol)
        modules = self._refresh().in_order
        if bang:
            named = encoded(file)
            modules = [one for one in modules if named in (one.name, one.first.plain_name)]
            if not modules:
                raise NoSuchSymbolError(
                    f"no file that is called {printable(file)!r} is loaded", name=name
                )
        bad: list[str] = []
        in_threads = False
        for module in modules:
            try:
                table = self._table(module)
            except (MalformedError, UnsupportedError) as error:
                if bang:
                    raise
                bad.append(str(error))
                continue
            value = table.find(wanted)
            # Of a file that says it is loaded where nothing can be nothing is found.
            if value is not None and 0 <= module.bias + value < ADDRESS_END:
                return module.bias + value, module.first
            in_threads |= wanted in table.thread_local
        why = f"; {len(bad)} files could not be read: {bad[0]}" if bad else ""
        if in_threads:
            why = ": it is a variable of each thread, which has no one address"
        where = printable(file) if bang else f"the {len(modules)} files that are loaded"
        raise NoSuchSymbolError(f"no symbol {printable(symbol)!r} in {where}{why}", name=name)

    def describe(self, address: int) -> str:
        """Returns what an address is; see `Mapped.describe`."""
        vma = self._subject.find_vma(address)
        if vma is None:
            return f"{address:#x}"
        now = self._now if vma in self._now else self._refresh()
        module = now.module_at(address)
        if module is not None and (vma.kind is not Kind.ANONYMOUS or not vma.name):
            called = now.label(module.first)
            try:
                found = self._table(module).at(address - module.bias)
            except (MalformedError, UnsupportedError):
                found = None  # what the file is called is known all the same
            # Of a file that is loaded twice a name is that of the first one.
            if found is not None and now.first_of(called) == module.first.start:
                return f"{printable(called)}!{printable(found[0])}{_plus(found[1])}"
            vma = module.first
        called = now.label(vma)
        first = now.first_of(called)
        if not called or first is None or first > address:
            return f"{address:#x}"
        return f"{printable(called)}{_plus(address - first)}"

    def _refresh(self) -> _Loaded:
        """Looks at what is mapped now, and returns it; tables that are known stay."""
        before = self._now
        vmas = list(self._subject.maps())
        if vmas == before.vmas:
            return before
        known = {(one.first, one.end): one for one in before.by_start}
        by_file: dict[tuple[Any, ...], list[list[Vma]]] = {}
        for vma in vmas:
            # Never what is shared: a look would make a page of it that was not there.
            if vma.perms & Perms.SHARED:
                continue
            if vma.kind is Kind.FILE or vma.name == b"[vdso]":
                instances = by_file.setdefault((vma.dev, vma.inode, vma.name), [])
                if vma.offset == 0 or vma.kind is Kind.VDSO:
                    instances.append([vma])
                elif instances:
                    instances[-1].append(vma)
        modules: list[Module] = []
        for instances in by_file.values():
            for instance in instances:
                segments = self._segments(instance[0])
                if any(segment.type == PT_LOAD for segment in segments):
                    module = Module(instance, segments)
                    modules.append(known.get((module.first, module.end), module))
        in_order = [one for one in self._in_order(modules) if one.is_loaded]
        # As a whole, for whoever looks at it in another thread.
        self._now = _Loaded(vmas, in_order, modules)
        return self._now

    def _in_order(self, modules: list[Module]) -> list[Module]:
        program = self._subject.program_address()
        return sorted(
            modules,
            key=lambda one: (not one.first.start <= program < one.end, one.first.start),
        )

    def _segments(self, vma: Vma) -> list[Segment]:
        """Returns the program headers of the file that a mapping begins; none if it is no ELF."""
        try:
            if self._read(vma.start, len(_MAGIC)) != _MAGIC:
                return []
            return self._image(vma).segments()
        except (PageFaultError, AccessDeniedError):
            pass  # of a snapshot that has not this page, or a page that may not be read
        except (MalformedError, UnsupportedError):
            return []
        file = self._subject.mapped_file(vma)
        if file is None:
            return []
        with file.stream as stream:
            try:
                return Elf(stream, what(vma)).segments() if file.exact else []
            except (MalformedError, UnsupportedError):
                return []

    def _read(self, address: int, n: int) -> bytes:
        return self._subject.vm.forced().read_bytes(address, n)

    def _image(self, vma: Vma) -> Elf:
        """Returns the file's headers as they stand in memory."""
        memory = self._subject.vm.forced().memory
        return Elf(VmFile(memory, vma.start, vma.end), what(vma))

    def _table(self, module: Module) -> SymbolTable:
        if module.table is None:
            module.table = self._table_of_file(module) or self._table_in_memory(module)
        return module.table

    def _table_of_file(self, module: Module) -> SymbolTable | None:
        file = self._subject.mapped_file(module.first)
        if file is None:
            return None
        with file.stream as stream:
            elf = Elf(stream, what(module.first))
            build_id = build_id_of(elf)
            # A number that a file had may be another file's by now, and a file be written anew.
            in_memory = self._build_id(module)
            same = build_id == in_memory if in_memory else file.exact
            if not same or elf.segments() != module.segments:
                return None
            facts = os.fstat(stream.fileno())
            key = (build_id, facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
            table = _tables.get(key)
            if table is not None:
                _tables.move_to_end(key)
            else:
                table = _debug_table(build_id, elf) or symbols_of(elf) or _NO_SYMBOLS
                _tables[key] = table
                if len(_tables) > _NR_TABLES:
                    _tables.popitem(last=False)
        return table

    def _build_id(self, module: Module) -> bytes:
        """Returns the build that is in memory, or nothing."""
        try:
            return build_id_of(self._image(module.first))
        except (MalformedError, UnsupportedError, PageFaultError):
            return b""

    def _table_in_memory(self, module: Module) -> SymbolTable:
        try:
            elf = self._image(module.first)
            table = symbols_of(elf) if module.first.kind is Kind.VDSO else None
            table = table or symbols_in_memory(elf, module.segments, module.bias, self._read)
        except PageFaultError:
            table = None  # it was not kept
        return table or _NO_SYMBOLS


def _debug_table(build_id: bytes, elf: Elf) -> SymbolTable | None:
    """Returns the symbols of the file that was split off as the program was stripped."""
    name = build_id.hex()
    if len(name) < 3 or any(section.name == b".symtab" for section in elf.sections()):
        return None
    try:
        with open(_DEBUG_FILES.format(name[:2], name[2:]), "rb", buffering=0) as stream:
            debug = Elf(stream, printable(stream.name))
            return symbols_of(debug) if build_id_of(debug) == build_id else None
    except (OSError, MalformedError, UnsupportedError):
        return None


def what(vma: Vma) -> str:
    """Returns what errors call the file of a mapping."""
    return printable(vma.name)


def _plus(offset: int) -> str:
    return f"+{offset:#x}" if offset else ""


def open_mapped(path: str, vma: Vma) -> MappedFile | None:
    """Opens what may be the file of a mapping, or returns None if it can not be."""
    try:
        # Before it is opened: of a device that does something.
        if not path.startswith("/") or not stat.S_ISREG(os.stat(path).st_mode):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        return None
    facts = os.fstat(fd)
    stream = open(fd, "rb", buffering=0)  # noqa: SIM115 (the caller's to close)
    dev = (os.major(facts.st_dev), os.minor(facts.st_dev))
    return MappedFile(stream, facts.st_ino == vma.inode and dev == vma.dev)
