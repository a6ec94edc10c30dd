"""The seed's own cases, under their own names: OSTD's tests of `mm::io`.

Where the seed returns an error, ours raises it; where it panics, a plain
ValueError or TypeError; `write_vals` of the seed is `write_slice` of a wider pod.
"""

from __future__ import annotations

import ctypes

import pytest

from procvm import (
    InvalidArgsError,
    Segment,
    VmReader,
    VmWriter,
    u8,
    u32,
    u64,
)


class Record(ctypes.Structure):
    """Two numbers with a hole of four bytes between them."""

    _fields_ = (("a", ctypes.c_uint32), ("b", ctypes.c_uint64))


def test_read_write_u32_infallible() -> None:
    """Two numbers written one after the other stand in native order and are read back in order."""
    memory = bytearray(8)
    writer = VmWriter.from_buffer(memory)
    writer.write_val(u32, 0x8BADF00D)
    writer.write_val(u32, 0x0D15EA5E)
    assert not writer.has_avail()
    assert memory == b"\x0d\xf0\xad\x8b\x5e\xea\x15\x0d"
    reader = VmReader.from_buffer(memory)
    assert [reader.read_val(u32), reader.read_val(u32)] == [0x8BADF00D, 0x0D15EA5E]
    assert not reader.has_remain()


def test_read_write_slice_infallible() -> None:
    """A run of bytes goes into a buffer by `write` and out of it by `read`, each telling 5."""
    memory = bytearray(5)
    assert VmWriter.from_buffer(memory).write(VmReader.from_buffer(b"seeds")) == 5
    assert memory == b"seeds"
    copy = bytearray(5)
    assert VmReader.from_buffer(memory).read(VmWriter.from_buffer(copy)) == 5
    assert copy == b"seeds"


def test_read_write_struct_infallible() -> None:
    """A structure read back has the fields that were written."""
    memory = bytearray(ctypes.sizeof(Record))
    VmWriter.from_buffer(memory).write_val(Record, Record(0x01020304, 0x1112131415161718))
    found = VmReader.from_buffer(memory).read_val(Record)
    assert type(found) is Record
    assert (found.a, found.b) == (0x01020304, 0x1112131415161718)


def test_read_beyond_buffer_infallible() -> None:
    """Three bytes are too few for a u32: InvalidArgsError, and the reader stays."""
    reader = VmReader.from_buffer(b"\x07\x08\x09")
    start = reader.cursor()
    with pytest.raises(InvalidArgsError) as caught:
        reader.read_val(u32)
    assert caught.value.copied_len == 0
    assert (reader.cursor(), reader.remain()) == (start, 3)


def test_write_beyond_buffer_infallible() -> None:
    """Three bytes are too few for a u32: InvalidArgsError, and none of them changes."""
    memory = bytearray(b"\x07\x08\x09")
    writer = VmWriter.from_buffer(memory)
    start = writer.cursor()
    with pytest.raises(InvalidArgsError) as caught:
        writer.write_val(u32, 0x8BADF00D)
    assert caught.value.copied_len == 0
    assert (writer.cursor(), writer.avail()) == (start, 3)
    assert memory == b"\x07\x08\x09"


def test_skip_read_infallible() -> None:
    """A reader that skipped two bytes gives the three behind them."""
    out = bytearray(3)
    reader = VmReader.from_buffer(b"\x0a\x14\x1e\x28\x32")
    assert reader.skip(2) is reader
    assert reader.read(VmWriter.from_buffer(out)) == 3
    assert out == b"\x1e\x28\x32"


def test_skip_write_infallible() -> None:
    """A writer that skipped two bytes leaves them as they were."""
    memory = bytearray(5)
    writer = VmWriter.from_buffer(memory)
    assert writer.skip(2) is writer
    assert writer.write(VmReader.from_buffer(b"xyz")) == 3
    assert memory == b"\0\0xyz"


def test_limit_read_infallible() -> None:
    """A reader limited to three bytes gives these three and then 0."""
    reader = VmReader.from_buffer(b"\x01\x02\x03\x04\x05")
    assert reader.limit(3) is reader
    assert reader.remain() == 3
    out = bytearray(3)
    assert reader.read(VmWriter.from_buffer(out)) == 3
    assert out == b"\x01\x02\x03"
    more = bytearray(b"\xee")
    assert reader.read(VmWriter.from_buffer(more)) == 0
    assert more == b"\xee"


def test_limit_write_infallible() -> None:
    """A writer limited to three bytes takes three values and refuses the fourth."""
    memory = bytearray(5)
    writer = VmWriter.from_buffer(memory)
    assert writer.limit(3) is writer
    assert writer.avail() == 3
    for value in (11, 22, 33):
        writer.write_val(u8, value)
    with pytest.raises(InvalidArgsError):
        writer.write_val(u8, 44)
    assert memory == bytes([11, 22, 33, 0, 0])


def test_read_write_slice_vmio_infallible() -> None:
    """Typed runs go in and out whole, and both cursors end at the end."""
    memory = bytearray(12)
    writer = VmWriter.from_buffer(memory)
    writer.write_slice(u32, [100, 200, 300])
    assert writer.avail() == 0
    reader = VmReader.from_buffer(memory)
    assert reader.read_slice(u32, 3) == [100, 200, 300]
    assert reader.remain() == 0


