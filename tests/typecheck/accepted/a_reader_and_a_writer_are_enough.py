# mypy: ignore-errors
"""A user's class with `reader` and `writer` inherits all the rest."""

from typing import assert_type

from procvm import HasVmReaderWriter, Infallible, VmReader, VmWriter, u16, u64


class Shelf(HasVmReaderWriter):
    def __init__(self) -> None:
        self.memory = bytearray(64)

    def reader(self) -> VmReader[Infallible]:
        return VmReader.from_buffer(self.memory)

    def writer(self) -> VmWriter[Infallible]:
        return VmWriter.from_buffer(self.memory)


def use() -> None:
    shelf = Shelf()
    shelf.write_val(0, u64, 1)
    shelf.write_once(8, u16, shelf.read_once(0, u16))
    shelf.fill_zeros(0, 8)
    assert_type(shelf.read_slice(0, u16, 4), list[int])
    assert_type(shelf.reader(), VmReader[Infallible])
