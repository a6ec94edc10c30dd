"""`Modules`, `Symbol` and `Location`: the loaded files and names, as callers see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Self, final

from procvm._base.text import printable
from procvm.errors import AmbiguousSymbolError, Candidate, NoSuchSymbolError

__all__ = ["Binding", "Location", "Module", "Modules", "Symbol"]

Binding = Literal["global", "weak", "local"]
"""Who can link with a symbol: other files, other files if nothing stronger defines it, or none."""


class Module(NamedTuple):
    """An ELF file that is loaded: the program, a library, or the kernel's vdso.

    Names and paths are text as `os.fsdecode` makes it; `str` of the module is printable.

    Attributes:
        name: A name that no other module has: its file name, or its path where two files have
            the same name, with ``@0x`` and `base` appended where one file is loaded twice.
        soname: The name that other files link with (DT_SONAME); None if it has none.
        path: The path of its file, as the target sees it; None for the vdso.
        base: The address at which its first byte is loaded.
        ranges: The memory that it occupies, as sorted and disjoint (start, end) pairs, `end`
            excluded. They include variables without initial values (.bss), which are not in
            the file, and can be passed to `VmSpace.search` and `Process.snapshot`.
        build_id: Its build ID in hexadecimal digits, as ``readelf -n`` shows it; None if it has
            none, or if neither the file nor the memory can be read.
        is_deleted: Whether the file was deleted or replaced after it was loaded.
    """

    name: str
    soname: str | None
    path: str | None
    base: int
    ranges: tuple[tuple[int, int], ...]
    build_id: str | None
    is_deleted: bool

    def __str__(self) -> str:
        """Returns its name with everything but printable characters escaped."""
        return printable(self.name)

    def __contains__(self, address: object) -> bool:
        """Returns whether an address lies in it."""
        return isinstance(address, int) and any(low <= address < high for low, high in self.ranges)


@final
class Modules(Mapping[str, Module]):
    """The loaded ELF files of a process at one time, in the dynamic linker's order.

    The program comes first. A key is a `Module.name`; ``modules["libc.so.6"]`` takes a path or a
    soname as well. The target may have changed since.
    """

    def __init__(self, modules: list[Module], aliases: list[set[str]]) -> None:
        self._by_name = {module.name: module for module in modules}
        self._by_alias: dict[str, list[Module]] = {}
        for module, names in zip(modules, aliases, strict=True):
            for name in names:
                self._by_alias.setdefault(name, []).append(module)

    def __getitem__(self, name: str) -> Module:
        """Returns the module with a name, soname or path.

        Raises:
            NoSuchSymbolError: No module has it (also a `KeyError`).
            AmbiguousSymbolError: Several modules have it.
        """
        found = self._by_name.get(name)
        if found is not None:
            return found
        several = self._by_alias.get(name, [])
        if len(several) == 1:
            return several[0]
        text = printable(name) if isinstance(name, str) else name  # pyright: ignore[reportUnnecessaryIsInstance]  # a Mapping is asked for any object
        if not several:
            raise NoSuchSymbolError(f"no file that is called {text!r} is loaded", name=str(name))
        candidates = tuple(Candidate(str(one), one.base) for one in several)
        shown = ", ".join(f"{one.name} ({one.address:#x})" for one in candidates)
        raise AmbiguousSymbolError(
            f"{text!r} is the name of {len(several)} files; give one of {shown}",
            name=name,
            candidates=candidates,
        )

    def __contains__(self, name: object) -> bool:
        return name in self._by_name or name in self._by_alias

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"<Modules of {len(self)} files>"

    def find(self, address: int) -> Module | None:
        """Returns the module that an address lies in, or None."""
        return next((module for module in self.values() if address in module), None)


class Symbol(NamedTuple):
    """A symbol of a loaded file.

    Attributes:
        name: Its name. ``@ifunc-resolver`` is appended to the name of an IFUNC, whose
            `address` is that of the function which picks the implementation.
        demangled: The name as its source has it; None if it is not mangled, or if no
            demangler is available.
        address: Its address in the target.
        size: Its bytes; 0 if the file does not say.
        module: The `Module.name` of its file.
        binding: ``"global"``, ``"weak"`` or ``"local"``.
    """

    name: str
    demangled: str | None
    address: int
    size: int
    module: str
    binding: Binding

    def __str__(self) -> str:
        """Returns ``module!name``, printable."""
        return f"{printable(self.module)}!{printable(self.name)}"


@final
class Location(str):
    """The name of an address: a text such as ``"libc.so.6!malloc+0x12"``, with its parts.

    Attributes:
        module: The file or area that the address lies in, as `Modules` and `Mapped.address`
            take it: ``"libc.so.6"``, ``"[heap]"``; None if it has no name.
        symbol: The symbol that the address lies in; None if it lies in none.
        demangled: The symbol as its source has it; None if it is not mangled, or if no
            demangler is available.
        offset: Bytes from the start of the symbol, or of the module if there is no symbol; 0 if
            there is neither.
        line: The source file and line, ``"main.c:12"``; None if they are not known.
    """

    __slots__ = ("demangled", "line", "module", "offset", "symbol")

    module: str | None
    symbol: str | None
    offset: int
    line: str | None
    demangled: str | None

    def __new__(
        cls,
        text: str,
        module: str | None = None,
        symbol: str | None = None,
        offset: int = 0,
        line: str | None = None,
        demangled: str | None = None,
    ) -> Self:
        self = super().__new__(cls, text)
        self.module = module
        self.symbol = symbol
        self.offset = offset
        self.line = line
        self.demangled = demangled
        return self

    def __getnewargs__(  # type: ignore[override]
        self,
    ) -> tuple[str, str | None, str | None, int, str | None, str | None]:
        return str(self), self.module, self.symbol, self.offset, self.line, self.demangled
