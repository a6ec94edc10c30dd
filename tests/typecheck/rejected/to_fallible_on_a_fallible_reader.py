# mypy: ignore-errors
"""A fallible reader is fallible already."""

from procvm import Fallible, VmReader


def misuse(reader: VmReader[Fallible]) -> None:
    reader.to_fallible()  # rejected
