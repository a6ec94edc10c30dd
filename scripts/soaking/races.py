"""The long versions of the races in tests/tracee, with their counts as a markdown table."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from tests.tracee import held_writes, workloads
from tests.tracee.workloads import Counts

HARMS = (
    "left stopped",
    "left for a moment",
    "moved while held",
    "threads not held",
    "not T any more",
    "still traced",
    "timeouts",
    "lost",
    "doubled",
    "out of order",
    "changed",
    "swallowed",
    "neighbours harmed",
    "written elsewhere",
)
"""Counts that have to be 0."""


class Race(NamedTuple):
    """A row of the table.

    Attributes:
        name: What is raced, in words; a command line picks it by any part.
        times: How often, in the claim.
        run: Takes a count and the seconds it may take.
    """

    name: str
    times: int
    run: Callable[[int, float], Counts]


def _cycles(mode: str, threads: int, count: int, seconds: float) -> Counts:
    return workloads.cycles_of_work(mode, threads, count, seconds)


def _cas(threads: int, width: int, held: bool, count: int, seconds: float) -> Counts:
    work = 2000 if held else 60_000
    return workloads.cas(threads, width, count, held=held, work=work, seconds=seconds)


def _cas_on_shared(kind: str, width: int, count: int, seconds: float) -> Counts:
    return workloads.cas_on_shared(kind, width, count, held=False, seconds=seconds)


def _queued(threads: int, count: int, seconds: float) -> Counts:
    return workloads.queued_signals(count, threads, seconds)


def _standard(threads: int, count: int, seconds: float) -> Counts:
    return workloads.standard_signals(count, threads, seconds)


def _killed(count: int, seconds: float) -> Counts:
    return workloads.tool_killed(count, signal.SIGKILL, seconds)


def _ctrl_c(how: str, count: int, seconds: float) -> Counts:
    return workloads.ctrl_c(count, seconds, how)


def races() -> Iterator[Race]:
    """Yields every race with the number that the claim is made of."""
    targets = [("spin", 1), ("tick", 8), ("spin", 4), ("sleep", 16), ("mixed", 64), ("sleep", 64)]
    for mode, n in targets:
        yield Race(f"stop and resume, {mode}, {n} threads", 14_000, partial(_cycles, mode, n))
    yield Race("stop and resume, a plain sleeper", 12_000, workloads.plain_sleepers)
    for signo in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        name = f"stop and resume, stopped by {signo.name}, 4 threads"
        yield Race(name, 1_000, partial(workloads.cycles_of_stopped, signo))
    yield Race("stops under a clone storm", 100_000, workloads.clone_storm)
    yield Race("stops while children are made", 10_000, workloads.children_storm)
    for who in ("leader", "thread"):
        yield Race(f"stops while the {who} execs", 5_000, partial(workloads.exec_storm, who))
    yield Race("the leader ends about a stop", 1_000, workloads.leaders_leave)
    for threads in (1, 4, 16):
        for width in (4, 8):
            for held in (True, False):
                where = "in" if held else "outside"
                name = f"CAS {where} holds, {threads} threads, {8 * width} bits"
                yield Race(name, 10_000, partial(_cas, threads, width, held))
    for kind in ("memfd", "anonymous"):
        for width in (4, 8):
            name = f"CAS on shared memory ({kind}), {8 * width} bits, another process writes"
            yield Race(name, 10_000, partial(_cas_on_shared, kind, width))
    for threads in (1, 3):
        name = f"numbered real-time signals, {threads} threads"
        yield Race(name, 51_000, partial(_queued, threads))
        name = f"every standard signal, {threads} threads, rounds"
        yield Race(name, 300, partial(_standard, threads))
    yield Race("tools killed by SIGKILL", 500, _killed)
    for how, times in (("with", 10_000), ("nested", 5_000), ("calls", 5_000)):
        yield Race(f"Ctrl-C in and around holds, {how}", times, partial(_ctrl_c, how))
    for blow, what, times in (
        ("expiry", "holds are over", 2_000),
        ("tracer", "tracers are killed", 300),
    ):
        run = partial(held_writes.writes_while_it_execs, blow)
        yield Race(f"writes in holds of a target that execs, {what}", times, run)
    name = "writes in holds of targets that are killed, and whose pid is reused"
    yield Race(name, 3_000, held_writes.writes_while_it_dies)


def run_races(titles: Sequence[str], seconds: float, scale: float) -> int:
    """Prints a row of a table for each race; returns how many did harm.

    Args:
        titles: Only races with one of these texts in their names; all if there are none.
        seconds: When to end each one early.
        scale: The part of the numbers to run.
    """
    harmed = 0
    print("| race | asked for | counted | harm | seconds |\n|---|---|---|---|---|", flush=True)
    for race in races():
        if titles and not any(part in race.name for part in titles):
            continue
        count = max(round(race.times * scale), 1)
        start = time.monotonic()
        try:
            found = race.run(count, seconds)
        except Exception as error:  # noqa: BLE001 (a row of the table, and the exit status)
            text = f"{type(error).__name__}: {error}".replace("|", "/").replace("\n", " ")
            row = ("", f"**failed**: {text[:200]}")
            harmed += 1
        else:
            good = ", ".join(f"{n:,} {what}" for what, n in found.items() if what not in HARMS)
            bad = ", ".join(f"{n:,} {what}" for what, n in found.items() if what in HARMS)
            is_bad = any(found.get(what, 0) for what in HARMS)
            harmed += is_bad
            row = (good, f"**{bad}**" if is_bad else bad)
        took = time.monotonic() - start
        print(f"| {race.name} | {count:,} | {row[0]} | {row[1]} | {took:.0f} |", flush=True)
    return harmed
