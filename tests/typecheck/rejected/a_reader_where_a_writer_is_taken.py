# mypy: ignore-errors
"""A reader is no destination."""

from procvm import Infallible, VmReader, VmWriter


def misuse(reader: VmReader[Infallible], writer: VmWriter[Infallible]) -> None:
    reader.read(reader)  # rejected
