"""Scan over fakes: the first look and each later one against plain Python over the same bytes."""

from __future__ import annotations

import ctypes
import math
import operator
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import procvm
from procvm import PageFaultError, VmSpace, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from procvm._base.optional import numpy_or_none
from procvm._mm.extent import Extent
from procvm._mm.memory import UserMemory
from procvm._space.scan import CHUNK_LEN, Scan
from tests.support.fakes import laid_out
from tests.support.playground import PAGE

np: Any = numpy_or_none()
ROOT = Path(__file__).parents[2]
BASE = 0x7000_0000_0000
LONG = 1 << 16
"""A run that was never touched is told if it is as long."""

Pair = tuple[int, int]


class Bytes(UserMemory):
    """Bytes from `BASE` on that change; pages of them may be bad, or told to be untouched."""

    def __init__(self, data: bytes, *, bad: Iterable[int] = (), zeros: Sequence[Pair] = ()) -> None:
        self.data = bytearray(data)
        self.bad = set(bad)  # numbers of pages, counted from `BASE`
        self.zeros = list(zeros)
        self.reads: list[Pair] = []
        self.before_read: Callable[[], None] = lambda: None

    @property
    def domain(self) -> object:
        return self

    @property
    def end(self) -> int:
        return 1 << 47

    def forced(self) -> UserMemory:
        return self

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        return laid_out(start, end, self.zeros, least=LONG)

    def good(self, address: int, n: int) -> int:
        """Returns how many of the bytes at an address come before the first that is bad."""
        at = address
        while at < address + n:
            page = (at - BASE) // PAGE
            if page in self.bad or not BASE <= at < BASE + len(self.data):
                break
            at = min(BASE + (page + 1) * PAGE, BASE + len(self.data))
        return min(at - address, n)

    def read(self, address: int, own_address: int, n: int) -> None:
        self.before_read()
        self.reads.append((address, n))
        good = self.good(address, n)
        if good:
            here = ctypes.c_char.from_buffer(self.data, address - BASE)
            ctypes.memmove(own_address, ctypes.addressof(here), good)
        if good < n:
            raise PageFaultError("bad", address=address + good, pid=1, copied_len=good)

    def write(self, address: int, own_address: int, n: int) -> None:
        raise AssertionError("a scan writes nothing")

    def poke(self, at: int, data: bytes) -> None:
        """Changes what stands `at` bytes behind `BASE`."""
        self.data[at : at + len(data)] = data


class Kind(NamedTuple):
    """What is scanned for, and how `struct` reads it."""

    given: Any
    code: str

    @property
    def size(self) -> int:
        return struct.calcsize(self.code)

    @property
    def is_float(self) -> bool:
        return self.code[-1] in "efd"

    def value(self, data: bytes | bytearray, at: int) -> Any:
        return struct.unpack_from(self.code, data, at)[0]

    def rounded(self, number: Any) -> Any:
        """Returns the number of this kind that is nearest to one."""
        if self.is_float and isinstance(number, int | float):
            return struct.unpack(self.code, struct.pack(self.code, number))[0]
        return number


PODS = [
    *(Kind(u8, "@B"), Kind(u16, "@H"), Kind(u32, "@I"), Kind(u64, "@Q"), Kind(procvm.usize, "@Q")),
    *(Kind(i8, "@b"), Kind(i16, "@h"), Kind(i32, "@i"), Kind(i64, "@q"), Kind(procvm.isize, "@q")),
    *(Kind(f32, "@f"), Kind(f64, "@d")),
]
DTYPES = [
    *(Kind(">u2", ">H"), Kind(">i4", ">i"), Kind(">u8", ">Q"), Kind(">i8", ">q")),
    *(Kind(">f4", ">f"), Kind(">f8", ">d"), Kind("<i2", "<h"), Kind("f2", "=e"), Kind("u1", "=B")),
]
KINDS = PODS + DTYPES


class Asked(NamedTuple):
    """A condition: as a scan takes it, and what it is in plain Python."""

    value: Any
    holds: Callable[[Any], bool]


def equal(kind: Kind, number: Any) -> Asked:
    nearest = kind.rounded(number)
    return Asked(number, lambda value: bool(value == nearest))


def between(kind: Kind, low: Any, high: Any) -> Asked:
    first, last = kind.rounded(low), kind.rounded(high)
    return Asked((low, high), lambda value: bool(first <= value <= last))


def above(kind: Kind, number: Any) -> Asked:
    nearest = kind.rounded(number)
    return Asked(lambda values: values > nearest, lambda value: bool(value > nearest))


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "changed": operator.ne,
    "unchanged": operator.eq,
    "increased": operator.gt,
    "decreased": operator.lt,
}


