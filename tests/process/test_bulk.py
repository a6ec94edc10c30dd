"""Much memory at once from real processes: reads by several threads, and copies to files."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procvm
from procvm import VmSpace
from procvm._mm.memory import UserMemory
from procvm._space.stream import _WORTH
from tests.linux.kinds import DEFAULT, KINDS, contents, every_pair, good_len, oracle
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground

ROOT = Path(__file__).parents[2]
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
Backend = Literal["auto", "mem"]
THREADS = [1, 2, 3, 7]


def readers() -> list[str]:
    """Returns the threads of this process that read for someone."""
    return [one.name for one in threading.enumerate() if one.name.startswith("procvm")]


def filled(playground: Playground, n: int) -> int:
    """Maps `n` bytes of the pattern; returns where."""
    start = playground.reserve(n)
    playground.clear(start, n)
    return start


def truth_of(pid: int, start: int, n: int) -> bytes:
    with oracle(pid) as told:
        data = told.read(start, n)
    assert len(data) == n
    return data


# Reads by several threads

SIZES = [
    *(1, PAGE, 2 * _WORTH - PAGE, 3 * _WORTH + PAGE + 1, 7 * _WORTH - 1, 7 * _WORTH + 5),
    *(k * _WORTH + d for k in (1, 2, 3) for d in (-1, 0, 1)),
]


def test_a_read_is_the_same_for_any_number_of_threads(
    process: procvm.Process, playground: Playground
) -> None:
    """Sizes around those at which it is split, from the start of a page and from inside one."""
    most = max(SIZES) + PAGE
    start = filled(playground, most)
    data = truth_of(playground.pid, start, most)
    for n in SIZES:
        for at, some in ((0, THREADS), (13, [3])):
            for threads in some:
                buffer = bytearray(b"\xee" * (n + 2))
                process.vm.read_into(start + at, memoryview(buffer)[1:-1], threads=threads)
                assert buffer[0] == buffer[-1] == 0xEE
                assert memoryview(buffer)[1:-1] == data[at : at + n], (n, at, threads)
        got = process.vm.read_bytes(start + 13, n, threads=7)
        assert type(got) is bytes
        assert got == data[13 : 13 + n]
    assert readers() == []


def test_no_bytes_are_no_parts(process: procvm.Process) -> None:
    """An empty read is nothing anywhere, with threads too."""
    assert process.vm.read_bytes(0, 0, threads=3) == b""
    process.vm.read_into(1 << 60, bytearray(), threads=3)


def test_any_read_by_threads_is_as_the_model(
    process: procvm.Process, playground: Playground
) -> None:
    """Kinds of pages, starts, lengths and threads: bytes, and the first fault of all parts."""
    kinds = every_pair()
    base = playground.layout(" ".join(kinds))
    truth = contents(playground, base, kinds)
    few = [k for k, kind in enumerate(kinds) if kind not in DEFAULT.readable]
    assert few

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        st.integers(0, len(kinds) * PAGE - 1), st.integers(1, 40 * PAGE), st.sampled_from(THREADS)
    )
    def check(at: int, n: int, threads: int) -> None:
        n = min(n, len(kinds) * PAGE - at)
        good = good_len(kinds, at, n, DEFAULT.readable)
        buffer = bytearray(b"\xee" * (n + 1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("procvm._space.stream._WORTH", 1)
            if good == n:
                process.vm.read_into(base + at, memoryview(buffer)[:n], threads=threads)
            else:
                with pytest.raises(procvm.PageFaultError) as caught:
                    process.vm.read_into(base + at, memoryview(buffer)[:n], threads=threads)
                error = caught.value
                told = (error.address, error.copied_len, error.pid)
                assert told == (base + at + good, good, playground.pid)
        assert buffer[:good] == truth[at : at + good]
        assert buffer[n] == 0xEE

    check()


@pytest.mark.parametrize("bad", ["hole", "none"])
def test_a_bad_page_in_any_part_is_told_exactly(
    process: procvm.Process, playground: Playground, bad: str
) -> None:
    """One in each part by itself, then in two at once: the lower one is what is raised."""
    n = 3 * _WORTH + 5 * PAGE
    start = filled(playground, n)
    data = truth_of(playground.pid, start, n)
    part = (n // 3 + PAGE - 1) // PAGE * PAGE
    places = [PAGE, part - PAGE, part, 2 * part + 3 * PAGE, n - PAGE]
    done: list[int] = []
    # From the last one on, so that each that is made bad is the first.
    for at in reversed(places):
        if bad == "hole":
            playground.unmap(start + at, PAGE)
        else:
            playground.protect(start + at, PAGE, "none")
        done.append(at)
        for threads in (3, 1, 2, 7):
            buffer = bytearray(n)
            with pytest.raises(procvm.PageFaultError) as caught:
                process.vm.read_into(start, buffer, threads=threads)
            error = caught.value
            told = (error.address, error.copied_len, error.pid)
            assert told == (start + at, at, playground.pid)
            assert memoryview(buffer)[:at] == data[:at]
            assert f"copied_len={at}" in str(error)
            with pytest.raises(procvm.PageFaultError) as caught:
                process.vm.read_bytes(start, n, threads=threads)
            assert caught.value.copied_len == at
    assert readers() == []


def test_threads_that_make_no_sense_are_refused(
    process: procvm.Process, playground: Playground
) -> None:
    """Below zero or no whole number; 0 is 1, as it is for a scan."""
    start = playground.layout("rw")
    expected = playground.peek(start, PAGE)
    buffer = bytearray(PAGE)
    for threads, error in ((-1, procvm.InvalidArgsError), (1.5, TypeError), ("2", TypeError)):
        for access in (
            lambda threads: process.vm.read_bytes(start, PAGE, threads=threads),
            lambda threads: process.vm.read_into(start, buffer, threads=threads),
        ):
            with pytest.raises(error) as caught:
                access(threads)
            assert type(caught.value) is error
    assert buffer == bytes(PAGE)
    assert process.vm.read_bytes(start, PAGE, threads=0) == expected
    process.vm.read_into(start, buffer, threads=0)
    assert buffer == expected


def test_a_buffer_that_can_not_be_filled_is_refused(
    process: procvm.Process, playground: Playground
) -> None:
    """Read-only, not contiguous, or of pointers: a TypeError, and no thread begins."""
    start = playground.layout("rw")
    for buffer in (bytes(8), memoryview(bytes(8)), memoryview(bytearray(16))[::2]):
        with pytest.raises(TypeError):
            process.vm.read_into(start, buffer, threads=3)
    assert readers() == []


def test_a_range_that_leaves_user_space_is_refused(process: procvm.Process) -> None:
    """Before any part is read."""
    end = process.vm.end
    with pytest.raises(procvm.AccessDeniedError) as caught:
        process.vm.read_into(end - 4 * _WORTH, bytearray(4 * _WORTH + 1), threads=3)
    assert caught.value.copied_len == 0
    with pytest.raises(procvm.AccessDeniedError):
        process.vm.read_bytes(end - 1, 2, threads=3)


def available() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(text.partition("MemAvailable:")[2].split()[0]) * KIB


@pytest.mark.skipif(available() < 6 * GIB, reason="needs 6 GiB of free memory")
def test_more_than_one_call_moves(playground: Playground) -> None:
    """2.2 GiB, of which a part was written: each byte at its place, as more than one call gives."""
    n = 2 * GIB + 200 * MIB
    start = playground.reserve(n)
    places = [0, MIB + 3, GIB - 5, 0x7FFFF000 - 4, 0x7FFFF000, 2 * GIB - 2, n - 8]
    for at in places:
        playground.poke(start + at, b"\x81\x82\x83\x84\x85\x86\x87\x88")
    with procvm.open(playground.pid) as process, mmap.mmap(-1, n) as own:
        process.vm.read_into(start, own, threads=2)
        for at in places:
            assert own[at : at + 8] == playground.peek(start + at, 8)
        for at in places:
            own[at : at + 8] = bytes(8)
        zeros = bytes(16 * MIB)
        view = memoryview(own)
        assert all(view[at : at + 16 * MIB] == zeros[: n - at] for at in range(0, n, 16 * MIB))
        view.release()


class Hooked(UserMemory):
    """A process's memory, with something done before some of the reads."""

    def __init__(self, inner: UserMemory, before: Callable[[int, int], object]) -> None:
        self.inner, self.before = inner, before

    @property
    def domain(self) -> object:
        return self.inner.domain

    @property
    def end(self) -> int:
        return self.inner.end

    @property
    def pid(self) -> int:
        return self.inner.pid

    def forced(self) -> UserMemory:
        return Hooked(self.inner.forced(), self.before)

    def read(self, address: int, own_address: int, n: int) -> None:
        self.before(address, n)
        self.inner.read(address, own_address, n)

    def write(self, address: int, own_address: int, n: int) -> None:
        raise AssertionError("nothing is written here")


