# mypy: ignore-errors
"""u16 has no atomics."""

from procvm import Fallible, VmReader, VmWriter, u16


def misuse(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    writer.atomic_compare_exchange(reader, u16, 0, 1)  # rejected
