"""Accesses at bad addresses, with bad lengths, and over the edges of pages.

Not provoked on this machine:

*   a kernel that forbids forced access: ``proc_mem.force_override=`` is a boot parameter;
*   addresses above 2^47 that user space has: no five-level paging (la57) here.

tests/linux/test_process_vm.py tests transfers that take more than one call.
"""

from __future__ import annotations

import ctypes
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import procvm
from procvm import (
    AccessDeniedError,
    PageFaultError,
    Segment,
    VmReader,
    VmReaderArray,
    VmWriter,
    VmWriterArray,
    u8,
    u32,
    u64,
)
from tests.faults.tools import Strace, Tool
from tests.support.build import compiled
from tests.support.playground import PAGE, Playground, pattern

BAD_TO_READ = ("hole", "none", "wo", "xo", "eof", "guard")
BAD_TO_WRITE = ("hole", "none", "r", "xo", "eof", "guard", "fro", "sr")
EMPTY = 0xEE


# From good pages into bad ones


@pytest.mark.parametrize("bad", BAD_TO_READ)
def test_a_read_delivers_the_bytes_before_a_bad_page(
    process: procvm.Process, playground: Playground, bad: str
) -> None:
    """A read from good pages into a bad one delivers exactly the bytes before it."""
    base = playground.layout(f"rw rw {bad} rw")
    edge = base + 2 * PAGE
    for before in (0, 1, 7, 8, 15, 16, PAGE, PAGE + 3, 2 * PAGE):
        for after in (1, 8, PAGE, PAGE + 8):
            buffer = bytearray([EMPTY]) * (before + after)
            with pytest.raises(PageFaultError) as caught:
                process.vm.read_into(edge - before, buffer)
            assert (caught.value.copied_len, caught.value.address) == (before, edge)
            assert caught.value.pid == playground.pid
            assert buffer == pattern(edge - before, before) + bytes([EMPTY]) * after
    assert process.vm.read_bytes(base + 3 * PAGE, PAGE) == pattern(base + 3 * PAGE, PAGE)


@pytest.mark.parametrize("bad", BAD_TO_WRITE)
def test_a_write_changes_the_bytes_before_a_bad_page(
    process: procvm.Process, playground: Playground, bad: str
) -> None:
    """A write from good pages into a bad one changes exactly the bytes before it."""
    base = playground.layout(f"rw rw {bad} rw")
    edge = base + 2 * PAGE
    there = playground.peek(edge, PAGE) if bad not in ("hole", "eof", "guard") else b""
    for before in (0, 1, 7, 8, 15, 16, PAGE, PAGE + 3, 2 * PAGE):
        for after in (1, 8, PAGE, PAGE + 8):
            data = bytes((k * 5 + before + after) % 251 for k in range(before + after))
            with pytest.raises(PageFaultError) as caught:
                process.vm.write_bytes(edge - before, data)
            assert (caught.value.copied_len, caught.value.address) == (before, edge)
            assert playground.peek(edge - before, before) == data[:before]
            rest = 2 * PAGE - before
            assert playground.peek(base, rest) == pattern(base, rest)
            assert playground.peek(edge + PAGE, PAGE) == pattern(edge + PAGE, PAGE)
            playground.clear(base, 2 * PAGE)
    if there:
        assert playground.peek(edge, PAGE) == there


def test_every_way_to_read_tells_the_same_fault(
    process: procvm.Process, playground: Playground
) -> None:
    """Whatever call reads over the edge, the count and the address are the same."""
    base = playground.layout("rw hole")
    edge = base + PAGE
    vm = process.vm
    struct16 = type("S", (ctypes.Structure,), {"_fields_": [("a", ctypes.c_uint64 * 2)]})
    buffer = bytearray(16)

    def by_array() -> object:
        readers = [vm.reader(edge - 3, 1), vm.reader(edge - 2, 15)]
        return VmReaderArray(readers).read(VmWriter.from_buffer(buffer))

    ways: dict[str, Callable[[], object]] = {
        "read_bytes": lambda: vm.read_bytes(edge - 3, 16),
        "read_into": lambda: vm.read_into(edge - 3, buffer),
        "read": lambda: vm.read(edge - 3, VmWriter.from_buffer(buffer)),
        "read_val": lambda: vm.read_val(edge - 3, u64),
        "read_val of a structure": lambda: vm.read_val(edge - 3, struct16),
        "read_slice": lambda: vm.read_slice(edge - 3, u32, 4),
        "read_cstring": lambda: vm.read_cstring(edge - 3, 16),
        "reader.read_val": lambda: vm.reader(edge - 3, 16).read_val(u64),
        "reader.read_bytes": lambda: vm.reader(edge - 3, 16).read_bytes(16),
        "reader.read_slice": lambda: vm.reader(edge - 3, 16).read_slice(u8, 16),
        "reader.read_fallible": lambda: vm.reader(edge - 3, 16).read_fallible(
            VmWriter.from_buffer(buffer)
        ),
        "array": by_array,
        "writer.write_fallible": lambda: (
            VmWriter.from_buffer(buffer).to_fallible().write_fallible(vm.reader(edge - 3, 16))
        ),
    }
    for name, way in ways.items():
        with pytest.raises(PageFaultError) as caught:
            way()
        assert (name, caught.value.copied_len, caught.value.address) == (name, 3, edge)


