# mypy: ignore-errors
"""i16 has no atomics."""

from procvm import Fallible, VmReader, i16


def misuse(reader: VmReader[Fallible]) -> None:
    reader.atomic_load(i16)  # rejected
