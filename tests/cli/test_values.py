"""`read` and `write`, `ps` and `maps`, `hexdump` and `telescope`."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import procvm
from tests.cli.running import COMMAND, Dials, ran
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import USUAL
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import assert_free

READS: list[tuple[list[str], str]] = [
    (["g_counter", "-t", "u32"], "7"),
    (["g_counter", "-t", "u32", "-x"], "0x7"),
    (["g_lives", "-t", "i32"], "1234567"),
    (["g_ratio", "-t", "f64"], "2.5"),
    (["g_ratio", "-t", "bytes", "-n", "8"], struct.pack("d", 2.5).hex()),
    (["g_name", "-t", "cstr"], r"a \x1b[31mred\x1b[0m name\x0a"),
    (["g_point", "-t", "struct:x=u32,y=f64,name=char[8]"], 'x=3 y=0.5 name="point"'),
    (["g_point", "-t", "struct:x=u8[3],z=u8"], "x=[3,0,0] z=0"),
    (["g_point", "-t", "struct:=Ixxxxd"], "3 0.5"),
    (["dials!g_counter", "-t", "u8", "-n", "4"], "7\n0\n0\n0"),
    (["g_counter+1", "-t", "u8"], "0"),
]


def test_values_are_read(dials: Dials) -> None:
    """Each type is shown as its value, alone on its line, so that a script can take it."""
    for args, expected in READS:
        assert (args, ran("read", dials.pid, *args)) == (args, (0, expected + "\n", ""))


def test_a_name_will_do_for_a_pid() -> None:
    """The name of the program stands for its pid where it is the only one."""
    name = f"only{os.getpid()}"
    with Dials(name=name):
        assert ran("read", name, "g_counter", "-t", "u32").out == "7\n"


def test_pointers_come_with_what_is_there(dials: Dials) -> None:
    """A ptr is shown with its description, and can be followed by *."""
    found = ran("read", dials.pid, "g_list", "-t", "ptr")
    pointer, _, where = found.out.strip().partition("\t")
    assert where.startswith("[heap]+0x")
    number = ran("read", dials.pid, "*g_list+8", "-t", "u32")
    assert number.out == "100\n"
    assert ran("read", dials.pid, where, "-t", "ptr").code == 0
    assert ran("read", dials.pid, pointer, "-t", "ptr").code == 0


def test_floats_are_as_short_as_they_can_be(dials: Dials) -> None:
    """An f32 shows the digits it has, not those that a double would need."""
    assert ran("write", dials.pid, "g_counter", "0.1", "-t", "f32").code == 0
    assert ran("read", dials.pid, "g_counter", "-t", "f32").out == "0.1\n"
    ran("write", dials.pid, "g_ratio", "nan", "-t", "f64")
    assert ran("read", dials.pid, "g_ratio", "-t", "f64").out == "nan\n"
    document = ran("read", dials.pid, "g_ratio", "-t", "f64", "--json").document
    assert document["values"][0]["value"] == "nan"


def test_more_than_one_chunk_is_read_whole(playground: Playground) -> None:
    """A count of several chunks gives every value, in order."""
    n = (2 << 20) + 8
    base = playground.reserve(n)
    playground.poke(base + n - 8, b"end here")
    found = ran("read", playground.pid, hex(base), "-t", "u64", "-n", n // 8)
    lines = found.lines
    assert len(lines) == n // 8
    assert lines[-1] == str(int.from_bytes(b"end here", sys.byteorder))
    assert set(lines[:-1]) == {"0"}


def test_raw_bytes_come_as_they_are(playground: Playground) -> None:
    """--raw writes the bytes alone, up to a fault."""
    base = playground.layout("rw none")
    args = ["read", str(playground.pid), hex(base), "-n", "8K", "--raw", "-t", "bytes"]
    done = subprocess.run([*COMMAND, *args], capture_output=True, check=False)
    assert done.returncode == 5
    assert done.stdout == pattern(base, PAGE)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("i32", "-5", struct.pack("i", -5)),
        ("u32", "0x10", struct.pack("I", 16)),
        ("u16", "007", struct.pack("H", 7)),
        ("f32", "-1.5", struct.pack("f", -1.5)),
        ("bytes", "de ad be ef", b"\xde\xad\xbe\xef"),
        ("cstr", "hey", b"hey\0"),
        ("ptr", "0x1234", struct.pack("N", 0x1234)),
    ],
)
def test_values_are_written(dials: Dials, kind: str, value: str, expected: bytes) -> None:
    """What was typed stands there afterwards, those bytes and no others."""
    found = ran("write", dials.pid, "g_name", value, "-t", kind)
    assert found == (0, "", "")
    with procvm.open(dials.pid) as process:
        after = process.vm.read_bytes(process.address("g_name"), 32)
    old = b"a \x1b[31mred\x1b[0m name\n".ljust(32, b"\0")
    assert after == expected + old[len(expected) :]


def test_a_write_needs_the_page_or_force(dials: Dials) -> None:
    """What the program itself could not write faults, and is written with --force."""
    found = ran("write", dials.pid, "g_fixed", "NOW", "-t", "bytes")
    assert found.code == 2  # no bytes
    found = ran("write", dials.pid, "g_fixed", "4e4f57", "-t", "bytes")
    assert found.code == 5
    assert "--force" in found.err
    assert ran("write", dials.pid, "g_fixed", "4e4f57", "-t", "bytes", "--force").code == 0
    text = ran("read", dials.pid, "g_fixed", "-t", "cstr").out
    assert text == "NOWs text can not be written\n"


def test_expect_writes_only_what_was_seen(dials: Dials) -> None:
    """Another value is left as it is, and told; the one expected is replaced, atomically."""
    found = ran("write", dials.pid, "g_lives", "9", "-t", "i32", "--expect", "5")
    assert found.code == 1
    assert "the value is 1234567" in found.err
    assert "not 5" in found.err
    assert dials.ask("show")[1] == "1234567"
    found = ran("write", dials.pid, "g_lives", "9", "-t", "i32", "--expect", "1234567", "--json")
    assert found.code == 0
    assert (found.document["atomic"], found.document["written"]) == (True, True)
    assert dials.ask("show")[1] == "9"


def test_expect_of_a_size_without_atomics_holds_the_target(dials: Dials) -> None:
    """Bytes that no processor compares at once are compared and written in a hold."""
    args = ("write", dials.pid, "g_name", "58", "-t", "bytes", "--json")
    assert ran(*args, "--expect", "59").code == 1
    found = ran(*args, "--expect", "61")
    assert found.code == 0
    assert found.document["atomic"] is True
    assert ran("read", dials.pid, "g_name", "-t", "u8").out == f"{ord('X')}\n"
    state = Path(f"/proc/{dials.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state in "RS"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="$rbx is a register of x86-64")
def test_register_in_an_address_is_that_of_the_hold(tmp_path: Path) -> None:
    """The target keeps the address of its word in rbx, and pushed it on its stack."""
    with Child([compiled("vectors")]) as child:
        word = child.hexes()[0]
        for place, old, new in (
            ("$rbx", "0x5eed", "6"),
            ("*$rsp", "6", "7"),
            ("*($rsp)", "7", "8"),
        ):
            args = ("write", child.pid, place, new, "-t", "u64", "--expect", old)
            assert ran(*args) == (0, "", "")
        assert ran("write", child.pid, "$rbx", "5", "-t", "u64", "--expect", "5").code == 1
        with open(f"/proc/{child.pid}/mem", "rb") as memory:
            memory.seek(word)
            assert memory.read(8) == (8).to_bytes(8, "little")
        core = tmp_path / "core"
        assert ran("snapshot", child.pid, "-o", core, "--near", "$rbx", 16).code == 0
        assert ran("read", core, hex(word), "-t", "u64").out == "8\n"
        for name, *more in (("read",), ("write", "9", "-t", "u64")):
            found = ran(name, child.pid, "$rbx", *more)
            assert found.code == 2
            assert "write --expect" in found.err
            assert "Tracee" not in found.err
        assert_free(child.pid)


def test_expect_of_a_traced_process_says_that_it_is_not_atomic(
    dials: Dials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value of a target that cannot be held is compared and written, with a warning."""
    with procvm.attach(dials.pid) as tracee, tracee.stopped():
        # The command waits for the hold as long as a stop may take.
        monkeypatch.setattr(procvm.Tracee, "default_timeout", USUAL)
        found = ran("write", dials.pid, "g_lives", "8", "-t", "i32", "--expect", "1234567",
                    "--json")  # fmt: skip
    assert found.code == 0
    assert found.document["atomic"] is False
    assert found.err.startswith("procvm: not atomic: ")
    assert dials.ask("show")[1] == "8"