class Model:
    """The candidates of a scan, kept by plain Python: address -> bytes at the last look."""

    def __init__(self, memory: Bytes, kind: Kind, align: int, ranges: Sequence[Pair]) -> None:
        self.memory, self.kind, self.align, self.ranges = memory, kind, align, ranges
        self.found: dict[int, bytes] = {}
        self.skipped: set[int] = set()

    def part(self, address: int) -> bytes:
        return bytes(self.memory.data[address - BASE : address - BASE + self.kind.size])

    def first(self, asked: Asked | None) -> None:
        kind, size = self.kind, self.kind.size
        bad = [at for a, b in self.ranges for at in range(a, b) if not self.memory.good(at, 1)]
        self.skipped = set(bad)
        for start, end in self.ranges:
            for at in range(start + -start % self.align, end - size + 1, self.align):
                if self.memory.good(at, size) == size:
                    part = self.part(at)
                    if asked is None or asked.holds(kind.value(part, 0)):
                        self.found[at] = part

    def again(self, how: str | None, asked: Asked | None) -> None:
        kept: dict[int, bytes] = {}
        for at, old in self.found.items():
            if self.memory.good(at, self.kind.size) < self.kind.size:
                self.skipped.update(range(at, at + self.kind.size))
                continue
            part = self.part(at)
            new = self.kind.value(part, 0)
            if how is not None and not CHANGES[how](new, self.kind.value(old, 0)):
                continue
            if asked is None or asked.holds(new):
                kept[at] = part
        self.found = kept

    def check(self, scan: Scan) -> None:
        """The scan is as the model, in all that it tells."""
        assert len(scan) == len(self.found)
        assert list(scan) == list(self.found)
        addresses = scan.addresses()
        assert addresses.dtype == np.uint64
        assert addresses.tolist() == list(self.found)
        values = scan.values()
        native = values.astype(np.dtype(given_dtype(self.kind)), copy=False)
        assert native.tobytes() == b"".join(self.found.values())
        assert {at for a, b in scan.skipped for at in range(a, b)} == self.skipped
        assert all(a < b for a, b in scan.skipped)


def given_dtype(kind: Kind) -> Any:
    return np.dtype(kind.code.replace("@", "="))


def scan_of(memory: UserMemory, kind: Any, ranges: Sequence[Pair], **arguments: Any) -> Scan:
    return VmSpace(memory).scan(kind, ranges=ranges, **arguments)


# Against plain Python


@st.composite
def numbers(draw: st.DrawFn, kind: Kind) -> Any:
    """A number of a kind; few of them, so that they meet what stands in memory."""
    if kind.is_float:
        return draw(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 2.5, math.inf, -math.inf, 60000.0]))
    bits = 8 * kind.size
    low = 0 if kind.code[-1].isupper() else -1 << (bits - 1)
    high = low + (1 << bits) - 1
    return draw(st.sampled_from([0, 1, 2, 100, high, high - 1, low, low + 1]))


@st.composite
def conditions(draw: st.DrawFn, kind: Kind) -> Asked:
    a, b = draw(numbers(kind)), draw(numbers(kind))
    which = draw(st.sampled_from(["number", "pair", "range", "predicate"]))
    if which == "number":
        return equal(kind, a)
    if which == "predicate":
        return above(kind, a)
    if which == "range" and not kind.is_float:
        low, high = min(a, b), max(a, b)
        return Asked(range(low, high + 1), lambda value: low <= value <= high)
    return between(kind, min(a, b), max(a, b))


