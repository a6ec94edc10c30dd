"""`DEFAULT`: stands for an argument that was not given, where None means "no limit"."""

from __future__ import annotations

from enum import Enum

from procvm._base.address import as_timeout

__all__ = ["DEFAULT", "Default", "seconds_or"]


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "DEFAULT"

    def __repr__(self) -> str:
        return self.value


DEFAULT = Default.DEFAULT
"""Stands for an argument that was not given."""


def seconds_or(value: object, default: float | None, what: str = "timeout") -> float | None:
    """Returns `value` as seconds, None for no limit; `DEFAULT` stands for `default`.

    Raises:
        TypeError: The value is not a number.
        ValueError: The number is negative or not finite.
    """
    return as_timeout(default if value is DEFAULT else value, what)
