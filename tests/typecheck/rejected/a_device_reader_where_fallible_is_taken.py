# mypy: ignore-errors
"""Io is not Fallible: the markers are unrelated."""

from procvm import Fallible, Io, VmReader


def wants(reader: VmReader[Fallible]) -> None: ...


def misuse(reader: VmReader[Io]) -> None:
    wants(reader)  # rejected
