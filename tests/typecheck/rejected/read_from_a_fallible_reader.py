# mypy: ignore-errors
"""`read` takes no fallible reader."""

from procvm import Fallible, Infallible, VmReader, VmWriter


def misuse(reader: VmReader[Fallible], writer: VmWriter[Infallible]) -> None:
    reader.read(writer)  # rejected
