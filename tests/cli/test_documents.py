"""The JSON is what its documentation says, and the help is complete."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from procvm.cli.root import COMMANDS, root
from tests.cli.running import Dials, ran
from tests.support.playground import PAGE, Playground

ROOT = Path(__file__).parent.parent.parent
MAN_PAGE = ROOT / "docs" / "man" / "procvm.1"
SHAPES = {
    name: json.loads(text)
    for name, text in re.findall(
        r"^```json (\S+)\n(.*?)^```", (ROOT / "docs" / "json.md").read_text(), re.M | re.S
    )
}


def _shape(value: Any) -> Any:
    """Returns the keys of a document in their order, and the types of what they have."""
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    return float if isinstance(value, float) else type(value)


def _assert_documented(name: str, value: Any) -> None:
    found, documented = _shape(value), _shape(SHAPES[name])
    assert list(found) == list(documented)
    assert found == documented


def test_every_command_is_documented() -> None:
    """Each command that takes --json has its block in docs/json.md."""
    context = click.Context(root)
    commands = {name: root.get_command(context, name) for name in COMMANDS}
    with_json = {
        name
        for name, command in commands.items()
        if command is not None and any(one.name == "as_json" for one in command.params)
    }
    assert with_json == set(COMMANDS) - {"help", "tour", "view"}
    assert with_json <= set(SHAPES)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("ps", ["ps", "dials"]),
        ("maps", ["maps", "PID"]),
        ("read", ["read", "PID", "g_counter", "-t", "u32"]),
        ("write", ["write", "PID", "g_lives", "9", "-t", "i32", "--expect", "1234567"]),
        ("hexdump", ["hexdump", "PID", "g_name", "16"]),
        ("telescope", ["telescope", "PID", "g_list", "1"]),
        ("search", ["search", "PID", "--text", "second node", "--limit", "1"]),
        ("strings", ["strings", "PID", "--in", "[heap]"]),
        ("watch", ["watch", "PID", "g_counter", "-t", "u32", "-n", "1", "-i", "0.01"]),
        ("freeze", ["freeze", "PID", "g_lives", "9", "-t", "i32", "--for", "0.01"]),
        ("snapshot", ["snapshot", "PID", "-o", "FILE"]),
        ("doctor", ["doctor", "PID"]),
    ],
)
def test_documents_have_the_documented_shape(
    dials: Dials, tmp_path: Path, name: str, args: list[str]
) -> None:
    """The keys, their order and the types of their values are those of docs/json.md."""
    values = {"PID": str(dials.pid), "FILE": str(tmp_path / "file.core")}
    found = ran(*(values.get(arg, arg) for arg in args), "--json")
    assert found.code == 0, found.err
    document = found.records[0] if name in ("search", "strings", "watch") else found.document
    if name == "maps":
        document["mappings"].sort(key=lambda one: one["inode"] == 0)
    if name == "watch":
        assert document.pop("previous") is None
        document["previous"] = 0
        assert document["seconds"] == 0
        document["seconds"] = 0.1
    if name == "telescope":
        assert document["words"][0]["chain"][-1]["where"] is None
    _assert_documented(name, document)


def test_records_of_a_scan_and_a_diff(dials: Dials, tmp_path: Path) -> None:
    """Those of a scan and of a diff are as documented too."""
    core = tmp_path / "a.core"
    ran("snapshot", dials.pid, "-o", core)
    script = b"1234567\nlist\nset 0 5\n"
    looked, listed, written = ran(
        "scan", dials.pid, "--in", "dials", "--json", stdin=script
    ).records
    _assert_documented("scan", looked)
    _assert_documented("scan-list", listed)
    _assert_documented("scan-set", written)
    (changed,) = ran("diff", core, dials.pid, "--in", "dials", "--json").records
    _assert_documented("diff", changed)


@pytest.mark.parametrize("command", ["read", "hexdump", "telescope"])
def test_a_fault_is_part_of_the_document(playground: Playground, command: str) -> None:
    """What was read is in the document, with the fault, and the exit code is that of it."""
    base = playground.layout("rw none")
    count = "16" if command == "hexdump" else "2"
    args = ["-n", count] if command == "read" else [count]
    found = ran(command, playground.pid, hex(base + PAGE - 8), *args, "--json")
    assert found.code == 5
    document = found.document
    _assert_documented("fault", document["fault"])
    assert document["fault"]["address"] == hex(base + PAGE)
    assert document["fault"]["copied"] == 8
    (items,) = [value for value in document.values() if isinstance(value, list)]
    assert len(items) == 1
    assert found.err.startswith("procvm: ")


def test_every_command_says_what_it_does() -> None:
    """Its help has an example, and every option says what it is for."""
    listed = ran("--help").out
    for name, entry in COMMANDS.items():
        found = ran(name, "--help")
        assert found.code == 0
        assert f"procvm {name}" in found.out.split("Examples:")[1]
        command = root.get_command(click.Context(root), name)
        assert command is not None
        assert command.name == name
        assert all(one.help for one in command.params if isinstance(one, click.Option))
        assert max(map(len, found.lines)) <= 90
        assert entry.help in listed


def test_help_shows_commands_and_the_page_about_json() -> None:
    """`help` is `--help`; `help json` is docs/json.md."""
    assert ran("help").out == ran("--help").out
    for name in COMMANDS:
        assert ran("help", name).out == ran(name, "--help").out
    assert ran("help", "json").out == (ROOT / "docs" / "json.md").read_text()
    assert ran("-V").out == ran("--version").out


def test_man_page_is_what_scripts_man_writes_now() -> None:
    """docs/man/procvm.1 matches the help texts, and has a section for every command."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from manpage import page  # type: ignore[import-not-found]  # noqa: PLC0415
    finally:
        sys.path.pop(0)
    text = MAN_PAGE.read_text()
    assert text == page(), "run scripts/man"
    for name in COMMANDS:
        assert f".SS procvm {name} " in text


def test_man_page_is_installed_by_the_wheel_where_man_looks(tmp_path: Path) -> None:
    """The wheel puts the page beside its bin folder, where man(1) finds it by PATH."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    targets = project["tool"]["hatch"]["build"]["targets"]
    shared = targets["wheel"]["shared-data"]
    assert shared == {
        "docs/json.md": "share/doc/procvm/json.md",
        str(MAN_PAGE.relative_to(ROOT)): "share/man/man1/procvm.1",
    }
    assert MAN_PAGE.relative_to(ROOT).parts[0] in targets["sdist"]["include"]
    if shutil.which("man") is None:
        pytest.skip("this machine has no man(1)")
    installed = tmp_path / shared[str(MAN_PAGE.relative_to(ROOT))]
    installed.parent.mkdir(parents=True)
    shutil.copy(MAN_PAGE, installed)
    found = subprocess.run(
        ["man", "-M", str(tmp_path / "share" / "man"), "-w", "procvm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.strip() == str(installed), found.stderr


def test_the_command_is_quick_to_help() -> None:
    """Its help needs neither rich, nor psutil, nor numpy, nor a command's own module."""
    script = (
        "import sys, procvm.cli.run as r; r.run(['--help'])\n"
        "bad = {'rich', 'psutil', 'numpy', 'elftools', 'procvm._terminal.kind'}\n"
        "bad |= {'procvm._space', 'procvm._symbols', 'procvm._live', 'procvm._hold'}\n"
        "bad &= set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
