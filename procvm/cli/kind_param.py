"""`KindParam`: the TYPE of an argument or option."""

from __future__ import annotations

from typing import Any

import click

from procvm._terminal.kind import Kind
from procvm._terminal.kinds import KIND_NAMES, kind_of
from procvm.cli.param import Param

__all__ = ["KindParam"]


class KindParam(Param):
    """TYPE, which the shell completes."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Kind:
        """Returns the kind of that name."""
        if isinstance(value, Kind):
            return value
        try:
            return kind_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Returns the names that begin so."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 (for the shell only)

        return [CompletionItem(name) for name in KIND_NAMES if name.startswith(incomplete)]
