# mypy: ignore-errors
"""Io is not Infallible: the markers are unrelated."""

from procvm import Infallible, Io, VmWriter


def wants(writer: VmWriter[Infallible]) -> None: ...


def misuse(writer: VmWriter[Io]) -> None:
    wants(writer)  # rejected
