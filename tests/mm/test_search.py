"""Search over fakes: every kind of needle against plain Python, with borders everywhere."""

from __future__ import annotations

import ctypes
import operator
import pickle
import re
import struct
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import procvm
from procvm import PageFaultError, Pod, VmSpace, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from procvm._base.optional import numpy_or_none
from procvm._local.buffers import address_of_bytes, copy
from procvm._mm.extent import Extent
from procvm._mm.memory import Region, UserMemory
from procvm._space.patterns import NOTHING, Hit, needle_of
from procvm._space.pieces import CHUNK_LEN, tasks_of
from procvm._space.search import Search
from tests.support.fakes import laid_out
from tests.support.playground import PAGE

ROOT = Path(__file__).parent.parent.parent
PAGES_AT = 0x7000_0000_0000
KIB, MIB = 1 << 10, 1 << 20
LONG = 64 * KIB
"""A run that was never touched is told if it is as long."""

Pair = tuple[int, int]


class Flat(UserMemory):
    """Bytes from an address on; faults outside of them and in the pages that are bad.

    `reads` lists what was asked for, as (address, length).
    """

    def __init__(
        self,
        data: bytes,
        base: int = PAGES_AT,
        *,
        bad: Iterable[int] = (),
        zeros: Sequence[Pair] = (),
        regions: Sequence[Region] | None = None,
    ) -> None:
        self.data, self.base = data, base
        self.bad = sorted(bad)
        self.zeros = list(zeros)
        self._regions = regions
        self.reads: list[Pair] = []

    @property
    def domain(self) -> object:
        return self

    @property
    def end(self) -> int:
        return 1 << 47

    def forced(self) -> UserMemory:
        return self

    def regions(self) -> list[Region] | None:
        return None if self._regions is None else list(self._regions)

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        return laid_out(start, end, self.zeros, least=LONG, regions=self._regions)

    def read(self, address: int, own_address: int, n: int) -> None:
        self.reads.append((address, n))
        first_bad = min((p for p in self.bad if p + PAGE > address), default=self.end)
        stop = min(max(first_bad, address), self.base + len(self.data))
        good = max(0, min(n, stop - address)) if address >= self.base else 0
        if good:
            part = self.data[address - self.base : address - self.base + good]
            copy(own_address, address_of_bytes(part), good)
        if good < n:
            raise PageFaultError("bad", address=address + good, pid=1, copied_len=good)

    def write(self, address: int, own_address: int, n: int) -> None:
        raise AssertionError("a search writes nothing")


class Outcome(NamedTuple):
    """All that a search gives."""

    hits: list[int]
    skipped: list[Pair]


def search(
    memory: UserMemory,
    needle: Any,
    ranges: list[Pair],
    chunk_len: int,
    threads: int = 1,
) -> Outcome:
    """Searches in pieces of any length; progress must come to all of it."""
    total = sum(end - start for start, end in ranges)
    seen: list[Pair] = [(0, total)]
    found = Search(
        tasks_of(memory, needle, ranges, chunk_len),
        total=total,
        threads=threads,
        executor=None,
        progress=lambda done, of: seen.append((done, of)),
    )
    hits: list[int] = list(found)
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)
    assert {of for _, of in seen} == {total}
    return Outcome(hits, found.skipped)


def needle(what: Any, *, value: Any = NOTHING, align: int = 1, max_len: int = 4096) -> Any:
    return needle_of(what, value, align, max_len)


# What plain Python finds


def places(data: bytes, base: int, n: int, ranges: Sequence[Pair], align: int) -> Iterable[int]:
    """Every aligned address at which `n` bytes of one range begin."""
    for start, end in ranges:
        for at in range(max(start, base), min(end, base + len(data)) - n + 1):
            if at % align == 0:
                yield at


def find_bytes(data: bytes, base: int, what: bytes, ranges: list[Pair], align: int) -> list[int]:
    hits: list[int] = []
    for start, end in ranges:
        at = data.find(what, start - base, end - base)
        while at >= 0:
            if (at + base) % align == 0:
                hits.append(at + base)
            at = data.find(what, at + 1, end - base)
    return hits


def find_pattern(data: bytes, base: int, text: str, ranges: list[Pair], align: int) -> list[int]:
    digits = text.replace(" ", "").lower()
    n = len(digits) // 2

    def fits(at: int) -> bool:
        there = data[at - base : at - base + n].hex()
        return all(want in ("?", have) for want, have in zip(digits, there, strict=True))

    return [at for at in places(data, base, n, ranges, align) if fits(at)]


