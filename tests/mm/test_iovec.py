"""`VmReaderArray` and `VmWriterArray`: many ranges as one stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from procvm import (
    Fallible,
    Infallible,
    InvalidArgsError,
    PageFaultError,
    VmReader,
    VmReaderArray,
    VmWriter,
    VmWriterArray,
)
from tests.support.fakes import BASE, PID, Holed


def readers_of(memory: Holed, *ranges: tuple[int, int]) -> list[VmReader[Fallible]]:
    return [memory.reader(BASE + offset, n) for offset, n in ranges]


def writers_of(memory: Holed, *ranges: tuple[int, int]) -> list[VmWriter[Fallible]]:
    return [memory.writer(BASE + offset, n) for offset, n in ranges]


def lefts(cursors: Sequence[Any]) -> list[int]:
    return [cursor.left() for cursor in cursors]


# Lengths


def test_sum_lens_is_what_is_left_in_all() -> None:
    """The sum counts every range, follows its cursors and ends at 0 with `is_empty`."""
    memory = Holed("rw rw")
    readers = readers_of(memory, (0, 5), (8, 0), (10, 7))
    array = VmReaderArray(readers)
    assert (len(array), array.sum_lens(), array.is_empty()) == (3, 12, False)
    readers[2].skip(3)
    assert array.sum_lens() == 9
    array.skip_some(9)
    assert (array.sum_lens(), array.is_empty()) == (0, True)
    writers = VmWriterArray(writers_of(memory, (0, 5), (10, 7)))
    assert (len(writers), writers.sum_lens(), writers.is_empty()) == (2, 12, False)


def test_an_array_of_nothing_is_empty() -> None:
    """No ranges, and ranges of 0 bytes, are empty and copy 0 bytes either way."""
    out = bytearray(b"\xee" * 4)
    for readers in ([], [VmReader.from_buffer(b"")] * 2):
        array = VmReaderArray(readers)
        assert (array.sum_lens(), array.is_empty()) == (0, True)
        assert array.read(VmWriter.from_buffer(out)) == 0
        assert VmWriterArray([VmWriter.from_buffer(out)]).write(array) == 0
    nothing: VmWriterArray[Infallible] = VmWriterArray([])
    assert (nothing.sum_lens(), nothing.is_empty()) == (0, True)
    assert nothing.write(VmReader.from_buffer(b"abc")) == 0
    assert VmReaderArray([VmReader.from_buffer(b"abc")]).read(nothing) == 0
    assert out == b"\xee" * 4


def test_the_cursors_given_are_the_ones_that_move() -> None:
    """An array takes any iterable and gives back the very cursors it was made of, in order."""
    readers = readers_of(Holed("rw"), (0, 4), (4, 4))
    array = VmReaderArray(reader for reader in readers)
    assert [a is b for a, b in zip(array, readers, strict=True)] == [True, True]
    array.skip_some(5)
    assert lefts(readers) == [0, 3]
    writers = writers_of(Holed("rw"), (0, 4), (4, 4))
    VmWriterArray(iter(writers)).skip_some(3)
    assert lefts(writers) == [1, 4]


@pytest.mark.parametrize(
    ("n", "expected"),
    [(0, [3, 0, 4]), (2, [1, 0, 4]), (3, [0, 0, 4]), (4, [0, 0, 3]), (7, [0, 0, 0])],
)
def test_skip_some_takes_from_the_front(n: int, expected: list[int]) -> None:
    """A skip uses up the ranges in order and touches no memory."""
    memory = Holed("hole")
    readers = readers_of(memory, (0, 3), (3, 0), (5, 4))
    VmReaderArray(readers).skip_some(n)
    assert lefts(readers) == expected
    assert memory.calls == []


def test_skip_some_beyond_the_end_skips_all() -> None:
    """More than there is left skips all of it and is no error."""
    readers = readers_of(Holed("rw"), (0, 3), (5, 4))
    array = VmReaderArray(readers)
    array.skip_some(2**64)
    array.skip_some(1)
    assert lefts(readers) == [0, 0]


@pytest.mark.parametrize("value", [-1, True, 1.5, "1", None])
def test_skip_some_takes_a_count_only(value: Any) -> None:
    """What is no count is refused with no cursor moved."""
    readers = readers_of(Holed("rw"), (0, 3), (5, 4))
    with pytest.raises(InvalidArgsError if value == -1 else TypeError):
        VmReaderArray(readers).skip_some(value)
    assert lefts(readers) == [3, 4]


# Reading


def test_ranges_arrive_one_after_the_other() -> None:
    """The stream is the ranges in the order given, whatever their addresses."""
    memory = Holed("rw r rw")
    readers = readers_of(memory, (40, 5), (0, 3), (14, 4), (46, 1))
    out = bytearray(20)
    writer = VmWriter.from_buffer(out)
    assert VmReaderArray(readers).read(writer) == 13
    expected = b"".join(memory.peek(BASE + at, n) for at, n in ((40, 5), (0, 3), (14, 4), (46, 1)))
    assert out == expected + bytes(7)
    assert writer.avail() == 7
    assert lefts(readers) == [0, 0, 0, 0]


def test_a_writer_that_is_full_stops_the_stream_in_the_middle_of_a_range() -> None:
    """Only as many bytes are read as fit, and reading on continues where it stopped."""
    memory = Holed("rw rw")
    readers = readers_of(memory, (0, 4), (8, 4), (16, 4))
    array = VmReaderArray(readers)
    first, second = bytearray(6), bytearray(b"\xee" * 10)
    assert array.read(VmWriter.from_buffer(first)) == 6
    assert lefts(readers) == [0, 2, 4]
    assert array.read(VmWriter.from_buffer(second)) == 6
    whole = memory.peek(BASE, 4) + memory.peek(BASE + 8, 4) + memory.peek(BASE + 16, 4)
    assert first + second == whole + b"\xee" * 4


def test_a_range_of_nothing_is_never_touched() -> None:
    """Zero-length ranges over holes cost no fault, at the start, between and at the end."""
    memory = Holed("rw hole")
    readers = readers_of(memory, (16, 0), (0, 2), (20, 0), (20, 0), (4, 2), (31, 0))
    out = bytearray(4)
    assert VmReaderArray(readers).read(VmWriter.from_buffer(out)) == 4
    assert out == memory.peek(BASE, 2) + memory.peek(BASE + 4, 2)


def test_a_range_may_be_given_twice() -> None:
    """Repeated and overlapping ranges each give their bytes."""
    memory = Holed("rw")
    readers = readers_of(memory, (0, 4), (0, 4), (2, 4))
    out = bytearray(12)
    assert VmReaderArray(readers).read(VmWriter.from_buffer(out)) == 12
    assert out == memory.peek(BASE, 4) * 2 + memory.peek(BASE + 2, 4)


def test_one_cursor_given_twice_gives_its_bytes_once() -> None:
    """The second time a cursor comes up nothing is left in it, in own memory and in a target."""
    memory = Holed("rw")
    for reader, data in (
        (VmReader.from_buffer(b"abcd").to_fallible(), b"abcd"),
        (memory.reader(BASE, 4), memory.peek(BASE, 4)),
    ):
        out = bytearray(b"\xee" * 8)
        writer = VmWriter.from_buffer(out)
        assert VmReaderArray([reader, reader]).read(writer) == 4
        assert (reader.remain(), writer.avail()) == (0, 4)
        assert out == data + b"\xee" * 4


@pytest.mark.parametrize("before", range(5))
def test_a_bad_range_in_the_middle_stops_the_stream_exactly(before: int) -> None:
    """The bytes before the bad page arrive, each cursor stands after its own part of them."""
    memory = Holed("rw r none rw")
    readers = readers_of(memory, (0, 6), (32 - before, 8), (48, 5))
    out = bytearray(b"\xee" * 30)
    writer = VmWriter.from_buffer(out).skip(2)
    with pytest.raises(PageFaultError) as caught:
        VmReaderArray(readers).read(writer)
    assert caught.value.copied_len == 6 + before
    assert (caught.value.address, caught.value.pid) == (BASE + 32, PID)
    assert lefts(readers) == [0, 8 - before, 5]
    assert writer.avail() == 28 - 6 - before
    arrived = memory.peek(BASE, 6) + memory.peek(BASE + 32 - before, before)
    assert out == b"\xee\xee" + arrived + b"\xee" * (22 - before)


def test_after_a_bad_range_the_stream_goes_on_with_the_next() -> None:
    """Skipping what is left of the bad range and reading on gives each good range's bytes."""
    memory = Holed("rw hole rw")
    readers = readers_of(memory, (0, 4), (20, 4), (32, 4), (30, 1), (40, 4))
    array = VmReaderArray(readers)
    out = bytearray(20)
    writer = VmWriter.from_buffer(out)
    bad = []
    while not array.is_empty():
        try:
            array.read(writer)
        except PageFaultError as error:
            k = next(k for k, reader in enumerate(readers) if reader.has_remain())
            bad.append((k, error.address - BASE, error.copied_len))
            readers[k].skip(readers[k].remain())
    assert bad == [(1, 20, 4), (3, 30, 4)]
    assert writer.avail() == 8
    assert out[:12] == b"".join(memory.peek(BASE + at, 4) for at in (0, 32, 40))


