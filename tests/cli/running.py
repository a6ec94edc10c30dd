"""Ways to run the command: in this process, in one of its own, and on a terminal."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from procvm.cli.run import run
from tests.support.build import compiled
from tests.support.patience import PATIENCE, eventually

COMMAND = [sys.executable, "-m", "procvm"]


class Result(NamedTuple):
    """What a run gave."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def ran(*args: object, stdin: bytes = b"", terminal: bool = False) -> Result:
    """Runs the command in this process, plain or as if a person looked at it."""
    out = (_Terminal if terminal else io.TextIOWrapper)(io.BytesIO(), encoding="utf-8")
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        for name in ("NO_COLOR", "FORCE_COLOR", "PROCVM_TRACEBACK"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "80")
        code = run([arg if isinstance(arg, str) else str(arg) for arg in args])
    texts = []
    for stream in (out, err):
        stream.flush()
        data = stream.buffer.getvalue()  # type: ignore[attr-defined]  # a BytesIO
        texts.append(data.decode())
    return Result(code, *texts)


def in_process(*args: object, **settings: Any) -> Result:
    """Runs the command in a process of its own, without a terminal."""
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        **settings,
    )
    return Result(done.returncode, done.stdout, done.stderr)


class OnTerminal:
    """The command on a terminal of 80 columns; a context manager that ends it."""

    def __init__(self, *args: object) -> None:
        self.seen = b""
        self._waited = 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
            env |= {"TERM": "xterm-256color", "COLUMNS": "80"}
            try:
                os.execve(COMMAND[0], [*COMMAND, *map(str, args)], env)
            finally:
                os._exit(127)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def until(self, text: bytes) -> None:
        """Reads until a text was shown, behind the one that was waited for last."""
        while (at := self.seen.find(text, self._waited)) < 0:
            assert self._read(), f"it ended before {text!r}: {self.seen!r}"
        self._waited = at + len(text)

    def _read(self) -> bool:
        assert select.select([self.fd], [], [], PATIENCE)[0], f"nothing more came: {self.seen!r}"
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:
            return False  # its other end is closed
        self.seen += data
        return bool(data)

    def type(self, text: str) -> None:
        """Types keys."""
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """Reads all that comes, and returns the exit code."""
        while self._read():
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


def on_terminal(*args: object) -> tuple[int, bytes]:
    """Runs the command on a terminal; returns its exit code and all that was shown."""
    with OnTerminal(*args) as shown:
        return shown.end(), shown.seen


_OURS = re.compile(rb"\x1b\[(?:[0-9;]*m|\?25[lh]|2K|1A)|\r")

# A bar, which work that takes longer than half a second shows and then erases.
_BAR = re.compile(
    rb"\x1b\[\?25l(?:(?!\x1b\[\?25h).)*?\xe2\x94\x81.*?\x1b\[\?25h(?:\r|\x1b\[1A|\x1b\[2K)*",
    re.DOTALL,
)


def assert_safe(shown: bytes | str, *, colors: bool = True) -> str:
    """Nothing but printable text, newlines and our own colours was shown; returns the text.

    Where there are no colours there may be the tabs between the columns.
    """
    data = shown.encode() if isinstance(shown, str) else shown
    text = (
        _OURS.sub(b"", _BAR.sub(b"", data)) if colors else data.replace(b"\r\n", b"\n")
    ).decode()
    allowed = "\n" if colors else "\n\t"
    bad = {char for char in text if not char.isprintable() and char not in allowed}
    assert not bad, sorted(map(ascii, bad))
    return text


class Dials:
    """The program with something to look at; a context manager that ends it."""

    def __init__(self, *args: bytes, name: str = "") -> None:
        program = compiled("dials")
        if name:
            # A name of its own, which no other test's program has.
            own = Path(program).with_name(name)
            program = str(own) if own.exists() else shutil.copy(program, str(own))
        self.popen = subprocess.Popen(
            [program.encode(), *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.counter = int(self._line(), 16)
        self.ask("show")  # what it calls is bound from now on, and no byte of its own changes

    @property
    def pid(self) -> int:
        return self.popen.pid

    def _line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().decode().strip()

    def ask(self, line: str) -> list[str]:
        """Sends a line; returns g_counter, g_lives and g_ratio."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()
        return self._line().split()

    def close(self) -> None:
        self.popen.kill()
        self.popen.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until something that nobody tells of has happened."""
    assert eventually(condition), "it did not happen"
