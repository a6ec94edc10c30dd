"""Targets that count in memory of the test's own, and looks at /proc: no verdict is procvm's."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import procvm
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually, pass_time
from tests.support.procfs import (
    assert_free,
    is_free,
)


@contextlib.contextmanager
def hold_that_ends_early(tracee: procvm.Tracee) -> Iterator[procvm.Held]:
    """A hold that is over before its ``with`` is left, which says so."""
    with pytest.raises(procvm.NotStoppedError), tracee.stopped() as held:
        yield held


# Memory that a target and the test share


class Board:
    """A memfd of 64-bit words that the target counts in."""

    def __init__(self, n: int = 4 * mmap.PAGESIZE) -> None:
        self.fd = os.memfd_create("board")
        os.ftruncate(self.fd, n)
        self._pages = mmap.mmap(self.fd, n)
        self.words = memoryview(self._pages).cast("Q")

    def __getitem__(self, at: int) -> int:
        return int(self.words[at])

    def __setitem__(self, at: int, value: int) -> None:
        self.words[at] = value

    def snapshot(self) -> bytes:
        """Returns all of it."""
        return self._pages[:]

    def sum(self, first: int, n: int) -> int:
        return sum(self.words[first : first + n])

    def close(self) -> None:
        self.words.release()
        self._pages.close()
        os.close(self.fd)


# Processes


class Work(Child):
    """tests/support/targets/trace_work.c in a mode; `board` is what it counts in."""

    def __init__(self, mode: str, n: int = 1, *, started: int | None = None) -> None:
        self.board = Board()
        super().__init__(
            [compiled("trace_work"), mode, str(self.board.fd), str(n)], pass_fds=[self.board.fd]
        )
        (self.word,) = self.hexes()
        self.n = n
        expected = n if started is None else started
        assert eventually(lambda: self.board[4] >= expected), f"{self.board[4]} threads of {mode}"

    def ticks(self) -> int:
        """Returns what all threads have counted."""
        return self.board.sum(16, 1100)

    def assert_runs(self) -> None:
        """Every thread that ticks counts on, and nobody traces or holds any."""
        assert_free(self.pid)
        before = self.ticks()
        assert eventually(lambda: self.ticks() > before), "nothing is counted any more"

    def assert_stands_still(self) -> None:
        """Not a word changes while a busy machine would change thousands."""
        before = self.board.snapshot()
        pass_time(0.002)
        assert self.board.snapshot() == before

    def assert_stands_still_while_held(self) -> None:
        """The same in a hold with a longest time, which may be over before all was looked at."""
        before = self.board.snapshot()
        pass_time(0.002)
        after = self.board.snapshot()
        assert after == before or is_free(self.pid)

    def close(self) -> None:
        super().close()
        self.board.close()


class Recorder(Child):
    """tests/support/targets/trace_signals.c, recording."""

    def __init__(self, threads: int = 1) -> None:
        self.board = Board()
        super().__init__(
            [compiled("trace_signals"), "record", str(self.board.fd), str(threads)],
            pass_fds=[self.board.fd],
        )
        assert eventually(lambda: self.board[0] == 1)

    def seen(self, signo: int) -> int:
        """Returns how often the target's handler of a signal ran."""
        return self.board[64 + signo]

    def close(self) -> None:
        super().close()
        self.board.close()


class Execer(Child):
    """tests/support/targets/trace_exec.c: execs without end, by its leader or by another thread."""

    def __init__(self, who: str) -> None:
        self.board = Board()
        super().__init__(
            [compiled("trace_exec"), str(self.board.fd), who], pass_fds=[self.board.fd]
        )
        assert eventually(lambda: self.board[0] >= 2)

    def assert_goes_on(self) -> None:
        """It execs again, and then ends its series when told to."""
        before = self.board[0]
        assert eventually(lambda: self.board[0] > before), f"no exec after {before}"
        self.board[1] = 1
        assert eventually(lambda: self.board[2]), "the last exec does not come"

    def close(self) -> None:
        super().close()
        self.board.close()


class Cas(Child):
    """tests/support/targets/trace_cas.c: threads that increment a word by compare-and-exchange."""

    def __init__(self, threads: int, width: int, kind: str = "private", work: int = 2000) -> None:
        super().__init__([compiled("trace_cas"), str(threads), str(width), kind, str(work)])
        self.word, self.before, self.after, self.readonly, self.hole, self.none, self.fd = (
            self.hexes()
        )
        self.width = width

    def go(self) -> None:
        """Starts the threads."""
        assert self.ask("go") == "ok"

    def look(self, address: int) -> int:
        """Returns the 8 bytes at an address as the target reads them."""
        return int(self.ask(f"look {address:x}"), 16)

    def stop(self) -> tuple[int, int, int, bool]:
        """Ends the threads; returns (word, own increments, own failures, neighbours unharmed)."""
        word, own, failed, good = map(int, self.ask("stop").split())
        return word, own, failed, bool(good)


class Tool(Child):
    """A process that runs one of the tools of tests/tracee/tool.py: it uses procvm, and may die."""

    def __init__(
        self,
        what: str,
        *arguments: object,
        pass_fds: Sequence[int] = (),
        stderr: int | None = None,
    ) -> None:
        super().__init__(
            [sys.executable, "-m", "tests.tracee.tool", what, *map(str, arguments)],
            pass_fds=pass_fds,
            stderr=stderr,
        )


@contextlib.contextmanager
def sleeper(*prefix: str) -> Iterator[subprocess.Popen[bytes]]:
    """Gives a plain child that waits for ever, single-threaded."""
    with subprocess.Popen([*prefix, "sleep", "1000"]) as popen:
        try:
            assert eventually(lambda: comm(popen.pid) == "sleep")
            yield popen
        finally:
            popen.kill()


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def u64(data: bytes) -> int:
    return int(struct.unpack("=Q", data)[0])


def ignore_signals_of_terminal() -> None:
    """For a child that only its test may end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
