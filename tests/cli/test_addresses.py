"""Addresses: what one command prints another takes for the same place, or says which is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import procvm
from tests.cli.running import ran
from tests.support.places import Places


@pytest.fixture(scope="module", params=[4, 8], ids=["32 bits", "64 bits"])
def places(request: pytest.FixtureRequest) -> Iterator[Places]:
    """The program of places.c, made for either width."""
    with Places(request.param) as places:
        yield places


PRINTING = [
    ("maps", []),
    ("maps", ["--wide"]),
    ("hexdump", ["0x10000000", "48"]),
    ("telescope", ["g_list", "2"]),
    ("telescope", ["0x10000000", "2"]),
    ("search", ["-t", "i32", "--value", "111", "--align", "4096"]),
    ("strings", ["--in", "", "--perms", "rw"]),
    ("read", ["g_nameless", "-t", "ptr"]),
]


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize(("command", "args"), PRINTING)
def test_command_prints_each_address_with_0x(
    places: Places, command: str, args: list[str], terminal: bool
) -> None:
    """No run of 7 or more hexadecimal digits that begins a column lacks its 0x."""
    found = ran(command, places.pid, *args, "--color", "never", terminal=terminal)
    assert found.code in (0, 1)
    if command != "strings":
        assert re.search(r"\b0x[0-9a-f]+\b", found.out)
    bare = re.findall(r"^\s*[0-9a-f]{7,16}\b", found.out, re.MULTILINE)
    assert not bare


def test_address_printed_by_maps_and_hexdump_is_the_same_place(places: Places) -> None:
    """Whatever stands before a dash, and the first column of hexdump, is taken back by read."""
    for line in ran("maps", places.pid).lines:
        start = line.split("-")[0]
        if int(start, 16) in places.at.values():
            shown = ran("hexdump", places.pid, start, 16).lines[0].split()[0]
            assert int(shown, 16) == int(start, 16)
    (line,) = [row for row in ran("maps", places.pid).lines if row.startswith("0x10000000-")]
    assert ran("read", places.pid, line.split("-")[0], "-t", "i32").out == "111\n"


@pytest.mark.parametrize(
    ("digits", "value"),
    [("7abcd000", 444), ("7ABCD000", 444), ("a0ffe000", 333), ("0x10000000", 111),
     ("0x989680", 222), ("0X989680", 222), ("a0ffe000+8", 333), ("7abcd000+0x10", 444)],
)  # fmt: skip
def test_address_in_hexadecimal_is_taken(places: Places, digits: str, value: int) -> None:
    """With 0x, and without it where the digits cannot be a decimal number."""
    assert ran("read", places.pid, digits, "-t", "i32").out == f"{value}\n"


@pytest.mark.parametrize("digits", ["10000000", "00989680", "010000000", "989680"])
@pytest.mark.parametrize(
    "command",
    [["read", "ADDRESS"], ["write", "ADDRESS", "5", "-t", "i32"], ["hexdump", "ADDRESS"],
     ["telescope", "ADDRESS"], ["freeze", "ADDRESS", "5", "-t", "i32", "--for", "0.01"],
     ["write", "ADDRESS", "5", "-t", "i32", "--expect", "111"], ["watch", "ADDRESS", "-n", "1"],
     ["write", "g_nameless", "ADDRESS", "-t", "ptr"], ["read", "(ADDRESS)+8"],
     ["search", "-t", "ptr", "--value", "ADDRESS"], ["read", "*ADDRESS"]],
    ids=" ".join,
)  # fmt: skip
def test_address_that_may_be_decimal_or_not_is_refused(
    places: Places, command: list[str], digits: str
) -> None:
    """The message has both numbers with 0x; nothing is read or written."""
    name, *args = [word.replace("ADDRESS", digits) for word in command]
    found = ran(name, places.pid, *args)
    assert found.code == 2
    assert not found.out
    assert f"{int(digits, 16):#x}" in found.err
    assert f"{int(digits):#x}" in found.err
    with procvm.open(places.pid) as process:
        read = process.vm.read_val
        assert read(places.at["hex"], procvm.i32) == 111
        assert read(places.at["decimal"], procvm.i32) == 222
        assert read(places.at["g_nameless"], process.usize) == places.at["nameless"]


def test_address_in_decimal_that_cannot_be_hexadecimal_is_taken() -> None:
    """A long number is beyond user space as hexadecimal, a short one below all memory."""
    with Places() as places, procvm.open(places.pid) as process:
        stack = process.maps().filter(kind="stack")[0].start
        assert process.address(str(stack)) == stack
        assert ran("hexdump", places.pid, str(stack), 16).code == 0
        for number in (0, 8, 4096, 9999):
            assert process.address(str(number)) == number
        assert process.address("g_list+65536") == places.at["g_list"] + 65536
        for text in ("abc", "face", "0b1010101010", "12ab"):
            with pytest.raises(procvm.NoSuchSymbolError, match="a number is written 0x"):
                process.address(text)


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_address_without_a_name_is_printed_once(places: Places, terminal: bool) -> None:
    """Read of a pointer, search, telescope, scan, diff: never once more as its own name."""
    at = f"{places.at['nameless']:x}"
    here = ["--align", "4096", "-t", "u32", "--value", "0x51627384"]
    for command, args in (
        ("read", ["g_nameless", "-t", "ptr"]),
        ("search", ["-t", "ptr", "--value", f"0x{at}", "--in", places.program]),
        ("search", here),
        ("telescope", [f"0x{at}", "1"]),
    ):
        found = ran(command, places.pid, *args, "--color", "never", terminal=terminal)
        assert found.lines, command
        assert all(line.count(at) <= 1 for line in found.lines), (command, found.out)
    found = ran("scan", places.pid, "-t", "u32", stdin=b"0x51627384\nlist\n", terminal=terminal)
    rows = [line for line in found.lines if at in line]
    assert rows
    assert all(line.count(at) == 1 for line in rows), found.out


def test_ptr_and_usize_are_as_wide_as_the_targets(places: Places) -> None:
    """read, write, search, watch, telescope and a structure take the target's pointers."""
    at, width, pid = places.at, places.width, places.pid
    one, two = hex(at["one"]), hex(at["two"])
    found = ran("read", pid, "g_list", "-t", "ptr", "-n", 2)
    assert [line.split()[0] for line in found.lines] == [one, two]
    assert ran("read", pid, "g_list", "-t", "usize", "-n", 2, "-x").lines == [one, two]
    found = ran("search", pid, "-t", "ptr", "--value", one, "--in", places.program)
    hits = [int(line.split()[0], 16) for line in found.lines]
    assert at["g_list"] in hits
    words = ran("telescope", pid, "g_list", 2, "--json").document["words"]
    assert [int(word["address"], 16) for word in words] == [at["g_list"], at["g_list"] + width]
    assert [[step["value"] for step in word["chain"]] for word in words] == [
        [one, two, "0x0"],
        [two, "0x0"],
    ]
    assert ran("watch", pid, "g_list", "-t", "ptr", "-n", 1).out.split("\t")[1] == f"{one}\n"
    assert ran("write", pid, "g_list", one, "-t", "ptr", "--expect", one).code == 0
    with procvm.open(pid) as process:
        assert process.vm.read_slice(at["g_list"], process.usize, 2) == [at["one"], at["two"]]


def test_structure_is_laid_out_as_the_targets_compiler_does(places: Places) -> None:
    """On i386 a number of 8 bytes begins at a multiple of 4, and a pointer has 4 bytes."""
    fields = "small=u8,ratio=f64,word=u16,big=u64,next=ptr,size=usize"
    found = ran("read", places.pid, "g_mixed", "-t", f"struct:{fields}", "-n", 2, "--json")
    values = [row["value"] for row in found.document["values"]]
    one, two = hex(places.at["one"]), hex(places.at["two"])
    assert values == [
        {"small": 1, "ratio": 1.5, "word": 2, "big": 3, "next": one, "size": 77},
        {"small": 4, "ratio": 2.5, "word": 5, "big": 6, "next": two, "size": 88},
    ]