def test_ps_lists_a_process_with_its_access(dials: Dials) -> None:
    """One record a line, and the process is among those of its name."""
    found = ran("ps", "dials")
    rows = [line.split("\t") for line in found.lines]
    (row,) = [row for row in rows if row[0] == str(dials.pid)]
    assert row[5:7] == ["yes", "dials"]
    assert ran("ps", "no-such-name-at-all").code == 1


def test_maps_lists_what_proc_does(dials: Dials) -> None:
    """Without a terminal the lines are those of /proc/PID/maps, with 0x before addresses."""
    text = Path(f"/proc/{dials.pid}/maps").read_text()
    text = re.sub(r"^(\w+)-(\w+) ", r"0x\1-0x\2 ", text, flags=re.MULTILINE)
    expected = [" ".join(line.split()) for line in text.splitlines()]
    assert ran("maps", dials.pid).lines == expected
    heap = ran("maps", dials.pid, "--kind", "heap").lines
    assert heap == [line for line in expected if line.endswith("[heap]")]
    code = ran("maps", dials.pid, "--in", "dials", "--perms", "x").lines
    assert len(code) == 1
    assert ran("maps", dials.pid, "--in", "nothing").code == 1


def test_hexdump_shows_rows_of_80_columns(dials: Dials) -> None:
    """Address, digits and text; rows that repeat are one star, unless all are asked for."""
    found = ran("hexdump", dials.pid, "g_name", 32)
    address = procvm_address(dials, "g_name")
    assert found.lines == [
        f"{address:#014x} 61 20 1b 5b 33 31 6d 72  65 64 1b 5b 30 6d 20 6e a .[31mred.[0m n",
        f"{address + 16:#014x} 61 6d 65 0a 00 00 00 00  00 00 00 00 00 00 00 00 ame.............",
    ]
    assert {len(line) for line in found.lines} == {80}
    base = procvm_address(dials, "[heap]+0x2000")
    found = ran("hexdump", dials.pid, hex(base), "0x100")
    assert found.lines[1:] == ["*", f"{base + 0x100:#014x}"]
    assert len(ran("hexdump", dials.pid, hex(base), "0x100", "--all").lines) == 16


