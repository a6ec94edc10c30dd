"""Objects of memory: VmIo, VmIoFill, VmIoOnce, and those that are made of them."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import procvm
from procvm import (
    AccessDeniedError,
    AddressOverflowError,
    ClosedError,
    HasVmReaderWriter,
    Infallible,
    InvalidArgsError,
    IoMem,
    PageFaultError,
    Pod,
    PodOnce,
    ProcvmError,
    Segment,
    UnsupportedError,
    VmError,
    VmIo,
    VmIoFill,
    VmIoOnce,
    VmReader,
    VmSpace,
    VmWriter,
    f32,
    f64,
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
from procvm._base.pods import PodAtomic
from tests.support.fakes import BASE, PID, Holed

PAGE = os.sysconf("SC_PAGESIZE")
NOT_INTEGERS = [True, 1.5, "0x10", None, np.True_, np.float64(1)]


class Pair(ctypes.Structure):
    _fields_ = (("low", ctypes.c_uint32), ("high", ctypes.c_uint32))


class Shelf(HasVmReaderWriter):
    """A user's object: nothing but a reader and a writer of 64 bytes."""

    def __init__(self) -> None:
        self.memory = bytearray(64)

    def reader(self) -> VmReader[Infallible]:
        return VmReader.from_buffer(self.memory)

    def writer(self) -> VmWriter[Infallible]:
        return VmWriter.from_buffer(self.memory)


class Window(HasVmReaderWriter):
    """A user's object over part of a fallible memory."""

    def __init__(self, memory: Holed, n: int) -> None:
        self.memory = memory
        self.n = n

    def reader(self) -> VmReader[Any]:
        return self.memory.reader(BASE, self.n)

    def writer(self) -> VmWriter[Any]:
        return self.memory.writer(BASE, self.n)


class Tape(VmIo):
    """A user's object with `read` and `write` alone, 64 bytes."""

    def __init__(self) -> None:
        self.memory = bytearray(64)

    def read(self, offset: int, writer: VmWriter[Any]) -> None:
        if offset + writer.avail() > len(self.memory):
            raise InvalidArgsError("behind the end of the tape")
        part = bytes(self.memory[offset : offset + writer.avail()])
        VmReader.from_buffer(part).to_fallible().read_fallible(writer)

    def write(self, offset: int, reader: VmReader[Any]) -> None:
        if offset + reader.remain() > len(self.memory):
            raise InvalidArgsError("behind the end of the tape")
        n = reader.remain()
        self.memory[offset : offset + n] = reader.read_bytes(n)


@pytest.fixture(params=["private", "shared", "shelf", "device"])
def thing(request: pytest.FixtureRequest) -> Iterator[HasVmReaderWriter]:
    """An object of 64 bytes or a page, all 0."""
    if request.param == "shelf":
        yield Shelf()
    elif request.param == "device":
        with Segment.alloc(1, shared=True) as pages:
            yield IoMem.open(f"/proc/self/fd/{pages.fd}", 0, PAGE)
    else:
        with Segment.alloc(1, shared=request.param == "shared") as segment:
            yield segment


def size_of(thing: HasVmReaderWriter) -> int:
    return thing.reader().remain()


def all_of(thing: HasVmReaderWriter) -> bytes:
    return thing.read_bytes(0, size_of(thing))


def descriptors() -> set[str]:
    """The tool's own, but for the one that lists them."""
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


# What a reader and a writer are enough for


def test_a_reader_and_a_writer_make_an_object_of_all_three_kinds(
    thing: HasVmReaderWriter,
) -> None:
    """Whoever has `reader` and `writer` is a VmIo, a VmIoFill and a VmIoOnce, and all work."""
    assert isinstance(thing, VmIo)
    assert isinstance(thing, VmIoFill)
    assert isinstance(thing, VmIoOnce)
    thing.write_val(8, u64, 0x1112131415161718)
    assert thing.read_val(8, u64) == thing.read_once(8, u64) == 0x1112131415161718
    thing.write_once(16, u32, 7)
    assert thing.read_slice(16, u32, 2) == [7, 0]
    thing.write_slice(24, u16, [1, 2, 3])
    assert thing.read_bytes(24, 6) == b"\1\0\2\0\3\0"
    thing.write_bytes(32, b"\xff" * 8)
    thing.fill_zeros(33, 3)
    buffer = bytearray(8)
    thing.read_into(32, buffer)
    assert buffer == b"\xff\0\0\0\xff\xff\xff\xff"


def test_an_object_without_its_methods_can_not_be_made() -> None:
    """A class that lacks `read`, `write`, `reader` or `writer` is a TypeError to call."""

    class Half(VmIo):
        def read(self, offset: int, writer: VmWriter[Any]) -> None: ...

    class Quarter(HasVmReaderWriter):
        def reader(self) -> VmReader[Any]:
            return VmReader.from_buffer(b"")

    kinds: list[Any] = [Half, Quarter, VmIo, VmIoFill, VmIoOnce, HasVmReaderWriter]
    for kind in kinds:
        with pytest.raises(TypeError):
            kind()


def test_read_and_write_alone_make_all_of_vmio() -> None:
    """A user's `read` and `write` are enough for bytes, values, slices and structures."""
    tape = Tape()
    tape.write_val(1, u32, 0x01020304)
    assert tape.memory[1:5] == b"\4\3\2\1"
    assert tape.read_val(1, u32) == 0x01020304
    tape.write_val(8, Pair, Pair(1, 2))
    pair = tape.read_val(8, Pair)
    assert (type(pair), pair.low, pair.high) == (Pair, 1, 2)
    tape.write_slice(16, f64, [0.5, -1.5])
    assert tape.read_slice(16, f64, 2) == [0.5, -1.5]
    tape.write_bytes(40, b"abc")
    buffer = bytearray(5)
    tape.read_into(39, buffer)
    assert buffer == b"\0abc\0"
    assert tape.read_bytes(64, 0) == b""
    with pytest.raises(InvalidArgsError):
        tape.read_bytes(61, 4)
    with pytest.raises(InvalidArgsError):
        tape.write_bytes(61, b"abcd")


# A user's read is not trusted


class Lazy(VmIo):
    """A user's object whose `read` and `write` do what they are told to, and no more."""

    def __init__(self, behave: Callable[[Any], object]) -> None:
        self.behave = behave

    def read(self, offset: int, writer: VmWriter[Any]) -> None:
        self.behave(writer)

    def write(self, offset: int, reader: VmReader[Any]) -> None:
        self.behave(reader)


SHORT: dict[str, Callable[[Any], object]] = {
    "does nothing": lambda _: None,
    "fills a part": lambda cursor: cursor.write_bytes(b"\1"),
}


