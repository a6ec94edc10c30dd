"""Names and memory full of escapes: nothing of them reaches a terminal, a pipe or JSON."""

from __future__ import annotations

import itertools
import json
import os

import pytest

from procvm._base.text import printable
from tests.cli.running import Dials, assert_safe, on_terminal, ran
from tests.support.playground import PAGE, Playground

ALL = bytes(range(1, 256))
# Every pair of bytes but those with a NUL, which ends a name, one behind the other.
PAIRS = b"".join(bytes(pair) for pair in itertools.product(ALL, repeat=2))
MARKUP = b"[bold red]x[/] [link=http://x]y :smile:"


def _safe_everywhere(*args: object, codes: tuple[int, ...] = (0,)) -> str:
    """Runs a command on a real terminal, and without colours, in a pipe, and as JSON."""
    code, seen = on_terminal(*args)
    assert code in codes, seen[-500:]
    shown = assert_safe(seen)
    found = ran(*args, "--color", "never", terminal=True)
    assert found.code in codes
    assert assert_safe(found.out + found.err, colors=False) == shown
    _safe_without_terminal(*args)
    return shown


def _safe_without_terminal(*args: object) -> None:
    for form in ([], ["--json"]):
        found = ran(*args, *form)
        assert_safe(found.out + found.err, colors=False)


@pytest.fixture
def names(playground: Playground) -> Playground:
    """The child with files mapped whose names hold every pair of bytes."""
    step = 238
    for start in range(0, len(PAIRS), step):
        playground.map_memfd(PAIRS[start : start + step], PAGE)
    playground.map_memfd(MARKUP, PAGE)
    return playground


def test_names_of_mapped_files(names: Playground) -> None:
    """All of maps, and addresses described, with names that hold every pair of bytes."""
    text = _safe_everywhere("maps", names.pid, "--wide")
    assert printable(MARKUP) in text
    with_all = ran("maps", names.pid).out
    assert with_all.count("memfd:") == len(PAIRS) // 238 + 2
    base = int(names.ask("memfd " + ALL[26:240].hex() + f" {PAGE}"), 16)
    _safe_everywhere("telescope", names.pid, hex(base), 2)
    names.poke(base, b"found here")
    _safe_everywhere("search", names.pid, "--text", "found here", "--perms", "rws")


def test_memory(playground: Playground) -> None:
    """Texts that hold every pair of bytes, by every command that shows memory."""
    pairs = [bytes(pair) for pair in itertools.product(ALL, repeat=2)]
    texts = b"\0".join(pairs) + b"\0"
    base = playground.reserve(1 << 18)
    playground.poke(base, texts)
    code, seen = on_terminal("read", playground.pid, hex(base), "-t", "cstr", "-n", len(pairs))
    assert code == 0
    lines = [line.split("  ", 1)[1] for line in assert_safe(seen).splitlines()]
    assert lines == [printable(pair) for pair in pairs]
    where = (playground.pid, hex(base))
    fields = ",".join(f"f{k}=char[3]" for k in range(300))
    _safe_everywhere("read", *where, "-t", f"struct:{fields}", "-n", 20)
    _safe_everywhere("read", *where, "-t", "struct:" + "3s" * 300, "-n", 20)
    _safe_everywhere("hexdump", *where, 3 * 256)
    _safe_everywhere("search", playground.pid, "--text", "\x1b", "--perms", "rw", "--limit", 200)
    for args in (["hexdump", *where, 3 * 4096, "--all"], ["read", *where, "-t", "cstr"]):
        _safe_without_terminal(*args)
    playground.poke(base, PAIRS)
    _safe_everywhere("strings", playground.pid, "--min", 3, "--perms", "rw", "--in", "[heap]")
    for terminal in (False, True):
        found = ran("strings", playground.pid, "--perms", "rw", terminal=terminal)
        assert_safe(found.out, colors=terminal)
        assert found.code == 0


