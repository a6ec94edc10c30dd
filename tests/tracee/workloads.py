"""Races and cycles with a count: the everyday tests run a slice, scripts/soak runs them whole.

Each returns what it counted, by name. A count that must be 0 is of harm done to the target, and
its verdict is the target's own or that of /proc.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import procvm
from tests.support.build import compiled
from tests.support.patience import eventually, pass_time
from tests.support.procfs import assert_free, is_free, state_of, states, tracers
from tests.tracee.witness import Board, Cas, Execer, Recorder, Tool, Work, sleeper

Counts: TypeAlias = dict[str, int]

STANDARD = [s for s in range(1, 32) if s not in (signal.SIGKILL, signal.SIGSTOP)]
REAL_TIME = range(34, 65)


class Clock:
    """The end of a run that is bounded in time."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return self._end is not None and time.monotonic() > self._end


def races_met(enough: Counts, run: Callable[[], Counts], rounds: int = 40) -> Counts:
    """Runs a race until it has met what it is about as often as `enough` says; returns the sums.

    How often that is in one run is the machine's affair.
    """
    sums: Counts = {}
    for _ in range(rounds):
        for what, n in run().items():
            sums[what] = max(sums.get(what, 0), n) if what in _LARGEST else sums.get(what, 0) + n
        if all(sums[what] >= n for what, n in enough.items()):
            return sums
    raise AssertionError(f"{sums} in {rounds} rounds, and {enough} is what is to be met")


_LARGEST = ("slowest ms", "threads")


# Stop and resume


def _cycle(tracee: procvm.Tracee, k: int) -> None:
    if k % 2:
        tracee.stop()
        tracee.resume()
    else:
        with tracee.stopped():
            pass


def cycles_of_work(mode: str, n: int, count: int, seconds: float | None = None) -> Counts:
    """Stops and resumes a target that works; it must count on, and never while held."""
    clock = Clock(seconds)
    done = moved = left = 0
    with Work(mode, n) as target, procvm.attach(target.pid) as tracee:
        kept = dict.fromkeys(states(target.pid))
        for k in range(count):
            _cycle(tracee, k)
            done += 1
            if k % 50 == 0:
                with tracee.stopped():
                    before = target.board.snapshot()
                    held = states(target.pid)
                    moved += target.board.snapshot() != before or set(held.values()) != {"t"}
            if k % 50 == 49:
                left += not eventually(lambda: is_free(target.pid))
                if clock.over:
                    break
        assert dict.fromkeys(states(target.pid)) == kept, "a thread is missing"
        if mode == "sleep":
            assert eventually(lambda: set(states(target.pid).values()) == {"S"}), states(target.pid)
        else:
            target.assert_runs()
    return {"cycles": done, "threads": n, "moved while held": moved, "left stopped": left}


def cycles_of_stopped(signo: int, count: int, seconds: float | None = None) -> Counts:
    """Stops and resumes a target that a signal has stopped; it must stay so, until SIGCONT."""
    clock = Clock(seconds)
    done = left = other = 0
    with Work("tick", 4) as target, procvm.attach(target.pid) as tracee:
        target.signal(signo)
        assert eventually(lambda: set(states(target.pid).values()) == {"T"})
        for k in range(count):
            _cycle(tracee, k)
            done += 1
            if k % 20 == 19:
                left += not eventually(lambda: is_free(target.pid))
                other += not eventually(lambda: set(states(target.pid).values()) == {"T"})
                if clock.over:
                    break
        before = target.ticks()
        assert target.ticks() == before
        target.signal(signal.SIGCONT)
        target.assert_runs()
    return {"cycles": done, "threads": 4, "left stopped": left, "not T any more": other}


