# mypy: ignore-errors
"""u8 has no atomics."""

from procvm import Fallible, VmReader, u8


def misuse(reader: VmReader[Fallible]) -> None:
    reader.atomic_load(u8)  # rejected
