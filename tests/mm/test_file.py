"""`VmFile`: a range of memory as a file, against a real file and against whatever reads files."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import random
import shutil
import tempfile
import zipfile
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import procvm
from procvm import PageFaultError, VmSpace
from procvm._base.optional import numpy_or_none
from procvm._space.file import VmFile
from tests.support.fakes import BASE, PID, Holed
from tests.support.playground import PAGE, Playground, pattern

np: Any = numpy_or_none()

# A file of a fake has pages of 16 bytes.
SIZE = 5 * 16


def file_of(kinds: str, low: int = 0, high: int | None = None) -> tuple[VmFile, Holed]:
    """Returns a file over a fake's pages, and the fake."""
    fake = Holed(kinds)
    high = len(kinds.split()) * 16 if high is None else high
    return VmSpace(fake).open(BASE + low, BASE + high), fake


def fault_of(access: Any, *args: Any) -> tuple[int, int, int]:
    """Returns (address, copied_len, pid) of the PageFaultError that an access raises."""
    with pytest.raises(PageFaultError) as caught:
        access(*args)
    return caught.value.address, caught.value.copied_len, caught.value.pid


# Against a real file

OFFSETS = st.integers(-2 * SIZE, 2 * SIZE)
COUNTS = st.integers(0, SIZE + 20)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), COUNTS | st.just(-1)),
        st.tuples(st.just("readinto"), COUNTS),
        st.tuples(st.just("readall")),
        st.tuples(st.just("readline"), st.sampled_from([-1, 0, 5, 100])),
        st.tuples(st.just("readlines")),
        st.tuples(st.just("write"), st.binary(max_size=30)),
        st.tuples(st.just("writelines"), st.lists(st.binary(max_size=9), max_size=3)),
        st.tuples(st.just("seek"), OFFSETS, st.sampled_from([0, 1, 2, 7])),
        st.tuples(st.just("tell")),
        st.tuples(st.just("flush")),
    ),
    max_size=25,
)


def as_a_real_file(file: io.FileIO, step: tuple[Any, ...]) -> Any:
    """Does a step with a file that must not grow: writes end where it does."""
    name, *arguments = step
    if name == "readinto":
        buffer = bytearray(b"-" * arguments[0])
        return file.readinto(buffer), bytes(buffer)
    if name == "write":
        left = max(SIZE - file.tell(), 0)
        if arguments[0] and not left:
            raise OSError(errno.ENOSPC, "full")
        return file.write(arguments[0][:left])
    if name == "writelines":
        for line in arguments[0]:
            as_a_real_file(file, ("write", line))
        return None
    return getattr(file, name)(*arguments)


def as_memory(file: VmFile, step: tuple[Any, ...]) -> Any:
    name, *arguments = step
    if name == "readinto":
        buffer = bytearray(b"-" * arguments[0])
        return file.readinto(buffer), bytes(buffer)
    return getattr(file, name)(*arguments)


def outcome(run: Any, file: Any, step: tuple[Any, ...]) -> Any:
    """Returns what a step gives; the reason of a refusal does not matter, but for a full file."""
    try:
        return run(file, step)
    except (OSError, ValueError) as error:
        return "full" if getattr(error, "errno", 0) == errno.ENOSPC else "refused"


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_program_does_with_it_what_it_does_with_a_real_file(steps: list[Any]) -> None:
    """Every result, offset and byte of reads, writes and seeks is as of io.FileIO."""
    fake = Holed("hole rw rw rw rw rw rw hole")
    low = 16 + 7
    file = VmSpace(fake).open(BASE + low, BASE + low + SIZE)
    before, behind = fake.peek(BASE + 16, 7), fake.peek(BASE + low + SIZE, 9)
    with tempfile.TemporaryFile(buffering=0) as real:
        real.write(fake.peek(BASE + low, SIZE))
        real.seek(0)
        for step in steps:
            expected = outcome(as_a_real_file, real, step)
            assert outcome(as_memory, file, step) == expected, step
            assert file.tell() == real.tell(), step
        real.seek(0)
        assert fake.peek(BASE + low, SIZE) == real.read()
    assert (fake.peek(BASE + 16, 7), fake.peek(BASE + low + SIZE, 9)) == (before, behind)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 40))
