"""Where an expression may match: hyperscan looks for a simpler one, and `re` decides.

hyperscan reads an expression 50 times as fast as `re`, but tells all ends of matches and not
those that `re` chooses, and means other things by some signs. So it is given an expression made of
what `re` parsed, byte by byte, without assertions. Every match of `re` is a match of it, and only
the places before its ends are looked at by `re`.
"""

from __future__ import annotations

import re
from typing import Any, cast

from procvm._base.optional import optional
from procvm._local.pool import Pool

__all__ = ["Prefilter", "prefilter_of"]

_BYTES_PER_END = 256
"""Bytes for each end of a match in which it is worth while: a call of Python takes 0.3 us."""

_LOWER = bytes(range(256)).lower()
_UNKNOWN = re.LOCALE | re.UNICODE
_CATEGORIES = {"DIGIT": rb"\d", "SPACE": rb"\s", "WORD": rb"\w"}


class _UnknownError(Exception):
    """The expression has a part that is not translated."""


class Prefilter:
    """Finds where matches of an expression may begin; pickles without what hyperscan made."""

    def __init__(self, simple: bytes, width: int) -> None:
        """Makes a filter.

        Args:
            simple: The expression for hyperscan.
            width: The bytes of the longest match.
        """
        self._simple = simple
        self._width = width
        self._prepare()

    def _prepare(self) -> None:
        self._made: tuple[Any, Pool[Any]] | None = None
        self._refused = False

    def __getstate__(self) -> tuple[bytes, int]:
        return self._simple, self._width

    def __setstate__(self, state: tuple[bytes, int]) -> None:
        self._simple, self._width = state
        self._prepare()

    def _compile(self, hyperscan: Any) -> tuple[Any, Pool[Any]] | None:
        """Returns the database and its scratches; two threads may do it at a time."""
        database = hyperscan.Database()
        try:
            database.compile(expressions=[self._simple], ids=[0], flags=[hyperscan.HS_FLAG_DOTALL])
        except hyperscan.error:
            self._refused = True  # it is too large, or matches the empty string
            return None
        first = hyperscan.Scratch(database)
        self._made = database, Pool(8, first.clone)
        return self._made

    def regions(self, view: memoryview) -> list[tuple[int, int]] | None:
        """Returns ranges with all matches as a whole, in order; None where it does not help."""
        hyperscan = optional("hyperscan")
        if hyperscan is None or self._refused:
            return None
        made = self._made or self._compile(hyperscan)
        if made is None:
            return None
        database, scratches = made
        ends: list[int] = []
        add, most = ends.append, len(view) // _BYTES_PER_END

        def note(_number: int, _start: int, end: int, _flags: int, _context: object) -> bool:
            add(end)
            return len(ends) > most

        # A scratch serves one thread at a time.
        scratch = scratches.take()
        try:
            database.scan(view, match_event_handler=note, scratch=scratch)
        except hyperscan.ScanTerminated:
            return None
        finally:
            scratches.leave(scratch)
        return self._joined(ends)

    def _joined(self, ends: list[int]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        low = high = -1
        for end in sorted(ends):
            begin = max(end - self._width, 0)
            if begin > high:
                if high >= 0:
                    found.append((low, high))
                low = begin
            high = end
        if high >= 0:
            found.append((low, high))
        return found


def prefilter_of(expression: re.Pattern[bytes], max_len: int) -> Prefilter | None:
    """Returns the filter of an expression; None if hyperscan cannot serve for it.

    Args:
        expression: The expression.
        max_len: The longest match that counts.
    """
    if optional("hyperscan") is None or expression.flags & _UNKNOWN:
        return None
    try:
        # The parser has no public name, and this module no other use of it.
        parse: Any = cast("Any", re)._parser.parse
        flags = expression.flags & ~re.DEBUG  # with which it would print
        tree = parse(expression.pattern, flags)
        simple = _sequence(tree, flags)
        width = min(int(tree.getwidth()[1]), max_len)
    except (_UnknownError, AttributeError, TypeError, ValueError, RecursionError):
        return None  # also where a later Python parses to something else
    return Prefilter(simple, width)


def _sequence(tree: Any, flags: int) -> bytes:
    return b"".join([_part(str(op), value, flags) for op, value in tree])


def _part(op: str, value: Any, flags: int) -> bytes:
    """Returns the expression of one node of what `re` parsed."""
    found = None
    if op in ("LITERAL", "NOT_LITERAL"):
        found = _class_of([(op, value)], flags, negated=op == "NOT_LITERAL")
    elif op == "ANY":
        found = _one_of([byte for byte in range(256) if flags & re.DOTALL or byte != 0x0A])
    elif op == "IN":
        items = [(str(kind), item) for kind, item in value]
        found = _class_of(items, flags, negated=items[0][0] == "NEGATE")
    elif op == "BRANCH":
        found = b"(?:" + b"|".join([_sequence(one, flags) for one in value[1]]) + b")"
    elif op == "SUBPATTERN":
        _, added, removed, inner = value
        found = b"(?:" + _sequence(inner, (flags | added) & ~removed) + b")"
    elif op == "ATOMIC_GROUP":
        found = b"(?:" + _sequence(value, flags) + b")"
    elif op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = value
        text = "" if str(most) == "MAXREPEAT" else str(int(most))
        found = b"(?:" + _sequence(inner, flags) + b"){%d,%s}" % (least, text.encode())
    elif op in ("AT", "ASSERT", "ASSERT_NOT"):
        found = b""  # `re` looks at it; what matches with it matches without
    if found is None:
        raise _UnknownError(op)
    return found


def _class_of(items: list[tuple[str, Any]], flags: int, *, negated: bool) -> bytes:
    """Returns the class of the bytes that a set of `re` has."""
    members: set[int] = set()
    for kind, value in items:
        if kind in ("LITERAL", "NOT_LITERAL"):
            members.add(value)
        elif kind == "RANGE":
            members.update(range(value[0], value[1] + 1))
        elif kind == "CATEGORY":
            members |= _category(str(value))
        elif kind != "NEGATE":
            raise _UnknownError(kind)
    if flags & re.IGNORECASE:
        lowered = {_LOWER[byte] for byte in members}
        members = {byte for byte in range(256) if _LOWER[byte] in lowered}
    return _one_of([byte for byte in range(256) if (byte in members) is not negated])


def _category(name: str) -> set[int]:
    name = name.removeprefix("CATEGORY_")
    short = name.removeprefix("NOT_")
    if short not in _CATEGORIES:
        raise _UnknownError(name)
    one = re.compile(_CATEGORIES[short])
    return {byte for byte in range(256) if bool(one.match(bytes([byte]))) is (name == short)}


def _one_of(members: list[int]) -> bytes:
    if not members:
        raise _UnknownError("an empty set")
    parts: list[bytes] = []
    low = high = members[0]
    for byte in [*members[1:], 512]:
        if byte == high + 1:
            high = byte
            continue
        parts.append(rb"\x%02x" % low if low == high else rb"\x%02x-\x%02x" % (low, high))
        low = high = byte
    return b"[" + b"".join(parts) + b"]"
