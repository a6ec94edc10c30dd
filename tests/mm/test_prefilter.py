"""Expressions that hyperscan looks for first: the matches are those of `re`, to the byte."""

from __future__ import annotations

import pickle
import re
from array import array

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from procvm._base.optional import optional
from procvm._space import prefilter
from procvm._space.needle import Needle
from procvm._space.patterns import NOTHING, needle_of
from procvm._space.prefilter import prefilter_of

pytestmark = pytest.mark.skipif(
    optional("hyperscan") is None, reason="hyperscan is not installed (x86-64 has wheels)"
)

ATOMS = [
    rb"a", rb"b", rb"A", rb"\x00", rb"\xff", rb"\n", rb".", rb"\d", rb"\D", rb"\s", rb"\S", rb"\w",
    rb"\W", rb"[ab]", rb"[^ab]", rb"[a-z]", rb"[^\x00-\x7f]", rb"[\d_]", rb"[^\s0]", rb"[^a]",
    rb"\.", rb"(?i:a)", rb"(?i:[^k])", rb"(?s:.)", rb"\b", rb"\B", rb"^", rb"$", rb"\A", rb"\Z",
    rb"(?=a)", rb"(?!b)", rb"(?<=a)", rb"(?<!\x00)", rb"(?P<x>a)", rb"(a)\1", rb"[{]", rb"\]",
]  # fmt: skip
REPEATS = [
    b"",
    b"",
    b"",
    b"?",
    b"*",
    b"+",
    b"??",
    b"*?",
    b"+?",
    b"{2}",
    b"{1,3}",
    b"{,2}",
    b"{2,}?",
]
REPEATS += [b"*+", b"?+", b"{1,2}+"]


def _sequences(parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    repeated = st.tuples(parts, st.sampled_from(REPEATS)).map(b"".join)
    joined = st.lists(repeated, min_size=1, max_size=4).map(b"".join)
    either = st.lists(joined, min_size=1, max_size=3).map(b"|".join)
    return st.tuples(st.sampled_from([b"(?:", b"(", b"(?>"]), either).map(
        lambda both: b"".join(both) + b")"
    )


EXPRESSIONS = st.recursive(st.sampled_from(ATOMS), _sequences, max_leaves=8)
FLAGS = st.sampled_from([0, 0, re.I, re.S, re.M, re.I | re.S, re.X])
MEMORY = st.lists(st.sampled_from(b"aaabbAB01 _k\x00\x00\n\xff\xe9.{]"), max_size=200).map(bytes)


def compiled(text: bytes, flags: int) -> re.Pattern[bytes] | None:
    """Returns the expression; None where `re` refuses it, or it matches the empty string."""
    try:
        found = re.compile(text, flags)
    except (re.error, RecursionError):
        return None
    return None if found.match(b"") is not None else found


def needles(expression: re.Pattern[bytes], align: int, max_len: int) -> tuple[Needle, Needle]:
    """Returns the needle with the filter, and without it."""
    with pytest.MonkeyPatch.context() as patch:
        quick = needle_of(expression, NOTHING, align, max_len)
        patch.setattr(prefilter, "optional", lambda _: None)
        return quick, needle_of(expression, NOTHING, align, max_len)


@settings(deadline=None, max_examples=400)
@given(EXPRESSIONS, FLAGS, MEMORY, st.sampled_from([1, 1, 2, 4]), st.sampled_from([1, 3, 10, 4096]))
def test_matches_of_any_expression_are_those_without_the_filter(
    text: bytes, flags: int, data: bytes, align: int, max_len: int
) -> None:
    """Leftmost, greedy, lazy and possessive, cut at the longest match, between any offsets."""
    expression = compiled(text, flags)
    assume(expression is not None)
    assert expression is not None
    quick, plain = needles(expression, align, max_len)
    view = memoryview(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefilter, "_BYTES_PER_END", 0.1)
        for first, last in ((0, len(data)), (7, 90), (64, len(data) - 3)):
            if first < last <= len(data):
                found = quick.find_between(view, 0, 5000, first, last)
                assert found == plain.find_between(view, 0, 5000, first, last)
        if align == 1 and max_len == 4096:
            spans = array("Q")
            for one in expression.finditer(data):
                spans.extend(one.span())
            if not re.search(rb"[$^]|\\[AZbB]|\(\?<?[=!]", text):
                assert quick.find_between(view, 0, 0, 0, len(data)) == spans


@pytest.mark.parametrize(
    "text",
    [rb"[a-z]+@[a-z]+\.com", rb"password=\w+", rb"(?i)https?://[^\x00\s]{4,}", rb"\bx\d{2,5}?\b"],
)
def test_filter_serves_for_usual_expressions(text: bytes) -> None:
    """The filter is there, and tells a few places of a large piece with all matches in them."""
    expression = re.compile(text)
    found = prefilter_of(expression, 4096)
    assert found is not None
    data = bytearray(4 << 20)
    words = b" me@example.com password=secret_1 HTTP://some.where/x x1234 "
    places = [5, 1 << 20, (4 << 20) - len(words)]
    for at in places:
        data[at : at + len(words)] = words
    for each in (found, pickle.loads(pickle.dumps(found))):
        regions = each.regions(memoryview(data))
        assert regions is not None
        assert sum(high - low for low, high in regions) < 50_000
        for match in expression.finditer(data):
            assert any(low <= match.start() and match.end() <= high for low, high in regions)


def test_too_many_ends_and_refused_expressions_are_left_to_re() -> None:
    """A filter that would not save time says so; hyperscan refuses a part of the expressions."""
    data = memoryview(b"ab" * 100_000)
    dense = prefilter_of(re.compile(rb"a\w+"), 4096)
    assert dense is not None
    assert dense.regions(data) is None
    assert prefilter_of(re.compile(rb"(a|b)\1"), 4096) is None
    assert prefilter_of(re.compile(rb"a\w", re.LOCALE), 4096) is None
    large = prefilter_of(re.compile(rb"(?:[ab]{1000}c){1000}"), 4096)
    assert large is None or large.regions(data) is None
