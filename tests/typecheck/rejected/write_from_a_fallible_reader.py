# mypy: ignore-errors
"""`write` takes no fallible reader."""

from procvm import Fallible, Infallible, VmReader, VmWriter


def misuse(reader: VmReader[Fallible], writer: VmWriter[Infallible]) -> None:
    writer.write(reader)  # rejected
