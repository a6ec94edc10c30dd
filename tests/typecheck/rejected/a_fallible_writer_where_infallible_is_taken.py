# mypy: ignore-errors
"""Fallible is not Infallible: the markers are unrelated."""

from procvm import Fallible, Infallible, VmWriter


def wants(writer: VmWriter[Infallible]) -> None: ...


def misuse(writer: VmWriter[Fallible]) -> None:
    wants(writer)  # rejected
