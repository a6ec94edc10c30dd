"""`search`, `strings` and `scan`."""

from __future__ import annotations

import struct

import pytest

import procvm
from tests.cli.running import Dials, OnTerminal, ran
from tests.support.playground import PAGE, Playground


@pytest.fixture
def page(playground: Playground) -> int:
    """A page of the child with a few things in it, and nothing behind it."""
    base = playground.layout("rw none")
    playground.poke(base, bytes(PAGE))
    playground.poke(base + 0x100, b"needle one\0")
    playground.poke(base + 0x203, b"needle two\0")
    playground.poke(base + 0x300, struct.pack("IIIf", 0xCAFE0001, 0xCAFE0002, 0xCAFE0009, 1.5))
    return base


NEEDLES: list[tuple[list[str], list[int]]] = [
    (["6e 65 65 64 6c 65"], [0x100, 0x203]),
    (["6e65 65?? 6c 6?  20 74"], [0x203]),
    (["--text", "needle "], [0x100, 0x203]),
    (["--text", "needle ", "--align", "4"], [0x100]),
    (["--text", "needle ", "--limit", "1"], [0x100]),
    (["--regex", "needle (one|two)"], [0x100, 0x203]),
    (["-t", "u32", "--value", "0xCAFE0002"], [0x304]),
    (["-t", "u32", "--value", "0xCAFE0001..0xCAFE0008", "--align", "4"], [0x300, 0x304]),
    (["-t", "u32", "--value", "> 0xCAFE0001", "--align", "4"], [0x304, 0x308]),
    (["-t", "bytes", "--value", "0100feca"], [0x300]),
    (["-t", "cstr", "--value", "needle two"], [0x203]),
]


def test_every_place_is_found(playground: Playground, page: int) -> None:
    """Each kind of needle gives exactly its places, in order, with what is there."""
    for args, offsets in NEEDLES:
        found = ran("search", playground.pid, *args, "--perms", "rwp")
        rows = [line.split("\t") for line in found.lines]
        here = [int(row[0], 16) - page for row in rows if 0 <= int(row[0], 16) - page < PAGE]
        assert (args, found.code, here) == (args, 0, offsets)
        assert all(len(row) == 2 for row in rows)


def test_nothing_found_gives_1(playground: Playground, page: int) -> None:
    """No output, no message, and 1."""
    found = ran("search", playground.pid, "--text", "no such needle anywhere", "--perms", "rw")
    assert found == (1, "", "")
    assert playground.peek(page, 1) == b"\0"


def test_strings_are_whole_and_once(playground: Playground) -> None:
    """Each text of at least the length comes once, from its first character to its last."""
    base = playground.layout("rw rw none")
    long = b"x" * (PAGE + 100)
    playground.poke(base, bytes(2 * PAGE))
    playground.poke(base + 8, b"short\0sixsix\0tab\there\0")
    playground.poke(base + 0x200, long)
    playground.poke(base + 2 * PAGE - 6, b"at end")
    found = ran("strings", playground.pid, "--perms", "rwp")
    rows = [line.split("\t", 1) for line in found.lines]
    here = [(int(at, 16) - base, text) for at, text in rows if 0 <= int(at, 16) - base < 2 * PAGE]
    assert here == [
        (14, "sixsix"),
        (21, "tab\\x09here"),
        (0x200, long.decode()),
        (2 * PAGE - 6, "at end"),
    ]


def test_a_very_long_text_comes_in_parts(playground: Playground) -> None:
    """Parts of 64 KiB, each with its own address, none left out."""
    n = (1 << 16) + 10
    base = playground.reserve(1 << 18)
    playground.poke(base + 100, b"y" * n)
    rows = [line.split("\t") for line in ran("strings", playground.pid, "--perms", "rw").lines]
    here = [(int(at, 16) - base, len(text)) for at, text in rows if set(text) == {"y"}]
    assert here == [(100, 1 << 16), (100 + (1 << 16), 10)]


