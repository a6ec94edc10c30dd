"""What a person sees on a terminal: columns, sums, names, colours, and lines that fit."""

from __future__ import annotations

import os
import re

import pytest

from procvm._base.text import size_text
from procvm.cli.output import Output
from procvm.cli.sparkline import Sparkline
from tests.cli.running import Dials, OnTerminal, Result, assert_safe, ran
from tests.support.playground import PAGE, Playground

_COLOR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(params=[80, 60, 140])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A terminal of so many columns."""
    size = os.terminal_size((request.param, 24))
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback=(80, 24): size)  # noqa: ARG005 (a keyword)
    columns: int = request.param
    return columns


def seen(*args: object) -> Result:
    """Returns what a terminal shows, without colours."""
    found = ran(*args, terminal=True)
    return found._replace(out=_COLOR.sub("", found.out))


def smaps_of(pid: int) -> dict[str, dict[str, int]]:
    """Returns the kilobytes that /proc says, by the first address."""
    found: dict[str, dict[str, int]] = {}
    fields: dict[str, int] = {}
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            head = re.match("([0-9a-f]+)-[0-9a-f]+ ", line)
            if head:
                fields = found.setdefault(f"0x{head[1]:0>12}", {})
            elif line.endswith(" kB\n"):
                name, kilobytes, _ = line.split()
                fields[name] = int(kilobytes) << 10
    return found


def test_maps_shows_what_proc_says_is_resident_and_dirty(
    playground: Playground, width: int
) -> None:
    base = playground.window(64 * PAGE, PAGE)
    playground.poke(base, b"x" * (3 * PAGE))
    facts = smaps_of(playground.pid)
    found = seen("maps", playground.pid)
    head, *rows, total = found.lines
    assert ("END" in head) == (width >= 78)
    assert max(map(len, [head, *rows, total])) <= width + 4  # [vsyscall] is out of line
    for row in rows:
        start, *cells = row.split()
        fact = facts[start]
        dirty = fact["Shared_Dirty:"] + fact["Private_Dirty:"]
        sizes = [fact["Size:"], fact["Rss:"], dirty]
        at = 1 + (width >= 78)
        shown = [cell for cell in cells[at : at + 3] if re.fullmatch(r"[0-9.]+[KMG]?", cell)]
        assert shown == [size_text(size) for size in sizes if size], row
    assert f"{len(facts)} mappings, " in total
    resident = sum(fact["Rss:"] for fact in facts.values())
    assert f"{size_text(resident)} resident" in total


def test_maps_of_a_core_file_says_why_columns_are_missing(dials: Dials, tmp_path: object) -> None:
    path = f"{tmp_path}/a.core"
    assert ran("snapshot", dials.pid, "-o", path).code == 0
    found = seen("maps", path)
    assert "RSS" not in found.lines[0]
    assert "not known: a core file does not say it" in " ".join(found.lines[-3:])
    assert {one["resident"] for one in ran("maps", path, "--json").document["mappings"]} == {None}


def test_hexdump_names_each_mapping_once(playground: Playground) -> None:
    base = playground.layout("rw r")
    found = seen("hexdump", playground.pid, hex(base + PAGE - 16), 32, "--all")
    heads = [line for line in found.lines if "-0x" in line]
    assert [head.rsplit(" ", 1)[1] for head in heads] == ["rw-p", "r--p"]
    assert f"{base:#x}-{base + PAGE:#x}" in heads[0]
    assert ran("hexdump", playground.pid, hex(base + PAGE - 16), 32).out.count("-0x") == 0


def test_hexdump_says_the_place_and_the_file(dials: Dials) -> None:
    first = seen("hexdump", dials.pid, "g_name", 16).lines[0]
    assert "dials!g_name, /" in first
    assert seen("hexdump", dials.pid, "[heap]+0x10", 16).lines[0].count("[heap]") == 1


def test_telescope_shows_pointers_names_and_texts(dials: Dials, width: int) -> None:
    found = seen("telescope", dials.pid, "g_list", 1)
    at = int(ran("telescope", dials.pid, "g_list", 1, "--json").document["address"], 16)
    with open(f"/proc/{dials.pid}/mem", "rb", buffering=0) as memory:
        first = int.from_bytes(os.pread(memory.fileno(), 8, at), "little")
    text = " ".join(found.lines)
    assert f"{first:#x} <[heap]+" in text
    assert max(map(len, found.lines)) <= width
    assert found.lines[0] == "dials!g_list"
    colored = ran("telescope", dials.pid, "g_list", 1, terminal=True).out
    assert f"\x1b[34m{first:#x}" in colored  # the colour of the heap in its first line


def test_strings_shows_the_place_and_the_encoding(dials: Dials) -> None:
    found = seen("strings", dials.pid, "--in", "[heap]", "--encoding", "ascii")
    row = next(line for line in found.lines if line.endswith("second node"))
    assert re.search(r"^0x[0-9a-f]{12}  \[heap\]\+0x[0-9a-f]+ +second node$", row)
    both = ran("strings", dials.pid, "--in", "[heap]", "--encoding", "ascii", "--encoding", "utf-8")
    assert {line.split("\t")[1] for line in both.lines} == {"ascii", "utf-8"}


def test_search_shows_the_bytes_around_a_hit(dials: Dials) -> None:
    found = seen("search", dials.pid, "--text", "cond no", "--in", "[heap]")
    assert "second node" in found.lines[0]
    around = ("search", dials.pid, "--text", "cond no", "--in", "[heap]", "-C", "2")
    (record,) = ran(*around, "--json").records
    parts = [bytes.fromhex(record[key]) for key in ("before", "match", "after")]
    assert parts == [b"se", b"cond no", b"de"]
    assert ran(*around).lines[0].split("\t")[2:] == [part.hex() for part in parts]


def test_search_at_the_edge_of_a_page_shows_what_can_be_read(playground: Playground) -> None:
    base = playground.layout("none rw none")
    playground.poke(base + PAGE + 4, b"needle")
    playground.poke(base + 2 * PAGE - 6, b"needle")
    begin, end = base + PAGE, base + 2 * PAGE
    found = ran("search", playground.pid, "--text", "needle", "-C", "8", "--json").records
    (first,) = (one for one in found if one["address"] == hex(begin + 4))
    assert first["before"] == playground.peek(begin, 4).hex()
    assert first["after"] == playground.peek(begin + 10, 8).hex()
    (last,) = (one for one in found if one["address"] == hex(end - 6))
    assert (last["before"], last["after"]) == (playground.peek(end - 14, 8).hex(), "")


def test_watch_draws_the_values_that_it_read(dials: Dials) -> None:
    with OnTerminal("watch", dials.pid, "g_ticks", "-i", "0.01", "-n", "40") as terminal:
        dials.ask("run")
        terminal.until("\u2588".encode())  # the highest bar
        assert terminal.end() == 0
    assert_safe(terminal.seen)


def test_sparkline_has_the_ends_of_its_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Sparkline(Output(as_json=False, color="never"))
    monkeypatch.setattr(line, "_can_be_shown", True)
    for value in (0, 7, 3.5, float("nan"), float("inf"), "text", 0):
        line.add(value)
    assert line.text(40) == "  \u2581\u2588\u2585  \u2581"
    assert line.text(5) == ""
    flat = Sparkline(Output(as_json=False, color="never"))
    for _ in range(9):
        flat.add(1)
    assert flat.text(40) == ""
    wild = Sparkline(Output(as_json=False, color="never"))
    monkeypatch.setattr(wild, "_can_be_shown", True)
    for value in (-1.7e308, 1.7e308):
        wild.add(value)
    assert wild.text(40) == "  \u2581\u2588"
