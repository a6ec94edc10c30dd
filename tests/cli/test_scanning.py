"""`scan`: all types at once, floats and texts as shown, and what is done with the list."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import procvm
from tests.cli.running import COMMAND, Dials, Result, ran
from tests.cli.test_documents import _assert_documented
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground


def scanned(pid: int, *lines: str, options: tuple[object, ...]) -> Result:
    """Runs a scan with lines from a pipe."""
    return ran("scan", pid, *options, stdin="\n".join(lines).encode())


def place(dials: Dials, name: str) -> str:
    """Returns an address of the program in hexadecimal."""
    with procvm.open(dials.pid) as process:
        return hex(process.address(name))


def test_scan_of_number_finds_every_width_and_sets_each_in_its_own(dials: Dials) -> None:
    """An i32 and a double of the program, found by one kind of scan."""
    options = ("-t", "number", "--in", "dials")
    found = scanned(dials.pid, "1234567", "list", options=options)
    rows = [line.split("\t") for line in found.lines[1:]]
    assert [place(dials, "g_lives"), "1234567", "dials!g_lives", "i32"] in [row[1:] for row in rows]
    found = scanned(dials.pid, "2.5", "list", "set all 0.25", options=options)
    assert found.lines[0] == "1 address"
    assert found.lines[1].split("\t")[1:] == [
        place(dials, "g_ratio"),
        "2.5",
        "dials!g_ratio",
        "f64",
    ]
    assert dials.ask("show")[2] == "0.25"


@pytest.mark.parametrize(("line", "hits"), [("3.14", 1), ("= 3.14", 0), ("3.1416", 1), ("3.15", 0)])
def test_scan_finds_a_float_by_the_digits_that_are_shown(
    playground: Playground, line: str, hits: int
) -> None:
    base = playground.layout("rw")
    playground.poke(base + 64, procvm.f32.to_bytes(3.1415927))
    options = ("-t", "f32", "--near", hex(base), PAGE)
    assert scanned(playground.pid, line, options=options).lines[0].split()[0] == str(hits)


def test_scan_of_text_finds_both_encodings_narrows_and_sets(playground: Playground) -> None:
    """A shorter text is ended by a NUL, and a longer one is refused."""
    base = playground.layout("rw rw")
    for at, encoding in ((16, "utf-8"), (256, "utf-16-le"), (512, "utf-8")):
        playground.poke(base + at, "Ada Lovelace".encode(encoding))
    options = ("-t", "text", "--range", hex(base), hex(base + PAGE))
    result = scanned(
        playground.pid,
        *("Ada Lovelace", "delete 2", "list", "undo", "set 2 Grace", "unchanged", "list"),
        *("set 0 A name that is too long", "set 1 Grace", "= Grace", "list"),
        options=options,
    )
    assert result.code == 2
    assert "would overwrite what comes after it" in result.err
    rows = [line.split("\t") for line in result.lines]
    first, second = hex(base + 16), hex(base + 256)
    assert [row if len(row) == 1 else (row[0], row[1], row[2], row[-1]) for row in rows] == [
        *(["3 addresses"], ["2 addresses"]),
        ("0", first, "Ada Lovelace", "utf-8"),
        ("1", second, "Ada Lovelace", "utf-16-le"),
        *(["3 addresses"], ["1 written"], ["2 addresses"]),
        ("0", first, "Ada Lovelace", "utf-8"),
        ("1", second, "Ada Lovelace", "utf-16-le"),
        *(["1 written"], ["1 address"]),
        ("0", second, "Grace", "utf-16-le"),
    ]
    assert playground.peek(base + 256, 12) == "Grace\0".encode("utf-16-le")
    assert playground.peek(base + 512, 7) == b"Grace\0v"


def test_scan_deletes_excludes_and_undoes(playground: Playground) -> None:
    base = playground.layout("rw rw")
    for k in range(8):
        playground.poke(base + 256 * k, procvm.u32.to_bytes(77_001_002))
    options = ("-t", "u32", "--range", hex(base), hex(base + PAGE))
    result = scanned(
        playground.pid,
        *("77001002", "delete 0 2..3", "list", f"exclude {base + 256:#x} {base + 1280:#x}", "list"),
        *("undo", "undo", "delete 8", "exclude no-such-mapping", "exclude"),
        options=options,
    )
    at = [int(line.split("\t")[1], 16) - base for line in result.lines if "\t" in line]
    assert at == [256, 1024, 1280, 1536, 1792, 1280, 1536, 1792]
    counts = [line for line in result.lines if "\t" not in line]
    assert counts == [f"{n} addresses" for n in (8, 5, 3, 5, 8)]
    assert result.code == 2
    assert len(result.err.splitlines()) == 3


@pytest.mark.parametrize(("kind", "line"), [("number", "1234567"), ("text", "second node")])
def test_scan_is_saved_and_goes_on(dials: Dials, tmp_path: Path, kind: str, line: str) -> None:
    file = tmp_path / "a list.scan"
    options = ("-t", kind)
    first = scanned(dials.pid, line, f"save {file}", options=options)
    assert first.code == 0
    again = scanned(dials.pid, f"load {file}", "unchanged", options=options)
    assert again.lines[0] == first.lines[0] == first.lines[1]
    assert file.stat().st_mode & 0o777 == 0o600
    other = scanned(dials.pid, "load /no/such/file", f"load {__file__}", options=options)
    assert other.code == 2
    assert [line.count("procvm: scan: ") for line in other.err.splitlines()] == [1, 1]


def test_freeze_from_the_list_keeps_a_value_until_it_is_left(dials: Dials) -> None:
    """The program sets its lives, and has the frozen ones again."""
    with Child([*COMMAND, "scan", str(dials.pid), "-t", "i32", "--in", "dials"]) as scan:
        assert scan.ask("1234567") == "1 address"
        assert scan.ask("freeze 0 99") == "1 frozen"
        assert dials.ask("show")[1] == "99"
        for n in range(3):
            dials.ask(f"lives {n}")
            assert eventually(lambda: dials.ask("show")[1] == "99")
        assert scan.ask("unfreeze all") == "1 unfrozen"
        dials.ask("lives 5")
        assert scan.ask("freeze all") == "1 frozen"  # the value that is there
        dials.ask("lives 6")
        assert eventually(lambda: dials.ask("show")[1] == "5")
        assert scan.ask("unfreeze 0") == "1 unfrozen"
        assert dials.ask("lives 7")[1] == "7"
        scan.send("quit")
        assert scan.popen.wait() == 0
    assert dials.ask("show")[1] == "7"


def test_freeze_ends_with_the_process(dials: Dials) -> None:
    """The next look says that it has ended."""
    args = [*COMMAND, "scan", str(dials.pid), "-t", "i32", "--in", "dials"]
    with Child(args, stderr=subprocess.PIPE) as scan:
        assert scan.ask("1234567") == "1 address"
        assert scan.ask("freeze 0") == "1 frozen"
        dials.close()
        scan.send("changed")
        assert scan.popen.wait() == 4


def test_scan_json_of_freeze_is_documented(dials: Dials) -> None:
    result = scanned(
        dials.pid, "1234567", "freeze 0", "unfreeze 0", options=("--in", "dials", "--json")
    )
    _, frozen, unfrozen = result.records
    _assert_documented("scan-freeze", frozen)
    _assert_documented("scan-unfreeze", unfrozen)


def test_scan_options_that_do_not_go_together_are_refused(dials: Dials) -> None:
    for args in (("-t", "text", "--align", "4"), ("-t", "i32", "--encoding", "utf-8")):
        assert ran("scan", dials.pid, *args).code == 2
    result = scanned(dials.pid, "any", "", options=("-t", "text"))
    assert result.code == 2
    assert "begins with a text" in result.err
