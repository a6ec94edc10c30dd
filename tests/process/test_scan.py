"""Scan of live processes: both backends, counters, pages that go, ends, and what it costs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

import procvm
from procvm import VmSpace, f64, i16, i32, u8, u32, u64
from procvm._base.optional import numpy_or_none
from procvm._mm.extent import Extent
from procvm._mm.memory import Region, UserMemory
from procvm._space.scan import CHUNK_LEN, Scan
from tests.faults.subjects import Subject
from tests.linux.kinds import DEFAULT, FORCED, Allowed, contents, every_pair, oracle
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import status_field

np: Any = numpy_or_none()
ROOT = Path(__file__).parents[2]
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
Backend = Literal["auto", "mem"]
BACKENDS: list[Backend] = ["auto", "mem"]
Pair = tuple[int, int]


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


def offsets(scan: Scan, start: int) -> list[int]:
    return [address - start for address in scan]


def skipped(scan: Scan, start: int) -> set[int]:
    """Returns the numbers of the pages of which some bytes were skipped."""
    return {(at - start) // PAGE for a, b in scan.skipped for at in (*range(a, b, 4), b - 1)}


def filled(playground: Playground, n: int) -> int:
    start = playground.reserve(n)
    playground.clear(start, n)
    return start


def kib_of(pid: int, field: str) -> int:
    return int(status_field(pid, field).split()[0])


def word(playground: Playground, address: int, value: int) -> None:
    playground.poke(address, struct.pack("@i", value))


def words(playground: Playground, addresses: Sequence[int], values: Sequence[int]) -> None:
    for address, value in zip(addresses, values, strict=True):
        word(playground, address, value)


def _in(low: int, high: int, value: int) -> bool:
    return low <= value <= high


# Against plain Python


@pytest.mark.parametrize("threads", [1, 3])
def test_every_kind_of_page_is_scanned_as_plain_python(
    view: View, playground: Playground, threads: int
) -> None:
    """Words in and over the edges of all pairs of kinds; what is bad is skipped, to the byte."""
    kinds = every_pair()
    base = playground.layout(" ".join(kinds))
    end = base + len(kinds) * PAGE
    data = contents(playground, base, kinds)
    good = [kind in view.allowed.readable for kind in kinds]

    def is_good(at: int, n: int) -> bool:
        return good[at // PAGE] and good[(at + n - 1) // PAGE]

    for kind, code, align in ((i16, "@h", 1), (u64, "@Q", 4)):
        n = struct.calcsize(code)
        values = {
            at: struct.unpack_from(code, data, at)[0]
            for at in range(-base % align, len(data) - n + 1, align)
            if is_good(at, n)
        }
        some = values[min(values)]
        for value, holds in (
            ({}, lambda _: True),
            ({"value": (some, some + 5000)}, partial(_in, some, some + 5000)),
            ({"value": lambda v: v % 7 == 3}, lambda v: v % 7 == 3),
        ):
            scan = view.vm.scan(kind, ranges=[(base, end)], align=align, threads=threads, **value)
            expected = {at: v for at, v in values.items() if holds(v)}
            assert offsets(scan, base) == list(expected)
            assert scan.values().tolist() == list(expected.values())
            bad = {k for k in range(len(kinds)) if not good[k]}
            assert {(at - base) // PAGE for a, b in scan.skipped for at in range(a, b, PAGE)} == bad
            assert sum(b - a for a, b in scan.skipped) == len(bad) * PAGE


@pytest.mark.parametrize("threads", [1, 3])
def test_a_counter_is_found_as_scanmem_finds_it(
    process: procvm.Process, playground: Playground, threads: int
) -> None:
    """All of it, then by what it did and what it is, down to one; each step as plain Python."""
    n = 2 * MIB + 40 * KIB
    start = filled(playground, n)
    at = start + CHUNK_LEN - 4
    others = [start + 80, start + CHUNK_LEN, start + 2 * MIB + 8]
    pid = playground.pid
    with oracle(pid) as told:

        def now() -> Any:
            return np.frombuffer(told.read(start, n), np.int32).copy()

        word(playground, at, 100)
        scan = process.vm.scan(i32, ranges=[(start, start + n)], threads=threads)
        old = now()
        keep = np.ones(n // 4, bool)
        assert len(scan) == n // 4
        steps: list[tuple[Callable[[], None], Any, dict[str, Any], Callable[..., Any]]] = [
            (lambda: None, "unchanged", {}, lambda new, old: new == old),
            (
                lambda: words(playground, [at, *others], [1 << 30] * 4),
                None,
                {"value": lambda v: v > 0},
                lambda new, _: new > 0,
            ),
            (
                lambda: words(playground, [at, *others], [90] * 4),
                "decreased",
                {},
                lambda new, old: new < old,
            ),
            (
                lambda: words(playground, [at, *others], range(91, 95)),
                "increased",
                {"value": (91, 93)},
                lambda new, old: (new > old) & (new >= 91) & (new <= 93),
            ),
            (
                lambda: word(playground, at, 7),
                "changed",
                {"value": 7},
                lambda new, old: (new != old) & (new == 7),
            ),
        ]
        lens = []
        for change, how, arguments, holds in steps:
            change()
            new = now()
            keep &= holds(new, old)
            scan = scan.refine(how, **arguments)
            assert (scan.addresses() - np.uint64(start) == np.flatnonzero(keep) * 4).all()
            assert (scan.values() == new[keep]).all()
            lens.append(len(scan))
            old = new
        assert lens[-3:] == [4, 3, 1]
    assert list(scan) == [at]
    assert scan.skipped == []


def test_threads_make_no_difference(process: procvm.Process, playground: Playground) -> None:
    """Addresses, values and skipped of a scan with holes are the same for 1 and 3."""
    n = 5 * MIB + 12
    start = filled(playground, n + PAGE)
    playground.unmap(start + MIB - PAGE, 3 * PAGE)
    playground.protect(start + 3 * MIB, PAGE, "none")
    ranges = [(start + 2, start + 2 * MIB + 1), (start + 2 * MIB + 3, start + n)]
    with oracle(playground.pid) as told:
        for kind, value in ((u32, None), (u8, (5, 20)), (f64, (0.0, 1e300)), (u8, 9)):
            arguments: dict[str, Any] = {} if value is None else {"value": value}
            one = process.vm.scan(kind, ranges=ranges, threads=1, **arguments)
            three = process.vm.scan(kind, ranges=ranges, threads=3, **arguments)
            for look in range(2):
                assert len(one) == len(three) > 0
                assert (one.addresses() == three.addresses()).all()
                assert one.values().tobytes() == three.values().tobytes()
                assert one.skipped == three.skipped
                first = int(one.addresses()[len(one) // 3])
                if look == 0:
                    told.write(first, bytes(byte ^ 1 for byte in told.read(first, 8)))
                    one = one.refine("unchanged")
                    three = three.refine("unchanged")
                    assert first not in set(one)


def test_perms_choose_the_mappings(process: procvm.Process, playground: Playground) -> None:
    """What can be read and written without ranges, or what is asked for."""
    start = playground.layout("r none rw none srw none rwx none fro")
    data = b"\xa7\x93\x11\x5e\xd0\x0d\xfe\xca"
    (number,) = struct.unpack("@Q", data)
    for k in range(0, 9, 2):
        playground.poke(start + k * PAGE + 8, data)
    by_default = process.vm.scan(u64, value=number)
    readable = process.vm.scan(u64, value=number, perms="r")
    for scan, pages in ((by_default, [2, 4, 6]), (readable, [0, 2, 4, 6, 8])):
        found = [at for at in scan if start <= at < start + 9 * PAGE]
        assert found == [start + k * PAGE + 8 for k in pages]
    vmas = [vma for vma in process.maps() if start <= vma.start < start + 9 * PAGE]
    scan = process.vm.scan(u64, value=number, ranges=vmas)
    assert offsets(scan, start) == [k * PAGE + 8 for k in (0, 2, 4, 6, 8)]


# Pages that go


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("bad", ["hole", "none", "wo"])
def test_pages_that_go_are_dropped_and_skipped(
    process: procvm.Process, playground: Playground, bad: str, dense: bool
) -> None:
    """Candidates there are none any more, also when the pages come back; the others stay."""
    start = playground.layout(" ".join(["rw"] * 40))
    n = 40 * PAGE
    for page in (3, 20, 39):
        word(playground, start + page * PAGE + 16, 77)
    if dense:
        scan = process.vm.scan(i32, ranges=[(start, start + n)])
        expected = list(range(0, n, 4))
    else:
        scan = process.vm.scan(i32, value=77, ranges=[(start, start + n)])
        expected = [page * PAGE + 16 for page in (3, 20, 39)]
    assert offsets(scan, start) == expected
    if bad == "hole":
        playground.unmap(start + 20 * PAGE, 2 * PAGE)
    else:
        playground.protect(start + 20 * PAGE, 2 * PAGE, bad)
    left = [at for at in expected if at // PAGE not in (20, 21)]
    narrowed = scan.refine("unchanged")
    assert narrowed is not scan
    scan = narrowed
    assert offsets(scan, start) == left
    assert {at for a, b in scan.skipped for at in range(a - start, b - start)} == {
        k for at in expected if at // PAGE in (20, 21) for k in range(at, at + 4)
    }
    before = list(scan.skipped)
    playground.map(start + 20 * PAGE, 2 * PAGE)
    scan = scan.refine("unchanged")
    assert offsets(scan, start) == left
    assert scan.skipped == before
    assert skipped(scan, start) == ({20, 21} if dense else {20})


def test_a_value_over_the_edge_of_a_page_that_has_gone_is_dropped(
    process: procvm.Process, playground: Playground
) -> None:
    """Those that reach into it and those that begin in it; their neighbours are kept."""
    start = playground.layout("rw rw rw")
    edge = start + PAGE
    scan = process.vm.scan(u64, ranges=[(edge - 20, edge + PAGE + 20)], align=1)
    assert offsets(scan, edge) == list(range(-20, PAGE + 13))
    playground.protect(edge, PAGE, "none")
    scan = scan.refine("unchanged")
    assert offsets(scan, edge) == [*range(-20, -7), *range(PAGE, PAGE + 13)]
    assert scan.values().tolist() == [struct.unpack("@Q", pattern(at, 8))[0] for at in scan]


def test_all_of_it_gone_is_an_empty_scan(process: procvm.Process, playground: Playground) -> None:
    """As long as the process lives that is no error."""
    start = playground.layout("rw rw")
    looks: list[dict[str, Any]] = [{}, {"value": 12345}]
    for arguments in looks:
        word(playground, start + 4, 12345)
        scan = process.vm.scan(i32, ranges=[(start, start + PAGE)], **arguments)
        assert len(scan) > 0
        playground.unmap(start, PAGE)
        scan = scan.refine("changed")
        assert len(scan) == 0
        assert list(scan) == []
        assert skipped(scan, start) == {0}
        playground.map(start, PAGE)


@pytest.mark.parametrize("kind", ["none", "wo"])
def test_untouched_memory_that_may_not_be_read_is_no_candidate(
    process: procvm.Process, playground: Playground, kind: str
) -> None:
    """Zeros that an access would fault on are skipped, at the first look and later."""
    start = playground.reserve(3 * MIB)
    scan = process.vm.scan(u64, value=0, ranges=[(start, start + 3 * MIB)])
    assert len(scan) == 3 * MIB // 8
    playground.protect(start + MIB, MIB, kind)
    again = process.vm.scan(u64, value=0, ranges=[(start, start + 3 * MIB)])
    scan = scan.refine("unchanged")
    for one in (again, scan):
        assert len(one) == 2 * MIB // 8
        assert {(at - start) // MIB for at in one} == {0, 2}
        assert {(a - start) // MIB for a, _ in one.skipped} == {1}


def test_touched_pages_are_seen_from_a_start_inside_a_page(
    process: procvm.Process, playground: Playground
) -> None:
    """A look that begins at the first candidate, inside a page, takes no byte for another's."""
    start = playground.reserve(2 * MIB)
    playground.clear(start + MIB // 2, PAGE)
    scan = process.vm.scan(u32, value=0, ranges=[(start + 100, start + 2 * MIB - 52)])
    assert len(scan) == (2 * MIB - 152 - PAGE) // 4
    playground.poke(start + MIB + 8, b"\1")
    playground.poke(start + MIB - 4, b"\2")
    scan = scan.refine("unchanged")
    assert len(scan) == (2 * MIB - 152 - PAGE) // 4 - 2
    assert start + MIB + 8 not in set(scan)
    wide = process.vm.scan(u32, ranges=[(start + 100, start + 2 * MIB - 52)])
    wide = wide.refine(value=(1, 2))
    assert offsets(wide, start) == [MIB - 4, MIB + 8]


def test_a_forced_scan_reads_what_may_not_be_read(
    process: procvm.Process, playground: Playground
) -> None:
    """And looks at it again, dense and sparse; what has no page is skipped."""
    start = playground.layout("rw none wo guard none")
    vm = process.vm.forced()
    scan = vm.scan(i32, ranges=[(start, start + 5 * PAGE)])
    assert len(scan) == 4 * PAGE // 4
    assert scan.skipped == [(start + 3 * PAGE, start + 4 * PAGE)]
    for page in (1, 4):
        word(playground, start + page * PAGE + 8, 5)
    scan = scan.refine("changed")
    assert offsets(scan, start) == [PAGE + 8, 4 * PAGE + 8]
    scan = scan.refine(value=5)
    assert offsets(scan, start) == [PAGE + 8, 4 * PAGE + 8]
    playground.unmap(start + 4 * PAGE, PAGE)
    scan = scan.refine(value=5)
    assert offsets(scan, start) == [PAGE + 8]


# The end of a target


class Hooked(UserMemory):
    """A process's memory, with something done before one of the calls."""

    def __init__(self, inner: UserMemory, when: int, do: Callable[[], object]) -> None:
        self.inner, self.when, self.do = inner, when, do
        self.calls = 0
        self.lock = threading.Lock()

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
        return Hooked(self.inner.forced(), self.when, self.do)

    def _before(self) -> None:
        with self.lock:
            if self.calls == self.when:
                self.do()
            self.calls += 1

    def read(self, address: int, own_address: int, n: int) -> None:
        self._before()
        self.inner.read(address, own_address, n)

    def write(self, address: int, own_address: int, n: int) -> None:
        raise AssertionError("a scan writes nothing")

    def readv_packed(self, words: memoryview, count: int, own_address: int) -> int:
        self._before()
        return self.inner.readv_packed(words, count, own_address)

    def regions(self) -> list[Region] | None:
        return self.inner.regions()

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        return self.inner.layout(start, end)


def _kill(playground: Playground) -> None:
    playground.popen.kill()
    playground.popen.wait()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dense", [True, False])
def test_a_target_that_exits_in_the_middle_of_a_refine(
    backend: Backend, threads: int, dense: bool
) -> None:
    """Whichever call it is before: the error says so, and the scan is as it was."""
    for when in (0, 1, 2):
        with (
            Playground() as child,
            procvm.open(child.pid, backend=backend) as process,
        ):
            n = 3 * MIB
            start = filled(child, n)
            hooked = Hooked(process.vm.memory, -1, partial(_kill, child))
            arguments: dict[str, Any] = {}
            if not dense:
                arguments = {"value": 123456789}
                for k in range(3):
                    for at in (20, 700_000):
                        word(child, start + k * MIB + at, 123456789)
            ranges = [(start, start + MIB), (start + MIB, start + n)]
            scan = VmSpace(hooked).scan(i32, ranges=ranges, threads=threads, **arguments)
            addresses, values = scan.addresses(), scan.values()
            assert len(addresses) == (n // 4 if dense else 6)
            hooked.when, hooked.calls = when, 0
            with pytest.raises(procvm.ProcessExitedError) as caught:
                scan.refine("unchanged")
            assert caught.value.pid == child.pid
            assert (scan.addresses() == addresses).all()
            assert (scan.values() == values).all()
            assert scan.skipped == []
            for how in ("unchanged", "changed"):
                with pytest.raises(procvm.ProcessExitedError):
                    scan.refine(how)
            assert len(scan) == len(addresses)
    assert not [one for one in threading.enumerate() if one.name.startswith("procvm")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_target_that_execs_ends_a_scan(backend: Backend) -> None:
    """No value of the new program is taken for one of the old, dense or sparse."""
    looks: list[dict[str, Any]] = [{}, {"value": 305419896}]
    for arguments in looks:
        with Subject() as subject, procvm.open(subject.pid, backend=backend) as process:
            process.vm.write_val(subject.address, u32, 305419896)
            ranges = [(subject.address, subject.address + 64)]
            scan = process.vm.scan(u32, ranges=ranges, **arguments)
            assert len(scan) == (1 if arguments else 16)
            subject.send("exec /bin/cat")
            comm = Path(f"/proc/{subject.pid}/comm")
            assert eventually(lambda: comm.read_text() == "cat\n")  # noqa: B023 (waited for here)
            with pytest.raises(procvm.ProcessExecedError):
                scan.refine("unchanged")
            assert len(scan) == (1 if arguments else 16)


def test_a_closed_process_is_not_looked_at(playground: Playground) -> None:
    """What was found before the close is still there."""
    start = playground.layout("rw")
    with procvm.open(playground.pid) as process:
        scan = process.vm.scan(u32, ranges=[(start, start + PAGE)])
    with pytest.raises(procvm.ClosedError):
        scan.refine("changed")
    assert len(scan) == PAGE // 4
    assert b"".join(pattern(at, 4) for at in scan) == scan.values().tobytes()


def test_a_target_that_writes_meanwhile_gives_values_it_had(
    process: procvm.Process, playground: Playground
) -> None:
    """A word that counts up is always one that has increased, and is never torn."""
    start = playground.layout("rw rw")
    playground.poke(start + 64, bytes(8))
    playground.spin(start + 64)
    scan = process.vm.scan(u64, ranges=[(start, start + 2 * PAGE)])
    last = int(scan.values()[8])
    for _ in range(50):
        before = process.vm.read_val(start + 64, u64)
        while process.vm.read_val(start + 64, u64) == before:
            pass
        scan = scan.refine("increased")
        assert offsets(scan, start) == [64]
        (new,) = scan.values().tolist()
        assert last < new <= process.vm.read_val(start + 64, u64)
        last = new


# A target that is held


def test_a_held_target_is_scanned(playground: Playground) -> None:
    """`held.vm` gives the same candidates, at the first look and later."""
    start = playground.layout("rw none rw")
    with procvm.attach(playground.pid) as tracee:
        with tracee.stopped() as held:
            ranges = [(start, start + 3 * PAGE)]
            scan = held.vm.scan(i32, ranges=ranges)
            assert len(scan) == 2 * PAGE // 4
            assert scan.skipped == [(start + PAGE, start + 2 * PAGE)]
            tracee.vm.write_val(start + 40, i32, 4)
            scan = scan.refine("changed")
            assert offsets(scan, start) == [40]
        with suppress(procvm.ProcvmError):
            scan.refine("unchanged")
        assert len(scan) == 1


# What it costs


MEMORY = """
import sys
import numpy as np
import procvm

def kib(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1])

pid, start, n, what = map(int, sys.argv[1:])
ranges = [(start, start + n)]
arguments = {"value": what} if what else {}
with procvm.open(pid) as process:
    process.vm.scan(procvm.i32, ranges=[(start, start + (1 << 20))]).refine("changed")
    before = kib("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    scan = process.vm.scan(procvm.i32, ranges=ranges, **arguments)
    peak, kept = kib("VmHWM") - before, kib("VmRSS") - before
    nr = len(scan)
    for _ in range(8):
        scan = scan.refine("unchanged")
    assert len(scan) == nr
    print(nr, peak, kept, kib("VmHWM") - before)
"""


def measured(playground: Playground, start: int, n: int, what: int) -> list[int]:
    argv = [sys.executable, "-c", MEMORY, *map(str, (playground.pid, start, n, what))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return list(map(int, done.stdout.split()))


def test_a_dense_scan_keeps_about_what_it_looks_at(playground: Playground) -> None:
    """64 MiB of i32 without a value: at most 1.3 times as much, at its peak.

    A refine takes as much again, since it leaves the scan as it was if it fails,
    and what the allocator keeps; any number of them take no more.
    """
    n = 64 * MIB
    start = filled(playground, n)
    nr, peak, kept, refined = measured(playground, start, n, 0)
    assert nr == n // 4
    assert n // KIB <= kept <= peak <= 1.3 * n // KIB
    assert refined <= 4 * n // KIB


def test_a_sparse_scan_keeps_little(playground: Playground) -> None:
    """64 MiB with a thousand hits: less than 16 MiB at any time, and 8 of them kept."""
    n = 64 * MIB
    start = filled(playground, n)
    for k in range(1000):
        word(playground, start + k * 65536 + 8, 0x12345678)
    nr, peak, kept, refined = measured(playground, start, n, 0x12345678)
    assert nr == 1000
    assert max(peak, refined) <= 16 * KIB
    assert kept <= 8 * KIB


MANY_GONE = """
import sys
import procvm

def kib(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1])

pid, start, n = map(int, sys.argv[1:])
with procvm.open(pid) as process:
    scan = process.vm.scan(procvm.i32, ranges=[(start, start + n)])
    print(len(scan), flush=True)
    sys.stdin.readline()
    before = kib("VmRSS")
    scan = scan.refine("unchanged")
    print(len(scan), len(scan.skipped), kib("VmHWM") - before)
"""


def test_what_has_gone_costs_no_memory(playground: Playground) -> None:
    """16 MiB that the target unmaps are a few ranges, and a refine takes less than 16 MiB."""
    n = 16 * MIB
    start = filled(playground, n)
    argv = [sys.executable, "-c", MANY_GONE, *map(str, (playground.pid, start, n))]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as tool:
        assert tool.stdout is not None
        assert tool.stdout.readline() == f"{n // 4}\n"
        playground.unmap(start, n)
        told, _ = tool.communicate("go\n")
    left, nr_skipped, added = map(int, told.split())
    assert (left, nr_skipped) == (0, 1)
    assert added <= 16 * KIB


def test_untouched_memory_costs_nothing(process: procvm.Process, playground: Playground) -> None:
    """64 GiB, four pages of them touched: few CPU seconds; the target gets no page tables."""
    n = 64 * GIB
    start = playground.reserve(n)
    places = [4, 3 * GIB + PAGE - 4, 40 * GIB, n - 4]
    for at in places:
        word(playground, start + at, 1000)
    tables = kib_of(playground.pid, "VmPTE")
    begun = time.process_time()
    ranges = [(start, start + n)]
    scan = process.vm.scan(i32, value=1000, ranges=ranges)
    assert offsets(scan, start) == places
    assert offsets(process.vm.scan(i32, value=(1, 5000), ranges=ranges), start) == places
    above = process.vm.scan(i32, value=lambda v: v > 5, ranges=ranges)
    assert offsets(above, start) == places
    odd = process.vm.scan(i32, value=1000, ranges=ranges, align=1)
    assert offsets(odd, start) == places
    word(playground, start + places[1], 1001)
    scan = scan.refine("increased")
    assert offsets(scan, start) == places[1:2]
    assert scan.skipped == []
    assert time.process_time() - begun < 5
    assert kib_of(playground.pid, "VmPTE") - tables <= 64


# Without numpy


def test_without_numpy_a_scan_of_a_process_names_the_package(playground: Playground) -> None:
    """Nothing of the target is read."""
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "import procvm\n"
        "with procvm.open(int(sys.argv[1])) as process:\n"
        "    try: process.vm.scan(procvm.u32)\n"
        "    except procvm.UnsupportedError as error: print(error)\n"
    )
    argv: Sequence[str] = [sys.executable, "-c", code, str(playground.pid)]
    told = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told == "a scan needs numpy: pip install 'procvm[numpy]'\n"
    assert os.path.exists(f"/proc/{playground.pid}")
