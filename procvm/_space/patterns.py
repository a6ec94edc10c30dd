"""Needles: the bytes, patterns, expressions and values that a search looks for.

A needle finds its places in a run of bytes. It is pickled when the search runs in other
processes.
"""

from __future__ import annotations

import io
import re
import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Any, Self, cast

from procvm._base.optional import numpy_or_none, required
from procvm._base.pods import Pod
from procvm._local.find import find_all, pattern_of
from procvm._space.condition import Condition, Equal, condition_of
from procvm._space.element import Element, element_of
from procvm._space.engines import find_literal
from procvm._space.needle import CONTEXT, Needle
from procvm._space.prefilter import prefilter_of
from procvm._space.several import Several
from procvm.errors import UnsupportedError

__all__ = ["NOTHING", "Hit", "Needle", "Several", "Values", "needle_of"]

_WINDOW = 1 << 12
"""Places that an expression is looked for from at a time."""


class Hit(int):
    """The address of a hit of `VmSpace.search`: an int that says what was found there.

    Attributes:
        needle: Which of several needles was found, counted from 0.
        match: The bytes that were found, as they were when the search read them.
    """

    needle: int = 0
    match: bytes = b""

    def __new__(cls, address: int, needle: int = 0, match: bytes = b"") -> Self:
        """Makes a hit."""
        hit = super().__new__(cls, address)
        hit.needle = needle
        hit.match = match
        return hit

    @property
    def end(self) -> int:
        """One past the last address of the match."""
        return int(self) + len(self.match)

    def __reduce__(self) -> tuple[type[Hit], tuple[int, int, bytes]]:
        return Hit, (int(self), self.needle, self.match)


class _Bytes(Needle):
    """Bytes, some bits of which may be anything."""

    def __init__(self, values: bytes, masks: bytes, align: int) -> None:
        if not any(masks):
            raise ValueError(
                "the pattern is empty or all wildcards, so it matches everywhere; give a digit"
            )
        self._pattern = pattern_of(values, masks)
        self.align = align
        self.after = len(values) - 1
        self.literal = values if masks.count(0xFF) == len(masks) else None

    def find(self, view: memoryview, address: int, base: int) -> array[int]:
        hits = None if self.literal is None else find_literal(view, self.literal)
        if hits is None:
            hits = find_all(view, address, self._pattern)
        return _aligned(hits, base, self.align)


def _literal(data: bytes, align: int) -> _Bytes:
    return _Bytes(data, b"\xff" * len(data), align)


def _aligned(hits: array[int], base: int, align: int) -> array[int]:
    if align == 1:
        return hits
    return array("Q", [hit for hit in hits if (base + hit) % align == 0])


_BYTE = re.compile(r"[0-9a-fA-F?]{2}")


def _pattern(text: str, align: int) -> _Bytes:
    """Returns the needle of a pattern such as ``48 8B ?? ?F``; a single ``?`` is a whole byte."""
    tokens = ["??" if part == "?" else part for part in text.split()]
    joined = "".join(tokens)
    pairs = [token[k : k + 2] for token in tokens for k in range(0, len(token), 2)]
    if not pairs or not all(map(_BYTE.fullmatch, pairs)):
        raise ValueError(
            f"{text!r} is not a pattern such as '48 8B ?? ?F'; to find text give its bytes (of the "
            "command: --text)"
        )
    values = bytes.fromhex(joined.replace("?", "0"))
    masks = bytes.fromhex("".join("0" if digit == "?" else "F" for digit in joined))
    return _Bytes(values, masks, align)


_LOOKS_BEHIND = re.compile(rb"\(\?[=!(]|\$|\\[ZzbB]")