def test_a_buffered_random_over_it_is_as_one_over_a_real_file(
    steps: list[Any], buffer_len: int
) -> None:
    """io.BufferedRandom gives the same results and, once flushed, the same bytes."""
    fake = Holed("rw rw rw rw rw")
    with tempfile.TemporaryFile(buffering=0) as raw:
        raw.write(fake.peek(BASE, SIZE))
        raw.seek(0)
        real = io.BufferedRandom(raw, buffer_len)
        file = io.BufferedRandom(VmSpace(fake).open(BASE, BASE + SIZE), buffer_len)
        for name, *arguments in steps:
            if name == "readall":
                continue
            step = (name, *arguments)
            if name in ("write", "writelines"):
                # What is behind the end shows when the buffer is emptied: another test's.
                data = b"".join(arguments[0]) if name == "writelines" else arguments[0]
                step = ("write", data[: max(SIZE - real.tell(), 0)])
            expected = outcome(as_memory, real, step)
            assert outcome(as_memory, file, step) == expected, step
            assert file.tell() == real.tell(), step
        real.flush()
        file.flush()
        raw.seek(0)
        assert fake.peek(BASE, SIZE) == raw.read(SIZE)
        real.detach()


# The contract of io.RawIOBase


def test_it_is_a_raw_file_that_is_read_written_and_sought() -> None:
    """It is an io.RawIOBase, has all three abilities, no descriptor, and no terminal."""
    file, _ = file_of("rw")
    assert isinstance(file, io.RawIOBase)
    assert (file.readable(), file.writable(), file.seekable(), file.isatty()) == (
        *(True, True, True, False),
    )
    with pytest.raises(io.UnsupportedOperation):
        file.fileno()
    with pytest.raises(io.UnsupportedOperation):
        file.truncate(3)
    assert file.tell() == 0


def test_nothing_is_touched_before_the_first_access() -> None:
    """Opening, seeking and closing read nothing and write nothing."""
    file, fake = file_of("none hole")
    file.seek(0, os.SEEK_END)
    file.seek(-3, os.SEEK_CUR)
    file.flush()
    file.close()
    assert fake.calls == []


def test_a_closed_file_refuses_everything() -> None:
    """After close each method raises ValueError, and closing again is fine."""
    file, fake = file_of("rw rw")
    with file as same:
        assert same is file
    assert file.closed
    file.close()
    calls: list[Any] = [
        file.read,
        file.readall,
        file.tell,
        file.flush,
        file.readable,
        file.writable,
        file.seekable,
        file.isatty,
        file.readline,
        file.__enter__,
        lambda: file.readinto(bytearray(3)),
        lambda: file.readinto(bytearray()),
        lambda: file.write(b"abc"),
        lambda: file.write(b""),
        lambda: file.seek(0),
        lambda: next(file),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    assert fake.calls == []


@pytest.mark.parametrize("whence", [0, 1, 2])
def test_seeking_before_the_start_is_refused(whence: int) -> None:
    """ValueError, and the offset stays."""
    file, _ = file_of("rw rw")
    file.seek(5)
    with pytest.raises(ValueError, match="seek"):
        file.seek(-100, whence)
    assert file.tell() == 5


@pytest.mark.parametrize("arguments", [("1",), (1.0,), (None,), (b"",), (True,)])
def test_an_offset_is_an_int(arguments: tuple[Any, ...]) -> None:
    """TypeError for whatever is none, and the offset stays."""
    file, _ = file_of("rw")
    file.seek(5)
    with pytest.raises(TypeError):
        file.seek(*arguments)
    assert file.tell() == 5


def test_far_behind_the_end_nothing_is_read_and_writing_is_refused() -> None:
    """A read gives nothing at any offset; a write is ENOSPC, but for one of nothing."""
    file, fake = file_of("rw rw")
    for at in (32, 33, 1 << 47, 1 << 64, 1 << 80):
        assert file.seek(at) == at
        assert (file.read(), file.read(5), file.readinto(bytearray(7))) == (b"", b"", 0)
        with pytest.raises(OSError, match="ends at offset 32") as caught:
            file.write(b"x")
        assert caught.value.errno == errno.ENOSPC
        assert file.write(b"") == 0
        assert file.tell() == at
    assert fake.calls == []


def test_a_write_over_the_end_is_short() -> None:
    """What fits is written and counted, nothing behind the range is, and the next is ENOSPC."""
    file, fake = file_of("rw rw", 3, 20)
    behind = fake.peek(BASE + 20, 12)
    file.seek(-4, os.SEEK_END)
    assert file.write(b"abcdefgh") == 4
    assert fake.peek(BASE + 16, 4) == b"abcd"
    assert fake.peek(BASE + 20, 12) == behind
    assert file.tell() == 17
    with pytest.raises(OSError, match="ends"):
        file.write(b"efgh")


def test_a_file_of_nothing_is_at_its_end() -> None:
    """A range of no bytes can be opened, reads nothing and takes nothing."""
    file, fake = file_of("hole", 5, 5)
    assert file.read() == b""
    assert file.seek(0, os.SEEK_END) == 0
    with pytest.raises(OSError, match="ends"):
        file.write(b"x")
    assert fake.calls == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(10),
        lambda: memoryview(bytearray(20))[5:15],
        lambda: array("H", [0] * 5),
        ctypes.c_uint16 * 5,
        lambda: memoryview(array("B", bytes(10))).cast("B", (2, 5)),
    ],
)
def test_every_plain_buffer_is_filled_and_written(make: Any) -> None:
    """Both readinto and write count bytes, whatever the items of a buffer are."""
    file, fake = file_of("rw rw")
    buffer = make()
    assert file.readinto(buffer) == 10
    assert bytes(memoryview(buffer)) == fake.peek(BASE, 10)
    assert file.write(buffer) == 10
    assert fake.peek(BASE + 10, 10) == fake.peek(BASE, 10)


