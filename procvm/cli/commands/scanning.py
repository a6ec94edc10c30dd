"""``scan``: the addresses that may hold a value, fewer with each scan."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from procvm._terminal.kind import Kind
from procvm._terminal.scalars import AnyNumber, Number
from procvm.cli.declare import (
    SIZE_ABOVE_0,
    command,
    pid_argument,
    range_options,
)
from procvm.cli.exits import BAD_USE, DONE, NOTHING
from procvm.cli.kind_param import KindParam
from procvm.cli.output import Output, tell
from procvm.cli.ranges import Where
from procvm.cli.scan_session import ScanSession, WrongLineError
from procvm.cli.scanned import Numbers, Scanned, Texts
from procvm.cli.target import open_process

__all__ = ["scan"]

_NUMBER, _TEXT = "number", "text"
_ENCODINGS = ("utf-8", "utf-16-le")


class _ScanKindParam(KindParam):
    """The name of a type of numbers, ``number`` for all of them, or ``text``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the value type of a name; the name itself for texts."""
        if value == _NUMBER:
            return AnyNumber()
        return value if value == _TEXT else super().convert(value, param, ctx)


@command(
    "procvm scan 1234 -t i32",
    "procvm scan game -t number --in '[heap]'",
    "procvm scan game -t text",
    "printf '%s\\n' 100 'set 0 999' | procvm scan 1234",
)
@pid_argument
@click.option(
    "-t",
    "--type",
    "kind",
    type=_ScanKindParam(),
    default="i32",
    show_default=True,
    help="A type of numbers, u8 to f64; number for all of them at once; text for texts.",
)
@click.option(
    "--encoding",
    metavar="NAME",
    help="The encoding of texts; by default utf-8 and utf-16-le.",
)
@range_options("rw")
@click.option(
    "--align",
    type=SIZE_ABOVE_0,
    metavar="BYTES",
    help="Only addresses that are multiples of this; by default the size of TYPE.",
)
def scan(
    out: Output,
    target: str,
    kind: Kind | str,
    encoding: str | None,
    where: Where,
    align: int | None,
) -> int:
    """Narrow down the address of a value that changes, as scanmem does.

    Type the value that you see; make it change; type the new one, or + or - or changed; and so
    on until few addresses are left. Then list shows them, set writes to them, and freeze keeps a
    value there. A float is found by the digits that the program shows: 3.14 finds 3.1419. The
    line help shows everything. The lines may come from a pipe. The exit code is 0 if addresses
    are left at the end.
    """
    with open_process(target) as process:
        scanned = _scanned(kind, encoding, align, process.address_size)
        with ScanSession(out, process, scanned, where) as session:
            return _obey(out, session)


def _scanned(kind: Kind | str, encoding: str | None, align: int | None, size: int) -> Scanned:
    if isinstance(kind, str):
        if align is not None:
            raise click.UsageError("--align is for numbers")
        return Texts(_ENCODINGS if encoding is None else (encoding,))
    if encoding is not None:
        raise click.UsageError("--encoding is for -t text")
    if not isinstance(kind, Number):
        raise click.UsageError(f"a scan is for numbers and text, and {kind.name} is neither")
    return Numbers(kind.of_target(size), align)


def _obey(out: Output, session: ScanSession) -> int:
    is_person = sys.stdin.isatty() and out.is_terminal
    if is_person:
        out.line(f"{session}. Type the present value, or help.")
    was_wrong = False
    for line in _asked(session) if is_person else _piped():
        try:
            if not session.obey(line):
                break
        except WrongLineError as error:
            was_wrong = True
            tell(f"scan: {error}")
        except KeyboardInterrupt:
            if not is_person:
                raise
            tell("interrupted; the list is unchanged")
    if was_wrong and not is_person:
        return BAD_USE
    return DONE if session.nr else NOTHING


def _piped() -> Iterator[str]:
    yield from sys.stdin


def _asked(session: ScanSession) -> Iterator[str]:
    importlib.import_module("readline")  # gives input() line editing

    while True:
        try:
            yield input(f"{session.nr if session.is_begun else ''}> ")
        except EOFError:
            session.out.line()
            return
        except KeyboardInterrupt:
            session.out.line()
            tell("the list is unchanged; quit or Ctrl-D leaves")
