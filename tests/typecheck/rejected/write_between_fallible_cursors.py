# mypy: ignore-errors
"""`write` takes no two fallible sides."""

from procvm import Fallible, VmReader, VmWriter


def misuse(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    writer.write(reader)  # rejected
