"""Vectors, transfers beyond what one call moves, and the token that proves whose bytes came."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import procvm
from procvm import VmReader, VmReaderArray, VmWriter, VmWriterArray, u64
from procvm._linux.libc import libc
from procvm._linux.process_vm import TOKEN_LEN
from tests.linux.kinds import oracle
from tests.support.playground import PAGE, Playground, pattern

MAX_RW_COUNT = 0x7FFF_F000
WINDOW = 1 << 24
BACKENDS: tuple[Literal["auto", "mem"], ...] = ("auto", "mem")


class OwnWindow:
    """The same shared pages mapped again and again: gigabytes of addresses, 16 MiB of memory."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.fd = os.memfd_create("window", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, WINDOW)
        self.pages = mmap.mmap(self.fd, WINDOW)
        libc = ctypes.CDLL(None, use_errno=True)
        self._mmap = libc["mmap"]
        self._mmap.restype = ctypes.c_void_p
        self._munmap = libc["munmap"]
        self.address = self._map(0, n, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        rw, fixed = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | 0x10  # MAP_FIXED
        for at in range(0, n, WINDOW):
            self._map(self.address + at, min(WINDOW, n - at), rw, fixed, self.fd)

    def _map(self, address: int, n: int, prot: int, flags: int, fd: int) -> int:
        found = self._mmap(
            ctypes.c_void_p(address),
            ctypes.c_size_t(n),
            prot,
            flags,
            fd,
            ctypes.c_long(0),
        )
        assert found != ctypes.c_void_p(-1).value
        return int(found)

    def close(self) -> None:
        assert self._munmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self.n)) == 0
        self.pages.close()
        os.close(self.fd)


LARGE = MAX_RW_COUNT + 5 * PAGE
WINDOWS = LARGE + 2 * PAGE


@pytest.fixture
def own() -> Iterator[OwnWindow]:
    """A window of our own with a little more than one call moves."""
    window = OwnWindow(WINDOWS)
    yield window
    window.close()


def window_bytes(contents: bytes, start: int, n: int) -> bytes:
    """Returns `n` bytes from `start` on of a window, 16 MiB of them at most."""
    start %= WINDOW
    return (contents + contents)[start : start + n]


# More than one call moves


def test_a_read_of_more_than_a_call_moves_is_whole(
    process: procvm.Process, playground: Playground, own: OwnWindow
) -> None:
    """2,147,500,032 bytes arrive with one read, each at its place."""
    contents = os.urandom(WINDOW)
    base = playground.window(WINDOWS, WINDOW)
    with oracle(playground.pid) as told:
        told.write(base, contents)
    assert playground.peek(base + WINDOW - 8, 16) == contents[-8:] + contents[:8]
    reader = process.vm.reader(base + 3, LARGE)
    writer = VmWriter.from_kernel_space(own.address + 1, LARGE)
    assert reader.read_fallible(writer) == LARGE
    assert (reader.remain(), writer.avail()) == (0, 0)
    # Whatever went wrong in the middle would have shifted what came last.
    assert own.pages[:] == window_bytes(contents, 2, WINDOW)


def test_a_write_of_more_than_a_call_moves_is_whole(
    process: procvm.Process, playground: Playground, own: OwnWindow
) -> None:
    """2,147,500,032 bytes reach the target with one write, each at its place."""
    contents = os.urandom(WINDOW)
    own.pages[:] = contents
    base = playground.window(WINDOWS, WINDOW)
    reader = VmReader.from_kernel_space(own.address + 3, LARGE)
    writer = process.vm.writer(base + 1, LARGE)
    assert writer.write_fallible(reader) == LARGE
    assert (reader.remain(), writer.avail()) == (0, 0)
    with oracle(playground.pid) as told:
        assert told.read(base, WINDOW) == window_bytes(contents, 2, WINDOW)
    assert playground.peek(base, 64) == window_bytes(contents, 2, 64)