def clone_storm(born: int, seconds: float | None = None) -> Counts:
    """Stops a target whose threads are born at full speed, until so many were."""
    clock = Clock(seconds)
    stops = moved = unheld = 0
    with Work("clones", 3) as target, procvm.attach(target.pid) as tracee:
        while (target.board[1] < born or stops < 10) and not clock.over:
            with tracee.stopped():
                before = target.board.snapshot()
                unheld += set(states(target.pid).values()) - {"t"} != set()
                pass_time(0.0003)
                moved += target.board.snapshot() != before
                stops += 1
        target.board[3] = 1
        assert_free(target.pid)
        assert eventually(lambda: target.board[1] == target.board[2]), "a thread never ended"
        assert eventually(lambda: len(states(target.pid)) == 3)
        found = target.board[1]
    return {
        "stops": stops,
        "threads born": found,
        "moved while held": moved,
        "threads not held": unheld,
    }


def children_storm(count: int, seconds: float | None = None) -> Counts:
    """Stops a target that makes processes in five ways; each must run and end as it would."""
    clock = Clock(seconds)
    stops = late = touched = 0
    with Work("children") as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        while stops < count and not clock.over:
            try:
                with tracee.stopped():
                    stops += 1
                    children = _children_of(target.pid)
                    # One that was traced from birth is let go in a moment.
                    touched += sum(
                        not eventually(partial(_is_untraced, child)) for child in children
                    )
            except procvm.StopTimeoutError:
                late += 1
        target.board[3] = 1
        words = target.board.words
        if not eventually(lambda: words[32:37] == words[16:21]):
            stuck = {child: states(child) for child in _children_of(target.pid)}
            raise AssertionError(
                f"children {stuck} never ended: {words[16:21].tolist()} began, "
                f"{words[32:37].tolist()} ended, error {words[6]}"
            )
        born = words[16:21].tolist()
        assert target.board[6] == 0
        assert_free(target.pid)
    return {"stops": stops, "children": sum(born), "still traced": touched, "timeouts": late}


def _children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return list(map(int, file.read().split()))


def _is_untraced(pid: int) -> bool:
    try:
        return not tracers(pid)
    except OSError:
        return True


def exec_storm(who: str, count: int, seconds: float | None = None) -> Counts:
    """Attaches to, stops and resumes a target that execs without end."""
    clock = Clock(seconds)
    stops = errors = timeouts = 0
    with Execer(who) as target:
        first = target.board[0]
        while stops < count and not clock.over:
            try:
                with procvm.attach(target.pid) as tracee:
                    for k in range(20):
                        _cycle(tracee, k)
                        stops += 1
            except procvm.StopTimeoutError:
                timeouts += 1
            except (procvm.ProcessExecedError, procvm.ProcessExitedError):
                errors += 1
                if not eventually(lambda: os.path.exists(f"/proc/{target.pid}/exe")):
                    raise
                assert target.popen.poll() is None, "the target has ended"
        assert_free(target.pid)
        target.assert_goes_on()
        execs = target.board[0] - first
    return {"stops": stops, "execs": execs, "refused meanwhile": errors, "timeouts": timeouts}


def leaders_leave(count: int, seconds: float | None = None) -> Counts:
    """Stops a target at the moment when its leader ends and its threads live on."""
    clock = Clock(seconds)
    done = raced = timeouts = moved = 0
    chance = random.Random(3)
    for _ in range(count):
        if clock.over:
            break
        with Work("leaves", 2) as target, procvm.attach(target.pid) as tracee:
            tracee.stop()
            tracee.resume()
            target.board[3] = 1
            pass_time(chance.random() * 200e-6)
            alive_before = state_of(target.pid) not in "ZX"
            try:
                with tracee.stopped():
                    raced += alive_before and target.board[5] == 1
                    before = target.ticks()
                    moved += target.ticks() != before
            except procvm.StopTimeoutError:
                timeouts += 1
            assert eventually(lambda: state_of(target.pid) == "Z")
            # Its end may be seen, and the rest is held all the same.
            with tracee.stopped():
                before = target.ticks()
                moved += target.ticks() != before
            target.assert_runs()
            done += 1
    return {
        "targets": done,
        "leader left about the stop": raced,
        "moved while held": moved,
        "timeouts": timeouts,
    }


# Compare and exchange


