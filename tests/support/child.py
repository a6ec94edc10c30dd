"""A child that answers a line with a line."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.patience import PATIENCE

ROOT = Path(__file__).parent.parent.parent
"""The repository, where `python -m tests...` works."""


class Child:
    """A process of the test's own that answers lines; a context manager that ends it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        stderr: int | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            pass_fds=pass_fds,
            env=env,
            cwd=cwd,
            # Of its own group: in an orphaned one, as of a background job, TSTP stops nothing.
            process_group=0,
        )
        self._rest = b""
        self._poll = select.poll()
        assert self.popen.stdout is not None
        self._poll.register(self.popen.stdout, select.POLLIN)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def line(self) -> str:
        """Returns the next line; fails if none comes, because the process ended or hangs."""
        assert self.popen.stdout is not None
        while b"\n" not in self._rest:
            if not self._poll.poll(PATIENCE * 1000):
                raise AssertionError(f"process {self.pid} hangs")
            part = os.read(self.popen.stdout.fileno(), 1 << 20)
            if not part:
                raise EOFError(f"process {self.pid} has ended")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def has_line(self) -> bool:
        """Returns whether an answer has come, without waiting."""
        return b"\n" in self._rest or bool(self._poll.poll(0))

    def send(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def ask(self, line: str) -> str:
        """Sends a line and returns the answer."""
        self.send(line)
        return self.line()

    def hexes(self) -> list[int]:
        """Returns the numbers that the line with "ready" gives."""
        words = self.line().split()
        assert words[0] == "ready", words
        return [int(word, 16) for word in words[1:]]

    def signal(self, signo: int) -> None:
        self.popen.send_signal(signo)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was written after its end
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
