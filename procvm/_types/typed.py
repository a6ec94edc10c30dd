"""`Typed`: types, variables and stacks of one process, snapshot or core file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, final

from procvm._base.pods import Pod
from procvm._base.spellings import spelling_of
from procvm._base.text import printable
from procvm._space.view import Address, is_overlay, view_of_kind
from procvm._types.engine import Engine, Owner
from procvm._types.paths import evaluated
from procvm._types.sources import ModuleSource, ThreadState
from procvm._types.stacks import Frame, Stacks, frames_of
from procvm._types.values import WordPod, listed
from procvm._types.variable import Variable
from procvm.errors import InvalidArgsError, NoSuchSymbolError, PageFaultError, UnsupportedError

__all__ = ["Typed"]


@final
class Typed:
    """The types and variables of one memory; `Mapped` documents each method."""

    def __init__(self, owner: Owner, sources: Callable[[], list[ModuleSource]]) -> None:
        self._owner = owner
        self._engine = Engine(owner, sources)

    def program(self) -> Any:
        """Returns the drgn program."""
        return self._engine.program()

    def type(self, name: str) -> Pod[Any]:
        """Returns the pod of a type; see `Mapped.type`."""
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # not every caller is checked
            raise TypeError(f"a type's name must be a str, not {type(name).__name__}")
        with self._engine.reading():
            program = self._engine.program()
            try:
                found = program.type(name)
            except SyntaxError as error:
                raise InvalidArgsError(
                    f"{printable(name)!r} is not the name of a type: {printable(str(error))}"
                ) from None
            except LookupError:
                raise self._missing(f"no type {printable(name)!r}", name) from None
            return self._engine.maker.pod(found)

    def variable(self, path: str) -> Any:
        """Returns a view of a variable; see `Mapped.variable`."""
        with self._engine.reading():
            found = self._evaluated(path)
            if found.address_ is None or found.bit_field_size_ is not None:
                raise InvalidArgsError(
                    f"{printable(path)!r} has no address: it is a bit field or a plain value"
                )
            pod = self._engine.maker.pod(found.type_)
            vm = self._owner.vm
            if is_overlay(pod.ctype):
                return view_of_kind(vm, int(found.address_), pod)
            return Variable(vm, int(found.address_), pod)

    def value(self, path: str) -> Any:
        """Returns the value of a path; see `Mapped.value`."""
        with self._engine.reading():
            found = self._evaluated(path)
            if found.absent_:
                raise UnsupportedError(f"{printable(path)!r} has no value that can be read")
            return self._python_value(found)

    def address(self, path: str) -> int:
        """Returns the address of what a path means."""
        with self._engine.reading():
            found = self._evaluated(path)
            if found.address_ is not None and found.bit_field_size_ is None:
                return int(found.address_)
            if found.type_.unaliased().kind.name in ("POINTER", "INT") and not found.absent_:
                return int(found.value_())
            raise InvalidArgsError(f"{printable(path)!r} has no address")

    def text(self, path: str) -> tuple[str, str, int | None]:
        """Returns the type, the value as C writes it, and the address of a path."""
        with self._engine.reading():
            found = self._evaluated(path)
            if found.absent_:
                raise UnsupportedError(f"{printable(path)!r} has no value that can be read")
            shown = found.format_(type_name=False)
            address = None if found.address_ is None else int(found.address_)
            return printable(found.type_.type_name()), shown, address

    def stack(self, state: ThreadState) -> list[Frame]:
        """Returns the frames of a thread."""
        return frames_of(self._engine, state, self)

    def stacks(self, states: dict[int, ThreadState], stopped_s: float) -> Stacks:
        """Returns the frames of threads."""
        found = Stacks({tid: self.stack(state) for tid, state in states.items()})
        found.stopped_s = stopped_s
        return found

    def symbol_at(self, address: int) -> str | None:
        """Returns the name of the symbol that an address lies in, without arguments, or None."""
        found: str | None = getattr(self._owner.describe(address), "symbol", None)
        spelling = None if found is None else spelling_of(os.fsencode(found))
        return found if spelling is None else spelling.qualified

    def locals_of(self, frame: Any, state: ThreadState) -> dict[str, Any]:
        """Returns the local variables of a frame of drgn by name; see `Frame.locals`."""
        with self._engine.lock:
            if frame.function_name is None:
                return {}
            return {name: self._local(frame, name, state) for name in frame.locals()}

    def _local(self, frame: Any, name: str, state: ThreadState) -> Any:
        try:
            with self._engine.reading(state.kept):
                found = frame[name]
                return None if found.absent_ else self._python_value(found)
        except (LookupError, PageFaultError, UnsupportedError):
            return None  # it is nowhere, or of a type that has no values

    def _evaluated(self, path: str) -> Any:
        return evaluated(self._engine.drgn, self._engine.program(), path, self._named)

    def _python_value(self, found: Any) -> Any:
        kinds = self._engine.drgn.TypeKind
        kind = found.type_.unaliased().kind
        if kind == kinds.FUNCTION:
            return Address(int(found.address_), self._owner.vm)
        if kind == kinds.INT and found.type_.unaliased().size > 8:
            return int(found.value_())
        if found.bit_field_size_ is not None:
            value = found.value_()
            pod = self._engine.maker.pod(found.type_)
            return pod.convert(value) if isinstance(pod, WordPod) else value
        pod = self._engine.maker.pod(found.type_)
        value = pod.from_bytes(found.to_bytes_())
        return value.within(self._owner.vm) if isinstance(value, Address) else listed(pod, value)

    # Names

    def _named(self, name: str) -> Any:
        """Returns the object of a name, where the program itself has it."""
        plain = name.rpartition("!")[2].partition("@0x")[0]
        program = self._engine.program()
        try:
            found = program.object(plain)
        except LookupError:
            raise self._missing(f"no variable {printable(name)!r}", name) from None
        if found.absent_:  # declared there, and defined where there is no debug information
            address = self._owner.symbol(name)  # refuses a thread-local variable
            return self._engine.drgn.Object(program, found.type_, address=address)
        if found.address_ is None:
            return found  # an enumerator
        try:
            address = self._owner.symbol(name)
        except NoSuchSymbolError:
            if "!" in name:
                raise
            return found  # no symbol table has it
        if address == found.address_:
            return found
        return self._elsewhere(name, plain, found, address)

    def _elsewhere(self, name: str, plain: str, found: Any, address: int) -> Any:
        """Returns the object of a name that the linker leads to another place than drgn.

        Another file has a variable of the same name, or the program has a copy of the
        variable of a library.
        """
        source = self._engine.source_at(address)
        alone = None if source is None else self._engine.alone(source)
        if alone is not None:
            try:
                own = alone.object(plain)
            except LookupError:
                pass
            else:
                if own.address_ == address:
                    return own
        home = self._engine.source_at(int(found.address_))
        if home is not None:
            try:
                is_copy = self._owner.symbol(f"{home.name}!{plain}") == address
            except (NoSuchSymbolError, LookupError):
                is_copy = False
            if is_copy:
                return self._engine.drgn.Object(found.prog_, found.type_, address=address)
        raise self._missing(f"no type of {printable(name)!r}", name)

    def _missing(self, what: str, name: str) -> Exception:
        """Returns the error for a name that no debug information has."""
        missing = self._engine.missing()
        if not self._engine.has_any():
            return UnsupportedError(
                f"{what}: no loaded file has debug information; {missing}. Compile with -g, or "
                "install the package with the debug information"
            )
        reason = missing if self._engine.program_has_none() else ""
        return NoSuchSymbolError(
            f"{what} in the debug information of the loaded files"
            + (f"; {missing}" if missing else ""),
            name=name,
            reason=reason,
        )
