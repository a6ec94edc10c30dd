"""How a command is declared: its examples, and the options that commands share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import click

from procvm.cli.output import InterruptedByUserError, Output, OutputError
from procvm.cli.param import Param
from procvm.cli.ranges import Where
from procvm.cli.target import TargetParam
from procvm.errors import UnsupportedError

__all__ = [
    "SECONDS",
    "SIZE",
    "SIZE_ABOVE_0",
    "address_argument",
    "command",
    "force_option",
    "missing",
    "pid_argument",
    "range_options",
]

Function = Callable[..., Any]


def command(*examples: str, no_json: str = "", **settings: Any) -> Callable[..., click.Command]:
    """Returns a decorator that makes a command of a function.

    The function takes an `Output` first, and may return an exit code.

    Args:
        examples: Command lines that the help shows.
        no_json: Why the command takes neither ``--json`` nor ``--color``; empty if it does.
        settings: Settings of click's context.
    """
    epilog = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)

    def declare(function: Function) -> click.Command:
        @functools.wraps(function)
        def run(*, color: Any = "auto", as_json: bool = False, **arguments: Any) -> Any:
            try:
                return function(Output(as_json=as_json, color=color), **arguments)
            except KeyboardInterrupt:
                # click would write an empty line for it.
                raise InterruptedByUserError from None
            except BrokenPipeError as error:
                raise OutputError(error) from None

        wrapped: Function = run
        if no_json:
            wrapped = _refused_json(no_json)(run)
        else:
            wrapped = click.option(
                "--color",
                type=click.Choice(["auto", "always", "never"]),
                default="auto",
                help="Use colours. auto: on a terminal; NO_COLOR and FORCE_COLOR override that.",
            )(run)
            wrapped = click.option(
                "--json", "as_json", is_flag=True, help="Write JSON; procvm help json describes it."
            )(wrapped)
        made = click.command(
            function.__name__.rstrip("_"),
            epilog=epilog,
            context_settings={
                "help_option_names": ["-h", "--help"],
                "max_content_width": 90,
                **settings,
            },
        )
        declared = made(wrapped)
        # The options of every command come last in its help.
        declared.params.sort(key=lambda one: one.name in ("as_json", "color"))
        return declared

    return declare


def _refused_json(why: str) -> Callable[[Function], Function]:
    def refuse(_ctx: click.Context, _param: click.Parameter, given: Any) -> None:
        if given:
            raise click.UsageError(f"--json is not possible here: {why}")

    return click.option(
        "--json",
        "no_json",
        is_flag=True,
        hidden=True,
        expose_value=False,
        callback=refuse,
        help="Say why this command writes no JSON.",
    )


def pid_argument(function: Function) -> Function:
    """Adds the argument PID."""
    return click.argument("target", metavar="PID", type=TargetParam())(function)


def address_argument(function: Function) -> Function:
    """Adds the argument ADDRESS."""
    return click.argument("address", metavar="ADDRESS")(function)


def force_option(function: Function) -> Function:
    """Adds the option --force."""
    return click.option(
        "--force", is_flag=True, help="Ignore page protections, as a debugger does."
    )(function)


def range_options(perms: str) -> Callable[[Function], Function]:
    """Returns a decorator that adds the options which say where to look.

    The function gets them as one argument, ``where``, a `Where`.

    Args:
        perms: The default of ``--perms``.
    """

    def add(function: Function) -> Function:
        @functools.wraps(function)
        def run(*args: Any, perms: str, **arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in ("within", "span", "near")}
            return function(*args, where=Where(perms, **given), **arguments)

        options = (
            click.option(
                "--in",
                "within",
                metavar="NAME",
                help="Only mappings of this name, such as [heap] or libc.so.6.",
            ),
            click.option(
                "--range",
                "span",
                nargs=2,
                metavar="START END",
                help="Only from the address START up to END, which is not included.",
            ),
            click.option(
                "--near",
                type=(str, SIZE),
                metavar="ADDRESS N",
                help="Only N bytes before ADDRESS and N bytes from it on, such as g_list 4K.",
            ),
            click.option(
                "--perms",
                default=perms,
                show_default=True,
                metavar="LETTERS",
                help="Only mappings with these permissions, of r, w, x, s (shared), p (private).",
            ),
        )
        wrapped: Function = run
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return add


def missing(error: ModuleNotFoundError, what: str, extra: str) -> Exception:
    """Returns the error to raise where a package of an extra is not installed."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "procvm"):
        return error  # a defect of procvm
    return UnsupportedError(f"{what} needs {name}: pip install 'procvm[{extra}]'")


class _Size(Param):
    name = "bytes"

    def __init__(self, least: int = 0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the number of bytes of 256, 0x100, 64K, 4M or 2G."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(0x[0-9a-f]+|\d+)([KMG]?)", str(value), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r} is not a size such as 256, 0x100, 64K, 4M or 2G", param, ctx)
        digits, unit = found.groups()
        number = int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
        size: int = number << {"": 0, "K": 10, "M": 20, "G": 30}[unit.upper()]
        if size < self._least:
            self.fail(f"{value!r} is less than {self._least}", param, ctx)
        return size


class _Seconds(Param):
    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the seconds of a number such as 0.5, above 0 and below a year."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < 3e7:
            self.fail(f"{value!r} is not a number of seconds above 0, such as 0.5", param, ctx)
        return seconds


SIZE = _Size()
SIZE_ABOVE_0 = _Size(1)
SECONDS = _Seconds()
