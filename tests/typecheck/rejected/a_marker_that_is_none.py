# mypy: ignore-errors
"""A cursor is Fallible, Infallible or Io, and nothing else."""

from procvm import VmReader


def misuse(reader: VmReader[int]) -> None: ...  # rejected