def find_expression(
    data: bytes, base: int, what: re.Pattern[bytes], ranges: list[Pair], align: int, max_len: int
) -> list[int]:
    hits = []
    for start, end in ranges:
        part = data[start - base : end - base]
        at = 0
        while at < len(part):
            matched = what.match(part, at, min(at + max_len, len(part)))
            if matched is None or (at + start) % align:
                at += 1
                continue
            hits.append(at + start)
            at = max(matched.end(), at + 1)
    return hits


def find_values(
    data: bytes,
    base: int,
    code: str,
    good: Callable[[Any], bool],
    ranges: list[Pair],
    align: int,
) -> list[int]:
    n = struct.calcsize(code)
    return [
        at
        for at in places(data, base, n, ranges, align)
        if good(struct.unpack_from(code, data, at - base)[0])
    ]


# What is searched


BYTES = st.one_of(
    st.binary(max_size=150),
    st.lists(
        st.tuples(
            st.sampled_from([b"\0", b"\0\1", b"ab", b"aab", b"\xff", b"\1"]), st.integers(1, 9)
        )
    ).map(lambda parts: b"".join(part * k for part, k in parts)[:300]),
)
ODD = st.integers(0, 2 * PAGE).map(lambda n: PAGES_AT + n)
CHUNKS = st.integers(1, 64)
ALIGNS = st.sampled_from([1, 1, 2, 3, 4, 5, 7, 8, 16])
THREADS = st.sampled_from([1, 1, 1, 3])


class Place(NamedTuple):
    """Bytes at an address, and the ranges of them that are searched."""

    data: bytes
    base: int
    ranges: list[Pair]


@st.composite
def placed(draw: st.DrawFn) -> Place:
    data = draw(BYTES)
    base = draw(ODD)
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=6)))
    if len(cuts) % 2:
        cuts = cuts[1:]
    if draw(st.booleans()) or not cuts:
        cuts = [0, len(data)]
    pairs = [(base + a, base + b) for a, b in zip(cuts[::2], cuts[1::2], strict=True) if a < b]
    return Place(data, base, pairs)


@st.composite
def placed_with_part(draw: st.DrawFn) -> tuple[Place, bytes]:
    """A place, and bytes that mostly stand there."""
    place = draw(placed())
    if place.data and draw(st.booleans()):
        at = draw(st.integers(0, len(place.data) - 1))
        return place, place.data[at : at + draw(st.integers(1, 12))]
    few = st.sampled_from([b"\0", b"\0\0", b"\0\0\0", b"\0\0\1", b"a", b"aa", b"ab", b"\xff" * 7])
    return place, draw(few)


PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


@PROPERTY
@given(placed_with_part(), CHUNKS, ALIGNS, THREADS)
def test_bytes_are_found_where_python_finds_them(
    where: tuple[Place, bytes], chunk_len: int, align: int, threads: int
) -> None:
    """Every place, overlapping ones too, each once, in order, at every alignment."""
    (data, base, ranges), what = where
    found = search(Flat(data, base), needle(what, align=align), ranges, chunk_len, threads)
    assert found == (find_bytes(data, base, what, ranges, align), [])


@PROPERTY
@given(placed_with_part(), st.data(), CHUNKS, ALIGNS, THREADS)
def test_patterns_are_found_by_their_fixed_digits(
    where: tuple[Place, bytes], more: st.DataObject, chunk_len: int, align: int, threads: int
) -> None:
    """Whole and half bytes of a pattern may be anything; the rest stands as given."""
    (data, base, ranges), part = where
    kept = more.draw(st.lists(st.booleans(), min_size=2 * len(part), max_size=2 * len(part)))
    digits = "".join(digit if keep else "?" for digit, keep in zip(part.hex(), kept, strict=True))
    pairs = " ".join(digits[k : k + 2] for k in range(0, len(digits), 2))
    text = more.draw(st.sampled_from([pairs, pairs.upper(), digits]))
    if set(digits) == {"?"}:
        with pytest.raises(ValueError, match="matches everywhere"):
            needle(text)
        return
    found = search(Flat(data, base), needle(text, align=align), ranges, chunk_len, threads)
    assert found == (find_pattern(data, base, pairs, ranges, align), [])


