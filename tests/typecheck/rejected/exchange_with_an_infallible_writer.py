# mypy: ignore-errors
"""`atomic_compare_exchange` takes no infallible writer."""

from procvm import Fallible, Infallible, VmReader, VmWriter, u32


def misuse(reader: VmReader[Fallible], writer: VmWriter[Infallible]) -> None:
    writer.atomic_compare_exchange(reader, u32, 0, 1)  # rejected
