# mypy: ignore-errors
"""An exchange takes values of its pod."""

from procvm import Fallible, VmReader, VmWriter, u32


def misuse(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    writer.atomic_compare_exchange(reader, u32, "0", "1")  # rejected
