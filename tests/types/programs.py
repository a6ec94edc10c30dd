"""The program whose types, variables and stacks the tests ask for, and gdb's word on them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import procvm
from tests.elf.cores import GDB
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import PATIENCE, eventually


@contextmanager
def typed(*flags: str) -> Iterator[Child]:
    """A child of ``typed.c`` whose four threads all wait in read(2)."""
    with Child([compiled("typed", *flags)]) as child:
        assert child.line() == "ready"
        tasks = Path(f"/proc/{child.pid}/task")
        assert eventually(
            lambda: all(
                (task / "syscall").read_text().startswith("0 0x0 ") for task in tasks.iterdir()
            )
        )
        yield child


def gdb_says(pid: int, *expressions: str) -> list[str]:
    """Returns what gdb's ``output`` writes of each expression."""
    assert GDB is not None
    commands = ["set print pretty off", "set width 0"]
    for one in expressions:
        commands += [f"output {one}", "echo \\n"]
    return lines(pid, *commands)


def lines(pid: int, *commands: str) -> list[str]:
    """Returns the lines that gdb writes to its output for commands, without its greetings."""
    assert GDB is not None
    arguments = [part for one in ("echo @@\\n", *commands) for part in ("-ex", one)]
    done = subprocess.run(
        [GDB, "-nx", "-batch", "-iex", "set debuginfod enabled off", "-p", str(pid), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    said = done.stdout.partition("@@\n")[2].splitlines()
    return [line for line in said if not line.startswith("[Inferior ")]


def gdb_stacks(pid: int) -> dict[int, list[tuple[str, str]]]:
    """Returns (function, file:line or nothing) of each frame of each thread, by gdb."""
    found: dict[int, list[tuple[str, str]]] = {}
    for line in lines(pid, "set width 0", "set filename-display basename", "thread apply all bt"):
        thread = re.match(r"Thread .*LWP (\d+)", line)
        if thread:
            frames = found[int(thread[1])] = []
        frame = re.match(r"#\d+ +(?:0x[0-9a-f]+ in )?([\w.]+) \(.*?\)(?: at (\S+))?", line)
        if frame:
            frames.append((frame[1], frame[2] or ""))
    return found


def shown(frames: list[procvm.Frame]) -> list[tuple[str, str]]:
    """Returns frames as `gdb_stacks` does."""
    return [
        (one.function or "??", f"{Path(one.file).name}:{one.line}" if one.file else "")
        for one in frames
    ]
