# mypy: ignore-errors
"""f32 is no PodOnce."""

from procvm import Infallible, VmReader, f32


def misuse(reader: VmReader[Infallible]) -> None:
    reader.read_once(f32)  # rejected
