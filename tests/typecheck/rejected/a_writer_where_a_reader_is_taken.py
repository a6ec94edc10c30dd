# mypy: ignore-errors
"""A writer is no source."""

from procvm import Fallible, VmReader, VmWriter


def misuse(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    writer.write_fallible(writer)  # rejected
