"""Gather and scatter on real processes: pages of every kind, storms, ends, and what they cost."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procvm
from procvm import VmSpace, u8, u16, u32, u64
from procvm._mm.memory import Region, UserMemory
from tests.faults.subjects import Subject
from tests.faults.test_b_changes import Storm
from tests.linux.kinds import DEFAULT, FORCED, Allowed, contents, every_pair, oracle
from tests.linux.kinds import KINDS as PAGE_KINDS
from tests.mm.test_gather import (
    KINDS,
    LAST,
    Fault,
    Truth,
    address_lists,
    assert_fault,
    assert_ok,
    check_gather,
    check_scatter,
    fault_of,
    len_of,
    np,
    placed,
    run_without_numpy,
    with_numpy,
)
from tests.support.playground import PAGE, Playground, pattern

Backend = Literal["auto", "mem"]
BACKENDS: list[Backend] = ["auto", "mem"]
ROOT = Path(__file__).parents[2]

FEW = settings(
    max_examples=40 if np is not None else 10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


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


class Laid(NamedTuple):
    """A layout in the target, and its model."""

    truth: Truth
    now: Callable[[], bytes]


def laid(playground: Playground, kinds: Sequence[str], end: int) -> Laid:
    base = playground.layout(" ".join(kinds))
    truth = Truth(base, kinds, contents(playground, base, kinds), end)
    return Laid(truth, lambda: contents(playground, base, kinds))


LAYOUTS = st.lists(st.sampled_from(PAGE_KINDS), min_size=1, max_size=6)


# Against plain Python


def test_gather_is_as_plain_python(view: View, playground: Playground) -> None:
    """Values, mask and fault of any layout of real pages, any order and any kind."""

    @FEW
    @given(st.data(), LAYOUTS, st.sampled_from(KINDS))
    def check(data: Any, kinds: list[str], kind: Any) -> None:
        truth, _ = laid(playground, kinds, view.vm.end)
        made = data.draw(address_lists(len(kinds), view.vm.end, len_of(kind), 20))
        addresses = _only_ours(made, truth, len_of(kind))
        check_gather(view.vm, truth, addresses, kind, view.allowed.readable, playground.pid)

    check()


def test_scatter_is_as_plain_python(view: View, playground: Playground) -> None:
    """Outcome, and what the target itself sees, of any layout of real pages, order and kind."""

    @FEW
    @given(st.data(), LAYOUTS, st.sampled_from(KINDS), st.booleans(), st.integers(0, 999))
    def check(data: Any, kinds: list[str], kind: Any, mask: bool, seed: int) -> None:
        truth, now = laid(playground, kinds, view.vm.end)
        made = data.draw(address_lists(len(kinds), view.vm.end, len_of(kind), 8))
        addresses = _only_ours(made, truth, len_of(kind))
        allowed = view.allowed.writable
        check_scatter(
            view.vm, truth, addresses, kind, seed, allowed, playground.pid, now, mask=mask
        )

    check()


def _only_ours(made: list[int], truth: Truth, size: int) -> list[int]:
    # One page of nothing stands on both sides of a layout; the rest is the target's own.
    first, last = truth.base - PAGE, truth.base + (len(truth.kinds) + 1) * PAGE
    return [
        address
        for address in placed(made, truth.base)
        if first <= address <= last - size or address <= PAGE or address >= truth.end - size
    ]


def test_every_word_of_every_kind_of_page(view: View, playground: Playground) -> None:
    """Words over each edge between two kinds of pages: each has its own verdict, in any order."""
    truth, _ = laid(playground, every_pair(), view.vm.end)
    edges = [truth.base + k * PAGE for k in range(len(truth.kinds) + 1)]
    addresses = [edge + d for edge in edges for d in (-9, -8, -7, -4, -1, 0, 1, 8, 600)]
    check_gather(view.vm, truth, addresses, u64, view.allowed.readable, playground.pid)
    random.Random(5).shuffle(addresses)
    check_gather(view.vm, truth, addresses, u64, view.allowed.readable, playground.pid)
    check_gather(view.vm, truth, sorted(addresses), u8, view.allowed.readable, playground.pid)


def test_every_edge_is_scattered_to(view: View, playground: Playground) -> None:
    """Words over each edge: what may be written is, what may not is not, as the target sees it."""
    truth, now = laid(playground, every_pair(), view.vm.end)
    edges = [truth.base + k * PAGE for k in range(len(truth.kinds) + 1)]
    addresses = [edge + d for edge in edges for d in (-8, -5, 0, 1, 600)]
    random.Random(6).shuffle(addresses)
    allowed, pid = view.allowed.writable, playground.pid
    check_scatter(view.vm, truth, addresses, u32, 1, allowed, pid, now, mask=True)
    check_scatter(view.vm, truth, addresses, u32, 2, allowed, pid, now, mask=False)


def test_both_backends_give_the_same_fault(playground: Playground) -> None:
    """Which system call served it is not visible in text or fields."""
    base = playground.layout("rw hole rw none")
    said = []
    for backend in BACKENDS:
        with procvm.open(playground.pid, backend=backend) as process:
            error = fault_of(process.vm.gather, [base, base + PAGE - 3, base + 3 * PAGE], u64)
            said.append((str(error), error.args, error.index, error.address, error.copied_len))
            error = fault_of(process.vm.scatter, [base, base + PAGE - 3], u64, [1, 2])
            said.append((str(error), error.args, error.index, error.address, error.copied_len))
    assert said[:2] == said[2:]


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 3000])
def test_any_number_of_ranges(process: procvm.Process, playground: Playground, n: int) -> None:
    """Sparse words with a bad one in the middle: each has its own result."""
    truth, _ = laid(playground, ["rw"] * 64, process.vm.end)
    addresses = [truth.base + k * 701 % (64 * PAGE - 8) for k in range(n)]
    check_gather(process.vm, truth, addresses, u64, DEFAULT.readable, playground.pid)
    if n:
        addresses[n // 2] = 8
        check_gather(process.vm, truth, addresses, u64, DEFAULT.readable, playground.pid)


# The tool's own memory


class Own:
    """Pages of the tool itself: rw, r, none, and past the end of their file (the last ones)."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        file = os.memfd_create("own")
        os.ftruncate(file, len(kinds) * PAGE)
        self.mapping = mmap.mmap(file, len(kinds) * PAGE)
        there = len(kinds) - kinds.count("eof")
        assert all(kind == "eof" for kind in kinds[there:])
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.mapping))
        self.mapping[:] = pattern(self.base, len(kinds) * PAGE)
        os.ftruncate(file, there * PAGE)
        self.data = pattern(self.base, there * PAGE) + bytes(kinds.count("eof") * PAGE)
        self._file, self._kinds = file, kinds
        for k, kind in enumerate(kinds):
            self._protect(k, {"r": mmap.PROT_READ, "none": 0}.get(kind, 3))

    def _protect(self, k: int, what: int) -> None:
        at = ctypes.c_void_p(self.base + k * PAGE)
        assert self._libc.mprotect(at, ctypes.c_size_t(PAGE), what) == 0

    def now(self) -> bytes:
        """What is there, whatever the pages allow."""
        n = len(self.data)
        return os.pread(self._file, n, 0).ljust(n, b"\0")

    def close(self) -> None:
        for k in range(len(self._kinds)):
            self._protect(k, 3)
        os.close(self._file)


