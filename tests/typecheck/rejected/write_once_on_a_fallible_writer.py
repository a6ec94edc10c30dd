# mypy: ignore-errors
"""A target's memory has no single stores of ours."""

from procvm import Fallible, VmWriter, u32


def misuse(writer: VmWriter[Fallible]) -> None:
    writer.write_once(u32, 1)  # rejected