def cas(
    threads: int,
    width: int,
    count: int,
    *,
    held: bool,
    work: int = 2000,
    seconds: float | None = None,
) -> Counts:
    """Increments a word of private memory beside the target's own threads."""
    clock = Clock(seconds)
    pod: procvm.PodAtomic[int] = procvm.u32 if width == 4 else procvm.u64
    added = tries = 0
    with Cas(threads, width, work=work) as target, procvm.attach(target.pid) as tracee:
        target.go()
        vm = tracee.vm
        expected = 0
        while tries < count and not clock.over:
            if held:
                with tracee.stopped():
                    for _ in range(10):
                        expected = vm.atomic_load(target.word, pod)
                        _, good = vm.atomic_compare_exchange(
                            target.word, pod, expected, expected + 1
                        )
                        added += good
                        tries += 1
                        assert good, "the word moved while the target was held"
            else:
                expected, good = vm.atomic_compare_exchange(
                    target.word, pod, expected, expected + 1
                )
                expected += good
                added += good
                tries += 1
        word, own, failed, neighbours = target.stop()
    return {
        "tries": tries,
        "exchanged": added,
        "target's own": own,
        "races": failed,
        "lost": own + added - word,
        "neighbours harmed": int(not neighbours),
    }


def cas_on_shared(
    kind: str, width: int, count: int, *, held: bool, seconds: float | None = None
) -> Counts:
    """Increments a word of shared memory beside threads and a process that nobody stops."""
    clock = Clock(seconds)
    pod: procvm.PodAtomic[int] = procvm.u32 if width == 4 else procvm.u64
    added = tries = refused = 0
    with Cas(2, width, kind, work=20) as target, procvm.attach(target.pid) as tracee:
        target.go()
        target.ask("fork")
        vm = tracee.vm
        with tracee.stopped() if held else contextlib.nullcontext():
            while tries < count and not clock.over:
                tries += 1
                try:
                    expected = vm.atomic_load(target.word, pod)
                    _, good = vm.atomic_compare_exchange(target.word, pod, expected, expected + 1)
                    added += good
                except procvm.SharedMemoryError:
                    refused += 1
        word, own, _, neighbours = target.stop()
    return {
        "tries": tries,
        "exchanged": added,
        "refused": refused,
        "target's own": own,
        "lost": own + added - word,
        "neighbours harmed": int(not neighbours),
    }


# Signals


def _has(board: Board, at: int, count: int) -> bool:
    return board[at] >= count


def _send(pid: int, signo: int, first: int, count: int) -> subprocess.Popen[bytes]:
    program = compiled("trace_signals")
    return subprocess.Popen([program, "send", *map(str, (pid, signo, first, count))])