@pytest.mark.parametrize("case", SHORT)
@pytest.mark.parametrize("n", [2, 8, 1000])
def test_a_read_that_leaves_bytes_out_is_an_error(case: str, n: int) -> None:
    """No short reads: bytes that a user's `read` left out raise, they are never made up."""
    lazy = Lazy(SHORT[case])
    for call in (
        lambda: lazy.read_bytes(0, n),
        lambda: lazy.read_into(0, bytearray(n)),
        lambda: lazy.read_slice(0, u16, n // 2),
        lambda: lazy.read_val(0, u64),
        lambda: lazy.read_val(0, Pair),
    ):
        with pytest.raises(VmError) as caught:
            call()
        assert not isinstance(caught.value, PageFaultError)


def _dirty_the_heap(n: int) -> None:
    """Frees blocks full of 0xAA of the sizes that an object of `n` bytes may take."""
    blocks = [b"\xaa" * (n + k) for k in range(-8, 9) for _ in range(20) if n + k > 0]
    del blocks


CHEATS: dict[str, Callable[[Any], object]] = {
    "skips": lambda cursor: cursor.skip(cursor.avail()),
    "limits": lambda cursor: cursor.limit(0),
}


@pytest.mark.parametrize("case", CHEATS)
@pytest.mark.parametrize("n", [8, 100, 1000])
def test_a_read_that_only_moves_the_writer_never_shows_our_own_heap(case: str, n: int) -> None:
    """Bytes that an untrusted `read` skipped are an error or 0, never what was in our memory."""
    lazy = Lazy(CHEATS[case])
    for _ in range(20):
        _dirty_the_heap(n)
        try:
            data = lazy.read_bytes(0, n)
        except VmError:
            continue
        assert data == bytes(n)


@pytest.mark.parametrize("case", CHEATS)
def test_a_value_that_an_untrusted_read_skipped_is_never_our_own_heap(case: str) -> None:
    """The seed zeroes the value first for this very case: an error or 0."""
    lazy = Lazy(CHEATS[case])
    for _ in range(20):
        _dirty_the_heap(8)
        try:
            value = lazy.read_val(0, u64)
        except VmError:
            continue
        assert value == 0


def test_a_limited_writer_does_not_pass_for_a_filled_one() -> None:
    """A `read` that shortens the writer instead of filling it has left bytes out: VmError."""
    lazy = Lazy(lambda cursor: cursor.limit(0))
    buffer = bytearray(b"\xee" * 8)
    with pytest.raises(VmError):
        lazy.read_into(0, buffer)
    assert buffer == b"\xee" * 8


def test_bytes_that_were_read_can_not_be_changed_by_a_writer_that_was_kept() -> None:
    """A user's `read` that keeps a clone of its writer can not reach the bytes it returned."""
    kept: list[VmWriter[Any]] = []

    def keep(writer: VmWriter[Any]) -> None:
        kept.append(writer.clone_exclusive())
        writer.write_bytes(b"constant")

    data = Lazy(keep).read_bytes(0, 8)
    assert data == b"constant"
    kept[0].write_bytes(b"changed!")
    assert data == b"constant"


def test_a_write_that_leaves_bytes_is_an_error() -> None:
    """No short writes: bytes that a user's `write` did not take raise."""
    writes: list[Callable[[VmIo], None]] = [
        lambda lazy: lazy.write_bytes(0, b"abc"),
        lambda lazy: lazy.write_val(0, u16, 1),
        lambda lazy: lazy.write_slice(0, u8, [1, 2]),
    ]
    for behave in (lambda _: None, lambda reader: reader.skip(1)):
        for write in writes:
            with pytest.raises(VmError) as caught:
                write(Lazy(behave))
            assert not isinstance(caught.value, PageFaultError)


# Ranges


def test_the_last_byte_is_inside_and_the_next_is_not(thing: HasVmReaderWriter) -> None:
    """A range that ends at the end works; one byte more is InvalidArgsError, nothing touched."""
    end = size_of(thing)
    thing.write_val(end - 8, u64, 2**64 - 1)
    assert thing.read_val(end - 8, u64) == 2**64 - 1
    before = all_of(thing)
    buffer = bytearray(b"\xee" * 9)
    for call in (
        lambda: thing.read_bytes(end - 8, 9),
        lambda: thing.read_into(end - 8, buffer),
        lambda: thing.read_val(end - 7, u64),
        lambda: thing.read_slice(end - 8, u8, 9),
        lambda: thing.read_once(end, u64),
        lambda: thing.write_bytes(end - 8, bytes(9)),
        lambda: thing.write_val(end - 7, u64, 0),
        lambda: thing.write_slice(end - 8, u8, bytes(9)),
        lambda: thing.write_once(end, u64, 0),
        lambda: thing.read_val(end + 1, u8),
        lambda: thing.write_val(2**63, u8, 0),
    ):
        with pytest.raises(InvalidArgsError) as caught:
            call()
        assert caught.value.copied_len == 0
    assert buffer == b"\xee" * 9
    assert all_of(thing) == before


def test_a_stream_that_does_not_fit_moves_no_cursor(thing: HasVmReaderWriter) -> None:
    """`read` and `write` of a range that does not fit leave cursor, buffer and object alone."""
    end = size_of(thing)
    out = bytearray(b"\xee" * 8)
    writer, reader = VmWriter.from_buffer(out), VmReader.from_buffer(b"\xff" * 8)
    for offset, error in (
        (end - 7, InvalidArgsError),
        (end + 1, InvalidArgsError),
        (-1, InvalidArgsError),
        (2**64 - 7, AddressOverflowError),
        (2**64, AddressOverflowError),
    ):
        with pytest.raises(error) as caught:
            thing.read(offset, writer)
        assert type(caught.value) is error
        with pytest.raises(error) as caught:
            thing.write(offset, reader)
        assert type(caught.value) is error
    assert (writer.avail(), reader.remain()) == (8, 8)
    assert out == b"\xee" * 8
    assert all_of(thing) == bytes(end)


def test_a_stream_fills_all_of_the_writer(thing: HasVmReaderWriter) -> None:
    """`read` and `write` take the whole of the other side, at the offset given."""
    reader = VmReader.from_buffer(b"abcdefgh").skip(1).limit(6)
    assert thing.write(3, reader) is None  # type: ignore[func-returns-value]
    assert reader.remain() == 0
    out = bytearray(10)
    writer = VmWriter.from_buffer(out).skip(1).limit(8)
    assert thing.read(2, writer) is None  # type: ignore[func-returns-value]
    assert writer.avail() == 0
    assert out == b"\0\0bcdefg\0\0"


Access = Callable[[Any, Any], object]

OFFSETS: dict[str, Access] = {
    "read_bytes": lambda o, offset: o.read_bytes(offset, 8),
    "read_into": lambda o, offset: o.read_into(offset, bytearray(8)),
    "read_val": lambda o, offset: o.read_val(offset, u64),
    "read_val, structure": lambda o, offset: o.read_val(offset, Pair),
    "read_slice": lambda o, offset: o.read_slice(offset, u32, 2),
    "read": lambda o, offset: o.read(offset, VmWriter.from_buffer(bytearray(8))),
    "read_once": lambda o, offset: o.read_once(offset, u64),
    "write_bytes": lambda o, offset: o.write_bytes(offset, b"\xff" * 8),
    "write_val": lambda o, offset: o.write_val(offset, u64, 1),
    "write_slice": lambda o, offset: o.write_slice(offset, u32, [1, 2]),
    "write": lambda o, offset: o.write(offset, VmReader.from_buffer(b"\xff" * 8)),
    "write_once": lambda o, offset: o.write_once(offset, u64, 1),
    "fill_zeros": lambda o, offset: o.fill_zeros(offset, 8),
}


@pytest.mark.parametrize("access", OFFSETS)
@pytest.mark.parametrize(
    ("offset", "error"),
    [
        (-1, InvalidArgsError),
        (-(2**64), InvalidArgsError),
        (2**64 - 7, AddressOverflowError),
        (2**64 - 1, AddressOverflowError),
        (2**64, AddressOverflowError),
        (2**64 + 8, AddressOverflowError),
        (2**64 - 8, InvalidArgsError),
        (True, TypeError),
        (1.5, TypeError),
        ("0x10", TypeError),
        (None, TypeError),
    ],
)
def test_an_offset_that_is_none_is_refused_before_anything_is_touched(
    thing: HasVmReaderWriter, access: str, offset: Any, error: type[Exception]
) -> None:
    """Negative: InvalidArgsError; past 2^64: AddressOverflowError; no integer: TypeError."""
    thing.write_bytes(0, b"\x77" * 64)
    with pytest.raises(error) as caught:
        OFFSETS[access](thing, offset)
    assert type(caught.value) is error
    assert thing.read_bytes(0, 64) == b"\x77" * 64


COUNTS: dict[str, Access] = {
    "read_bytes": lambda o, n: o.read_bytes(0, n),
    "read_slice": lambda o, n: o.read_slice(0, u8, n),
    "fill_zeros": lambda o, n: o.fill_zeros(0, n),
}


@pytest.mark.parametrize("access", COUNTS)
@pytest.mark.parametrize(
    ("n", "error"),
    [
        (-1, InvalidArgsError),
        (2**64 + 8, AddressOverflowError),
        (True, TypeError),
        (1.5, TypeError),
        ("0x10", TypeError),
        (None, TypeError),
    ],
)
def test_a_count_that_is_none_is_refused_before_anything_is_touched(
    thing: HasVmReaderWriter, access: str, n: Any, error: type[Exception]
) -> None:
    """Negative: InvalidArgsError; past 2^64: AddressOverflowError; no integer: TypeError."""
    thing.write_bytes(0, b"\x77" * 64)
    with pytest.raises(error) as caught:
        COUNTS[access](thing, n)
    assert type(caught.value) is error
    assert thing.read_bytes(0, 64) == b"\x77" * 64


@pytest.mark.parametrize("n", [2**31, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64])
def test_a_count_far_too_large_is_invalid_args(thing: HasVmReaderWriter, n: int) -> None:
    """A count that does not fit the object is InvalidArgsError however large it is."""
    for call in (lambda: thing.read_bytes(0, n), lambda: thing.read_slice(0, u8, n)):
        with pytest.raises(InvalidArgsError) as caught:
            call()
        assert caught.value.copied_len == 0


def test_a_count_that_does_not_fit_allocates_nothing(thing: HasVmReaderWriter) -> None:
    """A range far behind the end is refused before there is a buffer for it."""
    tracemalloc.start()
    try:
        for call in (
            lambda: thing.read_bytes(0, 2**28),
            lambda: thing.read_slice(0, u64, 2**25),
            lambda: thing.reader().read_bytes(2**28),
        ):
            with pytest.raises(InvalidArgsError):
                call()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_count_times_a_size_does_not_wrap(thing: HasVmReaderWriter) -> None:
    """2^61 values of 8 bytes are 2^64 bytes, not 0: InvalidArgsError; one more overflows."""
    with pytest.raises(InvalidArgsError):
        thing.read_slice(0, u64, 2**61)
    with pytest.raises(AddressOverflowError):
        thing.read_slice(0, u64, 2**61 + 1)


def test_numpy_integers_are_offsets_and_counts(thing: HasVmReaderWriter) -> None:
    """A numpy integer of any width is taken for what it says."""
    untyped: Any = thing
    untyped.write_val(np.uint8(8), u8, np.uint8(255))
    assert untyped.read_bytes(np.uint64(8), np.int16(2)) == b"\xff\0"
    assert untyped.read_slice(np.int32(8), u8, np.uint8(1)) == [255]
    untyped.fill_zeros(np.uint8(8), np.uint8(1))
    assert untyped.read_val(np.int64(8), u8) == 0


def test_a_length_of_zero_succeeds_up_to_the_end(thing: HasVmReaderWriter) -> None:
    """Nothing is read, written or filled, and nothing is wrong, at every offset to the end."""
    end = size_of(thing)
    for offset in (0, 1, end - 1, end):
        assert thing.read_bytes(offset, 0) == b""
        assert thing.read_slice(offset, u64, 0) == []
        thing.read_into(offset, bytearray())
        thing.read(offset, VmWriter.from_buffer(bytearray()))
        thing.write_bytes(offset, b"")
        thing.write_slice(offset, u64, [])
        thing.write(offset, VmReader.from_buffer(b""))
        thing.fill_zeros(offset, 0)
    assert all_of(thing) == bytes(end)


EMPTY: dict[str, Access] = {
    "read_bytes": lambda o, offset: o.read_bytes(offset, 0),
    "read_slice": lambda o, offset: o.read_slice(offset, u64, 0),
    "read_into": lambda o, offset: o.read_into(offset, bytearray()),
    "read": lambda o, offset: o.read(offset, VmWriter.from_buffer(bytearray())),
    "write_bytes": lambda o, offset: o.write_bytes(offset, b""),
    "write_slice": lambda o, offset: o.write_slice(offset, u64, []),
    "write": lambda o, offset: o.write(offset, VmReader.from_buffer(b"")),
    "fill_zeros": lambda o, offset: o.fill_zeros(offset, 0),
}


@pytest.mark.parametrize("access", EMPTY)
def test_a_length_of_zero_behind_the_end_does_not_fit(
    thing: HasVmReaderWriter, access: str
) -> None:
    """As in the seed an offset behind the end does not fit, whatever the length, for each call."""
    with pytest.raises(InvalidArgsError):
        EMPTY[access](thing, size_of(thing) + 1)


# Values


@pytest.mark.parametrize("pod", [u8, u16, u32, u64, usize, i8, i16, i32, i64, isize])
def test_once_moves_its_own_width_and_nothing_beside_it(
    thing: HasVmReaderWriter, pod: PodOnce[int]
) -> None:
    """A store of each width changes exactly its bytes, and a load gives them back."""
    thing.write_bytes(0, b"\x77" * 64)
    thing.write_once(16, pod, 1)
    assert thing.read_once(16, pod) == 1
    one = (1).to_bytes(pod.size, sys.byteorder)
    assert thing.read_bytes(0, 64) == b"\x77" * 16 + one + b"\x77" * (48 - pod.size)


@pytest.mark.parametrize("pod", [u16, u32, u64, i16, i32, i64])
def test_once_at_a_misaligned_offset_is_a_plain_value_error(
    thing: HasVmReaderWriter, pod: PodOnce[int]
) -> None:
    """An offset that is no multiple of the width is ValueError, and nothing is stored."""
    shift = thing.reader().cursor() % 8  # a bytearray may begin anywhere
    for offset in range(1, pod.size):
        place = 8 - shift + offset
        with pytest.raises(ValueError, match="align") as caught:
            thing.read_once(place, pod)
        assert not isinstance(caught.value, ProcvmError)
        with pytest.raises(ValueError, match="align") as caught:
            thing.write_once(place, pod, 1)
        assert not isinstance(caught.value, ProcvmError)
    assert all_of(thing) == bytes(size_of(thing))


@pytest.mark.parametrize("pod", [f32, f64, Pair, ctypes.c_uint32, int, "u32", None])
def test_once_of_a_type_that_one_access_can_not_move_is_a_type_error(
    thing: HasVmReaderWriter, pod: Any
) -> None:
    """What is no PodOnce is a TypeError to `read_once` and `write_once`; nothing is stored."""
    with pytest.raises(TypeError):
        thing.read_once(0, pod)
    with pytest.raises(TypeError):
        thing.write_once(0, pod, 0)


@pytest.mark.parametrize("pod", [int, str, bytes, "u32", None, 4, ctypes.c_char_p, object()])
def test_a_type_that_is_no_pod_is_a_type_error(thing: HasVmReaderWriter, pod: Any) -> None:
    """What is no plain data is a TypeError wherever a pod is taken."""
    for call in (
        lambda: thing.read_val(0, pod),
        lambda: thing.read_slice(0, pod, 1),
        lambda: thing.write_val(0, pod, 0),
        lambda: thing.write_slice(0, pod, [0]),
        lambda: thing.reader().read_val(pod),
        lambda: thing.writer().write_val(pod, 0),
    ):
        with pytest.raises(TypeError):
            call()


def test_a_value_out_of_range_changes_nothing(thing: HasVmReaderWriter) -> None:
    """OverflowError, or TypeError for a wrong type, before any byte of any value is written."""
    thing.write_bytes(0, b"\x77" * 16)
    untyped: Any = thing
    for call, error in (
        (lambda: thing.write_val(0, u8, 256), OverflowError),
        (lambda: thing.write_once(0, u8, 256), OverflowError),
        (lambda: thing.write_once(0, i16, -32769), OverflowError),
        (lambda: thing.write_slice(0, u16, [1, 2, -1]), OverflowError),
        (lambda: untyped.write_val(0, u32, "1"), TypeError),
        (lambda: untyped.write_once(0, u32, 1.0), TypeError),
        (lambda: untyped.write_val(0, Pair, (1, 2)), TypeError),
        (lambda: untyped.write_slice(0, Pair, [Pair(), 3]), TypeError),
    ):
        with pytest.raises(error):
            call()
    assert thing.read_bytes(0, 16) == b"\x77" * 16


def test_read_into_takes_writable_buffers_only(thing: HasVmReaderWriter) -> None:
    """A read-only buffer, one with gaps and a thing without a buffer are a TypeError."""
    constant = bytes(bytearray(b"constant"))
    for buffer in (constant, memoryview(bytearray(8))[::2], None, "text", 8):
        with pytest.raises(TypeError):
            thing.read_into(0, buffer)
    assert constant == b"constant"


def test_read_into_fills_any_writable_buffer(thing: HasVmReaderWriter) -> None:
    """Arrays of numpy, ctypes objects and slices of a bytearray are filled in place."""
    thing.write_bytes(0, bytes(range(1, 17)))
    numbers = np.zeros((2, 2), dtype=np.uint16)
    pair = Pair()
    buffer = bytearray(8)
    thing.read_into(0, numbers)
    thing.read_into(4, pair)
    thing.read_into(8, memoryview(buffer)[2:5])
    assert numbers.tolist() == [[0x0201, 0x0403], [0x0605, 0x0807]]
    assert (pair.low, pair.high) == (0x08070605, 0x0C0B0A09)
    assert buffer == b"\0\0\x09\x0a\x0b\0\0\0"


# fill_zeros


def test_zeros_fill_what_fits_and_tell_how_many(thing: HasVmReaderWriter) -> None:
    """At the end fewer fit: InvalidArgsError with `copied_len` zeros written."""
    end = size_of(thing)
    for fits in (0, 1, 7, 33):
        thing.write_bytes(end - 48, b"\x77" * 48)
        for n in (fits + 1, fits + 1000, 2**63, 2**64 - end + fits):
            thing.write_bytes(end - 48, b"\x77" * 48)
            with pytest.raises(InvalidArgsError) as caught:
                thing.fill_zeros(end - fits, n)
            assert caught.value.copied_len == fits
            assert thing.read_bytes(end - 48, 48) == b"\x77" * (48 - fits) + bytes(fits)


def test_zeros_behind_the_end_fill_nothing(thing: HasVmReaderWriter) -> None:
    """An offset beyond the object is InvalidArgsError with `copied_len` 0."""
    end = size_of(thing)
    thing.write_bytes(0, b"\x77" * end)
    for offset, n in ((end + 1, 1), (end + 1, 0), (2**63, 8)):
        with pytest.raises(InvalidArgsError) as caught:
            thing.fill_zeros(offset, n)
        assert caught.value.copied_len == 0
    assert all_of(thing) == b"\x77" * end


def test_zeros_fill_exactly_their_range(thing: HasVmReaderWriter) -> None:
    """Every start and length inside 24 bytes leaves the bytes beside it alone."""
    for offset in range(17):
        for n in range(25 - offset):
            thing.write_bytes(0, b"\x77" * 24)
            assert thing.fill_zeros(offset, n) is None  # type: ignore[func-returns-value]
            expected = b"\x77" * offset + bytes(n) + b"\x77" * (24 - offset - n)
            assert thing.read_bytes(0, 24) == expected


# Objects over fallible memory


def test_a_fault_under_an_object_tells_what_arrived() -> None:
    """`read` stops at the hole with the writer after the bytes that came, `read_into` as well."""
    memory = Holed("rw r hole")
    window = Window(memory, 48)
    out = bytearray(b"\xee" * 20)
    writer = VmWriter.from_buffer(out)
    with pytest.raises(PageFaultError) as caught:
        window.read(20, writer)
    assert (caught.value.copied_len, caught.value.address) == (12, BASE + 32)
    assert caught.value.pid == PID
    assert writer.avail() == 8
    assert out == memory.peek(BASE + 20, 12) + b"\xee" * 8
    buffer = bytearray(b"\xee" * 20)
    with pytest.raises(PageFaultError) as caught:
        window.read_into(20, buffer)
    assert caught.value.copied_len == 12
    assert buffer == out


def test_a_fault_under_an_object_tells_what_was_written() -> None:
    """`write` stops at the read-only page with the reader after the bytes that went."""
    memory = Holed("rw r")
    before = memory.peek(BASE, 32)
    window = Window(memory, 32)
    reader = VmReader.from_buffer(b"\xff" * 20)
    with pytest.raises(PageFaultError) as caught:
        window.write(10, reader)
    assert (caught.value.copied_len, caught.value.address) == (6, BASE + 16)
    assert reader.remain() == 14
    assert memory.peek(BASE, 32) == before[:10] + b"\xff" * 6 + before[16:]


def test_zeros_under_an_object_stop_at_the_fault() -> None:
    """A fault while filling is PageFaultError with the zeros written before it."""
    memory = Holed("rw none")
    before = memory.peek(BASE, 32)
    with pytest.raises(PageFaultError) as caught:
        Window(memory, 32).fill_zeros(10, 20)
    assert (caught.value.copied_len, caught.value.address) == (6, BASE + 16)
    assert memory.peek(BASE, 32) == before[:10] + bytes(6) + before[16:]


def test_a_range_that_does_not_fit_never_reaches_the_memory() -> None:
    """A refused range makes no access at all, of none of the methods."""
    memory = Holed("rw rw")
    window = Window(memory, 24)
    for access in OFFSETS.values():
        for offset in (17, 2**64 - 2):
            if access is OFFSETS["fill_zeros"] and offset == 17:
                continue  # fills what fits
            with pytest.raises((InvalidArgsError, AddressOverflowError, TypeError)):
                access(window, offset)
    assert memory.calls == []


# VmSpace


def test_a_space_reads_and_writes_at_addresses() -> None:
    """Each method of VmIo works at the target's addresses, aligned or not."""
    memory = Holed("rw rw rw")
    space = VmSpace(memory)
    space.write_val(BASE + 3, u64, 0x1112131415161718)
    assert space.read_val(BASE + 3, u64) == 0x1112131415161718
    space.write_slice(BASE + 11, u16, [1, 2])
    assert space.read_slice(BASE + 11, u16, 2) == [1, 2]
    space.write_bytes(BASE + 20, b"abc")
    buffer = bytearray(3)
    space.read_into(BASE + 20, buffer)
    assert buffer == space.read_bytes(BASE + 20, 3) == b"abc"
    space.write_val(BASE + 24, Pair, Pair(5, 6))
    pair = space.read_val(BASE + 24, Pair)
    assert (pair.low, pair.high) == (5, 6)
    space.fill_zeros(BASE, 48)
    assert memory.peek(BASE, 48) == bytes(48)


def test_a_fault_in_a_space_is_exact_in_every_method() -> None:
    """Each method tells the first bad address and the bytes before it."""
    edge = BASE + 16
    reads: list[Callable[[VmSpace], object]] = [
        lambda space: space.read_bytes(edge - 5, 8),
        lambda space: space.read_val(edge - 5, u64),
        lambda space: space.read_slice(edge - 5, u32, 2),
        lambda space: space.read_into(edge - 5, bytearray(8)),
        lambda space: space.read(edge - 5, VmWriter.from_buffer(bytearray(8))),
        lambda space: space.write_bytes(edge - 5, bytes(8)),
        lambda space: space.write_val(edge - 5, u64, 0),
        lambda space: space.write_slice(edge - 5, u32, [0, 0]),
        lambda space: space.write(edge - 5, VmReader.from_buffer(bytes(8))),
        lambda space: space.fill_zeros(edge - 5, 8),
    ]
    for access in reads:
        with pytest.raises(PageFaultError) as caught:
            access(VmSpace(Holed("rw none")))
        assert (caught.value.address, caught.value.copied_len) == (edge, 5)


def test_a_space_fills_writable_buffers_only() -> None:
    """A read-only buffer and one with gaps are a TypeError before any access; others are filled."""
    memory = Holed("rw")
    space = VmSpace(memory)
    constant = bytes(bytearray(b"constant"))
    for buffer in (constant, memoryview(bytearray(8))[::2], np.zeros((2, 2), order="F"), None, 8):
        with pytest.raises(TypeError):
            space.read_into(BASE, buffer)
    assert constant == b"constant"
    assert memory.calls == []
    numbers, pair, part = np.zeros((2, 2), dtype=np.uint16), Pair(), bytearray(8)
    space.read_into(BASE, numbers)
    space.read_into(BASE + 1, pair)
    space.read_into(BASE + 2, memoryview(part)[3:6])
    assert numbers.tobytes() == memory.peek(BASE, 8)
    assert bytes(memoryview(pair)) == memory.peek(BASE + 1, 8)
    assert part == bytes(3) + memory.peek(BASE + 2, 3) + bytes(2)


SPACE: dict[str, Callable[[VmSpace, Any], object]] = {
    **{name: access for name, access in OFFSETS.items() if "once" not in name},
    "reader": lambda space, at: space.reader(at, 8),
    "writer": lambda space, at: space.writer(at, 8),
    "reader_writer": lambda space, at: space.reader_writer(at, 8),
    "atomic_load": lambda space, at: space.atomic_load(at, u64),
    "atomic_compare_exchange": lambda space, at: space.atomic_compare_exchange(at, u64, 0, 1),
    "atomic_fetch_update": lambda space, at: space.atomic_fetch_update(at, u64, lambda old: old),
}


@pytest.mark.parametrize("access", SPACE)
@pytest.mark.parametrize(
    ("address", "error"),
    [
        (-1, InvalidArgsError),
        (2**64, AddressOverflowError),
        (2**64 + 8, AddressOverflowError),
        (2**64 - 7, AddressOverflowError),
        (2**64 - 8, AccessDeniedError),
        (2**63, AccessDeniedError),
        (2**47, AccessDeniedError),
        (2**47 - 7, AccessDeniedError),
        (True, TypeError),
        (1.5, TypeError),
        ("0x10", TypeError),
        (None, TypeError),
    ],
)
def test_an_address_outside_user_space_makes_no_access(
    access: str, address: Any, error: type[Exception]
) -> None:
    """Outside user space AccessDeniedError, past 2^64 AddressOverflowError; nothing is touched."""
    memory = Holed("rw")
    with pytest.raises(error) as caught:
        SPACE[access](VmSpace(memory), address)
    assert type(caught.value) is error
    assert memory.calls == []


def test_a_length_of_zero_in_a_space_makes_no_access() -> None:
    """Nothing is read, written or filled, and nothing is wrong, over a hole and at the end."""
    memory = Holed("hole")
    space = VmSpace(memory)
    for at in (0, BASE, space.end):
        assert space.read_bytes(at, 0) == b""
        assert space.read_slice(at, u64, 0) == []
        space.read_into(at, bytearray())
        space.read(at, VmWriter.from_buffer(bytearray()))
        space.write_bytes(at, b"")
        space.write_slice(at, u64, [])
        space.write(at, VmReader.from_buffer(b""))
        space.fill_zeros(at, 0)
        assert space.read_cstring(at, 0) == b""
        assert space.reader_writer(at, 0)[0].read_bytes(0) == b""
    assert memory.calls == []


def test_a_forced_space_ignores_protections_and_not_holes() -> None:
    """`forced` reads and writes what the pages forbid, and still faults where nothing is."""
    memory = Holed("none r hole")
    space = VmSpace(memory)
    with pytest.raises(PageFaultError):
        space.read_val(BASE, u64)
    forced = space.forced()
    forced.write_val(BASE + 20, u32, 7)
    assert forced.read_val(BASE + 20, u32) == 7
    assert forced.read_bytes(BASE, 4) == memory.peek(BASE, 4)
    with pytest.raises(PageFaultError) as caught:
        forced.read_bytes(BASE + 28, 8)
    assert (caught.value.address, caught.value.copied_len) == (BASE + 32, 4)
    with pytest.raises(PageFaultError):
        space.write_val(BASE + 20, u32, 8)


def _with_string(kinds: str, at: int, text: bytes) -> VmSpace:
    memory = Holed(kinds, page_len=PAGE)
    memory.poke(at, text)
    return VmSpace(memory)


def test_a_string_ends_at_its_nul() -> None:
    """The bytes before the first NUL come back, not valid UTF-8 and an empty one too."""
    for text in (b"hello", b"", b"\xff\xfe\x80", b"x" * 3 * PAGE):
        space = _with_string("rw rw rw rw", BASE + 100, text + b"\0after\0")
        assert space.read_cstring(BASE + 100, 4 * PAGE - 100) == text


def test_a_string_just_before_a_hole_is_read_whole() -> None:
    """A NUL in the last byte of a page is found without a look at the next one."""
    for length in (0, 1, 5, PAGE - 1, PAGE, PAGE + 1):
        edge = BASE + 2 * PAGE
        at = edge - length - 1
        space = _with_string("rw rw hole", at, b"s" * length + b"\0")
        assert space.read_cstring(at, 10 * PAGE) == b"s" * length
        assert space.read_cstring(at, length + 1) == b"s" * length


def test_a_string_without_a_nul_before_a_hole_is_a_page_fault() -> None:
    """No NUL up to the hole: the error names the hole and counts the bytes before it."""
    edge = BASE + 2 * PAGE
    for length in (0, 1, 5, PAGE, PAGE + 3):
        space = _with_string("rw rw hole", edge - length, b"s" * length)
        with pytest.raises(PageFaultError) as caught:
            space.read_cstring(edge - length, 10 * PAGE)
        assert (caught.value.address, caught.value.copied_len) == (edge, length)


def test_a_string_longer_than_max_len_is_invalid_args() -> None:
    """The NUL counts: it must be within `max_len`, or it is InvalidArgsError."""
    space = _with_string("rw rw", BASE, b"hello\0")
    assert space.read_cstring(BASE, 6) == b"hello"
    for max_len in (1, 5):
        with pytest.raises(InvalidArgsError):
            space.read_cstring(BASE, max_len)
    with pytest.raises(InvalidArgsError):
        space.read_cstring(BASE, -1)
    with pytest.raises(TypeError):
        space.read_cstring(BASE, 5.0)  # type: ignore[arg-type]


def test_a_string_never_looks_at_a_page_behind_its_nul() -> None:
    """The accesses made for a string stay in the pages that hold it."""
    memory = Holed("rw rw rw", page_len=PAGE)
    memory.poke(BASE + PAGE - 3, b"ab\0")
    assert VmSpace(memory).read_cstring(BASE + PAGE - 3, 2 * PAGE) == b"ab"
    assert all(address + n <= BASE + PAGE for _, address, n in memory.calls)


class Contended(Holed):
    """Atomics on the fake's bytes, in which others win the first exchanges."""

    def __init__(self, kinds: str, rivals: list[int]) -> None:
        super().__init__(kinds)
        self.rivals = rivals

    def atomic_load(self, address: int, pod: PodAtomic[Any]) -> Any:
        return pod.from_bytes(self.peek(address, pod.size))

    def atomic_compare_exchange(
        self, address: int, pod: PodAtomic[Any], old: Any, new: Any
    ) -> tuple[Any, bool]:
        if self.rivals:
            self.poke(address, pod.to_bytes(self.rivals.pop(0)))
        current = self.atomic_load(address, pod)
        if current == old:
            self.poke(address, pod.to_bytes(new))
        return current, current == old


def test_fetch_update_tries_again_until_nobody_was_faster() -> None:
    """`fn` sees each value that was found, the last one is replaced and returned."""
    memory = Contended("rw", [20, 30])
    memory.poke(BASE, (10).to_bytes(4, sys.byteorder))
    seen: list[int] = []

    def double(old: int) -> int:
        seen.append(old)
        return old * 2

    assert VmSpace(memory).atomic_fetch_update(BASE, u32, double) == 30
    assert seen == [10, 20, 30]
    assert VmSpace(memory).atomic_load(BASE, u32) == 60


def test_atomics_of_a_space_are_those_of_its_memory() -> None:
    """Load and exchange tell what was there; a misaligned address is a plain ValueError."""
    memory = Contended("rw", [])
    space = VmSpace(memory)
    memory.poke(BASE, bytes(8))
    assert space.atomic_compare_exchange(BASE, i64, 0, -5) == (0, True)
    assert space.atomic_compare_exchange(BASE, i64, 0, 1) == (-5, False)
    assert space.atomic_load(BASE, i64) == -5
    for call in (
        lambda: space.atomic_load(BASE + 4, u64),
        lambda: space.atomic_compare_exchange(BASE + 1, u32, 0, 1),
        lambda: space.atomic_fetch_update(BASE + 2, u32, lambda old: old),
    ):
        with pytest.raises(ValueError, match="align") as caught:
            call()
        assert not isinstance(caught.value, ProcvmError)
    untyped: Any = space
    with pytest.raises(TypeError):
        untyped.atomic_load(BASE, u8)


def test_atomics_of_a_memory_without_them_are_unsupported() -> None:
    """A memory that brings no atomics answers UnsupportedError, which names it."""
    space = VmSpace(Holed("rw"))
    with pytest.raises(UnsupportedError, match="Holed"):
        space.atomic_load(BASE, u32)
    with pytest.raises(UnsupportedError, match="Holed"):
        space.atomic_compare_exchange(BASE, u32, 0, 1)


# Segment


def test_a_segment_is_whole_pages_of_zeros() -> None:
    """`alloc` gives page-aligned zeros, private or shared, of as many pages as asked for."""
    for shared in (False, True):
        with Segment.alloc(3, shared=shared) as segment:
            assert segment.address % PAGE == 0
            assert len(segment) == segment.reader().remain() == 3 * PAGE
            assert segment.writer().avail() == 3 * PAGE
            assert segment.read_bytes(0, 3 * PAGE) == bytes(3 * PAGE)
            assert segment.reader().cursor() == segment.writer().cursor() == segment.address
    with Segment.alloc(1, zeroed=False) as segment:
        assert len(segment) == PAGE


@pytest.mark.parametrize("npages", [0, -1, 2**40, 2**52, 2**63, 2**64, 2**100])
@pytest.mark.parametrize("shared", [False, True])
def test_a_segment_that_can_not_be_is_invalid_args(npages: int, shared: bool) -> None:
    """No pages, and more than there is room for, are InvalidArgsError and leave no descriptor."""
    before = descriptors()
    with pytest.raises(InvalidArgsError):
        Segment.alloc(npages, shared=shared)
    assert descriptors() <= before


@pytest.mark.parametrize("npages", NOT_INTEGERS)
def test_a_segment_of_no_number_of_pages_is_a_type_error(npages: Any) -> None:
    """What is no integer is no number of pages."""
    with pytest.raises(TypeError):
        Segment.alloc(npages)


def test_a_private_segment_has_no_fd() -> None:
    """`fd` of a private segment is a plain ValueError."""
    segment = Segment.alloc(1)
    with pytest.raises(ValueError, match="shared") as caught:
        segment.fd
    assert not isinstance(caught.value, ProcvmError)


CHILD = """
import mmap, sys
pages = mmap.mmap(int(sys.argv[1]), 0)
assert len(pages) == 2 * mmap.PAGESIZE
sys.stdout.write(pages[100:108].hex() + "\\n")
sys.stdout.flush()
assert sys.stdin.readline() == "go\\n"
pages[100:108] = pages[mmap.PAGESIZE : mmap.PAGESIZE + 8][::-1]
"""


def test_a_shared_segment_is_one_memory_with_a_child() -> None:
    """A child that maps the inherited `fd` sees our writes at once, and we see its own."""
    with Segment.alloc(2, shared=True) as segment:
        segment.write_bytes(100, b"to child")
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(segment.fd)],
            pass_fds=[segment.fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            try:
                assert child.stdin is not None
                assert child.stdout is not None
                assert bytes.fromhex(child.stdout.readline()) == b"to child"
                segment.write_bytes(PAGE, b"DCBAdcba")
                child.communicate("go\n")
            finally:
                child.kill()
        assert child.returncode == 0
        assert segment.read_bytes(100, 8) == b"abcdABCD"


def test_a_shared_segment_is_not_inherited_unasked() -> None:
    """The `fd` is close-on-exec, so only a child that is given it has it."""
    with Segment.alloc(1, shared=True) as segment:
        assert fcntl.fcntl(segment.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_shared_segment_can_not_be_shrunk_under_us() -> None:
    """Nobody who has the `fd` can truncate it, which would kill the tool at its next access."""
    with Segment.alloc(1, shared=True) as segment:
        with pytest.raises(PermissionError):
            os.ftruncate(segment.fd, 0)
        assert segment.read_val(0, u64) == 0


USES: list[Callable[[Segment], object]] = [
    lambda segment: segment.reader(),
    lambda segment: segment.writer(),
    lambda segment: segment.read_val(0, u64),
    lambda segment: segment.write_val(0, u64, 1),
    lambda segment: segment.read_bytes(0, 8),
    lambda segment: segment.read_into(0, bytearray(8)),
    lambda segment: segment.write_bytes(0, b""),
    lambda segment: segment.fill_zeros(0, 8),
    lambda segment: segment.read_once(0, u64),
    lambda segment: segment.address,
    lambda segment: segment.fd,
]


def test_a_closed_segment_is_refused_and_its_cursors_stay_good() -> None:
    """After `close` every access by the object is ClosedError; a cursor made before still works."""
    for shared in (False, True):
        segment = Segment.alloc(1, shared=shared)
        fd = segment.fd if shared else None
        reader, writer = segment.reader(), segment.writer()
        writer.write_val(u64, 77)
        segment.close()
        segment.close()
        for use in USES:
            with pytest.raises(ClosedError):
                use(segment)
        if fd is not None:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
        del segment
        gc.collect()
        assert reader.read_val(u64) == 77


def test_a_forgotten_segment_gives_its_fd_back() -> None:
    """Once nobody holds a shared segment its descriptor is closed."""
    before = descriptors()
    segment = Segment.alloc(1, shared=True)
    assert not descriptors() <= before
    del segment
    gc.collect()
    assert descriptors() <= before


# IoMem


@pytest.fixture(params=["/dev/shm", "memfd"])  # noqa: S108 (memory)
def device(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A file of two pages to stand for a device: its path and a descriptor of it."""
    if request.param == "memfd":
        fd = os.memfd_create("procvm-test")
        os.ftruncate(fd, 2 * PAGE)
        yield f"/proc/self/fd/{fd}", fd
        os.close(fd)
        return
    with tempfile.NamedTemporaryFile(dir=request.param, prefix="procvm-test-") as file:
        file.truncate(2 * PAGE)
        yield file.name, file.fileno()


def test_a_device_is_its_file(device: tuple[str, int]) -> None:
    """What IoMem writes is in the file at offset plus its own, and what the file has is read."""
    path, fd = device
    os.pwrite(fd, bytes(range(1, 17)), PAGE)
    with IoMem.open(path, PAGE, 64) as registers:
        assert len(registers) == 64
        assert registers.read_val(0, u32) == 0x04030201
        assert registers.read_once(8, u64) == 0x100F0E0D0C0B0A09
        registers.write_once(4, u16, 0xBEEF)
        registers.write_val(16, u64, 0x1112131415161718)
        registers.write_val(24, f32, 1.5)
        assert registers.read_val(24, f32) == 1.5
    assert os.pread(fd, 8, PAGE) == b"\1\2\3\4\xef\xbe\7\x08"
    assert os.pread(fd, 8, PAGE + 16) == bytes(range(0x18, 0x10, -1))
    assert os.pread(fd, PAGE, 0) == bytes(PAGE)


@pytest.mark.parametrize("offset", [1, 4, 7, 100, PAGE - 4])
def test_a_device_may_begin_anywhere_in_its_file(device: tuple[str, int], offset: int) -> None:
    """An offset that is no multiple of a page gives exactly the bytes from there on."""
    path, fd = device
    os.pwrite(fd, bytes(k % 251 for k in range(2 * PAGE)), 0)
    with IoMem.open(path, offset, 40) as registers:
        assert registers.read_bytes(0, 40) == os.pread(fd, 40, offset)
        registers.write_bytes(1, b"\xff" * 38)
        expected = bytearray(k % 251 for k in range(2 * PAGE))
        expected[offset + 1 : offset + 39] = b"\xff" * 38
        assert os.pread(fd, 2 * PAGE, 0) == expected
        with pytest.raises(InvalidArgsError):
            registers.read_bytes(0, 41)


@pytest.mark.parametrize("pod", [u16, u32, u64, i16, i32, i64, usize, isize, f32, f64])
def test_a_number_of_a_device_is_moved_aligned_only(device: tuple[str, int], pod: Pod[Any]) -> None:
    """At every misaligned offset `read_val` and `write_val` are ValueError and store nothing."""
    path, fd = device
    with IoMem.open(path, 0, 64) as registers:
        for offset in range(16):
            if offset % pod.size == 0:
                registers.write_val(offset, pod, 2)
                assert registers.read_val(offset, pod) == 2
                registers.fill_zeros(offset, pod.size)
                continue
            with pytest.raises(ValueError, match="align") as caught:
                registers.read_val(offset, pod)
            assert not isinstance(caught.value, ProcvmError)
            with pytest.raises(ValueError, match="align") as caught:
                registers.write_val(offset, pod, 2)
            assert not isinstance(caught.value, ProcvmError)
    assert os.pread(fd, 2 * PAGE, 0) == bytes(2 * PAGE)


def test_alignment_of_a_device_counts_from_the_file_and_not_from_the_offset(
    device: tuple[str, int],
) -> None:
    """In a range that begins at 2, offset 2 is aligned for a u32 and offset 0 is not."""
    with IoMem.open(device[0], 2, 32) as registers:
        registers.write_once(2, u32, 9)
        assert registers.read_val(2, u32) == 9
        with pytest.raises(ValueError, match="align"):
            registers.read_once(0, u32)


def test_a_run_of_device_bytes_is_exact_at_every_offset_and_length(
    device: tuple[str, int],
) -> None:
    """Reads and writes of 0 to 40 bytes at every offset of a word move exactly these bytes."""
    path, fd = device
    base = bytes(range(1, 65))
    with IoMem.open(path, 0, 64) as registers:
        for offset in range(9):
            for n in range(41):
                os.pwrite(fd, base, 0)
                assert registers.read_bytes(offset, n) == base[offset : offset + n]
                data = bytes(255 - k for k in range(n))
                registers.write_bytes(offset, data)
                assert os.pread(fd, 64, 0) == base[:offset] + data + base[offset + n :]


def test_a_structure_of_a_device_is_moved_as_bytes(device: tuple[str, int]) -> None:
    """A structure goes in and out whole at any offset."""
    with IoMem.open(device[0], 0, 64) as registers:
        registers.write_val(3, Pair, Pair(1, 2))
        pair = registers.read_val(3, Pair)
        assert (pair.low, pair.high) == (1, 2)


@pytest.mark.parametrize(
    ("offset", "n", "error"),
    [
        (0, 0, InvalidArgsError),
        (PAGE, 0, InvalidArgsError),
        (0, 2 * PAGE + 1, InvalidArgsError),
        (2 * PAGE, 1, InvalidArgsError),
        (2 * PAGE - 1, 2, InvalidArgsError),
        (-1, 8, InvalidArgsError),
        (0, -1, InvalidArgsError),
        (0, 2**63, InvalidArgsError),
        (2**63, 8, InvalidArgsError),
        (2**64 - 8, 8, InvalidArgsError),
        (2**64 - 7, 8, AddressOverflowError),
        (2**64, 8, AddressOverflowError),
        (True, 8, TypeError),
        (0, 8.0, TypeError),
        ("0", 8, TypeError),
        (0, None, TypeError),
    ],
)
def test_a_range_that_the_file_does_not_have_is_refused(
    device: tuple[str, int], offset: Any, n: Any, error: type[Exception]
) -> None:
    """A mapping behind the end of a file would kill the tool at its first access: refused."""
    before = descriptors()
    with pytest.raises(error) as caught:
        IoMem.open(device[0], offset, n)
    assert type(caught.value) is error
    assert descriptors() <= before


def test_a_character_device_is_mapped_without_asking_for_its_size() -> None:
    """A device file has no size that could refuse the range."""
    with IoMem.open("/dev/zero", 0, 2 * PAGE) as registers:
        registers.write_once(PAGE + 8, u32, 7)
        assert registers.read_bytes(PAGE + 4, 12) == bytes(4) + b"\7" + bytes(7)


def test_a_device_file_that_is_not_there_is_an_os_error() -> None:
    """What opening a file raises is raised."""
    with pytest.raises(FileNotFoundError):
        IoMem.open("/dev/shm/procvm-no-such-file", 0, 8)  # noqa: S108 (it does not exist)


def test_a_closed_device_is_refused_and_its_cursors_stay_good(device: tuple[str, int]) -> None:
    """After `close` every access is ClosedError; a cursor made before still works."""
    registers = IoMem.open(device[0], 0, 64)
    registers.write_val(0, u32, 5)
    reader = registers.reader()
    registers.close()
    registers.close()
    for call in (
        registers.reader,
        registers.writer,
        lambda: registers.read_val(0, u32),
        lambda: registers.write_once(0, u32, 1),
        lambda: registers.read_bytes(0, 8),
    ):
        with pytest.raises(ClosedError):
            call()
    gc.collect()
    assert reader.read_once(u32) == 5


def test_a_closed_device_leaves_no_descriptor(device: tuple[str, int]) -> None:
    """Once a device is closed, or nobody holds it, its mapping and its descriptors are gone."""
    before = descriptors()
    with IoMem.open(device[0], 0, 8) as registers:
        assert registers.read_val(0, u64) == 0
    assert descriptors() <= before
    IoMem.open(device[0], 0, 8)
    gc.collect()
    assert descriptors() <= before


@pytest.mark.parametrize("access", EMPTY)
def test_nothing_of_a_closed_object_is_refused_as_well(
    device: tuple[str, int], access: str
) -> None:
    """A length of 0 is no way around `close`: ClosedError from each call, for both objects."""
    segment = Segment.alloc(1)
    registers = IoMem.open(device[0], 0, 8)
    for closed in (segment, registers):
        closed.close()
        with pytest.raises(ClosedError):
            EMPTY[access](closed, 0)


def test_device_and_own_memory_copy_to_each_other(device: tuple[str, int]) -> None:
    """`VmIo.read` and `write` stream between a device, a segment and a fallible memory."""
    memory = Holed("rw rw hole")
    with IoMem.open(device[0], 0, 64) as registers:
        segment = Segment.alloc(1)
        registers.write_bytes(0, bytes(range(1, 65)))
        registers.read(5, segment.writer().limit(20))
        assert segment.read_bytes(0, 21) == bytes(range(6, 26)) + b"\0"
        registers.read(3, memory.writer(BASE, 20))
        assert memory.peek(BASE, 20) == bytes(range(4, 24))
        before = registers.read_bytes(0, 64)
        source = memory.reader(BASE + 24, 16)
        with pytest.raises(PageFaultError) as caught:
            registers.write(40, source)
        assert (caught.value.copied_len, caught.value.address) == (8, BASE + 32)
        assert source.remain() == 8
        expected = before[:40] + memory.peek(BASE + 24, 8) + before[48:]
        assert registers.read_bytes(0, 64) == expected


def test_everything_of_the_contract_can_be_imported() -> None:
    """Each public name of the contract that belongs to memory is in `procvm` and `__all__`."""
    pods = ["u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "isize", "f32", "f64"]
    kinds = ["Pod", "PodOnce", "PodAtomic", "Fallible", "Infallible", "Io"]
    cursors = ["VmReader", "VmWriter", "VmReaderArray", "VmWriterArray"]
    objects = ["VmIo", "VmIoFill", "VmIoOnce", "HasVmReaderWriter", "VmSpace", "Segment", "IoMem"]
    for name in pods + kinds + cursors + objects:
        assert hasattr(procvm, name), name
        assert name in procvm.__all__, name