def test_a_target_that_exits_meanwhile_is_told(
    process: procvm.Process, playground: Playground
) -> None:
    """Before the first part, or before one of the others: the error says so, no thread is left."""
    n = 3 * _WORTH
    start = filled(playground, n)
    data = truth_of(playground.pid, start, n)
    part = n // 3
    first_done = threading.Event()

    def end(address: int, _n: int) -> None:
        if address == start:
            return
        first_done.wait()
        playground.popen.kill()
        playground.popen.wait()

    class First(Hooked):
        def read(self, address: int, own_address: int, n: int) -> None:
            super().read(address, own_address, n)
            first_done.set()

    buffer = bytearray(n)
    vm = VmSpace(First(process.vm.memory, end))
    with pytest.raises(procvm.ProcessExitedError) as caught:
        vm.read_into(start, buffer, threads=3)
    assert (caught.value.pid, caught.value.copied_len) == (playground.pid, part)
    assert memoryview(buffer)[:part] == data[:part]
    assert readers() == []
    with pytest.raises(procvm.ProcessExitedError) as caught:
        process.vm.read_into(start, buffer, threads=3)
    assert caught.value.copied_len == 0


def test_the_error_of_the_lowest_part_is_raised(
    process: procvm.Process, playground: Playground
) -> None:
    """Whichever came first in time, and of whatever kind."""
    n = 3 * _WORTH
    start = filled(playground, n)
    last_failed = threading.Event()

    class OddError(Exception):
        pass

    def fail(address: int, _n: int) -> None:
        if address == start + n // 3:
            last_failed.wait()
            raise OddError
        if address > start:
            last_failed.set()
            raise procvm.PageFaultError("made up", address=address, pid=1)

    with pytest.raises(OddError):
        VmSpace(Hooked(process.vm.memory, fail)).read_bytes(start, n, threads=3)
    assert readers() == []


