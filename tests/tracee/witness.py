"""Targets that count in memory of the test's own, and looks at /proc: no verdict is procvm's."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

import procvm
from tests.support.build import compiled
from tests.support.patience import PATIENCE, eventually, pass_time

ROOT = Path(__file__).parent.parent.parent


# What /proc tells


def status_field(pid: int | str, field: str) -> str:
    """Returns a field of /proc/PID/status; OSError if there is no such process."""
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return value.strip()
    raise AssertionError(f"no {field} of process {pid}")


def state_of(tid: int) -> str:
    """Returns the letter of a task's state."""
    return Path(f"/proc/{tid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]


def has_ended(pid: int) -> bool:
    """Returns whether a process is gone, or a zombie."""
    try:
        return state_of(pid) in "ZX"
    except OSError:
        return True


def states(pid: int) -> dict[int, str]:
    """Returns the state of every thread; those that end meanwhile are left out."""
    found = {}
    for tid in map(int, os.listdir(f"/proc/{pid}/task")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/task/{tid}/stat").read_text(errors="replace")
            found[tid] = stat.rpartition(")")[2].split()[0]
    return found


def tracers(pid: int) -> set[int]:
    """Returns the TracerPid of all threads, without 0: empty if nobody traces any of them."""
    found = set()
    for tid in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            found.add(int(status_field(f"{pid}/task/{tid}", "TracerPid")))
    return found - {0}


def tracer_of(pid: int) -> int:
    """Returns the pid of the process, not the thread, that traces a held target."""
    (thread,) = tracers(pid)
    return int(status_field(thread, "Tgid"))


def is_free(pid: int) -> bool:
    """Returns whether no thread is traced or in a ptrace stop."""
    return not tracers(pid) and "t" not in states(pid).values()


@contextlib.contextmanager
def hold_that_ends_early(tracee: procvm.Tracee) -> Iterator[procvm.Held]:
    """A hold that is over before its ``with`` is left, which says so."""
    with pytest.raises(procvm.NotStoppedError), tracee.stopped() as held:
        yield held


def assert_free(pid: int) -> None:
    """The target is let go: nobody traces any thread of it, and none is held."""
    assert eventually(lambda: is_free(pid)), (
        f"process {pid} is left {states(pid)}, traced by {tracers(pid)}"
    )


def own_fds() -> list[tuple[int, str]]:
    """Returns every open descriptor of this process and what it is of."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return sorted(found)


def own_children() -> list[str]:
    """Returns the pids of the children of this process, zombies too."""
    found: list[str] = []
    for tid in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
            found += Path(f"/proc/self/task/{tid}/children").read_text().split()
    return sorted(found)


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


class Child:
    """A process of the test's own that answers lines; a context manager that ends it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        env: dict[str, str] | None = None,
        stderr: int | None = None,
    ) -> None:
        self.popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            pass_fds=pass_fds,
            env=env,
            cwd=ROOT,
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
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
