"""Snapshots: what is kept, what differs, what is put back; against plain Python and the target."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import pickle
import random
import re
import struct
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procvm
from procvm import PageFaultError, Run, Snapshot, VmSpace, u8, u32, u64
from procvm._base.optional import numpy_or_none
from procvm._local.buffers import address_of, copy
from procvm._mm.extent import Extent
from procvm._mm.memory import Region, UserMemory
from procvm._saved.facts import Facts
from procvm._saved.snapshot import take_snapshot
from procvm._space.maps import Maps
from tests.linux.kinds import KINDS, READABLE, contents, oracle
from tests.mm.test_gather import run_without_numpy
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.fakes import laid_out
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import assert_free, state_of
from tests.tracee.witness import Work

np: Any = numpy_or_none()
ROOT = Path(__file__).parents[2]
BASE = 0x7000_0000_0000
PID = 99
MIB, GIB = 1 << 20, 1 << 30
LOOK = 4 * MIB
"""Bytes that are compared at a time."""

Pair = tuple[int, int]


class Flat(UserMemory):
    """Bytes from `BASE` on, some pages of which can not be accessed, some never written."""

    def __init__(
        self,
        data: bytes | bytearray,
        bad: Iterable[int] = (),
        zeros: Sequence[Pair] = (),
        size: int = 0,
    ) -> None:
        self.data = bytearray(data)
        self.bad = set(bad)
        self.zeros = [(BASE + a, BASE + b) for a, b in zeros]
        self.size = size or len(data)
        self.writes: list[Pair] = []
        self.reads = 0

    @property
    def domain(self) -> object:
        return self

    @property
    def end(self) -> int:
        return 1 << 47

    def forced(self) -> UserMemory:
        return self

    def regions(self) -> list[Region]:
        return [Region(BASE, BASE + self.size, 3)]

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        return laid_out(start, end, self.zeros)

    def _good(self, address: int, n: int) -> int:
        at = address
        while at < address + n:
            if not BASE <= at < BASE + len(self.data) or (at - BASE) // PAGE in self.bad:
                break
            at = (at // PAGE + 1) * PAGE
        return min(max(at - address, 0), n, max(BASE + len(self.data) - address, 0))

    def read(self, address: int, own_address: int, n: int) -> None:
        self.reads += 1
        self._move(address, own_address, n, write=False)

    def write(self, address: int, own_address: int, n: int) -> None:
        self.writes.append((address - BASE, n))
        self._move(address, own_address, n, write=True)

    def _move(self, address: int, own_address: int, n: int, *, write: bool) -> None:
        # All pages are good in most: they are not looked at one by one.
        good = self._good(address, n) if self.bad or address + n > BASE + self.size else n
        if good:
            here = address_of(ctypes.c_char.from_buffer(self.data, address - BASE))
            copy(*((here, own_address) if write else (own_address, here)), good)
        if good < n:
            raise PageFaultError("bad", address=address + good, pid=PID, copied_len=good)


def taken(memory: UserMemory, ranges: Sequence[Pair]) -> Snapshot:
    """Returns a snapshot of a fake; ranges are counted from `BASE`."""
    return take_snapshot(
        VmSpace(memory), Maps([]), Facts(PID), [(BASE + low, BASE + high) for low, high in ranges]
    )


def fault_of(access: Any, *args: Any) -> PageFaultError:
    with pytest.raises(PageFaultError) as caught:
        access(*args)
    return caught.value


# Differences against plain Python


def runs_of(
    old: Sequence[int | None], new: Sequence[int | None], where: Sequence[Pair] | None
) -> list[Run]:
    """Returns the runs at which two lists of bytes differ; None is what one has not."""
    wanted = set(range(len(old)))
    if where is not None:
        wanted = {at for low, high in where for at in range(low, min(high, len(old)))}
    runs: list[Run] = []
    for at, (was, now) in enumerate(zip(old, new, strict=True)):
        if at not in wanted or was is None or now is None or was == now:
            continue
        if runs and runs[-1].address + len(runs[-1].old) == BASE + at:
            last = runs[-1]
            runs[-1] = Run(last.address, last.old + bytes([was]), last.new + bytes([now]))
        else:
            runs.append(Run(BASE + at, bytes([was]), bytes([now])))
    return runs


def has(data: bytes | bytearray, bad: Iterable[int], ranges: Sequence[Pair]) -> list[int | None]:
    """Returns the bytes that a snapshot of these ranges has."""
    found: list[int | None] = [None] * len(data)
    for low, high in ranges:
        for at in range(low, min(high, len(data))):
            if at // PAGE not in bad:
                found[at] = data[at]
    return found


PAGES = 4
SIZE = PAGES * PAGE
NEAR = st.builds(
    lambda border, d: min(max(border + d, 0), SIZE),
    st.sampled_from([0, 8, 16, PAGE - 8, PAGE, PAGE + 8, 2 * PAGE, 3 * PAGE, SIZE]),
    st.integers(-9, 9),
)
PLACE = NEAR | st.integers(0, SIZE)
RANGES = st.lists(st.tuples(PLACE, PLACE).map(lambda pair: (min(pair), max(pair))), max_size=3)
BAD = st.sets(st.integers(0, PAGES - 1), max_size=2)
CHANGES = st.lists(st.tuples(PLACE, st.integers(1, 40) | st.just(PAGE)), max_size=8)
SPARE = st.sets(st.integers(0, PAGES - 1), max_size=2)


def bytes_with(zeros: Iterable[int], seed: int, changes: Sequence[Pair]) -> bytearray:
    """Returns four pages, some of zeros, in which some runs were changed, now and then to 0."""
    data = bytearray(random.Random(1).randbytes(SIZE))
    for page in zeros:
        data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    made = random.Random(seed)
    for at, n in changes:
        for k in range(at, min(at + n, SIZE)):
            data[k] ^= made.choice([0, 1, 255, data[k]])
    return data


def whole_pages(ranges: Sequence[Pair]) -> list[Pair]:
    return [(low // PAGE * PAGE, -(-high // PAGE) * PAGE) for low, high in ranges]


def runs_of_pages(pages: Iterable[int]) -> list[Pair]:
    return [(page * PAGE, (page + 1) * PAGE) for page in sorted(pages)]


@settings(max_examples=50, deadline=None)
@given(CHANGES, st.integers(), RANGES, RANGES, BAD, BAD, SPARE, st.none() | RANGES, st.booleans())
def test_a_diff_is_as_plain_python(
    changes: list[Pair],
    seed: int,
    first: list[Pair],
    second: list[Pair],
    bad: set[int],
    bad_now: set[int],
    zeros: set[int],
    where: list[Pair] | None,
    live: bool,
) -> None:
    """Every run of two snapshots of any ranges, or of one and a live space; holes are none."""
    first = first or [(0, SIZE)]
    second = whole_pages(second) or [(0, SIZE)]
    if not live:
        first = whole_pages(first)  # for the way back; of others there is a test below
    old, new = bytes_with(zeros, 0, []), bytes_with(zeros, seed, changes)
    before = taken(Flat(old, bad, runs_of_pages(zeros - bad)), first)
    same = [page for page in zeros - bad_now if not any(new[page * PAGE : (page + 1) * PAGE])]
    later = Flat(new, bad_now, runs_of_pages(same))
    after = VmSpace(later) if live else taken(later, second)
    assert before.kept_len == sum(
        byte is not None and at // PAGE not in zeros - bad
        for at, byte in enumerate(has(old, bad, first))
    )
    expected = runs_of(
        has(old, bad, first), has(new, bad_now, [(0, SIZE)] if live else second), where
    )
    ranges = None if where is None else [(BASE + a, BASE + b) for a, b in where]
    assert before.diff(after, ranges) == expected
    if not live and isinstance(after, Snapshot):
        back = [Run(run.address, run.new, run.old) for run in expected]
        assert after.diff(before, ranges) == back


BORDERS = [0, 8, PAGE, LOOK - PAGE, LOOK, LOOK + 8, 2 * LOOK - 8, 2 * LOOK, 2 * LOOK + 77]
LONG = 2 * LOOK + 85


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(BORDERS), st.integers(-20, 20), st.integers(1, 40))),
    st.sampled_from([0, 1, 7, 4095]),
    st.booleans(),
)
def test_a_diff_over_borders_of_looks_is_whole(
    changes: list[tuple[int, int, int]], low: int, zeros: bool
) -> None:
    """Runs at, before and over each border of a word, a page and a look come as one each."""
    old = (
        bytearray(LONG + 8) if zeros else bytearray(random.Random(2).randbytes(MIB) * 9)[: LONG + 8]
    )
    changed: set[int] = set()
    for border, d, n in changes:
        changed |= {at for at in range(low + border + d, low + border + d + n) if low <= at < LONG}
    new = bytearray(old)
    for at in changed:
        new[at] ^= 1 + at % 255
    before = taken(Flat(old, (), [(0, LONG + 8)] if zeros else ()), [(low, LONG)])
    assert before.kept_len == (0 if zeros else LONG - low)
    expected = [(at, bytes(old[at:end]), bytes(new[at:end])) for at, end in _ends(sorted(changed))]
    found = before.diff(VmSpace(Flat(new)))
    assert [(run.address - BASE, run.old, run.new) for run in found] == expected


def _ends(offsets: list[int]) -> list[Pair]:
    runs: list[Pair] = []
    for at in offsets:
        if runs and runs[-1][1] == at:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
    return runs


def test_a_run_over_two_pieces_is_one() -> None:
    """What was kept, what was zeros, and what was kept again: a run over both borders is whole."""
    old = bytearray(random.Random(3).randbytes(3 * PAGE))
    old[PAGE : 2 * PAGE] = bytes(PAGE)
    before = taken(Flat(old, (), [(PAGE, 2 * PAGE)]), [(0, 3 * PAGE)])
    new = bytes(byte ^ 255 for byte in old)
    low, high = 5, 3 * PAGE - 5
    mixed = old[:low] + new[low:high] + old[high:]
    (run,) = before.diff(VmSpace(Flat(mixed)))
    assert run == Run(BASE + low, bytes(old[low:high]), new[low:high])


@pytest.mark.skipif(np is None, reason="this is that run")
def test_differences_without_numpy() -> None:
    """The tests of differences and of what is put back pass where numpy can not be imported."""
    said = run_without_numpy("tests/process/test_snapshot.py", "-k", "diff or restore or run_over")
    assert "passed" in said


def test_a_diff_writes_nothing_and_reads_no_zeros() -> None:
    """A space is only read by it; where both have untouched zeros not even that."""
    memory = Flat(bytes(2 * PAGE), (), [(0, 2 * PAGE)])
    before = taken(memory, [(0, 2 * PAGE)])
    assert before.diff(VmSpace(memory)) == []
    assert (memory.reads, memory.writes) == (0, [])


def test_a_restore_writes_the_runs_that_differ_and_no_other() -> None:
    """Each run is one write of its own bytes; a page that did not change is not written."""
    old = random.Random(4).randbytes(5 * PAGE)
    memory = Flat(old)
    before = taken(memory, [(0, 5 * PAGE)])
    assert before.restore() == 0
    assert memory.writes == []
    changed = [(3, 5), (PAGE - 2, 4), (3 * PAGE, PAGE)]
    for at, n in changed:
        for k in range(at, at + n):
            memory.data[k] ^= 1
    assert before.restore() == sum(n for _, n in changed)
    assert memory.writes == changed
    assert memory.data == old
    assert before.restore() == 0


# Live targets


def test_every_kind_of_page_is_there_as_it_could_be_read(
    process: procvm.Process, playground: Playground
) -> None:
    """Pages that can be read are there; the others fault with address, pid and count."""
    kinds = [kind for bad in KINDS for kind in ("rw", bad)] + ["rw"]
    base = playground.layout(" ".join(kinds))
    data = contents(playground, base, kinds)
    whole = [data[k * PAGE : (k + 1) * PAGE] for k in range(len(kinds))]
    with process.snapshot([(base, base + len(kinds) * PAGE)]) as snapshot:
        for k, kind in enumerate(kinds):
            if kind in READABLE:
                assert snapshot.vm.read_bytes(base + k * PAGE, PAGE) == whole[k], kind
                continue
            error = fault_of(snapshot.vm.read_bytes, base + k * PAGE - 9, 2 * PAGE)
            where = (error.address, error.pid, error.copied_len)
            assert where == (base + k * PAGE, playground.pid, 9), kind
            room = bytearray(b"-" * 20)
            error = fault_of(snapshot.vm.read_into, base + k * PAGE - 9, room)
            assert room == whole[k - 1][-9:] + b"-" * 11
            assert fault_of(snapshot.vm.read_val, base + k * PAGE + 5, u8).address == (
                base + k * PAGE + 5
            )
        assert snapshot.kept_len == PAGE * sum(kind in READABLE for kind in kinds)


@pytest.mark.parametrize("kind", ["guard", "none", "hole"])
def test_many_pages_that_can_not_be_read_are_no_zeros(
    process: procvm.Process, playground: Playground, kind: str
) -> None:
    """A long run of them is absent, also where memory nobody touched would be zeros."""
    base = playground.layout("rw " + f"{kind} " * 40 + "rw")
    with process.snapshot([(base, base + 42 * PAGE)]) as snapshot:
        for at in (base + PAGE, base + 20 * PAGE + 7, base + 41 * PAGE - 1):
            assert fault_of(snapshot.vm.read_bytes, at, 1).address == at
        assert snapshot.vm.read_bytes(base + 41 * PAGE, PAGE) == pattern(base + 41 * PAGE, PAGE)
        assert snapshot.kept_len == 2 * PAGE


@pytest.fixture
def laid(playground: Playground) -> int:
    """Where five pages begin: rw, r, a hole, rw, shared."""
    return playground.layout("rw r hole rw srw")


def test_it_reads_as_the_process_did(
    process: procvm.Process, playground: Playground, laid: int
) -> None:
    """Values, strings, cursors, gather, search and scan give what the bytes then hold."""
    text = laid + PAGE - 5
    playground.poke(text, b"over the edge\0")
    old = playground.peek(laid, 2 * PAGE)
    with process.snapshot([(laid, laid + 5 * PAGE)]) as snapshot:
        playground.clear(laid, PAGE)
        playground.poke(laid + PAGE + 100, b"changed")
        assert snapshot.vm.read_bytes(laid, 2 * PAGE) == old
        assert snapshot.vm.read_bytes(laid, 2 * PAGE, threads=2) == old
        assert snapshot.vm.read_cstring(text, 100) == b"over the edge"
        assert (
            snapshot.vm.read_val(laid + PAGE - 3, u64) == struct.unpack_from("Q", old, PAGE - 3)[0]
        )
        reader = snapshot.vm.reader(laid + 1, 2 * PAGE - 1)
        assert [reader.read_val(u32) for _ in range(9)] == list(struct.unpack_from("9I", old, 1))
        places = [laid + k for k in (0, 4000, 17, PAGE - 1, 2 * PAGE - 4)]
        assert list(snapshot.vm.gather(places, u32)) == [
            struct.unpack_from("I", old, at - laid)[0] for at in places
        ]
        _, ok = snapshot.vm.gather([laid, laid + 2 * PAGE - 2, laid + 3 * PAGE], u32, "mask")
        assert list(ok) == [True, False, True]
        error = fault_of(snapshot.vm.gather, [laid, laid + 2 * PAGE - 2], u32)
        assert (error.address, error.pid, error.index, error.copied_len) == (
            *(laid + 2 * PAGE, playground.pid, 1, 6),
        )
        needle = old[50:53]
        expected = [laid + m.start() for m in re.finditer(b"(?=" + re.escape(needle) + b")", old)]
        found = snapshot.vm.search(needle, ranges=[(laid, laid + 3 * PAGE)])
        assert list(found) == expected
        assert found.skipped == [(laid + 2 * PAGE, laid + 3 * PAGE)]
        if np is not None:
            (word,) = struct.unpack_from("I", old, 400)
            scan = snapshot.vm.scan(u32, value=word, ranges=[(laid, laid + 2 * PAGE)])
            assert len(scan) == sum(
                struct.unpack_from("I", old, at)[0] == word for at in range(0, 2 * PAGE, 4)
            )
            words = snapshot.vm.read_array(laid, "<u4", 2 * PAGE // 4)
            assert words.tobytes() == old
        assert process.vm.read_bytes(laid + PAGE + 100, 7) == b"changed"


def test_all_of_a_process_is_kept_and_outlives_it(playground: Playground, laid: int) -> None:
    """Without ranges all readable mappings are; they are read after the process has ended."""
    assert eventually(lambda: state_of(playground.pid) == "S")  # its answer is out
    with procvm.open(playground.pid) as process:
        maps = process.maps()
        truth = {}
        with oracle(playground.pid) as own:
            for vma in maps.filter(perms="r"):
                try:
                    truth[vma.start] = own.read(vma.start, min(vma.size, 64 * PAGE))
                except OSError:
                    truth[vma.start] = b""
        snapshot = process.snapshot()
    playground.popen.kill()
    playground.popen.wait()
    assert list(snapshot.maps()) == list(maps)
    assert snapshot.find_vma(laid) == maps.find(laid)
    assert snapshot.find_vma(0) is None
    assert snapshot.pid == playground.pid
    good = 0
    for start, data in truth.items():
        if data:
            assert snapshot.vm.read_bytes(start, len(data)) == data
            good += 1
    assert good > 5
    assert next(snapshot.vm.search(pattern(laid, 64))) == laid
    with pytest.raises((procvm.ProcessExitedError, procvm.ClosedError)):
        snapshot.restore()
    with pytest.raises((procvm.ProcessExitedError, procvm.ClosedError)):
        snapshot.diff(process.vm)
    snapshot.close()


def test_ranges_are_given_as_to_a_search(process: procvm.Process, laid: int) -> None:
    """Mappings, range objects and pairs, that overlap and begin anywhere, keep just their bytes."""
    vma = process.find_vma(laid)
    assert vma is not None
    for ranges, kept in (
        ([vma], min(vma.end, laid + PAGE) - vma.start),
        ([range(laid + 5, laid + 9)], 4),
        ([(laid + 5, laid + 9), (laid + 7, laid + 20), (laid + 30, laid + 30)], 15),
        ([], 0),
    ):
        with process.snapshot(ranges) as snapshot:
            assert snapshot.kept_len == kept
    with process.snapshot([(laid + 5, laid + 9)]) as snapshot:
        assert snapshot.vm.read_bytes(laid + 5, 4) == pattern(laid + 5, 4)
        assert fault_of(snapshot.vm.read_bytes, laid + 4, 2).address == laid + 4
        error = fault_of(snapshot.vm.read_bytes, laid + 6, 10)
        assert (error.address, error.copied_len) == (laid + 9, 3)
    with pytest.raises(ValueError, match="ends before"):
        process.snapshot([(laid + 1, laid)])


def test_progress_comes_to_all_of_it(process: procvm.Process, laid: int) -> None:
    """It is called with bytes done and bytes in all, which grow up to the whole."""
    seen: list[Pair] = []
    ranges = [(laid, laid + PAGE), (laid + 2 * PAGE, laid + 4 * PAGE), (laid + 8, laid + 16)]
    process.snapshot(ranges, progress=lambda *at: seen.append(at)).close()
    assert seen == [(PAGE, 3 * PAGE), (3 * PAGE, 3 * PAGE)]
    with pytest.raises(RuntimeError, match="enough"):
        process.snapshot(ranges, progress=_enough)


def _enough(*_: int) -> None:
    raise RuntimeError("enough")


def test_a_page_touched_between_two_snapshots_is_in_the_diff(
    process: procvm.Process, playground: Playground
) -> None:
    """Memory nobody touched reads as zeros and is not kept; its first bytes are a difference."""
    n = 2 * MIB
    base = playground.reserve(n)
    before = process.snapshot([(base, base + n)])
    assert before.kept_len == 0
    assert before.vm.read_bytes(base, n) == bytes(n)
    assert before.vm.read_val(base + 12345, u64) == 0
    playground.poke(base + MIB + 7, b"first")
    after = process.snapshot([(base, base + n)])
    assert 0 < after.kept_len < MIB
    run = Run(base + MIB + 7, bytes(5), b"first")
    for other in (after, process.vm):
        assert before.diff(other) == [run]
        assert before.diff(other, [(base, base + MIB)]) == []
        assert before.diff(other, [(base + MIB + 9, base + n)]) == [
            Run(base + MIB + 9, bytes(3), b"rst")
        ]
    assert after.diff(before) == [Run(run.address, run.new, run.old)]
    assert before.restore() == 5
    assert playground.peek(base + MIB, 20) == bytes(20)


# What is put back


def on_file(pid: int, address: int) -> bool:
    """Whether a page is still a file's own, as the kernel has it: nobody has written it."""
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(address // PAGE * 8)
        entry = int.from_bytes(pagemap.read(8), sys.byteorder)
    return bool(entry >> 61 & 1)


@pytest.mark.root("opens files of /proc/PID/map_files")
def test_a_restore_puts_back_what_changed_and_writes_no_other_page(
    process: procvm.Process, playground: Playground
) -> None:
    """The count is of the bytes that differed; pages of a file nobody wrote stay the file's."""
    base = playground.layout("fro fro fro rw")
    snapshot = process.snapshot([(base, base + 4 * PAGE)])
    old = playground.peek(base, 4 * PAGE)
    playground.poke(base + PAGE + 10, b"private copy")
    playground.poke(base + 4 * PAGE - 3, b"end")
    assert [on_file(playground.pid, base + k * PAGE) for k in range(3)] == [True, False, True]
    expected = sum(a != b for a, b in zip(old, playground.peek(base, 4 * PAGE), strict=True))
    assert snapshot.restore() == expected
    assert playground.peek(base, 4 * PAGE) == old
    assert [on_file(playground.pid, base + k * PAGE) for k in range(3)] == [True, False, True]
    assert snapshot.restore() == 0


def test_any_changes_are_restored(process: procvm.Process, playground: Playground) -> None:
    """After any writes and changes of protection the target has its old bytes; the count is it."""
    base = playground.layout("rw r rw srw file fro")
    n = 6 * PAGE
    old = playground.peek(base, n)
    snapshot = process.snapshot([(base, base + n)])
    places = st.integers(0, n - 1)

    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        st.lists(st.tuples(places, st.binary(min_size=1, max_size=30)), max_size=6),
        st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["r", "none", "rw"])), max_size=3),
    )
    def check(pokes: list[tuple[int, bytes]], kinds: list[tuple[int, str]]) -> None:
        for at, data in pokes:
            playground.poke(base + at, data[: n - at])
        for page, kind in kinds:
            playground.protect(base + page * PAGE, PAGE, kind)
        new = playground.peek(base, n)
        differ = [at for at in range(n) if old[at] != new[at]]
        assert snapshot.restore() == len(differ)
        assert playground.peek(base, n) == old

    check()


