"""One contract for both backends: an access faults where the model says, to the byte."""

from __future__ import annotations

import mmap
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import procvm
from procvm import VmReader, VmSpace, VmWriter, i64, u8, u16, u32, u64
from procvm._linux.libc import libc
from tests.elf.mutations import STORM
from tests.linux.kinds import (
    DEFAULT,
    FORCED,
    KINDS,
    THERE,
    Allowed,
    Oracle,
    contents,
    every_pair,
    good_len,
    oracle,
    outcome,
)
from tests.support.playground import PAGE, Playground, pattern

LENGTHS = range(65)
FEW_LENGTHS = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64)
MIB = 1 << 20


class View(NamedTuple):
    """A way to look at the target, and what it must allow."""

    vm: VmSpace
    allowed: Allowed


@pytest.fixture(params=["default", "forced"])
def view(request: pytest.FixtureRequest, process: procvm.Process) -> View:
    """The space of the target, once as its own accesses see it and once forced."""
    if request.param == "forced":
        return View(process.vm.forced(), FORCED)
    return View(process.vm, DEFAULT)


@pytest.fixture
def both(playground: Playground) -> Iterator[tuple[VmSpace, VmSpace]]:
    """The same child opened with both backends at once."""
    with (
        procvm.open(playground.pid) as auto,
        procvm.open(playground.pid, backend="mem") as mem,
    ):
        yield auto.vm, mem.vm


def fault_of(access: Callable[..., object], *args: object) -> procvm.PageFaultError:
    """Returns the PageFaultError that an access raises."""
    with pytest.raises(procvm.PageFaultError) as caught:
        access(*args)
    assert type(caught.value) is procvm.PageFaultError
    return caught.value


class Sweep:
    """Accesses of each length at each offset around the edge between two pages."""

    def __init__(self, playground: Playground, kinds: Sequence[str]) -> None:
        self.pid = playground.pid
        self.playground = playground
        self.kinds = kinds
        self.base = playground.layout(" ".join(kinds))
        self.truth = contents(playground, self.base, kinds)

    def edges(self) -> Iterator[tuple[int, str, str]]:
        """Gives (offset of the edge, kind before it, kind after it)."""
        for k in range(1, len(self.kinds)):
            yield k * PAGE, self.kinds[k - 1], self.kinds[k]

    def read_all(self, vm: VmSpace, readable: frozenset[str], lengths: Sequence[int]) -> None:
        """Reads into a buffer that tells a byte too many."""
        base, truth, pid = self.base, self.truth, self.pid
        for edge, left, right in self.edges():
            for n in _share(lengths, edge):
                for before in range(n + 1):
                    start = edge - before
                    good = _good(n, before, left in readable, right in readable)
                    buffer = bytearray(b"\xee" * (n + 1))
                    view = memoryview(buffer)[:n]
                    fault = None
                    try:
                        vm.read_into(base + start, view)
                    except procvm.PageFaultError as error:
                        fault = error
                    assert (fault is None) == (good == n), (n, before, left, right)
                    if fault is not None:
                        assert fault.copied_len == good, (n, before, left, right)
                        assert fault.address == base + start + good, (n, before, left, right)
                        assert fault.pid == pid
                    expected = truth[start : start + good] + b"\xee" * (n + 1 - good)
                    assert buffer == expected, (n, before, left, right)

    def write_all(
        self, vm: VmSpace, writable: frozenset[str], lengths: Sequence[int], told: Oracle
    ) -> None:
        """Writes bytes that differ from what is there, and looks at the pages around."""
        base, pid = self.base, self.pid
        flipped = bytes(byte ^ 0xFF for byte in self.truth)
        for edge, left, right in self.edges():
            around = _Around(self, edge, told)
            for n in _share(lengths, edge):
                for before in range(n + 1):
                    start = edge - before
                    good = _good(n, before, left in writable, right in writable)
                    data = flipped[start : start + n]
                    fault = None
                    try:
                        vm.write_bytes(base + start, data)
                    except procvm.PageFaultError as error:
                        fault = error
                    assert (fault is None) == (good == n), (n, before, left, right)
                    if fault is not None:
                        assert fault.copied_len == good, (n, before, left, right)
                        assert fault.address == base + start + good, (n, before, left, right)
                        assert fault.pid == pid
                    around.expect(start, data[:good])
                    if before == n // 2 == 32:
                        around.expect_of_the_target(start, data[:good])
                    if good:
                        told.write(base + start, self.truth[start : start + good])


