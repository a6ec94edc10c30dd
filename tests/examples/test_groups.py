"""The examples for many processes and many core files, on children of the test alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import procvm
from tests.examples.test_examples import command, run
from tests.support.child import Child

WORD = "a word of three children"
CODE = f"words = [bytearray({WORD!r}[k:], 'ascii') for k in (0, 0)]; print(flush=True); input()"


@pytest.fixture
def children() -> Iterator[list[int]]:
    """Three processes that hold the word, and the pid of one that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    with ExitStack() as stack:
        pids: list[int] = []
        for _ in range(3):
            child = stack.enter_context(Child([sys.executable, "-c", CODE]))
            child.line()
            pids.append(child.pid)
        # Ended but not reaped: without this, the pid could belong to another process.
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        yield [*pids, ended.pid]
    ended.wait()


def rows_of(lines: list[str]) -> tuple[dict[int, str], list[str]]:
    """Returns the row of each pid, and the rows of the workers."""
    workers = [line for line in lines if line.startswith("worker ")]
    rows = {int(line.split()[0]): line for line in lines if line not in workers}
    return rows, workers


@pytest.mark.parametrize("by_cgroup", [False, True])
def test_search_group_has_a_row_for_each_process(
    children: list[int], tmp_path: Path, by_cgroup: bool
) -> None:
    (tmp_path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in children))
    which = [str(tmp_path)] if by_cgroup else children
    rows, workers = rows_of(run("search_group", WORD, *which))
    assert sorted(rows) == sorted(children)
    for pid in children[:3]:
        found = re.fullmatch(rf" *{pid} +(\d+) hits +[\d.]+ MiB", rows[pid])
        assert found, rows[pid]
        assert int(found[1]) >= 2
    assert re.search(r" 0 hits +0\.0 MiB  \w+Error: ", rows[children[3]])
    assert workers
    assert all(re.fullmatch(r"worker \d+: \d+ MiB/s", line) for line in workers)


def test_save_group_saves_the_processes_that_live(children: list[int], tmp_path: Path) -> None:
    rows, workers = rows_of(run("save_group", tmp_path, *children))
    assert sorted(rows) == sorted(children)
    assert re.search(r" 0\.0 MiB  \w+Error: ", rows[children[3]])
    assert workers
    assert sorted(tmp_path.iterdir()) == sorted(tmp_path / f"{pid}.core" for pid in children[:3])
    for pid in children[:3]:
        with procvm.open_core(tmp_path / f"{pid}.core") as core:
            assert sum(1 for _ in core.vm.search(WORD.encode())) >= 2


def test_triage_cores_counts_the_places_and_the_broken_files(tmp_path: Path) -> None:
    with procvm.spawn(["sleep", "1000"]) as sleeping, sleeping.stopped():
        with sleeping.snapshot() as snapshot:
            snapshot.save(tmp_path / "0.core")
        place = str(sleeping.describe(sleeping.address("$rip")))
        sleeping.kill()
    for k in range(1, 20):
        os.link(tmp_path / "0.core", tmp_path / f"{k}.core")
    (tmp_path / "broken.core").write_bytes(b"\x7fELF")
    # dask tells on stderr what its workers do at their end.
    argv = command("triage_cores", tmp_path, 2)
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    places = [line for line in lines if not line.startswith("worker ")]
    assert places[0] == f"{20:>6}  no signal in {place}"
    assert re.fullmatch(r" {5}1  \w+Error", places[1])
    found = [re.fullmatch(r"worker \d+: (\d+) files, \d+ a second", line) for line in lines[2:]]
    assert sum(int(one[1]) for one in found if one) == 21