# Interrupts


def main_waits() -> bool:
    """Returns whether the main thread waits for another one."""
    main = threading.main_thread().ident
    assert main is not None
    frame = sys._current_frames()[main]  # noqa: SLF001 (a public function of CPython)
    return frame.f_code.co_filename == threading.__file__


@pytest.mark.parametrize("slow", ["first", "others"])
def test_ctrl_c_in_the_middle_leaves_no_thread(
    process: procvm.Process, playground: Playground, slow: str
) -> None:
    """While the first part is read, or while the others are waited for: nothing reads on."""
    n = 3 * _WORTH
    start = filled(playground, n)
    interrupted, first = threading.Event(), threading.Lock()

    def interrupt(address: int, _n: int) -> None:
        if address == start:
            if slow == "first":
                assert eventually(readers)
                interrupted.set()
                signal.raise_signal(signal.SIGINT)
        elif slow == "first":
            interrupted.wait()
        elif first.acquire(blocking=False):  # one interrupt, of one of them
            assert eventually(main_waits)
            os.kill(os.getpid(), signal.SIGINT)

    buffer = bytearray(n)
    vm = VmSpace(Hooked(process.vm.memory, interrupt))
    with pytest.raises(KeyboardInterrupt):
        vm.read_into(start, buffer, threads=3)
    left, seen = readers(), bytes(buffer)
    assert eventually(lambda: not readers())
    assert left == []
    assert seen == bytes(buffer)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("can't start new thread")])