def _share(lengths: Sequence[int], edge: int) -> Sequence[int]:
    """Returns a third of the lengths, another at each edge, and the longest; all in a storm."""
    return lengths if STORM else (*lengths[edge // PAGE % 3 : -1 : 3], lengths[-1])


def _good(n: int, before: int, left: bool, right: bool) -> int:
    if before and not left:
        return 0
    return n if right else before


class _Around:
    """The 80 bytes on both sides of an edge, those that are there."""

    def __init__(self, sweep: Sweep, edge: int, told: Oracle) -> None:
        k = edge // PAGE
        self.start = edge - 80 if sweep.kinds[k - 1] in THERE else edge
        self.end = edge + 80 if sweep.kinds[k] in THERE else edge
        self.was = sweep.truth[self.start : self.end]
        self.base = sweep.base
        self.told = told
        self.peek = sweep.playground.peek

    def _expected(self, start: int, data: bytes) -> bytes:
        at = start - self.start
        return self.was[:at] + data + self.was[at + len(data) :] if data else self.was

    def expect(self, start: int, data: bytes) -> None:
        if self.end > self.start:
            found = self.told.read(self.base + self.start, self.end - self.start)
            assert found == self._expected(start, data)

    def expect_of_the_target(self, start: int, data: bytes) -> None:
        found = self.peek(self.base + self.start, self.end - self.start)
        assert found == self._expected(start, data)


# Every pair of neighbours, every offset


def test_the_layout_of_the_sweeps_has_every_ordered_pair_once() -> None:
    """Each kind of page stands to the left of each kind, itself too, exactly once."""
    kinds = every_pair()
    assert sorted(pairwise(kinds)) == sorted((a, b) for a in KINDS for b in KINDS)


def test_a_read_delivers_the_bytes_before_the_first_page_that_may_not_be_read(
    process: procvm.Process, playground: Playground
) -> None:
    """At each edge, for lengths to 64 at each offset: exact count, address and bytes."""
    sweep = Sweep(playground, every_pair())
    sweep.read_all(process.vm, DEFAULT.readable, LENGTHS)


def test_a_write_changes_the_bytes_before_the_first_page_that_may_not_be_written(
    process: procvm.Process, playground: Playground
) -> None:
    """At each edge, for lengths to 64 at each offset, the target has those bytes, no other."""
    sweep = Sweep(playground, every_pair())
    with oracle(playground.pid) as told:
        sweep.write_all(process.vm, DEFAULT.writable, LENGTHS, told)
    assert contents(playground, sweep.base, sweep.kinds) == sweep.truth


def test_a_forced_read_stops_only_where_there_is_no_page(
    process: procvm.Process, playground: Playground
) -> None:
    """Protections are ignored at each edge; a hole, an end of file and a guard still fault."""
    sweep = Sweep(playground, every_pair())
    sweep.read_all(process.vm.forced(), FORCED.readable, FEW_LENGTHS)


def test_a_forced_write_stops_only_at_no_page_and_at_shared_read_only(
    process: procvm.Process, playground: Playground
) -> None:
    """Protections of private pages are ignored at each edge; shared read-only memory faults."""
    sweep = Sweep(playground, every_pair())
    with oracle(playground.pid) as told:
        sweep.write_all(process.vm.forced(), FORCED.writable, FEW_LENGTHS, told)
    assert contents(playground, sweep.base, sweep.kinds) == sweep.truth


def test_both_backends_tell_the_same_to_the_last_word(
    both: tuple[VmSpace, VmSpace], playground: Playground
) -> None:
    """Which system call served it is not visible in value, class, text or fields, at any edge."""
    sweep = Sweep(playground, every_pair())
    for vm, other in (both, (both[0].forced(), both[1].forced())):
        for edge, _, _ in sweep.edges():
            for start, n in ((edge - 3, 8), (edge, 8), (edge - 8, 8), (edge - 33, 65)):
                at = sweep.base + start
                data = sweep.truth[start : start + n]
                value = int.from_bytes(data[:8], "little")
                for name, *args in (
                    ("read_bytes", at, n),
                    ("read_val", at, u64),
                    ("read_slice", at, u16, 4),
                    ("read_cstring", at, 16),
                    ("write_bytes", at, data),
                    ("write_val", at, u64, value),
                ):
                    one = outcome(getattr(vm, str(name)), *args)
                    assert outcome(getattr(other, str(name)), *args) == one, (name, start, n)


def test_cursors_stand_after_the_bytes_that_did_arrive(view: View, playground: Playground) -> None:
    """Both cursors of a fallible read are moved by exactly what was copied, at each edge."""
    sweep = Sweep(playground, every_pair())
    for edge, left, right in sweep.edges():
        for before in (0, 1, 5, 8, 64):
            start, n = edge - before, 72
            good = _good(n, before, left in view.allowed.readable, right in view.allowed.readable)
            buffer = bytearray(b"\xee" * 100)
            reader = view.vm.reader(sweep.base + start, n)
            writer = VmWriter.from_buffer(buffer)
            own = writer.cursor()
            if good == n:
                assert reader.read_fallible(writer) == n
            else:
                error = fault_of(reader.read_fallible, writer)
                assert (error.copied_len, error.address) == (good, sweep.base + start + good)
            assert reader.cursor() == sweep.base + start + good
            assert reader.remain() == n - good
            assert writer.cursor() == own + good
            assert writer.avail() == 100 - good
            assert buffer == sweep.truth[start : start + good] + b"\xee" * (100 - good)


def test_cursors_stand_after_the_bytes_that_were_written(
    view: View, playground: Playground
) -> None:
    """Both cursors of a fallible write are moved by exactly what was copied, at each edge."""
    sweep = Sweep(playground, every_pair())
    for edge, left, right in sweep.edges():
        for before in (0, 1, 5, 8, 64):
            start, n = edge - before, 72
            good = _good(n, before, left in view.allowed.writable, right in view.allowed.writable)
            # The bytes that are there already: the pages stay as they are.
            reader = VmReader.from_buffer(sweep.truth[start : start + n] + b"more")
            own = reader.cursor()
            writer = view.vm.writer(sweep.base + start, n)
            if good == n:
                assert writer.write_fallible(reader) == n
            else:
                error = fault_of(writer.write_fallible, reader)
                assert (error.copied_len, error.address) == (good, sweep.base + start + good)
            assert writer.cursor() == sweep.base + start + good
            assert writer.avail() == n - good
            assert reader.cursor() == own + good
            assert reader.remain() == n + 4 - good
    assert contents(playground, sweep.base, sweep.kinds) == sweep.truth


def test_a_value_across_an_edge_is_whole_or_leaves_the_cursor(
    view: View, playground: Playground
) -> None:
    """A value of each width at each offset is read whole, or faults and moves no cursor."""
    sweep = Sweep(playground, every_pair())
    for edge, left, right in sweep.edges():
        for pod in (u8, u16, u32, u64):
            for before in range(pod.size + 1):
                start, n = edge - before, pod.size
                at = sweep.base + start
                good = _good(
                    n, before, left in view.allowed.readable, right in view.allowed.readable
                )
                reader = view.vm.reader(at, n)
                if good == n:
                    value = int.from_bytes(sweep.truth[start : start + n], "little")
                    assert view.vm.read_val(at, pod) == value
                    assert reader.read_val(pod) == value
                    assert reader.cursor() == at + n
                    continue
                error = fault_of(reader.read_val, pod)
                assert error.address == at + good
                assert reader.cursor() == at
                error = fault_of(view.vm.read_val, at, pod)
                assert error.address == at + good


def test_a_value_written_across_an_edge_leaves_the_cursor_and_counts_its_bytes(
    view: View, playground: Playground
) -> None:
    """A value of each width at each offset is written whole, or up to the bad page."""
    sweep = Sweep(playground, every_pair())
    with oracle(playground.pid) as told:
        for edge, left, right in sweep.edges():
            around = _Around(sweep, edge, told)
            for pod in (u8, u16, u32, u64):
                for before in range(pod.size + 1):
                    start, n = edge - before, pod.size
                    at = sweep.base + start
                    good = _good(
                        n, before, left in view.allowed.writable, right in view.allowed.writable
                    )
                    data = bytes(byte ^ 0xFF for byte in sweep.truth[start : start + n])
                    value = int.from_bytes(data, "little")
                    writer = view.vm.writer(at, n)
                    if good == n:
                        writer.write_val(pod, value)
                        assert writer.cursor() == at + n
                    else:
                        error = fault_of(writer.write_val, pod, value)
                        assert (error.address, error.copied_len) == (at + good, good)
                        assert writer.cursor() == at
                    around.expect(start, data[:good])
                    if good:
                        told.write(at, sweep.truth[start : start + good])


def test_zeros_reach_as_far_as_pages_may_be_written(view: View, playground: Playground) -> None:
    """fill_zeros writes up to the bad page, tells how many, and moves the cursor by as many."""
    sweep = Sweep(playground, every_pair())
    with oracle(playground.pid) as told:
        for edge, left, right in sweep.edges():
            around = _Around(sweep, edge, told)
            for before in (0, 1, 7, 40):
                start, n = edge - before, 48
                at = sweep.base + start
                good = _good(
                    n, before, left in view.allowed.writable, right in view.allowed.writable
                )
                writer = view.vm.writer(at, n)
                if good == n:
                    assert writer.fill_zeros(n + 9) == n
                    view.vm.fill_zeros(at, n)
                else:
                    error = fault_of(writer.fill_zeros, n)
                    assert (error.address, error.copied_len) == (at + good, good)
                    error = fault_of(view.vm.fill_zeros, at, n)
                    assert (error.address, error.copied_len) == (at + good, good)
                assert writer.cursor() == at + good
                around.expect(start, bytes(good))
                if good:
                    told.write(at, sweep.truth[start : start + good])


def test_a_length_of_zero_is_fine_on_every_kind_of_page(view: View, playground: Playground) -> None:
    """Nothing is read from and nothing written to any page, and nothing faults."""
    vm = view.vm
    base = playground.layout(" ".join(KINDS))
    places = [base + k * PAGE + offset for k in range(len(KINDS)) for offset in (0, 1, PAGE - 1)]
    for at in [*places, 0, 1]:
        assert vm.read_bytes(at, 0) == b""
        vm.read_into(at, bytearray())
        vm.write_bytes(at, b"")
        vm.fill_zeros(at, 0)
        assert vm.read_slice(at, u64, 0) == []
        vm.write_slice(at, u64, [])
        assert vm.read_cstring(at, 0) == b""
        assert vm.reader(at, 0).read_fallible(VmWriter.from_buffer(bytearray(4))) == 0
        assert vm.writer(at, 0).write_fallible(VmReader.from_buffer(b"abcd")) == 0
        assert vm.writer(at, 0).fill_zeros(5) == 0


def test_a_length_of_zero_is_fine_outside_user_space_too(process: procvm.Process) -> None:
    """Length 0 anywhere is success and empty, whatever the address."""
    for address in (2**47, 2**63 - 1, 2**63, 2**64 - PAGE, 2**64 - 1):
        assert process.vm.read_bytes(address, 0) == b""
        process.vm.write_bytes(address, b"")
        process.vm.fill_zeros(address, 0)
        assert process.vm.read_cstring(address, 0) == b""


# Large transfers


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_transfer_is_exact_to_the_byte(
    process: procvm.Process, playground: Playground, kind: str
) -> None:
    """Of more than 1 MiB just the part before a bad page is delivered and written."""
    vm = process.vm
    kinds = ["rw"] * 258 + [kind] + ["rw"] * 2
    base = playground.layout(" ".join(kinds))
    edge = 258 * PAGE
    truth = contents(playground, base, kinds)
    flipped = bytes(byte ^ 0xFF for byte in truth)
    for start, end in (
        (5, edge),
        (5, edge + 1),
        (0, edge + PAGE),
        (PAGE - 1, edge + PAGE + 77),
        (edge - MIB, edge + 2 * PAGE),
        (edge - 2 * PAGE - 3, edge + PAGE + 1),
    ):
        n = end - start
        good = good_len(kinds, start, n, DEFAULT.readable)
        buffer = bytearray(b"\xee" * n)
        if good == n:
            vm.read_into(base + start, buffer)
            assert vm.read_bytes(base + start, n) == truth[start:end]
        else:
            error = fault_of(vm.read_into, base + start, buffer)
            assert (error.copied_len, error.address) == (good, base + start + good)
        assert buffer == truth[start : start + good] + b"\xee" * (n - good)

        good = good_len(kinds, start, n, DEFAULT.writable)
        data = flipped[start:end]
        if good == n:
            vm.write_bytes(base + start, data)
        else:
            error = fault_of(vm.write_bytes, base + start, data)
            assert (error.copied_len, error.address) == (good, base + start + good)
        expected = truth[:start] + data[:good] + truth[start + good :]
        assert contents(playground, base, kinds) == expected
        with oracle(playground.pid) as told:
            told.write(base + start, truth[start : start + good])


def test_a_transfer_over_a_thousand_mappings_is_whole(
    process: procvm.Process, playground: Playground
) -> None:
    """Neighbouring mappings of every readable and writable kind are one range to an access."""
    kinds = ["rw", "file", "srw", "rw"] * 128
    base = playground.layout(" ".join(kinds))
    assert process.vm.read_bytes(base + 1, 512 * PAGE - 2) == pattern(base + 1, 512 * PAGE - 2)
    data = os.urandom(512 * PAGE - 2)
    process.vm.write_bytes(base + 1, data)
    expected = pattern(base, 1) + data + pattern(base + 512 * PAGE - 1, 1)
    assert playground.peek(base, 512 * PAGE) == expected


def test_a_fill_of_more_than_a_mebibyte_is_exact_to_the_byte(
    process: procvm.Process, playground: Playground
) -> None:
    """The zeros reach the first page that may not be written, and the count says so."""
    kinds = ["rw"] * 300 + ["r"]
    base = playground.layout(" ".join(kinds))
    error = fault_of(process.vm.fill_zeros, base + 3, 300 * PAGE)
    assert (error.copied_len, error.address) == (300 * PAGE - 3, base + 300 * PAGE)
    expected = pattern(base, 3) + bytes(300 * PAGE - 3) + pattern(base + 300 * PAGE, PAGE)
    assert playground.peek(base, 301 * PAGE) == expected


@pytest.mark.parametrize("n", [1 << 32, 1 << 46])
def test_an_overlapping_copy_of_more_than_memory_is_refused_or_streamed(
    process: procvm.Process, playground: Playground, n: int
) -> None:
    """Within the target, of a range that overlaps itself: an error of procvm, in bounded memory."""
    base = 1 << 36
    playground.map(base, 2 * PAGE)
    reader, writer = process.vm.reader(base, n), process.vm.writer(base + 1, n)
    with (
        at_most_more_memory(256 * MIB),
        pytest.raises((procvm.PageFaultError, procvm.InvalidArgsError)),
    ):
        reader.read_fallible(writer)


@contextmanager
def at_most_more_memory(n: int) -> Iterator[None]:
    """Limits the tool's address space to what it has now plus `n` bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * PAGE + n, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("n", [1 << 40, 1 << 46])
def test_a_read_of_more_than_memory_is_refused(
    process: procvm.Process, playground: Playground, n: int
) -> None:
    """Bytes that the tool has no room for are refused, and the target's are untouched."""
    base = 1 << 36
    playground.map(base, PAGE)
    for access in (
        lambda: process.vm.read_bytes(base, n),
        lambda: process.vm.read_slice(base, u64, n // 8),
        lambda: process.vm.reader(base, n).read_bytes(n),
    ):
        with at_most_more_memory(256 * MIB), pytest.raises(procvm.InvalidArgsError) as caught:
            access()
        assert caught.value.copied_len == 0


def test_a_fill_of_more_than_memory_is_streamed(
    process: procvm.Process, playground: Playground
) -> None:
    """Zeros need no memory of the tool: the fill goes on to the first bad page."""
    base = 1 << 36
    playground.map(base, 2 * PAGE)
    playground.clear(base, 2 * PAGE)
    with at_most_more_memory(256 * MIB):
        error = fault_of(process.vm.fill_zeros, base, 1 << 46)
    assert (error.copied_len, error.address) == (2 * PAGE, base + 2 * PAGE)
    assert playground.peek(base, 2 * PAGE) == bytes(2 * PAGE)


@pytest.mark.parametrize("kind", ["none", "r", "wo", "hole"])
def test_under_a_storm_of_changes_a_transfer_is_whole_or_faults_at_a_page_edge(
    process: procvm.Process, playground: Playground, kind: str
) -> None:
    """While a thread of the target protects or unmaps pages, no count and no byte is wrong."""
    base = playground.layout(" ".join(["rw"] * 300))
    n, first, last = 300 * PAGE, base + 100 * PAGE, base + 200 * PAGE
    truth = pattern(base, n)
    playground.storm(first, last - first, kind)
    for _ in range(40):
        buffer = bytearray(n)
        fault = _fault_or_none(process.vm.read_into, base, buffer)
        good = n if fault is None else fault.copied_len
        if fault is not None:
            assert kind != "r"
            assert fault.address in range(first, last, PAGE)
            assert good == fault.address - base
        assert buffer[: 100 * PAGE] == truth[: 100 * PAGE]
        assert buffer[200 * PAGE : good] == truth[200 * PAGE : good]
        if kind != "hole":
            assert buffer[:good] == truth[:good]
        fault = _fault_or_none(process.vm.write_bytes, base, truth)
        if fault is not None:
            assert kind != "wo"
            assert fault.address in range(first, last, PAGE)
            assert fault.copied_len == fault.address - base
    assert playground.peek(base, 100 * PAGE) == truth[: 100 * PAGE]
    assert playground.peek(last, 100 * PAGE) == truth[200 * PAGE :]


@pytest.mark.parametrize("kind", ["none", "wo", "hole"])
def test_a_page_that_is_protected_just_before_it_is_read_is_not_read(
    playground: Playground, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What the kernel gives of a page that became unreadable after the look at it counts not."""
    base = playground.layout("rw rw rw")
    real = libc()

    def late(*args: Any) -> int:
        if playground.peek(base, 1) == pattern(base, 1):  # once: the page before is marked
            playground.poke(base, b"!")
            if kind == "hole":
                playground.unmap(base + PAGE, PAGE)
            else:
                playground.protect(base + PAGE, PAGE, kind)
        return real.pread(*args)

    fakes: dict[str, Any] = {"pread": late}
    monkeypatch.setattr("procvm._linux.proc_mem.libc", lambda: real._replace(**fakes))
    with procvm.open(playground.pid, backend="mem") as process:
        buffer = bytearray(3 * PAGE - 1)
        error = fault_of(process.vm.read_into, base + 1, buffer)
        assert (error.copied_len, error.address) == (PAGE - 1, base + PAGE)
        assert buffer[: PAGE - 1] == pattern(base + 1, PAGE - 1)


def test_under_a_storm_of_changes_the_rest_of_a_buffer_is_as_it_was(
    process: procvm.Process, playground: Playground
) -> None:
    """Bytes of a page that was protected meanwhile do not reach the buffer behind the count."""
    base = playground.layout(" ".join(["rw"] * 8))
    playground.storm(base + 2 * PAGE, 4 * PAGE, "none")
    for _ in range(3000):
        buffer = bytearray(b"\xee" * (8 * PAGE))
        fault = _fault_or_none(process.vm.read_into, base, buffer)
        good = 8 * PAGE if fault is None else fault.copied_len
        assert buffer[good:] == b"\xee" * (8 * PAGE - good)


def _fault_or_none(access: Callable[..., object], *args: object) -> procvm.PageFaultError | None:
    try:
        access(*args)
    except procvm.PageFaultError as error:
        return error
    return None


# Forced


def test_a_forced_write_to_private_memory_is_seen_by_the_target(
    process: procvm.Process, playground: Playground
) -> None:
    """Read-only, unreachable and execute-only private pages take a forced write."""
    kinds = ["r", "none", "xo", "wo", "fro"]
    base = playground.layout(" ".join(kinds))
    data = os.urandom(5 * PAGE)
    process.vm.forced().write_bytes(base, data)
    assert playground.peek(base, 5 * PAGE) == data
    assert process.vm.forced().read_bytes(base, 5 * PAGE) == data


def test_forcing_changes_no_protection(process: procvm.Process, playground: Playground) -> None:
    """After forced accesses the mappings allow what they did before, and no more."""
    base = playground.layout("r none xo fro")
    before = Path(f"/proc/{playground.pid}/maps").read_bytes()
    process.vm.forced().write_bytes(base, bytes(4 * PAGE))
    process.vm.forced().read_bytes(base, 4 * PAGE)
    assert Path(f"/proc/{playground.pid}/maps").read_bytes() == before
    for k in range(4):
        error = fault_of(process.vm.write_bytes, base + k * PAGE, b"x")
        assert (error.copied_len, error.address) == (0, base + k * PAGE)


@pytest.mark.parametrize("kind", ["rw", "r"])
def test_a_write_to_a_private_mapping_of_a_file_leaves_the_file(
    process: procvm.Process, playground: Playground, tmp_path: Path, kind: str
) -> None:
    """The target sees the bytes written, the file on disk does not: copy-on-write."""
    path = tmp_path / "file"
    path.write_bytes(pattern(0, 2 * PAGE))
    base = playground.map_file(bytes(path), 2 * PAGE, kind)
    process.vm.forced().write_bytes(base + 100, b"changed")
    expected = bytearray(pattern(0, 2 * PAGE))
    expected[100:107] = b"changed"
    assert playground.peek(base, 2 * PAGE) == expected
    assert path.read_bytes() == pattern(0, 2 * PAGE)


def test_a_forced_write_to_a_shared_read_only_file_is_refused(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """A shared read-only mapping faults at its first byte; memory and file stay as they are."""
    path = tmp_path / "file"
    path.write_bytes(pattern(0, PAGE))
    base = playground.map_file(bytes(path), PAGE, "sr")
    error = fault_of(process.vm.forced().write_bytes, base + 100, b"changed")
    assert (error.copied_len, error.address, error.pid) == (0, base + 100, playground.pid)
    assert playground.peek(base, PAGE) == pattern(0, PAGE)
    assert path.read_bytes() == pattern(0, PAGE)


def test_a_write_to_a_shared_mapping_of_a_file_reaches_the_file(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """A shared writable mapping is the file, for the target's writes and for ours."""
    path = tmp_path / "file"
    path.write_bytes(pattern(0, PAGE))
    base = playground.map_file(bytes(path), PAGE, "srw")
    process.vm.write_bytes(base + 100, b"changed")
    expected = pattern(0, 100) + b"changed" + pattern(107, PAGE - 107)
    assert path.read_bytes() == expected


# Places that are no memory of the target


def _lines(pid: int, name: str) -> list[str]:
    maps = Path(f"/proc/{pid}/maps").read_text()
    return [line for line in maps.splitlines() if line.endswith(name)]


def _start(line: str) -> int:
    return int(line.partition("-")[0], 16)


@pytest.mark.parametrize("below", [1, 8, PAGE, 64 * 1024, MIB])
def test_an_access_below_the_stack_faults_and_does_not_grow_it(
    view: View, playground: Playground, below: int
) -> None:
    """Reads and writes just below [stack] fault at once; the mapping stays as it was."""
    before = _lines(playground.pid, "[stack]")
    assert len(before) == 1
    at = _start(before[0]) - below
    vm = view.vm
    accesses: list[Callable[[], object]] = [
        lambda: vm.read_bytes(at, 1),
        lambda: vm.read_bytes(at, below + 8),
        lambda: vm.read_val(at, u64),
        lambda: vm.read_cstring(at, 64),
        lambda: vm.write_bytes(at, b"x"),
        lambda: vm.write_bytes(at, bytes(below + 8)),
        lambda: vm.write_val(at, u64, 0),
        lambda: vm.fill_zeros(at, 64),
        lambda: vm.reader(at, 64).read_fallible(VmWriter.from_buffer(bytearray(64))),
        lambda: procvm.VmReaderArray([vm.reader(at, 4), vm.reader(at + 1, 4)]).read(
            VmWriter.from_buffer(bytearray(8))
        ),
    ]
    for access in accesses:
        error = fault_of(access)
        assert (error.copied_len, error.address, error.pid) == (0, at, playground.pid)
        assert _lines(playground.pid, "[stack]") == before


def test_the_first_byte_of_the_stack_can_be_read(view: View, playground: Playground) -> None:
    """The stack's own pages are memory like any other, up to their lower edge."""
    (line,) = _lines(playground.pid, "[stack]")
    assert view.vm.read_bytes(_start(line), 16) == playground.peek(_start(line), 16)


def test_vvar_faults(view: View, playground: Playground) -> None:
    """The kernel's clock pages are mapped r--p, and even a debugger may not read them."""
    lines = _lines(playground.pid, "[vvar]")
    if not lines:
        pytest.skip("this kernel maps no [vvar]")
    at = _start(lines[0])
    for access in (
        lambda: view.vm.read_bytes(at, 8),
        lambda: view.vm.read_val(at, u64),
        lambda: view.vm.write_bytes(at, b"x"),
        lambda: view.vm.write_val(at, u8, 1),
    ):
        error = fault_of(access)
        assert (error.copied_len, error.address) == (0, at)


def test_vdso_is_the_targets_own_code(view: View, playground: Playground) -> None:
    """The [vdso] reads as the target sees it, and no default write changes it."""
    lines = _lines(playground.pid, "[vdso]")
    if not lines:
        pytest.skip("this kernel maps no [vdso]")
    at = _start(lines[0])
    assert view.vm.read_bytes(at, PAGE) == playground.peek(at, PAGE)
    if view.allowed is DEFAULT:
        error = fault_of(view.vm.write_bytes, at, b"x")
        assert (error.copied_len, error.address) == (0, at)


USER_END = (1 << 47) - PAGE

NOWHERE = [
    0,
    1,
    8,
    PAGE - 1,
    PAGE,
    0xFFFF,
    USER_END - 1,
    USER_END - 8,
    USER_END,
    2**47 - 8,
    2**47 - 1,
    2**47,
    2**47 + 8,
    2**56,
    2**63 - 16,
    2**63 - 8,
    2**63 - 1,
    2**63,
    2**63 + 8,
    0xFFFF_0000_0000_0000,
    0xFFFF_8000_0000_0000,
    0xFFFF_8880_0000_0000,
    0xFFFF_FFFF_8100_0000,
    0xFFFF_FFFF_FF60_0000,
    0xFFFF_FFFF_FF60_0FF8,
    2**64 - PAGE,
    2**64 - 16,
]


@pytest.mark.parametrize("address", NOWHERE, ids=hex)
def test_an_address_outside_is_a_fault_or_denied_and_nothing_else(view: View, address: int) -> None:
    """NULL, low, non-canonical and kernel addresses, [vsyscall] too, never give another error."""
    vm = view.vm
    buffer = bytearray(b"\xee" * 16)
    accesses: list[Callable[[], object]] = [
        lambda: vm.read_bytes(address, 1),
        lambda: vm.read_bytes(address, 16),
        lambda: vm.read_into(address, buffer),
        lambda: vm.read_val(address, u8),
        lambda: vm.read_val(address, i64),
        lambda: vm.read_slice(address, u32, 2),
        lambda: vm.read_cstring(address, 16),
        lambda: vm.reader(address, 16).read_fallible(VmWriter.from_buffer(buffer)),
        lambda: vm.write_bytes(address, b"x"),
        lambda: vm.write_bytes(address, bytes(16)),
        lambda: vm.write_val(address, u8, 0),
        lambda: vm.write_val(address, i64, -1),
        lambda: vm.write_slice(address, u32, [1, 2]),
        lambda: vm.fill_zeros(address, 16),
        lambda: vm.writer(address, 16).write_fallible(VmReader.from_buffer(bytes(16))),
    ]
    for access in accesses:
        with pytest.raises((procvm.PageFaultError, procvm.AccessDeniedError)) as caught:
            access()
        assert caught.value.copied_len == 0
        if isinstance(caught.value, procvm.PageFaultError):
            assert caught.value.address == address
        assert buffer == b"\xee" * 16


@pytest.mark.parametrize(
    "address", [address for address in NOWHERE if address >= USER_END], ids=hex
)
def test_a_range_that_leaves_user_space_is_denied_before_it_is_touched(
    view: View, address: int
) -> None:
    """reader, writer and both together refuse a range that ends outside user space."""
    for make in (view.vm.reader, view.vm.writer, view.vm.reader_writer):
        with pytest.raises(procvm.AccessDeniedError) as caught:
            make(address, 8)
        assert caught.value.copied_len == 0
        with pytest.raises(procvm.AccessDeniedError):
            make(USER_END - 4, address + 8 - USER_END)


def test_a_range_that_begins_inside_and_leaves_user_space_touches_nothing(
    process: procvm.Process, playground: Playground
) -> None:
    """A write from a good page far beyond the end of user space changes no byte of the page."""
    base = playground.layout("rw")
    with pytest.raises(procvm.AccessDeniedError) as caught:
        process.vm.fill_zeros(base, USER_END - base + 1)
    assert caught.value.copied_len == 0
    assert playground.peek(base, PAGE) == pattern(base, PAGE)


def test_a_range_past_the_last_address_is_an_overflow(process: procvm.Process) -> None:
    """Address plus length beyond 2^64 is told as such, before anything is touched."""
    vm = process.vm
    for access in (
        lambda: vm.read_bytes(2**64 - 8, 9),
        lambda: vm.read_bytes(1, 2**64),
        lambda: vm.write_bytes(2**64 - 1, b"ab"),
        lambda: vm.fill_zeros(2**64 - 1, 2),
        lambda: vm.read_val(2**64 - 7, u64),
        lambda: vm.write_val(2**64 - 7, u64, 0),
        lambda: vm.read_slice(2**64 - 7, u64, 1),
        lambda: vm.read_slice(8, u64, 2**61),
        lambda: vm.reader(2**64 - 1, 2),
        lambda: vm.writer(2**64 - 1, 2),
    ):
        with pytest.raises(procvm.AddressOverflowError) as caught:
            access()
        assert caught.value.copied_len == 0


def test_the_last_page_of_user_space_is_memory(
    process: procvm.Process, playground: Playground
) -> None:
    """The page that ends at the largest user address is read and written to its last byte."""
    at = process.vm.end - PAGE
    if any(line for line in _lines(playground.pid, "") if at in _span(line)):
        pytest.skip("the target has something there already")
    playground.map(at, PAGE, "rw")
    playground.clear(at, PAGE)
    assert process.vm.read_bytes(at, PAGE) == pattern(at, PAGE)
    assert process.vm.read_val(at + PAGE - 8, u64) == int.from_bytes(
        pattern(at + PAGE - 8, 8), "little"
    )
    process.vm.write_val(at + PAGE - 8, u64, 2**64 - 2)
    assert playground.peek(at + PAGE - 8, 8) == (2**64 - 2).to_bytes(8, "little")
    with pytest.raises(procvm.AccessDeniedError):
        process.vm.read_bytes(at + PAGE - 4, 5)


def _span(line: str) -> range:
    start, _, end = line.partition(" ")[0].partition("-")
    return range(int(start, 16), int(end, 16))


def test_user_space_ends_where_the_target_can_map_no_more(
    process: procvm.Process, playground: Playground
) -> None:
    """The kernel refuses the target a page at `end`: it is the first address it can not have."""
    with pytest.raises(RuntimeError):
        playground.map(process.vm.end, PAGE, "rw")


# The tool's own process, which goes another way


@pytest.fixture
def own() -> Iterator[tuple[VmSpace, int]]:
    """The tool opened by itself, and a page of it with a hole behind."""
    pages = mmap.mmap(-1, 3 * PAGE)
    pages[:] = pattern(0, 3 * PAGE)
    with procvm.open(os.getpid()) as process:
        yield process.vm, VmWriter.from_buffer(pages).cursor()


def test_the_tools_own_read_only_page_faults_as_a_targets_does(
    own: tuple[VmSpace, int],
) -> None:
    """A write to the tool's own read-only memory is a PageFaultError at its first byte."""
    vm, _ = own
    pages = mmap.mmap(-1, PAGE, prot=mmap.PROT_READ)
    at = VmReader.from_buffer(pages).cursor()
    assert vm.read_bytes(at, PAGE) == bytes(PAGE)
    error = fault_of(vm.write_bytes, at + 5, b"x")
    assert (error.copied_len, error.address, error.pid) == (0, at + 5, os.getpid())
    error = fault_of(vm.write_val, at + 8, u64, 1)
    assert (error.copied_len, error.address) == (0, at + 8)


def test_the_tools_own_memory_is_read_and_written(own: tuple[VmSpace, int]) -> None:
    """An access to the tool's own pages is whole and lands where it should."""
    vm, at = own
    assert vm.read_bytes(at, 3 * PAGE) == pattern(0, 3 * PAGE)
    vm.write_bytes(at + PAGE - 2, b"abcd")
    assert vm.read_val(at + PAGE - 2, u32) == int.from_bytes(b"abcd", "little")
    vm.fill_zeros(at, PAGE)
    assert vm.read_bytes(at, PAGE) == bytes(PAGE)
    assert vm.read_bytes(at + PAGE, 2) == b"cd"
