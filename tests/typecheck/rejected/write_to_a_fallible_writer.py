# mypy: ignore-errors
"""`write` takes no fallible writer."""

from procvm import Fallible, Infallible, VmReader, VmWriter


def misuse(reader: VmReader[Infallible], writer: VmWriter[Fallible]) -> None:
    writer.write(reader)  # rejected
