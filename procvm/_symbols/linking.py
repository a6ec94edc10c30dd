"""`Linking`: what the dynamic linker made of a symbol: a copy of a variable, a chosen function."""

from __future__ import annotations

from typing import final

from procvm._symbols.elf_dynamic import KINDS
from procvm._symbols.elf_symbols import ElfSymbol
from procvm._symbols.layout import LoadedFile
from procvm._symbols.loaded import Loaded
from procvm._symbols.lookup import Meant
from procvm._symbols.module_files import UNREADABLE, ModuleReader
from procvm.errors import MalformedError, UnsupportedError

__all__ = ["Linking"]


@final
class Linking:
    """Reads the relocations of the loaded files."""

    def __init__(self, reader: ModuleReader) -> None:
        self._reader = reader

    def place_of(self, now: Loaded, module: LoadedFile, symbol: ElfSymbol) -> int:
        """Returns where the program has a symbol of a file: in the file, or in a copy of it."""
        own = module.bias + symbol.value
        return self.moved(now, module).get(symbol.value, own)

    def moved(self, now: Loaded, module: LoadedFile) -> dict[int, int]:
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

    def _copies(self, program: LoadedFile) -> dict[bytes, int]:
        if program.copies is None:
            kinds = KINDS.get(program.machine)
            program.copies = {}
            for one in self._reader.relocations(program, frozenset({kinds.copy} if kinds else ())):
                program.copies[one.name] = program.bias + one.reloc.offset
        return program.copies

    def _exported(self, module: LoadedFile, name: bytes) -> ElfSymbol | None:
        try:
            found = self._reader.table_of(module).find(name)
        except (MalformedError, UnsupportedError):
            return None
        return found[0] if found and found[0].is_exported else None

    def chosen(self, now: Loaded, meant: Meant) -> int | None:
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
                # A slot that is not bound yet points into the file's own PLT.
                unbound = value in (word, one.bias + word, module.bias + symbol.value)
                if not unbound and module.first.start <= value < module.end:
                    return value
        return None
