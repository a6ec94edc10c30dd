"""scripts/kernels without a boot: the commands it runs, what it parses, the page it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.guests.boot import MARK, command_line, records_of
from scripts.guests.environments import GUESTS, SETTINGS, TESTED, TESTS, Guest
from scripts.guests.image import ROOT, Image, apt_options, sources_line
from scripts.guests.probe import CAPABILITIES
from scripts.guests.table import PAGE, page, read_results

TRIXIE = GUESTS["trixie-amd64"]


@pytest.mark.parametrize(
    "text",
    [
        "deb http://mirror.example/debian bookworm main",
        "deb https://tools.example/apt any main\ndeb http://mirror.example/debian bookworm main",
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n",
        "URIs: http://mirror.example/debian/\n# URIs: http://mirror.example/debian-security\n",
    ],
)
def test_the_mirror_is_the_one_of_this_machine(text: str) -> None:
    """Both forms of apt's sources; neither another archive nor that of security updates."""
    line = sources_line(TRIXIE, text)
    assert line.split("] ")[1].replace("debian/", "debian") == (
        "http://mirror.example/debian trixie main\n"
    )
    assert line.startswith("deb [arch=amd64 signed-by=")


def test_a_machine_without_a_mirror_is_told() -> None:
    """Nothing is guessed."""
    with pytest.raises(LookupError, match="no mirror"):
        sources_line(TRIXIE, "deb https://tools.example/apt any main")


def test_apt_keeps_to_its_folder(tmp_path: Path) -> None:
    """Whatever apt reads or writes lies in the folder of the guest."""
    options = apt_options(TRIXIE, tmp_path)
    for name in ("Dir::State", "Dir::State::status", "Dir::State::lists", "Dir::Cache"):
        (value,) = [o.partition("=")[2] for o in options if o.startswith(f"-o{name}=")]
        assert Path(value).is_relative_to(tmp_path)
    assert "-oDir::Etc::sourceparts=/dev/null" in options


@pytest.mark.parametrize("guest", GUESTS.values(), ids=str)
def test_a_guest_is_emulated_and_has_no_disk(guest: Guest, tmp_path: Path) -> None:
    """Its files are of its own folder; it runs at a low priority, and ends when its kernel does."""
    command = command_line(guest, Image(guest, tmp_path), words="settings=user1")
    assert command[:2] == ["nice", f"qemu-system-{guest.machine}"]
    assert command[command.index("-accel") + 1].startswith("tcg")
    assert "-no-reboot" in command
    assert not {"-drive", "-hda", "-netdev", "-nic"} & {*command}
    assert command[command.index("-kernel") + 1] == f"{tmp_path}/{guest.name}/kernel"
    assert command[-1].endswith("settings=user1")


def test_records_are_told_from_the_rest_of_the_console() -> None:
    """The kernel may write into a line; a record that it has torn is none."""
    record = {"kind": "probe", "results": []}
    assert records_of(f"{MARK}{json.dumps(record)}\r\n") == [record]
    assert records_of(f"[ 1.2] noise {MARK}{json.dumps(record)}\n") == [record]
    assert records_of(f"{MARK}{json.dumps(record)[:-5]}[ 1.2] noise\n") == []
    assert records_of("[ 1.2] noise\n") == []


def test_scope_3_comes_last() -> None:
    """The kernel does not leave it before the next boot."""
    assert [setting.scope for setting in SETTINGS] == sorted(setting.scope for setting in SETTINGS)
    assert {*TESTED} <= {*SETTINGS}


@pytest.mark.parametrize("path", TESTS)
def test_the_tests_of_a_guest_exist(path: str) -> None:
    """A test that was moved must not leave a guest with nothing to run."""
    assert (ROOT / path).exists()


def test_the_probe_tries_every_capability() -> None:
    """It runs on this machine too: a line for each capability, and the findings of doctor."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/guests/probe.py"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["capability"] for line in lines[:-1]] == [*CAPABILITIES]
    assert len(CAPABILITIES) >= 14
    assert "ptrace" in {check for check, *_ in lines[-1]["doctor"]}
    must = {"read", "write", "page fault, exact", "search", "snapshot", "core file"}
    assert must <= {line["capability"] for line in lines[:-1] if line["result"] == "ok"}


GUEST = {
    "name": "trixie-amd64",
    "date": "2026-01-02",
    "version": "abc",
    "guest": {"kernel": "6.12", "machine": "x86_64", "python": "3.13.1", "yama": True},
    "records": [
        {
            "kind": "probe",
            "user": "user",
            "scope": 1,
            "results": [
                {"capability": "read", "result": "ok", "text": ""},
                {"capability": "hold", "result": "AccessDeniedError", "text": "process 12 | no"},
                {"doctor": []},
            ],
        },
        {"kind": "tests", "user": "user", "scope": 1, "counts": {"passed": 3, "skipped": 1}},
    ],
}


def test_the_page_has_what_was_measured_and_nothing_else() -> None:
    """A cell for each result, the counts of the tests, each message once and without a pid."""
    text = page([GUEST])
    assert "Linux 6.12, x86_64, Python 3.13.1; measured on 2026-01-02 with procvm at abc." in text
    assert "| read | yes |" in text
    assert "| hold | **AccessDenied** |" in text
    assert "| user, scope 1 | 3 | 0 | 1 |" in text
    assert "* `AccessDeniedError`: process PID \\| no" in text


def test_the_page_is_the_one_that_the_script_writes() -> None:
    """Nothing in docs/reach.md is written by hand."""
    assert PAGE.read_text() == page(read_results())
