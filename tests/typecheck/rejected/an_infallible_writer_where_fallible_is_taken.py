# mypy: ignore-errors
"""Infallible is not Fallible: the markers are unrelated."""

from procvm import Fallible, Infallible, VmWriter


def wants(writer: VmWriter[Fallible]) -> None: ...


def misuse(writer: VmWriter[Infallible]) -> None:
    wants(writer)  # rejected
