# mypy: ignore-errors
"""Own memory needs `to_fallible` first."""

from procvm import Infallible, VmReader, u32


def misuse(reader: VmReader[Infallible]) -> None:
    reader.atomic_load(u32)  # rejected
