# mypy: ignore-errors
"""`write_fallible` needs one fallible side."""

from procvm import Infallible, VmReader, VmWriter


def misuse(reader: VmReader[Infallible], writer: VmWriter[Infallible]) -> None:
    writer.write_fallible(reader)  # rejected
