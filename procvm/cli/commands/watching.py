"""``watch`` and ``freeze``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Self

import click

import procvm
from procvm._terminal.conditions import Condition, condition_of
from procvm._terminal.freezer import Freezer
from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Number
from procvm.cli.declare import (
    SECONDS,
    address_argument,
    command,
    force_option,
    pid_argument,
)
from procvm.cli.exits import DONE, NOTHING
from procvm.cli.kind_param import kind_option
from procvm.cli.output import Output, OutputError, tell
from procvm.cli.sparkline import Sparkline
from procvm.cli.target import address_in, open_process, said_of

__all__ = ["freeze", "watch"]


@command(
    "procvm watch 1234 g_counter -t u32",
    "procvm watch 1234 g_state -t u8 --until '== 3'",
    "procvm watch 1234 g_name -t cstr --interval 1 --count 10",
)
@pid_argument
@address_argument
@kind_option("u64")
@click.option(
    "-i",
    "--interval",
    type=SECONDS,
    default=0.1,
    show_default=True,
    help="Seconds between two reads.",
)
@click.option(
    "--until",
    metavar="COND",
    help="Stop when this is true: 5, '> 5', '!= 0', 5..9, +, -, changed.",
)
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Stop after N reads.")
@click.option("-x", "--hex", "as_hex", is_flag=True, help="Show whole numbers in hexadecimal.")
@force_option
def watch(
    out: Output,
    target: str,
    address: str,
    kind: Kind,
    interval: float,
    until: str | None,
    count: int | None,
    as_hex: bool,
    force: bool,
) -> int:
    """Show the value at ADDRESS, and show it again whenever it has changed.

    The process runs meanwhile: a change that is undone between two reads is not seen. With
    --until the exit code is 0 if the condition came true, and 1 after N reads without it.
    """
    condition = _until(until, kind)
    with open_process(target) as process:
        kind = kind.of_target(process.address_size)
        at = address_in(process, address)
        reads = _reads(process.vm.forced() if force else process.vm, at, kind, interval, count)
        show: _Lines = _Live(out, kind, as_hex) if out.is_terminal else _Lines(out, kind, as_hex)
        show.title = process.describe(at)
        with show:
            old: Any = None
            for seconds, value in reads:
                show.look(seconds, at, value, old)
                if condition is not None and condition.holds(value, old):
                    return DONE
                old = value
    return DONE if condition is None else NOTHING


def _until(text: str | None, kind: Kind) -> Condition | None:
    if text is None:
        return None
    if isinstance(kind, Number):
        return said_of("--until", lambda: condition_of(text, kind))
    if text in ("changed", "!="):
        return Condition("changed", None)
    raise click.UsageError(f"{kind.name} is not a number: --until takes only changed")


def _reads(
    vm: procvm.VmSpace, at: int, kind: Kind, interval: float, count: int | None
) -> Iterator[tuple[float, Any]]:
    """Yields (seconds since the first read, value) at multiples of the interval."""
    ((_, value),) = kind.read(vm, at, 1)
    begin = now = time.monotonic()
    nr = 0
    while True:
        yield now - begin, value
        nr += 1
        if nr == count:
            return
        beats = int((now - begin) / interval) + 1
        time.sleep(max(begin + beats * interval - time.monotonic(), 0))
        ((_, value),) = kind.read(vm, at, 1)
        now = time.monotonic()


class _Lines:
    """Writes a line for the first value and for each change."""

    def __init__(self, out: Output, kind: Kind, as_hex: bool) -> None:
        self.title = ""
        self._out = out
        self._kind = kind
        self._as_hex = as_hex

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the output."""

    def text(self, value: Any) -> str:
        """Returns a value as shown."""
        return self._kind.text(value, as_hex=self._as_hex)

    def look(self, seconds: float, at: int, value: Any, old: Any) -> None:
        """Writes a line if the value changed."""
        if value == old:
            return
        if self._out.json:
            self._out.record(
                {
                    "seconds": round(seconds, 6),
                    "address": hex(at),
                    "value": self._kind.as_json(value),
                    "previous": None if old is None else self._kind.as_json(old),
                }
            )
        else:
            self._out.line(f"{seconds:.3f}\t{self.text(value)}", flush=True)


