# mypy: ignore-errors
"""Infallible is not Fallible: the markers are unrelated."""

from procvm import Fallible, Infallible, VmReader


def wants(reader: VmReader[Fallible]) -> None: ...


def misuse(reader: VmReader[Infallible]) -> None:
    wants(reader)  # rejected
