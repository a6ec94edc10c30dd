# mypy: ignore-errors
"""A u64 is not written from a float."""

from procvm import Fallible, VmWriter, u64


def misuse(writer: VmWriter[Fallible]) -> None:
    writer.write_val(u64, 1.5)  # rejected