class _Expression(Needle):
    """The matches of an expression as `re.finditer` gives them: none begins inside another."""

    stride = 2
    is_disjoint = True

    def __init__(self, expression: re.Pattern[bytes], align: int, max_len: int) -> None:
        if not isinstance(cast("object", expression.pattern), bytes):
            raise TypeError("the expression matches text; compile it of bytes, as in rb'...'")
        if expression.match(b"") is not None:
            raise ValueError(
                f"{expression.pattern!r} matches the empty string, so it matches everywhere; use + "
                "instead of *"
            )
        self._expression = expression
        # An assertion about the bytes after a match may fail where fewer bytes are seen.
        self._sees_no_more = _LOOKS_BEHIND.search(expression.pattern) is None
        self._align = align
        self._max_len = max_len
        self._prefilter = prefilter_of(expression, max_len)
        self.before = CONTEXT
        self.after = max_len - 1

    def find(self, view: memoryview, address: int, base: int) -> array[int]:
        return self._matches(view, base, 0, len(view))[::2]

    def find_between(
        self, view: memoryview, address: int, base: int, first: int, last: int
    ) -> array[int]:
        found = self._matches(view, base, first, last)
        return array("Q", [base + at for at in found])

    def _matches(self, view: memoryview, base: int, first: int, last: int) -> array[int]:
        """Returns the (start, end) pairs that re gives of the aligned places from `first` on."""
        longest, step = self._max_len, max(4 * self._max_len, _WINDOW)
        matches = array("Q")
        at = first
        for low, high in self._regions(view, first, last):
            at = max(at, low)
            # All that is seen of a region of the filter. An assertion sees more.
            most = high if self._sees_no_more else len(view)
            stop = min(high, last)
            # In windows: an expression that goes on to the end of what it sees would
            # otherwise be looked at to there from each place.
            while at < stop:
                end = min(at + step, stop)
                at = self._in_window(view, base, at, end, min(end + longest, most), matches)
        return matches

    def _regions(self, view: memoryview, first: int, last: int) -> list[tuple[int, int]]:
        """Returns where matches that begin between two offsets may be."""
        end = min(last + self._max_len, len(view))
        if self._prefilter is not None:
            found = self._prefilter.regions(view[first:end])
            few = self._sees_no_more or len(found or ()) * self._max_len < last - first
            if found is not None and few:
                return [(low + first, high + first) for low, high in found]
        return [(first, end)]

    def _in_window(
        self, view: memoryview, base: int, at: int, end: int, seen: int, matches: array[int]
    ) -> int:
        """Adds the matches that begin in a window; returns where the next one begins."""
        longest, align = self._max_len, self._align
        for found in self._expression.finditer(view, at, seen):
            start, after = found.span()
            if start >= end:
                break
            if align == 1 and self._sees_no_more and after - start <= longest:
                matches.extend((start, after))
                at = after
                continue
            # Whatever is seen behind it, a place counts if it matches within the longest.
            kept = None
            if (base + start) % align == 0:
                limit = min(start + longest, len(view))
                kept = self._expression.match(view, start, limit)
            if kept is not None:
                matches.extend(kept.span())
                if kept.end() == after > start:
                    at = after
                    continue
            return start + 1 if kept is None else max(kept.end(), start + 1)
        return max(at, end)