def test_a_fault_beyond_what_a_call_moves_is_exact(
    process: procvm.Process, playground: Playground, own: OwnWindow
) -> None:
    """More than 2^31 bytes are counted before the hole, for a read and for a write."""
    base = playground.window(WINDOWS, WINDOW)
    hole = base + MAX_RW_COUNT + 2 * PAGE
    playground.unmap(hole, PAGE)
    good = hole - base - 5
    reader = process.vm.reader(base + 5, LARGE)
    writer = VmWriter.from_kernel_space(own.address, LARGE)
    with pytest.raises(procvm.PageFaultError) as caught:
        reader.read_fallible(writer)
    assert (caught.value.copied_len, caught.value.address) == (good, hole)
    assert (reader.cursor(), writer.cursor()) == (hole, own.address + good)

    source = VmReader.from_kernel_space(own.address, LARGE)
    target = process.vm.writer(base + 5, LARGE)
    with pytest.raises(procvm.PageFaultError) as caught:
        target.write_fallible(source)
    assert (caught.value.copied_len, caught.value.address) == (good, hole)
    assert (target.cursor(), source.cursor()) == (hole, own.address + good)


def test_ranges_that_together_are_more_than_a_call_moves_are_whole(
    process: procvm.Process, playground: Playground, own: OwnWindow
) -> None:
    """Three ranges of which the second crosses the limit arrive as one stream."""
    contents = os.urandom(WINDOW)
    base = playground.window(WINDOWS, WINDOW)
    with oracle(playground.pid) as told:
        told.write(base, contents)
    lens = [1000, MAX_RW_COUNT - 900, 2 * PAGE]
    readers = [process.vm.reader(base + 7, n) for n in lens]
    writer = VmWriter.from_kernel_space(own.address, WINDOWS)
    assert VmReaderArray(readers).read(writer) == sum(lens)
    assert [reader.remain() for reader in readers] == [0, 0, 0]
    assert writer.cursor() == own.address + sum(lens)
    expected = bytearray(window_bytes(contents, 7 - 1000, WINDOW))
    # The third range came last, over what the second had put there.
    for k in range(lens[2]):
        expected[(lens[0] + lens[1] + k) % WINDOW] = contents[7 + k]
    assert own.pages[:] == expected


def test_the_tools_own_memory_is_copied_beyond_what_a_call_moves(own: OwnWindow) -> None:
    """The tool that opened itself reads and writes more than one call moves, whole."""
    contents = os.urandom(WINDOW)
    with procvm.open(os.getpid()) as process:
        target = OwnWindow(WINDOWS)
        own.pages[:] = contents
        writer = process.vm.writer(target.address + 1, LARGE)
        assert writer.write_fallible(VmReader.from_kernel_space(own.address + 3, LARGE)) == LARGE
        assert target.pages[:] == window_bytes(contents, 2, WINDOW)
        reader = process.vm.reader(target.address + 1, LARGE)
        assert reader.read_fallible(VmWriter.from_kernel_space(own.address, LARGE)) == LARGE
        assert own.pages[:] == window_bytes(contents, 3, WINDOW)
        target.close()


# Vectors


@pytest.mark.parametrize("nr", [1, 2, 1022, 1023, 1024, 1025, 2046, 2047, 2049, 30_000])
def test_ranges_arrive_in_order_however_many(
    process: procvm.Process, playground: Playground, nr: int
) -> None:
    """Each range's bytes stand one after the other, across every limit of a vector."""
    base = playground.layout(" ".join(["rw", "r", "srw", "file"] * 16))
    truth = playground.peek(base, 64 * PAGE)
    # Of lengths 0 to 9, overlapping, repeated, in no order, some across pages.
    ranges = [(k * 40_503 % (64 * PAGE - 9), k % 10) for k in range(nr)]
    readers = VmReaderArray([process.vm.reader(base + at, n) for at, n in ranges])
    total = sum(n for _, n in ranges)
    assert readers.sum_lens() == total
    buffer = bytearray(b"\xee" * (total + 8))
    writer = VmWriter.from_buffer(buffer)
    assert readers.read(writer) == total
    assert buffer == b"".join([truth[at : at + n] for at, n in ranges]) + b"\xee" * 8
    assert readers.is_empty()
    assert [reader.cursor() for reader in readers] == [base + at + n for at, n in ranges]
    assert writer.avail() == 8


