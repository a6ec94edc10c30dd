# mypy: ignore-errors
"""Io is not Infallible: the markers are unrelated."""

from procvm import Infallible, Io, VmReader


def wants(reader: VmReader[Infallible]) -> None: ...


def misuse(reader: VmReader[Io]) -> None:
    wants(reader)  # rejected
