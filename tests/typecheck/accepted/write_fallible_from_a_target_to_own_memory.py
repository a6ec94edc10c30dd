# mypy: ignore-errors
"""`write_fallible` takes a Fallible reader and a Infallible writer."""

from typing import assert_type

from procvm import Fallible, Infallible, VmReader, VmWriter


def use(reader: VmReader[Fallible], writer: VmWriter[Infallible]) -> None:
    assert_type(writer.write_fallible(reader), int)