@pytest.mark.parametrize("bad", [b"12345678", "text", 5, None, memoryview(bytearray(8))[::2]])
def test_what_can_not_be_filled_is_refused(bad: Any) -> None:
    """TypeError for a read-only, a torn or no buffer; nothing is read."""
    file, fake = file_of("rw")
    with pytest.raises(TypeError):
        file.readinto(bad)
    assert (file.tell(), fake.calls) == (0, [])


@pytest.mark.parametrize("bad", ["text", 5, None, memoryview(bytes(8))[::2]])
def test_what_is_no_bytes_is_not_written(bad: Any) -> None:
    """TypeError for a string, a torn or no buffer; nothing is written."""
    file, fake = file_of("rw")
    with pytest.raises(TypeError):
        file.write(bad)
    assert (file.tell(), fake.calls) == (0, [])


def test_a_buffer_of_pointers_is_not_filled() -> None:
    """TypeError: bytes of a target in their place would crash the tool."""
    file, fake = file_of("rw")
    pointers = (ctypes.c_char_p * 1)()
    try:
        with pytest.raises(TypeError, match="pointers"):
            file.readinto(pointers)
        assert fake.calls == []
    finally:
        ctypes.memset(pointers, 0, ctypes.sizeof(pointers))


# Faults


def test_a_bad_page_in_the_middle_is_a_short_read_and_then_a_fault() -> None:
    """What stands before it comes first; at it each read faults, until it is passed."""
    file, fake = file_of("rw rw none rw")
    file.seek(10)
    assert file.read(100) == fake.peek(BASE + 10, 22)
    assert file.tell() == 32
    for _ in range(2):
        assert fault_of(file.read, 5) == (BASE + 32, 0, PID)
        assert fault_of(file.readinto, bytearray(5)) == (BASE + 32, 0, PID)
        assert file.tell() == 32
    file.seek(48)
    assert file.read() == fake.peek(BASE + 48, 16)


def test_reading_all_over_a_bad_page_is_a_fault() -> None:
    """read() and readall() do not pass a bad page for the end; the offset is at it."""
    for name in ("read", "readall"):
        file, _ = file_of("rw rw hole rw")
        assert fault_of(getattr(file, name)) == (BASE + 32, 0, PID)
        assert file.tell() == 32


def test_a_bad_page_in_the_middle_is_a_short_write_and_then_a_fault() -> None:
    """What stands before it is written and counted; at it each write faults."""
    file, fake = file_of("rw rw r rw")
    file.seek(30)
    assert file.write(b"abcdef") == 2
    assert fake.peek(BASE + 30, 2) == b"ab"
    assert fault_of(file.write, b"cdef") == (BASE + 32, 0, PID)
    assert file.tell() == 32


def test_the_fault_is_an_oserror() -> None:
    """What reads files and expects OSError gets one, EFAULT."""
    file, _ = file_of("hole")
    with pytest.raises(OSError, match="fake") as caught:
        file.read(1)
    assert caught.value.errno == errno.EFAULT


