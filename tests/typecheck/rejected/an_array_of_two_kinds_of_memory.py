# mypy: ignore-errors
"""An array stands in one kind of memory."""

from procvm import Fallible, Infallible, VmReader, VmReaderArray


def misuse(own: VmReader[Infallible], target: VmReader[Fallible]) -> None:
    VmReaderArray([own, target])  # rejected