def test_restore_where_mappings_have_gone_restores_the_rest_and_says_which(
    process: procvm.Process, playground: Playground
) -> None:
    """Unmapped pages are named with what was restored; new pages in their place are written."""
    base = playground.layout("rw rw rw rw")
    snapshot = process.snapshot([(base, base + 4 * PAGE)])
    playground.unmap(base + PAGE, 2 * PAGE)
    for page in (0, 3):
        playground.poke(base + page * PAGE, b"\0\0")
    assert [run.address for run in snapshot.diff(process.vm)] == [base, base + 3 * PAGE]
    gone = f"[{base + PAGE:#x}, {base + 3 * PAGE:#x})"
    with pytest.raises(PageFaultError, match=re.escape(gone)) as caught:
        snapshot.restore()
    assert (caught.value.address, caught.value.copied_len) == (base + PAGE, 4)
    assert playground.peek(base, PAGE) == pattern(base, PAGE)
    assert playground.peek(base + 3 * PAGE, PAGE) == pattern(base + 3 * PAGE, PAGE)
    playground.map(base + PAGE, PAGE, "r")
    gone = f"[{base + 2 * PAGE:#x}, {base + 3 * PAGE:#x})"
    with pytest.raises(PageFaultError, match=re.escape(gone)) as caught:
        snapshot.restore()
    assert caught.value.copied_len == PAGE
    assert playground.peek(base + PAGE, PAGE) == pattern(base + PAGE, PAGE)


