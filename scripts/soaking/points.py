"""Points: kills while they are hit all the time, and stops whose values are compared."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from random import Random

import procvm
from procvm import u64
from procvm._linux.perf_event import SLOTS, HardwareBreakpoint
from scripts.soaking.tally import Tally
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import is_free, states, tracer_of

__all__ = ["killed_points", "watched_stops"]

PATIENCE = 60.0
THREADS = 3
WORD = (1 << 64) - 1


def killed_points(count: int, seed: int, *, seconds: float | None = None) -> Tally:
    """Kills `count` tools and tracers of a target that hits four points all the time.

    After each kill the target has to run on, untraced and with its debug registers free.
    """
    tally = Tally()
    until = None if seconds is None else time.monotonic() + seconds
    target = _Target()
    nursery = Child([sys.executable, "-m", "scripts.soaking.points", "nursery"])
    try:
        for number in range(count):
            if until is not None and time.monotonic() > until:
                break
            if not _round(target, nursery, Random(seed + number), tally, seed + number):
                target.close()
                target = _Target()
    finally:
        nursery.close()
        target.close()
    return tally


def watched_stops(count: int, seed: int, *, seconds: float | None = None) -> Tally:
    """Stops a target `count` times after it has written a word, and compares what is told.

    The target computes each value from the one before it, so the values before and after each
    write are known. It writes them in its first thread, for half of the stops alone, for the
    others while two more threads run.
    """
    tally = Tally()
    until = None if seconds is None else time.monotonic() + seconds
    for name, n in (("alone", count - count // 2), ("beside two threads", count // 2)):
        with Child([compiled("points")]) as target:
            target.line()
            _watch(target, n, name, tally, seed, until)
    return tally


def _watch(
    target: Child, count: int, name: str, tally: Tally, seed: int, until: float | None
) -> None:
    """Compares `count` stops of a target."""
    with (
        procvm.attach(target.pid, timeout=PATIENCE, longest_hold=None) as tracee,
        tracee.stopped(),
        tracee.watchpoint("value", u64),
    ):
        after = tracee.symbol("after_store")
        target.send(str(count) if name == "alone" else "forever")
        value = 0
        for _ in range(count):
            if until is not None and time.monotonic() > until:
                return
            event = tracee.cont(PATIENCE)
            old, value = value, (value * 3 + 1) & WORD
            if event is None:
                tally.harm("no stop", name, seed)
                return
            tally.done[f"stopped {name}"] += 1
            if (event.tid, event.old, event.new) != (target.pid, old, value):
                tally.harm("other value", f"{event}, not {old:#x} -> {value:#x}", seed)
            if not event.address == tracee.registers(event.tid)["rip"] == after:
                tally.harm("other instruction", f"{event}, not at {after:#x}", seed)
    if name == "alone" and target.line() != f"done {value:x}":
        tally.harm("target counted wrong", name, seed)


class _Target(Child):
    """tests/support/targets/points.c, hitting its points all the time."""

    def __init__(self) -> None:
        super().__init__([compiled("points")])
        self.line()
        with procvm.open(self.pid) as process:
            names = ("value", "shared", "store", "bump")
            self.places = " ".join(str(process.symbol(name)) for name in names)
        self.send("forever")
        assert eventually(lambda: len(states(self.pid)) == THREADS, PATIENCE)


def _round(target: _Target, nursery: Child, chance: Random, tally: Tally, seed: int) -> bool:
    """Arms, kills and looks; returns whether the target lives."""
    tool = int(nursery.ask(f"{target.pid} {target.places}"))
    assert nursery.line() == "armed"
    until = time.perf_counter() + 0.02 * chance.random()
    while time.perf_counter() < until:
        pass
    victim = chance.choice(("tool", "tracer"))
    stopped = "in a stop" if "t" in states(target.pid).values() else "while it ran"
    with contextlib.suppress(ProcessLookupError, ValueError):
        os.kill(tool if victim == "tool" else tracer_of(target.pid), signal.SIGKILL)
        tally.met[f"{victim} killed {stopped}"] += 1
    assert nursery.line() == "ended"
    tally.done["killed"] += 1
    if not eventually(lambda: target.popen.poll() is not None or is_free(target.pid), PATIENCE):
        tally.harm("still held", str(states(target.pid)), seed)
        return False
    if target.popen.poll() is not None:
        tally.harm("target died", f"status {target.popen.returncode}", seed)
        return False
    free = sum(_slots(tid) for tid in states(target.pid))
    if free != THREADS * SLOTS:
        tally.harm("debug register in use", f"{free} of {THREADS * SLOTS} are free", seed)
    if not eventually(lambda: "R" in states(target.pid).values(), PATIENCE):
        tally.harm("does not run", str(states(target.pid)), seed)
    return True


def _slots(tid: int) -> int:
    """Returns how many breakpoints a thread takes more."""
    opened: list[HardwareBreakpoint] = []
    try:
        with contextlib.suppress(OSError):
            while len(opened) <= SLOTS:
                opened.append(HardwareBreakpoint(tid, signal.SIGURG))
        return len(opened)
    finally:
        for one in opened:
            one.close()


def _nursery() -> None:
    """For each line with a pid forks a tool that arms four points and goes from hit to hit."""
    assert procvm.attach  # loads what a tool needs, once for all
    for line in sys.stdin:
        child = os.fork()
        if not child:
            with contextlib.suppress(procvm.ProcvmError):
                _tool(*map(int, line.split()))
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


def _tool(pid: int, *places: int) -> None:
    with (
        procvm.attach(pid, timeout=PATIENCE, longest_hold=None) as tracee,
        tracee.stopped(),
        tracee.watchpoint(places[0], u64),
        tracee.watchpoint(places[1], u64, "access"),
        tracee.breakpoint(places[2]),
        tracee.breakpoint(places[3]),
    ):
        os.write(1, b"armed\n")
        while True:
            tracee.cont(PATIENCE)


if __name__ == "__main__":
    _nursery()
