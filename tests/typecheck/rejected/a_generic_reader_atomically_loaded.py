# mypy: ignore-errors
"""What may be any memory is not known to be fallible."""

from typing import TypeVar

from procvm import Fallible, Infallible, VmReader, u32

F = TypeVar("F", Fallible, Infallible)


def misuse(reader: VmReader[F]) -> int:
    return reader.atomic_load(u32)  # rejected