class Values(Needle):
    """Numbers that fulfil a condition, at multiples of an alignment."""

    def __init__(self, element: Element, condition: Condition, align: int) -> None:
        if element.pod is not None and not element.pod.code:
            raise TypeError(f"{element.pod.name} is not a number; look for its bytes")
        self.size = element.size
        self._code = element.pod.code if element.pod is not None else ""
        self._dtype = element.dtype
        self._condition = condition
        self._align = align
        self.after = element.size - 1

    def find(self, view: memoryview, address: int, base: int) -> array[int]:
        """Compares all of them at once; without numpy one by one."""
        np = numpy_or_none()
        if np is None:
            return self._find_plain(view, base)
        size, align = self.size, self._align
        first = -base % align
        step = -(-size // align) * align
        parts: list[Any] = []
        for begin in range(first, first + step, align):
            count = (len(view) - begin - size) // step + 1
            if count <= 0:
                continue
            values = np.ndarray((count,), self._dtype, view, begin, (step,))
            hits = np.flatnonzero(self._condition(values))
            if len(hits):
                parts.append(hits * step + begin)
        if not parts:
            return array("Q")
        merged = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
        return array("Q", merged.astype(np.uint64).tobytes())

    def _find_plain(self, view: memoryview, base: int) -> array[int]:
        unpack = struct.Struct("@" + self._code).unpack_from
        good = self._condition
        places = range(-base % self._align, len(view) - self.size + 1, self._align)
        return array("Q", [at for at in places if good(unpack(view, at)[0])])


class _Rules(Needle):
    """The patterns of yara rules that match in a run of bytes, which is not a whole file."""

    stride = 2

    def __init__(self, rules: Any, align: int, max_len: int) -> None:
        self._rules = rules
        self._align = align
        self.after = max_len - 1

    def _lengths(self, view: memoryview) -> dict[int, int]:
        """Returns the longest match by offset."""
        lengths: dict[int, int] = {}
        for rule in self._rules.scan(bytes(view)).matching_rules:
            for pattern in rule.patterns:
                for match in pattern.matches:
                    lengths[match.offset] = max(match.length, lengths.get(match.offset, 0))
        return lengths

    def find(self, view: memoryview, address: int, base: int) -> array[int]:
        return _aligned(array("Q", sorted(self._lengths(view))), base, self._align)

    def find_between(
        self, view: memoryview, address: int, base: int, first: int, last: int
    ) -> array[int]:
        pairs = array("Q")
        for at, n in sorted(self._lengths(view).items()):
            if first <= at < last and (base + at) % self._align == 0:
                pairs.extend((base + at, base + at + n))
        return pairs

    def found_in_zeros(self) -> bool:
        return True  # the condition of a rule may hold for any bytes

    def __reduce__(self) -> tuple[Any, ...]:
        file = io.BytesIO()
        self._rules.serialize_into(file)
        return _rules_again, (file.getvalue(), self._align, self.after + 1)


def _rules_again(data: bytes, align: int, max_len: int) -> _Rules:
    yara = required("yara_x", "a search by rules")
    return _Rules(yara.Rules.deserialize_from(io.BytesIO(data)), align, max_len)


NOTHING: Any = object()
"""No value was given: None may be a value."""


def needle_of(what: Any, value: Any, align: int, max_len: int) -> Needle:
    """Returns the needle that `VmSpace.search` was asked for.

    Raises:
        TypeError: `what` cannot be looked for.
        ValueError: The needle matches everywhere.
    """
    if isinstance(what, Needle):
        return what
    if value is not NOTHING:
        return _of_value(what, value, align)
    if isinstance(what, str):
        return _pattern(what, align)
    if isinstance(what, re.Pattern):
        return _Expression(cast("re.Pattern[bytes]", what), align, max_len)
    if isinstance(what, bytes | bytearray | memoryview):
        return _literal(bytes(cast("Any", what)), align)
    yara: Any = sys.modules.get("yara_x")
    if yara is not None and isinstance(what, yara.Rules):
        return _Rules(what, align, max_len)
    if isinstance(what, Sequence):
        parts: list[Any] = list(cast("Any", what))
        if len(parts) == 2 and isinstance(parts[0], Pod):
            return _of_value(parts[0], parts[1], align)
        if not parts:
            raise ValueError("no needles; give one or more")
        needles = [needle_of(part, NOTHING, align, max_len) for part in parts]
        if any(isinstance(needle, Several) for needle in needles):
            raise TypeError("a list of needles has no lists in it; give one flat list")
        return Several(needles)
    raise TypeError(
        f"{what!r} cannot be looked for: give bytes, a pattern such as '48 8B ?? ?F', a compiled "
        "expression of bytes, a pod with value=..., or a list of these"
    )


def _of_value(what: Any, value: Any, align: int) -> Needle:
    element = element_of(what)
    condition = condition_of(value, element)
    if (
        isinstance(condition, Equal)
        and element.pod is not None
        and element.pod.code not in ("f", "d")
        and (not element.pod.code or align < element.size or numpy_or_none() is None)
    ):
        # The same bytes are the same number, and bytes are found quickest.
        return _literal(element.pod.to_bytes(condition.value), align)
    if element.dtype is None and numpy_or_none() is not None:
        raise UnsupportedError(f"{what!r} has no values to compare; look for its bytes")
    return Values(element, condition, align)