def test_a_shared_read_only_page_is_a_fault_if_it_changed(
    process: procvm.Process, playground: Playground
) -> None:
    """It is not written if it is as it was; if not, the fault counts the bytes before it."""
    base = playground.layout("rw sr rw")
    snapshot = process.snapshot([(base, base + 3 * PAGE)])
    playground.poke(base, bytes(7))
    assert snapshot.restore() == 7
    for page in (0, 1, 2):
        playground.protect(base + page * PAGE, PAGE, "rw")
        playground.poke(base + page * PAGE + 20, bytes(3))
    playground.protect(base + PAGE, PAGE, "r")
    error = fault_of(snapshot.restore)
    assert (error.address, error.pid, error.copied_len) == (base + PAGE + 20, playground.pid, 3)
    assert playground.peek(base + 20, 3) == pattern(base + 20, 3)
    assert playground.peek(base + PAGE + 20, 3) == bytes(3)


RESTORER = """
import sys, procvm
pid, start, end = map(int, sys.argv[1:])
with procvm.open(pid) as process:
    snapshot = process.snapshot([(start, end)])
    print("kept", flush=True)
    sys.stdin.readline()
    print(snapshot.restore())
"""


@pytest.mark.strace
def test_as_many_bytes_are_written_as_differ(playground: Playground, tmp_path: Path) -> None:
    """As strace counts them: pwrite64 is called for what changed, and moves no byte more."""
    n = 3 * MIB
    base = playground.reserve(n)
    playground.clear(base, n)
    log = tmp_path / "log"
    command = ["strace", "-f", "-o", str(log), "-e", "trace=pwrite64,process_vm_writev", "--"]
    tool = subprocess.Popen(
        [*command, sys.executable, "-c", RESTORER, str(playground.pid), str(base), str(base + n)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert tool.stdout is not None
        assert tool.stdout.readline() == "kept\n"
        for at in (5, MIB, 2 * MIB + PAGE - 1):
            playground.poke(base + at, b"\0\0")
        said, _ = tool.communicate("\n", 60)
    finally:
        tool.kill()
        tool.wait()
    assert said == "6\n"
    moved = re.findall(r"pwrite64\(.* = (\d+)$", log.read_text(), re.MULTILINE)
    assert [int(count) for count in moved] == [2, 2, 2]
    assert "process_vm_writev(" not in log.read_text()


# What a snapshot is not


def test_a_snapshot_is_not_written(process: procvm.Process, laid: int) -> None:
    """Each way to write is AccessDeniedError, and neither it nor the target has changed."""
    with process.snapshot([(laid, laid + PAGE)]) as snapshot:
        for vm in (snapshot.vm, snapshot.vm.forced()):
            writes: list[Any] = [
                lambda vm=vm: vm.write_bytes(laid, b"x"),
                lambda vm=vm: vm.write_val(laid, u64, 1),
                lambda vm=vm: vm.write_slice(laid, u32, [1, 2]),
                lambda vm=vm: vm.fill_zeros(laid, 9),
                lambda vm=vm: vm.scatter([laid], u32, [1]),
                lambda vm=vm: vm.scatter([laid, laid + 8], u32, [1, 2], "mask"),
                lambda vm=vm: vm.writer(laid, 8).write_val(u64, 1),
                lambda vm=vm: vm.open(laid, laid + 8).write(b"x"),
                lambda vm=vm: setattr(vm.view(laid, _Word), "word", 1),
                lambda vm=vm: vm.write_bytes(laid + 100 * PAGE, b"x"),
            ]
            for write in writes:
                with pytest.raises(procvm.AccessDeniedError, match="read-only") as caught:
                    write()
                assert caught.value.copied_len == 0
        assert snapshot.vm.read_bytes(laid, PAGE) == pattern(laid, PAGE)
    assert process.vm.read_bytes(laid, PAGE) == pattern(laid, PAGE)


class _Word(ctypes.Structure):
    _fields_ = (("word", ctypes.c_uint64),)


def test_a_snapshot_has_no_atomics(process: procvm.Process, laid: int) -> None:
    """UnsupportedError for each, and ValueError for a misaligned one, as anywhere."""
    with process.snapshot([(laid, laid + PAGE)]) as snapshot:
        with pytest.raises(procvm.UnsupportedError, match="atomics"):
            snapshot.vm.atomic_load(laid, u64)
        with pytest.raises(procvm.UnsupportedError, match="atomics"):
            snapshot.vm.atomic_compare_exchange(laid, u64, 0, 1)
        with pytest.raises(procvm.UnsupportedError, match="atomics"):
            snapshot.vm.atomic_fetch_update(laid, u32, lambda n: n)
        with pytest.raises(ValueError, match="aligned"):
            snapshot.vm.atomic_load(laid + 1, u64)


def test_forced_is_the_same(process: procvm.Process, playground: Playground) -> None:
    """A forced snapshot has what was kept and no more; one of a forced space has nothing else."""
    base = playground.layout("rw none")
    with process.snapshot([(base, base + 2 * PAGE)]) as snapshot:
        assert snapshot.vm.forced().read_bytes(base, PAGE) == pattern(base, PAGE)
        assert fault_of(snapshot.vm.forced().read_bytes, base + PAGE, 1).address == base + PAGE


def test_a_closed_snapshot_says_so(process: procvm.Process, laid: int) -> None:
    """ClosedError from whatever reads it, also by what was made before; closing twice is fine."""
    with process.snapshot([(laid, laid + 2 * PAGE)]) as snapshot:
        reader = snapshot.vm.reader(laid, 64)
        reader.read_val(u64)
        file = snapshot.vm.open(laid, laid + 8)
        view = snapshot.vm.view(laid, _Word)
        search = snapshot.vm.search(b"none such", ranges=[(laid, laid + PAGE)], threads=1)
    snapshot.close()
    uses: list[Any] = [
        lambda: snapshot.vm.read_bytes(laid, 1),
        lambda: snapshot.vm.read_val(laid, u64),
        lambda: snapshot.vm.gather([laid], u64),
        lambda: snapshot.kept_len,
        lambda: snapshot.diff(process.vm),
        lambda: list(snapshot.vm.search(b"x", ranges=[(laid, laid + PAGE)])),
        lambda: next(search),
        lambda: process.vm and reader.read_val(u64),
        lambda: file.read(1),
        lambda: view.word,
        snapshot.restore,
    ]
    for use in uses:
        with pytest.raises(procvm.ClosedError, match="closed"):
            use()
    with process.snapshot([(laid, laid + PAGE)]) as other, pytest.raises(procvm.ClosedError):
        other.diff(snapshot)


def test_it_says_what_it_is(process: procvm.Process, laid: int) -> None:
    """Its text names the process and what is kept."""
    with process.snapshot([(laid, laid + PAGE)]) as snapshot:
        assert repr(snapshot) == f"<Snapshot of process {process.pid}, {PAGE} bytes kept>"
        assert f"snapshot of process {process.pid}" in repr(snapshot.vm.forced())


def test_a_process_that_has_gone_gives_none(playground: Playground) -> None:
    """ProcessExitedError after its end, ClosedError after close."""
    process = procvm.open(playground.pid)
    base = playground.layout("rw")
    playground.popen.kill()
    playground.popen.wait()
    for ranges in (None, [(base, base + PAGE)]):
        with pytest.raises(procvm.ProcessExitedError):
            process.snapshot(ranges)
    process.close()
    with pytest.raises(procvm.ClosedError):
        process.snapshot()


# Much memory

SPARSE = """
import sys, time, procvm
pid, start, end, everything = map(int, sys.argv[1:])

def of(field):
    text = open("/proc/self/status").read()
    return int(text.partition(field + ":")[2].split()[0])

with procvm.open(pid) as process:
    process.snapshot([(start, start + 4096)]).close()
    before, begun = of("VmRSS"), time.process_time()
    snapshot = process.snapshot() if everything else process.snapshot([(start, end)])
    took = time.process_time() - begun
    print(snapshot.kept_len, took, of("VmHWM") - before)
    begun = time.process_time()
    assert snapshot.diff(process.vm) == []
    print(time.process_time() - begun)
"""


def kib_of(pid: int, field: str) -> int:
    """Returns a field of /proc/PID/status in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(field + ":")[2].split()[0])


@pytest.mark.parametrize("everything", [False, True])
def test_a_sparse_mapping_costs_what_it_has_in_use(
    playground: Playground, everything: bool
) -> None:
    """Of 64 GiB with 16 MiB in use just these are kept, in few CPU seconds; no page tables grow."""
    start = playground.reserve(64 * GIB)
    for k in range(16):
        playground.clear(start + k * 4 * GIB + 123 * PAGE, MIB)
    tables = kib_of(playground.pid, "VmPTE")
    said = subprocess.run(
        [
            *(sys.executable, "-c", SPARSE, str(playground.pid)),
            *(str(start), str(start + 64 * GIB), str(int(everything))),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.split()
    kept, took, grown, compared = int(said[0]), *map(float, said[1:])
    assert kept == 16 * MIB if not everything else 16 * MIB < kept < 22 * MIB
    assert took < 3
    assert compared < 3
    assert grown <= 1.1 * kept / 1024 + 2048
    assert kib_of(playground.pid, "VmPTE") - tables <= 1024


# A target that is held


def test_a_snapshot_of_a_tracee_is_of_one_instant() -> None:
    """Two words that each thread counts in step are at most one apart, 50 times; it runs on."""
    with Child([compiled("pairs"), "2"]) as child, procvm.attach(child.pid) as tracee:
        first, second = child.hexes()
        ranges = [(first, first + PAGE), (second - PAGE, second + PAGE)]
        last = [0, 0]
        for round_ in range(50):
            with tracee.snapshot([(first, second + PAGE)] if round_ % 10 == 0 else ranges) as taken:
                for k in range(2):
                    a = taken.vm.read_val(first + 64 * k, u64)
                    b = taken.vm.read_val(second + 64 * k, u64)
                    assert a - b in (0, 1)
                    assert a >= last[k]
                    last[k] = a
        assert_free(child.pid)
        with procvm.open(child.pid) as process, process.snapshot(ranges) as plain:
            assert plain.vm.read_val(first, u64) >= last[0]
        assert eventually(lambda: tracee.vm.read_val(first, u64) > last[0])


def test_a_snapshot_in_a_hold_is_what_the_hold_sees() -> None:
    """In a hold it nests: nothing differs from the target until that is let go."""
    with Child([compiled("pairs"), "1"]) as child, procvm.attach(child.pid) as tracee:
        first, second = child.hexes()
        ranges = [(first, first + PAGE), (second, second + PAGE)]
        with tracee.stopped() as held:
            snapshot = tracee.snapshot(ranges)
            assert tracee.is_stopped()
            assert snapshot.diff(tracee.vm) == snapshot.diff(held.vm) == []
            held.vm.write_val(first + 2048, u64, 0x1122)
            assert [run.address for run in snapshot.diff(held.vm)] == [first + 2048]
            assert snapshot.restore() == 2
            assert held.vm.read_val(first + 2048, u64) == 0
        assert eventually(lambda: snapshot.diff(tracee.vm))
        snapshot.close()


def test_a_hold_that_is_too_short_gives_none() -> None:
    """NotStoppedError if it was over before all was copied, and the target runs."""
    with Work("mixed", 2) as work, procvm.attach(work.pid, longest_hold=0.05) as tracee:
        vma = tracee.maps().filter(perms="rw")[0]
        with pytest.raises(procvm.NotStoppedError) as caught:
            tracee.snapshot([vma], progress=lambda *_: eventually(lambda: not tracee.is_stopped()))
        assert caught.value.pid == work.pid
        work.assert_runs()
        kept_len = 0
        while not kept_len:
            # On a busy machine a hold may again be too short.
            with contextlib.suppress(procvm.NotStoppedError), tracee.snapshot([vma]) as snapshot:
                kept_len = snapshot.kept_len
        work.assert_runs()


def test_a_snapshot_that_is_given_up_lets_the_target_go() -> None:
    """An error of the caller's own in the middle ends the hold."""
    with Work("mixed", 2) as work, procvm.attach(work.pid) as tracee:
        vma = tracee.maps().filter(perms="rw")[0]
        with pytest.raises(RuntimeError, match="enough"):
            tracee.snapshot([vma], progress=_enough)
        work.assert_runs()


# What is wrong today


def test_a_diff_with_a_part_of_a_page_finds_it() -> None:
    """A snapshot that begins in the middle of a page is compared from there on."""
    before = taken(Flat(bytes(PAGE)), [(0, PAGE)])
    later = taken(Flat(b"\1" * PAGE), [(100, 108)])
    assert later.diff(before) == [Run(BASE + 100, b"\1" * 8, bytes(8))]
    assert before.diff(later) == [Run(BASE + 100, bytes(8), b"\1" * 8)]


def test_a_closed_snapshot_has_a_text(process: procvm.Process, laid: int) -> None:
    """Its text can still be had, as that of any closed thing."""
    snapshot = process.snapshot([(laid, laid + PAGE)])
    snapshot.close()
    assert "closed" in repr(snapshot)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_forced_snapshot_is_closed_with_it(process: procvm.Process, laid: int, when: str) -> None:
    """ClosedError by the forced space as well, made before the close or after it."""
    snapshot = process.snapshot([(laid, laid + PAGE)])
    forced = snapshot.vm.forced()
    snapshot.close()
    if when == "after":
        forced = snapshot.vm.forced()
    with pytest.raises(procvm.ClosedError):
        forced.read_bytes(laid, 1)


def test_close_gives_the_memory_back(playground: Playground) -> None:
    """Our own memory is as it was, though the snapshot object is still there."""
    n = 64 * MIB
    base = playground.reserve(n)
    playground.clear(base, n)
    with procvm.open(playground.pid) as process:
        before = kib_of(os.getpid(), "VmRSS")
        snapshot = process.snapshot([(base, base + n)])
        assert kib_of(os.getpid(), "VmRSS") - before > 60 * 1024
        snapshot.close()
        assert kib_of(os.getpid(), "VmRSS") - before < 16 * 1024


@pytest.mark.parametrize("used", [True, False])
def test_pickling_a_snapshot_is_refused_with_its_name(
    process: procvm.Process, playground: Playground, used: bool
) -> None:
    """TypeError that names the snapshot, whatever it keeps."""
    base = playground.layout("rw") if used else playground.reserve(MIB)
    with (
        process.snapshot([(base, base + PAGE)]) as snapshot,
        pytest.raises(TypeError, match="snapshot"),
    ):
        pickle.dumps(snapshot)


def test_ranges_beyond_user_space_are_refused(process: procvm.Process) -> None:
    """AccessDeniedError, as from a search."""
    with pytest.raises(procvm.AccessDeniedError):
        process.snapshot([(process.vm.end - PAGE, process.vm.end + PAGE)])


def test_a_range_of_all_user_space_is_kept(process: procvm.Process, laid: int) -> None:
    """What is mapped there is kept; holes of terabytes cost nothing."""
    with process.snapshot([(0x10000, laid + PAGE)]) as snapshot:
        assert snapshot.vm.read_bytes(laid, PAGE) == pattern(laid, PAGE)


def test_a_long_hole_is_passed_at_once() -> None:
    """A hole of 1 GiB in a range takes a few accesses, as in a search."""
    memory = Flat(bytes(PAGE), size=PAGE)
    begun = memory.reads
    taken(memory, [(0, 16 * MIB)])
    assert memory.reads - begun < 200


def test_zeros_that_the_other_has_not_are_passed_at_once() -> None:
    """A diff with a space that has nothing there takes a few accesses, not one a page."""
    before = taken(Flat(bytes(16 * MIB), (), [(0, 16 * MIB)]), [(0, 16 * MIB)])
    gone = Flat(bytes(PAGE), size=PAGE)
    assert before.diff(VmSpace(gone)) == []
    assert gone.reads < 200


def test_a_search_of_a_small_snapshot_looks_only_there(
    process: procvm.Process, playground: Playground, laid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ranges a search takes a few accesses, however much was mapped."""
    playground.reserve(GIB)
    with process.snapshot([(laid, laid + PAGE)]) as snapshot:
        memory = type(snapshot.vm.memory)
        calls = []
        plain = memory.read

        def read(self: Any, address: int, own_address: int, n: int) -> None:
            calls.append(address)
            plain(self, address, own_address, n)

        monkeypatch.setattr(memory, "read", read)
        found = list(snapshot.vm.search(pattern(laid, 64)))
        assert found[0] == laid
        assert found[-1] < laid + PAGE
        assert len(calls) < 2000


def test_a_kernel_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ranges are kept where the kernel knows no huge pages."""
    asked: list[int] = []

    class Room(mmap.mmap):
        def madvise(self, option: int, *_: int) -> None:
            asked.append(option)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(mmap, "mmap", Room)
    data = random.Random(7).randbytes(3 * MIB)
    with take_snapshot(VmSpace(Flat(data)), Maps([]), Facts(PID), None) as kept:
        assert kept.vm.read_bytes(BASE, len(data)) == data
    assert asked == [mmap.MADV_HUGEPAGE]


@pytest.mark.parametrize(
    "read", [lambda vm: vm.read_bytes(BASE, 8), lambda vm: vm.read_val(BASE, u64)]
)
def test_what_another_thread_closes_is_closed(
    read: Callable[[VmSpace], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that is closed in the middle of a read answers with ClosedError."""
    kept = take_snapshot(VmSpace(Flat(bytes(PAGE))), Maps([]), Facts(PID), None)

    def find_and_close(starts: list[int], address: int) -> int:
        found = bisect_right(starts, address)
        kept.close()
        return found

    monkeypatch.setattr("procvm._saved.saved_memory.bisect_right", find_and_close)
    with pytest.raises(procvm.ClosedError):
        read(kept.vm)
