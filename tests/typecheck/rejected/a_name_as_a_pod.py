# mypy: ignore-errors
"""The name of a pod is none."""

from procvm import Fallible, VmReader


def misuse(reader: VmReader[Fallible]) -> None:
    reader.read_val("u64")  # rejected
