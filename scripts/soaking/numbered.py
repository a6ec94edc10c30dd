"""Numbered signals to eight threads of a target under `cont`: each told once, or delivered once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from pathlib import Path
from random import Random

from scripts.soaking.tally import Tally
from scripts.soaking.toolside import Tracer
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import is_free, states, tracer_of
from tests.tracee.witness import Board

__all__ = ["numbered_signals"]

THREADS = 8
HEADER = 4096
PATIENCE = 60.0


class At(IntEnum):
    """Words of the board, as tests/support/targets/storm_numbered.c numbers them."""

    READY = 0
    SENT = 1
    HANDLED = 2
    DISORDER = 3
    STRANGE = 4
    REPLACED = 5
    STOP = 6
    TOLD = 7
    TAKEN = 8
    IDLE = 9
    PERMIT = 10


DISCARD, REPLACE, SURE = 1, 2, 8
"""What a tool decided about a number; SURE once the target has gone on since."""


class Numbers:
    """The board: words, then for each number what was handled, told and decided, a byte each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.stride = count + 1
        size = HEADER + 3 * self.stride
        self.board = Board(size + -size % HEADER)
        self.bytes = memoryview(self.board.words).cast("B")

    def part(self, k: int) -> memoryview:
        first = HEADER + k * self.stride
        return self.bytes[first : first + self.stride]

    def close(self) -> None:
        self.bytes.release()
        self.board.close()


class Storm:
    """One target with its sender, and the tools that take its events, one after the other."""

    def __init__(self, count: int, seed: int, tally: Tally, *, gaps: bool) -> None:
        self.numbers = Numbers(count)
        self.tally = tally
        self.seed = seed
        self.gaps = gaps
        self.chance = Random(seed)
        program, fd = compiled("storm_numbered"), self.numbers.board.fd
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the storm)
        self.target = Child([program, "record", str(fd), str(count)], pass_fds=[fd])
        assert eventually(lambda: self[At.READY] == THREADS)
        self.sender: Child | None = None

    def __getitem__(self, at: At) -> int:
        return self.numbers.board[at]

    def tool(self) -> Child:
        """Starts a tool that goes from event to event, and waits until it holds the target."""
        fd = self.numbers.board.fd
        arguments = map(str, (fd, self.numbers.count, self.target.pid, int(self.gaps), self.seed))
        tool = Child(
            [sys.executable, "-m", "scripts.soaking.continuer", *arguments],
            pass_fds=[fd],
            stderr=self.errors.fileno(),
        )
        line = tool.line()
        if line != "holding":
            tool.close()
            raise AssertionError(f"a tool cannot hold the target: {line}")
        return tool

    def send(self) -> None:
        """Starts the sender."""
        program, fd = compiled("storm_numbered"), self.numbers.board.fd
        words = map(str, (fd, self.numbers.count, self.target.pid))
        self.sender = Child([program, "send", *words], pass_fds=[fd])

    def has_sent(self, count: int) -> bool:
        """Returns whether so many signals have been sent."""
        return self[At.SENT] >= count

    def is_settled(self) -> bool:
        """Returns whether nothing is on its way any more: all sent, and no signal is pending."""
        return self[At.SENT] == self.numbers.count and not self.pending()

    def pending(self) -> bool:
        with contextlib.suppress(OSError):
            for tid in os.listdir(f"/proc/{self.target.pid}/task"):
                status = Path(f"/proc/{self.target.pid}/task/{tid}/status").read_text()
                for row in status.splitlines():
                    if row.startswith(("SigPnd", "ShdPnd")) and int(row.split()[1], 16):
                        return True
        return False

    def harm(self, kind: str, detail: str, times: int = 1) -> None:
        """Counts a harm that was seen here."""
        self.tally.harm(kind, detail, self.seed, times)

    def judge(self, *, strict: bool) -> None:
        """Compares what was told and decided with what the target's handlers saw.

        Args:
            strict: The target was held by one tool from the first signal to the last, so each
                signal has to be told.
        """
        if self.target.popen.poll() is not None:
            self.harm("died", str(self.target.popen.returncode))
        handled, told, decided = (self.numbers.part(k).tolist() for k in range(3))
        sent, knows = self[At.SENT], any(told)
        wrong: dict[str, int] = dict.fromkeys(
            ("lost", "doubled", "told twice", "not told", "delivered anyway"), 0
        )
        sure = maybe = 0
        first: dict[str, int] = {}

        def count(kind: str, n: int) -> None:
            wrong[kind] += 1
            first.setdefault(kind, n)

        for n in range(1, sent + 1):
            h, t, d = handled[n], told[n], decided[n]
            maybe += d & REPLACE != 0
            sure += d & REPLACE and d & SURE != 0
            if h > 1:
                count("doubled", n)
            if h == 0 and d & (DISCARD | REPLACE) == 0:
                count("lost", n)
            if h and d & SURE:
                count("delivered anyway", n)
            if t > 1:
                count("told twice", n)
            if strict and knows and t == 0:
                count("not told", n)
        for kind, found in wrong.items():
            if found:
                self.harm(f"signals {kind}", f"{found} of {sent}, first {first[kind]}", found)
        if strict and not knows and self[At.TOLD] < sent:
            unseen = sent - self[At.TOLD]
            self.harm("signals not told", f"{unseen} of {sent}", unseen)
        if not sure <= self[At.REPLACED] <= maybe:
            self.harm("replacements", f"{self[At.REPLACED]} handled, {sure} to {maybe} asked for")
        for at, kind in ((At.DISORDER, "signals out of order"), (At.STRANGE, "signals changed")):
            if self[at]:
                self.harm(kind, f"{self[at]} of {sent}", self[at])
        done = self.tally.done
        done["sent"] += sent
        done["handled"] += self[At.HANDLED]
        done["told"] += self[At.TOLD]
        done["discarded or replaced"] += sum(d & (DISCARD | REPLACE) != 0 for d in decided)

    def close(self) -> None:
        for child in (self.sender, self.target):
            if child is not None:
                child.close()
        self.numbers.close()
        self.errors.close()

    def is_free(self) -> bool:
        """Returns whether nothing traces the target any more, or it has ended."""
        with contextlib.suppress(OSError):
            return is_free(self.target.pid)
        return True


