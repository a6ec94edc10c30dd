# mypy: ignore-errors
"""`to_fallible` makes a fallible cursor of an infallible or a device one."""

from typing import assert_type

from procvm import Fallible, Infallible, Io, VmReader, VmWriter, u32


def use(reader: VmReader[Infallible], writer: VmWriter[Infallible]) -> None:
    assert_type(reader.to_fallible(), VmReader[Fallible])
    assert_type(writer.to_fallible(), VmWriter[Fallible])
    reader.to_fallible().atomic_load(u32)
    reader.to_fallible().read_fallible(writer)


def use_device(reader: VmReader[Io], writer: VmWriter[Io]) -> None:
    assert_type(reader.to_fallible(), VmReader[Fallible])
    assert_type(writer.to_fallible(), VmWriter[Fallible])
