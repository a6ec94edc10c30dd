# mypy: ignore-errors
"""f32 has no atomics."""

from procvm import Fallible, VmReader, f32


def misuse(reader: VmReader[Fallible]) -> None:
    reader.atomic_load(f32)  # rejected