def test_read_write_once_infallible() -> None:
    """One store and one load of eight bytes carry the same number and move by eight."""
    segment = Segment.alloc(1)
    writer = segment.writer()
    writer.write_once(u64, 0x1122334455667788)
    assert writer.cursor() == segment.address + 8
    reader = segment.reader()
    assert reader.read_once(u64) == 0x1122334455667788
    assert reader.cursor() == segment.address + 8


def test_write_val_infallible() -> None:
    """Values written one by one stand side by side."""
    memory = bytearray(12)
    writer = VmWriter.from_buffer(memory)
    for value in (1, 2, 3):
        writer.write_val(u32, value)
    assert memory == b"\1\0\0\0\2\0\0\0\3\0\0\0"


def test_fallible_read_write() -> None:
    """Own memory taken as fallible still carries a value, and says what is left."""
    memory = bytearray(8)
    writer = VmWriter.from_buffer(memory).to_fallible()
    assert writer.has_avail()
    writer.write_val(u64, 0x0123456789ABCDEF)
    assert not writer.has_avail()
    reader = VmReader.from_buffer(memory).to_fallible()
    assert reader.has_remain()
    assert reader.read_val(u64) == 0x0123456789ABCDEF
    assert not reader.has_remain()


def test_partial_read_fallible() -> None:
    """A fallible reader limited to three bytes fills three of five and tells 3."""
    out = bytearray(b"\xee" * 5)
    reader = VmReader.from_buffer(b"\x0a\x14\x1e\x28\x32").to_fallible().limit(3)
    writer = VmWriter.from_buffer(out).to_fallible()
    assert reader.read_fallible(writer) == 3
    assert out == b"\x0a\x14\x1e\xee\xee"
    assert (reader.remain(), writer.avail()) == (0, 2)


def test_partial_write_fallible() -> None:
    """A fallible writer limited to three bytes takes three of five and tells 3."""
    memory = bytearray(b"\xee" * 5)
    writer = VmWriter.from_buffer(memory).to_fallible().limit(3)
    reader = VmReader.from_buffer(b"\x0a\x14\x1e\x28\x32")
    assert writer.write_fallible(reader) == 3
    assert memory == b"\x0a\x14\x1e\xee\xee"
    assert (writer.avail(), reader.remain()) == (0, 2)


def test_read_write_val_fallible() -> None:
    """A value written by a fallible writer is the one a fallible reader gives."""
    memory = bytearray(8)
    VmWriter.from_buffer(memory).to_fallible().write_val(u64, 0xFEDCBA9876543210)
    assert VmReader.from_buffer(memory).to_fallible().read_val(u64) == 0xFEDCBA9876543210


def test_fill_zeros_fallible() -> None:
    """A fallible writer zeroes all eight bytes and tells 8."""
    memory = bytearray(b"\x01" * 8)
    writer = VmWriter.from_buffer(memory).to_fallible()
    assert writer.fill_zeros(8) == 8
    assert memory == bytes(8)
    assert writer.avail() == 0


def test_invalid_args_read_write_fallible() -> None:
    """Too little room is InvalidArgsError on fallible cursors as well, with nothing moved."""
    memory = bytearray(b"\x07\x08\x09")
    writer = VmWriter.from_buffer(memory).to_fallible()
    with pytest.raises(InvalidArgsError):
        writer.write_val(u32, 0x8BADF00D)
    assert memory == b"\x07\x08\x09"
    assert writer.avail() == 3
    reader = VmReader.from_buffer(memory).to_fallible()
    with pytest.raises(InvalidArgsError):
        reader.read_val(u32)
    assert reader.remain() == 3


def test_invalid_read_write_infallible() -> None:
    """Too little room is InvalidArgsError on infallible cursors, for values and for once."""
    segment = Segment.alloc(1)
    writer = segment.writer().limit(3)
    with pytest.raises(InvalidArgsError):
        writer.write_val(u32, 1)
    with pytest.raises(InvalidArgsError):
        writer.write_once(u32, 1)
    assert writer.avail() == 3
    reader = segment.reader().limit(3)
    with pytest.raises(InvalidArgsError):
        reader.read_val(u32)
    with pytest.raises(InvalidArgsError):
        reader.read_once(u32)
    assert reader.remain() == 3


def test_write_vals_segment() -> None:
    """Values land side by side in a segment; at an offset behind its end none does."""
    segment = Segment.alloc(1)
    segment.write_slice(0, u32, [1, 2, 3])
    assert segment.read_bytes(0, 12) == b"\1\0\0\0\2\0\0\0\3\0\0\0"
    with pytest.raises(InvalidArgsError) as caught:
        segment.write_slice(8192, u32, [1, 2, 3])
    assert caught.value.copied_len == 0


def test_write_slice_segment() -> None:
    """Bytes written as a slice of u8 are the segment's first five, the rest stays 0."""
    segment = Segment.alloc(1)
    segment.write_slice(0, u8, [1, 2, 3, 4, 5])
    assert segment.read_bytes(0, 12) == b"\1\2\3\4\5" + bytes(7)


def test_read_val_segment() -> None:
    """The value at offset 0 is the first of those written."""
    segment = Segment.alloc(1)
    segment.write_slice(0, u32, [1, 2, 3])
    assert segment.read_val(0, u32) == 1
    assert segment.read_val(4, u32) == 2


def test_read_slice_segment() -> None:
    """The bytes of three numbers, read as a slice of u8, are their native bytes."""
    segment = Segment.alloc(1)
    segment.write_slice(0, u32, [1, 2, 3])
    assert segment.read_slice(0, u8, 12) == [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]
    assert segment.read_slice(0, u32, 3) == [1, 2, 3]
