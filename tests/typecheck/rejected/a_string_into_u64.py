# mypy: ignore-errors
"""A u64 is written from an int."""

from procvm import Fallible, VmWriter, u64


def misuse(writer: VmWriter[Fallible]) -> None:
    writer.write_val(u64, "8")  # rejected
