"""`Mapped`: what a live process, a snapshot and a core file share: mappings and names."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from procvm._base.address import as_address, as_int
from procvm._base.optional import is_installed
from procvm._base.pods import PodOnceAtomic, u32, usize
from procvm._space.maps import Maps, Vma
from procvm._symbols.debug_files import module_sources
from procvm._symbols.debugged import Debugged
from procvm._symbols.expressions import address_of, is_path
from procvm._symbols.listing import modules_in, symbols_in
from procvm._symbols.modules import Location, Modules, Symbol
from procvm._symbols.names import Names, encoded
from procvm._symbols.near import with_near
from procvm._symbols.pointer_paths import Reached
from procvm.errors import Hint, InvalidArgsError, NoSuchSymbolError

if TYPE_CHECKING:
    from procvm._space.space import VmSpace
    from procvm._symbols.subject import Subject
    from procvm._types.sources import ModuleSource

__all__ = ["Mapped"]


class Mapped(Debugged, Reached):
    """Memory with mappings, some of which are files that name addresses."""

    _names: Names | None = None
    _subject: Subject

    @property
    @abstractmethod
    def pid(self) -> int:
        """The pid of the process, or of the process that it is a copy of."""

    @property
    @abstractmethod
    def vm(self) -> VmSpace:
        """Its address space."""

    @property
    def address_size(self) -> int:
        """The bytes of its pointers: 4 for a 32-bit program, else 8."""
        return self.vm.address_size

    @property
    def usize(self) -> PodOnceAtomic[int]:
        """An unsigned number as wide as its pointers; `procvm.usize` is as wide as the tool's."""
        return u32 if self.address_size == u32.size else usize

    @abstractmethod
    def maps(self) -> Maps:
        """Returns its mappings, sorted and disjoint."""

    @abstractmethod
    def find_vma(self, address: int) -> Vma | None:
        """Returns the mapping that holds `address`, or None."""

    def mappings_of(self, name: str | bytes) -> Maps:
        """Returns the mappings that have a name.

        Args:
            name: The name of a mapping, whole or the last part of its path; a file's soname; a
                name by which the dynamic linker or the program's start knows a file.
        """
        wanted = encoded(name) if isinstance(name, str) else name
        found = self.maps().filter(name=wanted)
        return found if found else Maps(self._known().mappings_of(wanted))

    def _known(self) -> Names:
        if self._names is None:
            self._names = Names(self._subject)
        return self._names

    def modules(self) -> Modules:
        """Returns the ELF files that are loaded now: the program, its libraries, the vdso.

        They are a mapping by file name, soname or path: ``p.modules()["libc.so.6"].base``.

        Raises:
            UnsupportedError: pyelftools is not installed.
            ProcessExitedError: The process has ended.
        """
        return modules_in(self._known())

    def symbols(self, glob: str = "*") -> Iterator[Symbol]:
        """Returns an iterator over the symbols whose names match, file by file.

        The symbol tables of a file are read when the iterator comes to that file. Thread-local
        symbols, which have no single address, are left out. A file whose symbols cannot be read
        is left out, unless the glob names it.

        Args:
            glob: A pattern as `fnmatch.fnmatchcase` takes it, ``"pthread_*"``, for the name or
                the demangled name; or with a file, which may be a pattern too:
                ``"libc.so.6!mem*"``, ``"lib*!init"``.

        Raises:
            NoSuchSymbolError: The glob names a file, without a wildcard, that is not loaded.
            MalformedError: The file that the glob names is not a valid ELF file.
            UnsupportedError: pyelftools is not installed.
            ProcessExitedError: The process has ended.
        """
        return symbols_in(self._known(), glob)

    def symbol(self, name: str, *, tid: int | None = None) -> int:
        """Returns the address of a symbol.

        A symbol alone means the one that the program itself uses: its own first, its statics
        too, then the one that the dynamic linker finds first, preloaded libraries before
        others. With a file it is that file's; for a variable that the program has a copy of (a
        copy relocation) the copy, which the file uses as well. The names are those of the
        symbol tables of the loaded files, deleted ones too; where no file can be opened, those
        that the dynamic linker uses, in memory.

        Args:
            name: A symbol, or a file and a symbol: ``"libc.so.6!environ"``. The file may be
                named by its path, the last part of that, its soname, or a link to it. A symbol
                of C++ or Rust may be mangled or as its source has it, ``"game::Score::hit"``.
            tid: The thread whose variable is meant if the symbol is thread-local. A `Tracee` is
                held while its registers are read.

        Raises:
            NoSuchSymbolError: No file has it, or it has no single address: it is
                thread-local, or an IFUNC that the program did not use yet. `near` holds names
                that are spelled alike. With `tid`: the thread did not use the library's
                thread-local variables yet, or its C library does not tell where they are.
            NotTracedError: `tid` is given for a `Process`, whose threads run.
            NotStoppedError: The registers of the thread were not saved.
            NoSuchProcessError: There is no such thread.
            AmbiguousSymbolError: Several statics have this name, or several files that
                dlopen loaded, or the file is loaded several times.
            MalformedError: The file that was named is not a valid ELF file.
            UnsupportedError: pyelftools is not installed.
            ProcessExitedError: The process has ended.
        """
        names = self._known()
        pointer: int | None = None
        if tid is not None:
            states, _ = self._thread_states(as_int(tid, "tid"))
            pointer = states[tid].registers.get("fs_base", 0)
        try:
            return names.address_of(name, pointer)
        except NoSuchSymbolError as error:
            raise with_near(error, names) from None

    def describe(self, address: int) -> Location:
        """Returns the name of an address, as a text with its parts: ``"libc.so.6!malloc+0x12"``.

        An address without a symbol is ``"libc.so.6+0x1234"`` or ``"[heap]+0x40"``, counted
        from the first mapping of that name; one without a name is the number. A symbol whose
        name alone does not lead back to it has its address in the file appended,
        ``"prog!counter@0x4010"``, and the resolver of an IFUNC has its kind appended,
        ``"libc.so.6!memcpy@ifunc-resolver"``. Without pyelftools no symbol is named. The text
        is printable for any file name; `address` takes it, unless a name has to be escaped or
        contains signs of expressions.

        Raises:
            ProcessExitedError: The process has ended.
        """
        return self._known().describe(as_address(address))

    def address(self, expression: str | int) -> int:
        """Returns the address that an expression means.

        Args:
            expression: A number (see below), a file or an area (``libc.so.6``,
                ``[heap]``: where its first mapping begins), a symbol (``environ``,
                ``libc.so.6!environ``), any of these followed by ``+`` and ``-`` of numbers,
                ``*`` before a pointer that is to be followed, ``*(g_list+8)``. If the whole
                expression is a name, it means that name. In a hold of a `Tracee` a register
                too, as in ``*($rsp+8)``.

        A number is ``0x7f..``, or hexadecimal digits that cannot be a decimal number, as
        ``7f4736d5b000``, or decimal. Digits that may be an address pasted without its 0x, as
        ``10000000``, are refused, so that a write never goes to the other of the two places.
        Offsets are decimal unless they have 0x.

        Raises:
            InvalidArgsError: It cannot be parsed.
            NoSuchSymbolError: There is no such name; `near` holds names that are spelled alike.
            AmbiguousSymbolError: A name means several things.
            PageFaultError: A pointer could not be read.
            AccessDeniedError: A pointer is outside of user space.
            AddressOverflowError: A pointer ends past 2^64.
        """
        return self._address(expression, self._register)

    def _address(self, expression: str | int, register: Callable[[str], int]) -> int:
        if not isinstance(expression, str):
            return as_address(expression)
        names, vm = self._known(), self.vm
        try:
            return address_of(
                expression,
                names,
                vm.end,
                lambda at: vm.read_val(at, self.usize),
                register,
            )
        except (NoSuchSymbolError, InvalidArgsError) as error:
            if is_path(expression) and is_installed("drgn"):
                try:
                    return self._typing().address(expression)
                except NoSuchSymbolError:
                    if not isinstance(error, NoSuchSymbolError):
                        raise
            if isinstance(error, InvalidArgsError):
                raise
            raise with_near(error, names) from error.__cause__

    def _register(self, name: str) -> int:
        """Returns a register of the thread that expressions are about."""
        raise InvalidArgsError(
            f"${name} is a register, and process {self.pid} is not held", hint=Hint("registers")
        )

    def _module_sources(self) -> list[ModuleSource]:
        return module_sources(self._subject, self._known())
