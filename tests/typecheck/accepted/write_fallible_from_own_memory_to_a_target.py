# mypy: ignore-errors
"""`write_fallible` takes a Infallible reader and a Fallible writer."""

from typing import assert_type

from procvm import Fallible, Infallible, VmReader, VmWriter


def use(reader: VmReader[Infallible], writer: VmWriter[Fallible]) -> None:
    assert_type(writer.write_fallible(reader), int)
