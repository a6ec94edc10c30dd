"""`ModuleReader`: reads a loaded ELF file, from the file itself where it can be opened.

A page of a file mapping is not read from the target while the file can be read: such a read
makes the page resident there, and hangs where a process serves the file and does not answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, final

from procvm._base.address import page_end
from procvm._base.perms import Perms
from procvm._space.file import VmFile
from procvm._space.maps import Kind, Vma
from procvm._symbols.elf_dynamic import DT_DEBUG, Dynamic, Reloc, relocations_listed
from procvm._symbols.elf_headers import PT_LOAD, PT_NOTE, Elf, build_id_in, build_id_of
from procvm._symbols.elf_symbols import SymbolTable, debug_symbols_of, symbols_in_memory, symbols_of
from procvm._symbols.layout import LoadedFile, instances_of
from procvm._symbols.mapped_file import MappedFile, key_of
from procvm._symbols.module_headers import (
    MAGIC,
    Headers,
    called,
    dynamic_of_file,
    elf_of,
    headers_of,
    word_at,
)
from procvm.errors import (
    AccessDeniedError,
    AddressOverflowError,
    InvalidArgsError,
    MalformedError,
    PageFaultError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from procvm._symbols.subject import Subject

__all__ = ["UNREADABLE", "ModuleReader", "NamedReloc"]

_NOT_THERE = (PageFaultError, AccessDeniedError, InvalidArgsError, AddressOverflowError)
"""The errors of reading a target's memory that are due to the address.

A plain VmError is not among them: it says that the tool lacks descriptors or memory. Taken for
an unreadable file, it would choose another symbol of the name without a word.
"""

UNREADABLE = (MalformedError, UnsupportedError, *_NOT_THERE)
"""The errors of reading a target's ELF file that are due to the file."""

_NR_TABLES = 256
_NR_RELOCS = 1 << 16
_NO_SYMBOLS = SymbolTable([])
# By build ID and by file: with the build ID alone, one target could forge the symbols of
# all other targets.
_tables: OrderedDict[tuple[Any, ...], SymbolTable] = OrderedDict()


class NamedReloc(NamedTuple):
    """A relocation, the name of its symbol, and the word that the file has in its place."""

    reloc: Reloc
    name: bytes
    word: int


