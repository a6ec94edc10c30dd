# mypy: ignore-errors
"""`from_buffer` and `from_kernel_space` give infallible cursors."""

import array
import ctypes
import mmap
from typing import assert_type

from procvm import Infallible, Segment, VmReader, VmWriter


def use(pages: mmap.mmap, cell: ctypes.c_uint64) -> None:
    assert_type(VmReader.from_buffer(b"abc"), VmReader[Infallible])
    assert_type(VmWriter.from_buffer(bytearray(3)), VmWriter[Infallible])
    VmReader.from_buffer(memoryview(b"abc"))
    VmWriter.from_buffer(array.array("I", [1]))
    VmWriter.from_buffer(pages)
    VmWriter.from_buffer(cell)
    address = ctypes.addressof(cell)
    assert_type(VmReader.from_kernel_space(address, 8), VmReader[Infallible])
    assert_type(VmWriter.from_kernel_space(address, 8), VmWriter[Infallible])
    with Segment.alloc(2, zeroed=False, shared=True) as segment:
        assert_type(segment.reader(), VmReader[Infallible])
        assert_type(segment.writer(), VmWriter[Infallible])
        assert_type(segment.fd, int)
