"""`Engine`: drgn over a memory, with the debug information of the loaded files."""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

from procvm._base.optional import required
from procvm._base.text import printable
from procvm._types.making import Maker
from procvm._types.sources import ModuleSource
from procvm.errors import PageFaultError, UnsupportedError, VmError

if TYPE_CHECKING:
    from procvm._space.space import VmSpace

__all__ = ["Engine", "Owner"]

WHAT = "types, variables and stacks by debug information"
_DEBUG_DIR = "/usr/lib/debug"
_X86_64 = 62


class Owner(Protocol):
    """The part of a process, a snapshot or a core file that the engine uses."""

    @property
    def pid(self) -> int: ...
    @property
    def vm(self) -> VmSpace: ...
    def symbol(self, name: str) -> int: ...
    def describe(self, address: int) -> str: ...


@final
class _Reader:
    """Reads memory for drgn.

    It does not know the owner: drgn holds it where the garbage collector does not look, and an
    owner would never be freed.
    """

    def __init__(self, vm: VmSpace, fault: type[Exception]) -> None:
        self._vm = vm
        self._fault = fault
        self.kept: list[tuple[int, bytes]] = []

    def __call__(self, address: int, n: int, offset: int, physical: bool) -> bytes:
        """Returns bytes; those of a copy where there is one."""
        del offset, physical
        k = bisect_right(self.kept, address, key=lambda one: one[0]) - 1
        if k >= 0:
            start, data = self.kept[k]
            if address + n <= start + len(data):
                return data[address - start : address - start + n]
        try:
            return self._vm.read_bytes(address, n)
        except VmError as error:
            where = error.address if isinstance(error, PageFaultError) else address
            raise self._fault(error.message, where) from None


@final
class Engine:
    """A drgn program over one memory.

    Attributes:
        drgn: The package.
        lock: Held while drgn works: a program of drgn serves one thread at a time.
    """

    def __init__(self, owner: Owner, sources: Callable[[], list[ModuleSource]]) -> None:
        self.drgn = required("drgn", WHAT)
        # Without a handler, warnings of drgn about a file would go to stderr.
        logging.getLogger("drgn").addHandler(logging.NullHandler())
        self.lock = threading.RLock()
        # drgn raises Exception itself for what libdw refuses in a file.
        self._refusals: set[type[Exception]] = {Exception, NotImplementedError}
        for name in ("BadDataError", "ObjectAbsentError", "OutOfBoundsError"):
            if hasattr(self.drgn, name):  # older versions raise LookupError or ValueError
                self._refusals.add(getattr(self.drgn, name))
        self._owner = owner
        self._loaded_files = sources
        self._reader = _Reader(owner.vm, self.drgn.FaultError)
        self._sources: dict[object, ModuleSource] = {}
        self._missing: dict[object, str] = {}
        self._alone: dict[object, Any] = {}
        self._begin()

    def _begin(self) -> None:
        if self._owner.vm.address_size != 8:
            raise UnsupportedError(f"{WHAT} work for 64-bit programs only")
        self._program = self._new_program()
        self.maker = Maker(self.drgn)
        self._sources.clear()
        self._missing.clear()
        self._alone.clear()

    def _new_program(self) -> Any:
        drgn = self.drgn
        program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
        program.add_memory_segment(0, (1 << 64) - 1, self._reader)
        # The finder "debuginfod" is left out: it would ask servers on the network.
        program.set_enabled_debug_info_finders(["standard"])
        program.debug_info_options.try_module_name = False
        return program

    def program(self) -> Any:
        """Returns the drgn program, with the debug information of what is loaded now."""
        with self.lock:
            sources = self._loaded_files()
            keys = {one.key for one in sources}
            if not self._sources.keys() <= keys:
                self._begin()  # drgn does not forget a module
            for one in sources:
                if one.key not in self._sources:
                    missing = self._add(self._program, one)
                    self._sources[one.key] = one
                    if missing:
                        self._missing[one.key] = missing
            return self._program

    def alone(self, source: ModuleSource) -> Any:
        """Returns a program that knows the debug information of one file only."""
        with self.lock:
            found = self._alone.get(source.key)
            if found is None:
                found = self._alone[source.key] = self._new_program()
                self._add(found, source)
            return found

    def _add(self, program: Any, source: ModuleSource) -> str:
        """Adds a file; returns where its debug information was looked for if there is none."""
        fd, why = source.open()
        module = program.extra_module(printable(source.name), source.start, create=True)
        module.address_range = (source.start, source.end)
        if source.build_id:
            module.build_id = source.build_id
        looked = [why or printable(source.path or source.name)]
        if fd >= 0:
            try:
                module.try_file(source.path or source.name, fd=fd)
            except Exception as error:  # noqa: BLE001 (drgn raises plain ones for malformed files)
                looked[0] = f"{looked[0]} ({printable(str(error))})"
        if module.wants_debug_file():
            with suppress(Exception):  # a file that was found is malformed
                program.load_module_debug_info(module)
            looked += self._more_files(module, source.build_id)
        # The vdso never has any.
        return ", ".join(looked) if source.path and module.wants_debug_file() else ""

    def _more_files(self, module: Any, build_id: bytes) -> list[str]:
        """Tries what debuginfod downloaded before; returns where was looked."""
        if not build_id:
            return [_DEBUG_DIR]
        name = build_id.hex()
        looked = [f"{_DEBUG_DIR}/.build-id/{name[:2]}/{name[2:]}.debug"]
        for folder in _debuginfod_caches():
            path = folder / name / "debuginfo"
            looked.append(str(path))
            if module.wants_debug_file() and path.is_file():
                with suppress(Exception):  # it is malformed, or of another build
                    module.try_file(path)
        return looked

    def missing(self) -> str:
        """Returns which files have no debug information, and where it was looked for."""
        if not self._missing:
            return ""
        shown = [self._sources[key] for key in self._missing]
        names = ", ".join(printable(one.name) for one in shown[:4])
        names += f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        text = f"there is none for {names}"
        if self.program_has_none():  # which is what a user asks for
            text += f" (looked at {self._missing[shown[0].key]})"
        return text

    def has_any(self) -> bool:
        """Returns whether any loaded file has debug information."""
        return len(self._missing) < len(self._sources)

    def program_has_none(self) -> bool:
        """Returns whether the program itself, the first file, has no debug information."""
        return next(iter(self._sources), None) in self._missing

    def source_at(self, address: int) -> ModuleSource | None:
        """Returns the loaded file that an address lies in, or None."""
        found = (one for one in self._sources.values() if one.start <= address < one.end)
        return next(found, None)

    @contextmanager
    def reading(self, kept: Sequence[tuple[int, bytes]] = ()) -> Generator[None]:
        """Context manager in which drgn reads copies in place of the memory.

        Raises:
            PageFaultError: drgn met a page fault.
            UnsupportedError: drgn does not know the debug information that it met.
        """
        with self.lock:
            before, self._reader.kept = self._reader.kept, sorted(kept)
            try:
                yield
            except self.drgn.FaultError as error:
                raise PageFaultError(
                    error.message, address=error.address, pid=self._owner.pid
                ) from None
            except Exception as error:
                if type(error) not in self._refusals:
                    raise
                raise UnsupportedError(
                    f"drgn does not support this debug information: {printable(str(error))}"
                ) from None
            finally:
                self._reader.kept = before


def _debuginfod_caches() -> list[Path]:
    """Returns the folders in which debuginfod keeps what it downloaded."""
    named = os.environ.get("DEBUGINFOD_CACHE_PATH")
    if named:
        return [Path(named)]
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [Path(root) / "debuginfod_client"]