@st.composite
def contents(draw: st.DrawFn, kind: Kind, n: int) -> bytes:
    """Bytes: any, or values side by side, NaN among them; mostly the same, or mostly not."""
    made = random.Random(draw(st.integers(0, 1 << 30)))
    few = [struct.pack(kind.code, draw(numbers(kind))) for _ in range(draw(st.integers(1, 4)))]
    if kind.is_float:
        few += [struct.pack(kind.code, math.nan), struct.pack(kind.code, -0.0)]
    share = draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
    parts = [
        few[0] if made.random() < share else made.choice([*few, made.randbytes(kind.size)])
        for _ in range(n // kind.size)
    ]
    return b"".join(parts)[: n - 1].ljust(n, b"\0")


PAGES = 4


@st.composite
def windows(draw: st.DrawFn) -> list[Pair]:
    """Ranges near the edges of pages, disjoint and apart, sorted."""
    near = st.integers(0, PAGES).flatmap(
        lambda page: st.integers(-150, 150).map(lambda d: page * PAGE + d)
    )
    cuts = sorted(draw(st.sets(near, min_size=2, max_size=8)))
    pairs = [(max(a, 0), min(b, PAGES * PAGE)) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    return [(BASE + a, BASE + min(b, a + 400)) for a, b in pairs if a < b]


ALIGNS = st.sampled_from([None, None, 1, 2, 3, 4, 8, 16, 100])
BAD_PAGES = st.sets(st.integers(0, PAGES - 1), max_size=2)


def border_patch(patch: pytest.MonkeyPatch, chunk_len: int, page_len: int) -> None:
    """Makes pieces of this length, and a block far apart that has fewer than one hit a page."""
    patch.setattr("procvm._space.scan.CHUNK_LEN", chunk_len)
    patch.setattr("procvm._space.look._PAGE", page_len)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(KINDS))
def test_a_scan_and_what_is_left_of_it_are_as_plain_python(data: Any, kind: Kind) -> None:
    """Addresses, values and skipped ranges after any first look and any later ones."""
    memory = Bytes(b"", bad=data.draw(BAD_PAGES))
    memory.data[:] = bytes(PAGES * PAGE)
    ranges = data.draw(windows())
    for a, b in ranges:
        memory.poke(a - BASE, data.draw(contents(kind, b - a)))
    align = data.draw(ALIGNS)
    model = Model(memory, kind, align or kind.size, ranges)
    asked = data.draw(st.none() | conditions(kind))
    threads = data.draw(st.sampled_from([1, 1, 1, 3]))
    with pytest.MonkeyPatch.context() as patch:
        border_patch(
            patch,
            data.draw(st.sampled_from([1, 7, 16, 64, 100, 150, 1 << 20])),
            data.draw(st.sampled_from([1, 16, PAGE])),
        )
        arguments = {} if asked is None else {"value": asked.value}
        scan = scan_of(memory, kind.given, ranges, align=align, threads=threads, **arguments)
        model.first(asked)
        model.check(scan)
        for _ in range(data.draw(st.integers(0, 4))):
            _change(data, memory, kind, ranges)
            how = data.draw(st.sampled_from([None, "changed", "unchanged", *CHANGES]))
            asked = data.draw(conditions(kind) if how is None else st.none() | conditions(kind))
            arguments = {} if asked is None else {"value": asked.value}
            narrowed = scan.refine(how, **arguments)
            assert narrowed is not scan
            scan = narrowed
            model.again(how, asked)
            model.check(scan)


def _change(data: Any, memory: Bytes, kind: Kind, ranges: Sequence[Pair]) -> None:
    memory.bad = data.draw(st.just(memory.bad) | BAD_PAGES)
    made = random.Random(data.draw(st.integers(0, 1 << 30)))
    share = data.draw(st.sampled_from([0.0, 0.03, 0.5, 1.0]))
    for a, b in ranges:
        new = data.draw(contents(kind, b - a))
        for at in range(0, b - a, kind.size):
            if made.random() < share:
                memory.poke(a - BASE + at, new[at : at + kind.size])


@pytest.mark.parametrize("kind", [Kind(i32, "@i"), Kind(">u2", ">H"), Kind(f64, "@d")])
@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_of_a_megabyte_are_as_plain_python(kind: Kind, threads: int) -> None:
    """Two megabytes and a half at an odd place, dense at first, then sparse, then a few."""
    made = random.Random(5)
    n = 2 * CHUNK_LEN + CHUNK_LEN // 2
    memory = Bytes(made.randbytes(n))
    ranges = [(BASE + 3, BASE + n - 5)]
    seen: list[Pair] = []
    align = kind.size
    scan = scan_of(memory, kind.given, ranges, threads=threads, progress=_into(seen))
    total = n - 8
    assert seen == [(CHUNK_LEN, total), (2 * CHUNK_LEN, total), (total, total)]
    first = list(range(BASE + 3 + -3 % align, BASE + n - 4 - align, align))
    assert list(scan) == first
    old = bytes(memory.data)
    changed = sorted(made.sample(first, 40))
    for at in changed:
        memory.data[at - BASE] ^= 0x55
    seen.clear()
    scan = scan.refine("changed", progress=_into(seen))
    assert seen[-1] == (len(first), len(first))
    assert seen == sorted(seen)
    # NaN, of which there are some among random bytes, is always changed.
    expected = [
        at for at in first if kind.value(old, at - BASE) != kind.value(memory.data, at - BASE)
    ]
    assert set(changed) <= set(expected) or kind.is_float
    assert list(scan) == expected
    raw = b"".join(memory.data[at - BASE : at - BASE + kind.size] for at in expected)
    assert scan.values().astype(given_dtype(kind), copy=False).tobytes() == raw
    few = expected[::7]
    for at in few:
        memory.poke(at - BASE, struct.pack(kind.code, 7))
    scan = scan.refine(value=7)
    assert list(scan) == few
    assert scan.skipped == []


def _into(seen: list[Pair]) -> Callable[[int, int], None]:
    return lambda done, total: seen.append((done, total))


def test_values_over_the_borders_of_pieces_are_looked_at_once() -> None:
    """A value that begins in one piece and ends in the next is one candidate, at any alignment."""
    data = bytearray(3 * CHUNK_LEN)
    places = [CHUNK_LEN - 7, CHUNK_LEN - 1, CHUNK_LEN + 7, 2 * CHUNK_LEN - 4]
    marks = [0x11, 0x22, 0x33, 0x44]
    memory = Bytes(bytes(data))
    whole = [places[0], places[2], places[3]]
    for at, mark in zip(places, marks, strict=True):
        if at in whole:
            memory.poke(at, struct.pack("@Q", mark << 56 | 1))
    ranges = [(BASE, BASE + 3 * CHUNK_LEN)]
    scan = scan_of(memory, u64, ranges, align=1, value=lambda values: (values & 0xFF) == 1)
    plain = [at for at in range(CHUNK_LEN - 20, 2 * CHUNK_LEN + 20) if memory.data[at] == 1]
    assert [at - BASE for at in scan] == plain == whole


# The numbers themselves


def test_nan_is_always_changed_and_zeros_are_equal() -> None:
    """As numbers compare: NaN differs from itself, and -0.0 is 0.0."""
    old = struct.pack("@6d", math.nan, -0.0, 0.0, 1.0, math.nan, 2.0)
    new = struct.pack("@6d", math.nan, 0.0, -0.0, math.nan, 1.0, 2.0)
    outcomes = {}
    for how in CHANGES:
        memory = Bytes(old)
        scan = scan_of(memory, f64, [(BASE, BASE + 48)])
        memory.data[:] = new
        outcomes[how] = [(at - BASE) // 8 for at in scan.refine(how)]  # type: ignore[arg-type]
    assert outcomes == {
        "changed": [0, 3, 4],
        "unchanged": [1, 2, 5],
        "increased": [],
        "decreased": [],
    }
    memory = Bytes(old)
    assert len(scan_of(memory, f64, [(BASE, BASE + 48)], value=0.0)) == 2
    assert len(scan_of(memory, f64, [(BASE, BASE + 48)], value=-0.0)) == 2
    assert len(scan_of(memory, f64, [(BASE, BASE + 48)], value=math.nan)) == 0


def test_a_value_keeps_its_bits() -> None:
    """NaN with a payload and -0.0 come out of values() as they stood."""
    raw = bytes.fromhex("010000000000f87f 0000000000000080 ffffffffffffffff".replace(" ", ""))
    scan = scan_of(Bytes(raw), f64, [(BASE, BASE + 24)])
    assert scan.values().tobytes() == raw


def test_an_f32_is_the_nearest_one() -> None:
    """0.1 and the bounds 0.1 and 0.2 mean the f32 nearest to them."""
    memory = Bytes(struct.pack("@4f", 0.1, 0.2, 0.3, math.nan))
    ranges = [(BASE, BASE + 16)]
    assert [at - BASE for at in scan_of(memory, f32, ranges, value=0.1)] == [0]
    assert [at - BASE for at in scan_of(memory, f32, ranges, value=(0.1, 0.2))] == [0, 4]


def test_bounds_beyond_the_type_hold_all_of_it() -> None:
    """A pair or a range may be wider than the type; every integer is compared as it is."""
    memory = Bytes(bytes(range(256)))
    ranges = [(BASE, BASE + 256)]
    assert len(scan_of(memory, u8, ranges, value=(-5, 300))) == 256
    assert len(scan_of(memory, i8, ranges, value=(-1000, -1))) == 128
    assert len(scan_of(memory, u64, ranges, value=range(1 << 70))) == 32
    with pytest.raises(ValueError, match="no number is from 200 to 100"):
        scan_of(memory, u8, ranges, value=(200, 100))
    assert len(scan_of(memory, u8, ranges, value=range(0))) == 0


def test_bounds_beyond_an_f32_do_not_hold_infinity() -> None:
    """1e300 is less than infinity, and no warning is given."""
    memory = Bytes(struct.pack("@4f", math.inf, -math.inf, 3e38, 1.0))
    ranges = [(BASE, BASE + 16)]
    assert [at - BASE for at in scan_of(memory, f32, ranges, value=(-1e300, 1e300))] == [8, 12]
    assert [at - BASE for at in scan_of(memory, f32, ranges, value=(1e300, math.inf))] == [0]


@pytest.mark.parametrize("n", [4, 400])
def test_values_are_of_the_dtype_that_was_asked_for(n: int) -> None:
    """However many there are, big-endian ones too."""
    memory = Bytes(bytes(400))
    assert scan_of(memory, ">u4", []).values().dtype == np.dtype(">u4")
    assert scan_of(memory, ">u4", [(BASE, BASE + n)]).values().dtype == np.dtype(">u4")


# What is kept


def test_both_ways_to_keep_candidates_change_into_each_other() -> None:
    """Around one hit in 32 slots, at the first look and after: the same as plain Python."""
    for hits in (31, 32, 33, 1, 1024):
        memory = Bytes(bytes(4 * 1024))
        for k in range(hits):
            memory.poke(4 * (k * (1024 // hits)), struct.pack("@i", 5))
        expected = [
            BASE + at for at in range(0, 4096, 4) if memory.data[at : at + 4] == b"\5\0\0\0"
        ]
        ranges = [(BASE, BASE + 4096)]
        scan = scan_of(memory, i32, ranges, value=5)
        assert list(scan) == expected
        scan = scan.refine("unchanged")
        assert list(scan) == expected
        for at in expected[1:]:
            memory.poke(at - BASE, struct.pack("@i", 4))
        scan = scan.refine("unchanged")
        assert list(scan) == expected[:1]
        wide = scan_of(memory, i32, ranges)
        assert len(wide) == 1024
        wide = wide.refine(value=5)
        assert list(wide) == expected[:1]


def test_a_scan_can_be_gone_through_again() -> None:
    """It is no iterator: two passes give the same, and one that began goes on as it was."""
    memory = Bytes(struct.pack("@4I", 1, 2, 3, 4))
    scan = scan_of(memory, u32, [(BASE, BASE + 16)])
    begun = iter(scan)
    assert next(begun) == BASE
    assert list(scan) == list(scan) == [BASE, BASE + 4, BASE + 8, BASE + 12]
    scan = scan.refine(value=(3, 9))
    assert list(begun) == [BASE + 4, BASE + 8, BASE + 12]
    assert list(scan) == [BASE + 8, BASE + 12]
    assert repr(scan).endswith(": 2 candidates>")


def test_how_and_value_together() -> None:
    """Both must hold."""
    memory = Bytes(struct.pack("@4i", 1, 2, 3, 4))
    scan = scan_of(memory, i32, [(BASE, BASE + 16)])
    memory.data[:] = struct.pack("@4i", 2, 2, 9, 3)
    scan = scan.refine("increased", value=(0, 5))
    assert [at - BASE for at in scan] == [0]
    assert scan.values().tolist() == [2]


def test_the_last_look_is_what_a_change_is_counted_from() -> None:
    """Not the first one: a value that goes up and down again has changed twice."""
    memory = Bytes(struct.pack("@i", 5))
    scan = scan_of(memory, i32, [(BASE, BASE + 4)])
    for new, how in ((6, "increased"), (5, "decreased"), (5, "unchanged"), (7, "changed")):
        memory.data[:] = struct.pack("@i", new)
        scan = scan.refine(how)  # type: ignore[arg-type]
        assert list(scan) == [BASE]
        assert scan.values().tolist() == [new]


def test_a_scan_of_nothing_is_empty() -> None:
    """No ranges, empty ones and such as are too short for a value."""
    memory = Bytes(bytes(100))
    for ranges in ([], [(BASE, BASE)], [(BASE, BASE + 3)], [(BASE + 1, BASE + 7)]):
        scan = scan_of(memory, u32, ranges)
        assert (len(scan), list(scan), scan.skipped) == (0, [], [])
        assert scan.addresses().tolist() == scan.values().tolist() == []
        scan = scan.refine("changed")
        assert len(scan) == 0


# What could not be read


def test_what_is_bad_at_the_first_look_is_skipped() -> None:
    """Exactly the pages, clipped to the ranges; values that reach into them are no candidates."""
    memory = Bytes(b"\1" * 5 * PAGE, bad=[1, 3])
    ranges = [(BASE + 10, BASE + 2 * PAGE + 9), (BASE + 3 * PAGE + 5, BASE + 3 * PAGE + 50)]
    scan = scan_of(memory, u64, ranges, align=1)
    expected = [*range(BASE + 10, BASE + PAGE - 7), BASE + 2 * PAGE, BASE + 2 * PAGE + 1]
    assert list(scan) == expected
    assert scan.skipped == [
        (BASE + PAGE, BASE + 2 * PAGE),
        (BASE + 3 * PAGE + 5, BASE + 3 * PAGE + 50),
    ]


def test_what_has_gone_is_dropped_and_does_not_come_back() -> None:
    """Skipped once; when it can be read again it is no candidate any more."""
    memory = Bytes(b"\1" * 3 * PAGE)
    scan = scan_of(memory, u32, [(BASE, BASE + 3 * PAGE)], value=0x01010101)
    memory.bad = {1}
    scan = scan.refine("unchanged")
    left = [*range(BASE, BASE + PAGE, 4), *range(BASE + 2 * PAGE, BASE + 3 * PAGE, 4)]
    assert list(scan) == left
    assert {at for a, b in scan.skipped for at in range(a, b)} == set(
        range(BASE + PAGE, BASE + 2 * PAGE)
    )
    before = list(scan.skipped)
    memory.bad = set()
    scan = scan.refine("unchanged")
    assert list(scan) == left
    assert scan.skipped == before


def test_neighbours_that_have_gone_are_one_range() -> None:
    """A megabyte that was unmapped is told in a few ranges, not in 262,144."""
    memory = Bytes(b"\1" * (CHUNK_LEN + PAGE))
    scan = scan_of(memory, u32, [(BASE, BASE + CHUNK_LEN + PAGE)])
    memory.bad = set(range(CHUNK_LEN // PAGE))
    scan = scan.refine("unchanged")
    assert scan.skipped == [(BASE, BASE + CHUNK_LEN)]


def test_a_hole_of_several_pieces_is_one_range() -> None:
    """As in the `skipped` of a search."""
    memory = Bytes(b"")
    scan = scan_of(memory, u32, [(BASE, BASE + 2 * CHUNK_LEN)])
    assert scan.skipped == [(BASE, BASE + 2 * CHUNK_LEN)]


class GoneError(Exception):
    """What a fake raises in the middle."""


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("when", [0, 1, 2])
def test_a_refine_that_fails_leaves_the_scan_as_it_was(threads: int, when: int) -> None:
    """Whichever piece it is: candidates, values and skipped stay, and it can be tried again."""
    memory = Bytes(b"\1" * 3 * CHUNK_LEN, bad=[7])
    ranges = [(BASE, BASE + 3 * CHUNK_LEN)]
    scan = scan_of(memory, u64, ranges, threads=threads)
    addresses, values, skipped = scan.addresses(), scan.values(), list(scan.skipped)
    memory.data[:] = b"\2" * 3 * CHUNK_LEN
    memory.bad = {7, 8}
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        if calls > when:
            raise GoneError

    memory.before_read = fail
    with pytest.raises(GoneError):
        scan.refine("changed")
    memory.before_read = lambda: None
    assert (scan.addresses() == addresses).all()
    assert (scan.values() == values).all()
    assert scan.skipped == skipped
    scan = scan.refine("increased")
    assert len(scan) == len(addresses) - PAGE // 8


def test_a_predicate_that_raises_leaves_the_scan_as_it_was() -> None:
    """Its error comes out as it is."""
    memory = Bytes(struct.pack("@4I", 1, 2, 3, 4))
    scan = scan_of(memory, u32, [(BASE, BASE + 16)])

    def fail(_: Any) -> Any:
        raise GoneError

    with pytest.raises(GoneError):
        scan.refine("unchanged", value=fail)
    assert scan.values().tolist() == [1, 2, 3, 4]
    with pytest.raises(GoneError):
        scan_of(memory, u32, [(BASE, BASE + 16)], value=fail)


def test_progress_that_raises_leaves_the_scan_as_it_was() -> None:
    """A caller may end a long look that way."""
    memory = Bytes(struct.pack("@4I", 1, 2, 3, 4))
    scan = scan_of(memory, u32, [(BASE, BASE + 16)])

    def fail(_done: int, _total: int) -> None:
        raise GoneError

    memory.data[:] = bytes(16)
    with pytest.raises(GoneError):
        scan.refine("changed", progress=fail)
    assert scan.values().tolist() == [1, 2, 3, 4]


# Untouched memory


def test_untouched_zeros_are_not_read() -> None:
    """For a value that is not 0 they are passed over; values over their edges are found."""
    n = 8 * CHUNK_LEN
    memory = Bytes(bytes(n), zeros=[(BASE + PAGE, BASE + n - PAGE)])
    memory.poke(PAGE - 2, b"\1\2")
    memory.poke(n - PAGE, b"\3\4")
    seen: list[Pair] = []
    scan = scan_of(
        memory,
        u32,
        [(BASE, BASE + n)],
        align=1,
        value=lambda v: v == 0x04030000,
        progress=_into(seen),
    )
    assert [at - BASE for at in scan] == [n - PAGE - 2]
    assert seen[-1] == (n, n)
    assert sum(length for _, length in memory.reads) <= 3 * PAGE
    again = scan_of(memory, u32, [(BASE, BASE + n)], align=1, value=0x0201)
    assert [at - BASE for at in again] == [PAGE - 2]


def test_untouched_zeros_are_candidates_for_zero() -> None:
    """They count as the zeros that they are, and are looked at anew later."""
    n = 2 * CHUNK_LEN
    memory = Bytes(b"\1" * PAGE + bytes(n - PAGE), zeros=[(BASE + PAGE, BASE + n)])
    scan = scan_of(memory, u64, [(BASE, BASE + n)], value=0)
    assert len(scan) == (n - PAGE) // 8
    assert memory.reads == [(BASE, PAGE)]
    memory.poke(CHUNK_LEN, b"\5")
    memory.zeros = [(BASE + PAGE, BASE + CHUNK_LEN), (BASE + CHUNK_LEN + PAGE, BASE + n)]
    scan = scan.refine("increased")
    assert [at - BASE for at in scan] == [CHUNK_LEN]
    assert scan.values().tolist() == [5]


# Mistakes


def test_a_refine_by_nothing_or_by_another_word_is_a_mistake() -> None:
    """The words are named, and the scan stays as it was."""
    scan = scan_of(Bytes(bytes(16)), u32, [(BASE, BASE + 16)])
    with pytest.raises(ValueError, match="no condition was given"):
        scan.refine()
    for word in ("bigger", "", "Changed"):
        with pytest.raises(ValueError, match="changed, unchanged, increased, decreased"):
            scan.refine(word)  # type: ignore[arg-type]
    assert len(scan) == 4


@pytest.mark.parametrize(
    ("kind", "number"),
    [(u8, 256), (u8, -1), (i8, 128), (i64, 1 << 63), (u64, 1 << 64), (f32, 1e39)],
)
def test_a_number_that_does_not_fit_is_an_overflow(kind: Any, number: Any) -> None:
    """At the first look and at a later one."""
    memory = Bytes(bytes(16))
    with pytest.raises(OverflowError):
        scan_of(memory, kind, [(BASE, BASE + 16)], value=number)
    scan = scan_of(memory, kind, [(BASE, BASE + 16)])
    with pytest.raises(OverflowError):
        scan.refine("unchanged", value=number)
    assert len(scan) == 16 // kind.size


def test_a_number_that_a_dtype_can_not_hold_is_an_overflow() -> None:
    """As with a pod."""
    with pytest.raises(OverflowError):
        scan_of(Bytes(bytes(16)), ">u2", [(BASE, BASE + 16)], value=1 << 16)


@pytest.mark.parametrize("value", ["a", None, b"ab", [1], 1.5, ("a", "b")])
def test_a_value_that_is_no_number_is_a_mistake(value: Any) -> None:
    """A TypeError, at the first look and later."""
    memory = Bytes(bytes(16))
    with pytest.raises(TypeError):
        scan_of(memory, u32, [(BASE, BASE + 16)], value=value)
    scan = scan_of(memory, u32, [(BASE, BASE + 16)])
    with pytest.raises(TypeError):
        scan.refine(value=value)


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), range(0, 10, 2)])
def test_bounds_that_are_not_two_are_a_mistake(value: Any) -> None:
    """A range with a step leaves numbers out."""
    memory = Bytes(bytes(16))
    with pytest.raises(ValueError, match=r"lowest|leaves numbers out"):
        scan_of(memory, u32, [(BASE, BASE + 16)], value=value)
    with pytest.raises(ValueError, match=r"lowest|leaves numbers out"):
        scan_of(memory, u32, [(BASE, BASE + 16)]).refine(value=value)


class Point(ctypes.Structure):
    _fields_: ClassVar = [("x", ctypes.c_int32), ("y", ctypes.c_int32)]


@pytest.mark.parametrize("kind", [Point, ctypes.c_uint8 * 4, ctypes.c_void_p, "O", object(), None])
def test_what_is_no_number_is_not_scanned(kind: Any) -> None:
    """A structure, an array, a pointer, an object."""
    with pytest.raises(TypeError):
        scan_of(Bytes(bytes(16)), kind, [(BASE, BASE + 16)])


@pytest.mark.parametrize("kind", ["3u4", "S5", "V3", [("a", "u1"), ("b", ">u2")]])
def test_a_dtype_of_no_number_is_not_scanned(kind: Any) -> None:
    """Text, bytes, records and arrays have no order, and an array is no one value."""
    with pytest.raises(TypeError):
        scan_of(Bytes(bytes(32)), kind, [(BASE, BASE + 32)])


@pytest.mark.parametrize("answer", [True, [True], "short", "numbers", None])
def test_a_predicate_that_does_not_answer_for_each_value_is_a_mistake(answer: Any) -> None:
    """At the first look and at a later one; one answer for all is none."""

    def answered(values: Any) -> Any:
        made = {"short": np.ones(1, bool), "numbers": values.astype(np.uint32)}
        return made.get(answer, answer) if isinstance(answer, str) else answer

    memory = Bytes(bytes(32))
    with pytest.raises(TypeError, match="one for each"):
        scan_of(memory, u32, [(BASE, BASE + 32)], value=answered)
    scan = scan_of(memory, u32, [(BASE, BASE + 32)])
    with pytest.raises(TypeError, match="one for each"):
        scan.refine(value=answered)
    assert len(scan) == 8


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"align": -1}, procvm.InvalidArgsError),
        ({"align": 1.0}, TypeError),
        ({"threads": -1}, procvm.InvalidArgsError),
        ({"threads": 1.5}, TypeError),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    """Before anything is read."""
    memory = Bytes(bytes(16))
    with pytest.raises(error) as caught:
        scan_of(memory, u32, [(BASE, BASE + 16)], **arguments)
    assert type(caught.value) is error
    assert memory.reads == []


def test_ranges_out_of_user_space_are_refused() -> None:
    """Before anything is read."""
    memory = Bytes(bytes(16))
    with pytest.raises(procvm.AccessDeniedError):
        scan_of(memory, u32, [(BASE, BASE + 16), ((1 << 47) - 8, (1 << 47) + 8)])
    assert memory.reads == []


def test_where_it_is_not_known_what_is_mapped_ranges_are_needed() -> None:
    """The error says so."""
    with pytest.raises(procvm.UnsupportedError, match="give the ranges"):
        VmSpace(Bytes(bytes(16))).scan(u32)


def test_without_numpy_a_scan_names_the_package() -> None:
    """The error says how to install it, whatever is looked for."""
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "import os, procvm\n"
        "with procvm.open(os.getpid()) as process:\n"
        "    for arguments in ({}, {'value': 5}, {'value': (1, 2)}):\n"
        "        try: process.vm.scan(procvm.u32, ranges=[], **arguments)\n"
        "        except procvm.UnsupportedError as error: print(error)\n"
    )
    argv = [sys.executable, "-c", code]
    told = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told == "a scan needs numpy: pip install 'procvm[numpy]'\n" * 3


# A look that is undone, numbers as they are shown, all widths, files


def test_refine_leaves_the_older_scan_for_undo() -> None:
    """A wrong look is undone by going on with the scan before it."""
    memory = Bytes(struct.pack("@4i", 1, 2, 3, 4))
    scan = scan_of(memory, i32, [(BASE, BASE + 16)])
    memory.data[:] = struct.pack("@4i", 1, 9, 9, 4)
    wrong = scan.refine("unchanged")
    right = scan.refine("changed")
    assert [at - BASE for at in wrong] == [0, 12]
    assert [at - BASE for at in right] == [4, 8]
    assert len(scan) == 4
    assert scan.values().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("about", "holds"),
    [
        (1.35, lambda text: text(2) == "1.35"),
        ("1.350", lambda text: text(3) == "1.350"),
        (2, lambda text: text(0) == "2"),
        (-0.5, lambda text: text(1) == "-0.5"),
    ],
)
def test_scan_about_a_number_finds_the_values_that_print_so(
    about: Any, holds: Callable[[Callable[[int], str]], bool]
) -> None:
    """Exactly the values whose text, with as many digits, is the number; ties to even too."""
    made = random.Random(3)
    values = [1.345, 1.355, 1.3549999, 1.3500001, 1.5, 2.5, 2.49, -0.55, -0.45, -0.5, 1.35]
    values += [made.uniform(1.34, 1.36) for _ in range(200)] + [math.nan, math.inf, -math.inf]
    for pod, code in ((f64, "d"), (f32, "f")):
        data = struct.pack(f"@{len(values)}{code}", *values)
        kept = struct.unpack(f"@{len(values)}{code}", data)
        size = pod.size
        scan = scan_of(Bytes(data), pod, [(BASE, BASE + len(data))], about=about)
        expected = [
            k
            for k, value in enumerate(kept)
            if holds(lambda digits, v=value: f"{v:.{digits}f}")  # type: ignore[misc]
        ]
        assert [(at - BASE) // size for at in scan] == expected


def test_scan_about_for_integers_is_the_number() -> None:
    memory = Bytes(struct.pack("@4i", 99, 100, 101, -100))
    ranges = [(BASE, BASE + 16)]
    assert list(scan_of(memory, i32, ranges, about=100)) == [BASE + 4]
    assert list(scan_of(memory, i32, ranges, about="100")) == [BASE + 4]
    assert list(scan_of(memory, i32, ranges, about=100.5)) == []
    assert list(scan_of(memory, i32, ranges).refine(about=-100)) == [BASE + 12]
    for wrong, error in (
        ("x", ValueError),
        (math.inf, ValueError),
        (True, TypeError),
        ([], TypeError),
    ):
        with pytest.raises(error):
            scan_of(memory, i32, ranges, about=wrong)


def test_scan_of_a_number_finds_every_width() -> None:
    """100 as i8, i16, i32, i64, f32 and f64, each told by its kind."""
    data = bytearray(b"\xee" * 64)
    struct.pack_into("<b", data, 1, 100)
    struct.pack_into("<h", data, 4, 100)
    struct.pack_into("<i", data, 8, 100)
    struct.pack_into("<q", data, 16, 100)
    struct.pack_into("<f", data, 24, 100)
    struct.pack_into("<d", data, 32, 100)
    memory = Bytes(bytes(data))
    scan = scan_of(memory, "number", [(BASE, BASE + 64)], value=100)
    found = {(place.address - BASE, getattr(place.kind, "name", "")) for place in scan.places()}
    wanted = {(1, "i8"), (4, "i16"), (8, "i32"), (16, "i64"), (24, "f32"), (32, "f64")}
    assert wanted <= found
    assert set(scan.values().tolist()) == {100}
    assert list(scan) == sorted(scan) == scan.addresses().tolist()
    assert len(list(scan)) == len(scan) == len(scan.values())
    struct.pack_into("<d", memory.data, 32, 250.5)
    struct.pack_into("<b", memory.data, 1, -56)  # 200 as u8
    left = scan.refine("changed")
    assert [(place.address - BASE, place.value) for place in left.places()] == [
        (1, -56),
        (32, 250.5),
    ]
    assert [(place.address - BASE, place.value) for place in left.refine(value=200).places()] == [
        (1, 200)
    ]
    assert [place.value for place in left.refine(value=250.5).places()] == [250.5]
    assert [place.value for place in left.refine(about=250.5).places()] == [250.5]
    assert len(left.refine(value=200).refine(value=-56)) == 0


def test_scan_that_was_saved_goes_on_where_it_was(tmp_path: Path) -> None:
    """Candidates, values and skipped ranges are kept; the file is private."""
    made = random.Random(8)
    memory = Bytes(made.randbytes(3 * PAGE), bad=[1])
    vm = VmSpace(memory)
    for number, kind in enumerate((i32, ">u2", "number")):
        for arguments in ({}, {"value": (0, 1000)}):
            scan = scan_of(memory, kind, [(BASE, BASE + 3 * PAGE)], **arguments)
            path = tmp_path / f"scan{number}"
            scan.save(path)
            assert path.stat().st_mode & 0o777 == 0o600
            again = Scan.load(path, vm)
            assert list(again) == list(scan)
            assert str(again.values().tolist()) == str(scan.values().tolist())  # nan too
            assert again.skipped == scan.skipped
            assert list(again.refine("unchanged")) == list(scan.refine("unchanged"))


def test_scan_file_that_is_damaged_is_refused(tmp_path: Path) -> None:
    """MalformedError for any cut and for another file; MismatchError for another process."""
    memory = Bytes(bytes(range(256)) * 16)
    path = tmp_path / "scan"
    scan_of(memory, u16, [(BASE, BASE + PAGE)], value=(0, 4000)).save(path)
    data = path.read_bytes()
    for bad in (b"", b"x" * 100, data[: len(data) // 2], data[:-30], b"PK\3\4" + bytes(50)):
        path.write_bytes(bad)
        with pytest.raises(procvm.MalformedError, match="is not a saved scan"):
            Scan.load(path, VmSpace(memory))
    with pytest.raises(FileNotFoundError):
        Scan.load(tmp_path / "none", VmSpace(memory))

    class Other(Bytes):
        @property
        def pid(self) -> int:
            return 77

    path.write_bytes(data)
    other = VmSpace(Other(bytes(memory.data)))
    with pytest.raises(procvm.MismatchError, match="process 77"):
        Scan.load(path, other)
    assert len(Scan.load(path, other, same_pid=False)) == len(Scan.load(path, VmSpace(memory)))
