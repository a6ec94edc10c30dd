"""The option ``-t TYPE``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from procvm._terminal.kind import Kind
from procvm._terminal.kinds import KIND_NAMES, kind_of
from procvm.cli.param import Param

__all__ = ["KindParam", "kind_option"]

Function = Callable[..., Any]


class KindParam(Param):
    """The name of a value type, which the shell completes."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Kind:
        """Returns the value type of a name."""
        if isinstance(value, Kind):
            return value
        try:
            return kind_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Returns the type names that begin with `incomplete`."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 (only completion needs it)

        return [CompletionItem(name) for name in KIND_NAMES if name.startswith(incomplete)]


def kind_option(default: str | None, *, required: bool = False) -> Callable[[Function], Function]:
    """Returns a decorator that adds the option -t TYPE."""
    # click would take a default of None for a value that the user gave.
    settings: dict[str, Any] = {} if default is None else {"default": default}
    return click.option(
        "-t",
        "--type",
        "kind",
        type=KindParam(),
        required=required,
        show_default=default is not None,
        **settings,
        help=f"{', '.join(KIND_NAMES[:-1])}, struct:x=u32,y=f64,name=char[8], or struct:<IHd, "
        "a format of Python's struct module.",
    )
