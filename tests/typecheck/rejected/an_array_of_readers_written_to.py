# mypy: ignore-errors
"""An array of readers has no `write`."""

from procvm import Fallible, VmReader, VmReaderArray


def misuse(source: VmReader[Fallible], readers: VmReaderArray[Fallible]) -> None:
    readers.write(source)  # rejected
