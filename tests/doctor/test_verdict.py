"""The sentence that the doctor says first; what it promises is tried on the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from procvm.doctor import Finding, examine, verdict_on
from tests.cli.running import on_terminal, ran
from tests.doctor.asking import Doctor, Report
from tests.faults.subjects import NOBODY, Subject, everybodys_python, public, run_as

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="starts a tool of another user")


def said(found: Report, pid: int | None = None) -> str:
    return verdict_on(list(found.values()), pid)


@needs_root
def test_verdict_of_root_names_every_process() -> None:
    with Doctor() as doctor:
        assert said(doctor.examine()) == "You can read, write and stop every process."
        with Subject() as target:
            text = said(doctor.examine(target.pid), target.pid)
            assert text == f"You can read, write and stop process {target.pid}."


@needs_root
def test_verdict_of_a_user_names_whose_processes_and_why() -> None:
    with Doctor(*run_as(NOBODY), python=everybodys_python()) as doctor:
        text = said(doctor.examine())
        assert text.startswith("You can read, write and stop processes ")
        assert "need sudo, because this tool does not have CAP_SYS_PTRACE" in text
        with Subject(prefix=run_as(NOBODY), program=public("subject")) as own:
            text = said(doctor.examine(own.pid), own.pid)
            assert text == f"You can read, write and stop process {own.pid}."
        text = said(doctor.examine(os.getpid()), os.getpid())
        assert text.startswith(f"You cannot read process {os.getpid()}, because ")
        assert "belongs to another user" in text


def test_verdict_without_ptrace_says_what_is_left() -> None:
    with Doctor() as doctor, Subject() as target:
        doctor.take_away(seccomp={"ptrace": 1})
        assert "cannot stop one, because holding a child: " in said(doctor.examine())
        text = said(doctor.examine(target.pid), target.pid)
        assert f"process {target.pid}, but cannot stop it, because holding a child: " in text


def test_verdict_on_no_process_says_so() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        assert f"no process has the pid {child.pid}" in verdict_on(examine(child.pid), child.pid)


def test_verdict_of_few_descriptors_names_the_limit() -> None:
    found = [Finding("descriptors", "fails", "RLIMIT_NOFILE is 3, 3 below it are open", "close")]
    expected = "You cannot read any process, because RLIMIT_NOFILE is 3, 3 below it are open."
    assert verdict_on(found) == expected


def test_doctor_says_the_verdict_first_and_lists_only_what_is_not_in_order() -> None:
    found = ran("doctor")
    first, *rows = found.lines
    assert first == ran("doctor", "--json").document["summary"]
    assert {row.split("\t")[0] for row in rows} <= {"warning", "fails"}
    every = ran("doctor", "--all").lines
    assert every[0] == first
    assert len(every) == len(ran("doctor", "--json").document["findings"]) + 1


def test_doctor_on_a_terminal_breaks_no_word() -> None:
    """Every word of the plain output is a word of the folded one."""
    _, seen = on_terminal("doctor", "--all", "--color", "never")
    words = set(seen.decode().replace("→", " ").split())
    for line in ran("doctor", "--all").lines:
        for word in line.split():
            assert word in words or any(char.isdigit() for char in word), word