def queued_signals(
    count: int, threads: int, seconds: float | None = None, signos: tuple[int, ...] = (34, 41, 64)
) -> Counts:
    """Sends numbered real-time signals with a payload while the target is stopped and resumed."""
    clock = Clock(seconds)
    sent = during = stops = 0
    with Recorder(threads) as target, procvm.attach(target.pid) as tracee:
        board = target.board
        while sent < count and not clock.over:
            part = min(2000, count - sent)
            each = part // len(signos)
            senders = [_send(target.pid, s, target.seen(s) + 1, each) for s in signos]
            while any(sender.poll() is None for sender in senders):
                before = board[1]
                _cycle_counted(tracee)
                stops += 1
                during += board[1] != before
            assert [sender.returncode for sender in senders] == [0] * len(senders)
            sent += each * len(signos)
            assert eventually(partial(_has, board, 1, sent)), f"{board[1]} of {sent} arrived"
        # As many again would come late, if any came twice.
        with tracee.stopped():
            pass
        assert_free(target.pid)
        sums = [board[192 + s] for s in signos]
        each = sent // len(signos)
        assert sums == [each * (each + 1) // 2] * len(signos), "payloads"
        return {
            "sent": sent,
            "stops": stops,
            "stops with a signal about": during,
            "lost": max(sent - board[1], 0),
            "doubled": max(board[1] - sent, 0),
            "out of order": board[2],
            "changed": board[3],
        }


def _cycle_counted(tracee: procvm.Tracee) -> None:
    with tracee.stopped():
        pass


def standard_signals(rounds: int, threads: int, seconds: float | None = None) -> Counts:
    """Sends each signal alone while the target is stopped and resumed: each is handled once."""
    clock = Clock(seconds)
    sent = lost = doubled = stops = 0
    with Recorder(threads) as target, procvm.attach(target.pid) as tracee:
        for turn in range(rounds):
            if clock.over:
                break
            for signo in STANDARD:
                before = target.seen(signo)
                if turn % 3 == 0:
                    with tracee.stopped():
                        target.signal(signo)
                elif turn % 3 == 1:
                    target.signal(signo)
                    with tracee.stopped():
                        pass
                else:
                    tracee.stop()
                    target.signal(signo)
                    tracee.resume()
                stops += 1
                sent += 1
                lost += not eventually(partial(_has, target.board, 64 + signo, before + 1))
                doubled += target.seen(signo) > before + 1
    return {"sent": sent, "stops": stops, "lost": lost, "doubled": doubled}


# The end of the tool


def tool_killed(count: int, signo: int = signal.SIGKILL, seconds: float | None = None) -> Counts:
    """Kills tools at random instants of stop cycles; their target, which takes signals, runs on."""
    clock = Clock(seconds)
    chance = random.Random(1)
    done = held = 0
    slowest = 0.0
    with Recorder(2) as target:
        board = target.board
        for k in range(count):
            if clock.over:
                break
            with Tool("cycle", target.pid) as tool:
                assert tool.line() == "cycling"
                sender = _send(target.pid, 40, target.seen(40) + 1, 60)
                pass_time(chance.random() * 0.01)
                held += bool(tracers(target.pid))
                tool.signal(signo)
                slowest = max(slowest, _time_until_free(target))
                assert sender.wait() == 0
                assert eventually(partial(_has, board, 64 + 40, (k + 1) * 60)), "lost"
                assert tool.popen.wait() == -signo
            done += 1
        return {
            "tools": done,
            "held at that moment": held,
            "slowest ms": round(slowest * 1000),
            "lost": done * 60 - target.seen(40),
            "out of order": board[2],
        }


def _time_until_free(target: Recorder) -> float:
    """Returns how long the target took to be let go and to count on."""
    start = time.monotonic()
    assert_free(target.pid)
    free = time.monotonic() - start
    before = target.board[4]
    assert eventually(lambda: target.board[4] != before), "it does not run"
    return free


def ctrl_c(count: int, seconds: float | None = None, how: str = "with") -> Counts:
    """Interrupts a tool at random instants in and around its holds.

    The tool answers each KeyboardInterrupt that it catches; meanwhile, while it still
    handles that, and after it, the target has to run.
    """
    clock = Clock(seconds)
    chance = random.Random(2)
    sent = surfaced = left = swallowed = held = 0
    with Work("tick", 2) as target, Tool("interrupted", target.pid, how) as tool:
        assert tool.line() == "ready"
        assert tool.popen.stdin is not None
        while sent < count and not clock.over:
            tool.send("go")
            pass_time(chance.random() ** 2 * 0.012)
            tool.signal(signal.SIGINT)
            sent += 1
            while True:
                try:
                    answer = tool.line()
                except AssertionError:
                    swallowed += 1
                    tool.signal(signal.SIGINT)
                    continue
                break
            assert answer in ("caught held", "caught"), answer
            surfaced += 1
            held += answer == "caught held"
            left += not eventually(lambda: is_free(target.pid))
        target.assert_runs()
    return {
        "sent": sent,
        "surfaced": surfaced,
        "swallowed": swallowed,
        "inside the with": held,
        "left stopped": left,
    }


def plain_sleepers(count: int, seconds: float | None = None) -> Counts:
    """Stops and resumes a plain sleeping program, looking at it after each cycle."""
    clock = Clock(seconds)
    done = left = 0
    with sleeper() as target, procvm.attach(target.pid) as tracee:
        for k in range(count):
            _cycle(tracee, k)
            done += 1
            if k % 10 == 0:
                left += not eventually(lambda: is_free(target.pid) and state_of(target.pid) == "S")
                if clock.over:
                    break
    return {"cycles": done, "threads": 1, "left stopped": left}
