# mypy: ignore-errors
"""`read_fallible` needs one fallible side."""

from procvm import Infallible, VmReader, VmWriter


def misuse(reader: VmReader[Infallible], writer: VmWriter[Infallible]) -> None:
    reader.read_fallible(writer)  # rejected