def _session(dials: Dials, *lines: str) -> tuple[int, list[str], str]:
    args = ("scan", dials.pid, "-t", "i32", "--in", "dials")
    found = ran(*args, stdin="\n".join(lines).encode())
    return found.code, found.lines, found.err


def test_scan_finds_and_sets_a_value(dials: Dials) -> None:
    """The one place of a value is found, listed, written; all from a pipe."""
    code, lines, err = _session(dials, "1234567", "= 1234567", "list", "set 0 -3", "list", "")
    address = procvm_address(dials, "g_lives")
    assert (code, err) == (0, "")
    assert lines[:2] == ["1 address", "1 address"]
    assert lines[2] == f"0\t{address:#x}\t1234567\tdials!g_lives"
    assert lines[3:] == ["1 written", f"0\t{address:#x}\t-3\tdials!g_lives"]
    assert dials.ask("show")[1] == "-3"


def procvm_address(dials: Dials, text: str) -> int:
    """Returns an address in the program."""
    with procvm.open(dials.pid) as process:
        return process.address(text)


def test_scan_narrows_undoes_and_resets(dials: Dials) -> None:
    """Each kind of look keeps what fulfils it; undo gives the one before, reset none."""
    args = ("scan", dials.pid, "-t", "i32", "--in", "dials", "--json")
    script = [
        *("any", "> 1000000", "1234567", "changed", "undo", "unchanged", "-", "undo"),
        *("1234560..1234570", "!= 5", "reset", "undo", "list"),
    ]
    found = ran(*args, stdin="\n".join(script).encode())
    counts = [one["places"] for one in found.records if "places" in one]
    assert counts[0] > counts[1] > 1
    assert counts[2:] == [1, 0, 1, 1, 0, 1, 1, 1, 0, 1]
    assert found.records[-1]["value"] == 1234567
    assert found.code == 0


def test_scan_sees_what_went_up(dials: Dials) -> None:
    """A value that grew between two looks is among those that did, as a person types it."""
    with OnTerminal("scan", dials.pid, "-t", "u32", "--in", "dials") as terminal:
        terminal.until(b"> ")
        terminal.type("7\n")
        terminal.until(b"1> ")
        assert dials.ask("inc")[0] == "8"
        terminal.type("+\n")
        terminal.until(b"1 address\r\n")
        terminal.until(b"dials!g_counter")
        terminal.until(b"1> ")
        terminal.type("quit\n")
        assert terminal.end() == 0


def test_a_line_that_makes_no_sense_is_told(dials: Dials) -> None:
    """It is told, the others are obeyed, and 2 is the exit code of a script with such lines."""
    code, lines, err = _session(
        dials, "bogus", "+", "set 0 1", "1234567", "set 9 1", "set 0 x", "set 0", "list x", "undo",
        "undo", "set 0 99999999999",
    )  # fmt: skip
    assert code == 2
    assert lines == ["1 address", "0 addresses"]
    errors = err.splitlines()
    assert all(line.startswith("procvm: scan: ") for line in errors)
    assert len(errors) == 9


def test_a_script_without_places_left_gives_1(dials: Dials) -> None:
    """Nothing was found."""
    assert _session(dials, "1234567", "!= 1234567") == (1, ["1 address", "0 addresses"], "")


def test_scan_is_told_of_the_end_of_the_process(dials: Dials) -> None:
    """4, and one line."""
    with OnTerminal("scan", dials.pid, "-t", "i32") as terminal:
        terminal.until(b"> ")
        dials.close()
        terminal.type("5\n")
        assert terminal.end() == 4
        assert b"procvm: process" in terminal.seen


@pytest.mark.parametrize(
    "args",
    [
        ("search", "PID", "-t", "u32", "--value", "9..7"),
        ("watch", "PID", "g_counter", "-t", "u32", "--until", "9..7"),
    ],
)
def test_condition_of_a_reversed_range_is_refused(dials: Dials, args: tuple[str, ...]) -> None:
    """Exit code 2: no number would ever be in it."""
    found = ran(*(str(dials.pid) if word == "PID" else word for word in args))
    assert (found.code, found.out) == (2, "")
    assert "give lowest..highest" in found.err
