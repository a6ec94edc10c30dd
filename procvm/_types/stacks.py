"""`Frame` and `frames_of`: the calls that a thread is in."""

from __future__ import annotations

from typing import Any, Protocol, final

from procvm._base.spellings import without_templates
from procvm._base.text import printable
from procvm._types.engine import Engine
from procvm._types.sources import ThreadState
from procvm.errors import UnsupportedError

__all__ = ["Frame", "Stacks", "frames_of"]

_REGISTERS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss"),
)
"""The members of struct pt_regs, in order, by the kernel's names for ptrace."""

_WORD = (1 << 64) - 1


class Reader(Protocol):
    """The part of `Typed` that a frame uses."""

    def symbol_at(self, address: int) -> str | None: ...
    def locals_of(self, frame: Any, state: ThreadState) -> dict[str, Any]: ...


@final
class Frame:
    """A call that a thread is in, or an inlined part of one.

    Attributes:
        function: The name of the function, of C++ and Rust with namespace and class; None if
            neither debug information nor a symbol tells it. An inlined function has the last
            part only.
        file: The path of the source, as the compiler was given it; None if it is not known.
        line: The line there; None if it is not known.
        column: The column there; None if it is not known.
        address: The instruction that runs next in it.
        module: The name of the loaded file; None outside of any.
        is_inline: Whether the compiler inlined the function into the next frame.
    """

    function: str | None
    file: str | None
    line: int | None
    column: int | None
    address: int
    module: str | None
    is_inline: bool

    def __init__(self, frame: Any, address: int, state: ThreadState, reader: Reader) -> None:
        self._frame = frame
        self._state = state
        self._reader = reader
        self.address = address
        self.function = frame.function_name
        self.is_inline = bool(frame.is_inline)
        self.module = self.file = self.line = self.column = None
        try:
            place = frame.source()
        except LookupError:
            return
        self.file, self.line, self.column = place.filename or None, place.line, place.column

    def locals(self) -> dict[str, Any]:
        """Returns the values of its arguments and variables by name, in their order.

        The value of a structure is a copy. A variable that the compiler keeps nowhere at this
        instruction is None. Values on the stack are as they were when the stack was copied;
        empty without debug information.
        """
        return self._reader.locals_of(self._frame, self._state)

    def __str__(self) -> str:
        """Returns ``"0x55e0 wait_here at list.c:12"``, printable."""
        name = self.function or "??"
        where = f" at {self.file}:{self.line}" if self.file else f" in {self.module or '??'}"
        return f"{self.address:#018x} {printable(name)}{printable(where)}"

    def __repr__(self) -> str:
        return f"<Frame {self}>"


@final
class Stacks(dict[int, "list[Frame]"]):
    """The stacks of threads, by tid.

    Attributes:
        stopped_s: Seconds that the target was stopped for it.
    """

    stopped_s: float = 0.0


def frames_of(engine: Engine, state: ThreadState, reader: Reader) -> list[Frame]:
    """Returns the frames of a thread, the innermost first.

    Raises:
        UnsupportedError: The registers are not those of x86-64.
    """
    if not all(name in state.registers for name in _REGISTERS if name != "orig_rax"):
        raise UnsupportedError("stacks can be unwound for x86-64 programs only")
    with engine.reading(state.kept):
        program = engine.program()
        trace = program.stack_trace(_pt_regs(engine.drgn, program, state.registers))
        found = [_frame(engine, frame, state, reader) for frame in trace]
    return [one for one in found if one is not None]


def _pt_regs(drgn: Any, program: Any, registers: dict[str, int]) -> Any:
    word = program.int_type("unsigned long", 8, False)
    members = [drgn.TypeMember(word, name, 64 * k) for k, name in enumerate(_REGISTERS)]
    kind = program.struct_type("pt_regs", 8 * len(_REGISTERS), members)
    data = b"".join(
        (registers.get(name, _WORD) & _WORD).to_bytes(8, "little") for name in _REGISTERS
    )
    return drgn.Object.from_bytes_(program, kind, data)


def _frame(engine: Engine, frame: Any, state: ThreadState, reader: Reader) -> Frame | None:
    try:
        address = int(frame.pc)
    except LookupError:
        return None  # the caller of the outermost function
    made = Frame(frame, address, state, reader)
    # A return address may be that of the next function.
    inside = address if frame.interrupted else address - 1
    source = engine.source_at(inside)
    if source is not None:
        made.module = source.name
        made.function = _qualified(made, reader.symbol_at(inside))
    return made


def _qualified(frame: Frame, symbol: str | None) -> str | None:
    """Returns the name of a function with its namespace and class, which drgn leaves out."""
    short = frame.function
    if short is None:
        return symbol
    if frame.is_inline or symbol is None:
        return short
    # Debug information writes the arguments of a template in another way.
    is_same = without_templates(symbol).endswith(f"::{without_templates(short)}")
    return symbol if is_same else short
