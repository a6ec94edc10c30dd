"""``scan``: the addresses that may hold a value, fewer with each scan."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import click

import procvm
from procvm._base.text import shown
from procvm._space.scan import Scan
from procvm._terminal.conditions import condition_of
from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Number
from procvm.cli.declare import (
    SIZE_ABOVE_0,
    command,
    pid_argument,
    range_options,
)
from procvm.cli.exits import BAD_USE, DONE, NOTHING
from procvm.cli.kind_param import kind_option
from procvm.cli.meter import metered
from procvm.cli.output import Output, message_of, tell
from procvm.cli.ranges import Where, ranges_in
from procvm.cli.target import name_of, open_process
from procvm.errors import PageFaultError

__all__ = ["scan"]

_UNDO_DEPTH = 4
"""Scans that can be undone; each keeps its own list of addresses."""

_LISTED = 20

_HELP = """\
5, = 5, != 5, > 5, < 5, >= 5, <= 5, 5..9    keep the addresses with such a value
+, -, changed, unchanged    keep those whose value rose, fell, changed or did not
                  The first scan reads all memory; each later one narrows the list.
any               Start with every address, if the value is not known.
list [N]          Show the first N addresses and their values.
set K VALUE       Write VALUE to address K of the list; set all VALUE writes to all.
undo              Undo the last scan.
reset             Start again.
quit              Leave.
"""


@command(
    "procvm scan 1234 -t i32",
    "procvm scan game -t f32 --perms rw",
    "printf '%s\\n' 100 'set 0 999' | procvm scan 1234",
)
@pid_argument
@kind_option("i32")
@range_options("rw")
@click.option(
    "--align",
    type=SIZE_ABOVE_0,
    metavar="BYTES",
    help="Only addresses that are multiples of this; by default the size of TYPE.",
)
def scan(out: Output, target: str, kind: Kind, where: Where, align: int | None) -> int:
    """Narrow down the address of a value that changes, as scanmem does.

    Type the value that you see; make it change; type the new one, or + or - or changed; and so
    on until few addresses are left. Then list shows them, and set writes to them. The lines may
    come from a pipe. The exit code is 0 if addresses are left at the end.
    """
    if not isinstance(kind, Number):
        raise click.UsageError(f"a scan is for numbers, and {kind.name} is not a number")
    with open_process(target) as process:
        session = _Session(out, process, kind.of_target(process.address_size), where, align)
        is_person = sys.stdin.isatty() and out.is_terminal
        if is_person:
            out.line(f"process {process.pid}, {kind.name}. Type the present value, or help.")
        was_wrong = False
        for line in _asked(session) if is_person else _piped():
            try:
                if not session.obey(line):
                    break
            except _WrongLineError as error:
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


def _asked(session: _Session) -> Iterator[str]:
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


class _WrongLineError(Exception):
    """A line is wrong; the message says why."""


class _Session:
    """The addresses of the last scan and of those before it."""

    def __init__(
        self,
        out: Output,
        process: procvm.Process,
        kind: Number,
        where: Where,
        align: int | None,
    ) -> None:
        self.out = out
        self._process = process
        self._kind = kind
        self._where = where
        self._align = align
        self._scan: Scan | None = None
        self._older: deque[Scan | None] = deque(maxlen=_UNDO_DEPTH)
        # Checked here: a wrong option must fail before the user types a line.
        ranges_in(process, where)

    @property
    def is_begun(self) -> bool:
        """Whether the first scan was done."""
        return self._scan is not None

    @property
    def nr(self) -> int:
        """How many addresses are left."""
        return 0 if self._scan is None else len(self._scan)

    def obey(self, line: str) -> bool:
        """Executes a line; returns False after the last one.

        Raises:
            _WrongLineError: The line is wrong.
        """
        words = line.split()
        if not words or words[0].startswith("#"):
            return True
        word = words[0].lower()
        if word in ("quit", "q", "exit"):
            return False
        act: Callable[[list[str]], None] | None = {
            "any": self._any,
            "snapshot": self._any,
            "list": self._list,
            "set": self._set,
            "undo": self._undo,
            "reset": self._reset,
            "help": self._help,
            "?": self._help,
        }.get(word)
        if act is not None:
            act(words[1:])
        else:
            self._look(line.strip())
        return True

    def _look(self, line: str) -> None:
        try:
            condition = condition_of(line, self._kind)
        except OverflowError as error:
            raise _WrongLineError(str(error)) from None
        except ValueError:
            raise _WrongLineError(f"{line!r} is neither a value nor a command; try help") from None
        if self._scan is None:
            if condition.change is not None:
                raise _WrongLineError("no scan was done yet; give a value, or any")
            self._first(value=condition.value)
            return
        with metered(self.out, "scan", unit="addresses") as meter:
            if condition.change is not None:
                narrowed = self._scan.refine(condition.change, progress=meter)
            else:
                narrowed = self._scan.refine(value=condition.value, progress=meter)
        self._became(narrowed)

    def _any(self, _words: list[str]) -> None:
        if self._scan is not None:
            raise _WrongLineError("the first scan is done already; reset starts again")
        self._first()

    def _first(self, **asked: Any) -> None:
        ranges = ranges_in(self._process, self._where)
        with metered(self.out, "scan") as meter:
            found = self._process.vm.scan(
                self._kind.pod, **asked, ranges=ranges, align=self._align, progress=meter
            )
        self._became(found)

    def _became(self, found: Scan | None) -> None:
        self._older.append(self._scan)
        self._scan = found
        self._count()

    def _count(self) -> None:
        if self.out.json:
            self.out.record({"places": self.nr})
        else:
            self.out.line(f"{self.nr} address{'es' * (self.nr != 1)}", flush=True)
        if self.out.is_terminal and 0 < self.nr <= 5:
            self._list([])

    def _undo(self, _words: list[str]) -> None:
        if not self._older:
            raise _WrongLineError("there is nothing to undo")
        self._scan = self._older.pop()
        self._count()

    def _reset(self, _words: list[str]) -> None:
        self._became(None)

    def _help(self, _words: list[str]) -> None:
        if self.out.json:
            self.out.record({"help": _HELP})
        else:
            self.out.line(_HELP.rstrip(), flush=True)

    def _list(self, words: list[str]) -> None:
        most = self._number(words[0], "list N") if words else _LISTED
        places = [] if self._scan is None else list(itertools.islice(self._scan, most))
        for k, at in enumerate(places):
            value = self._value(at)
            if self.out.json:
                where = self._process.describe(at)
                json = None if value is None else self._kind.as_json(value)
                self.out.record({"index": k, "address": hex(at), "where": where, "value": json})
                continue
            text = "??" if value is None else self._kind.text(value)
            name = name_of(self._process, at)
            if self.out.is_terminal:
                self.out.line(
                    f"{k:>4}  {self.out.style(hex(at), 'address')}  "
                    f"{self.out.style(text, 'new')}  {self.out.style(name, 'name')}".rstrip()
                )
            else:
                self.out.line(f"{k}\t{at:#x}\t{text}\t{name}", flush=True)
        if self.nr > len(places) and self.out.is_terminal:
            more = f"{self.out.ellipsis} {self.nr - len(places)} more; list N shows N"
            self.out.line(f"      {self.out.style(more, 'dim')}")

    def _value(self, at: int) -> Any:
        try:
            return self._process.vm.read_val(at, self._kind.pod)
        except PageFaultError:
            return None

    def _set(self, words: list[str]) -> None:
        if len(words) != 2:
            raise _WrongLineError("set takes two words: set 0 999, or set all 999")
        if self._scan is None:
            raise _WrongLineError("no scan was done yet; give a value, or any")
        try:
            value = self._kind.number(words[1])
            self._kind.pod.to_bytes(value)
        except (ValueError, OverflowError) as error:
            raise _WrongLineError(str(error)) from None
        if words[0] == "all":
            places = list(self._scan)
        else:
            k = self._number(words[0], "set K VALUE")
            places = list(itertools.islice(self._scan, k, k + 1))
            if not places:
                raise _WrongLineError(f"there is no address {k}: the list has {self.nr}")
        written = 0
        for at in places:
            try:
                self._process.vm.write_val(at, self._kind.pod, value)
            except PageFaultError as error:
                tell(message_of(error))
            else:
                written += 1
        if self.out.json:
            self.out.record({"written": written})
        else:
            self.out.line(f"{written} written", flush=True)

    @staticmethod
    def _number(text: str, usage: str) -> int:
        if not text.isascii() or not text.isdecimal():
            raise _WrongLineError(f"{shown(text)!r} is not a number; write {usage}")
        return min(int(text), sys.maxsize - 1)  # islice takes no larger number