def procvm_address(dials: Dials, text: str) -> int:
    """Returns an address in the program."""
    with procvm.open(dials.pid) as process:
        return process.address(text)


def test_hexdump_ends_at_a_fault(playground: Playground) -> None:
    """The rows before it are shown, the last one as far as it goes."""
    base = playground.layout("rw none")
    found = ran("hexdump", playground.pid, hex(base + PAGE - 24), 64)
    assert found.code == 5
    assert [line.split()[0] for line in found.lines] == [
        f"{base + PAGE - 24:#014x}",
        f"{base + PAGE - 8:#014x}",
    ]
    assert pattern(base + PAGE - 8, 8).hex(" ") in found.lines[1]


def test_telescope_follows_a_list(dials: Dials) -> None:
    """Each pointer is followed, with what is there, to the number at the end."""
    found = ran("telescope", dials.pid, "g_list", 1, "--json")
    (word,) = found.document["words"]
    with procvm.open(dials.pid) as process:
        nodes = [process.vm.read_val(process.address("g_list"), procvm.usize)]
        while nodes[-1]:
            nodes.append(process.vm.read_val(nodes[-1], procvm.usize))
        where = [process.describe(node) for node in nodes[:-1]]
    assert len(nodes) == 4
    assert [step["value"] for step in word["chain"]] == [hex(node) for node in nodes]
    assert [step["where"] for step in word["chain"]] == [*where, None]
    assert word["end"] == "number"
    assert ran("telescope", dials.pid, "g_list", 1, "--depth", 1, "--json").document["words"][0][
        "end"
    ] == ("deeper")


