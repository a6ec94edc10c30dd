# mypy: ignore-errors
"""A u64 is read as an int."""

from procvm import Fallible, VmReader, u64


def misuse(reader: VmReader[Fallible]) -> str:
    return reader.read_val(u64)  # rejected
