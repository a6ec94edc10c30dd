# mypy: ignore-errors
"""`read_fallible` needs one fallible side, and a device is none."""

from procvm import Infallible, Io, VmReader, VmWriter


def misuse(reader: VmReader[Io], writer: VmWriter[Infallible]) -> None:
    reader.read_fallible(writer)  # rejected