def test_every_way_to_write_tells_the_same_fault(
    process: procvm.Process, playground: Playground
) -> None:
    """Whatever call writes over the edge, the count, the address and the bytes are right."""
    base = playground.layout("rw r")
    edge = base + PAGE
    vm = process.vm
    data = b"\x01\x02\x03\x04\x05\x06\x07\x08"
    value = int.from_bytes(data, "little")

    def by_array() -> object:
        writers = [vm.writer(edge - 3, 1), vm.writer(edge - 2, 7)]
        return VmWriterArray(writers).write(VmReader.from_buffer(data))

    ways: dict[str, tuple[Callable[[], object], bytes]] = {
        "write_bytes": (lambda: vm.write_bytes(edge - 3, data), data),
        "write": (lambda: vm.write(edge - 3, VmReader.from_buffer(data)), data),
        "write_val": (lambda: vm.write_val(edge - 3, u64, value), data),
        "write_slice": (lambda: vm.write_slice(edge - 3, u64, [value]), data),
        "fill_zeros": (lambda: vm.fill_zeros(edge - 3, 8), bytes(8)),
        "writer.write_val": (lambda: vm.writer(edge - 3, 8).write_val(u64, value), data),
        "writer.write_bytes": (lambda: vm.writer(edge - 3, 8).write_bytes(data), data),
        "writer.write_slice": (lambda: vm.writer(edge - 3, 8).write_slice(u64, [value]), data),
        "writer.fill_zeros": (lambda: vm.writer(edge - 3, 8).fill_zeros(8), bytes(8)),
        "writer.write_fallible": (
            lambda: vm.writer(edge - 3, 8).write_fallible(VmReader.from_buffer(data)),
            data,
        ),
        "array": (by_array, data),
    }
    for name, (way, written) in ways.items():
        with pytest.raises(PageFaultError) as caught:
            way()
        assert (name, caught.value.copied_len, caught.value.address) == (name, 3, edge)
        assert playground.peek(edge - 3, 3) == written[:3]
        assert playground.peek(base, PAGE - 3) == pattern(base, PAGE - 3)
        assert playground.peek(edge, PAGE) == pattern(edge, PAGE)
        playground.clear(base, PAGE)


def test_a_copy_between_two_targets_counts_what_was_read_and_written(
    process: procvm.Process, playground: Playground
) -> None:
    """Of a copy from target to target what was written counts, whichever side faults."""
    source = playground.layout("rw rw hole")
    with Playground() as other, procvm.open(other.pid) as other_process:
        sink = other.layout("rw hole")
        reader = process.vm.reader(source + 8, 2 * PAGE)
        writer = other_process.vm.writer(sink + 16, PAGE + 100)
        with pytest.raises(PageFaultError) as caught:
            reader.read_fallible(writer)
        assert caught.value.copied_len == PAGE - 16
        assert (caught.value.address, caught.value.pid) == (sink + PAGE, other.pid)
        assert (reader.cursor(), writer.cursor()) == (source + 8 + PAGE - 16, sink + PAGE)
        assert other.peek(sink + 16, PAGE - 16) == pattern(source + 8, PAGE - 16)

        reader = process.vm.reader(source + 2 * PAGE - 20, 100)
        writer = other_process.vm.writer(sink, 100)
        with pytest.raises(PageFaultError) as caught:
            reader.read_fallible(writer)
        assert caught.value.copied_len == 20
        assert (caught.value.address, caught.value.pid) == (source + 2 * PAGE, playground.pid)
        assert writer.cursor() == sink + 20
        assert other.peek(sink, 20) == pattern(source + 2 * PAGE - 20, 20)


