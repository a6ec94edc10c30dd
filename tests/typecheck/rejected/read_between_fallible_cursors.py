# mypy: ignore-errors
"""`read` takes no two fallible sides."""

from procvm import Fallible, VmReader, VmWriter


def misuse(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    reader.read(writer)  # rejected
