"""``print`` and ``stack``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import click

import procvm
from procvm._base.text import printable
from procvm._space.view import Address, Enumerator
from procvm._symbols.mapped import Mapped
from procvm._types.stacks import Frame, Stacks
from procvm._types.values import Composite, members_of
from procvm.cli.declare import command, pid_argument
from procvm.cli.output import Output
from procvm.cli.target import name_of, open_target, pid_of, said_of

__all__ = ["print_", "stack"]

_LONGEST_LINE = 72


@command(
    "procvm print 1234 g_list",
    "procvm print 1234 'g_list->next->at.x'",
    "procvm print ./core '*g_list' --json",
)
@pid_argument
@click.argument("expression", metavar="EXPR")
def print_(out: Output, target: str, expression: str) -> None:
    """Print the value of a variable or of a C path, typed by debug information.

    EXPR is made of names, members by . and ->, [], *, &, casts and parentheses, as in C. The
    program, or the package with its debug information, must have been compiled with -g.
    """
    with open_target(target) as process:
        value = said_of("EXPR", lambda: process.value(expression))
        if out.json:
            out.document({"pid": process.pid, "expression": expression, "value": _plain(value)})
            return
        for line in _text(value, process).splitlines():
            out.line(line)


def _plain(value: Any) -> Any:
    """Returns a value for JSON: pointers in hexadecimal, enumerators by name."""
    if isinstance(value, Composite):
        return {printable(name): _plain(one) for name, one in members_of(value).items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, bytes):
        return printable(value)
    if isinstance(value, Enumerator):
        return int(value) if value.name is None else printable(value.name)
    if isinstance(value, Address):
        return hex(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _text(value: Any, process: Mapped, indent: str = "") -> str:
    if isinstance(value, Composite):
        parts = [
            f"{printable(name)} = {_text(one, process, indent + '  ')}"
            for name, one in members_of(value).items()
        ]
        return _braced(parts, indent)
    if isinstance(value, list | tuple):
        return _braced([_text(one, process, indent + "  ") for one in value], indent)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, bytes):
        return f'"{printable(value)}"'
    if isinstance(value, Address):
        name = name_of(process, value) if value else ""
        return f"{value:#x} {name}".rstrip()
    return printable(str(value))


def _braced(parts: list[str], indent: str) -> str:
    line = "{" + ", ".join(parts) + "}"
    if len(indent) + len(line) <= _LONGEST_LINE and "\n" not in line:
        return line
    inside = "".join(f"{indent}  {part},\n" for part in parts)
    return f"{{\n{inside}{indent}}}"


@command(
    "procvm stack 1234",
    "procvm stack myprogram --locals",
    "procvm stack ./core --json",
)
@pid_argument
@click.option("--tid", type=int, metavar="TID", help="Only this thread.")
@click.option("--locals", "show_locals", is_flag=True, help="Show arguments and variables.")
def stack(out: Output, target: str, tid: int | None, show_locals: bool) -> None:
    """List the calls that each thread is in, with source files and lines where they are known.

    The process is stopped only while registers and stacks are copied; the output says for how
    long.
    """
    with _holdable(target) as process:
        found = process.stacks() if tid is None else Stacks({tid: process.stack(tid)})
        names = {one.tid: printable(one.name) for one in process.threads()}
        is_live = isinstance(process, procvm.Process)
        stopped_ms = round(found.stopped_s * 1000, 3) if is_live and tid is None else None
        if out.json:
            out.document(
                {
                    "pid": process.pid,
                    "stopped_ms": stopped_ms,
                    "threads": [
                        {
                            "tid": one,
                            "name": names.get(one, ""),
                            "frames": [_frame(frame, show_locals=show_locals) for frame in frames],
                        }
                        for one, frames in found.items()
                    ],
                }
            )
            return
        for one, frames in found.items():
            out.line(out.style(f"thread {one} {names.get(one, '')}".rstrip(), "head"))
            for line in _lines(frames, process, show_locals=show_locals):
                out.line(line)
        if stopped_ms is not None and out.is_terminal:
            out.line(out.style(f"the process was stopped for {stopped_ms} ms", "dim"))


def _holdable(target: str) -> procvm.Tracee | procvm.Snapshot:
    opened = open_target(target)
    if isinstance(opened, procvm.Snapshot):
        return opened
    with opened:
        return procvm.attach(pid_of(target))


def _frame(frame: Frame, *, show_locals: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "address": hex(frame.address),
        "function": None if frame.function is None else printable(frame.function),
        "module": None if frame.module is None else printable(frame.module),
        "file": None if frame.file is None else printable(frame.file),
        "line": frame.line,
        "inline": frame.is_inline,
    }
    if show_locals:
        values = frame.locals()
        found["locals"] = {printable(name): _plain(one) for name, one in values.items()}
    return found


def _lines(frames: list[Frame], process: Mapped, *, show_locals: bool) -> Iterator[str]:
    for number, frame in enumerate(frames):
        yield f"  #{number:<2} {frame}"
        if show_locals:
            for name, value in frame.locals().items():
                shown = "not available" if value is None else _text(value, process, "        ")
                yield f"        {printable(name)} = {shown}"
