# mypy: ignore-errors
"""`read` and `write` take two infallible sides."""

from typing import assert_type

from procvm import Infallible, VmReader, VmWriter


def use(reader: VmReader[Infallible], writer: VmWriter[Infallible]) -> None:
    assert_type(reader.read(writer), int)
    assert_type(writer.write(reader), int)