@pytest.mark.parametrize("nr", [1, 1023, 1024, 1025, 20_000])
def test_ranges_are_written_in_order_however_many(
    process: procvm.Process, playground: Playground, nr: int
) -> None:
    """Each range gets its part of the stream; what is written twice has the later bytes."""
    base = playground.layout(" ".join(["rw", "file", "srw", "rw"] * 4))
    expected = bytearray(playground.peek(base, 16 * PAGE))
    ranges = [(k * 40_503 % (16 * PAGE - 9), k % 10) for k in range(nr)]
    total = sum(n for _, n in ranges)
    data = os.urandom(total)
    done = 0
    for at, n in ranges:
        expected[at : at + n] = data[done : done + n]
        done += n
    writers = VmWriterArray([process.vm.writer(base + at, n) for at, n in ranges])
    reader = VmReader.from_buffer(data + b"more")
    assert writers.write(reader) == total
    assert playground.peek(base, 16 * PAGE) == expected
    assert [writer.cursor() for writer in writers] == [base + at + n for at, n in ranges]
    assert reader.remain() == 4


@pytest.mark.parametrize("kind", ["hole", "none", "eof", "guard", "wo"])
@pytest.mark.parametrize("bad", [0, 1, 1021, 1022, 1023, 1024, 1500, 2999])
def test_a_bad_range_among_many_stops_the_stream_exactly_there(
    process: procvm.Process, playground: Playground, bad: int, kind: str
) -> None:
    """The ranges before it have arrived, it has up to its bad byte, those after it have not."""
    base = playground.layout(f"rw rw {kind}")
    truth = playground.peek(base, 2 * PAGE)
    edge = base + 2 * PAGE
    starts = [base + k % 2 * (PAGE - 3) for k in range(3000)]
    starts[bad] = edge - 2
    readers = [process.vm.reader(at, 6) for at in starts]
    buffer = bytearray(b"\xee" * 18_000)
    writer = VmWriter.from_buffer(buffer)
    own = writer.cursor()
    with pytest.raises(procvm.PageFaultError) as caught:
        VmReaderArray(readers).read(writer)
    good = 6 * bad + 2
    assert (caught.value.copied_len, caught.value.address) == (good, edge)
    assert caught.value.pid == playground.pid
    assert [reader.remain() for reader in readers] == [0] * bad + [4] + [6] * (2999 - bad)
    assert writer.cursor() == own + good
    expected = b"".join([truth[at - base : at - base + 6] for at in starts[:bad]]) + truth[-2:]
    assert buffer == expected + b"\xee" * (18_000 - good)


def test_a_bad_range_among_many_written_stops_the_stream_exactly_there(
    process: procvm.Process, playground: Playground
) -> None:
    """The ranges before it are written, it is up to its bad byte, those after it are not."""
    base = playground.layout("rw r")
    expected = bytearray(playground.peek(base, 2 * PAGE))
    writers = [process.vm.writer(base + 8 * k, 6) for k in range(500)]
    writers[300] = process.vm.writer(base + PAGE - 2, 6)
    data = os.urandom(3000)
    reader = VmReader.from_buffer(data)
    with pytest.raises(procvm.PageFaultError) as caught:
        VmWriterArray(writers).write(reader)
    assert (caught.value.copied_len, caught.value.address) == (1802, base + PAGE)
    for k in range(300):
        expected[8 * k : 8 * k + 6] = data[6 * k : 6 * k + 6]
    expected[PAGE - 2 : PAGE] = data[1800:1802]
    assert playground.peek(base, 2 * PAGE) == expected
    assert [writer.avail() for writer in writers] == [0] * 300 + [4] + [6] * 199
    assert reader.remain() == 3000 - 1802


def test_forced_ranges_ignore_protections_among_many(
    process: procvm.Process, playground: Playground
) -> None:
    """Ranges of pages that may not be read arrive in a forced stream, in their order."""
    base = playground.layout("rw none wo xo r")
    truth = playground.peek(base, 5 * PAGE)
    vm = process.vm.forced()
    ranges = [(k * 7 * 577 % (5 * PAGE - 8), 8) for k in range(3000)]
    buffer = bytearray(24_000)
    readers = VmReaderArray([vm.reader(base + at, n) for at, n in ranges])
    assert readers.read(VmWriter.from_buffer(buffer)) == 24_000
    assert buffer == b"".join([truth[at : at + n] for at, n in ranges])