def test_telescope_knows_text_loops_code_and_holes(playground: Playground) -> None:
    """What ends a chain is named: a text, a loop, code, memory that can not be read."""
    base = playground.layout("rw none")
    words = [base, base + 64, base + PAGE, base + 48]
    playground.poke(base, struct.pack("4N", *words) + bytes(32) + b"a text\0")
    playground.poke(base + 48, struct.pack("N", base + 56) + struct.pack("N", 12))
    with procvm.open(playground.pid) as process:
        code = process.maps().filter(perms="x")[0].start
    playground.poke(base + 32, struct.pack("N", code))
    found = ran("telescope", playground.pid, hex(base), 5, "--json").document["words"]
    assert [word["end"] for word in found] == ["loop", "text", "unreadable", "number", "code"]
    assert found[1]["text"] == "a text"
    lines = ran("telescope", playground.pid, hex(base), 5).lines
    assert lines[1].endswith('\t"a text"')
    assert os.linesep not in lines[1]


def test_a_core_file_is_read_as_the_process_was(dials: Dials, tmp_path: Path) -> None:
    """Where only reading is done the path of a core file will do."""
    core = tmp_path / "saved"
    assert ran("snapshot", dials.pid, "-o", core).code == 0
    assert core.stat().st_mode & 0o777 == 0o600
    live = {}
    commands: list[list[object]] = [
        ["read", "g_counter", "-t", "u32"],
        ["hexdump", "g_name", 32],
        ["telescope", "g_list", 1],
        ["strings", "--in", "[heap]"],
        ["search", "--text", "second node"],
        ["maps", "--in", "dials"],
    ]
    for name, *rest in commands:
        live[name] = ran(name, dials.pid, *rest)
        assert live[name].code == 0
    dials.close()
    for name, *rest in commands:
        found = ran(name, core, *rest)
        assert (name, found.code) == (name, 0)
        assert found.lines == live[name].lines
    refused = ran("write", core, "g_counter", "1", "-t", "u32")
    assert refused.code == 4
    assert "core files are read-only" in refused.err
    assert "no process is called" not in refused.err


def test_write_of_a_structure_takes_back_what_read_shows(dials: Dials) -> None:
    """Fields in any order, texts in quotes, and a format of the struct module."""
    kind = "struct:x=u16,name=char[4],v=u8[2]"
    assert ran("write", dials.pid, "g_name", 'name="a\\x1b" x=7 v=[1,2]', "-t", kind).code == 0
    shown = ran("read", dials.pid, "g_name", "-t", kind).out.rstrip("\n")
    assert shown == 'x=7 name="a\\x1b" v=[1,2]'
    assert ran("write", dials.pid, "g_name", shown, "-t", kind, "--expect", shown).code == 0
    assert ran("write", dials.pid, "g_name", "1 -2 0.5", "-t", "struct:<Hhf").code == 0
    assert ran("read", dials.pid, "g_name", "-t", "struct:<Hhf").out == "1 -2 0.5\n"
    assert ran("write", dials.pid, "g_name", "1 -2", "-t", "struct:<Hhf").code == 2
    assert ran("write", dials.pid, "g_name", "70000 2 1", "-t", "struct:<Hhf").code == 2


def test_write_from_a_file_writes_its_bytes(dials: Dials, tmp_path: Path) -> None:
    """The bytes of a file or of stdin are written; a type or a value beside it is refused."""
    path = tmp_path / "bytes"
    path.write_bytes(b"from a file\0")
    assert ran("write", dials.pid, "g_name", "--from", path).code == 0
    assert ran("read", dials.pid, "g_name", "-t", "cstr").out == "from a file\n"
    assert ran("write", dials.pid, "g_name", "--from", "-", stdin=b"stdin\0").code == 0
    assert ran("read", dials.pid, "g_name", "-t", "cstr").out == "stdin\n"
    assert ran("write", dials.pid, "g_name", "1", "--from", path).code == 2
    assert ran("write", dials.pid, "g_name", "-t", "u8", "--from", path).code == 2
    assert ran("write", dials.pid, "g_name", "--from", tmp_path / "none").code == 2
