# mypy: ignore-errors
"""A user's class with `read` and `write` inherits the rest of VmIo."""

from typing import Any, assert_type

from procvm import VmIo, VmReader, VmWriter, u64


class Null(VmIo):
    def read(self, offset: int, writer: VmWriter[Any]) -> None:
        writer.fill_zeros(writer.avail())

    def write(self, offset: int, reader: VmReader[Any]) -> None:
        reader.skip(reader.remain())


def use() -> None:
    null = Null()
    null.write_bytes(0, b"abc")
    assert_type(null.read_val(0, u64), int)