def test_a_stream_of_two_targets_keeps_them_apart(playground: Playground) -> None:
    """Readers over two processes give each one's own bytes, the error names whose page it is."""
    with Playground() as second, procvm.open(playground.pid) as a, procvm.open(second.pid) as b:
        at, bt = playground.layout("rw"), second.layout("rw hole")
        playground.poke(at, b"first.")
        second.poke(bt + PAGE - 6, b"second")
        readers = [a.vm.reader(at, 6), b.vm.reader(bt + PAGE - 6, 6)] * 2
        readers[3] = b.vm.reader(bt + PAGE - 3, 6)
        readers[2] = a.vm.reader(at, 6)
        buffer = bytearray(24)
        with pytest.raises(procvm.PageFaultError) as caught:
            VmReaderArray(readers).read(VmWriter.from_buffer(buffer))
        assert buffer == b"first.secondfirst.ond" + bytes(3)
        assert (caught.value.pid, caught.value.copied_len) == (second.pid, 21)
        assert caught.value.address == bt + PAGE


_TOOL = """
import sys
import procvm
from procvm import VmReaderArray, VmWriter, u64
pid, base, nr, how = (*map(int, sys.argv[1:4]), sys.argv[4])
with procvm.open(pid, backend=sys.argv[5]) as process:
    vm = process.vm
    if how == "vector":
        buffer = bytearray(8 * nr)
        readers = VmReaderArray([vm.reader(base + 8 * k % 4096, 8) for k in range(nr)])
        assert readers.read(VmWriter.from_buffer(buffer)) == 8 * nr
        found = bytes(buffer)
    elif how == "values":
        reader = vm.reader(base, 8 * nr)
        found = b"".join(reader.read_val(u64).to_bytes(8, "little") for _ in range(nr))
    else:
        found = vm.read_bytes(base, nr)
    try:
        vm.read_bytes(base + 4090, 8)
    except procvm.PageFaultError as error:
        print(error.copied_len, error.address - base, error.pid == pid)
    print(found.hex())
"""