def test_a_single_question_mark_is_a_whole_byte() -> None:
    """`?` between blanks stands for one byte, as `??` does."""
    data = bytes.fromhex("488b01ff 488b02ff 488a01ff")
    for text in ("48 8B ? FF", "48 8b ?? ff", "488B??FF"):
        ranges = [(PAGES_AT, PAGES_AT + len(data))]
        assert search(Flat(data), needle(text), ranges, 5).hits == [PAGES_AT, PAGES_AT + 4]


EXPRESSIONS = [
    rb"a+",
    rb"ab|ba",
    rb"a[^a]{0,3}a",
    rb"\x00+?[^\x00]",
    rb"(?s)a.{3}",
    rb"(?<=\x00)[^\x00]",
    rb"(?<!a)b",
    rb"(?<=ab)a",
    rb"a(?=b)",
    rb"\ba",
    rb"(a)\1",
    rb"[\x00-\x02]{2,5}\x01",
]


@PROPERTY
@given(placed(), st.sampled_from(EXPRESSIONS), CHUNKS, st.integers(2, 20), ALIGNS, THREADS)
def test_expression_hits_are_those_of_re_whatever_the_piece_size(
    where: Place, source: bytes, chunk_len: int, max_len: int, align: int, threads: int
) -> None:
    """None begins inside another; each match is one of at most max_len bytes."""
    data, base, ranges = where
    what = re.compile(source)
    looked_for = needle(what, align=align, max_len=max_len)
    found = search(Flat(data, base), looked_for, ranges, chunk_len, threads)
    expected: tuple[list[int], list[Pair]]
    expected = (find_expression(data, base, what, ranges, align, max_len), [])
    assert tuple(found) == expected
    if align == 1 and all(end - start <= max_len for start, end in ranges):
        there = [
            (match.start() + start, match.end() + start)
            for start, end in ranges
            for match in what.finditer(data[start - base : end - base])
        ]
        assert [(hit, hit.end) for hit in found.hits if isinstance(hit, Hit)] == there


CODES = [
    (u8, "B"),
    (i8, "b"),
    (u16, "H"),
    (i16, "h"),
    (u32, "I"),
    (i32, "i"),
    (u64, "Q"),
    (i64, "q"),
]


@PROPERTY
@given(
    placed(), st.sampled_from(CODES), st.data(), CHUNKS, st.sampled_from([1, 2, 4, 8, 16]), THREADS
)
def test_numbers_are_found_as_struct_reads_them(
    where: Place,
    kind: tuple[Pod[int], str],
    more: st.DataObject,
    chunk_len: int,
    align: int,
    threads: int,
) -> None:
    """A number, a range and a pair of bounds give the places that struct says hold them."""
    data, base, ranges = where
    pod, code = kind
    there = [struct.unpack_from(code, data, at)[0] for at in range(len(data) - pod.size + 1)] or [0]
    low, high = sorted((more.draw(st.sampled_from(there)), more.draw(st.sampled_from(there))))
    asked: list[tuple[Any, Callable[[int], bool]]] = [
        (low, lambda v: v == low),
        ((low, high), lambda v: low <= v <= high),
        (range(low, high), lambda v: low <= v < high),
        ((-(1 << 70), high), lambda v: v <= high),
    ]
    value, good = more.draw(st.sampled_from(asked))
    looked_for = needle(pod, value=value, align=align)
    found = search(Flat(data, base), looked_for, ranges, chunk_len, threads)
    assert found == (find_values(data, base, code, good, ranges, align), [])
    if isinstance(value, int):
        assert (
            search(Flat(data, base), needle((pod, value), align=align), ranges, chunk_len) == found
        )


@PROPERTY
@given(placed(), st.sampled_from([(f32, "f"), (f64, "d")]), st.data(), CHUNKS)
def test_floats_are_found_as_struct_reads_them(
    where: Place, kind: tuple[Pod[float], str], more: st.DataObject, chunk_len: int
) -> None:
    """The same number, whatever its bytes: 0.0 is -0.0, and nothing is a NaN."""
    data, base, ranges = where
    pod, code = kind
    there = [struct.unpack_from(code, data, at)[0] for at in range(len(data) - pod.size + 1)] or [
        0.0
    ]
    value = more.draw(st.sampled_from([*there, 0.0, -0.0]))
    found = search(Flat(data, base), needle(pod, value=value), ranges, chunk_len)
    assert found == (find_values(data, base, code, lambda v: bool(v == value), ranges, 1), [])


