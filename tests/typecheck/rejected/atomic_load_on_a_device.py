# mypy: ignore-errors
"""A device has no atomics."""

from procvm import Io, VmReader, u32


def misuse(reader: VmReader[Io]) -> None:
    reader.atomic_load(u32)  # rejected