_END = "; Ctrl-C ends"


class _Live(_Lines):
    """Writes a line for each change, and a last line that shows how long the value is there."""

    def __init__(self, out: Output, kind: Kind, as_hex: bool) -> None:
        super().__init__(out, kind, as_hex)
        from rich.console import Console  # noqa: PLC0415 (slow to import)
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        self._text = Text
        self._console = Console(
            file=out.stream, no_color=not out.color, highlight=False, markup=False, emoji=False
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._nr = 0
        self._line = Sparkline(out) if isinstance(kind, Number) else None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def look(self, seconds: float, at: int, value: Any, old: Any) -> None:
        """Writes a line if the value changed, and updates the last line."""
        try:
            self._look(seconds, at, value, old)
        except OSError as error:
            raise OutputError(error) from None

    def _look(self, seconds: float, at: int, value: Any, old: Any) -> None:
        if value != old:
            self._nr += 1
            line = self._text(f"{seconds:10.3f}  ", style="dim")
            line.append(self.text(value), style="bold yellow" if self._nr > 1 else "bold")
            step = _step(value, old)
            if step:
                line.append(f"  {step}", style="green" if step[0] == "+" else "red")
            self._console.print(line)
        text = (
            f"{seconds:10.3f}  {self.title} {self._kind.name}: changed {self._nr - 1} "
            f"time{'s' * (self._nr != 2)}"
        )
        if self._console.width >= len(text) + len(_END):
            text += _END
        if self._line is not None:
            self._line.add(value)
            text += self._line.text(self._console.width - len(text))
        status = self._text(
            text,
            style="dim",
            overflow="ellipsis",
            no_wrap=True,
        )
        self._live.update(status, refresh=True)


def _step(value: Any, old: Any) -> str:
    if isinstance(value, int) and isinstance(old, int):
        return f"{value - old:+d}"
    return ""


@command(
    "procvm freeze 1234 g_lives -t u8 9",
    "procvm freeze 1234 '*g_player+0x10' -t f32 100 --for 30",
    ignore_unknown_options=True,  # -5 is a value
)
@pid_argument
@address_argument
@click.argument("value", metavar="VALUE")
@kind_option(None, required=True)
@click.option(
    "-i",
    "--interval",
    type=SECONDS,
    default=0.01,
    show_default=True,
    help="Seconds between two reads.",
)
@click.option("--for", "duration", type=SECONDS, metavar="SECONDS", help="Stop after this time.")
@force_option
def freeze(
    out: Output,
    target: str,
    address: str,
    value: str,
    kind: Kind,
    interval: float,
    duration: float | None,
    force: bool,
) -> None:
    """Keep VALUE at ADDRESS by writing it again whenever it has changed.

    The process runs meanwhile, and may read its own value between two writes. The command ends
    with Ctrl-C, with the process, or after --for.
    """
    with open_process(target) as process:
        kind = kind.of_target(process.address_size)
        at = address_in(process, address)
        data = said_of("VALUE", lambda: kind.encode(value, process.address))
        vm = process.vm.forced() if force else process.vm
        freezer = Freezer(vm)
        nr_looks = 0
        begin = time.monotonic()
        freezer.keep(at, data)
        if out.is_terminal:
            tell(f"freezing {process.describe(at)} of process {process.pid}; Ctrl-C ends")
        try:
            while duration is None or time.monotonic() - begin < duration:
                time.sleep(interval)
                nr_looks += 1
                freezer.look()
        finally:
            seconds = time.monotonic() - begin
            if out.json:
                out.document(
                    {
                        "pid": process.pid,
                        "address": hex(at),
                        "type": kind.name,
                        "value": kind.as_json(kind.decode_one(data)),
                        "seconds": round(seconds, 6),
                        "looks": nr_looks,
                        "writes": freezer.writes,
                    }
                )
            elif out.is_terminal:
                out.line(f"wrote the value back {freezer.writes} times in {seconds:.1f} s")
