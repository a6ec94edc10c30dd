# mypy: ignore-errors
"""A space gives fallible readers."""

from procvm import Infallible, VmReader, VmSpace


def misuse(space: VmSpace) -> None:
    reader: VmReader[Infallible] = space.reader(0x1000, 8)  # rejected
    reader.clone()
