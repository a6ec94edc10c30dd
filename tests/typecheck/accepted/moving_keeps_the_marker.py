# mypy: ignore-errors
"""`skip`, `limit`, `clone` and `clone_exclusive` give a cursor of the same memory."""

from typing import assert_type

from procvm import Fallible, Infallible, Io, VmReader, VmWriter


def use(reader: VmReader[Fallible], writer: VmWriter[Infallible], device: VmReader[Io]) -> None:
    assert_type(reader.skip(2).limit(4), VmReader[Fallible])
    assert_type(writer.skip(2).limit(4), VmWriter[Infallible])
    assert_type(reader.clone(), VmReader[Fallible])
    assert_type(writer.clone_exclusive(), VmWriter[Infallible])
    assert_type(device.limit(1).clone(), VmReader[Io])
    assert_type(reader.cursor() + reader.remain() + writer.avail(), int)
    assert_type(reader.has_remain() and writer.has_avail(), bool)