@pytest.mark.parametrize("backend", ["auto", "mem"])
def test_a_buffer_of_the_tool_that_faults_is_told_and_never_kills_it(
    playground: Playground, backend: str
) -> None:
    """Never SIGBUS in the tool: its own cut-off mapping is a PageFaultError of its own."""
    base = playground.layout("rw " * 4)
    with Tool() as tool:
        own_pid = tool.do("who")["pid"]
        tool.do("open", playground.pid, backend)
        for how in ("read_into", "read", "read_fallible", "array", "write_bytes", "write"):
            for start in (0, PAGE - 5, 2 * PAGE - 1, 2 * PAGE):
                good_len = 2 * PAGE - start
                failure = tool.do("own_fault", how, base, start, good_len + PAGE)
                case = how, start, failure
                assert failure["error"] == "PageFaultError", case
                assert failure["copied_len"] == good_len, case
                assert (failure["pid"], failure["from_own"]) == (own_pid, 2 * PAGE), case
                if how.startswith("write"):
                    rest = pattern(base + good_len, 4 * PAGE - good_len)
                    assert playground.peek(base, 4 * PAGE) == bytes(good_len) + rest, case
                    playground.clear(base, 4 * PAGE)
                else:
                    assert failure["there"] == pattern(base, good_len).hex(), case
        assert tool.do("read", base, 8) == pattern(base, 8).hex()


# Forced access


def test_forced_reads_ignore_protections(process: procvm.Process, playground: Playground) -> None:
    """Forced() reads what the target itself may not."""
    base = playground.layout("none wo xo r rw")
    forced = process.vm.forced()
    assert forced.read_bytes(base, 5 * PAGE) == pattern(base, 5 * PAGE)
    assert forced.read_val(base, u8) == pattern(base, 1)[0]


