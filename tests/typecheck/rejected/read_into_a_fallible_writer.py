# mypy: ignore-errors
"""`read` takes no fallible writer."""

from procvm import Fallible, Infallible, VmReader, VmWriter


def misuse(reader: VmReader[Infallible], writer: VmWriter[Fallible]) -> None:
    reader.read(writer)  # rejected
