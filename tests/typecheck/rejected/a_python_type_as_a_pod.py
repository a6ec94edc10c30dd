# mypy: ignore-errors
"""`int` is no plain-old-data type."""

from procvm import Fallible, VmReader


def misuse(reader: VmReader[Fallible]) -> None:
    reader.read_val(int)  # rejected
