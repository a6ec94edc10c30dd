"""Runs of pytest inside of a test, and what they leave behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from typing import Self

from tests.support.patience import PATIENCE, eventually

_MARK = "PROCVM_INNER_RUN"

# No other plugin than those that a test is about: each takes its time to load.
OPTIONS = ("-p", "procvm.pytest_plugin", "-W", "error", "-ra")
ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "100"}

# Every kind of process that a fixture starts, in every state; all have ended is what is looked for.
ALL_KINDS = """
import os
import signal
import time
import procvm
import pytest

@pytest.fixture
def everything(procvm_spawn, procvm_playground):
    family = ["sh", "-c", "sleep 1000 & setsid sleep 1000 & echo ready; wait"]
    sleeper = ["sleep", "1000"]
    held = procvm_spawn(sleeper)
    held.stop()
    waiting = procvm_spawn(sleeper, stopped=True)
    stopped = procvm_spawn(sleeper)
    stopped.send_signal(signal.SIGSTOP)
    parents = [procvm_spawn(family), procvm_spawn(family, traced=False)]
    for parent in parents:
        assert parent.stdout.readline() == b"ready\\n"
    plain = procvm_spawn(sleeper, traced=False)
    playground = procvm_playground("rw none", counters=1)
    yield playground

def tell_ready():
    os.write(int(os.environ["READY_FD"]), b"r")
"""


class Inner:
    """A run of pytest over some test code, in a process of its own; a context manager."""

    def __init__(self, folder: Path, code: str, *arguments: str, cache: Path | None = None) -> None:
        (folder / "test_inner.py").write_text(ALL_KINDS + textwrap.dedent(code))
        self._mark = f"{_MARK}={uuid.uuid4()}"
        self._ready, ready = os.pipe()
        name, _, value = self._mark.partition("=")
        options = [] if cache is None else ["-o", f"cache_dir={cache}"]
        # The settings of the project around it are not its own.
        (folder / "pytest.ini").write_text("[pytest]\n")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "pytest", *OPTIONS, *options, *arguments],
            cwd=folder,
            env={**os.environ, name: value, "READY_FD": str(ready), **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(ready,),
            start_new_session=True,
            text=True,
        )
        os.close(ready)

    @property
    def pid(self) -> int:
        """The pid of pytest."""
        return self.popen.pid

    def await_ready(self) -> None:
        """Waits until a test has called ``tell_ready()``."""
        poll = select.poll()
        poll.register(self._ready, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "the inner test is not ready"
        if not os.read(self._ready, 1):
            assert self.popen.stdout is not None
            raise AssertionError(self.popen.stdout.read())

    def signal(self, signo: int) -> None:
        """Sends pytest a signal."""
        os.kill(self.popen.pid, signo)

    def ended(self) -> tuple[int, str]:
        """Waits for its end; returns its status and what it printed."""
        text, _ = self.popen.communicate()
        return self.popen.returncode, text

    def left(self, *, but: str = "\0") -> list[str]:
        """Returns what is still there of all that the run started, after a moment.

        Args:
            but: Commands with this text do not count.
        """

        def found() -> list[str]:
            return [line for line in _with_mark(self._mark.encode()) if but not in line]

        eventually(lambda: not found())
        return found()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ready)
        with self.popen:
            self.popen.kill()
        for line in _with_mark(self._mark.encode()):
            os.kill(int(line.split()[0]), signal.SIGKILL)


def _with_mark(mark: bytes) -> list[str]:
    """Returns the processes that have the mark in their environment: pid, state, command.

    One that is about to exec has the environment that it had; a zombie has none.
    """
    found: list[str] = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    command = Path(f"/proc/{name}/cmdline").read_bytes()[:100]
                    state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
                    found.append(f"{name} {state} {command!r}")
            except OSError:
                continue
    return found