@contextmanager
def own_pages(kinds: Sequence[str]) -> Iterator[Own]:
    own = Own(kinds)
    try:
        yield own
    finally:
        own.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tool_itself_is_as_plain_python(backend: Backend) -> None:
    """A tool that opened itself gathers and scatters among its own pages of every kind."""
    kinds = ["rw", "none", "rw", "r", "rw", "eof", "eof"]
    with own_pages(kinds) as own, procvm.open(os.getpid(), backend=backend) as process:
        truth = Truth(own.base, kinds, own.data, process.vm.end)
        for seed, kind in enumerate(KINDS):
            made = random.Random(seed)
            inside = 7 * PAGE - len_of(kind)
            addresses = [own.base + made.randrange(inside) for _ in range(60)] + [0, LAST]
            made.shuffle(addresses)
            check_gather(process.vm, truth, addresses, kind, ("rw", "r"), os.getpid())
            for mask in (True, False):
                check_scatter(
                    process.vm,
                    truth,
                    addresses,
                    kind,
                    seed,
                    ("rw",),
                    os.getpid(),
                    own.now,
                    mask=mask,
                )


# Arrays


@with_numpy
def test_an_array_travels_both_ways(process: procvm.Process, playground: Playground) -> None:
    """What write_array wrote the target has, and read_array gives back; a fault is exact."""
    base = playground.layout("rw rw hole")
    for dtype in (">u4", "<f8", "S5", "V3", [("a", "u1"), ("b", ">u4")]):
        data = random.Random(str(dtype)).randbytes(30 * np.dtype(dtype).itemsize)
        array = np.frombuffer(data, dtype).reshape(5, 6)
        process.vm.write_array(base + PAGE - 7, array)
        assert playground.peek(base + PAGE - 7, len(data)) == data
        found = process.vm.read_array(base + PAGE - 7, dtype, (5, 6))
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, (5, 6), data)
    error = fault_of(process.vm.read_array, base + 1, u16, PAGE)
    assert (error.address, error.copied_len) == (base + 2 * PAGE, 2 * PAGE - 1)
    error = fault_of(process.vm.write_array, base + 2 * PAGE - 5, np.zeros(3, "u8"))
    assert (error.address, error.copied_len) == (base + 2 * PAGE, 5)
    assert playground.peek(base + 2 * PAGE - 5, 5) == bytes(5)


