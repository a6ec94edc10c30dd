"""Texts: searched for in any encoding, listed in some, told from numbers."""

from __future__ import annotations

import os
from typing import Any

import pytest

import procvm
from procvm import Segment, VmSpace, u32
from procvm._base.address import PAGE_SIZE
from procvm._space.texts import ENCODINGS, Text, is_text
from tests.support.fakes import BASE, Holed

WORDS = {
    "ascii": "plain text",
    "utf-8": "Grüße, мир, שלום, 日本語 €",
    "latin-1": "Grüße, señor",
    "utf-16-le": "Schlüssel, мир, שלום “x”",
    "utf-16-be": "Schlüssel, мир, שלום “x”",
    "utf-32-le": "Schlüssel, мир, שלום “x”",
    "utf-32-be": "Schlüssel, мир, שלום “x”",
}


def found_in(data: bytes, **arguments: Any) -> list[tuple[int, str]]:
    """The texts of some bytes of our own, with their offsets."""
    with Segment.alloc(-(-len(data) // PAGE_SIZE)) as page, procvm.open(os.getpid()) as process:
        page.write_bytes(0, data)
        ranges = [(page.address, page.address + len(data))]
        found = list(process.vm.strings(ranges=ranges, **arguments))
        assert all(type(one) is Text and str(one) == one.text for one in found)
        return [(one.address - page.address, one.text) for one in found]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("before", [b"", b"\0", b"\x81\x82\x83", b"\0\0\0\0\x80"])
def test_strings_lists_a_text_once_and_whole(encoding: str, before: bytes) -> None:
    """At odd and even addresses, between other bytes, from the first character to the last."""
    text = WORDS[encoding]
    data = text.encode(encoding)
    behind = b"\0\0\0\0" + b"\x81" * 8
    assert found_in(before + data + behind, encoding=encoding) == [(len(before), text)]
    assert found_in(before + data, encoding=encoding, min_len=len(text)) == [(len(before), text)]
    assert found_in(before + data + behind, encoding=encoding, min_len=len(text) + 1) == []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_strings_of_a_long_text_come_in_parts(encoding: str) -> None:
    """No character is lost or cut where the parts meet."""
    text = "".join(WORDS[encoding] + str(k) + "," for k in range(9000))
    found = found_in(b"\0\0\0\0" + text.encode(encoding) + bytes(4), encoding=encoding)
    assert len(found) > 1
    assert "".join(part for _, part in found) == text
    at = 4
    for offset, part in found:
        assert offset == at
        at += len(part.encode(encoding))


def test_strings_of_ascii_are_none_of_utf_16() -> None:
    """Two characters of ASCII are an ideograph: no such text is made up."""
    data = b"a long text of ascii characters, without any zero"
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        assert found_in(data, encoding=encoding) == []
    assert found_in(bytes(range(256)) * 8, encoding="utf-8", min_len=100) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoding": "utf-7"}, ValueError, "give one of ascii, utf-8, latin-1, utf-16-le"),
        ({"encoding": "utf-16"}, ValueError, "give one of ascii"),
        ({"encoding": "nothing"}, ValueError, "no encoding is called 'nothing'"),
        ({"encoding": 5}, TypeError, "encoding is a name"),
        ({"min_len": 0}, ValueError, "min_len is 0; give 1 or more"),
        ({"min_len": "6"}, TypeError, "min_len must be an int"),
        ({"ranges": 5}, TypeError, r"\[\(start, end\)\]"),
    ],
)
def test_strings_wrong_argument_is_refused_at_once(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """At the call, not as the first text is asked for."""
    with pytest.raises(error, match=message):
        VmSpace(Holed("rw")).strings(**{"ranges": [(BASE, BASE + 16)], **arguments})


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "shift_jis", "utf-7", "cp437"]
)
def test_search_text_is_found_in_its_encoding(encoding: str) -> None:
    """Any encoding of Python, any characters that it has, at any address."""
    text = "日本語" if encoding == "shift_jis" else "Schlüssel"
    with Segment.alloc(1) as page, procvm.open(os.getpid()) as process:
        page.write_bytes(7, text.encode(encoding))
        ranges = [(page.address, page.address + PAGE_SIZE)]
        found = process.vm.search(text=text, encoding=encoding, ranges=ranges)
        assert list(found) == [page.address + 7]
        if encoding == "utf-8":
            assert list(process.vm.search(text=text, ranges=ranges)) == [page.address + 7]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "give what, or text="),
        ({"what": b"x", "text": "x"}, TypeError, "exclude each other"),
        ({"value": 5, "text": "x"}, TypeError, "exclude each other"),
        ({"what": b"x", "encoding": "utf-8"}, TypeError, "encoding is the encoding of text="),
        ({"text": b"x"}, TypeError, "text is a str, not bytes"),
        ({"text": ""}, ValueError, "text is empty"),
        ({"text": "x", "encoding": "utf-16"}, ValueError, "give utf-16-le or utf-16-be"),
        ({"text": "x", "encoding": "utf_8_sig"}, ValueError, "give utf-8"),
        ({"text": "x", "encoding": "rot13"}, ValueError, "cannot be encoded"),
        ({"text": "x", "encoding": "no such"}, ValueError, "no encoding is called 'no such'"),
        ({"text": "x", "encoding": 8}, TypeError, "encoding is a name"),
        ({"text": "ü", "encoding": "ascii"}, ValueError, "cannot be encoded"),
    ],
)
def test_search_wrong_text_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Before anything is read."""
    memory = Holed("rw")
    with pytest.raises(error, match=message):
        VmSpace(memory).search(**{"ranges": [(BASE, BASE + 16)], **arguments})
    assert not memory.calls


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"player-01 Mira\0\0", b"player-01 Mira"),
        (b"four\0", b"four"),
        (b"two\n\0x", b"two\n"),
        (b"three"[:3] + b"\0", None),
        (b"four\1", None),
        ("Größe €\0".encode(), "Größe €".encode()),
        (b"goes on", b"goes on"),
        ("cut off €".encode()[:-1], b"cut off "),
        ("cut off 😀".encode()[:-3], b"cut off "),
        (b"not cut \xff", None),
        ("äöü".encode() + b"\0", None),
        (b"", None),
        (b"\0" * 8, None),
        (bytes(range(1, 65)), None),
        (u32.to_bytes(7) * 4, None),
    ],
)
def test_is_text_tells_a_text_from_other_bytes(data: bytes, text: bytes | None) -> None:
    """Four characters and a NUL, or nothing but characters."""
    assert is_text(data) == text