def test_a_stream_may_come_from_several_memories() -> None:
    """Own buffers and two targets alternate in one stream, and a fault counts what came before."""
    one, two = Holed("rw"), Holed("rw none")
    readers: list[VmReader[Any]] = [
        VmReader.from_buffer(b"abc"),
        *readers_of(one, (0, 3)),
        *readers_of(two, (0, 3)),
        VmReader.from_buffer(b""),
        *readers_of(two, (3, 3)),
        VmReader.from_buffer(b"def"),
        *readers_of(two, (14, 4)),
        VmReader.from_buffer(b"ghi"),
    ]
    out = bytearray(b"\xee" * 30)
    writer = VmWriter.from_buffer(out)
    with pytest.raises(PageFaultError) as caught:
        VmReaderArray(readers).read(writer)
    assert (caught.value.copied_len, caught.value.address) == (17, BASE + 16)
    assert lefts(readers) == [0, 0, 0, 0, 0, 0, 2, 3]
    arrived = b"abc" + one.peek(BASE, 3) + two.peek(BASE, 6) + b"def" + two.peek(BASE + 14, 2)
    assert out == arrived + b"\xee" * 13


class Vectored(Holed):
    """Counts the vectored accesses."""

    def __init__(self, kinds: str) -> None:
        super().__init__(kinds)
        self.vectors: list[tuple[str, int]] = []

    def readv(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        self.vectors.append(("readv", len(ranges)))
        super().readv(ranges, own_address)

    def writev(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        self.vectors.append(("writev", len(ranges)))
        super().writev(ranges, own_address)


def test_ranges_of_one_memory_are_one_vectored_access() -> None:
    """A thousand ranges into one own buffer ask their memory once, and out of it once."""
    memory = Vectored("rw rw")
    out = bytearray(3000)
    ranges = [(k % 29, 3) for k in range(1000)]
    assert VmReaderArray(readers_of(memory, *ranges)).read(VmWriter.from_buffer(out)) == 3000
    assert out == b"".join(memory.peek(BASE + at, n) for at, n in ranges)
    assert VmWriterArray(writers_of(memory, *ranges)).write(VmReader.from_buffer(out)) == 3000
    assert memory.vectors == [("readv", 1000), ("writev", 1000)]


# Writing


def test_a_stream_is_written_to_the_ranges_in_order() -> None:
    """Each range takes its part, the rest of the pages is as it was."""
    memory = Holed("rw wo")
    before = memory.peek(BASE, 32)
    writers = writers_of(memory, (20, 3), (5, 0), (0, 2), (14, 4))
    reader = VmReader.from_buffer(b"abcdefghijkl")
    assert VmWriterArray(writers).write(reader) == 9
    expected = bytearray(before)
    expected[20:23], expected[0:2], expected[14:18] = b"abc", b"de", b"fghi"
    assert memory.peek(BASE, 32) == expected
    assert reader.read_bytes(3) == b"jkl"
    assert lefts(writers) == [0, 0, 0, 0]


def test_a_reader_that_is_used_up_stops_the_stream_in_the_middle_of_a_range() -> None:
    """Fewer bytes than there is room for fill the ranges from the front."""
    memory = Holed("rw")
    writers = writers_of(memory, (0, 4), (8, 4))
    array = VmWriterArray(writers)
    assert array.write(VmReader.from_buffer(b"abcde")) == 5
    assert lefts(writers) == [0, 3]
    assert array.write(VmReader.from_buffer(b"fghi")) == 3
    assert (memory.peek(BASE, 4), memory.peek(BASE + 8, 4)) == (b"abcd", b"efgh")


@pytest.mark.parametrize("before", range(5))
def test_a_bad_range_in_the_middle_of_a_write_stops_it_exactly(before: int) -> None:
    """What was written is told, each cursor stands after its own part, nothing more changed."""
    memory = Holed("rw rw r rw")
    was = memory.peek(BASE, 64)
    writers = writers_of(memory, (0, 6), (32 - before, 8), (48, 5))
    data = bytes(range(200, 220))
    reader = VmReader.from_buffer(data)
    with pytest.raises(PageFaultError) as caught:
        VmWriterArray(writers).write(reader)
    assert (caught.value.copied_len, caught.value.address) == (6 + before, BASE + 32)
    assert lefts(writers) == [0, 8 - before, 5]
    assert reader.remain() == 20 - 6 - before
    expected = bytearray(was)
    expected[0:6] = data[:6]
    expected[32 - before : 32] = data[6 : 6 + before]
    assert memory.peek(BASE, 64) == expected


def test_a_range_written_twice_keeps_what_came_last() -> None:
    """Repeated ranges are written in order."""
    memory = Holed("rw")
    writers = writers_of(memory, (0, 4), (0, 4), (2, 4))
    assert VmWriterArray(writers).write(VmReader.from_buffer(b"abcdefghijkl")) == 12
    assert memory.peek(BASE, 6) == b"efijkl"


# Stream to stream


def test_ranges_are_copied_to_ranges_of_other_lengths() -> None:
    """Borders of the two sides need not meet, and both calls do the same."""
    for turned in (False, True):
        source, target = Holed("rw rw"), Holed("rw rw")
        readers = readers_of(source, (0, 5), (8, 1), (10, 9))
        writers = writers_of(target, (3, 2), (16, 7), (1, 1), (30, 2), (0, 1))
        if turned:
            assert VmWriterArray(writers).write(VmReaderArray(readers)) == 13
        else:
            assert VmReaderArray(readers).read(VmWriterArray(writers)) == 13
        stream = b"".join(source.peek(BASE + at, n) for at, n in ((0, 5), (8, 1), (10, 9)))
        assert target.peek(BASE + 3, 2) == stream[:2]
        assert target.peek(BASE + 16, 7) == stream[2:9]
        assert target.peek(BASE + 1, 1) == stream[9:10]
        assert target.peek(BASE + 30, 2) == stream[10:12]
        assert target.peek(BASE, 1) == stream[12:13]
        assert lefts(readers) == [0, 0, 2]
        assert lefts(writers) == [0, 0, 0, 0, 0]


def test_what_was_read_and_could_not_be_written_does_not_count() -> None:
    """A destination that faults in the middle leaves every source cursor at what was written."""
    source, target = Holed("rw rw"), Holed("rw r rw")
    readers = readers_of(source, (0, 10), (10, 10))
    writers = writers_of(target, (4, 6), (9, 12), (32, 8))
    with pytest.raises(PageFaultError) as caught:
        VmReaderArray(readers).read(VmWriterArray(writers))
    assert (caught.value.copied_len, caught.value.address) == (13, BASE + 16)
    assert lefts(readers) == [0, 7]
    assert lefts(writers) == [0, 5, 8]


class Range(NamedTuple):
    """A part of one of a side's memories."""

    which: int
    start: int
    n: int


SOURCES = ("rw r none r wo rw", "hole rw rw none rw r", "own")
TARGETS = ("rw wo r wo rw rw", "wo none rw rw hole wo", "own")
SIZE = 96

ranges = st.lists(
    st.builds(
        lambda which, start, n: Range(which, start, min(n, SIZE - start)),
        st.integers(0, 2),
        st.integers(0, SIZE),
        st.integers(0, 40),
    ),
    max_size=8,
)


class Side:
    """Two fakes and an own buffer, and a plain model of them: bytes and what is allowed."""

    def __init__(self, kinds: Sequence[str], need: str) -> None:
        self.holed = [Holed(kinds[0]), Holed(kinds[1])]
        self.own = bytearray(range(100, 100 + SIZE))
        self.model = [bytearray(memory.peek(BASE, SIZE)) for memory in self.holed] + [
            bytearray(self.own)
        ]
        self.allowed: list[list[bool]] = [
            [need in memory.perms.get((BASE + k) // memory.page_len, "") for k in range(SIZE)]
            for memory in self.holed
        ] + [[True] * SIZE]

    def cursors(self, parts: Sequence[Range], *, reading: bool) -> list[Any]:
        found: list[Any] = []
        for which, start, n in parts:
            if which == 2:
                make: Callable[..., Any] = VmReader.from_buffer if reading else VmWriter.from_buffer
                found.append(make(self.own).skip(start).limit(n))
            else:
                memory = self.holed[which]
                found.append((memory.reader if reading else memory.writer)(BASE + start, n))
        return found

    def contents(self) -> list[bytes]:
        return [memory.peek(BASE, SIZE) for memory in self.holed] + [bytes(self.own)]


def cells(parts: Sequence[Range]) -> list[tuple[int, int, int]]:
    """(range, memory, offset) of every byte of a stream."""
    return [
        (index, part.which, part.start + k)
        for index, part in enumerate(parts)
        for k in range(part.n)
    ]


@settings(max_examples=150, deadline=None)
@given(sources=ranges, targets=ranges, turned=st.booleans())
@example(sources=[Range(0, 0, 40)], targets=[Range(0, 0, 40)], turned=False)
@example(sources=[Range(0, 30, 2), Range(2, 0, 9)], targets=[Range(2, 0, 40)], turned=True)
def test_every_stream_does_what_a_byte_by_byte_copy_would(
    sources: list[Range], targets: list[Range], turned: bool
) -> None:
    """Bytes, count, first bad address and all cursors equal a model that copies single bytes."""
    source, target = Side(SOURCES, "r"), Side(TARGETS, "w")
    read_left, write_left = [part.n for part in sources], [part.n for part in targets]
    done, bad = 0, None
    for (i, a, at), (j, b, to) in zip(cells(sources), cells(targets), strict=False):
        if not source.allowed[a][at] or not target.allowed[b][to]:
            # A load comes before its store.
            bad = BASE + (to if source.allowed[a][at] else at)
            break
        target.model[b][to] = source.model[a][at]
        read_left[i] -= 1
        write_left[j] -= 1
        done += 1
    readers = source.cursors(sources, reading=True)
    writers = target.cursors(targets, reading=False)
    reading, writing = VmReaderArray(readers), VmWriterArray(writers)
    try:
        found = writing.write(reading) if turned else reading.read(writing)
        address = None
    except PageFaultError as error:
        found, address = error.copied_len, error.address
    assert (found, address) == (done, bad)
    assert (lefts(readers), lefts(writers)) == (read_left, write_left)
    assert target.contents() == [bytes(memory) for memory in target.model]
    assert source.contents() == [bytes(memory) for memory in source.model]
    assert reading.sum_lens() == sum(read_left)
    assert writing.is_empty() == (sum(write_left) == 0)