def test_forced_writes_leave_the_file_on_disk(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """A forced write to private memory is the target's alone: the file keeps its bytes."""
    base = playground.layout("none r fro xo")
    path = tmp_path / "file"
    path.write_bytes(b"\x11" * PAGE)
    file_at = playground.map_file(os.fsencode(path), PAGE, "r")
    forced = process.vm.forced()
    for address in (base, base + PAGE, base + 2 * PAGE, base + 3 * PAGE, file_at):
        forced.write_bytes(address + 5, b"forced")
        assert playground.peek(address + 5, 6) == b"forced"
    assert path.read_bytes() == b"\x11" * PAGE


def test_a_forced_write_to_the_program_leaves_its_file(
    process: procvm.Process, playground: Playground
) -> None:
    """As for a breakpoint: the text of the target changes, its executable does not."""
    program = Path(compiled("playground"))
    before = program.read_bytes()
    text = process.maps().filter(perms="x", name=os.fsencode(program))[0]
    first = process.vm.read_bytes(text.start, 4)
    process.vm.forced().write_bytes(text.start, bytes(byte ^ 0xFF for byte in first))
    assert playground.peek(text.start, 4) == bytes(byte ^ 0xFF for byte in first)
    process.vm.forced().write_bytes(text.start, first)
    assert program.read_bytes() == before


def test_a_forced_write_to_shared_read_only_memory_is_an_error(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """Shared read-only memory can not be forced: an error, and not a byte of it changes."""
    path = tmp_path / "file"
    path.write_bytes(b"\x11" * PAGE)
    file_at = playground.map_file(os.fsencode(path), PAGE, "sr")
    for address in (playground.layout("sr"), file_at):
        before = playground.peek(address, 64)
        with pytest.raises(PageFaultError) as caught:
            process.vm.forced().write_bytes(address, b"forced")
        assert (caught.value.copied_len, caught.value.address) == (0, address)
        assert playground.peek(address, 64) == before
    assert path.read_bytes() == b"\x11" * PAGE


@pytest.mark.parametrize("bad", ["hole", "eof", "guard"])
def test_forced_accesses_stop_where_nothing_is(
    process: procvm.Process, playground: Playground, bad: str
) -> None:
    """Where there is no page forced() faults too, with the same exact count."""
    base = playground.layout(f"none {bad}")
    forced = process.vm.forced()
    for access in (
        lambda: forced.read_bytes(base + PAGE - 9, 20),
        lambda: forced.write_bytes(base + PAGE - 9, bytes(20)),
        lambda: forced.fill_zeros(base + PAGE - 9, 20),
    ):
        with pytest.raises(PageFaultError) as caught:
            access()
        assert (caught.value.copied_len, caught.value.address) == (9, base + PAGE)


# Addresses outside of the target's memory


def _stack(pid: int) -> tuple[int, int]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[stack]"):
            start, end = line.split()[0].split("-")
            return int(start, 16), int(end, 16)
    raise AssertionError("no stack")


def _vvar(pid: int) -> int:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[vvar]"):
            return int(line.split("-")[0], 16)
    raise AssertionError("no vvar")


def _accesses(vm: procvm.VmSpace, address: int) -> dict[str, Callable[[], object]]:
    return {
        "read_bytes": lambda: vm.read_bytes(address, 8),
        "read_into": lambda: vm.read_into(address, bytearray(8)),
        "read_val": lambda: vm.read_val(address, u64),
        "read_slice": lambda: vm.read_slice(address, u32, 2),
        "read_cstring": lambda: vm.read_cstring(address, 8),
        "reader": lambda: vm.reader(address, 8).read_val(u64),
        "write_bytes": lambda: vm.write_bytes(address, bytes(8)),
        "write_val": lambda: vm.write_val(address, u64, 0),
        "fill_zeros": lambda: vm.fill_zeros(address, 8),
        "writer": lambda: vm.writer(address, 8).write_val(u64, 0),
    }


@pytest.mark.parametrize(
    "address",
    [
        *(0, 8, 0x1000, 0xFFF8, (1 << 47) - 4096, (1 << 47) - 8, 1 << 47, 1 << 62),
        *((1 << 63) - 8, 1 << 63, 0xFFFF800000000000, 0xFFFFFFFF81000000),
        *(0xFFFFFFFFFF600000, (1 << 64) - 8),
    ],
    ids=hex,
)
def test_addresses_that_are_nobodys(process: procvm.Process, address: int) -> None:
    """NULL, low, non-canonical and kernel addresses and [vsyscall] fault or are denied."""
    for vm in (process.vm, process.vm.forced()):
        for name, access in _accesses(vm, address).items():
            with pytest.raises((PageFaultError, AccessDeniedError)) as caught:
                access()
            error = caught.value
            assert error.copied_len == 0, name
            if isinstance(error, PageFaultError):
                assert (error.address, error.pid) == (address, process.pid)
            else:
                assert "user space" in str(error)


def test_a_range_that_leaves_user_space_touches_nothing(
    process: procvm.Process, playground: Playground
) -> None:
    """A range that begins in user space and leaves it is denied before it is touched."""
    base = playground.layout("rw")
    n = process.vm.end - base + 1
    for access in (
        lambda: process.vm.reader(base, n),
        lambda: process.vm.writer(base, n),
        lambda: process.vm.reader_writer(base, n),
        lambda: process.vm.fill_zeros(base, n),
    ):
        with pytest.raises(AccessDeniedError):
            access()
    assert playground.peek(base, PAGE) == pattern(base, PAGE)


def test_just_below_the_stack(process: procvm.Process, playground: Playground) -> None:
    """An access just below the stack faults, and the stack does not grow."""
    before = _stack(playground.pid)
    for vm in (process.vm, process.vm.forced()):
        for distance in (8, PAGE, 16 * PAGE):
            for access in _accesses(vm, before[0] - distance).values():
                with pytest.raises(PageFaultError) as caught:
                    access()
                assert (caught.value.copied_len, caught.value.address) == (0, before[0] - distance)
        with pytest.raises(PageFaultError):
            vm.read_bytes(before[0] - 8, 16)
        assert len(vm.read_bytes(before[0], 8)) == 8
    assert _stack(playground.pid) == before


def test_the_kernels_own_pages(process: procvm.Process, playground: Playground) -> None:
    """[vvar] faults; [vdso] beside it can be read."""
    vvar = _vvar(playground.pid)
    for vm in (process.vm, process.vm.forced()):
        for access in _accesses(vm, vvar).values():
            with pytest.raises(PageFaultError) as caught:
                access()
            assert (caught.value.copied_len, caught.value.address) == (0, vvar)
    vdso = process.maps().filter(name=b"[vdso]")[0]
    assert process.vm.read_bytes(vdso.start, 4) == b"\x7fELF"


# Arguments that are no addresses or lengths

NOT_AN_ADDRESS = [
    -1,
    -(2**64),
    2**64,
    2**64 + 8,
    2**200,
    True,
    1.5,
    "0x10",
    b"\x10",
    None,
    object(),
]
NOT_A_LENGTH = [-1, -(2**63), True, 1.5, "8", None, float("inf")]
TOO_LONG = [2**63, 2**64, 2**64 - 1, 2**200]
REFUSED = (TypeError, ValueError, OverflowError, procvm.VmError)


def _by_address(process: procvm.Process, at: object) -> dict[str, Callable[[], object]]:
    vm: procvm.VmSpace = process.vm
    maps = process.maps()
    address: int = at  # type: ignore[assignment]  # what a caller without a checker may give
    return {
        "read_bytes": lambda: vm.read_bytes(address, 8),
        "read_bytes of nothing": lambda: vm.read_bytes(address, 0),
        "read_into": lambda: vm.read_into(address, bytearray(8)),
        "read": lambda: vm.read(address, VmWriter.from_buffer(bytearray(8))),
        "read_val": lambda: vm.read_val(address, u64),
        "read_slice": lambda: vm.read_slice(address, u64, 1),
        "read_cstring": lambda: vm.read_cstring(address, 8),
        "write_bytes": lambda: vm.write_bytes(address, bytes(8)),
        "write": lambda: vm.write(address, VmReader.from_buffer(bytes(8))),
        "write_val": lambda: vm.write_val(address, u64, 0),
        "write_slice": lambda: vm.write_slice(address, u64, [0]),
        "fill_zeros": lambda: vm.fill_zeros(address, 8),
        "reader": lambda: vm.reader(address, 8),
        "writer": lambda: vm.writer(address, 8),
        "reader_writer": lambda: vm.reader_writer(address, 8),
        "from_user_space": lambda: VmReader.from_user_space(vm, address, 8),
        "to_user_space": lambda: VmWriter.from_user_space(vm, address, 8),
        "from_kernel_space": lambda: VmReader.from_kernel_space(address, 8),
        "to_kernel_space": lambda: VmWriter.from_kernel_space(address, 8),
        "atomic_load": lambda: vm.atomic_load(address, u64),
        "atomic_compare_exchange": lambda: vm.atomic_compare_exchange(address, u64, 0, 0),
        "find_vma": lambda: process.find_vma(address),
        "maps.find": lambda: maps.find(address),
        "forced.read_bytes": lambda: vm.forced().read_bytes(address, 8),
        "forced.write_val": lambda: vm.forced().write_val(address, u64, 0),
    }


def _by_length(vm: procvm.VmSpace, at: int, length: object) -> dict[str, Callable[[], object]]:
    n: int = length  # type: ignore[assignment]  # as above
    return {
        "read_bytes": lambda: vm.read_bytes(at, n),
        "read_slice": lambda: vm.read_slice(at, u64, n),
        "read_cstring": lambda: vm.read_cstring(at, n),
        "fill_zeros": lambda: vm.fill_zeros(at, n),
        "reader": lambda: vm.reader(at, n),
        "writer": lambda: vm.writer(at, n),
        "reader_writer": lambda: vm.reader_writer(at, n),
        "reader.read_bytes": lambda: vm.reader(at, 64).read_bytes(n),
        "reader.read_slice": lambda: vm.reader(at, 64).read_slice(u64, n),
        "reader.skip": lambda: vm.reader(at, 64).skip(n),
        "Segment.alloc": lambda: Segment.alloc(n),
    }


def _assert_refused(calls: dict[str, Callable[[], object]], what: object) -> None:
    tracemalloc.start()
    try:
        for name, call in calls.items():
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(REFUSED) as caught:
                call()
            assert not isinstance(caught.value, (PageFaultError, UnicodeError)), (name, what)
            used = tracemalloc.get_traced_memory()[1] - before
            assert used < 1 << 20, f"{name}({what!r}) allocates {used} bytes"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "address", NOT_AN_ADDRESS, ids=lambda value: repr(value).partition(" at ")[0]
)
def test_what_is_not_an_address_is_refused(process: procvm.Process, address: object) -> None:
    """What can not be an address is refused by every call, and nothing is allocated."""
    _assert_refused(_by_address(process, address), address)


@pytest.mark.parametrize("address", [2**64, 2**64 + 8, 2**200], ids=hex)
def test_an_address_of_65_bits_is_an_overflow(process: procvm.Process, address: int) -> None:
    """An address past 2^64 is an AddressOverflowError, it is not cut to 64 bits."""
    for call in (process.vm.read_bytes, process.vm.reader, process.vm.fill_zeros):
        with pytest.raises(procvm.AddressOverflowError):
            call(address, 8)
    with pytest.raises(procvm.AddressOverflowError):
        process.vm.read_val(address, u64)


@pytest.mark.parametrize("address", [True, 1.5, "0x10", None], ids=repr)
def test_an_address_of_another_type_is_a_type_error(
    process: procvm.Process, address: object
) -> None:
    """A bool, a float, a string and None are a plain TypeError."""
    for name, call in _by_address(process, address).items():
        with pytest.raises(TypeError) as caught:
            call()
        assert not isinstance(caught.value, procvm.ProcvmError), name


@pytest.mark.parametrize("length", NOT_A_LENGTH + TOO_LONG, ids=repr)
def test_what_is_not_a_length_is_refused(
    process: procvm.Process, playground: Playground, length: object
) -> None:
    """What can not be a length is refused by every call, and nothing is allocated."""
    base = playground.layout("rw")
    calls = _by_length(process.vm, base, length)
    if length in TOO_LONG:
        del calls["read_cstring"]  # there it is not a length but a limit
    _assert_refused(calls, length)
    assert playground.peek(base, PAGE) == pattern(base, PAGE)


@pytest.mark.parametrize("length", NOT_A_LENGTH + TOO_LONG, ids=repr)
def test_what_is_not_a_length_of_own_memory_is_refused(length: object) -> None:
    """Own memory has no such length either: no object can have 2^63 bytes."""
    n: int = length  # type: ignore[assignment]  # as above
    _assert_refused(
        {
            "reader": lambda: VmReader.from_kernel_space(4096, n),
            "writer": lambda: VmWriter.from_kernel_space(4096, n),
        },
        length,
    )


@pytest.mark.parametrize("count", [2**60, 2**61, 2**61 + 1, 2**63], ids=hex)
def test_a_count_times_a_size_that_overflows_is_refused(
    process: procvm.Process, playground: Playground, count: int
) -> None:
    """Count times size past 2^64 is refused, it does not wrap to a small length."""
    base = playground.layout("rw")
    big = ctypes.c_uint64 * 4096
    _assert_refused(
        {
            "read_slice": lambda: process.vm.read_slice(base, big, count),
            "reader.read_slice": lambda: process.vm.reader(base, 64).read_slice(big, count),
            "cells": lambda: process.vm.read_slice(base, u64, count),
        },
        count,
    )


def test_the_end_of_a_range_past_2_to_the_64_is_an_overflow(process: procvm.Process) -> None:
    """A range that passes 2^64 is an AddressOverflowError."""
    for call in (
        lambda: process.vm.read_bytes(2**64 - 8, 9),
        lambda: process.vm.reader(2**64 - 1, 2),
        lambda: process.vm.fill_zeros(2**64 - 8, 2**63),
        lambda: process.vm.write_bytes(2**64 - 8, bytes(9)),
    ):
        with pytest.raises(procvm.AddressOverflowError):
            call()


@pytest.mark.parametrize("kind", [np.uint64, np.int64, np.intp], ids=lambda kind: kind.__name__)
def test_numpy_integers_are_integers(
    process: procvm.Process, playground: Playground, kind: Callable[[int], Any]
) -> None:
    """Addresses and lengths out of a numpy array are accepted everywhere."""
    base = playground.layout("rw")
    playground.poke(base + 7, b"\0")  # for the call that reads a string
    at, n = kind(base), kind(8)
    for call in _by_address(process, at).values():
        try:
            call()
        except procvm.NotTracedError:
            continue
    playground.clear(base, PAGE)
    expected = pattern(base, 8)
    vm: procvm.VmSpace = process.vm
    assert vm.read_bytes(at, n) == expected
    assert vm.reader(at, n).read_val(u64) == int.from_bytes(expected, "little")
    assert vm.reader(at, n).skip(kind(1)).limit(kind(2)).read_bytes(kind(2)) == expected[1:3]
    assert vm.read_slice(at, u8, n) == list(expected)
    vm.write_val(at + kind(8), u64, int(kind(7)))
    vm.fill_zeros(at, kind(4))
    assert playground.peek(base, 4) == bytes(4)


@pytest.mark.strace
def test_what_is_refused_makes_no_system_call(playground: Playground) -> None:
    """A bad address or length is refused before any system call."""
    base = playground.layout("rw")
    addresses: list[object] = [-1, 2**64, 2**64 + 8, True, 1.5, "0x10", None]
    lengths: list[object] = [-1, 2**64, True, None]
    bad: list[list[object]] = []
    for address in addresses:
        bad += [["read", address, 8], ["read_val", address], ["cstring", address, 8]]
        bad += [["write", address, "00"], ["write_val", address, 0], ["fill", address, 8]]
    for n in (*lengths, 2**63):
        bad += [["fill", base, n], ["read", base, n]]
    bad += [["cstring", base, n] for n in lengths]
    moves = "process_vm_readv,process_vm_writev,pread64,pwrite64,ioctl,openat"
    for backend in ("auto", "mem"):
        with Tool() as tool:
            tool.do("open", playground.pid, backend)
            tool.each(*bad)  # imports what a traceback needs
            with Strace(tool.pid, "-e", f"trace={moves}") as strace:
                for call in bad:
                    answer = tool.answer(*call)
                    assert answer.procvm or answer.name == "TypeError", (call, answer)
            # What a traceback reads is the tool's.
            lines = [line for line in strace.stop() if "O_RDONLY" not in line and "tty" not in line]
            assert [line for line in lines if "process_vm" in line or "PROCMAP" in line] == []
            assert [line for line in lines if "pread64" in line or "pwrite64" in line] == []
    assert playground.peek(base, PAGE) == pattern(base, PAGE)


# Lengths


def test_a_length_of_zero_is_a_success(process: procvm.Process, playground: Playground) -> None:
    """Nothing is read or written anywhere in user space, whatever is there."""
    base = playground.layout("rw hole none r")
    for at in (base, base + PAGE, base + 2 * PAGE, base + 3 * PAGE, base + 1, 0, process.vm.end):
        for vm in (process.vm, process.vm.forced()):
            assert vm.read_bytes(at, 0) == b""
            vm.read_into(at, bytearray())
            vm.read(at, VmWriter.from_buffer(bytearray()))
            assert vm.read_slice(at, u64, 0) == []
            assert vm.read_cstring(at, 0) == b""
            vm.write_bytes(at, b"")
            vm.write(at, VmReader.from_buffer(b""))
            vm.write_slice(at, u64, [])
            vm.fill_zeros(at, 0)
            reader, writer = vm.reader_writer(at, 0)
            assert reader.read_bytes(0) == b""
            assert reader.read_fallible(VmWriter.from_buffer(bytearray(8))) == 0
            assert writer.write_fallible(VmReader.from_buffer(bytes(8))) == 0
            assert writer.fill_zeros(8) == 0
            assert VmReaderArray([reader]).read(VmWriter.from_buffer(bytearray(8))) == 0
            assert VmReaderArray([reader.clone() for _ in range(3)]).is_empty()
    assert playground.peek(base, PAGE) == pattern(base, PAGE)


def test_far_more_than_memory_is_refused_or_streamed(
    process: procvm.Process, playground: Playground
) -> None:
    """A length far beyond memory is refused, or faults where the target's memory ends."""
    base = 1 << 33
    playground.map(base, 2 * PAGE)
    playground.clear(base, 2 * PAGE)
    n = 1 << 46
    tracemalloc.start()
    try:
        with pytest.raises((procvm.InvalidArgsError, PageFaultError)):
            process.vm.read_bytes(base, n)
        with pytest.raises((procvm.InvalidArgsError, PageFaultError)):
            process.vm.reader(base, n).read_bytes(n)
        with pytest.raises((procvm.InvalidArgsError, PageFaultError)):
            process.vm.read_slice(base, u64, n // 8)
        assert playground.peek(base, 2 * PAGE) == pattern(base, 2 * PAGE)
        with pytest.raises(PageFaultError) as caught:
            process.vm.fill_zeros(base, n)
        assert (caught.value.copied_len, caught.value.address) == (2 * PAGE, base + 2 * PAGE)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert playground.peek(base, 2 * PAGE) == bytes(2 * PAGE)


# Many ranges in one call


@pytest.mark.parametrize("nr", [1, 1023, 1024, 1025, 3000])
def test_many_ranges_are_read_in_their_order(
    process: procvm.Process, playground: Playground, nr: int
) -> None:
    """Overlapping, repeated and empty ranges arrive each with its own bytes, in order."""
    base = playground.layout("rw " * 4)
    ranges = [(base + k * 37 % (3 * PAGE), k * 7 % 23) for k in range(nr - 1)] + [(base, 4)]
    readers = [process.vm.reader(address, n) for address, n in ranges]
    total = sum(n for _, n in ranges)
    buffer = bytearray(total)
    assert VmReaderArray(readers).read(VmWriter.from_buffer(buffer)) == total
    assert buffer == b"".join(pattern(address, n) for address, n in ranges)
    assert not any(reader.has_remain() for reader in readers)


@pytest.mark.parametrize("bad", [0, 1, 1022, 1023, 1024, 1499])
def test_a_bad_range_among_many_tells_each_its_result(
    process: procvm.Process, playground: Playground, bad: int
) -> None:
    """The ranges before a bad one are whole, it has its own part, those after it nothing."""
    base = playground.layout("rw none rw")
    ranges = [(base + k % 4000, 8) for k in range(1500)]
    ranges[bad] = (base + PAGE - 3, 8)
    readers = [process.vm.reader(address, n) for address, n in ranges]
    buffer = bytearray([EMPTY]) * (8 * 1500)
    writer = VmWriter.from_buffer(buffer)
    with pytest.raises(PageFaultError) as caught:
        VmReaderArray(readers).read(writer)
    assert (caught.value.copied_len, caught.value.address) == (8 * bad + 3, base + PAGE)
    assert [r.remain() for r in readers] == [0] * bad + [5] + [8] * (1499 - bad)
    assert writer.avail() == len(buffer) - 8 * bad - 3
    good = b"".join(pattern(address, n) for address, n in ranges[:bad])
    good += pattern(base + PAGE - 3, 3)
    assert buffer == good + bytes([EMPTY]) * (len(buffer) - len(good))
    # The same call goes on after the bad range when its cursor is passed over.
    readers[bad].skip(5)
    writer.skip(5)
    assert VmReaderArray(readers).read(writer) == 8 * (1499 - bad)


def test_many_ranges_are_written_in_their_order(
    process: procvm.Process, playground: Playground
) -> None:
    """Of overlapping writes the last one stays; a bad one ends the stream exactly."""
    base = playground.layout("rw r")
    data = bytes(k % 251 for k in range(3000))
    writers = [process.vm.writer(base + k, 2) for k in range(1500)]
    assert VmWriterArray(writers).write(VmReader.from_buffer(data)) == 3000
    expected = bytearray(pattern(base, PAGE))
    for k in range(1500):
        expected[k : k + 2] = data[2 * k : 2 * k + 2]
    assert playground.peek(base, PAGE) == expected
    playground.clear(base, PAGE)
    writers = [process.vm.writer(base + k, 2) for k in range(1200)]
    writers.insert(1100, process.vm.writer(base + PAGE - 1, 2))
    with pytest.raises(PageFaultError) as caught:
        VmWriterArray(writers).write(VmReader.from_buffer(data))
    assert (caught.value.copied_len, caught.value.address) == (2201, base + PAGE)
    assert [w.avail() for w in writers] == [0] * 1100 + [1] + [2] * 100
    assert playground.peek(base + 1102, 100) == pattern(base + 1102, 100)


def test_array_of_200000_ranges_with_a_hole_gives_each_its_result(playground: Playground) -> None:
    """The ranges before the hole are whole, those after it have moved nothing."""
    base = playground.layout("rw rw hole")
    nr = 200_000
    bad = 120_000
    buffer = bytearray(8 * nr)
    with procvm.open(playground.pid) as process:
        vm = process.vm
        readers = [vm.reader(base + k % (PAGE * 2 - 8), 8) for k in range(nr)]
        readers[bad] = vm.reader(base + 2 * PAGE - 2, 8)
        with pytest.raises(PageFaultError) as caught:
            VmReaderArray(readers).read(VmWriter.from_buffer(buffer))
    assert (caught.value.copied_len, caught.value.address) == (8 * bad + 2, base + 2 * PAGE)
    assert sum(reader.remain() for reader in readers) == 8 * (nr - bad) - 2
    table = pattern(base, 2 * PAGE)
    for k in (0, 1, 1022, 1023, 1024, 4096, bad - 1):
        at = k % (PAGE * 2 - 8)
        assert buffer[8 * k : 8 * k + 8] == table[at : at + 8]
    assert buffer[8 * bad + 2 :] == bytes(8 * (nr - bad) - 2)


# Strings at the edge of a page


def test_a_string_that_ends_at_the_last_byte_before_a_hole(
    process: procvm.Process, playground: Playground
) -> None:
    """A NUL at the last byte before a hole: the string is whole."""
    base = playground.layout("rw rw hole")
    end = base + 2 * PAGE
    playground.poke(end - 1, b"\0")
    for n in (0, 1, 7, PAGE - 1, PAGE, PAGE + 1):
        text = pattern(end - 1 - n, n)
        for max_len in (n + 1, n + 2, 10 * PAGE):
            assert process.vm.read_cstring(end - 1 - n, max_len) == text


def test_a_string_without_an_end_before_a_hole(
    process: procvm.Process, playground: Playground
) -> None:
    """No NUL before a hole: a fault at the hole, with the count of what was before it."""
    base = playground.layout("rw rw hole")
    end = base + 2 * PAGE
    for n in (1, 5, PAGE, PAGE + 5):
        with pytest.raises(PageFaultError) as caught:
            process.vm.read_cstring(end - n, n + 1)
        assert (caught.value.copied_len, caught.value.address) == (n, end)


def test_a_string_without_an_end_within_the_most(
    process: procvm.Process, playground: Playground
) -> None:
    """No NUL within max_len is an error, and nothing behind it is read."""
    base = playground.layout("rw hole")
    end = base + PAGE
    for n in (1, 5, PAGE):
        with pytest.raises(procvm.InvalidArgsError):
            process.vm.read_cstring(end - n, n)
    playground.poke(base + 10, b"\0")
    with pytest.raises(procvm.InvalidArgsError):
        process.vm.read_cstring(base, 10)
    assert process.vm.read_cstring(base, 11) == pattern(base, 10)


def test_an_empty_string_and_one_that_is_no_text(
    process: procvm.Process, playground: Playground
) -> None:
    """An empty string is empty; bytes that are no UTF-8 come as they are."""
    base = playground.layout("rw")
    playground.poke(base, b"\0\xff\xfe\x80\xc3\x28\x1b[31m\0")
    assert process.vm.read_cstring(base, 100) == b""
    assert process.vm.read_cstring(base + 1, 100) == b"\xff\xfe\x80\xc3\x28\x1b[31m"
