"""`with_near`: the names that are spelled like one that was not found."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from procvm._base.spellings import file_and_symbol, plain, spelling_of, words_of
from procvm._base.text import printable
from procvm._symbols.names import Names
from procvm.errors import NoSuchSymbolError

__all__ = ["near_names", "with_near"]

_NR_SHOWN = 3
_LEAST_ALIKE = 0.75
_LONGEST = 128
_NR_WORDS = 4
_NR_DEMANGLED = 1000  # of about 70 microseconds each
# difflib takes time proportional to the product of the lengths: without these limits the
# names of a browser take it minutes. Names of 16 characters: at most 1024 are compared.
_NR_LOOKED_AT = 1 << 18
_NR_STEPS = 1 << 18


def with_near(error: NoSuchSymbolError, names: Names) -> NoSuchSymbolError:
    """Returns the error with the names that are spelled alike, or as it is if there are none."""
    if error.reason or error.near:
        return error
    file, bang, symbol = file_and_symbol(error.name)
    prefix = ""
    try:
        found = names.known(file if bang else None)
        if found is None:
            near = near_names(os.fsencode(file), names.files())
            end = f"!{symbol}"
        else:
            end = ""
            near = near_names(os.fsencode(symbol), found) or _near_spelled(symbol, names, file)
            prefix = f"{file}!" if bang else ""
    except UnicodeEncodeError:
        return error
    if not near:
        return error
    whole = tuple(printable(prefix) + printable(one) + printable(end) for one in near)
    return NoSuchSymbolError(
        f"{error.message}; did you mean {' or '.join(whole)}?",
        name=error.name,
        near=whole,
        hint=error.hint,
    )


def _near_spelled(symbol: str, names: Names, file: str) -> list[bytes]:
    """Returns the names of C++ and Rust that are spelled alike, without arguments."""
    words = sorted(words_of(symbol), key=len, reverse=True)
    some = names.known_with(words[:_NR_WORDS], file or None)
    found = (spelling_of(one) for one in islice(some, _NR_DEMANGLED))
    return near_names(
        plain(symbol).encode(), (plain(one.qualified).encode() for one in found if one is not None)
    )


def near_names(wanted: bytes, names: Iterable[bytes]) -> list[bytes]:
    """Returns the names that are spelled like one, the nearest first; at most 3.

    The time is bounded: of millions of names only the first are looked at.
    """
    if not 1 < len(wanted) <= _LONGEST:
        return []
    seen = dict.fromkeys(_worth_comparing(wanted, islice(names, _NR_LOOKED_AT)))
    same = [one for one in seen if one.lower() == wanted.lower()]
    text = wanted.decode("latin-1")
    steps = 0
    compared: list[str] = []
    for one in seen:
        steps += len(one) * len(wanted)
        if steps > _NR_STEPS:
            break
        compared.append(one.decode("latin-1"))
    found = difflib.get_close_matches(text, compared, _NR_SHOWN, _LEAST_ALIKE)
    return list(dict.fromkeys(chain(same, (one.encode("latin-1") for one in found))))[:_NR_SHOWN]


def _worth_comparing(wanted: bytes, names: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the names that are about as long, and begin or end alike."""
    n, apart = len(wanted), 1 + len(wanted) // 4
    plain = wanted.strip(b"_").lower()
    head, tail, first, last = plain[:2], plain[-3:], plain[:1], plain[-1:]
    for name in names:
        if abs(len(name) - n) <= apart:
            other = name.strip(b"_").lower()
            both_ends = other.startswith(first) and other.endswith(last)
            if both_ends or other.startswith(head) or other.endswith(tail):
                yield name
