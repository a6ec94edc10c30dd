"""Storms of writes to many ranges of a target that is held, and that does not outlive its hold.

Each target has a box, where only who knows its number may write: the number and the TAG. So a write
that goes to another process, or to another program of the process, is seen by its target.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import procvm
from procvm import VmReader, VmWriterArray, u64
from tests.faults.races import TAG, Addresses
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.procfs import tracer_of
from tests.tracee.workloads import Clock, Counts

__all__ = ["STATIC", "writes_while_it_dies", "writes_while_it_execs"]

STATIC = ("-static", "-no-pie")
NR_RANGES = 32
MOST_WRITES = 40
LONGEST_NS = 2_000_000

Blow = Callable[[int], None]


def _visit(pid: int, at: Addresses, longest: float | None, blow: Blow, seen: Counter[str]) -> None:
    """Attaches, holds and writes until the hold or the target is over; the blow falls meanwhile."""
    try:
        with procvm.attach(pid, longest_hold=longest) as tracee, tracee.stopped() as held:
            number = held.vm.read_val(at.number, u64)
            if not number:
                seen["not ready"] += 1
                return
            seen["holds"] += 1
            blow(pid)
            data = (number << 32 | TAG).to_bytes(8, "little") * NR_RANGES
            for _ in range(MOST_WRITES):
                writers = [held.vm.writer(at.box, 8) for _ in range(NR_RANGES)]
                VmWriterArray(writers).write(VmReader.from_buffer(data))
                seen["writes"] += 1
    except (
        procvm.ProcessExitedError,
        procvm.ProcessExecedError,
        procvm.NoSuchProcessError,
        procvm.NotStoppedError,
        procvm.NotTracedError,
        procvm.PageFaultError,  # in the middle of an exec
    ) as error:
        seen[type(error).__name__] += 1


def writes_while_it_execs(
    blow: str, count: int, seconds: float | None = None, seed: int = 0
) -> Counts:
    """Writes to a target that execs at full speed whenever its hold is over.

    Args:
        blow: "expiry": the longest time of the hold is over. "tracer": the tracer is killed.
        count: How many holds.
        seconds: When to end early.
        seed: What the instants follow from.

    Returns:
        How often what happened; "written elsewhere" has to be 0.
    """
    clock, chance, seen = Clock(seconds), random.Random(seed), Counter[str]()
    target = Child(["setarch", "-R", compiled("execer", *STATIC), "main", "slow", "00000001"])
    with target, Child([compiled("killer")]) as killer:
        at = Addresses(*(int(word, 16) for word in target.line().split()[1:3]))

        def kill_tracer(pid: int) -> None:
            killer.send(f"{tracer_of(pid)} {chance.randrange(LONGEST_NS)} 9")

        target.send("go")
        while seen["holds"] < count and not clock.over:
            before = seen["holds"]
            if blow == "expiry":
                longest = chance.choice((0.0005, 0.001, 0.002))
                _visit(target.pid, at, longest, lambda _: None, seen)
            else:
                _visit(target.pid, at, None, kill_tracer, seen)
                if seen["holds"] > before:
                    assert killer.line() == "sent"
        assert target.popen.stdin is not None
        target.popen.stdin.close()
        last = target.line().split()
        seen["written elsewhere"] = 0
        while last[0] == "bad":
            seen["written elsewhere"] += 1
            last = target.line().split()
        assert last[0] == "end"
        seen["programs"] = int(last[1], 16)
    return dict(seen)


def writes_while_it_dies(count: int, seconds: float | None = None, seed: int = 0) -> Counts:
    """Writes to processes that are killed in their holds, and whose pid the next one has.

    Args:
        count: How many holds.
        seconds: When to end early.
        seed: What the instants follow from.

    Returns:
        How often what happened; "written elsewhere" has to be 0.
    """
    clock, chance, seen = Clock(seconds), random.Random(seed), Counter[str]()
    with Child([compiled("reuser")]) as server, Child([compiled("killer")]) as killer:
        at = Addresses(*server.hexes())
        pid = int(server.ask("fork"))
        assert server.ask("end") == "0"

        def kill(pid: int) -> None:
            killer.send(f"{pid} {chance.randrange(LONGEST_NS)} 9")

        server.send(f"race {pid} {1 << 30} 20")
        while seen["holds"] < count and not clock.over:
            before = seen["holds"]
            _visit(pid, at, None, kill, seen)
            if seen["holds"] > before:
                assert killer.line() == "sent"
        server.send("")
        word, raced, bad = server.line().split()
        assert word == "raced"
        seen["processes"], seen["written elsewhere"] = int(raced), int(bad)
    return dict(seen)