@PROPERTY
@given(placed(), st.sampled_from(CODES), CHUNKS, st.sampled_from([1, 2, 8]))
def test_a_numpy_predicate_says_which_are_meant(
    where: Place, kind: tuple[Pod[int], str], chunk_len: int, align: int
) -> None:
    """A predicate over arrays gives the places whose value it is true of."""
    data, base, ranges = where
    pod, code = kind
    looked_for = needle(pod, value=lambda values: values % 3 == 1, align=align)
    found = search(Flat(data, base), looked_for, ranges, chunk_len)
    assert found == (find_values(data, base, code, lambda v: v % 3 == 1, ranges, align), [])


@PROPERTY
@given(placed(), st.sampled_from([">u4", "<u2", ">i8", "u1"]), st.data(), CHUNKS)
def test_numpy_dtypes_of_either_byte_order_are_found(
    where: Place, dtype: str, more: st.DataObject, chunk_len: int
) -> None:
    """A dtype is read as numpy reads it, by number and by bounds."""
    data, base, ranges = where
    code = {">u4": ">I", "<u2": "<H", ">i8": ">q", "u1": "B"}[dtype]
    n = struct.calcsize(code)
    there = [struct.unpack_from(code, data, at)[0] for at in range(len(data) - n + 1)] or [0]
    value = more.draw(st.sampled_from(there))
    for asked, compare in ((value, operator.eq), ((value, (1 << 63) - 1), operator.ge)):
        looked_for = needle(numpy_or_none().dtype(dtype), value=asked)
        found = search(Flat(data, base), looked_for, ranges, chunk_len)
        good = partial(_holds, compare, value)
        assert found == (find_values(data, base, code, good, ranges, 1), [])


def _holds(compare: Callable[[Any, Any], bool], value: Any, found: Any) -> bool:
    return compare(found, value)


@PROPERTY
@given(placed_with_part(), CHUNKS, ALIGNS, THREADS)
def test_several_needles_say_which_it_was(
    where: tuple[Place, bytes], chunk_len: int, align: int, threads: int
) -> None:
    """The hits of all of them in one order, equal addresses by the order of the needles."""
    (data, base, ranges), part = where
    word = struct.unpack("I", (part * 4)[:4])[0]
    whats = [part, "0? ??", re.compile(rb"a+b"), (u32, word), part]
    looked_for = needle(whats, align=align, max_len=6)
    found = search(Flat(data, base), looked_for, ranges, chunk_len, threads)
    expected = sorted(
        (at, k)
        for k, hits in enumerate(
            [
                find_bytes(data, base, part, ranges, align),
                find_pattern(data, base, "0? ??", ranges, align),
                find_expression(data, base, re.compile(rb"a+b"), ranges, align, 6),
                find_values(data, base, "I", lambda v: v == word, ranges, align),
                find_bytes(data, base, part, ranges, align),
            ]
        )
        for at in hits
    )
    assert [(int(hit), getattr(hit, "needle", None)) for hit in found.hits] == expected
    assert all(type(hit) is Hit for hit in found.hits)


def test_a_hit_pickles_with_its_needle() -> None:
    """A hit of several is an int that keeps which one it was, also in another process."""
    hit = pickle.loads(pickle.dumps(Hit(0x1000, 2)))
    assert (type(hit), hit, hit.needle, hit + 1) == (Hit, 0x1000, 2, 0x1001)


def test_a_structure_is_found_by_its_bytes() -> None:
    """A value of a ctypes structure is looked for as the bytes that it is."""

    class Point(ctypes.Structure):
        _fields_ = (("x", ctypes.c_uint32), ("y", ctypes.c_uint32))

    data = bytes(5) + struct.pack("II", 1, 2) + struct.pack("II", 2, 1) + bytes(4)
    ranges = [(PAGES_AT, PAGES_AT + len(data))]
    found = search(Flat(data), needle(Point, value=Point(1, 2)), ranges, 7)
    assert found == ([PAGES_AT + 5], [])


def test_an_aligned_structure_is_found_by_its_bytes_numpy() -> None:
    """At an alignment of its own size too."""

    class Point(ctypes.Structure):
        _fields_ = (("x", ctypes.c_uint32), ("y", ctypes.c_uint32))

    data = bytes(8) + struct.pack("II", 1, 2)
    ranges = [(PAGES_AT, PAGES_AT + len(data))]
    looked_for = needle(Point, value=Point(1, 2), align=8)
    assert search(Flat(data), looked_for, ranges, 7) == ([PAGES_AT + 8], [])