def test_a_thread_that_does_not_start_leaves_no_other(
    process: procvm.Process, playground: Playground, error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that did start are waited for, and nothing is written afterwards."""
    n = 3 * _WORTH
    start = filled(playground, n)
    begun = 0
    failed = threading.Event()
    start_of = threading.Thread.start

    def begin(thread: threading.Thread) -> None:
        nonlocal begun
        begun += 1
        if begun == 2:
            failed.set()
            raise error
        start_of(thread)

    buffer = bytearray(n)
    vm = VmSpace(Hooked(process.vm.memory, lambda _address, _n: failed.wait()))
    monkeypatch.setattr(threading.Thread, "start", begin)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        vm.read_into(start, buffer, threads=3)
    left, seen = readers(), bytes(buffer)
    assert eventually(lambda: not readers())
    assert left == []
    assert seen == bytes(buffer)


# Copies to files


KINDS_OF_PATH: list[Callable[[Path], Any]] = [str, os.fsencode, lambda path: path]


@pytest.mark.parametrize("as_path", KINDS_OF_PATH, ids=["str", "bytes", "PathLike"])
def test_a_copy_to_a_path_makes_the_file(
    process: procvm.Process, playground: Playground, tmp_path: Path, as_path: Callable[[Path], Any]
) -> None:
    """What was in it before is gone, and the count is that of its bytes."""
    start = playground.layout("rw r srw")
    path = tmp_path / "dump"
    path.write_bytes(b"old" * PAGE * 4)
    assert process.vm.copy_to(as_path(path), [(start + 5, start + 3 * PAGE - 5)]) == 3 * PAGE - 10
    assert path.read_bytes() == playground.peek(start + 5, 3 * PAGE - 10)


def test_ranges_are_copied_in_the_order_given(
    process: procvm.Process, playground: Playground
) -> None:
    """Mappings, range objects and pairs; overlapping, repeated, falling and empty ones."""
    start = playground.layout("rw r rw sr")
    data = playground.peek(start, 4 * PAGE)
    vmas = [vma for vma in process.maps() if start <= vma.start < start + 4 * PAGE]
    assert len(vmas) == 4
    file = io.BytesIO(b"before")
    file.seek(6)
    ranges: list[Any] = [
        *(vmas[3], vmas[0]),
        range(start + 10, start + PAGE + 20),
        *((start + 5, start + 15), (start + 5, start + 15), (start, start), (0, 0)),
    ]
    n = process.vm.copy_to(file, iter(ranges))
    expected = [data[3 * PAGE :], data[:PAGE], data[10 : PAGE + 20], data[5:15], data[5:15]]
    assert file.getvalue() == b"before" + b"".join(expected)
    assert n == 2 * PAGE + PAGE + 10 + 20
    file.write(b"behind")  # it is still open


class Raw(io.RawIOBase):
    """A file that takes a few bytes at a time, and keeps them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data[: self.most])
        self.taken += part
        return len(part)


@pytest.mark.parametrize("most", [1, 7, 4095])
def test_a_file_that_takes_a_few_bytes_gets_them_all(
    process: procvm.Process, playground: Playground, most: int
) -> None:
    """In order, each once."""
    start = playground.layout("rw r")
    file = Raw(most)
    assert process.vm.copy_to(file, [(start, start + 2 * PAGE)]) == 2 * PAGE
    assert file.taken == playground.peek(start, 2 * PAGE)


def test_a_pipe_gets_it_all(process: procvm.Process, playground: Playground) -> None:
    """More than it holds, while another thread reads it."""
    n = 3 * MIB + 17
    start = filled(playground, n)
    read_end, write_end = os.pipe()
    got = bytearray()

    def drain() -> None:
        with open(read_end, "rb") as file:
            while part := file.read(50_000):
                got.extend(part)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        with open(write_end, "wb", buffering=0) as file:
            assert process.vm.copy_to(file, [(start, start + n)]) == n
    finally:
        thread.join()
    assert got == truth_of(playground.pid, start, n)


