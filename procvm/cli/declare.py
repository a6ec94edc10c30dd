"""How a command is declared: its output options, its examples, the arguments all share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import click

from procvm._terminal.kinds import KIND_NAMES
from procvm.cli.kind_param import KindParam
from procvm.cli.output import InterruptedByUserError, Output, OutputError
from procvm.cli.param import Param
from procvm.cli.target import TargetParam
from procvm.errors import UnsupportedError

__all__ = [
    "SECONDS",
    "SIZE",
    "address_argument",
    "command",
    "force_option",
    "kind_option",
    "missing",
    "pid_argument",
    "range_options",
]

Function = Callable[..., Any]


def command(
    *examples: str, has_output: bool = True, **settings: Any
) -> Callable[..., click.Command]:
    """Makes a command of a function that takes an `Output` first, and may return an exit code.

    Args:
        examples: Command lines that its help shows.
        has_output: Whether it takes ``--json`` and ``--color``; it shows things by
            itself if not.
        settings: Of the context, as click knows them.
    """
    epilog = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)

    def declare(function: Function) -> click.Command:
        @functools.wraps(function)
        def run(*, color: Any = "auto", as_json: bool = False, **arguments: Any) -> Any:
            try:
                return function(Output(as_json=as_json, color=color), **arguments)
            except KeyboardInterrupt:
                # Not left to click, which would begin a line of its own for it.
                raise InterruptedByUserError from None
            except BrokenPipeError as error:
                raise OutputError(error) from None

        wrapped: Function = run
        if has_output:
            wrapped = click.option(
                "--color",
                type=click.Choice(["auto", "always", "never"]),
                default="auto",
                help="Use colours; by default on a terminal. NO_COLOR and FORCE_COLOR count.",
            )(run)
            wrapped = click.option(
                "--json", "as_json", is_flag=True, help="Write JSON, as docs/json.md describes it."
            )(wrapped)
        made = click.command(
            function.__name__,
            epilog=epilog,
            context_settings={
                "help_option_names": ["-h", "--help"],
                "max_content_width": 90,
                **settings,
            },
        )
        declared = made(wrapped)
        # What all commands take comes last in the help.
        declared.params.sort(key=lambda one: one.name in ("as_json", "color"))
        return declared

    return declare


def pid_argument(function: Function) -> Function:
    """Adds PID."""
    return click.argument("target", metavar="PID", type=TargetParam())(function)


def address_argument(function: Function) -> Function:
    """Adds ADDRESS."""
    return click.argument("address", metavar="ADDRESS")(function)


def kind_option(default: str | None, *, required: bool = False) -> Callable[[Function], Function]:
    """Adds -t TYPE."""
    # Without a default there must be none: click takes None for a value.
    settings: dict[str, Any] = {} if default is None else {"default": default}
    return click.option(
        "-t",
        "--type",
        "kind",
        type=KindParam(),
        required=required,
        show_default=default is not None,
        **settings,
        help=f"{', '.join(KIND_NAMES[:-1])}, or struct:x=u32,y=f64,name=char[8], "
        "or struct:<IHd as the struct module writes it.",
    )


def force_option(function: Function) -> Function:
    """Adds --force."""
    return click.option(
        "--force", is_flag=True, help="Ignore page protections, as a debugger does."
    )(function)


def range_options(perms: str) -> Callable[[Function], Function]:
    """Adds what mappings to look at."""

    def add(function: Function) -> Function:
        named = click.option(
            "--in",
            "within",
            metavar="NAME",
            help="Only mappings of this name, such as [heap] or libc.so.6.",
        )(function)
        return click.option(
            "--perms",
            default=perms,
            show_default=True,
            metavar="LETTERS",
            help="Only mappings that allow at least this, of r, w, x, s and p.",
        )(named)

    return add


def missing(error: ModuleNotFoundError, what: str, extra: str) -> Exception:
    """Returns what to raise where a package of an extra is not installed."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "procvm"):
        return error  # no package of others
    return UnsupportedError(f"{what} needs {name}: pip install 'procvm[{extra}]'")


class _Size(Param):
    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Takes 256, 0x100, 64K, 4M, 2G."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(0x[0-9a-f]+|\d+)([KMG]?)", str(value), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r} is no number of bytes such as 256, 0x100, 64K or 4M", param, ctx)
        digits, unit = found.groups()
        number = int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
        return number << {"": 0, "K": 10, "M": 20, "G": 30}[unit.upper()]


class _Seconds(Param):
    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Takes 0.5; more than nothing, and less than a year."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < 3e7:
            self.fail(f"{value!r} is no number of seconds such as 0.5", param, ctx)
        return seconds


SIZE = _Size()
SECONDS = _Seconds()
