# mypy: ignore-errors
"""A function may be generic over the marker and keep it."""

from typing import TypeVar, assert_type

from procvm import Fallible, Infallible, Io, VmReader, VmWriter, u32

F = TypeVar("F", Fallible, Infallible, Io)


def header(reader: VmReader[F]) -> tuple[int, VmReader[F]]:
    return reader.read_val(u32), reader.clone().limit(16)


def trailer(writer: VmWriter[F], value: int) -> VmWriter[F]:
    writer.write_val(u32, value)
    writer.fill_zeros(4)
    return writer.clone_exclusive()


def use(target: VmReader[Fallible], own: VmReader[Infallible], out: VmWriter[Io]) -> None:
    assert_type(header(target), tuple[int, VmReader[Fallible]])
    assert_type(header(own), tuple[int, VmReader[Infallible]])
    assert_type(trailer(out, 1), VmWriter[Io])
