"""A fault in the tool's own buffer is told from one of the target's, and is exact as well.

With buffers held in place only a mapping of a file that was made shorter can do it.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

import procvm
from procvm import VmReader, VmReaderArray, VmWriter, VmWriterArray
from tests.support.playground import PAGE, Playground, pattern


class Shortened:
    """A mapping of a file of which only the first pages are left.

    It goes with the last view of it, which an exception's traceback may hold.
    """

    def __init__(self, folder: Path, pages: int = 3, pages_left: int = 1) -> None:
        path = folder / "file"
        path.write_bytes(b"\xee" * (pages * PAGE))
        with path.open("r+b") as file:
            self.mapping = mmap.mmap(file.fileno(), pages * PAGE)
            file.truncate(pages_left * PAGE)
        self.n = pages * PAGE
        self.end = pages_left * PAGE
        self.address = VmWriter.from_buffer(self.mapping).cursor()

    def view(self, start: int, n: int) -> memoryview:
        return memoryview(self.mapping)[start : start + n]


def assert_own(error: procvm.PageFaultError, own: Shortened, copied_len: int) -> None:
    """The error names the tool and the first byte of its buffer that is gone."""
    assert type(error) is procvm.PageFaultError
    assert error.pid == os.getpid()
    assert error.address == own.address + own.end
    assert error.copied_len == copied_len


@pytest.mark.parametrize("lead", [0, 1, 7, 2048, PAGE - 1])
def test_a_read_into_a_buffer_that_ends_is_told_as_ours(
    process: procvm.Process, playground: Playground, tmp_path: Path, lead: int
) -> None:
    """The bytes before our own bad page did arrive, whatever the offsets of the two sides."""
    base = playground.layout("rw rw rw rw")
    own = Shortened(tmp_path)
    for before in (*range(65), 100, PAGE - 1, PAGE):
        own.mapping[: own.end] = b"\xee" * own.end
        view = own.view(own.end - before, before + 80)
        with pytest.raises(procvm.PageFaultError) as caught:
            process.vm.read_into(base + lead, view)
        assert_own(caught.value, own, before)
        assert own.mapping[: own.end] == (
            b"\xee" * (own.end - before) + pattern(base + lead, before)
        )


@pytest.mark.parametrize("lead", [0, 1, 7, 2048, PAGE - 1])
def test_a_write_from_a_buffer_that_ends_is_told_as_ours(
    process: procvm.Process, playground: Playground, tmp_path: Path, lead: int
) -> None:
    """The bytes before our own bad page were written, and none after them."""
    base = playground.layout("rw rw rw rw")
    own = Shortened(tmp_path)
    own.mapping[: own.end] = data = os.urandom(own.end)
    for before in (*range(65), 100, PAGE - 1, PAGE):
        view = own.view(own.end - before, before + 80)
        with pytest.raises(procvm.PageFaultError) as caught:
            process.vm.write_bytes(base + lead, view)
        assert_own(caught.value, own, before)
        expected = bytearray(pattern(base, 4 * PAGE))
        expected[lead : lead + before] = data[own.end - before :]
        assert playground.peek(base, 4 * PAGE) == expected
        playground.clear(base, 4 * PAGE)


def test_cursors_stand_before_our_own_bad_byte(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """Both cursors of a read and of a write are moved by what was copied."""
    base = playground.layout("rw rw rw")
    own = Shortened(tmp_path)
    reader = process.vm.reader(base + 5, 2 * PAGE)
    writer = VmWriter.from_buffer(own.mapping).skip(10)
    with pytest.raises(procvm.PageFaultError) as caught:
        reader.read_fallible(writer)
    assert_own(caught.value, own, PAGE - 10)
    assert reader.cursor() == base + 5 + PAGE - 10
    assert writer.cursor() == own.address + PAGE

    target = process.vm.writer(base + 5, 2 * PAGE)
    source = VmReader.from_buffer(own.mapping).skip(10)
    with pytest.raises(procvm.PageFaultError) as caught:
        target.write_fallible(source)
    assert_own(caught.value, own, PAGE - 10)
    assert target.cursor() == base + 5 + PAGE - 10
    assert source.cursor() == own.address + PAGE


@pytest.mark.parametrize("forced", [False, True])
def test_whichever_side_faults_first_is_the_one_that_is_told(
    process: procvm.Process, playground: Playground, tmp_path: Path, forced: bool
) -> None:
    """With a bad page on both sides the error is of the one met first, for reads and writes."""
    base = playground.layout("rw hole")
    vm = process.vm.forced() if forced else process.vm
    own = Shortened(tmp_path)
    for target_len, own_len in ((40, 41), (41, 40), (0, 8), (8, 0), (1, 4000), (4000, 1)):
        at = base + PAGE - target_len
        view = own.view(own.end - own_len, own_len + 60)
        with pytest.raises(procvm.PageFaultError) as caught:
            vm.read_into(at, view)
        with pytest.raises(procvm.PageFaultError) as caught_too:
            vm.write_bytes(at, view)
        for error in (caught.value, caught_too.value):
            if own_len < target_len:
                assert_own(error, own, own_len)
            else:
                assert error.pid == playground.pid
                assert (error.address, error.copied_len) == (base + PAGE, target_len)
        playground.clear(base, PAGE)


def test_a_large_transfer_stops_at_our_own_bad_page(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """Beyond 1 MiB the count is as exact as before it, for reads and writes."""
    base = playground.layout(" ".join(["rw"] * 600))
    own = Shortened(tmp_path, 600, 400)
    view = own.view(3, own.n - 3)
    with pytest.raises(procvm.PageFaultError) as caught:
        process.vm.read_into(base + 77, view)
    good = own.end - 3
    assert_own(caught.value, own, good)
    assert own.mapping[3 : own.end] == playground.peek(base + 77, good)

    own.mapping[: own.end] = data = os.urandom(own.end)
    view = own.view(3, own.n - 3)
    with pytest.raises(procvm.PageFaultError) as caught:
        process.vm.write_bytes(base + 77, view)
    assert_own(caught.value, own, good)
    assert playground.peek(base + 77, good) == data[3:]
    rest = 600 * PAGE - 77 - good
    assert playground.peek(base + 77 + good, rest) == pattern(base + 77 + good, rest)


def test_a_vectored_transfer_stops_at_our_own_bad_byte(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """Of many ranges, each cursor stands after its part of what was copied."""
    base = playground.layout("rw rw")
    own = Shortened(tmp_path)
    readers = [process.vm.reader(base + 100 * k, 10) for k in range(40)]
    writer = VmWriter.from_buffer(own.mapping).skip(own.end - 57)
    with pytest.raises(procvm.PageFaultError) as caught:
        VmReaderArray(readers).read(writer)
    assert_own(caught.value, own, 57)
    assert [reader.remain() for reader in readers] == [0] * 5 + [3] + [10] * 34
    assert writer.cursor() == own.address + own.end

    own.mapping[: own.end] = b"\x55" * own.end
    writers = [process.vm.writer(base + 100 * k, 10) for k in range(40)]
    reader = VmReader.from_buffer(own.mapping).skip(own.end - 57)
    with pytest.raises(procvm.PageFaultError) as caught:
        VmWriterArray(writers).write(reader)
    assert_own(caught.value, own, 57)
    assert [writer.avail() for writer in writers] == [0] * 5 + [3] + [10] * 34
    assert reader.cursor() == own.address + own.end
    expected = bytearray(pattern(base, 2 * PAGE))
    for k in range(6):
        expected[100 * k : 100 * k + (10 if k < 5 else 7)] = b"\x55" * (10 if k < 5 else 7)
    assert playground.peek(base, 2 * PAGE) == expected


def test_a_shortened_mapping_of_the_tool_as_its_own_target_is_a_fault(tmp_path: Path) -> None:
    """The tool that opened itself gets a PageFaultError for its own bad page, never SIGBUS."""
    own = Shortened(tmp_path)
    with procvm.open(os.getpid()) as process:
        own.mapping[: own.end] = pattern(0, own.end)
        buffer = bytearray(b"\xee" * 64)
        with pytest.raises(procvm.PageFaultError) as caught:
            process.vm.read_into(own.address + own.end - 20, buffer)
        assert_own(caught.value, own, 20)
        assert buffer == pattern(own.end - 20, 20) + b"\xee" * 44
        with pytest.raises(procvm.PageFaultError) as caught:
            process.vm.write_bytes(own.address + own.end - 20, b"\x11" * 64)
        assert_own(caught.value, own, 20)
        assert own.mapping[own.end - 20 : own.end] == b"\x11" * 20