def test_numpy_values_stand_at_multiples_of_any_alignment() -> None:
    """Only multiples of the alignment are given, and all of them."""
    data = bytes(range(1, 60))
    ranges = [(PAGES_AT, PAGES_AT + len(data))]
    for align in (3, 5, 6, 7):
        found = search(Flat(data), needle(u32, value=(0, 1 << 32), align=align), ranges, 64)
        expected = find_values(data, PAGES_AT, "I", lambda v: v >= 0, ranges, align)
        assert found == (expected, [])


# Holes


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["good", "good", "bad"]), min_size=1, max_size=6),
    st.integers(0, PAGE - 1),
    st.integers(0, PAGE - 1),
    st.sampled_from([b"\0", b"ab", b"ba" * 3, b"\0a"]),
    st.integers(PAGE // 3, 3 * PAGE),
    THREADS,
)
def test_holes_are_stepped_over_and_told(
    kinds: list[str], before: int, behind: int, what: bytes, chunk_len: int, threads: int
) -> None:
    """Hits on both sides are found, none reaches into a hole, and `skipped` is the bad pages."""
    n = len(kinds) * PAGE
    data = (b"ab" * 9 + b"\0")[::-1] * (n // 19 + 1)
    data = data[:n]
    bad = [PAGES_AT + k * PAGE for k, kind in enumerate(kinds) if kind == "bad"]
    low, high = PAGES_AT + before, PAGES_AT + n - behind
    if low >= high:
        return
    runs, skipped = good_and_bad(bad, low, high)
    memory = Flat(data, bad=bad, regions=[Region(PAGES_AT, PAGES_AT + n, 1)])
    found = search(memory, needle(what), [(low, high)], chunk_len, threads)
    assert found == (find_bytes(data, PAGES_AT, what, runs, 1), skipped)


def good_and_bad(bad: Sequence[int], low: int, high: int) -> tuple[list[Pair], list[Pair]]:
    """Cuts a range into the runs that can be read and those that can not."""
    runs: dict[bool, list[Pair]] = {True: [], False: []}
    at = low
    while at < high:
        end = min(at // PAGE * PAGE + PAGE, high)
        same = runs[at // PAGE * PAGE not in bad]
        if same and same[-1][1] == at:
            same[-1] = (same[-1][0], end)
        else:
            same.append((at, end))
        at = end
    return runs[True], runs[False]


def test_a_long_hole_is_passed_by_what_is_mapped() -> None:
    """Behind a hole of many pages the search goes on at the next mapping, not page by page."""
    nr_pages = 200
    data = bytes(nr_pages * PAGE) + b"needle" + bytes(PAGE)
    bad = [PAGES_AT + k * PAGE for k in range(1, nr_pages)]
    regions = [
        Region(PAGES_AT, PAGES_AT + PAGE, 1),
        Region(PAGES_AT + nr_pages * PAGE, PAGES_AT + (nr_pages + 1) * PAGE, 1),
    ]
    memory = Flat(data, bad=bad, regions=regions)
    high = PAGES_AT + (nr_pages + 1) * PAGE
    found = search(memory, needle(b"needle"), [(PAGES_AT, high)], MIB)
    assert found == ([PAGES_AT + nr_pages * PAGE], [(bad[0], bad[-1] + PAGE)])
    assert len(memory.reads) < 30


def test_a_long_hole_is_passed_where_it_is_not_known_what_is_mapped() -> None:
    """A memory that can not tell its mappings is tried page by page."""
    data = bytes(40 * PAGE) + b"needle" + bytes(PAGE)
    bad = [PAGES_AT + k * PAGE for k in range(1, 40)]
    found = search(Flat(data, bad=bad), needle(b"needle"), [(PAGES_AT, PAGES_AT + 41 * PAGE)], MIB)
    assert found == ([PAGES_AT + 40 * PAGE], [(bad[0], bad[-1] + PAGE)])


def test_a_match_of_no_bytes_at_the_end_ends_the_search() -> None:
    """What matches between two bytes stands at the second one, and behind the last is nothing."""
    code = (
        "import re, resource\n"
        # One that does not end uses this up, which ends it.
        "resource.setrlimit(resource.RLIMIT_CPU, (30, 30))\n"
        "from procvm._space.patterns import NOTHING, needle_of\n"
        "needle = needle_of(re.compile(rb'(?<=a)'), NOTHING, 1, 4)\n"
        "print(list(needle.find(memoryview(b'aba'), 0, 0)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"[1]\n"


# Memory that was never touched


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(15, 24)), min_size=1, max_size=3),
    st.sampled_from(
        [
            b"needle",
            b"\0\0needle",
            b"needle\0\0\0",
            "00 00 6?",
            re.compile(rb"needle"),
            re.compile(rb"\x00{3}n"),
            re.compile(rb"(?<=\x00{4})n"),
            re.compile(rb"e\x00{5}"),
            (u32, 0x6E),
            [b"needle", b"\0n"],
        ]
    ),
    st.integers(0, 5000),
    st.sampled_from([PAGE + 13, LONG, LONG + 1, MIB]),
)
def test_untouched_memory_is_zeros_that_are_not_read(
    runs: list[tuple[int, int]], what: Any, before: int, chunk_len: int
) -> None:
    """Hits in zeros, out of zeros and into zeros are found; not a byte of those is read."""
    # Touched pages, each with a needle at its first byte, inside and at its last; zeros between.
    data, zeros, at = bytearray(), [], PAGES_AT
    for touched, untouched in runs:
        zeros.append((at, at + untouched * PAGE))
        page = b"needle" + b"." * (PAGE // 2) + b"needle"
        page += b"." * (touched * PAGE - len(page) - 6) + b"needle"
        data += bytes(untouched * PAGE) + page
        at += (untouched + touched) * PAGE
    zeros.append((at, at + LONG))
    data += bytes(LONG)
    whole = bytes(data)
    low, high = PAGES_AT + before, PAGES_AT + len(whole)
    memory = Flat(whole, zeros=zeros)
    looked_for = needle(what, max_len=32)
    parts = what if isinstance(what, list) else [what]
    found_by = [expected_of(part, whole, low, high) for part in parts]
    expected = sorted(hit for hits in found_by for hit in hits)
    assert search(memory, looked_for, [(low, high)], chunk_len) == (expected, [])
    told = [(max(a, low), b) for a, b in zeros if b - max(a, low) >= LONG]
    for start, n in memory.reads:
        for a, b in told:
            overlap = min(start + n, b) - max(start, a)
            # A short tail of a run, at a border of two pieces, is below what is told as one.
            assert overlap < LONG


def expected_of(what: Any, data: bytes, low: int, high: int) -> list[int]:
    """What plain Python finds of one needle in a long run."""
    if isinstance(what, tuple):
        what = struct.pack("I", what[1])
    if isinstance(what, str):
        what = re.compile(rb"\x00\x00[\x60-\x6f]")
    part = data[low - PAGES_AT : high - PAGES_AT]
    source = what.pattern if isinstance(what, re.Pattern) else re.escape(what)
    return [found.start() + low for found in re.finditer(rb"(?s)(?=" + source + rb")", part)]


def test_untouched_zeros_are_passed_over_at_once() -> None:
    """For a needle that no zeros hold 1 TiB of them is one step, and costs no read."""
    n = 1 << 40
    memory = Flat(b"", zeros=[(PAGES_AT, PAGES_AT + n)])
    assert search(memory, needle(b"x"), [(PAGES_AT, PAGES_AT + n)], MIB) == ([], [])
    assert memory.reads == []


# Dense hits, laziness, arguments


def space(data: bytes, **fields: Any) -> VmSpace:
    return VmSpace(Flat(data, **fields))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_megabyte_of_zeros_is_full_of_zeros(threads: int) -> None:
    """Every place but the last two, over a border of two pieces, each once."""
    n = CHUNK_LEN + 1000
    found = space(bytes(n)).search(b"\0\0\0", ranges=[(PAGES_AT, PAGES_AT + n)], threads=threads)
    assert array("Q", found) == array("Q", range(PAGES_AT, PAGES_AT + n - 2))


def test_neighbours_in_any_order_are_one_range() -> None:
    """Ranges that meet or overlap are searched as one, each hit once and in order."""
    vm = space(b"abc" * 100)
    at = PAGES_AT

    class Mapping(NamedTuple):
        start: int
        end: int

    ranges: list[Any] = [range(at + 7, at + 20), (at + 2, at + 7), Mapping(at + 6, at + 9), (5, 5)]
    seen: list[Pair] = []
    found = vm.search(b"ca", ranges=ranges, progress=lambda *p: seen.append(p))
    assert list(found) == [at + 2, at + 5, at + 8, at + 11, at + 14, at + 17]
    assert seen == [(18, 18)]


def test_the_first_hit_comes_before_the_rest_is_read() -> None:
    """A search reads as far as it is asked for hits."""
    n = 2 * CHUNK_LEN + 1
    memory = Flat(b"needle" + bytes(n - 6))
    done: list[int] = []
    found = VmSpace(memory).search(
        b"needle",
        ranges=[(PAGES_AT, PAGES_AT + n)],
        threads=1,
        progress=lambda n, _: done.append(n),
    )
    assert (memory.reads, done) == ([], [])
    assert next(found) == PAGES_AT
    assert sum(n for _, n in memory.reads) < CHUNK_LEN + PAGE
    assert done == []
    assert list(found) == []
    assert done == [CHUNK_LEN, 2 * CHUNK_LEN, n]


def test_a_search_that_is_closed_gives_nothing_more() -> None:
    """After `close` a search has ended, as one that is at its end."""
    found = space(bytes(100)).search(b"\0", ranges=[(PAGES_AT, PAGES_AT + 100)])
    assert next(found) == PAGES_AT
    found.close()
    found.close()
    assert list(found) == []


def test_an_executor_of_the_caller_runs_the_pieces_and_lives_on() -> None:
    """The same hits by somebody else's threads, which are not shut down."""
    data = (b"ab" * 10 + bytes(100_000)) * 25
    with ThreadPoolExecutor(2) as executor:
        found = space(data).search(
            b"ab", ranges=[(PAGES_AT, PAGES_AT + len(data))], executor=executor
        )
        whole = [(PAGES_AT, PAGES_AT + len(data))]
        assert list(found) == find_bytes(data, PAGES_AT, b"ab", whole, 1)
        assert executor.submit(int, "7").result() == 7


REFUSED: list[tuple[Any, dict[str, Any], type[Exception]]] = [
    (b"", {}, ValueError),
    (bytearray(), {}, ValueError),
    ("", {}, ValueError),
    ("?? ??", {}, ValueError),
    ("4", {}, ValueError),
    ("48 8", {}, ValueError),
    ("48 XX", {}, ValueError),
    ("hello", {}, ValueError),
    ("???", {}, ValueError),
    (re.compile("text"), {}, TypeError),
    (re.compile(rb"a*"), {}, ValueError),
    (None, {}, TypeError),
    (4, {}, TypeError),
    (u32, {}, TypeError),
    (b"ab", {"value": 4}, TypeError),
    ([], {}, ValueError),
    ([b"a", ""], {}, ValueError),
    ([b"a", None], {}, TypeError),
    (u32, {"value": 1 << 32}, OverflowError),
    (u32, {"value": -1}, OverflowError),
    (i8, {"value": 128}, OverflowError),
    (u32, {"value": "4"}, TypeError),
    (u32, {"value": None}, TypeError),
    (u32, {"value": 1.5}, TypeError),
    (u32, {"value": range(0, 10, 2)}, ValueError),
    (u32, {"value": (1, 2, 3)}, ValueError),
    (b"a", {"ranges": [(-1, 5)]}, procvm.InvalidArgsError),
    (b"a", {"ranges": [(0x2000, 0x1000)]}, ValueError),
    (b"a", {"ranges": [range(0x2000, 0x1000, -1)]}, ValueError),
    (b"a", {"ranges": [(0, 1 << 64)]}, procvm.AddressOverflowError),
    (b"a", {"ranges": [(0, 1 << 63)]}, procvm.AccessDeniedError),
    (b"a", {"ranges": (0x1000, 0x2000)}, TypeError),
    (b"a", {"ranges": [("a", "b")]}, TypeError),
    (b"a", {"ranges": 5}, TypeError),
    (b"a", {"ranges": None}, procvm.UnsupportedError),
    (b"a", {"ranges": [(0, 1)], "align": -1}, procvm.InvalidArgsError),
    (b"a", {"ranges": [(0, 1)], "align": 1.0}, TypeError),
    (b"a", {"ranges": [(0, 1 << 30)], "threads": -1}, procvm.InvalidArgsError),
    (b"a", {"ranges": [(0, 1)], "max_len": -1}, procvm.InvalidArgsError),
]


@pytest.mark.parametrize(("what", "arguments", "error"), REFUSED)
def test_what_can_not_be_looked_for_is_refused_at_once(
    what: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    """A mistake is an error of the call, not of the first hit."""
    arguments = {"ranges": [(0x1000, 0x2000)]} | arguments
    with pytest.raises(error) as caught:
        space(b"").search(what, **arguments)
    assert type(caught.value) is error


def test_a_number_that_a_numpy_dtype_can_not_hold_is_refused() -> None:
    """As with a pod: a number that can stand nowhere is a mistake."""
    with pytest.raises(OverflowError):
        space(b"").search(numpy_or_none().dtype("u4"), value=1 << 40, ranges=[(0, 1)])


def test_a_negative_number_of_threads_is_refused_for_a_short_range_too() -> None:
    """A mistake is one whatever is searched."""
    with pytest.raises(procvm.InvalidArgsError):
        space(b"").search(b"a", ranges=[(0, 1)], threads=-1)


def test_bounds_that_are_no_numbers_are_refused_at_once_numpy() -> None:
    """As with a single value: text is no number."""
    with pytest.raises(TypeError):
        space(b"").search(u32, value=("a", "b"), ranges=[(0, 1)])  # type: ignore[misc]


def test_a_numpy_predicate_that_answers_no_array_is_refused() -> None:
    """An answer that is not one for each value says nothing about them."""
    vm = space(bytes(100))
    one_for_all: Any = lambda _: True  # noqa: E731
    with pytest.raises((TypeError, ValueError)):
        list(vm.search(u32, value=one_for_all, ranges=[(PAGES_AT, PAGES_AT + 100)]))


def test_a_list_in_a_list_is_refused() -> None:
    """A hit has one number of its needle, so the needles are one list."""
    nested: Any = [[b"a", b"b"], b"c"]
    with pytest.raises(TypeError):
        space(b"").search(nested, ranges=[(0, 1)])


def test_digits_of_two_tokens_are_not_one_byte() -> None:
    """`1 2` may be meant as 01 02, so it is refused, as `4` is."""
    with pytest.raises(ValueError, match="not a pattern"):
        space(b"").search("1 2", ranges=[(0, 1)])


def test_a_range_with_a_step_is_refused() -> None:
    """It leaves addresses out, which a search would not."""
    with pytest.raises(ValueError, match="step"):
        space(b"").search(b"a", ranges=[range(0, 100, 2)])


def test_a_match_may_be_as_long_as_a_range() -> None:
    """A max_len beyond all that is searched costs no more than that."""
    vm = space(b"abc" * 5)
    found = vm.search(re.compile(rb"abc"), ranges=[(PAGES_AT, PAGES_AT + 15)], max_len=1 << 45)
    assert list(found) == [PAGES_AT + k for k in (0, 3, 6, 9, 12)]


# Without numpy


HIDE_NUMPY = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            raise ImportError("not here")

sys.meta_path.insert(0, Hidden())
"""
# Not None in sys.modules: hypothesis would take that for the module.
WITHOUT_NUMPY = (
    HIDE_NUMPY
    + """
import pytest
rest = "not numpy and not at_once and not megabyte"
sys.exit(pytest.main(["-q", "-x", "-k", rest, *sys.argv[1:]]))
"""
)


def test_all_of_it_holds_without_numpy() -> None:
    """Where that is not installed the same is found in the same order."""
    argv = [sys.executable, "-c", WITHOUT_NUMPY, "-p", "no:cacheprovider", __file__]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def without_numpy(code: str) -> str:
    """Runs code under an interpreter that has no numpy; returns what it prints."""
    argv = [sys.executable, "-c", "import sys; sys.modules['numpy'] = None\n" + code]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_predicate_without_numpy_names_the_package() -> None:
    """The error says how to install what is missing; so for one that is needed by a dtype."""
    told = without_numpy(
        "import procvm\n"
        "from procvm._space.patterns import needle_of\n"
        "try: needle_of(procvm.u32, lambda v: v > 1, 1, 1)\n"
        "except procvm.UnsupportedError as error: print(error)\n"
    )
    assert told == "a predicate over values needs numpy: pip install 'procvm[numpy]'\n"


def test_an_f32_is_the_same_number_with_numpy_and_without() -> None:
    """0.1 is the f32 nearest to it, as numpy has it and as `write_val` stores it."""
    code = (
        "import struct\n"
        "from procvm import f32\n"
        "from procvm._space.patterns import needle_of\n"
        "data = memoryview(struct.pack('ff', 0.1, 0.2))\n"
        "print(list(needle_of(f32, 0.1, 4, 1).find(data, 0, 0)))\n"
        "print(list(needle_of(f32, (0.15, 0.2), 4, 1).find(data, 0, 0)))\n"
    )
    data = memoryview(struct.pack("ff", 0.1, 0.2))
    with_numpy = [
        list(needle(f32, value=value, align=4).find(data, 0, 0)) for value in (0.1, (0.15, 0.2))
    ]
    assert with_numpy == [[0], [4]]
    assert without_numpy(code) == "[0]\n[4]\n"