# A target that ends or execs meanwhile


class Hooked(UserMemory):
    """A process's memory that does something just before its call of a given number."""

    def __init__(self, memory: UserMemory, when: int, hook: Callable[[], None]) -> None:
        self.inner = memory
        self.left = when
        self.hook = hook
        self.calls = 0

    def _before(self) -> None:
        self.calls += 1
        if self.left == 0:
            self.hook()
        self.left -= 1

    @property
    def domain(self) -> object:
        return self.inner.domain

    @property
    def end(self) -> int:
        return self.inner.end

    @property
    def pid(self) -> int:
        return self.inner.pid

    @property
    def is_forced(self) -> bool:
        return self.inner.is_forced

    def forced(self) -> Any:
        raise NotImplementedError

    def read(self, address: int, own_address: int, n: int) -> None:
        self._before()
        self.inner.read(address, own_address, n)

    def write(self, address: int, own_address: int, n: int) -> None:
        self._before()
        self.inner.write(address, own_address, n)

    def readv(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        self._before()
        self.inner.readv(ranges, own_address)

    def readv_packed(self, words: memoryview, count: int, own_address: int) -> int:
        self._before()
        return self.inner.readv_packed(words, count, own_address)

    def regions(self) -> list[Region] | None:
        self._before()
        return self.inner.regions()


def _end(subject: Subject) -> None:
    subject.popen.kill()
    subject.popen.wait()


def _exec(subject: Subject) -> None:
    subject.send(f"exec {shutil.which('cat')}")
    path = f"/proc/{subject.pid}/comm"
    while Path(path).read_text().strip() != "cat":
        assert subject.popen.poll() is None
    # From here on it is another program for good: it waits for its input.


class Ending(NamedTuple):
    """How a target goes, and what must be said then."""

    by: Callable[[Subject], None]
    error: type[procvm.ProcessError]


ENDINGS = [
    pytest.param(Ending(_end, procvm.ProcessExitedError), id="end"),
    pytest.param(Ending(_exec, procvm.ProcessExecedError), id="exec"),
]


def _far_words(process: procvm.Process) -> list[int]:
    big = max(process.maps().filter(perms="rw"), key=lambda vma: vma.size)
    return list(range(big.start, big.start + 2100 * 2400, 2400))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("faults", ["raise", "mask"])
@pytest.mark.parametrize("bad", ["none", "some", "all"])
def test_a_target_that_goes_in_the_middle_of_a_gather_is_told(
    ending: Ending, faults: Any, bad: str
) -> None:
    """Whichever call it goes before, the error names that; never a mask, a fault or a value."""
    for backend in BACKENDS:
        when = total = 0
        while when == 0 or when < total:
            with Subject("big=8") as subject, procvm.open(subject.pid, backend=backend) as process:
                addresses = _far_words(process)
                if bad == "some":
                    addresses[300::301] = [64] * len(addresses[300::301])
                elif bad == "all":
                    addresses = [8 * k for k in range(50)]
                counted = Hooked(process.vm.memory, -1, lambda: None)
                VmSpace(counted).gather(addresses, u64, "mask")
                with suppress(procvm.PageFaultError):
                    counted.calls = 0
                    VmSpace(counted).gather(addresses, u64, faults)
                total = counted.calls
                hooked = Hooked(process.vm.memory, when, partial(ending.by, subject))
                with pytest.raises(procvm.ProcessError) as caught:
                    VmSpace(hooked).gather(addresses, u64, faults)
                assert type(caught.value) is ending.error
                assert caught.value.pid == subject.pid
                when = 1 if when == 0 and np is not None else max(total - 1, when + 1)
        assert total >= (1 if bad == "all" or np is None else 2)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("faults", ["raise", "mask"])
def test_a_target_that_goes_in_the_middle_of_a_scatter_is_told(ending: Ending, faults: Any) -> None:
    """The error names it and counts the bytes of all values that were written before."""
    for backend in BACKENDS:
        for when in (0, 1, 5):
            with Subject() as subject, procvm.open(subject.pid, backend=backend) as process:
                hooked = Hooked(process.vm.memory, when, partial(ending.by, subject))
                addresses = [subject.address + 16 * k for k in range(20)]
                with pytest.raises(procvm.ProcessError) as caught:
                    VmSpace(hooked).scatter(addresses, u64, list(range(20)), faults)
                assert type(caught.value) is ending.error
                assert (caught.value.pid, caught.value.copied_len) == (subject.pid, 8 * when)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("faults", ["raise", "mask"])
def test_a_target_that_has_gone_is_told(backend: Backend, faults: Any) -> None:
    """After the end, and after close, there are no faults and no masks; nothing counts as moved."""
    with Playground() as child:
        base = child.layout("rw hole")
        with procvm.open(child.pid, backend=backend) as process:
            child.popen.kill()
            child.popen.wait()
            for addresses in ([base], [base + PAGE], [0], [base, base + PAGE, LAST]):
                for vm in (process.vm, process.vm.forced()):
                    with pytest.raises(procvm.ProcessExitedError) as caught:
                        vm.gather(addresses, u64, faults)
                    assert caught.value.copied_len == 0
                    with pytest.raises(procvm.ProcessExitedError) as caught:
                        vm.scatter(addresses, u64, [1] * len(addresses), faults)
                    assert caught.value.copied_len == 0
            vm = process.vm
        with pytest.raises(procvm.ClosedError):
            vm.gather([base, 0], u64, faults)
        with pytest.raises(procvm.ClosedError):
            vm.scatter([base, 0], u64, [1, 2], faults)


@pytest.mark.parametrize("faults", ["mask", "raise"])
def test_a_target_that_has_gone_is_told_for_addresses_beyond_user_space_too(faults: Any) -> None:
    """Addresses that can never be read do not hide that the process has ended."""
    with Subject() as subject, procvm.open(subject.pid) as process:
        _end(subject)
        with pytest.raises(procvm.ProcessExitedError):
            process.vm.gather([LAST], u64, faults)


# A target that changes meanwhile


def _assert_in_an_element(error: procvm.PageFaultError, addresses: Sequence[int]) -> None:
    assert error.index is not None
    first = addresses[error.index]
    assert first <= error.address < first + 8
    assert error.copied_len == error.index * 8 + error.address - first


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["protect", "unmap", "poison"])
def test_a_gather_in_a_storm_never_gives_a_wrong_value(mode: str, backend: Backend) -> None:
    """What is said to be good has its bytes, what is not is zero, and a fault is of a real page."""
    with Storm(mode) as storm, procvm.open(storm.pid, backend=backend) as process:
        base, n = storm.base, storm.n
        data = pattern(base, n)
        made = random.Random(7)
        rounds = bad = good = whole = 0
        storm.begin()
        while (min(bad, good, whole) < 1 or rounds < 40) and rounds < 20_000:
            rounds += 1
            addresses = [base + made.randrange(n - 8) for _ in range(100 if rounds % 2 else 3)]
            values, ok = process.vm.gather(addresses, u64, "mask")
            for address, value, is_good in zip(addresses, values, ok, strict=True):
                at = address - base
                expected = int.from_bytes(data[at : at + 8], "little") if is_good else 0
                assert int(value) == expected
                good, bad = good + bool(is_good), bad + (not is_good)
            try:
                values = process.vm.gather(addresses, u64)
            except procvm.PageFaultError as error:
                _assert_in_an_element(error, addresses)
            else:
                whole += 1
                for address, value in zip(addresses, values, strict=True):
                    at = address - base
                    assert int(value) == int.from_bytes(data[at : at + 8], "little")
        cycles, _ = storm.end()
    assert min(bad, good, whole) >= 1, (bad, good, whole)
    assert cycles > 0


