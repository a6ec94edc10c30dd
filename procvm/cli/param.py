"""The base of the types of arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

__all__ = ["Param"]

if TYPE_CHECKING:
    Param = click.ParamType[Any]
else:
    # Newer ones of click are generic, and that for a type checker only.
    Param = click.ParamType
