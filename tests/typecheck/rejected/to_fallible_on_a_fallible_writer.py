# mypy: ignore-errors
"""A fallible writer is fallible already."""

from procvm import Fallible, VmWriter


def misuse(writer: VmWriter[Fallible]) -> None:
    writer.to_fallible()  # rejected
