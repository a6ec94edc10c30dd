# mypy: ignore-errors
"""A slice takes values of its pod."""

from procvm import Fallible, VmWriter, u16


def misuse(writer: VmWriter[Fallible]) -> None:
    writer.write_slice(u16, ["1", "2"])  # rejected
