"""Texts in memory: the bytes of one that is looked for, and all that are there."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from procvm._base.address import as_count
from procvm._base.optional import numpy_or_none
from procvm._space.access import Access
from procvm._space.engines import TextRuns
from procvm.errors import PageFaultError

__all__ = ["ENCODINGS", "Text", "bytes_of_text", "is_text", "read_some", "strings_in"]

_ASCII = rb"[\x20-\x7e\t]"

_UTF_8 = (
    _ASCII,
    rb"\xc2[\xa0-\xbf]|[\xc3-\xdf][\x80-\xbf]",
    rb"\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]",
    rb"\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}",
)
"""Characters of one to four bytes, without controls."""

_LOW = rb"[\x20-\x7e\xa0-\xff\t]"
_LETTERS = rb"[\x01-\x06\x1e-\x20]"
"""High bytes of Latin, Greek, Cyrillic, Hebrew and Arabic letters, and of punctuation.

Two bytes of anything are some ideograph: with those most of memory would be text.
"""


def _wide(zeros: bytes, *, big: bool) -> tuple[bytes, ...]:
    """Returns a character of a fixed width, of which all but two bytes are zeros."""
    latin, other = (_LOW, rb"\x00"), (rb"[\x00-\xff]", _LETTERS)
    pairs = [high + low if big else low + high for low, high in (latin, other)]
    either = b"(?:" + b"|".join(pairs) + b")"
    return (zeros + either,) if big else (either + zeros,)


_TWO_ZEROS = rb"\x00\x00"

_CHARACTERS: dict[str, tuple[bytes, ...]] = {
    "ascii": (_ASCII,),
    "utf-8": _UTF_8,
    "iso8859-1": (_LOW,),
    "utf-16-le": _wide(b"", big=False),
    "utf-16-be": _wide(b"", big=True),
    "utf-32-le": _wide(_TWO_ZEROS, big=False),
    "utf-32-be": _wide(_TWO_ZEROS, big=True),
}
"""By encoding: expressions of a character, each of one width."""

_BYTES = {
    "ascii": ((0x20, 0x7E), (0x09, 0x09)),
    "iso8859-1": ((0x20, 0x7E), (0xA0, 0xFF), (0x09, 0x09)),
}
"""By encoding of one byte: the ranges of its characters, which numpy compares all at once."""

ENCODINGS = tuple("latin-1" if name == "iso8859-1" else name for name in _CHARACTERS)
"""The encodings in which all texts can be listed."""

_WIDEST = 4
"""Bytes of a character at most."""

_PART_LEN = 1 << 16


class Text(NamedTuple):
    """A text in memory.

    Attributes:
        address: Where it begins.
        text: Its characters.
    """

    address: int
    text: str

    def __str__(self) -> str:
        """Returns its characters."""
        return self.text


_MARKED = {
    "utf-16": "utf-16-le or utf-16-be",
    "utf-32": "utf-32-le or utf-32-be",
    "utf-8-sig": "utf-8",
}


def _name_of(encoding: object) -> str:
    """Returns the name by which Python calls an encoding of texts."""
    if not isinstance(encoding, str):
        raise TypeError(f"encoding is a name such as 'utf-16-le', not {type(encoding).__name__}")
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"no encoding is called {encoding!r}; give one such as utf-8") from None


def bytes_of_text(text: object, encoding: object) -> bytes:
    """Returns the bytes that a text is in memory.

    Raises:
        TypeError: Not a text, or not the name of an encoding.
        ValueError: No text; no such encoding, one that puts a mark before a text, or one that
            does not have a character of it.
    """
    if not isinstance(text, str):
        raise TypeError(f"text is a str, not {type(text).__name__}; bytes are searched as they are")
    if not text:
        raise ValueError("text is empty, and would be found everywhere")
    name = _name_of(encoding)
    if name in _MARKED:
        raise ValueError(f"{name} puts a byte order mark before a text; give {_MARKED[name]}")
    try:
        return text.encode(name)
    except (UnicodeEncodeError, LookupError) as error:
        raise ValueError(f"{text!r} cannot be encoded: {error}") from None


def _any_of(characters: tuple[bytes, ...]) -> bytes:
    return b"(?:" + b"|".join(characters) + b")"


_LEADING_TEXT = re.compile(b"(?:" + b"|".join(_UTF_8) + rb"|[\r\n])+")
_LEAST = 4
_FIRSTS_OF_SEVERAL = range(0xC2, 0xF5)


def is_text(data: bytes) -> bytes | None:
    """Returns the text that bytes begin with, if it looks like one: four characters and a NUL.

    Where no NUL is in sight it is one if all bytes are of a text.
    """
    found = _LEADING_TEXT.match(data)
    if found is None or len(found.group().decode("utf-8")) < _LEAST:
        return None
    left = len(data) - found.end()
    # The last character may be cut off.
    is_cut = left < _WIDEST and data[-left] in _FIRSTS_OF_SEVERAL
    return found.group() if left == 0 or data[-left] == 0 or is_cut else None


def strings_in(
    vm: Access,
    encoding: str,
    min_len: int,
    search: Callable[[re.Pattern[bytes] | TextRuns, int], Iterator[int]],
) -> Iterator[Text]:
    """Returns the texts of at least `min_len` characters; see `VmSpace.strings`."""
    name = _name_of(encoding)
    min_len = as_count(min_len, "min_len")
    if name not in _CHARACTERS:
        raise ValueError(f"texts are not listed in {encoding}; give one of {', '.join(ENCODINGS)}")
    characters = _CHARACTERS[name]
    one = _any_of(characters)
    # Its first characters alone are searched for: how far it goes is seen as it is read.
    before = b"".join(b"(?<!" + _any_of((some,)) + b")" for some in characters)
    start: re.Pattern[bytes] | TextRuns = re.compile(before + one + b"{%d}" % min_len)
    if name in _BYTES and numpy_or_none() is not None:
        start = TextRuns(_BYTES[name], min_len)
    hits = search(start, _WIDEST * min_len)
    return _texts(vm, hits, re.compile(one + b"+"), name, min_len)


def _texts(
    vm: Access, hits: Iterator[int], run: re.Pattern[bytes], name: str, min_len: int
) -> Iterator[Text]:
    window = _Window(vm)
    for hit in hits:
        is_first = True
        for at, data in window.parts(int(hit), run):
            text = data.decode(name)
            if is_first and len(text) < min_len:
                break
            is_first = False
            yield Text(at, text)


class _Window:
    """The memory around the last text: most texts stand close to each other."""

    def __init__(self, vm: Access) -> None:
        self._vm = vm
        self._start = 0
        self._data = b""

    def parts(self, at: int, run: re.Pattern[bytes]) -> Iterator[tuple[int, bytes]]:
        """Yields (address, bytes) of the text at an address; none if it has gone."""
        while True:
            found = run.match(self._at(at, _PART_LEN), 0, _PART_LEN)
            if found is None:
                return
            yield at, found.group()
            # The last character of a part may be cut off.
            if found.end() < _PART_LEN - 3:
                return
            at += found.end()

    def _at(self, at: int, n: int) -> bytes:
        offset = at - self._start
        if not 0 <= offset <= len(self._data) - n:
            room = bytearray(min(4 * n, self._vm.end - at))
            got = read_some(self._vm, at, room)
            # After a page fault a second read would return no more bytes.
            self._start, self._data = at, got if len(got) == len(room) else got + bytes(n)
            offset = 0
        return self._data[offset : offset + n]


def read_some(vm: Access, address: int, room: bytearray) -> bytes:
    """Returns what can be read at an address, as many bytes as `room` has at most."""
    try:
        vm.read_into(address, room)
    except PageFaultError as error:
        return bytes(room[: error.copied_len])
    return bytes(room)
