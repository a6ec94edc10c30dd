# mypy: ignore-errors
"""Fallible is not Infallible: the markers are unrelated."""

from procvm import Fallible, Infallible, VmReader


def wants(reader: VmReader[Infallible]) -> None: ...


def misuse(reader: VmReader[Fallible]) -> None:
    wants(reader)  # rejected
