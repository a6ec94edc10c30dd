# mypy: ignore-errors
"""`read_once` and `write_once` take every integer pod, on Infallible and Io."""

from typing import assert_type

from procvm import (
    Infallible,
    Io,
    VmReader,
    VmWriter,
    i8,
    i16,
    i32,
    i64,
    isize,
    u8,
    u16,
    u32,
    u64,
    usize,
)


def use(reader: VmReader[Infallible], writer: VmWriter[Infallible]) -> None:
    for pod in (u8, u16, u32, u64, usize, i8, i16, i32, i64, isize):
        writer.write_once(pod, reader.read_once(pod) + 1)
    assert_type(reader.read_once(u8), int)


def use_device(reader: VmReader[Io], writer: VmWriter[Io]) -> None:
    writer.write_once(u32, reader.read_once(u32))