def test_a_buffered_reader_meets_the_fault_too() -> None:
    """What it has buffered is given, and a fault is not taken for an end."""
    file, fake = file_of("rw rw none rw")
    with io.BufferedReader(file, 8) as reader:
        assert reader.read(32) == fake.peek(BASE, 32)
        assert fault_of(reader.read, 1) == (BASE + 32, 0, PID)
        reader.seek(50)
        assert reader.read() == fake.peek(BASE + 50, 14)


def test_a_buffered_writer_meets_the_end() -> None:
    """A flush of more than fits writes what fits and raises ENOSPC."""
    file, fake = file_of("rw", 0, 10)
    writer = io.BufferedWriter(file, 64)
    writer.write(b"0123456789abc")
    with pytest.raises(OSError, match="ends") as caught:
        writer.flush()
    assert caught.value.errno == errno.ENOSPC
    assert fake.peek(BASE, 10) == b"0123456789"
    with contextlib.suppress(OSError):
        writer.close()


# Which range


def test_a_range_that_is_none_is_refused() -> None:
    """A range that ends early is ValueError, one beyond user space AccessDeniedError."""
    vm = VmSpace(Holed("rw"))
    with pytest.raises(ValueError, match="ends before it starts"):
        vm.open(BASE + 1, BASE)
    with pytest.raises(procvm.AccessDeniedError):
        vm.open(BASE, vm.end + 1)
    with pytest.raises(procvm.AddressOverflowError):
        vm.open(BASE, 1 << 64)
    with pytest.raises(procvm.InvalidArgsError):
        vm.open(-1, BASE)
    bad: list[Any] = ["a", 1.0, None, True]
    for one in bad:
        with pytest.raises(TypeError):
            vm.open(one, BASE)
    assert vm.open(vm.end, vm.end).read() == b""
    assert vm.open(0, vm.end).seek(0, os.SEEK_END) == vm.end


def test_it_says_what_it_is() -> None:
    """Its text names the range and the offset, open or closed."""
    file, _ = file_of("rw rw", 3, 20)
    file.seek(7)
    for _ in range(2):
        text = repr(file)
        assert f"{BASE + 3:#x}" in text
        assert f"{BASE + 20:#x}" in text
        assert "7" in text
        file.close()


# A live target


def test_a_live_target_is_read_and_written(process: procvm.Process, playground: Playground) -> None:
    """What a file reads the target has, and what it writes the target sees; faults are exact."""
    base = playground.layout("rw rw none r hole")
    with process.vm.open(base + 5, base + 5 * PAGE) as file:
        assert file.read(2 * PAGE) == pattern(base + 5, 2 * PAGE - 5)
        assert fault_of(file.read, 1) == (base + 2 * PAGE, 0, playground.pid)
        file.seek(PAGE - 8)
        assert file.write(b"over the edge") == 13
        assert playground.peek(base + PAGE - 3, 13) == b"over the edge"
        file.seek(2 * PAGE - 9)
        assert file.write(b"abcdefgh") == 4
        assert fault_of(file.write, b"x") == (base + 2 * PAGE, 0, playground.pid)
        file.seek(3 * PAGE - 5)
        assert file.read(9) == pattern(base + 3 * PAGE, 9)
        assert fault_of(file.write, b"x") == (base + 3 * PAGE + 9, 0, playground.pid)
    assert playground.peek(base + 2 * PAGE - 4, 4) == b"abcd"
    with process.vm.forced().open(base + 2 * PAGE, base + 4 * PAGE) as file:
        assert file.read() == pattern(base + 2 * PAGE, 2 * PAGE)
        file.seek(PAGE)
        assert file.write(b"forced") == 6
    assert playground.peek(base + 3 * PAGE, 6) == b"forced"


def test_a_target_that_has_gone_is_told(playground: Playground) -> None:
    """After the end ProcessExitedError, after close ClosedError; the offset stays."""
    base = playground.layout("rw")
    with procvm.open(playground.pid) as process:
        file = process.vm.open(base, base + PAGE)
        assert file.read(4) == pattern(base, 4)
        playground.popen.kill()
        playground.popen.wait()
        for _ in range(2):
            with pytest.raises(procvm.ProcessExitedError):
                file.read(4)
            with pytest.raises(procvm.ProcessExitedError):
                file.write(b"abc")
            assert file.tell() == 4
    for call in (file.read, lambda: file.write(b"abc")):
        with pytest.raises(procvm.ClosedError):
            call()
    assert file.tell() == 4