def test_a_pipe_that_does_not_wait_loses_nothing(
    process: procvm.Process, playground: Playground
) -> None:
    """A full one that is not read is an error: never a count of bytes that nobody has."""
    n = MIB
    start = filled(playground, n)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with (
        open(read_end, "rb"),
        open(write_end, "wb", buffering=0) as file,
        pytest.raises(BlockingIOError),
    ):
        process.vm.copy_to(file, [(start, start + n)])


@pytest.mark.parametrize("bad", ["hole", "none"])
@pytest.mark.parametrize("as_path", [True, False])
def test_a_fault_in_the_middle_leaves_what_came_before(
    process: procvm.Process, playground: Playground, tmp_path: Path, bad: str, as_path: bool
) -> None:
    """In the first chunk, in a later one, in a second range: count and file to the byte.

    At a path there is what there was.
    """
    n = 2 * MIB + 4 * PAGE
    start = filled(playground, n)
    data = truth_of(playground.pid, start, n)
    for at in (2 * MIB + PAGE, MIB, MIB - PAGE, 3 * PAGE, 0):
        if bad == "hole":
            playground.unmap(start + at, PAGE)
        else:
            playground.protect(start + at, PAGE, "none")
        for before in (0, 100):
            # What is copied first is a part that is good in each round.
            good_part = (start + n - before, start + n)
            path = tmp_path / "dump"
            path.write_bytes(b"old")
            raw = Raw(100_000)
            with pytest.raises(procvm.PageFaultError) as caught:
                process.vm.copy_to(path if as_path else raw, [good_part, (start, start + n)])
            error = caught.value
            told = (error.address, error.copied_len, error.pid)
            assert told == (start + at, before + at, playground.pid)
            expected = data[n - before :] + data[:at] if before else data[:at]
            assert raw.taken == (b"" if as_path else expected)
            assert path.read_bytes() == b"old"
            assert os.listdir(tmp_path) == ["dump"]


def test_a_copy_of_nothing_makes_an_empty_file(process: procvm.Process, tmp_path: Path) -> None:
    """No ranges, or empty ones."""
    seen: list[tuple[int, int]] = []
    cases: list[list[Any]] = [[], [(64, 64)], [range(5, 5), (1 << 40, 1 << 40)]]
    for ranges in cases:
        path = tmp_path / "dump"
        path.write_bytes(b"old")
        progress: Any = lambda done, total: seen.append((done, total))  # noqa: E731
        assert process.vm.copy_to(path, ranges, progress=progress) == 0
        assert path.read_bytes() == b""
    assert seen == []


def test_progress_counts_each_range(process: procvm.Process, playground: Playground) -> None:
    """Bytes done and bytes in all, after each megabyte and at the end of each range."""
    n = 2 * MIB + 300
    start = filled(playground, n)
    seen: list[tuple[int, int]] = []
    ranges = [(start, start + n), (start + 7, start + 10)]
    progress: Any = lambda done, total: seen.append((done, total))  # noqa: E731
    assert process.vm.copy_to(io.BytesIO(), ranges, progress=progress) == n + 3
    assert seen == [(done, n + 3) for done in (MIB, 2 * MIB, n, n + 3)]


def test_a_full_disk_is_the_files_own_error(
    process: procvm.Process, playground: Playground
) -> None:
    """An OSError of /dev/full, which is no error of the library; a path of a device is refused."""
    start = playground.layout("rw")
    with pytest.raises(FileExistsError, match="/dev/full"):
        process.vm.copy_to("/dev/full", [(start, start + PAGE)])
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        process.vm.copy_to(file, [(start, start + PAGE)])