def test_a_value_that_is_watched(dials: Dials) -> None:
    """What stands there is shown as text: no escapes, no markup of the library that draws."""
    for text in (MARKUP, ALL[:31], ALL[126:140] + b"\xc2\x9b31m\xe2\x80\xae"):
        ran("write", dials.pid, "g_name", (text[:31] + b"\0").hex(), "-t", "bytes")
        args = ("watch", dials.pid, "g_name", "-t", "cstr", "-n", 2, "-i", "0.01")
        code, seen = on_terminal(*args)
        assert code == 0
        assert printable(text[:31]) in assert_safe(seen).replace("\n", "")
        _safe_without_terminal(*args)


def test_changes_that_are_shown(dials: Dials, tmp_path: os.PathLike[str]) -> None:
    """Old and new bytes of a difference, all of them."""
    core = os.path.join(tmp_path, "a.core")
    assert ran("snapshot", dials.pid, "-o", core).code == 0
    for start in range(0, 256, 32):
        data = bytes(range(start, start + 32))
        ran("write", dials.pid, "g_name", data.hex(), "-t", "bytes")
        found = ran("diff", core, dials.pid, "--in", "dials", terminal=True)
        assert found.code == 1
        assert_safe(found.out)
        _safe_without_terminal("diff", core, dials.pid, "--in", "dials")


def test_names_of_processes(playground: Playground) -> None:
    """What a process calls itself, every byte of it, in a list and in messages."""
    for start in range(0, len(ALL), 14):
        name = ALL[start : start + 14]
        playground.set_comm(name)
        for terminal in (False, True):
            found = ran("ps", "--color", "never", terminal=terminal)
            assert_safe(found.out + found.err, colors=False)
        document = ran("ps", "--json").document
        (row,) = [one for one in document["processes"] if one["pid"] == playground.pid]
        assert row["name"] == printable(name)
        found = ran("read", os.fsdecode(name), "nothing-of-this-name")
        # By such a name it can be found as well, but for one that reads as a path.
        assert found.code == (2 if b"/" in name else 1), found
        assert_safe(found.err, colors=False)


def test_command_lines() -> None:
    """Arguments that hold every pair of bytes, in a list, and where a name is ambiguous."""
    name = f"args{os.getpid()}"
    parts = [PAIRS[k : k + 100_000] for k in range(0, len(PAIRS), 100_000)]
    with Dials(*parts, name=name), Dials(*parts, name=name):
        for terminal in (False, True):
            found = ran("ps", name, "--color", "never", terminal=terminal)
            assert found.code == 0
            assert_safe(found.out, colors=False)
        assert_safe(ran("ps", name, "--json").out, colors=False)
        code, seen = on_terminal("read", name, "0x10")
        assert code == 2
        text = assert_safe(seen, colors=False)
        assert printable(PAIRS[:100]) in text.replace("\n", "")


def test_arguments_of_the_command_itself(dials: Dials) -> None:
    """What a person (or a script) gives is as foreign as the rest."""
    evil = "\x1b]0;title\x07\u202e\udc9b\n"
    for args in (
        ["read", evil, "0x10"],
        ["read", str(dials.pid), evil],
        ["read", str(dials.pid), "0x10", "-t", evil],
        ["write", str(dials.pid), "g_lives", evil, "-t", "u32"],
        ["maps", str(dials.pid), "--in", evil],
        ["maps", str(dials.pid), "--kind", evil],
        ["search", str(dials.pid), evil],
        ["snapshot", str(dials.pid), "-o", "/nonexistent/" + evil],
        ["diff", evil, evil],
        [evil],
        ["watch", str(dials.pid), "g_lives", "--until", evil],
    ):
        for terminal in (False, True):
            found = ran(*args, terminal=terminal)
            assert found.code in (1, 2, 4)
            assert found.err.count("\n") <= 1
            assert_safe(found.out + found.err, colors=terminal)


def test_json_is_ascii_and_escaped_once(dials: Dials) -> None:
    """A text in JSON is what `printable` makes of it."""
    out = ran("read", dials.pid, "g_name", "-t", "cstr", "--json").out
    assert out.isascii()
    assert json.loads(out)["values"][0]["value"] == r"a \x1b[31mred\x1b[0m name\x0a"
