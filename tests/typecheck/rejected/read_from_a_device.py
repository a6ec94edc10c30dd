# mypy: ignore-errors
"""`read` takes no device: its accesses have a width."""

from procvm import Infallible, Io, VmReader, VmWriter


def misuse(reader: VmReader[Io], writer: VmWriter[Infallible]) -> None:
    reader.read(writer)  # rejected
