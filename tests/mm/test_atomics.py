"""Atomics on the tool's own memory, alone and against a child that maps the same pages."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from procvm import (
    Fallible,
    ProcvmError,
    Segment,
    UnsupportedError,
    VmReader,
    VmWriter,
    i32,
    i64,
    isize,
    u8,
    u32,
    u64,
    usize,
)
from procvm._base.pods import PodAtomic
from procvm._local import atomics
from tests.support.build import compiled

SOURCES = {"libatomic": atomics.from_libatomic, "machine code": atomics.from_machine_code}
PODS = [u32, i32, u64, i64, usize, isize]


def forget_which() -> None:
    """Makes the next exchange look for its source again."""
    atomics._prepare.cache_clear()  # noqa: SLF001 (a cache)


@pytest.fixture(params=SOURCES)
def source(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], Any]]:
    """One of the two sources of compare-and-exchange, with the other taken away."""
    find = SOURCES[request.param]
    if find(4) is None or find(8) is None:
        pytest.skip(f"no atomics by {request.param} on this machine")
    for other in SOURCES.values():
        if other is not find:
            monkeypatch.setattr(atomics, other.__name__, lambda _: None)
    forget_which()
    yield find
    monkeypatch.undo()
    forget_which()


def both_at(segment: Segment, offset: int) -> tuple[VmReader[Fallible], VmWriter[Fallible]]:
    return (
        segment.reader().skip(offset).to_fallible(),
        segment.writer().skip(offset).to_fallible(),
    )


# The words alone


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("name", SOURCES)
def test_a_source_exchanges_exactly_when_the_word_is_as_expected(name: str, size: int) -> None:
    """It tells what was there, stores only on a match, and touches no byte beside the word."""
    prepare = SOURCES[name](size)
    if prepare is None:
        pytest.skip(f"no atomics by {name} on this machine")
    top = 2 ** (8 * size) - 1
    segment = Segment.alloc(1)
    address = segment.address + 64
    segment.write_bytes(0, b"\x77" * 128)
    segment.fill_zeros(64, size)
    word: Any = (ctypes.c_uint32 if size == 4 else ctypes.c_uint64).from_address(address)
    for expected, desired, found, after in (
        (0, top, 0, top),
        (0, 5, top, top),
        (top - 1, 5, top, top),
        (top, top // 2 + 1, top, top // 2 + 1),
        (top // 2, 1, top // 2 + 1, top // 2 + 1),
        (top // 2 + 1, 0, top // 2 + 1, 0),
        (0, 0, 0, 0),
    ):
        assert prepare(address, expected, desired)() == found
        assert word.value == after
    assert segment.read_bytes(0, 64) == b"\x77" * 64
    assert segment.read_bytes(64 + size, 64 - size) == b"\x77" * (64 - size)


@pytest.mark.parametrize("pod", PODS)
def test_an_exchange_stores_only_what_was_expected(source: object, pod: PodAtomic[int]) -> None:
    """A match stores and tells True, a mismatch stores nothing and tells what was there."""
    segment = Segment.alloc(1)
    reader, writer = both_at(segment, 8)
    bits = 8 * pod.size
    signed = pod in (i32, i64, isize)
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    steps = [0, most, least, 1, most - 1, least + 1, most // 2]
    for old, new in itertools.pairwise(steps):
        assert writer.atomic_compare_exchange(reader, pod, old, new) == (old, True)
        assert reader.atomic_load(pod) == new
        assert writer.atomic_compare_exchange(reader, pod, old, 7) == (new, False)
        assert segment.read_val(8, pod) == new
    assert segment.read_bytes(0, 8) == bytes(8)
    assert segment.read_bytes(8 + pod.size, 8) == bytes(8)


def test_a_negative_number_keeps_its_sign(source: object) -> None:
    """A signed pod gives -1 where the unsigned one of its width gives the largest number."""
    segment = Segment.alloc(1)
    reader, writer = both_at(segment, 0)
    for signed, unsigned in ((i32, u32), (i64, u64), (isize, usize)):
        segment.fill_zeros(0, 8)
        assert writer.atomic_compare_exchange(reader, signed, 0, -1) == (0, True)
        assert writer.atomic_compare_exchange(reader, signed, 1, 2) == (-1, False)
        assert reader.atomic_load(signed) == -1
        assert reader.atomic_load(unsigned) == 2 ** (8 * signed.size) - 1
        assert writer.atomic_compare_exchange(reader, signed, -1, -2) == (-1, True)
        assert writer.atomic_compare_exchange(reader, unsigned, 0, 0) == (
            2 ** (8 * signed.size) - 2,
            False,
        )


@pytest.mark.parametrize(
    ("pod", "value"),
    [
        (u32, -1),
        (u32, 2**32),
        (i32, 2**31),
        (i32, -(2**31) - 1),
        (u64, -1),
        (u64, 2**64),
        (i64, 2**63),
        (usize, -1),
        (isize, 2**63),
    ],
)
def test_a_value_out_of_range_exchanges_nothing(
    source: object, pod: PodAtomic[int], value: int
) -> None:
    """An expected or a new value that does not fit is OverflowError, and the word stays."""
    segment = Segment.alloc(1)
    reader, writer = both_at(segment, 0)
    for old, new in ((value, 0), (0, value)):
        with pytest.raises(OverflowError) as caught:
            writer.atomic_compare_exchange(reader, pod, old, new)
        assert not isinstance(caught.value, ProcvmError)
    assert segment.read_bytes(0, 8) == bytes(8)
    untyped: Any = writer
    for wrong in ("0", 1.5, None):
        with pytest.raises(TypeError):
            untyped.atomic_compare_exchange(reader, pod, wrong, 0)
        with pytest.raises(TypeError):
            untyped.atomic_compare_exchange(reader, pod, 0, wrong)
    assert segment.read_bytes(0, 8) == bytes(8)


def test_atomics_work_on_every_own_buffer(source: object) -> None:
    """A ctypes object and a range by address are exchanged in place as a segment is."""
    cell = ctypes.c_uint64(5)
    reader = VmReader.from_buffer(cell).to_fallible()
    writer = VmWriter.from_buffer(cell).to_fallible()
    assert writer.atomic_compare_exchange(reader, u64, 5, 6) == (5, True)
    assert cell.value == 6
    address = ctypes.addressof(cell)
    reader = VmReader.from_kernel_space(address, 8).to_fallible()
    assert writer.atomic_compare_exchange(reader, u64, 6, 7) == (6, True)
    assert reader.atomic_load(u64) == cell.value == 7


# Against others


def add(segment: Segment, offset: int, pod: PodAtomic[int], n: int) -> None:
    """Adds 1 to a word `n` times by exchange."""
    reader, writer = both_at(segment, offset)
    for _ in range(n):
        current = reader.atomic_load(pod)
        while True:
            found, stored = writer.atomic_compare_exchange(reader, pod, current, current + 1)
            assert stored == (found == current)
            if stored:
                break
            current = found


@pytest.mark.parametrize(("pod", "offset"), [(u32, 4), (u64, 8), (i32, 12), (i64, 4088)])
def test_two_processes_count_one_word_without_losing_one(
    source: object, pod: PodAtomic[int], offset: int
) -> None:
    """The child's and the tool's increments of one word by exchange add up exactly."""
    ours, stop = 5_000, 2048
    with Segment.alloc(1, shared=True) as segment:
        segment.write_bytes(0, b"\x77" * len(segment))
        segment.write_val(stop, u8, 0)
        segment.write_val(offset, pod, -1_000 if pod in (i32, i64) else 2**31)
        start = segment.read_val(offset, pod)
        argv = [compiled("counter"), *map(str, (segment.fd, offset, 8 * pod.size, stop))]
        child = subprocess.Popen(
            argv, pass_fds=[segment.fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with child:
            try:
                assert child.stdin is not None
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
                child.stdin.write("go\n")
                child.stdin.flush()
                add(segment, offset, pod, ours)
                segment.write_once(stop, u8, 1)
                theirs = int(child.communicate()[0])
            finally:
                child.kill()
        assert child.returncode == 0
        assert theirs > 0
        assert segment.read_val(offset, pod) == start + theirs + ours
        expected = bytearray(b"\x77" * len(segment))
        expected[stop] = 1
        expected[offset : offset + pod.size] = segment.read_bytes(offset, pod.size)
        assert segment.read_bytes(0, len(segment)) == expected


@pytest.mark.parametrize("pod", [u32, u64])
def test_threads_of_the_tool_count_one_word_without_losing_one(
    source: object, pod: PodAtomic[int]
) -> None:
    """Four threads, each with cursors of its own, add up exactly."""
    segment = Segment.alloc(1)
    go = threading.Barrier(4)

    def work() -> None:
        go.wait()
        add(segment, 16, pod, 2_000)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert segment.read_val(16, pod) == 8_000


# Neither


@pytest.mark.parametrize("pod", [u32, u64])
def test_without_any_source_an_exchange_is_unsupported(
    monkeypatch: pytest.MonkeyPatch, pod: PodAtomic[int]
) -> None:
    """UnsupportedError names the package to install, and the word stays as it was."""
    for find in SOURCES.values():
        monkeypatch.setattr(atomics, find.__name__, lambda _: None)
    forget_which()
    try:
        segment = Segment.alloc(1)
        reader, writer = both_at(segment, 0)
        with pytest.raises(UnsupportedError, match="libatomic1"):
            writer.atomic_compare_exchange(reader, pod, 0, 1)
        assert reader.atomic_load(pod) == 0
    finally:
        monkeypatch.undo()
        forget_which()


def test_machine_code_is_only_for_machines_it_was_written_for() -> None:
    """Another machine's name gives None, never code of this one."""
    for machine in ("riscv64", "s390x", "i686", "armv7l", ""):
        for size in (4, 8):
            if machine:
                assert atomics.from_machine_code(size, machine) is None
    assert atomics.from_machine_code(2, "x86_64") is None


def test_machine_code_leaves_no_page_both_writable_and_executable() -> None:
    """The page of code is mapped read-execute, and no mapping of ours is rwx because of it."""
    prepare = atomics.from_machine_code(8)
    if prepare is None:
        pytest.skip("no machine code for this machine")
    with open("/proc/self/maps") as maps:
        mine = [line for line in maps if "procvm-atomics" in line]
    assert mine
    assert {line.split()[1][:3] for line in mine} == {"r-x"}
    cell = ctypes.c_uint64(1)
    assert prepare(ctypes.addressof(cell), 1, 2)() == 1
