"""The viewer on a terminal of its own, and how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

import procvm
from procvm.tui.app import run
from tests.support.patience import PATIENCE, eventually
from tests.support.playground import Playground

_VIEW = """
import sys, procvm
from procvm.tui.app import run
with procvm.open(int(sys.argv[1])) as process:
    run(process, int(sys.argv[2], 16))
print("ended well", flush=True)
"""


class Terminal:
    """The viewer in a process of its own, and what it has written."""

    def __init__(self, pid: int, address: int) -> None:
        self.fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _VIEW, str(pid), hex(address)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(theirs)
        self.written = b""

    def until(self, words: bytes) -> None:
        """Reads until something was written."""
        while words not in self.written:
            assert select.select([self.fd], [], [], PATIENCE)[0], self.written[-500:]
            self.written += os.read(self.fd, 1 << 16)

    def type(self, keys: bytes) -> None:
        self.written = b""
        os.write(self.fd, keys)

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        os.close(self.fd)


@pytest.fixture
def counted(playground: Playground) -> Iterator[tuple[Terminal, procvm.Process, int]]:
    """The viewer over a word that a thread of the target counts up."""
    base = playground.layout("rw")
    playground.spin(base)
    terminal = Terminal(playground.pid, base)
    try:
        with procvm.open(playground.pid) as process:
            yield terminal, process, base
    finally:
        terminal.close()


def await_count(process: procvm.Process, address: int) -> None:
    """Waits until the word has changed; fails if it does not."""
    first = process.vm.read_val(address, procvm.u64)
    assert eventually(lambda: process.vm.read_val(address, procvm.u64) != first)


def test_a_target_that_is_held_runs_on_after_a_ctrl_c(
    counted: tuple[Terminal, procvm.Process, int],
) -> None:
    """Ctrl-C leaves the viewer, gives the terminal back, and lets the target go."""
    terminal, process, address = counted
    terminal.until(b"running")
    terminal.type(b"p")
    terminal.until(b"HELD")
    first = process.vm.read_val(address, procvm.u64)
    assert all(process.vm.read_val(address, procvm.u64) == first for _ in range(10_000))
    terminal.type(b"\x03")
    terminal.until(b"ended well")
    assert b"\x1b[?1049l" in terminal.written  # the screen that was there before
    assert terminal.popen.wait() == 0
    await_count(process, address)


def test_a_target_that_is_held_runs_on_after_a_kill(
    counted: tuple[Terminal, procvm.Process, int],
) -> None:
    """However the viewer ends, the target is let go."""
    terminal, process, address = counted
    terminal.until(b"running")
    terminal.type(b"p")
    terminal.until(b"HELD")
    terminal.popen.send_signal(signal.SIGKILL)
    terminal.popen.wait()
    await_count(process, address)


def test_without_a_terminal_it_says_so(
    playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not draw into a file."""
    with open(os.devnull, "r+") as null, procvm.open(playground.pid) as process:
        monkeypatch.setattr(sys, "__stdin__", null)
        with pytest.raises(procvm.UnsupportedError, match="needs a terminal, but stdin is not one"):
            run(process)


def test_terminal_that_cannot_move_its_cursor_is_refused(
    playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TERM=dumb, and no TERM: the message says what to set."""

    class Dumb:
        def isatty(self) -> bool:
            return True

    for name in ("__stdin__", "__stderr__"):
        monkeypatch.setattr(sys, name, Dumb())
    with procvm.open(playground.pid) as process:
        monkeypatch.setenv("TERM", "dumb")
        with pytest.raises(procvm.UnsupportedError, match="TERM is dumb; set TERM"):
            run(process)
        monkeypatch.delenv("TERM")
        with pytest.raises(procvm.UnsupportedError, match="TERM is not set; set TERM"):
            run(process)
