# mypy: ignore-errors
"""`write_fallible` takes a Fallible reader and a Fallible writer."""

from typing import assert_type

from procvm import Fallible, VmReader, VmWriter


def use(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    assert_type(writer.write_fallible(reader), int)
