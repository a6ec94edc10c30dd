"""What Yama denies, by its setting: a mount namespace has the file that this kernel lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from procvm._linux import yama
from tests.faults.subjects import ROOT_WITHOUT_PTRACE, Subject, as_root, in_mounts, needs
from tests.faults.tools import ROOT
from tests.support.build import compiled

# Of a process that is not the tool's, and of a child of the tool: cause and message.
ASK = """
import json, subprocess, sys
from procvm._linux.access import explain
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
found = [explain(pid) for pid in (int(sys.argv[1]), child.pid)]
child.communicate()
print(json.dumps([[one.cause, one.message, one.yama_scope] for one in found]))
"""


# Starts one program with spawn and one with subprocess; prints their pids and that of the tracer.
START = """
import subprocess, procvm
from procvm._hold.client import tracer_pid
with procvm.spawn(["cat"]) as tracee:
    child = subprocess.Popen(["true"], preexec_fn=procvm.allow_attach())
    child.wait()
    print(tracee.pid, child.pid, tracer_pid())
"""


def scope_is(scope: int) -> str:
    return (
        "mount -t tmpfs none /proc/sys/kernel; mkdir /proc/sys/kernel/yama\n"
        f"echo {scope} >/proc/sys/kernel/yama/ptrace_scope"
    )


@as_root
@needs("setpriv", "unshare")
@pytest.mark.parametrize(
    ("scope", "may_trace", "stranger", "child"),
    [
        (0, False, None, None),
        (1, False, "yama", None),
        (2, False, "yama", "yama"),
        (3, False, "yama", "yama"),
        (0, True, None, None),
        (1, True, None, None),
        (2, True, None, None),
        (3, True, "yama", "yama"),
    ],
)
def test_yama_by_its_scope_denies_what_the_kernel_would(
    scope: int, may_trace: bool, stranger: str | None, child: str | None
) -> None:
    """1 allows descendants, 2 CAP_SYS_PTRACE, 3 nothing; the message names the scope."""
    rights = [] if may_trace else ROOT_WITHOUT_PTRACE
    with Subject(prefix=rights) as target:
        done = subprocess.run(
            [*in_mounts(scope_is(scope)), *rights, sys.executable, "-c", ASK, str(target.pid)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    assert [cause for cause, _, _ in found] == [stranger, child]
    for cause, message, told in found:
        assert told == scope
        assert (f"ptrace_scope is {scope}" in message) == (cause == "yama")


@as_root
@needs("unshare")
@pytest.mark.parametrize("scope", [0, 1, 2])
def test_a_child_admits_the_tracer_and_nothing_else(scope: int, tmp_path: Path) -> None:
    """Under scope 1, a program of spawn and one of preexec_fn each name the tracer once."""
    notes = tmp_path / "notes"
    notes.touch()
    preloaded = {
        "LD_PRELOAD": compiled("note_prctl", "-shared", "-fPIC"),
        "NOTES": str(notes),
    }
    done = subprocess.run(
        [*in_mounts(scope_is(scope)), sys.executable, "-c", START],
        cwd=ROOT,
        env=os.environ | preloaded,
        capture_output=True,
        text=True,
        check=True,
    )
    spawned, child, tracer = done.stdout.split()
    expected = [f"{spawned} {tracer}", f"{child} {tracer}"] if scope == 1 else []
    assert notes.read_text().splitlines() == expected


@pytest.mark.parametrize("capable", [False, True])
@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("related", [False, True])
@pytest.mark.parametrize("scope", [None, 0, 1, 2, 3])
def test_the_reason_names_who_asks(
    scope: int | None, related: bool, holds: bool, capable: bool
) -> None:
    """Refused exactly where yama_ptrace_access_check refuses; the tracer is told from the tool."""
    text = yama.reason(4711, scope, related=related, capable=capable, holds=holds)
    refused = scope == 3 or (not capable and (scope == 2 or (scope == 1 and not related)))
    assert bool(text) == refused
    if refused:
        assert f"ptrace_scope is {scope}" in text
    if refused and scope == 1:
        assert ("the tracer" in text) == holds
        assert ("descend from the tool" in text) != holds
    if refused and scope != 3:
        assert "sudo" in text
        assert "setcap" in text
        assert "sysctl" in text
