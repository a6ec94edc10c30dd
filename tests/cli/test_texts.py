"""`strings`, `search --text` and `telescope` where texts are kept in several encodings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.running import ran
from tests.support.places import Places


@pytest.fixture(scope="module", params=[4, 8], ids=["32 bits", "64 bits"])
def places(request: pytest.FixtureRequest) -> Iterator[Places]:
    """The program of places.c, made for either width."""
    with Places(request.param) as places:
        yield places


def test_strings_and_search_find_a_text_by_its_encoding(places: Places) -> None:
    """char16_t as utf-16, char32_t as utf-32; as utf-8 they are not there."""
    where = ["--in", places.program]
    for name, encoding, text in (
        ("g_wide", "utf-16-le", "Schlüssel-wide"),
        ("g_wider", "utf-32-le", "Привет-wider"),
        ("g_umlaut", "utf-8", "Größe €"),
    ):
        row = f"{places.at[name]:#x}\t{text}"
        assert row in ran("strings", places.pid, "--encoding", encoding, *where).lines
        asked = ["--text", text, "--encoding", encoding]
        found = ran("search", places.pid, *asked, *where).lines
        assert f"{places.at[name]:#x}" in [line.split("\t")[0] for line in found]
    assert ran("search", places.pid, "--text", "Schlüssel-wide", *where).code == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["search", "00 01", "--encoding", "utf-8"], "--encoding is for --text"),
        (["search", "--text", "x", "--encoding", "nothing"], "no encoding is called 'nothing'"),
        (["search", "--text", "x", "--encoding", "utf-16"], "give utf-16-le or utf-16-be"),
        (["strings", "--encoding", "utf-16"], "utf-16-le"),
    ],
)
def test_encoding_that_is_none_is_refused(places: Places, args: list[str], message: str) -> None:
    """Exit code 2 and one line that says what to give."""
    found = ran(args[0], places.pid, *args[1:])
    assert (found.code, found.out) == (2, "")
    assert message in found.err


@pytest.mark.parametrize(("name", "text"), [("g_player", "player-01 Mira"), ("g_umlaut", "Größe")])
def test_telescope_text_at_the_address_is_shown_as_text(
    places: Places, name: str, text: str
) -> None:
    """The first word is the text that stands there, and the pointer behind leads to the same."""
    nr = 16 // places.width + 1
    for terminal in (False, True):
        lines = ran("telescope", places.pid, name, nr, terminal=terminal).lines
        assert text in "\n".join(lines[: 2 if terminal else 1])
        assert text in lines[-1]
    words = ran("telescope", places.pid, name, nr, "--json").document["words"]
    assert words[0]["end"] == words[-1]["end"] == "text"
    assert words[0]["text"].startswith(text)
    assert words[-1]["text"] == words[0]["text"]
    assert len(words[0]["chain"]) == 1
    assert ran("telescope", places.pid, "one", 2, "--json").document["words"][1]["text"] is None
