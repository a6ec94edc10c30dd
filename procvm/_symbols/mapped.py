"""`Mapped`: what a live process, a snapshot and a core file have in common beside memory."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

from procvm._base.address import as_address
from procvm._base.pods import PodOnceAtomic, u32, usize
from procvm._base.text import printable
from procvm._space.maps import Maps, Vma
from procvm._symbols.mapped_file import MappedFile
from procvm._symbols.modules import Modules, encoded
from procvm.errors import InvalidArgsError, NoSuchSymbolError

if TYPE_CHECKING:
    from procvm._space.space import VmSpace

__all__ = ["Mapped", "MappedFile"]

_HEX = re.compile(r"0[xX][0-9a-fA-F]+")
_DECIMAL = re.compile(r"[0-9]+")
_BARE_HEX = re.compile(r"(?!0[bB][01]+$)[0-9a-fA-F]+")  # not what Python writes in binary
_LOWEST = 0x10000
"""No process has memory below: what is shorter in hexadecimal is no address that was pasted."""
_DEEPEST = 64
_LONGEST = 4000  # what Python takes as the digits of a number
_OFFSETS = re.compile(r"\s*([+-])\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*$")


class Mapped(ABC):
    """Memory with mappings, some of which are files that name addresses."""

    _modules: Modules | None = None
    is_kept = False
    """Whether the memory was kept at one time and does not change any more."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process that it is, or was, of."""

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

    @abstractmethod
    def mapped_file(self, vma: Vma) -> MappedFile | None:
        """Opens the file that a mapping is of, or returns None if it can not be had."""

    @abstractmethod
    def program_address(self) -> int:
        """Returns an address in the executable; 0 if that is not known."""

    @abstractmethod
    def program_names(self) -> set[bytes]:
        """Returns what the program was started as: paths, their last parts, and its comm."""

    def listing(self, known: object) -> tuple[object, list[Vma] | None]:
        """Returns the mappings that have a name, and a token for what is mapped now.

        Args:
            known: A token that an earlier call returned; if nothing has changed since,
                None is returned in place of the mappings.
        """
        maps = self.maps()
        return maps, None if maps is known else [vma for vma in maps if vma.name]

    def holds_page(self, vma: Vma, address: int) -> bool:
        """Returns whether reading a page of a file mapping can give other than the file."""
        del vma, address
        return True

    def may_hang(self, vma: Vma) -> bool:
        """Returns whether a process serves the file of a mapping, and may never answer."""
        del vma
        return False

    def is_link(self, name: bytes, vma: Vma) -> bool:
        """Returns whether a path, or a name beside a mapping's file, leads to that file."""
        path = vma.plain_name
        if not path.startswith(b"/") or self.may_hang(vma):
            return False
        other = os.path.join(os.path.dirname(path), name)
        return self._same_file(other, path)

    def _same_file(self, path: bytes, other: bytes, root: bytes = b"") -> bool:
        try:
            return os.path.samefile(root + path, root + other)
        except (OSError, ValueError):
            return False

    def mappings_of(self, name: str | bytes) -> Maps:
        """Returns the mappings that a name stands for.

        Args:
            name: What a mapping is called, whole or by the last part of its path; or a
                file's soname, what the dynamic linker calls it, or what the program was
                started as.
        """
        wanted = encoded(name) if isinstance(name, str) else name
        found = self.maps().filter(name=wanted)
        return found if found else Maps(self._known().mappings_of(wanted))

    def _known(self) -> Modules:
        if self._modules is None:
            self._modules = Modules(self)
        return self._modules

    def symbol(self, name: str) -> int:
        """Returns the address of a symbol.

        A symbol alone means what the program itself uses: its own first, its statics too,
        then what the dynamic linker finds first, preloaded libraries before others. With a
        file it is that file's; for a variable that the program has a copy of (a copy
        relocation) the copy, which the file uses as well. The names are those of the symbol
        tables of the loaded files, deleted ones too; where no file can be had, those that
        the dynamic linker uses, in memory.

        Args:
            name: A symbol, or a file and a symbol: ``"libc.so.6!environ"``. The file may be
                named by its path, the last part of that, its soname, or a link to it.

        Raises:
            NoSuchSymbolError: No file has it, or it has no single address: it is
                thread-local, or an IFUNC that the program did not use yet.
            AmbiguousSymbolError: Several statics have this name, or several files that
                dlopen loaded, or the file is loaded several times.
            MalformedError: The file that was named is no good ELF file.
            UnsupportedError: pyelftools is not installed.
            ProcessExitedError: It has ended.
        """
        return self._known().address_of(name)

    def describe(self, address: int) -> str:
        """Returns what an address is, for people: ``"libc.so.6!malloc+0x12"``.

        An address without a symbol is ``"libc.so.6+0x1234"`` or ``"[heap]+0x40"``, counted
        from the first mapping of that name; one without a name is the number. A symbol whose
        name alone does not lead back to it has its address in the file appended,
        ``"prog!counter@0x4010"``, and the resolver of an IFUNC has its kind appended,
        ``"libc.so.6!memcpy@ifunc-resolver"``. Without pyelftools no symbol is named. The text
        is printable, whatever the target's files are called; `address` takes it, unless a
        name has to be escaped or has signs of expressions in it.

        Raises:
            ProcessExitedError: It has ended.
        """
        return self._known().describe(as_address(address))

    def address(self, expression: str | int) -> int:
        """Returns the address that an expression means.

        Args:
            expression: A number (see below), a file or an area (``libc.so.6``,
                ``[heap]``: where its first mapping begins), a symbol (``environ``,
                ``libc.so.6!environ``), any of these with ``+`` and ``-`` of numbers behind,
                ``*`` before what is to be followed as a pointer, ``*(g_list+8)``.
                Where the whole is the name of something, that is meant.

        A number is ``0x7f..``, or hexadecimal digits that cannot be a decimal number, as
        ``7f4736d5b000``, or decimal. Digits that may be an address pasted without its 0x, as
        ``10000000``, are refused, so that a write never goes to the other of the two places.
        Offsets are decimal unless they have 0x.

        Raises:
            InvalidArgsError: It can not be parsed.
            NoSuchSymbolError: There is no such name.
            AmbiguousSymbolError: A name means several things.
            PageFaultError: A pointer could not be read.
            AccessDeniedError: A pointer is outside of user space.
            AddressOverflowError: A pointer ends beyond all addresses.
        """
        if not isinstance(expression, str):
            return as_address(expression)
        if len(expression) > _LONGEST:
            raise InvalidArgsError(
                f"an expression of {len(expression)} characters; give at most {_LONGEST}"
            )
        address = self._parsed(expression.strip(), expression, _DEEPEST)
        if not 0 <= address < 1 << 64:
            raise InvalidArgsError(
                f"{printable(expression)!r} is {address:#x}, which is no address"
            )
        return address

    def _parsed(self, text: str, whole: str, depth: int) -> int:
        if not text or not depth:
            why = "is no address" if depth else f"is nested deeper than {_DEEPEST}"
            raise InvalidArgsError(
                f"{printable(whole[:80])!r} {why}: give 0x.., [heap]+8, libc.so.6+0x10, a symbol, "
                "module!symbol, or *EXPRESSION"
            )
        if _HEX.fullmatch(text):
            return int(text, 16)
        if _DECIMAL.fullmatch(text):
            return self._decimal(text)
        is_name = text[0] not in "*("
        area = self._area(text) if is_name and "!" not in text else None
        if area is not None:
            return area
        if text[0].isdigit() and _is_bare_hex(text):
            return int(text, 16)  # no symbol begins with a digit
        offset = _OFFSETS.search(text)
        if offset is not None and offset.start():
            amount = int(offset[2], 16 if _HEX.fullmatch(offset[2]) else 10)
            try:
                base = self._parsed(text[: offset.start()], whole, depth - 1)
            except NoSuchSymbolError as error:
                # Names may end so, as few as they are.
                with suppress(NoSuchSymbolError):
                    if is_name:
                        return self.symbol(text)
                raise error from None
            return base + (amount if offset[1] == "+" else -amount)
        if text[0] == "*":
            pointer = self._parsed(text[1:].strip(), whole, depth - 1)
            return self.vm.read_val(pointer, self.usize)
        if text[0] == "(":
            if text[-1] != ")":
                raise InvalidArgsError(
                    f"{printable(whole)!r} can not be parsed from its parenthesis on"
                )
            return self._parsed(text[1:-1].strip(), whole, depth - 1)
        return self._symbol(text)

    def _decimal(self, text: str) -> int:
        """Returns a decimal number, unless it may be a hexadecimal one."""
        number, pasted = int(text), int(text, 16)
        if _LOWEST <= pasted < self.vm.end:
            raise InvalidArgsError(
                f"{text} may be {pasted:#x}, pasted without its 0x, or the decimal number "
                f"{number:#x}; give the one that you mean with 0x"
            )
        return number

    def _area(self, name: str) -> int | None:
        """Returns where the first mapping of a name begins, or None."""
        return self._known().area(encoded(name))

    def _symbol(self, name: str) -> int:
        try:
            return self.symbol(name)
        except NoSuchSymbolError as error:
            if "!" in name:
                raise
            vmas = self._known().mappings_of(encoded(name))
            if vmas:
                return vmas[0].start
            if _is_bare_hex(name):
                return int(name, 16)
            if error.reason:
                raise
            raise NoSuchSymbolError(
                f"nothing is called {printable(name)!r}: no mapping and no symbol; a number is "
                "written 0x..",
                name=name,
            ) from error


def _is_bare_hex(text: str) -> bool:
    return bool(_BARE_HEX.fullmatch(text)) and int(text, 16) >= _LOWEST