def _straced(
    folder: Path, *options: str, args: tuple[object, ...], backend: str = "auto"
) -> tuple[list[str], str]:
    """Runs the tool under strace; returns what it printed and what strace did."""
    output = folder / "strace"
    command = ["strace", "-f", "-qq", "-o", str(output), *options]
    command += [sys.executable, "-c", textwrap.dedent(_TOOL), *map(str, args), backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n"), output.read_text()


@pytest.mark.strace
def test_a_thousand_ranges_take_one_system_call(playground: Playground, tmp_path: Path) -> None:
    """100,000 ranges take about a hundred calls of process_vm_readv, and none of another kind."""
    base = playground.layout("rw hole")
    lines, trace = _straced(
        tmp_path,
        "-e",
        "trace=process_vm_readv,preadv,pread64",
        "-e",
        "abbrev=all",
        args=(playground.pid, base, 100_000, "vector"),
    )
    assert lines[1] == (playground.peek(base, PAGE) * 196)[:800_000].hex()
    calls = [line for line in trace.splitlines() if "process_vm_readv(" in line]
    # At most 1,024 elements a call; the last read of the tool faults, and is looked into.
    assert 98 <= len(calls) <= 98 + 8
    assert sum("pread64(" in line and "800" in line for line in trace.splitlines()) == 0


@pytest.mark.strace
def test_a_value_takes_one_system_call_to_read(playground: Playground, tmp_path: Path) -> None:
    """500 values read from a cursor take 500 calls of process_vm_readv and a few to open."""
    base = playground.layout("rw hole")
    lines, trace = _straced(
        tmp_path,
        "-e",
        "trace=process_vm_readv",
        args=(playground.pid, base, 500, "values"),
    )
    assert lines[1] == pattern(base, 4000).hex()
    calls = [line for line in trace.splitlines() if "process_vm_readv(" in line]
    assert 500 <= len(calls) <= 500 + 8


@pytest.mark.strace
@pytest.mark.parametrize("how", ["vector", "values", "bytes"])
@pytest.mark.parametrize(
    "inject",
    [
        "process_vm_readv:error=EPERM",
        "process_vm_readv:error=ENOSYS",
        "process_vm_readv:error=EPERM:when=3+",
        "process_vm_readv:error=EINTR:when=1..4",
        "process_vm_readv:error=EAGAIN:when=3..9",
    ],
)
def test_a_call_that_is_refused_or_interrupted_does_not_show_in_the_result(
    playground: Playground, tmp_path: Path, inject: str, how: str
) -> None:
    """With process_vm_readv forbidden, or cut short by signals, bytes and faults are the same."""
    base = playground.layout("rw hole")
    nr = {"vector": 1500, "values": 100, "bytes": PAGE}[how]
    lines, _ = _straced(tmp_path, "-e", f"inject={inject}", args=(playground.pid, base, nr, how))
    page = pattern(base, PAGE)
    expected = {"vector": (page * 3)[:12_000], "values": page[:800], "bytes": page}[how]
    assert lines[0] == f"6 {PAGE} True"
    assert lines[1] == expected.hex()


@pytest.mark.strace
@pytest.mark.parametrize("how", ["vector", "values", "bytes"])
@pytest.mark.parametrize(
    "inject",
    [
        "pread64:error=EINTR:when=1..9",
        "pread64:error=EAGAIN:when=3..9",
    ],
)
def test_a_read_of_mem_that_is_interrupted_does_not_show_in_the_result(
    playground: Playground, tmp_path: Path, inject: str, how: str
) -> None:
    """With /proc/PID/mem cut short by signals, bytes and faults are the same."""
    base = playground.layout("rw hole")
    nr = {"vector": 1500, "values": 100, "bytes": PAGE}[how]
    lines, _ = _straced(
        tmp_path,
        "-P",
        f"/proc/{playground.pid}/mem",
        "-e",
        f"inject={inject}",
        args=(playground.pid, base, nr, how),
        backend="mem",
    )
    page = pattern(base, PAGE)
    expected = {"vector": (page * 3)[:12_000], "values": page[:800], "bytes": page}[how]
    assert lines[0] == f"6 {PAGE} True"
    assert lines[1] == expected.hex()


@pytest.mark.strace
@pytest.mark.parametrize("name", ["ENOMEM", "EIO", "EINVAL", "EBADF"])
def test_a_call_that_fails_for_another_reason_is_an_error_of_procvm(
    playground: Playground, tmp_path: Path, name: str
) -> None:
    """An errno that nobody expects is a ProcvmError with nothing copied, not a wrong result."""
    base = playground.layout("rw")
    tool = f"""
import procvm
with procvm.open({playground.pid}) as process:
    buffer = bytearray(b"\\xee" * 64)
    try:
        process.vm.read_into({base}, buffer)
        print("read", buffer.hex())
    except procvm.ProcvmError as error:
        print("error", error.copied_len, buffer.hex())
"""
    command = ["strace", "-f", "-qq", "-o", str(tmp_path / "strace"), "-e"]
    command += [f"inject=process_vm_readv:error={name}", sys.executable, "-c", tool]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() in (
        ["error", "0", (b"\xee" * 64).hex()],
        ["read", pattern(base, 64).hex()],
    )


@pytest.mark.parametrize("most", [1, 7, PAGE])
def test_short_counts_of_the_kernel_do_not_show_in_the_result(
    playground: Playground, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Calls that move less than they were asked for are gone on with, for reads and writes."""
    real = libc()

    def short_readv(*args: Any) -> int:
        # More may have arrived than it says, as when the kernel was interrupted.
        return min(real.readv(*args), TOKEN_LEN + most)

    def shorter(function: Callable[..., int]) -> Callable[..., int]:
        def short(fd: int, own: Any, n: Any, at: Any) -> int:
            return function(fd, own, ctypes.c_size_t(min(n.value, most)), at)

        return short

    fakes: dict[str, Any] = {
        "readv": short_readv,
        "readv_quiet": short_readv,
        "pread": shorter(real.pread),
        "pwrite": shorter(real.pwrite),
    }
    monkeypatch.setattr("procvm._linux.process_vm.libc", lambda: real._replace(**fakes))
    monkeypatch.setattr("procvm._linux.proc_mem.libc", lambda: real._replace(**fakes))
    for backend in BACKENDS:
        with procvm.open(playground.pid, backend=backend) as process:
            reads_right(process, playground)
            base = playground.layout("rw rw")
            data = os.urandom(PAGE + 100)
            process.vm.write_bytes(base + 50, data)
            assert playground.peek(base + 50, PAGE + 100) == data
            assert process.vm.forced().read_bytes(base + 50, PAGE + 100) == data


# The token


MANY = {f"V{k}": "x" for k in range(3000)}


@pytest.fixture
def far() -> Iterator[Playground]:
    """A child whose 16 random bytes share no page with the frames of its stack.

    Between them are the pointers to its environment, 24 kB of them.
    """
    with Playground(env=MANY) as child:
        yield child


@pytest.fixture(params=["auto", "mem"])
def far_process(request: pytest.FixtureRequest, far: Playground) -> Iterator[procvm.Process]:
    with procvm.open(far.pid, backend=request.param) as process:
        yield process


def reads_right(process: procvm.Process, child: Playground) -> None:
    """Every way of reading gives what the child has, and a fault where its page ends."""
    base = child.layout("rw hole")
    page = pattern(base, PAGE)
    vm = process.vm
    assert vm.read_bytes(base, PAGE) == page
    assert vm.read_val(base, u64) == int.from_bytes(page[:8], "little")
    reader = vm.reader(base, PAGE)
    assert [reader.read_val(u64) for _ in range(3)] == [
        int.from_bytes(page[8 * k : 8 * k + 8], "little") for k in range(3)
    ]
    buffer = bytearray(16)
    VmReaderArray([vm.reader(base + 3, 8), vm.reader(base, 8)]).read(VmWriter.from_buffer(buffer))
    assert buffer == page[3:11] + page[:8]
    with pytest.raises(procvm.PageFaultError) as caught:
        vm.read_bytes(base + PAGE - 4, 8)
    assert (caught.value.copied_len, caught.value.address) == (4, base + PAGE)
    vm.write_val(base, u64, 77)
    assert child.peek(base, 8) == (77).to_bytes(8, "little")


def test_a_target_may_write_over_its_random_bytes(
    process: procvm.Process, playground: Playground
) -> None:
    """AT_RANDOM is the target's own memory: new bytes there do not make it another program."""
    reads_right(process, playground)
    prepared = process.vm.reader(playground.random_at(), 16)
    assert prepared.clone().read_val(u64) == int.from_bytes(
        playground.peek(playground.random_at(), 8), "little"
    )
    for k in range(3):
        playground.poke(playground.random_at(), bytes([k]) * 16)
        assert prepared.clone().read_val(u64) == int.from_bytes(bytes([k]) * 8, "little")
        reads_right(process, playground)


def test_a_target_may_write_over_its_random_bytes_through_us(
    process: procvm.Process, playground: Playground
) -> None:
    """Bytes that we write at AT_RANDOM ourselves are read back, and all goes on."""
    at = playground.random_at()
    process.vm.write_bytes(at, b"sixteen bytes..!")
    assert process.vm.read_bytes(at, 16) == b"sixteen bytes..!"
    assert playground.peek(at, 16) == b"sixteen bytes..!"
    reads_right(process, playground)


@pytest.mark.parametrize("kind", ["none", "wo", "xo", "r"])
def test_a_target_may_protect_the_page_of_its_random_bytes(
    far_process: procvm.Process, far: Playground, kind: str
) -> None:
    """A page of AT_RANDOM that can not be read is no sign of another program."""
    far.protect(far.random_at() // PAGE * PAGE, PAGE, kind)
    reads_right(far_process, far)


def test_a_target_may_unmap_the_page_of_its_random_bytes(
    far_process: procvm.Process, far: Playground
) -> None:
    """Without its random bytes the target is still the program that was opened."""
    far.unmap(far.random_at() // PAGE * PAGE, PAGE)
    reads_right(far_process, far)


def test_a_target_without_its_random_bytes_can_be_opened(far: Playground) -> None:
    """A page of AT_RANDOM that is gone or not readable before the open changes nothing."""
    page = far.random_at() // PAGE * PAGE
    far.protect(page, PAGE, "none")
    for backend in BACKENDS:
        with procvm.open(far.pid, backend=backend) as process:
            reads_right(process, far)
    far.unmap(page, PAGE)
    with procvm.open(far.pid) as process:
        reads_right(process, far)


def test_a_target_may_change_its_random_bytes_all_the_time(
    process: procvm.Process, playground: Playground
) -> None:
    """A thread that counts in the bytes at AT_RANDOM does not make a read fail."""
    playground.spin((playground.random_at() + 7) // 8 * 8)
    for _ in range(200):
        reads_right(process, playground)
