"""The engines of a search: the hits of each are those of memmem and re, to the byte."""

from __future__ import annotations

import pickle
import re
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procvm._base.optional import optional
from procvm._local.buffers import Scratch
from procvm._local.find import find_all, pattern_of
from procvm._space import engines
from procvm._space.engines import Literals, TextRuns, find_literal
from procvm._space.needle import Needle
from procvm._space.patterns import needle_of

ENGINES = ["hyperscan", "numpy", "none"]
# Few different bytes, so that literals overlap and contain each other.
BYTES = st.lists(st.sampled_from(b"\x00\x00ab\\.\xff\n"), min_size=1).map(bytes)
MEMORY = st.lists(st.sampled_from(b"\x00\x00ab\\.\xff\n"), max_size=300).map(bytes)


def by_find(data: bytes, literal: bytes) -> list[int]:
    """Returns the offsets of a literal, found by the interpreter."""
    return [at for at in range(len(data)) if data.startswith(literal, at)]


def use(engine: str, patch: pytest.MonkeyPatch) -> None:
    """Makes `Literals` and `find_literal` use one engine."""
    if engine in ("stringzilla", "hyperscan") and optional(engine) is None:
        pytest.skip(f"{engine} is not installed")
    if engine == "numpy" and optional("numpy") is None:
        pytest.skip("numpy is not installed")

    def only(name: str) -> Any:
        return optional(name) if name == engine else None

    patch.setattr(engines, "optional", only)
    if engine == "none":
        patch.setattr(engines, "numpy_or_none", lambda: None)


@settings(deadline=None)
@given(MEMORY, BYTES)
def test_one_literal_by_stringzilla_has_the_hits_of_memmem(data: bytes, literal: bytes) -> None:
    """Overlapping hits too, and literals of zeros and of letters that mean something to re."""
    if optional("stringzilla") is None:
        pytest.skip("stringzilla is not installed")
    room = Scratch(len(data) + 1)
    room.view[: len(data)] = data
    view = room.view[: len(data)]
    plain = find_all(view, room.address, pattern_of(literal, b"\xff" * len(literal)))
    found = find_literal(view, literal)
    assert found is not None
    assert found.tolist() == plain.tolist() == by_find(data, literal)


@pytest.mark.parametrize("engine", ENGINES)
def test_many_literals_at_once_have_the_hits_of_each(engine: str) -> None:
    """Each engine gives for each literal what it gives alone; a search without one as well."""

    @settings(deadline=None, max_examples=60)
    @given(MEMORY, st.lists(BYTES, min_size=1, max_size=9), st.integers(0, 9))
    def check(data: bytes, literals: list[bytes], base: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            use(engine, patch)
            several = Literals(literals)
            for one in (several, pickle.loads(pickle.dumps(several))):
                found = one.find(memoryview(data))
                if found is not None:
                    assert [hits.tolist() for hits in found] == [by_find(data, x) for x in literals]
            needle = needle_of(literals, value_of_none(), 1, 64)
            room = Scratch(len(data) + 1)
            room.view[: len(data)] = data
            first, last = len(data) // 4, len(data)
            hits = needle.find_between(room.view[: len(data)], room.address, base, first, last)
        expected = sorted(
            (base + at, k, base + at + len(literal))
            for k, literal in enumerate(literals)
            for at in by_find(data, literal)
            if first <= at < last
        )
        assert list(zip(hits[::3], hits[1::3], hits[2::3], strict=True)) == expected

    check()


def value_of_none() -> Any:
    """Returns what `needle_of` takes for no value."""
    from procvm._space.patterns import NOTHING  # noqa: PLC0415

    return NOTHING


@pytest.mark.parametrize("engine", ["stringzilla", "hyperscan", "numpy"])
def test_too_many_hits_are_left_to_the_plain_way(engine: str) -> None:
    """An engine that calls Python for each hit gives up; the search finds all of them."""
    data = memoryview(bytes(300_000))
    with pytest.MonkeyPatch.context() as patch:
        use(engine, patch)
        if engine == "stringzilla":
            assert find_literal(data, b"\0\0\0") is None
        else:
            assert Literals([b"\0\0", b"\0\0\0", b"ab", b"cd"]).find(data) is None


def test_each_engine_finds_literals_in_a_large_piece() -> None:
    """A piece of 4 MiB with literals at its first and last bytes and in between."""
    data = bytearray(4 << 20)
    literals = [b"needle%03d" % k for k in range(50)]
    for k, literal in enumerate(literals):
        data[k * 77_777 : k * 77_777 + len(literal)] = literal
    data[-9:] = literals[7]
    expected = [by_index(bytes(data), literal) for literal in literals]
    assert expected[7] == [7 * 77_777, len(data) - 9]
    for engine in ENGINES:
        with pytest.MonkeyPatch.context() as patch:
            if optional(engine) is None and engine != "none":
                continue
            use(engine, patch)
            found = Literals(literals).find(memoryview(data))
        assert (found is None) == (engine == "none")
        if found is not None:
            assert [hits.tolist() for hits in found] == expected


def by_index(data: bytes, literal: bytes) -> list[int]:
    """Returns the offsets of a literal in much memory."""
    return [found.start() for found in re.finditer(b"(?=" + re.escape(literal) + b")", data)]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(b"\x00ab \t\x7f\x1f~\xa0\xff"), max_size=200).map(bytes),
    st.integers(1, 17),
    st.sampled_from(["ascii", "latin-1"]),
)
def test_runs_of_text_by_numpy_are_those_of_the_expression(
    data: bytes, min_len: int, encoding: str
) -> None:
    """Each run begins where an expression finds one, and reaches as far."""
    pytest.importorskip("numpy")
    high = rb"\xa0-\xff" if encoding == "latin-1" else b""
    one = rb"[\x20-\x7e\t" + high + b"]"
    start = re.compile(b"(?<!" + one + b")" + one + b"{%d}" % min_len)
    ranges = ((0x20, 0x7E), (0x09, 0x09), *(((0xA0, 0xFF),) if high else ()))
    needle: Needle = TextRuns(ranges, min_len)
    view = memoryview(data)
    expected = [found.start() for found in start.finditer(data)]
    assert needle.find(view, 0, 0).tolist() == expected
    pairs = needle.find_between(view, 0, 1000, 3, 150)
    inside = [at for at in expected if 3 <= at < 150]
    assert pairs == array("Q", [1000 + at + n for at in inside for n in (0, min_len)])
    assert not needle.found_in_zeros()
