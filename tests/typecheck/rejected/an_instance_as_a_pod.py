# mypy: ignore-errors
"""A value is no type."""

from procvm import Fallible, VmReader


def misuse(reader: VmReader[Fallible]) -> None:
    reader.read_val(5)  # rejected
