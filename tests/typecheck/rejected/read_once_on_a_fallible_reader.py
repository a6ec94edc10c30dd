# mypy: ignore-errors
"""A target's memory has no single loads of ours."""

from procvm import Fallible, VmReader, u32


def misuse(reader: VmReader[Fallible]) -> None:
    reader.read_once(u32)  # rejected
