"""A tool without free descriptors says so: it reads nothing else, and tells no other answer."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import procvm
from procvm._linux import objects
from tests.process.test_untouched import OPERATIONS, Target
from tests.support.child import ROOT
from tests.support.playground import PAGE, Playground

LACK = ("open files", "descriptors")


@contextlib.contextmanager
def free_descriptors(n: int) -> Iterator[None]:
    """Leaves this process `n` free descriptors, and none of them below another one."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    fill = [os.open("/dev/null", os.O_RDONLY)]
    while fill[-1] < highest:
        fill.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (fill[-1] + 1 + n, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in fill:
            os.close(fd)


def answer(use: Callable[[], object], free: int) -> Any:
    """Returns what a use gives with so many free descriptors; "lack" if it lacks some."""
    with free_descriptors(free):
        try:
            return use()
        except (procvm.VmError, OSError) as error:
            if any(word in str(error) for word in LACK):
                return "lack"
            raise


def looks(pid: int, ranges: list[tuple[int, int]], name: str, out: Path) -> None:
    """Looks at untouched objects with ever more descriptors; the tool of the first test."""
    for free in (100, *range(12)):  # the first time it imports what it takes
        objects._shmem_device.cache_clear()  # noqa: SLF001
        with procvm.open(pid) as process:
            found = answer(partial(OPERATIONS[name], process, ranges, out), free)
        print(json.dumps("lack" if found == "lack" else "done"), flush=True)


def tool(what: str, *args: object) -> list[Any]:
    """Runs a line of Python in a process of its own; returns the lines of JSON that it prints."""
    text = (
        "import json, sys; from pathlib import Path; from tests.process.test_own_means import *\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text + what, *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.root  # for /proc/PID/map_files
@pytest.mark.parametrize("operation", ["search", "scan", "snapshot", "save", "copy_to"])
def test_walk_without_descriptors_fails_and_allocates_no_page(
    tmp_path: Path, operation: str
) -> None:
    """The walk opens pagemap, the objects, and a list of mounts."""
    with Target(tmp_path / "sparse") as target:
        before = target.counts()
        out = tmp_path / "out"
        ranges = json.dumps(target.ranges)
        call = "looks(int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))"
        found = tool(call, target.pid, ranges, operation, out)
        assert target.counts() == before
    assert (found[0], found[1], found[-1]) == ("done", "lack", "done")


def names(pid: int) -> None:
    """Looks up names with ever more descriptors; the tool of the next test."""
    uses: dict[str, Callable[[procvm.Process], object]] = {
        "environ": lambda process: int(process.symbol("libc.so.6!environ")),
        "main": lambda process: int(process.symbol("main")),
        "describe": lambda process: str(process.describe(process.symbol("main"))),
        "modules": lambda process: list(map(str, process.modules())),
    }
    with procvm.open(pid) as process:
        right = {name: use(process) for name, use in uses.items()}
    for name, use in uses.items():
        for free in range(8):
            with procvm.open(pid) as process:
                found = answer(partial(use, process), free)
                # Nothing wrong may be kept for the time when there are descriptors again.
                assert use(process) == right[name]
            assert found in ("lack", right[name]), (name, free, found)
            print(json.dumps(found == "lack"), flush=True)


def test_names_without_descriptors_are_right_or_an_error(tmp_path: Path) -> None:
    """A file that cannot be opened for want of descriptors is not a file that is not there."""
    with Target(tmp_path / "sparse") as target:
        found = tool("names(int(sys.argv[1]))", target.pid)
    assert len(found) == 4 * 8
    assert any(found)
    assert not all(found)


def test_walk_of_private_memory_without_descriptors_fails_and_reads_no_page(
    playground: Playground,
) -> None:
    """Only pagemap tells which pages there are; without it every one would be read."""
    at = playground.reserve(64 * PAGE)
    call = "looks(int(sys.argv[1]), json.loads(sys.argv[2]), 'search', Path())"
    found = tool(call, playground.pid, json.dumps([(at, at + 64 * PAGE)]))
    with open(f"/proc/{playground.pid}/pagemap", "rb") as pagemap:
        pagemap.seek(at // PAGE * 8)
        assert pagemap.read(64 * 8) == bytes(64 * 8)
    assert (found[0], found[1], found[-1]) == ("done", "lack", "done")