def test_files_are_copied_to_and_from_a_target(playground: Playground, tmp_path: Path) -> None:
    """shutil.copyfileobj moves a range to a file on disk, and a file to another range."""
    n = 100 * PAGE
    source, target = playground.reserve(n), playground.reserve(n)
    data = random.Random(3).randbytes(n)
    path = tmp_path / "copy"
    with procvm.open(playground.pid) as process:
        process.vm.write_bytes(source, data)
        with process.vm.open(source, source + n) as file, path.open("wb") as out:
            shutil.copyfileobj(file, out)
        assert path.read_bytes() == data
        with (
            path.open("rb") as back,
            io.BufferedRandom(process.vm.open(target, target + n), 3 * PAGE) as buffered,
        ):
            shutil.copyfileobj(back, buffered, 1000)
    for at in (0, PAGE - 8, n - 100):
        assert playground.peek(target + at, 100)[: n - at] == data[at : at + 100]


def test_text_is_read_line_by_line() -> None:
    """io.TextIOWrapper over io.BufferedReader reads lines of text out of memory."""
    fake = Holed("rw rw rw", page_len=16)
    fake.poke(BASE, "erste Zeile\nzweite: ä ö ü\ndritte\n".encode().ljust(48, b"."))
    with io.TextIOWrapper(
        io.BufferedReader(VmSpace(fake).open(BASE, BASE + 36)), encoding="utf-8"
    ) as text:
        assert text.readlines() == ["erste Zeile\n", "zweite: ä ö ü\n", "dritte\n"]


@pytest.mark.skipif(np is None, reason="it is about numpy")
def test_numpy_takes_what_it_reads(playground: Playground) -> None:
    """numpy.frombuffer of read(), and readinto of an array, give the target's numbers."""
    base = playground.layout("rw rw")
    expected = np.frombuffer(pattern(base + 8, 800), ">u4")
    with (
        procvm.open(playground.pid) as process,
        process.vm.open(base + 8, base + 808) as file,
    ):
        assert (np.frombuffer(file.read(), ">u4") == expected).all()
        room = np.zeros((20, 10), ">u4")
        file.seek(0)
        assert file.readinto(room) == 800
        assert (room.reshape(-1) == expected).all()


def test_an_archive_in_memory_is_read(playground: Playground, tmp_path: Path) -> None:
    """An archive that the target has mapped is read by zipfile."""
    path = tmp_path / "archive.zip"
    data = random.Random(4).randbytes(20_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/noise", data)
        archive.writestr("folder/zeros", bytes(50_000))
    n = path.stat().st_size
    base = playground.map_file(bytes(path), n)
    with (
        procvm.open(playground.pid) as process,
        process.vm.open(base, base + n) as file,
        zipfile.ZipFile(file) as archive,
    ):
        assert archive.testzip() is None
        assert archive.read("folder/noise") == data
        assert archive.read("folder/zeros") == bytes(50_000)


def test_a_program_in_memory_is_read(playground: Playground) -> None:
    """The header of what the target runs, and all of a program it has mapped, by elftools."""
    elffile = pytest.importorskip("elftools.elf.elffile")
    program = os.readlink(f"/proc/{playground.pid}/exe")
    n = Path(program).stat().st_size
    base = playground.map_file(program.encode(), n)
    with procvm.open(playground.pid) as process, Path(program).open("rb") as on_disk:
        expected = elffile.ELFFile(on_disk)
        start = process.maps().filter(name=program)[0].start
        with process.vm.open(start, start + PAGE) as file:
            assert elffile.ELFFile(file).header == expected.header
        with process.vm.open(base, base + n) as file:
            found = elffile.ELFFile(file)
            sections = [(part.name, part.data()) for part in expected.iter_sections()]
            assert [(part.name, part.data()) for part in found.iter_sections()] == sections
            assert ".text" in dict(sections)


def test_a_snapshot_is_a_file_that_is_not_written(playground: Playground) -> None:
    """It reads and faults as the process did; a write is refused and moves nothing."""
    base = playground.layout("rw hole rw")
    with (
        procvm.open(playground.pid) as process,
        process.snapshot([(base, base + 3 * PAGE)]) as snapshot,
        snapshot.vm.open(base + 9, base + 3 * PAGE) as file,
    ):
        assert file.read(3 * PAGE) == pattern(base + 9, PAGE - 9)
        assert fault_of(file.read) == (base + PAGE, 0, playground.pid)
        file.seek(5)
        with pytest.raises(procvm.AccessDeniedError):
            file.write(b"abc")
        assert file.tell() == 5
        snapshot.close()
        with pytest.raises(procvm.ClosedError):
            file.read(1)
