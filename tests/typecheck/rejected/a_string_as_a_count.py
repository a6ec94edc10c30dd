# mypy: ignore-errors
"""A count is an int."""

from procvm import Infallible, VmReader


def misuse(reader: VmReader[Infallible]) -> None:
    reader.skip("3")  # rejected
