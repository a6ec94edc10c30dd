"""Bytes in our own memory, found without holding up the other threads of the tool."""

from __future__ import annotations

import ctypes
import functools
import sys
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

from procvm._base.c_library import Function, c_function
from procvm._base.optional import numpy_or_none
from procvm._local.buffers import address_of_bytes
from procvm._local.pool import Pool

__all__ = ["Pattern", "find_all", "pattern_of"]


class Pattern(NamedTuple):
    """Bytes of which some bits count.

    Attributes:
        values: The bytes; 0 where a bit does not count.
        masks: The bits that count.
        run: Where the best run of whole bytes begins and ends; empty if there is none.
    """

    values: bytes
    masks: bytes
    run: tuple[int, int]


def pattern_of(values: bytes, masks: bytes) -> Pattern:
    """Returns a pattern of bytes and the bits of them that count."""
    plain = bytes(value & mask for value, mask in zip(values, masks, strict=True))
    best, worth = (0, 0), (0, 0)
    at = 0
    while at < len(masks):
        end = at
        while end < len(masks) and masks[end] == 0xFF:
            end += 1
        found = (_rarity(plain[at:end]), end - at)
        if found > worth:
            best, worth = (at, end), found
        at = end + 1
    return Pattern(plain, masks, best)


def _rarity(data: bytes) -> int:
    """Returns how many bytes are neither 00 nor FF, which are the most frequent in memory."""
    return sum(byte not in (0, 0xFF) for byte in data)


def find_all(view: memoryview, address: int, pattern: Pattern) -> array[int]:
    """Returns the offsets of a pattern in `view`, overlapping ones too; the view is at `address`.

    Source:
        Where numpy is not installed: memmem(3).
    """
    np = numpy_or_none()
    if len(view) < len(pattern.values):
        return array("Q")
    if np is None:
        return _one_by_one(view, address, pattern)
    return _by_words(np, view, address, pattern)


def _by_words(np: Any, view: memoryview, address: int, pattern: Pattern) -> array[int]:
    """Looks for two whole bytes of the pattern, at even and at odd addresses.

    Comparing words is quicker than any search for bytes, and as quick in memory
    full of zeros as elsewhere if the two are not zeros themselves.
    """
    first, end = pattern.run
    data = np.frombuffer(view, np.uint8)
    places = range(first, end - 1)
    parts: list[Any] = []
    if places:
        best = max(places, key=lambda at: _rarity(pattern.values[at : at + 2]))
        worth = _rarity(pattern.values[best : best + 2])
        for parity in range(2):
            # Words that are aligned are compared at twice the speed of others.
            aligned = [at for at in places if (at - first) % 2 == parity]
            at = max(aligned, key=lambda at: _rarity(pattern.values[at : at + 2]), default=best)
            if _rarity(pattern.values[at : at + 2]) < worth:
                at = best
            # A pattern that begins `parity` bytes off has its word here.
            shift = (at - first + parity - address) % 2
            words = np.frombuffer(view, np.uint16, (len(view) - shift) // 2, shift)
            word = int.from_bytes(pattern.values[at : at + 2], sys.byteorder)
            parts.append((_equal(np, words, np.uint16(word)) * 2 + (shift - at), range(at, at + 2)))
    elif end > first:
        parts.append((_equal(np, data, np.uint8(pattern.values[first])) - first, range(first, end)))
    else:
        # No byte is whole: the one of which most is known.
        at = max(range(len(pattern.masks)), key=lambda at: pattern.masks[at].bit_count())
        some = np.flatnonzero((data & pattern.masks[at]) == pattern.values[at])
        parts.append((some - at, range(at, at + 1)))
    found: list[Any] = []
    for starts, known in parts:
        inside = starts[(starts >= 0) & (starts <= len(view) - len(pattern.values))]
        found.append(_with_the_rest(data, inside, pattern, known))
    merged = found[0] if len(found) == 1 else np.sort(np.concatenate(found))
    return array("Q", merged.astype(np.uint64).tobytes())


_FEW = 1000
# Marks for as many words as a piece of work has.
_marks: Pool[bytearray] = Pool(8, bytearray)


def _equal(np: Any, words: Any, word: Any) -> Any:
    """Returns the numbers of the words that are equal to one."""
    marks = _marks.take()
    n = len(words)
    if len(marks) < n:
        marks = bytearray(n)
    is_equal = np.frombuffer(marks, bool, n)
    np.equal(words, word, out=is_equal)
    hits: list[int] = []
    # Few hits in many marks: the interpreter's own search is ten times as quick as numpy's.
    at = marks.find(1, 0, n)
    while at >= 0 and len(hits) < _FEW:
        hits.append(at)
        at = marks.find(1, at + 1, n)
    found = np.array(hits, np.int64) if at < 0 else np.flatnonzero(is_equal)
    del is_equal
    _marks.leave(marks)
    return found


def _with_the_rest(data: Any, starts: Any, pattern: Pattern, known: range) -> Any:
    """Returns the places that match every other byte of the pattern as well."""
    rest = [at for at in range(len(pattern.masks)) if at not in known and pattern.masks[at]]
    for at in sorted(rest, key=lambda at: pattern.values[at] in (0, 0xFF)):
        if not len(starts):
            break
        there = data[starts + at]
        if pattern.masks[at] != 0xFF:
            there = there & pattern.masks[at]
        starts = starts[there == pattern.values[at]]
    return starts


@functools.cache
def _memmem() -> Callable[..., int | None]:
    return c_function("memmem", ctypes.c_void_p)


def _one_by_one(view: memoryview, address: int, pattern: Pattern) -> array[int]:
    first, end = pattern.run
    hits = array("Q")
    last = len(view) - len(pattern.values)
    if first == end:
        places = range(last + 1)
        return array("Q", [at for at in places if _matches(view, at, pattern)])
    run = pattern.values[first:end]
    memmem = _memmem()
    what, size = ctypes.c_void_p(address_of_bytes(run)), ctypes.c_size_t(len(run))
    at, stop = address + first, address + last + end
    while at < stop:
        # SAFETY: `view` keeps the bytes alive until this function returns, as `run` is.
        found = memmem(ctypes.c_void_p(at), ctypes.c_size_t(stop - at), what, size)
        if not found:
            break
        if _matches(view, found - address - first, pattern):
            hits.append(found - address - first)
        at = found + 1
    return hits


def _matches(view: memoryview, at: int, pattern: Pattern) -> bool:
    there = view[at : at + len(pattern.masks)]
    return all(
        byte & mask == value
        for byte, mask, value in zip(there, pattern.masks, pattern.values, strict=True)
    )


@functools.cache
def _memcmp() -> Function:
    return c_function("memcmp", ctypes.c_int)


def same(address: int, other: int, n: int) -> bool:
    """Returns whether `n` own bytes at two addresses are the same."""
    # SAFETY: the caller vouches for both ranges, and keeps them alive.
    found = _memcmp()(ctypes.c_void_p(address), ctypes.c_void_p(other), ctypes.c_size_t(n))
    return bool(found == 0)