def numbered_signals(
    count: int, seed: int, *, kills: int = 0, gaps: bool = False, seconds: float | None = None
) -> Tally:
    """Sends `count` numbered signals to eight threads while tools go from event to event.

    Args:
        count: How many signals; each ninth goes to the process, the others to a thread each.
        seed: What the instants of the kills follow from.
        kills: How often the tool or its tracer is killed.
        gaps: Whether the tool lets go of the target, steps and reads between events.
        seconds: When to end early.
    """
    tally = Tally()
    until = None if seconds is None else time.monotonic() + seconds
    storm = Storm(count, seed, tally, gaps=gaps)
    try:
        _drive(storm, kills, until)
    finally:
        storm.close()
    return tally


def _drive(storm: Storm, kills: int, until: float | None) -> None:
    count = storm.numbers.count
    tool = storm.tool()
    try:
        storm.send()
        for k in range(kills):
            share = round(count * (k + storm.chance.random()) / (kills + 1))
            # A few more come while one tool has ended and the next one has not begun.
            storm.numbers.board[At.PERMIT] = min(share + 30, count)
            if not _waits(storm, tool, partial(storm.has_sent, share), until):
                break
            tool = _kill(storm, tool)
        storm.numbers.board[At.PERMIT] = count
        _waits(storm, tool, storm.is_settled, until)
        idle = storm[At.IDLE]
        # One more wait that brings nothing: what is told by then is all that is ever told.
        _waits(storm, tool, lambda: storm[At.IDLE] > idle + 1, until)
        storm.numbers.board[At.STOP] = 1
        said = _answer(tool)
        if said:
            storm.harm("the tool", said)
    finally:
        tool.close()
    if not eventually(storm.is_free, PATIENCE):
        storm.harm("left stopped", str(states(storm.target.pid)))
    eventually(lambda: not storm.pending(), PATIENCE)
    storm.judge(strict=not kills and not storm.gaps)


def _answer(tool: Child) -> str:
    """Returns the tool's complaint, empty if it has none."""
    try:
        return tool.line().removeprefix("done").strip()
    except (EOFError, AssertionError) as error:
        return str(error)


def _waits(storm: Storm, tool: Child, condition: Callable[[], bool], until: float | None) -> bool:
    """Waits for a condition as long as anything moves; returns whether it came."""
    moved, seen = time.monotonic(), (-1, -1, -1)
    while not condition():
        now = storm[At.SENT], storm[At.HANDLED], storm[At.TOLD]
        if now != seen:
            moved, seen = time.monotonic(), now
        if time.monotonic() - moved > PATIENCE:
            storm.harm("nothing moves", f"sent, handled, told {now}, {states(storm.target.pid)}")
            return False
        if tool.popen.poll() is not None or storm.target.popen.poll() is not None:
            return False
        if until is not None and time.monotonic() > until:
            storm.numbers.board[At.STOP] = 1
            return False
        time.sleep(0.001)
    return True


def _kill(storm: Storm, tool: Child) -> Child:
    """Kills the tool or its tracer at this instant, and starts another tool."""
    whom = storm.chance.choice(("tool", "tracer"))
    tracer: Tracer | None = None
    if whom == "tracer":
        with contextlib.suppress(OSError, ValueError, AssertionError):
            tracer = Tracer(tracer_of(storm.target.pid))
    if tracer is None:
        tool.popen.kill()
        storm.tally.met["tools killed"] += 1
    else:
        tracer.signal(signal.SIGKILL)
        tracer.close()
        storm.tally.met["tracers killed"] += 1
        with contextlib.suppress(EOFError, AssertionError):
            tool.line()  # the library's own error, told before the tool ends
    tool.close()
    if not eventually(storm.is_free, PATIENCE):
        storm.harm("left stopped", str(states(storm.target.pid)))
    if storm.target.popen.poll() is None:
        return storm.tool()
    return tool