def test_a_path_that_can_not_be_made_is_the_files_own_error(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """No such folder, and a folder itself."""
    start = playground.layout("rw")
    with pytest.raises(FileNotFoundError):
        process.vm.copy_to(tmp_path / "none" / "dump", [(start, start + PAGE)])
    with pytest.raises(IsADirectoryError):
        process.vm.copy_to(tmp_path, [(start, start + PAGE)])
    for dest in (5, None):
        with pytest.raises(TypeError):
            process.vm.copy_to(dest, [(start, start + PAGE)])  # type: ignore[arg-type]


def test_bad_ranges_are_refused_before_the_file_is_made(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """Out of user space, or not from low to high: what a file held is still there."""
    start = playground.layout("rw")
    good, end = (start, start + PAGE), process.vm.end
    path = tmp_path / "dump"
    for bad in ((end - PAGE, end + 1), (end + PAGE, end + 2 * PAGE)):
        with pytest.raises(procvm.AccessDeniedError):
            process.vm.copy_to(path, [good, bad])
        assert not path.exists()
    path.write_bytes(b"old")
    wrong: list[tuple[Any, type[Exception]]] = [
        *(((5, 3), ValueError), ((0, 1 << 65), OverflowError), ((1.0, 2), TypeError)),
    ]
    for pair, error in wrong:
        with pytest.raises(error):
            process.vm.copy_to(path, [good, pair])
    assert path.read_bytes() == b"old"


def test_a_target_that_exits_in_the_middle_of_a_copy_is_told(
    process: procvm.Process, playground: Playground
) -> None:
    """The bytes before are in the file, and the error counts them."""
    n = 3 * MIB
    start = filled(playground, n)
    data = truth_of(playground.pid, start, n)

    def end(done: int, _total: int) -> None:
        if done == 2 * MIB:
            playground.popen.kill()
            playground.popen.wait()

    file = io.BytesIO()
    with pytest.raises(procvm.ProcessExitedError) as caught:
        process.vm.copy_to(file, [(start, start + n)], progress=end)
    assert (caught.value.pid, caught.value.copied_len) == (playground.pid, 2 * MIB)
    assert file.getvalue() == data[: 2 * MIB]


COPY = """
import hashlib, sys
import procvm

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1])

class Sum:
    def __init__(self):
        self.sum = hashlib.sha1(usedforsecurity=False)

    def write(self, data):
        self.sum.update(data)
        return len(data)

pid, start, n = map(int, sys.argv[1:])
with procvm.open(pid) as process:
    process.vm.copy_to(Sum(), [(start, start + (1 << 20))])
    before = peak()
    file = Sum()
    assert process.vm.copy_to(file, [(start, start + n)]) == n
    print(peak() - before, file.sum.hexdigest())
"""


def test_a_copy_takes_constant_memory(playground: Playground) -> None:
    """256 MiB add less than 4 MiB to the tool; the sum is that of the target's bytes."""
    n = 256 * MIB
    start = playground.reserve(n)
    playground.clear(start + 100 * MIB, MIB + 77)
    argv = [sys.executable, "-c", COPY, *map(str, (playground.pid, start, n))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    added, told = done.stdout.split()
    assert int(added) <= 4 * KIB
    expected = hashlib.sha1(bytes(100 * MIB), usedforsecurity=False)
    expected.update(truth_of(playground.pid, start + 100 * MIB, 156 * MIB))
    assert told == expected.hexdigest()


def test_every_kind_of_page_is_copied_or_faults(
    process: procvm.Process, playground: Playground
) -> None:
    """Each by itself: all of it with its bytes, or nothing at all."""
    base = playground.layout(" ".join(KINDS))
    truth = contents(playground, base, KINDS)
    for k, kind in enumerate(KINDS):
        file = io.BytesIO()
        ranges = [(base + k * PAGE, base + (k + 1) * PAGE)]
        if kind in DEFAULT.readable:
            assert process.vm.copy_to(file, ranges) == PAGE
            assert file.getvalue() == truth[k * PAGE : (k + 1) * PAGE]
        else:
            with pytest.raises(procvm.PageFaultError) as caught:
                process.vm.copy_to(file, ranges)
            assert (caught.value.address, caught.value.copied_len) == (base + k * PAGE, 0)
            assert file.getvalue() == b""
