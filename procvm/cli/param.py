"""The base class of click parameter types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

__all__ = ["Param"]

if TYPE_CHECKING:
    Param = click.ParamType[Any]
else:
    # click 8.4 made it generic for type checkers; at run time older ones are not.
    Param = click.ParamType