def test_what_is_mapped_meanwhile_is_found(process: procvm.Process, playground: Playground) -> None:
    """A page that goes and comes between two gathers is bad and good again: nothing is kept."""
    truth, _ = laid(playground, ["rw", "rw", "rw"], process.vm.end)
    addresses = [truth.base, truth.base + PAGE, truth.base + 2 * PAGE]
    for _ in range(3):
        playground.unmap(truth.base + PAGE, PAGE)
        assert_ok(process.vm.gather(addresses, u64, "mask")[1], [True, False, True])
        error = fault_of(process.vm.gather, addresses, u64)
        assert_fault(error, Fault(1, truth.base + PAGE, 8), playground.pid)
        playground.map(truth.base + PAGE, PAGE)
        values, ok = process.vm.gather(addresses, u64, "mask")
        assert_ok(ok, [True, True, True])
        assert values[1] == 0


# What it costs


def test_a_million_addresses(playground: Playground) -> None:
    """A million words of a thousand pages in any order, a bad one among them: all is right."""
    with procvm.open(playground.pid) as process:
        pages = 1000
        n = 1_000_000 if np is not None else 300_000
        base = playground.layout(" ".join(["rw"] * pages + ["hole"]))
        data = playground.peek(base, 8 * PAGE)
        addresses = [base + k * 4001 % (pages * PAGE - 8) for k in range(n)]
        addresses[n // 2] = base + pages * PAGE - 1
        values, ok = process.vm.gather(addresses, u64, "mask")
        assert sum(map(int, ok)) == n - 1
        assert not ok[n // 2]
        for k, address in enumerate(addresses):
            at = address - base
            if at <= 8 * PAGE - 8:
                assert int(values[k]) == int.from_bytes(data[at : at + 8], "little")
        error = fault_of(process.vm.gather, addresses, u64)
        assert_fault(error, Fault(n // 2, base + pages * PAGE, 4 * n + 1), playground.pid)


@with_numpy
def test_a_million_far_and_bad_addresses(playground: Playground) -> None:
    """A million words a page apart, and a million where nothing is: quick, and each by itself."""
    with procvm.open(playground.pid) as process:
        n = 1_000_000
        base = playground.reserve(n * PAGE)
        first = base + 777 * PAGE
        playground.poke(first, (5).to_bytes(8, "little"))
        addresses = np.arange(base, base + n * PAGE, PAGE, np.uint64)
        values = process.vm.gather(addresses, u64)
        assert (values.sum(), values[777]) == (5, 5)
        values, ok = process.vm.gather(np.arange(n, dtype=np.uint64), u64, "mask")
        assert not ok.any()
        assert not values.any()


NUMBERS = 1_000_000

MEASURE = """
import ctypes, sys
import numpy as np
import procvm

pid, base, n, order = (*map(int, sys.argv[1:4]), sys.argv[4])


def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024


with procvm.open(pid) as process:
    addresses = np.arange(base, base + 8 * n, 8, np.uint64)
    if order == "mixed":
        np.random.default_rng(1).shuffle(addresses)
    process.vm.gather(addresses[:100_000:10], procvm.u64)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = peak()
    values = process.vm.gather(addresses, procvm.u64)
    added = peak() - before
    assert (values == (addresses - np.uint64(base)) // np.uint64(8) * np.uint64(3)).all()
print(added)
"""


@with_numpy
@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_a_gather_takes_at_most_five_times_its_result(order: str) -> None:
    """The peak of a tool that gathers a million words grows by no more than 40 MB."""
    array = np.arange(NUMBERS, dtype=np.uint64) * np.uint64(3)
    command = [sys.executable, "-c", MEASURE, os.getpid(), array.ctypes.data, NUMBERS, order]
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 8 * NUMBERS * 0.9 <= int(done.stdout) <= 5 * 8 * NUMBERS


@with_numpy
@pytest.mark.strace
def test_ten_thousand_near_words_are_a_few_system_calls(
    playground: Playground, tmp_path: Path
) -> None:
    """As strace counts them: not more than a handful of reads, sorted or not."""
    base = playground.layout(" ".join(["rw"] * 20))
    code = (
        "import sys, numpy as np, procvm\n"
        "pid, base = map(int, sys.argv[1:])\n"
        "addresses = np.arange(base, base + 80_000, 8, np.uint64)\n"
        "np.random.default_rng(1).shuffle(addresses)\n"
        "with procvm.open(pid) as process:\n"
        "    process.vm.gather(addresses, procvm.u64)\n"
    )
    log = tmp_path / "log"
    command = ["strace", "-f", "-o", str(log), "-e", "trace=process_vm_readv", sys.executable, "-c"]
    subprocess.run([*command, code, str(playground.pid), str(base)], cwd=ROOT, check=True)
    assert 1 <= len(re.findall(r"process_vm_readv\(", log.read_text())) <= 4


def test_ten_thousand_near_words_are_a_few_calls(playground: Playground) -> None:
    """Counted where they are made: two calls for 10,000 words with numpy, ten without."""
    base = playground.layout(" ".join(["rw"] * 20))
    with procvm.open(playground.pid) as process:
        hooked = Hooked(process.vm.memory, -1, lambda: None)
        VmSpace(hooked).gather(range(base, base + 80_000, 8), u64)
    assert hooked.calls <= (2 if np is not None else 10)


def test_scattered_words_reach_a_target_that_reads_itself(
    process: procvm.Process, playground: Playground
) -> None:
    """Ten thousand words, written in any order, are what the kernel's own view has."""
    base = playground.layout(" ".join(["rw"] * 20))
    addresses = [base + 8 * k for k in range(10_000)]
    random.Random(3).shuffle(addresses)
    process.vm.scatter(addresses, u64, [address * 3 for address in addresses])
    with oracle(playground.pid) as told:
        words = memoryview(told.read(base, 80_000)).cast("Q").tolist()
    assert words == [(base + 8 * k) * 3 for k in range(10_000)]


@with_numpy
def test_all_of_it_without_numpy() -> None:
    """Each test of this file that is not about numpy passes where numpy can not be imported."""
    # Without numpy both backends are given the same ranges by the same lines.
    which = "not mem or plain_python or told"
    assert "passed" in run_without_numpy("tests/process/test_gather.py", "-k", which)
