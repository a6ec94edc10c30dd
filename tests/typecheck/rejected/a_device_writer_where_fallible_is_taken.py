# mypy: ignore-errors
"""Io is not Fallible: the markers are unrelated."""

from procvm import Fallible, Io, VmWriter


def wants(writer: VmWriter[Fallible]) -> None: ...


def misuse(writer: VmWriter[Io]) -> None:
    wants(writer)  # rejected
