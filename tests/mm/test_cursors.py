"""The cursors: what the seed's documentation promises of them, beyond its own tests."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from procvm import (
    AccessDeniedError,
    AddressOverflowError,
    Fallible,
    Infallible,
    InvalidArgsError,
    Io,
    IoMem,
    PageFaultError,
    ProcvmError,
    Segment,
    VmReader,
    VmSpace,
    VmWriter,
    f32,
    f64,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
    usize,
)
from tests.support.fakes import BASE, PID, Holed

BOUNCE_LEN = 1 << 18
NOT_INTEGERS = [True, 1.5, "0x10", None, b"1", np.True_, np.float64(8)]


class Pair(ctypes.Structure):
    _fields_ = (("low", ctypes.c_uint64), ("high", ctypes.c_uint64))


# Making cursors


def test_a_reader_takes_every_c_contiguous_buffer() -> None:
    """bytes, bytearray, array, mmap, ctypes, numpy and memoryview all give their raw bytes."""
    pages = mmap.mmap(-1, 4096)
    pages[:3] = b"abc"
    cases: list[tuple[Any, bytes]] = [
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        (array.array("H", [1, 2]), b"\1\0\2\0"),
        (pages, b"abc" + bytes(4093)),
        (Pair(1, 2), b"\1" + bytes(7) + b"\2" + bytes(7)),
        ((ctypes.c_uint16 * 2)(3, 4), b"\3\0\4\0"),
        (np.array([[1, 2], [3, 4]], dtype=np.uint16), b"\1\0\2\0\3\0\4\0"),
        (memoryview(b"xabcx")[1:4], b"abc"),
        (b"", b""),
    ]
    for buffer, expected in cases:
        reader = VmReader.from_buffer(buffer)
        assert reader.remain() == len(expected)
        assert reader.read_bytes(len(expected)) == expected


def test_a_buffer_with_gaps_is_refused() -> None:
    """A strided or Fortran-ordered buffer is a TypeError, for a reader and for a writer."""
    strided = memoryview(bytearray(8))[::2]
    fortran = np.zeros((2, 3), order="F")
    for buffer in (strided, fortran, np.zeros(8)[::2]):
        with pytest.raises(TypeError):
            VmReader.from_buffer(buffer)
        with pytest.raises(TypeError):
            VmWriter.from_buffer(buffer)


@pytest.mark.parametrize("value", [None, 5, "text", [1, 2], object()])
def test_what_is_no_buffer_is_refused(value: Any) -> None:
    """A thing without a buffer is a TypeError, not a guess at its address."""
    with pytest.raises(TypeError):
        VmReader.from_buffer(value)
    with pytest.raises(TypeError):
        VmWriter.from_buffer(value)


def test_a_writer_refuses_a_read_only_buffer() -> None:
    """bytes, and a read-only view of a writable buffer, are a TypeError; so is an empty one."""
    frozen = np.zeros(4, dtype=np.uint8)
    frozen.flags.writeable = False
    for buffer in (b"abc", memoryview(bytearray(3)).toreadonly(), frozen, b""):
        with pytest.raises(TypeError):
            VmWriter.from_buffer(buffer)


def test_a_cursor_keeps_its_buffer_alive() -> None:
    """A buffer that nobody else holds is still whole when the cursor reads it."""
    reader = VmReader.from_buffer(bytearray(b"\x5a") * 100_000)
    clone = reader.clone()
    del reader
    gc.collect()
    churn = [bytearray(b"\xa5") * 100_000 for _ in range(8)]
    assert clone.read_bytes(100_000) == b"\x5a" * 100_000
    assert len(churn) == 8


def test_a_cursor_pins_its_buffer_in_place() -> None:
    """A bytearray can not be resized while a cursor stands in it, and can after."""
    buffer = bytearray(16)
    cursor = VmWriter.from_buffer(buffer)
    cursor.write_val(u8, 7)
    with pytest.raises(BufferError):
        buffer.extend(bytes(1_000_000))
    del cursor
    gc.collect()
    buffer.extend(b"!")
    assert buffer == b"\7" + bytes(15) + b"!"


def test_kernel_space_cursors_stand_at_the_address_given() -> None:
    """`from_kernel_space` gives a cursor at that own address, of that length."""
    cell = (ctypes.c_uint8 * 8)(*b"abcdefgh")
    address = ctypes.addressof(cell)
    reader = VmReader.from_kernel_space(address + 2, 4)
    assert (reader.cursor(), reader.remain()) == (address + 2, 4)
    assert reader.read_bytes(4) == b"cdef"
    writer = VmWriter.from_kernel_space(address, 2)
    assert (writer.cursor(), writer.avail()) == (address, 2)
    writer.write_bytes(b"AB")
    assert bytes(cell) == b"ABcdefgh"


def test_an_empty_kernel_space_range_may_be_anywhere() -> None:
    """A range of 0 bytes needs no valid address: nothing is left and nothing is read."""
    for address in (0, 1, 2**64 - 1, 2**64 - 8):
        reader = VmReader.from_kernel_space(address, 0)
        assert (reader.cursor(), reader.remain(), reader.has_remain()) == (address, 0, False)
        assert reader.read_bytes(0) == b""
        writer = VmWriter.from_kernel_space(address, 0)
        assert writer.fill_zeros(10) == 0


MAKERS: list[Callable[[Any, Any], Any]] = [
    VmReader.from_kernel_space,
    VmWriter.from_kernel_space,
    lambda address, n: VmReader.from_user_space(VmSpace(Holed("rw")), address, n),
    lambda address, n: VmWriter.from_user_space(VmSpace(Holed("rw")), address, n),
    lambda address, n: VmSpace(Holed("rw")).reader_writer(address, n),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("address", "n", "error"),
    [
        (-1, 8, InvalidArgsError),
        (4096, -1, InvalidArgsError),
        (2**64, 0, AddressOverflowError),
        (2**64 + 8, 8, AddressOverflowError),
        (2**64 - 4, 8, AddressOverflowError),
        (1, 2**64, AddressOverflowError),
    ],
)
def test_a_range_that_is_no_range_is_refused(
    make: Callable[[Any, Any], Any], address: int, n: int, error: type[ProcvmError]
) -> None:
    """A negative number is InvalidArgsError and a range past 2^64 AddressOverflowError."""
    with pytest.raises(error) as caught:
        make(address, n)
    assert type(caught.value) is error


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("value", NOT_INTEGERS)
def test_an_address_or_a_length_that_is_no_integer_is_a_type_error(
    make: Callable[[Any, Any], Any], value: Any
) -> None:
    """bool, float, str, bytes and None are no address and no length."""
    with pytest.raises(TypeError):
        make(value, 8)
    with pytest.raises(TypeError):
        make(4096, value)


def test_numpy_integers_are_integers() -> None:
    """A numpy integer is taken as address, length, skip and limit, without wrapping around."""
    memory = Holed("rw rw")
    reader = memory.reader(np.uint64(BASE), np.uint8(32))  # type: ignore[arg-type]
    reader.skip(np.int16(8)).limit(np.uint8(255))  # type: ignore[arg-type]
    assert (reader.cursor(), reader.remain()) == (BASE + 8, 24)
    assert reader.read_bytes(np.uint8(24)) == memory.peek(BASE + 8, 24)  # type: ignore[arg-type]
    with pytest.raises(AddressOverflowError):
        VmReader.from_kernel_space(np.uint64(2**64 - 1), np.uint64(8))  # type: ignore[arg-type]


def test_a_user_space_cursor_can_not_leave_user_space() -> None:
    """A range that ends one byte past user space is AccessDeniedError; to its end is fine."""
    memory = Holed("rw")
    space = VmSpace(memory)
    end = space.end
    for make in (space.reader, space.writer, space.reader_writer):
        make(end - 8, 8)
        make(end, 0)
        for address, n in ((end - 8, 9), (end, 1), (end + 1, 0), (2**63, 8), (0, 2**64)):
            with pytest.raises(AccessDeniedError) as caught:
                make(address, n)
            assert caught.value.copied_len == 0
    assert memory.calls == []


def test_a_user_space_cursor_is_not_checked_until_it_is_used() -> None:
    """A cursor over a hole is made without an access, and faults at its first use."""
    memory = Holed("rw hole")
    reader, writer = VmSpace(memory).reader_writer(BASE + 16, 8)
    assert memory.calls == []
    for use in (lambda: reader.read_val(u64), lambda: writer.write_val(u64, 1)):
        with pytest.raises(PageFaultError) as caught:
            use()
        assert (caught.value.address, caught.value.copied_len) == (BASE + 16, 0)
        assert caught.value.pid == PID


# Moving


def test_skip_moves_exactly_and_to_the_end_at_most() -> None:
    """Skips add up, skipping all that is left is allowed, and 0 is too."""
    reader = VmReader.from_buffer(b"abcdef")
    start = reader.cursor()
    assert reader.skip(0).skip(2).skip(4).cursor() == start + 6
    assert (reader.remain(), reader.has_remain()) == (0, False)
    reader.skip(0)


def test_skip_past_the_end_is_a_plain_value_error_and_moves_nothing() -> None:
    """One byte too many is ValueError, never a ProcvmError, and the cursor stays."""
    fake = Holed("rw")
    cursors: list[Any] = [
        VmReader.from_buffer(b"abcdef").skip(2),
        VmWriter.from_buffer(bytearray(6)).skip(2),
        fake.reader(BASE, 6).skip(2),
        fake.writer(BASE, 6).skip(2),
    ]
    for cursor in cursors:
        start = cursor.cursor()
        for n in (5, 2**64, 2**200):
            with pytest.raises(ValueError, match="skip") as caught:
                cursor.skip(n)
            assert not isinstance(caught.value, ProcvmError)
        assert (cursor.cursor(), cursor.left()) == (start, 4)


@pytest.mark.parametrize("value", NOT_INTEGERS)
def test_skip_and_limit_take_integers_only(value: Any) -> None:
    """A count that is no integer is a TypeError and a negative one a ValueError; nothing moves."""
    reader = VmReader.from_buffer(b"abcdef")
    start = reader.cursor()
    for move in (reader.skip, reader.limit):
        with pytest.raises(TypeError):
            move(value)
        with pytest.raises(ValueError, match="-1"):
            move(-1)
    assert (reader.cursor(), reader.remain()) == (start, 6)


def test_limit_shortens_and_never_lengthens() -> None:
    """A limit beyond what is left has no effect, and a later larger one gives nothing back."""
    reader = VmReader.from_buffer(b"abcdef")
    assert reader.limit(7).remain() == 6
    assert reader.limit(6).remain() == 6
    assert reader.limit(2**80).remain() == 6
    assert reader.limit(4).remain() == 4
    assert reader.limit(5).remain() == 4
    assert reader.skip(1).limit(1).remain() == 1
    assert reader.read_bytes(1) == b"b"
    assert reader.limit(0).remain() == 0


def test_a_clone_moves_on_its_own() -> None:
    """A clone starts where the reader stands, with its limit, and neither moves the other."""
    reader = VmReader.from_buffer(b"abcdefgh").skip(2).limit(4)
    clone = reader.clone()
    assert (clone.cursor(), clone.remain()) == (reader.cursor(), 4)
    assert clone.read_bytes(3) == b"cde"
    assert (reader.remain(), clone.remain()) == (4, 1)
    reader.skip(1).limit(2)
    assert (reader.read_bytes(2), clone.read_bytes(1)) == (b"de", b"f")


def test_an_exclusive_clone_writes_without_moving_the_writer() -> None:
    """What the clone writes is there, and the writer still stands before it."""
    memory = bytearray(b"........")
    writer = VmWriter.from_buffer(memory).skip(2).limit(4)
    clone = writer.clone_exclusive()
    assert (clone.cursor(), clone.avail()) == (writer.cursor(), 4)
    clone.write_bytes(b"abc")
    assert memory == b"..abc..."
    assert (writer.avail(), clone.avail()) == (4, 1)
    writer.write_bytes(b"X")
    assert memory == b"..Xbc..."


def test_to_fallible_gives_another_cursor_over_the_same_range() -> None:
    """The fallible cursor has the position and the limit, and moves on its own."""
    memory = bytearray(b"abcdefgh")
    reader = VmReader.from_buffer(memory).skip(2).limit(4)
    fallible = reader.to_fallible()
    assert (fallible.cursor(), fallible.remain()) == (reader.cursor(), 4)
    assert fallible.read_val(u32) == int.from_bytes(b"cdef", "little")
    assert reader.remain() == 4
    writer = VmWriter.from_buffer(memory).skip(6).to_fallible()
    assert writer.avail() == 2
    writer.write_val(u16, 0x5A5A)
    assert memory == b"abcdefZZ"


# Wrong markers and wrong sides, at run time


def fallible_reader() -> VmReader[Any]:
    return Holed("rw").reader(BASE, 16)


def fallible_writer() -> VmWriter[Any]:
    return Holed("rw").writer(BASE, 16)


def own_reader() -> VmReader[Any]:
    return Segment.alloc(1).reader()


def own_writer() -> VmWriter[Any]:
    return Segment.alloc(1).writer()


def untyped(cursor: object) -> Any:
    """The same cursor, as a caller has it whom no checker has seen."""
    return cursor


WRONG_MARKERS: dict[str, Callable[[], Any]] = {
    "read, fallible reader": lambda: fallible_reader().read(own_writer()),
    "read, fallible writer": lambda: own_reader().read(fallible_writer()),
    "read, both fallible": lambda: fallible_reader().read(fallible_writer()),
    "write, fallible writer": lambda: fallible_writer().write(own_reader()),
    "write, fallible reader": lambda: own_writer().write(fallible_reader()),
    "write, both fallible": lambda: fallible_writer().write(fallible_reader()),
    "read_fallible, none fallible": lambda: own_reader().read_fallible(own_writer()),
    "write_fallible, none fallible": lambda: own_writer().write_fallible(own_reader()),
    "read_once, fallible": lambda: fallible_reader().read_once(u8),
    "write_once, fallible": lambda: fallible_writer().write_once(u8, 1),
    "read_once, own as fallible": lambda: untyped(own_reader().to_fallible()).read_once(u8),
    "atomic_load, infallible": lambda: own_reader().atomic_load(u32),
    "to_fallible, reader": lambda: fallible_reader().to_fallible(),
    "to_fallible, writer": lambda: fallible_writer().to_fallible(),
    "exchange, infallible writer": lambda: own_writer().atomic_compare_exchange(
        own_reader().to_fallible(), u32, 0, 1
    ),
    "exchange, infallible reader": lambda: (
        own_writer().to_fallible().atomic_compare_exchange(own_reader(), u32, 0, 1)
    ),
}


@pytest.mark.parametrize("case", WRONG_MARKERS)
def test_a_cursor_of_the_wrong_kind_of_memory_is_a_type_error(case: str) -> None:
    """A marker that the method does not take is a TypeError and not a ProcvmError."""
    with pytest.raises(TypeError) as caught:
        WRONG_MARKERS[case]()
    assert not isinstance(caught.value, ProcvmError)


def test_a_wrong_marker_touches_and_moves_nothing() -> None:
    """After the TypeError both cursors stand where they stood and no access was made."""
    fake = Holed("rw")
    out = bytearray(b"\xee" * 8)
    reader, writer = fake.reader(BASE, 8), VmWriter.from_buffer(out)
    with pytest.raises(TypeError):
        reader.read(writer)  # type: ignore[misc]
    with pytest.raises(TypeError):
        writer.write(reader)  # type: ignore[arg-type]
    assert fake.calls == []
    assert out == b"\xee" * 8
    assert (reader.remain(), writer.avail()) == (8, 8)


def test_markers_have_no_instances() -> None:
    """A marker is for types only: calling one is a TypeError."""
    for marker in (Fallible, Infallible, Io):
        with pytest.raises(TypeError):
            marker()


READER_AS_WRITER: dict[str, Callable[[Any, Any], object]] = {
    "read": lambda source, other: source.read(other),
    "read_fallible, own as fallible": lambda source, other: source.to_fallible().read_fallible(
        other
    ),
    "read_fallible into own as fallible": lambda source, other: source.read_fallible(
        other.to_fallible()
    ),
}


@pytest.mark.parametrize("case", READER_AS_WRITER)
def test_a_reader_can_not_stand_where_a_writer_is_taken(case: str) -> None:
    """A reader given as destination is a TypeError, and read-only bytes stay as they are."""
    constant = bytes(bytearray(b"constant"))
    source, destination = VmReader.from_buffer(b"changed!"), VmReader.from_buffer(constant)
    with pytest.raises(TypeError):
        READER_AS_WRITER[case](source, destination)
    assert constant == b"constant"
    assert (source.remain(), destination.remain()) == (8, 8)


WRITER_AS_READER: dict[str, Callable[[Any, Any], object]] = {
    "write": lambda source, other: other.write(source),
    "write_fallible, own as fallible": lambda source, other: other.to_fallible().write_fallible(
        source
    ),
    "write_fallible from own as fallible": lambda source, other: other.write_fallible(
        source.to_fallible()
    ),
}


@pytest.mark.parametrize("case", WRITER_AS_READER)
def test_a_writer_can_not_stand_where_a_reader_is_taken(case: str) -> None:
    """A writer given as source is a TypeError, and nothing is copied."""
    memory = bytearray(b"original")
    source = VmWriter.from_buffer(bytearray(b"another."))
    destination = VmWriter.from_buffer(memory)
    with pytest.raises(TypeError):
        WRITER_AS_READER[case](source, destination)
    assert memory == b"original"
    assert (source.avail(), destination.avail()) == (8, 8)


# Own memory to own memory


@pytest.mark.parametrize(("remain", "avail"), [(0, 5), (5, 0), (0, 0), (3, 5), (5, 3), (5, 5)])
def test_read_copies_the_shorter_of_the_two(remain: int, avail: int) -> None:
    """`read` and `write` move both cursors by min(remain, avail) and change nothing behind it."""
    n = min(remain, avail)
    for turned in (False, True):
        out = bytearray(b"\xee" * 8)
        reader = VmReader.from_buffer(b"abcdefgh").limit(remain)
        writer = VmWriter.from_buffer(out).limit(avail)
        assert (writer.write(reader) if turned else reader.read(writer)) == n
        assert (reader.remain(), writer.avail()) == (remain - n, avail - n)
        assert out == b"abcdefgh"[:n] + b"\xee" * (8 - n)


def test_an_overlapping_own_copy_is_as_with_memmove() -> None:
    """Every shift of a range inside one buffer gives what slicing a snapshot of it gives."""
    for source in range(0, 33, 3):
        for destination in range(0, 33, 3):
            for fallible in (False, True):
                memory = bytearray(range(64))
                expected = bytearray(memory)
                expected[destination : destination + 31] = memory[source : source + 31]
                reader = VmReader.from_buffer(memory).skip(source).limit(31)
                writer = VmWriter.from_buffer(memory).skip(destination).limit(31)
                if fallible:
                    assert reader.to_fallible().read_fallible(writer) == 31
                else:
                    assert reader.read(writer) == 31
                assert memory == expected


def test_fill_zeros_fills_what_there_is_room_for() -> None:
    """`fill_zeros` tells min(n, avail) and moves by it."""
    memory = bytearray(b"\xee" * 8)
    writer = VmWriter.from_buffer(memory).skip(1).limit(5)
    assert writer.fill_zeros(0) == 0
    assert writer.fill_zeros(3) == 3
    assert memory == b"\xee\0\0\0\xee\xee\xee\xee"
    assert writer.fill_zeros(2**64) == 2
    assert memory == b"\xee\0\0\0\0\0\xee\xee"
    assert (writer.avail(), writer.fill_zeros(1)) == (0, 0)


@pytest.mark.parametrize("value", [*NOT_INTEGERS, -1])
def test_fill_zeros_takes_a_count_only(value: Any) -> None:
    """What is no count is refused with nothing filled: TypeError, or ValueError if negative."""
    memory = bytearray(b"\xee" * 4)
    writer = VmWriter.from_buffer(memory)
    with pytest.raises(ValueError if value == -1 else TypeError):
        writer.fill_zeros(value)
    assert memory == b"\xee" * 4
    assert writer.avail() == 4


# Values


def test_values_need_no_alignment() -> None:
    """`read_val` and `write_val` work at every offset of an odd address."""
    segment = Segment.alloc(1)
    fake = Holed("rw rw rw")
    for offset in range(1, 9):
        segment.writer().skip(offset).write_val(u64, 0x0102030405060708)
        assert segment.reader().skip(offset).read_val(u64) == 0x0102030405060708
        fake.writer(BASE + offset, 8).write_val(f64, offset + 0.5)
        assert fake.reader(BASE + offset, 8).read_val(f64) == offset + 0.5


def test_a_value_moves_the_cursor_by_its_size() -> None:
    """Mixed values in a row come out in order, each moving by exactly its own size."""
    fake = Holed("rw rw rw")
    for reader, writer in (
        (fake.reader(BASE, 31), fake.writer(BASE, 31)),
        (Segment.alloc(1).reader(), None),
    ):
        if writer is None:
            own = bytearray(31)
            reader, writer = (  # noqa: PLW2901
                VmReader.from_buffer(own).to_fallible(),
                VmWriter.from_buffer(own).to_fallible(),
            )
        start = writer.cursor()
        writer.write_val(u8, 1)
        writer.write_val(i16, -2)
        writer.write_val(f32, 0.5)
        writer.write_val(Pair, Pair(3, 4))
        writer.write_val(i64, -5)
        assert writer.cursor() - start == 31
        assert (reader.read_val(u8), reader.read_val(i16), reader.read_val(f32)) == (1, -2, 0.5)
        pair = reader.read_val(Pair)
        assert (pair.low, pair.high, reader.read_val(i64)) == (3, 4, -5)
        assert (reader.remain(), writer.avail()) == (0, 0)


def test_a_value_that_was_read_is_a_copy() -> None:
    """Changing a structure that was read changes no memory, and the other way round."""
    memory = bytearray(16)
    pair = VmReader.from_buffer(memory).read_val(Pair)
    pair.low = 99
    assert memory == bytes(16)
    memory[0] = 7
    assert pair.low == 99
    fallible = VmReader.from_buffer(memory).to_fallible()
    first, second = fallible.clone().read_val(Pair), fallible.read_val(Pair)
    first.low = 1
    assert second.low == 7


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda w: w.write_val(u8, 256), OverflowError),
        (lambda w: w.write_val(u64, -1), OverflowError),
        (lambda w: w.write_val(u64, "8"), TypeError),
        (lambda w: w.write_val(u64, 1.5), TypeError),
        (lambda w: w.write_val(Pair, 5), TypeError),
        (lambda w: w.write_val(int, 5), TypeError),
        (lambda w: w.write_slice(u16, [1, 2, 65536]), OverflowError),
        (lambda w: w.write_slice(u16, [1, None]), TypeError),
        (lambda w: w.write_bytes("text"), TypeError),
        (lambda w: w.write_bytes(memoryview(bytes(8))[::2]), TypeError),
    ],
)
def test_a_value_that_does_not_fit_its_pod_is_refused_with_nothing_written(
    write: Callable[[VmWriter[Any]], None], error: type[Exception], own: bool
) -> None:
    """Out of range is OverflowError and a wrong type TypeError; memory and cursor stay."""
    fake = Holed("rw rw")
    memory = bytearray(fake.peek(BASE, 32))
    writer: VmWriter[Any] = VmWriter.from_buffer(memory) if own else fake.writer(BASE, 32)
    start = writer.cursor()
    with pytest.raises(error) as caught:
        write(writer)
    assert not isinstance(caught.value, ProcvmError)
    assert memory == fake.peek(BASE, 32) == Holed("rw rw").peek(BASE, 32)
    assert (writer.cursor(), writer.avail()) == (start, 32)


def test_too_little_room_is_invalid_args_and_moves_nothing() -> None:
    """Each way to move a value past the end is InvalidArgsError before any access."""
    fake = Holed("rw")
    reader, writer = fake.reader(BASE, 7), fake.writer(BASE, 7)
    own = Segment.alloc(1)
    for call in (
        lambda: reader.read_val(u64),
        lambda: reader.read_val(Pair),
        lambda: reader.read_bytes(8),
        lambda: reader.read_slice(u32, 2),
        lambda: reader.read_slice(u64, 2**61),
        lambda: reader.read_bytes(2**63),
        lambda: reader.atomic_load(u64),
        lambda: writer.write_val(u64, 0),
        lambda: writer.write_bytes(bytes(8)),
        lambda: writer.write_slice(u32, [1, 2]),
        lambda: writer.atomic_compare_exchange(reader, u64, 0, 0),
        lambda: own.reader().limit(1).read_once(u16),
        lambda: own.writer().limit(1).write_once(u16, 1),
    ):
        with pytest.raises(InvalidArgsError) as caught:
            call()
        assert caught.value.copied_len == 0
    assert fake.calls == []
    assert (reader.cursor(), reader.remain()) == (BASE, 7)
    assert (writer.cursor(), writer.avail()) == (BASE, 7)


def test_runs_of_bytes_and_of_values_move_by_all_of_them() -> None:
    """`read_bytes`, `read_slice`, `write_bytes`, `write_slice` move by exactly what they took."""
    fake = Holed("rw rw rw")
    writer = fake.writer(BASE, 40)
    writer.write_bytes(b"abc")
    writer.write_slice(u16, (k for k in (1, 2)))
    writer.write_slice(u16, np.array([3]))
    writer.write_slice(Pair, [Pair(5, 6)])
    assert writer.cursor() == BASE + 3 + 6 + 16
    reader = fake.reader(BASE, 40)
    assert reader.read_bytes(3) == b"abc"
    assert reader.read_slice(u16, 3) == [1, 2, 3]
    pairs = reader.read_slice(Pair, 1)
    assert [(pair.low, pair.high) for pair in pairs] == [(5, 6)]
    assert reader.cursor() == BASE + 25


def test_nothing_is_moved_for_a_length_of_zero() -> None:
    """Zero bytes and zero values succeed on every cursor, even over a hole, with no access."""
    fake = Holed("hole")
    for reader, writer in (
        (fake.reader(BASE, 16), fake.writer(BASE, 16)),
        (fake.reader(BASE, 0), fake.writer(BASE, 0)),
    ):
        start = reader.cursor()
        assert reader.read_bytes(0) == b""
        assert reader.read_slice(u64, 0) == []
        assert reader.read_slice(Pair, 0) == []
        writer.write_bytes(b"")
        writer.write_slice(u64, [])
        assert writer.fill_zeros(0) == 0
        assert reader.read_fallible(VmWriter.from_buffer(bytearray())) == 0
        assert VmReader.from_buffer(b"").to_fallible().read_fallible(writer) == 0
        assert (reader.cursor(), writer.cursor()) == (start, start)
    assert fake.reader(BASE, 0).read_fallible(fake.writer(BASE, 16)) == 0
    assert fake.calls == []


@pytest.mark.parametrize("value", [*NOT_INTEGERS, -1])
def test_a_count_of_bytes_or_values_is_checked(value: Any) -> None:
    """A count that is no integer is a TypeError, a negative one InvalidArgsError."""
    reader = Holed("rw").reader(BASE, 16)
    error = InvalidArgsError if value == -1 else TypeError
    with pytest.raises(error):
        reader.read_bytes(value)
    with pytest.raises(error):
        reader.read_slice(u32, value)
    assert reader.cursor() == BASE


# Single loads and stores


@pytest.mark.parametrize("pod", [u8, u16, u32, u64, usize, i16, i32, i64])
def test_once_takes_aligned_places_only(pod: Any) -> None:
    """At a multiple of the size a value goes in and out; elsewhere it is a plain ValueError."""
    segment = Segment.alloc(1)
    for offset in range(16):
        writer, reader = segment.writer().skip(offset), segment.reader().skip(offset)
        if offset % pod.size == 0:
            writer.write_once(pod, 77 + offset)
            assert reader.read_once(pod) == 77 + offset
            assert writer.cursor() == reader.cursor() == segment.address + offset + pod.size
            continue
        before = segment.read_bytes(0, 32)
        with pytest.raises(ValueError, match="align") as caught:
            reader.read_once(pod)
        assert not isinstance(caught.value, ProcvmError)
        with pytest.raises(ValueError, match="align") as caught:
            writer.write_once(pod, 1)
        assert not isinstance(caught.value, ProcvmError)
        assert writer.cursor() == reader.cursor() == segment.address + offset
        assert segment.read_bytes(0, 32) == before


@pytest.mark.parametrize("pod", [f32, f64, Pair, ctypes.c_uint32, int, "u32", None])
def test_once_takes_only_what_one_load_moves(pod: Any) -> None:
    """A type that is no PodOnce is a TypeError and the cursor stays."""
    reader: Any = Segment.alloc(1).reader()
    writer: Any = Segment.alloc(1).writer()
    with pytest.raises(TypeError):
        reader.read_once(pod)
    with pytest.raises(TypeError):
        writer.write_once(pod, 0)
    assert (reader.remain(), writer.avail()) == (4096, 4096)


def test_write_once_refuses_a_value_out_of_range() -> None:
    """A number that does not fit is OverflowError, a wrong type TypeError; nothing is stored."""
    segment = Segment.alloc(1)
    writer: Any = segment.writer()
    for pod, value in ((u8, 256), (u8, -1), (i16, 32768), (u32, 2**32), (u64, 2**64)):
        with pytest.raises(OverflowError):
            writer.write_once(pod, value)
    for wrong in ("1", 1.5, None):
        with pytest.raises(TypeError):
            writer.write_once(u32, wrong)
    assert writer.cursor() == segment.address
    assert segment.read_bytes(0, 16) == bytes(16)


# Atomics of cursors


def test_atomics_never_move_a_cursor() -> None:
    """A load, an exchange that stores and one that does not leave both cursors in place."""
    segment = Segment.alloc(1)
    segment.write_val(8, u32, 5)
    reader = segment.reader().skip(8).to_fallible()
    writer = segment.writer().skip(8).to_fallible()
    assert reader.atomic_load(u32) == 5
    assert writer.atomic_compare_exchange(reader, u32, 5, 6) == (5, True)
    assert writer.atomic_compare_exchange(reader, u32, 5, 7) == (6, False)
    assert reader.atomic_load(u32) == 6
    assert reader.cursor() == writer.cursor() == segment.address + 8
    assert reader.remain() == writer.avail() == 4088


def test_an_exchange_needs_both_cursors_at_one_place() -> None:
    """A reader elsewhere is a plain ValueError: another offset, or the same number elsewhere."""
    segment = Segment.alloc(1)
    writer = segment.writer().to_fallible()
    one, two = Holed("rw"), Holed("rw")
    for other in (segment.reader().skip(4).to_fallible(), one.reader(segment.address, 8)):
        with pytest.raises(ValueError, match="not at the same address") as caught:
            writer.atomic_compare_exchange(other, u32, 0, 1)
        assert not isinstance(caught.value, ProcvmError)
    with pytest.raises(ValueError, match="not at the same address") as caught:
        one.writer(BASE, 8).atomic_compare_exchange(two.reader(BASE, 8), u32, 0, 1)
    assert not isinstance(caught.value, ProcvmError)
    assert segment.read_bytes(0, 8) == bytes(8)


def test_an_exchange_needs_room_on_both_sides() -> None:
    """Too little room in the reader or in the writer is InvalidArgsError."""
    segment = Segment.alloc(1)
    for remain, avail in ((3, 4), (4, 3), (0, 4), (4, 0)):
        reader = segment.reader().limit(remain).to_fallible()
        writer = segment.writer().limit(avail).to_fallible()
        with pytest.raises(InvalidArgsError):
            writer.atomic_compare_exchange(reader, u32, 0, 1)
    assert segment.read_val(0, u32) == 0


def test_a_misaligned_atomic_is_a_plain_value_error() -> None:
    """At every offset that is no multiple of the size, load and exchange are ValueError."""
    segment = Segment.alloc(1)
    for pod in (u32, u64):
        for offset in range(1, pod.size):
            reader = segment.reader().skip(offset).to_fallible()
            writer = segment.writer().skip(offset).to_fallible()
            with pytest.raises(ValueError, match="align") as caught:
                reader.atomic_load(pod)
            assert not isinstance(caught.value, ProcvmError)
            with pytest.raises(ValueError, match="align") as caught:
                writer.atomic_compare_exchange(reader, pod, 0, 1)
            assert not isinstance(caught.value, ProcvmError)
    assert segment.read_bytes(0, 16) == bytes(16)


@pytest.mark.parametrize("pod", [u8, u16, f32, f64, Pair, ctypes.c_uint32, int, None])
def test_atomics_take_only_types_that_have_them(pod: Any) -> None:
    """A type that is no PodAtomic is a TypeError in a load and in an exchange."""
    segment = Segment.alloc(1)
    reader: Any = segment.reader().to_fallible()
    writer: Any = segment.writer().to_fallible()
    with pytest.raises(TypeError):
        reader.atomic_load(pod)
    with pytest.raises(TypeError):
        writer.atomic_compare_exchange(reader, pod, 0, 1)
    assert segment.read_bytes(0, 16) == bytes(16)


# Faults: values


def test_a_fault_in_a_value_leaves_the_cursor_where_it_was() -> None:
    """At every offset around an edge a value that is cut by it raises, and the cursor stays."""
    fake = Holed("rw rw hole")
    edge = BASE + 32
    reads: list[Callable[[VmReader[Fallible]], object]] = [
        lambda r: r.read_val(u64),
        lambda r: r.read_bytes(8),
        lambda r: r.read_slice(u16, 4),
    ]
    for k in range(1, 9):
        start = edge - 8 + k
        for read in reads:
            reader = fake.reader(start, 40)
            with pytest.raises(PageFaultError) as caught:
                read(reader)
            assert (caught.value.address, caught.value.copied_len) == (edge, 8 - k)
            assert (reader.cursor(), reader.remain()) == (start, 40)
    reader = fake.reader(edge - 8, 40)
    reader.read_val(u64)
    assert reader.cursor() == edge


def test_a_fault_in_a_written_value_leaves_the_cursor_and_tells_what_was_written() -> None:
    """The bytes before the edge were written, `copied_len` says how many, the cursor stays."""
    edge = BASE + 16
    writes: list[Callable[[VmWriter[Fallible]], None]] = [
        lambda w: w.write_val(u64, 0xFFFFFFFFFFFFFFFF),
        lambda w: w.write_bytes(b"\xff" * 8),
        lambda w: w.write_slice(u16, [0xFFFF] * 4),
    ]
    for k in range(1, 9):
        start = edge - 8 + k
        for write in writes:
            fake = Holed("rw r")
            before = fake.peek(BASE, 32)
            writer = fake.writer(start, 16)
            with pytest.raises(PageFaultError) as caught:
                write(writer)
            assert (caught.value.address, caught.value.copied_len) == (edge, 8 - k)
            assert (writer.cursor(), writer.avail()) == (start, 16)
            expected = bytearray(before)
            expected[start - BASE : 16] = b"\xff" * (8 - k)
            assert fake.peek(BASE, 32) == expected


def test_zeros_stop_at_a_fault_and_the_cursor_stands_after_them() -> None:
    """`fill_zeros` raises with the zeros written so far and moves by them."""
    for n in range(17):
        fake = Holed("rw none")
        before = fake.peek(BASE, 32)
        start = BASE + 16 - n
        writer = fake.writer(start, n + 10)
        with pytest.raises(PageFaultError) as caught:
            writer.fill_zeros(n + 5)
        assert (caught.value.address, caught.value.copied_len) == (BASE + 16, n)
        assert (writer.cursor(), writer.avail()) == (BASE + 16, 10)
        assert fake.peek(BASE, 32) == before[: 16 - n] + bytes(n) + before[16:]


def test_zeros_past_the_length_of_one_step_stop_exactly() -> None:
    """A fault far behind the start of a long fill is told to the byte."""
    pages = 70
    fake = Holed("rw " * pages + "hole", page_len=4096)
    edge = BASE + pages * 4096
    for n in (BOUNCE_LEN - 1, BOUNCE_LEN, BOUNCE_LEN + 1, BOUNCE_LEN + 4097):
        writer = fake.writer(edge - n, n + 100)
        with pytest.raises(PageFaultError) as caught:
            writer.fill_zeros(n + 50)
        assert (caught.value.address, caught.value.copied_len) == (edge, n)
        assert (writer.cursor(), writer.avail()) == (edge, 100)
        assert fake.peek(edge - n, n) == bytes(n)


# Faults: streams between a fallible memory and own memory


def test_a_read_into_own_memory_stops_at_the_edge_with_both_cursors_after_it() -> None:
    """At every offset before the edge the bytes arrive, the rest of the buffer is untouched."""
    fake = Holed("rw r hole")
    edge = BASE + 32
    for k in range(33):
        for turned in (False, True):
            out = bytearray(b"\xee" * 40)
            reader = fake.reader(edge - k, k + 8)
            writer = VmWriter.from_buffer(out)
            start = writer.cursor()
            with pytest.raises(PageFaultError) as caught:
                writer.write_fallible(reader) if turned else reader.read_fallible(writer)
            assert (caught.value.address, caught.value.copied_len) == (edge, k)
            assert (reader.cursor(), reader.remain()) == (edge, 8)
            assert (writer.cursor(), writer.avail()) == (start + k, 40 - k)
            assert out == fake.peek(edge - k, k) + b"\xee" * (40 - k)


def test_a_write_from_own_memory_stops_at_the_edge_with_both_cursors_after_it() -> None:
    """At every offset before the edge the bytes were written, the rest of the page was not."""
    edge = BASE + 32
    data = bytes(range(100, 140))
    for k in range(33):
        for turned in (False, True):
            fake = Holed("wo rw r")
            before = fake.peek(BASE, 48)
            reader = VmReader.from_buffer(data)
            start = reader.cursor()
            writer = fake.writer(edge - k, 16 + k)
            with pytest.raises(PageFaultError) as caught:
                reader.read_fallible(writer) if turned else writer.write_fallible(reader)
            assert (caught.value.address, caught.value.copied_len) == (edge, k)
            assert (writer.cursor(), writer.avail()) == (edge, 16)
            assert (reader.cursor(), reader.remain()) == (start + k, 40 - k)
            assert fake.peek(BASE, 48) == before[: 32 - k] + data[:k] + before[32:]


def test_after_a_fault_the_cursor_can_go_on_behind_the_hole() -> None:
    """Skipping the bad page and reading on gives the bytes behind it."""
    fake = Holed("rw hole rw")
    out = bytearray(48)
    reader, writer = fake.reader(BASE, 48), VmWriter.from_buffer(out)
    with pytest.raises(PageFaultError) as caught:
        reader.read_fallible(writer)
    assert caught.value.copied_len == 16
    reader.skip(16)
    writer.skip(16)
    assert reader.read_fallible(writer) == 16
    assert out == fake.peek(BASE, 16) + bytes(16) + fake.peek(BASE + 32, 16)


# Faults: streams between two fallible memories


def _good_len(fake: Holed, address: int, n: int, need: str) -> int:
    for k in range(n):
        if need not in fake.perms.get((address + k) // fake.page_len, ""):
            return k
    return n


def _check_copy(src: Holed, src_at: int, dst: Holed, dst_at: int, n: int) -> None:
    """Copies between two fakes and checks everything against what their pages allow."""
    readable = _good_len(src, src_at, n, "r")
    writable = _good_len(dst, dst_at, n, "w")
    done = min(readable, writable)
    before, data = dst.peek(dst_at, n), src.peek(src_at, done)
    reader, writer = src.reader(src_at, n), dst.writer(dst_at, n)
    if done == n:
        assert reader.read_fallible(writer) == n
    else:
        with pytest.raises(PageFaultError) as caught:
            reader.read_fallible(writer)
        assert caught.value.copied_len == done
        # A load comes before its store, so the source's fault is first in a tie.
        bad = src_at + done if readable <= writable else dst_at + done
        assert caught.value.address == bad
    assert (reader.cursor(), reader.remain()) == (src_at + done, n - done)
    assert (writer.cursor(), writer.avail()) == (dst_at + done, n - done)
    assert dst.peek(dst_at, n) == data + before[done:]


def test_a_copy_between_two_targets_is_exact_at_every_pair_of_offsets() -> None:
    """Whichever side faults first, what was read and written counts, and nothing else does."""
    for src_gap in range(0, 34, 3):
        for dst_gap in range(34):
            for n in (1, 17, 36):
                src, dst = Holed("rw r none"), Holed("wo rw r", base=0x40000)
                src_at, dst_at = BASE + 32 - src_gap, 0x40000 + 32 - dst_gap
                _check_copy(src, src_at, dst, dst_at, n)


@pytest.mark.parametrize("src_delta", [-1, 0, 1])
@pytest.mark.parametrize("dst_delta", [-1, 0, 1])
@pytest.mark.parametrize("src_base", [BOUNCE_LEN, 2 * BOUNCE_LEN, 4096])
@pytest.mark.parametrize("dst_base", [BOUNCE_LEN, 2 * BOUNCE_LEN])
def test_a_long_copy_between_two_targets_is_exact_around_the_bounce_buffer(
    src_base: int, src_delta: int, dst_base: int, dst_delta: int
) -> None:
    """A fault of either side just before, at and after a whole buffer is told to the byte."""
    pages = 130
    size = pages * 4096
    src = Holed("r " * pages + "hole", page_len=4096)
    dst = Holed("rw " * pages + "r", page_len=4096, base=0x4000000)
    src_at = BASE + size - (src_base + src_delta)
    dst_at = 0x4000000 + size - (dst_base + dst_delta)
    n = 2 * BOUNCE_LEN + 4096
    readable, writable = src_base + src_delta, dst_base + dst_delta
    done = min(readable, writable)
    data, before = src.peek(src_at, done), dst.peek(dst_at, n)
    reader, writer = src.reader(src_at, n), dst.writer(dst_at, n)
    with pytest.raises(PageFaultError) as caught:
        reader.read_fallible(writer)
    assert caught.value.copied_len == done
    assert caught.value.address == (src_at if readable <= writable else dst_at) + done
    assert (reader.cursor(), writer.cursor()) == (src_at + done, dst_at + done)
    assert dst.peek(dst_at, n) == data + before[done:]


def test_a_long_copy_between_two_targets_is_whole() -> None:
    """Three bounce buffers and a bit arrive without a byte lost or doubled."""
    src = Holed("r " * 200, page_len=4096)
    dst = Holed("wo " * 200, page_len=4096, base=0x4000000)
    n = 3 * BOUNCE_LEN + 777
    reader, writer = src.reader(BASE + 5, n), dst.writer(0x4000000 + 9, n + 1)
    assert writer.write_fallible(reader) == n
    assert (reader.remain(), writer.avail()) == (0, 1)
    assert dst.peek(0x4000000 + 9, n) == src.peek(BASE + 5, n)


def test_an_overlapping_copy_within_one_target_is_as_with_memmove() -> None:
    """Every shift inside one space gives what slicing a snapshot of it gives."""
    for source in range(0, 33, 4):
        for destination in range(33):
            fake = Holed("rw rw rw rw")
            before = fake.peek(BASE, 64)
            expected = bytearray(before)
            expected[destination : destination + 31] = before[source : source + 31]
            reader, writer = fake.reader(BASE + source, 31), fake.writer(BASE + destination, 31)
            assert reader.read_fallible(writer) == 31
            assert fake.peek(BASE, 64) == expected


@pytest.mark.parametrize("shift", [1, 4096, BOUNCE_LEN - 1, BOUNCE_LEN, BOUNCE_LEN + 1, -1, -4097])
@pytest.mark.parametrize("forced", [False, True])
def test_a_long_overlapping_copy_within_one_target_is_as_with_memmove(
    shift: int, forced: bool
) -> None:
    """The same for more than a bounce buffer, also where the two sides are views of one space."""
    fake = Holed("rw " * 210, page_len=4096)
    n = 2 * BOUNCE_LEN + 1000
    src_at = BASE + 8192
    dst_at = src_at + shift
    data = fake.peek(src_at, n)
    reader = fake.reader(src_at, n)
    writer = (fake.forced() if forced else fake).writer(dst_at, n)
    assert reader.read_fallible(writer) == n
    assert fake.peek(dst_at, n) == data
    assert (reader.remain(), writer.avail()) == (0, 0)


def test_an_overlapping_copy_that_faults_has_moved_exactly_what_it_says() -> None:
    """A fault in an overlapping copy leaves `copied_len` bytes moved as memmove moves them."""
    for source in range(33):
        for destination in range(33):
            fake = Holed("rw rw rw hole")
            before = fake.peek(BASE, 48)
            n = 48
            done = 48 - max(source, destination)
            expected = bytearray(before)
            expected[destination : destination + done] = before[source : source + done]
            reader, writer = fake.reader(BASE + source, n), fake.writer(BASE + destination, n)
            if done == n:
                assert reader.read_fallible(writer) == n
            else:
                with pytest.raises(PageFaultError) as caught:
                    reader.read_fallible(writer)
                assert (caught.value.copied_len, caught.value.address) == (done, BASE + 48)
            assert fake.peek(BASE, 48) == expected
            assert (reader.cursor(), writer.cursor()) == (
                BASE + source + done,
                BASE + destination + done,
            )


def test_an_overlapping_copy_far_larger_than_our_memory_is_no_memory_error() -> None:
    """It is refused with nothing moved, or it goes as far as it can: never a foreign error."""
    fake = Holed("rw rw rw hole")
    before = fake.peek(BASE, 48)
    n = 2**46
    reader, writer = fake.reader(BASE, n), fake.writer(BASE + 16, n)
    with pytest.raises((PageFaultError, InvalidArgsError)) as caught:
        reader.read_fallible(writer)
    done = caught.value.copied_len
    assert done == (32 if isinstance(caught.value, PageFaultError) else 0)
    assert fake.peek(BASE, 48) == before[:16] + before[:done] + before[16 + done :]
    assert (reader.cursor(), writer.cursor()) == (BASE + done, BASE + 16 + done)


def test_a_signal_handler_that_copies_does_not_disturb_the_copy_it_interrupts() -> None:
    """A copy made by a handler between the read and the write of another leaves that one whole."""

    class Interrupted(Holed):
        def write(self, address: int, own_address: int, n: int) -> None:
            signal.raise_signal(signal.SIGUSR1)
            super().write(address, own_address, n)

    src, dst = Holed("rw"), Interrupted("rw", base=0x40000)
    other_src, other_dst = Holed("rw"), Holed("rw", base=0x40000)
    other_src.poke(BASE, b"\xff" * 16)

    def handle(*_: object) -> None:
        assert other_src.reader(BASE, 16).read_fallible(other_dst.writer(0x40000, 16)) == 16

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        assert src.reader(BASE, 16).read_fallible(dst.writer(0x40000, 16)) == 16
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert other_dst.peek(0x40000, 16) == b"\xff" * 16
    assert dst.peek(0x40000, 16) == src.peek(BASE, 16)


# Device memory among the cursors


def test_device_memory_needs_to_fallible_to_be_streamed() -> None:
    """An Io cursor is TypeError to `read` and to `read_fallible` with own memory alone."""
    segment = Segment.alloc(1, shared=True)
    with IoMem.open(f"/proc/self/fd/{segment.fd}", 0, 16) as device:
        out = bytearray(16)
        with pytest.raises(TypeError):
            device.reader().read(VmWriter.from_buffer(out))  # type: ignore[misc]
        with pytest.raises(TypeError):
            device.reader().read_fallible(VmWriter.from_buffer(out))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            device.writer().write(VmReader.from_buffer(out))  # type: ignore[misc]
        device.writer().write_val(u64, 5)
        assert device.reader().to_fallible().read_fallible(VmWriter.from_buffer(out)) == 16
        assert out == b"\5" + bytes(15)