@final
class ModuleReader:
    """Reads the ELF files that one process has loaded."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    # Bytes

    def read(self, address: int, n: int, module: LoadedFile | None) -> bytes:
        """Returns bytes of the target; those of clean file pages come from the file.

        Args:
            address: The first address.
            n: The number of bytes.
            module: The file that is loaded there, or None.

        Raises:
            PageFaultError: They cannot be read.
            AccessDeniedError: They are outside user space.
        """
        if module is None:
            return self._from_memory(address, n)
        parts: list[bytes] = []
        while n > 0:
            step = min(n, page_end(address) - address)
            parts.append(self._read_page(address, step, module))
            address += step
            n -= step
        return b"".join(parts)

    def _read_page(self, address: int, n: int, module: LoadedFile) -> bytes:
        vma = module.vma_at(address)
        if vma is None or vma.kind is not Kind.FILE:
            return self._from_memory(address, n)
        if self._subject.holds_page(vma, address):
            try:
                return self._from_memory(address, n)
            except PageFaultError:
                pass  # a snapshot or a core file left it out
        file = self._subject.mapped_file(vma)
        if file is not None:
            with file.stream as stream:
                if file.exact:
                    stream.seek(vma.offset + address - vma.start)
                    return stream.read(n).ljust(n, b"\0")
        if self._subject.may_hang(vma):
            raise PageFaultError(
                f"the page at {address:#x} belongs to a file whose server may never answer",
                address=address,
                pid=self._subject.pid,
            )
        return self._from_memory(address, n)

    def _from_memory(self, address: int, n: int) -> bytes:
        return self._subject.vm.forced().read_bytes(address, n)

    # Names

    def modules_of(self, vmas: list[Vma]) -> Iterator[LoadedFile]:
        """Yields the places where an ELF file is loaded; none for other files.

        Args:
            vmas: All private mappings of one file, sorted.
        """
        found = self._headers(vmas)
        if found is None:
            return
        loads = [one for one in found.segments if one.type == PT_LOAD and one.filesz]
        shifts = {load.vaddr - load.offset for load in loads}
        for bias, mine in instances_of(vmas, found.segments):
            # A file that is not known to be the right one has to fit as a whole.
            fits = {vma.start - vma.offset - bias for vma in mine} >= shifts
            if found.file is None or found.file.exact or fits:
                module = LoadedFile(mine, bias, found.segments, found.head)
                if found.file is not None:
                    module.path, module.key = found.file.path, found.file.key
                yield module

    def _headers(self, vmas: list[Vma]) -> Headers | None:
        first = vmas[0]
        if first.kind is Kind.VDSO:
            return self._headers_in_memory(vmas)
        may_hang = self._subject.may_hang(first)
        if may_hang and not self.may_wait(vmas):
            return None
        found = self._headers_in_memory(vmas) if self._subject.is_kept else None
        if found is not None:
            return found
        file = self._subject.mapped_file(first)
        if file is not None:
            with file.stream as stream:
                if file.exact or may_hang or self._subject.is_kept:
                    return headers_of(stream, file, first)
        return None if may_hang or self._subject.is_kept else self._headers_in_memory(vmas)

    def _headers_in_memory(self, vmas: list[Vma]) -> Headers | None:
        for vma in vmas:
            if vma.offset and vma.kind is not Kind.VDSO:
                continue
            try:
                if self._from_memory(vma.start, len(MAGIC)) == MAGIC:
                    elf = self._image(vma, vma.end)
                    return Headers(elf.segments(), elf.header, None)
            except UNREADABLE:
                continue
        return None

    def may_wait(self, vmas: Iterable[Vma]) -> bool:
        """Returns whether a file is worth waiting for a server that may not answer.

        A program or library has an executable mapping; a data file has no symbols.
        """
        return any(vma.perms & Perms.EXEC and self._subject.may_hang(vma) for vma in vmas)

    def is_current(self, module: LoadedFile) -> bool:
        """Returns whether the file of a module still has the content that was read."""
        return not module.path or key_of(module.path) == module.key

    def _image(self, vma: Vma, end: int) -> Elf:
        """Returns the file's headers as they are in memory."""
        return Elf(VmFile(self._subject.vm.forced().memory, vma.start, end), called(vma))

    # The file of a module

    @contextmanager
    def file_of(self, module: LoadedFile) -> Generator[tuple[Elf, MappedFile] | None]:
        """Gives the file of a module, open, or None; `module.why` then says why.

        Raises:
            MalformedError: It is not a valid ELF file.
            UnsupportedError: It is for machines of the other byte order.
        """
        vma = module.first
        if vma.kind is Kind.VDSO:
            yield None
            return
        file = self._subject.mapped_file(vma)
        if file is None:
            module.why = f"the file {called(vma)} cannot be read"
            yield None
            return
        with file.stream as stream:
            elf = Elf(stream, called(vma))
            module.why = self._why_not(module, elf, file)
            yield None if module.why else (elf, file)

    def _why_not(self, module: LoadedFile, elf: Elf, file: MappedFile) -> str:
        """Returns why a file is not the one that is loaded; nothing if it is."""
        vma = module.first
        other = f"the file {called(vma)} is not the one that is loaded"
        if elf.segments() != module.segments:
            return f"{other}: it was built anew or replaced"
        # A clean page of a mapping always shows what the file holds now.
        if file.exact and not self._subject.is_kept:
            return ""
        loaded, here = self._build_id(module), build_id_of(elf)
        if loaded:
            if here == loaded:
                return ""
            build = f"build ID {here.hex()}" if here else "no build ID"
            return f"{other}: it has {build}, and build ID {loaded.hex()} was loaded"
        if elf.header != module.header or (here and loaded is not None):
            return f"{other}: it was built anew or replaced"
        try:
            tags = self._dynamic_in_memory(module)
            if tags.rows and not tags.is_of_one_build_with(dynamic_of_file(elf, module.segments)):
                return f"{other}: their dynamic sections differ"
        except _NOT_THERE:
            pass
        return ""

    def _build_id(self, module: LoadedFile) -> bytes | None:
        """Returns the build ID that is in memory, nothing if it has none, None if unreadable."""
        vma = module.first
        try:
            elf = self._image(vma, module.end)
            for part in module.segments:
                if part.type == PT_NOTE:
                    at = module.bias + part.vaddr - vma.start
                    found = build_id_in(elf, part._replace(offset=at))
                    if found:
                        return found
        except UNREADABLE:
            return None
        return b""

    def build_id_of(self, module: LoadedFile) -> bytes:
        """Returns the build ID of a module; nothing if it has none or cannot be read."""
        if module.build_id is None:
            module.build_id = self._build_id_of_file(module)
            if not module.build_id and not self._subject.may_hang(module.first):
                module.build_id = self._build_id(module) or b""
        return module.build_id

    def _build_id_of_file(self, module: LoadedFile) -> bytes:
        try:
            with self.file_of(module) as found:
                return build_id_of(found[0]) if found is not None else b""
        except UNREADABLE:
            return b""

    # The dynamic section

    def _dynamic_in_memory(self, module: LoadedFile) -> Dynamic:
        def read(address: int, n: int) -> bytes:
            return self.read(address, n, module)

        return Dynamic(elf_of(module), module.segments, module.bias, read)

    def debug_address(self, module: LoadedFile) -> int:
        """Returns the value of DT_DEBUG, which the dynamic linker sets; 0 if there is none."""
        try:
            return self._dynamic_in_memory(module).tags.get(DT_DEBUG, 0)
        except UNREADABLE:
            return 0

    @contextmanager
    def dynamic_of(self, module: LoadedFile) -> Generator[tuple[Dynamic, Elf | None]]:
        """Gives the dynamic section of a module, and the file if it is read from that.

        Raises:
            MalformedError: It is not a valid one.
            PageFaultError: It can be read neither from the file nor from memory.
        """
        with self.file_of(module) as found:
            if found is not None:
                yield dynamic_of_file(found[0], module.segments), found[0]
            else:
                yield self._dynamic_in_memory(module), None

    def names_of(self, module: LoadedFile) -> tuple[bytes, list[bytes]]:
        """Returns DT_SONAME and DT_NEEDED; empty if they cannot be read."""
        if module.names is None:
            try:
                with self.dynamic_of(module) as (dynamic, _):
                    module.names = dynamic.soname, dynamic.needed
            except UNREADABLE:
                module.names = b"", []
        return module.names

    def relocations(
        self, module: LoadedFile, kinds: frozenset[int], name: bytes = b""
    ) -> list[NamedReloc]:
        """Returns the relocations of some types; those that cannot be read are left out.

        Args:
            module: The file that has them.
            kinds: Their types.
            name: The name of a symbol: a file without that name is not searched.
        """
        found: list[NamedReloc] = []
        try:
            with self.dynamic_of(module) as (dynamic, elf):
                # A static program lists them by its sections alone.
                relocs = (
                    dynamic.relocations(kinds) if dynamic.tags else relocations_listed(elf, kinds)
                )
                if name and dynamic.tags and not dynamic.may_name(name):
                    relocs = iter(())
                for one in islice(relocs, _NR_RELOCS):
                    of = dynamic.symbol_name(one.symbol) if one.symbol else b""
                    found.append(NamedReloc(one, of, word_at(elf, module, one.offset)))
        except UNREADABLE:
            pass
        return found

    # Symbols

    def table_of(self, module: LoadedFile) -> SymbolTable:
        """Returns the symbols of a module.

        Raises:
            MalformedError: It is not a valid ELF file.
            UnsupportedError: It is for machines of the other byte order.
        """
        if module.table is None:
            module.table = self._table_of_file(module) or self._table_in_memory(module)
        return module.table

    def _table_of_file(self, module: LoadedFile) -> SymbolTable | None:
        with self.file_of(module) as found:
            if found is None:
                return None
            elf, file = found
            build_id = build_id_of(elf)
            key = (build_id, file.key)
            table = _tables.get(key)
            if table is not None:
                _tables.move_to_end(key)
                return table
            table = debug_symbols_of(build_id, elf) or symbols_of(elf)
            if table is None:

                def read(vaddr: int, n: int) -> bytes:
                    return elf.at(module.segments, vaddr, n)

                table = symbols_in_memory(elf, module.segments, 0, read) or _NO_SYMBOLS
            _tables[key] = table
            if len(_tables) > _NR_TABLES:
                _tables.popitem(last=False)
        return table

    def _table_in_memory(self, module: LoadedFile) -> SymbolTable:
        def read(address: int, n: int) -> bytes:
            return self.read(address, n, module)

        try:
            table = None
            if module.first.kind is Kind.VDSO:
                table = symbols_of(self._image(module.first, module.first.end))
            table = table or symbols_in_memory(elf_of(module), module.segments, module.bias, read)
        except _NOT_THERE:
            table = None  # a snapshot or a core file left it out
        return table or _NO_SYMBOLS
