# mypy: ignore-errors
"""A u32 is stored from an int."""

from procvm import Infallible, VmWriter, u32


def misuse(writer: VmWriter[Infallible]) -> None:
    writer.write_once(u32, "1")  # rejected
