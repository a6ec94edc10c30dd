"""The storm of operations: 100,000 of them, while tools, tracers and targets come to grief."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from scripts.soaking.blows import BLOWS, Scene
from scripts.soaking.board import Log
from scripts.soaking.nursery import MODES, PATIENCE, Nursery
from scripts.soaking.tally import Tally
from scripts.soaking.tool import INSIDE
from scripts.soaking.toolside import Answer, ToolProcess
from tests.support.patience import eventually

__all__ = ["Plan", "operations"]

QUIET_ERRORS = ("step: StopTimeoutError",)
"""Errors that an operation may have when nothing befell it: the thread is blocked in a call."""


@dataclass(frozen=True)
class Plan:
    """What a storm chooses from.

    Attributes:
        blows: The blows, by the names of `BLOWS`; without any nothing happens.
        modes: The kinds of targets.
        inside: The operations that a tool does in a hold.
        burst: Operations between two looks at what is left, at most.
    """

    blows: Sequence[str] = tuple(BLOWS)
    modes: Sequence[str] = MODES
    inside: Sequence[str] = INSIDE
    burst: int = 120


def operations(
    count: int, seed: int, plan: Plan = Plan(), *, seconds: float | None = None
) -> Tally:
    """Does `count` operations in sessions of a tool and a target; session k has the seed + k.

    Args:
        count: How many operations, those included that a blow cuts short.
        seed: What all choices follow from; only the instants differ from run to run.
        plan: What to choose from.
        seconds: When to end early.
    """
    tally = Tally()
    until = None if seconds is None else time.monotonic() + seconds
    with Nursery() as nursery:
        k = 0
        while tally.done["operations"] < count and not (until and time.monotonic() > until):
            _session(nursery, seed + k, tally, plan)
            k += 1
    return tally


def _session(nursery: Nursery, seed: int, tally: Tally, plan: Plan) -> None:
    """One tool works on a target until one of them is ended; then all that is left is judged."""
    chance = Random(seed)
    tally.done["sessions"] += 1
    victim = nursery.start(chance.choice([*plan.modes]))
    with ToolProcess(nursery, plan.inside) as tool:
        scene = Scene(nursery, tool, victim, tally, seed)
        try:
            blows = [chance.choice([*plan.blows] or [None]) for _ in range(chance.randrange(1, 6))]
            _bursts(scene, blows, plan.burst)
        except (AssertionError, EOFError) as error:
            said = tool.said().strip().splitlines()[-1:]
            scene.harm("the tool hangs or fails", f"{error}, {scene.fell_in}, {said}")
            tool.popen.kill()
            tool.popen.wait()
        tally.done["operations"] += nursery.log[Log.STARTED]
        _end(scene)
        _judge(scene, "at the end")
        scene.victim.end()


def _bursts(scene: Scene, blows: Sequence[str | None], longest: int) -> None:
    tool = scene.tool
    _burst(scene, None, 8)
    before = tool.fds()
    for blow in blows:
        if not _burst(scene, blow, scene.chance.randrange(20, longest)):
            return
        _compare(scene, before, blow)
        _judge(scene, f"after {blow}")
        # Without this a tool that never works again after the blow would go unseen.
        _burst(scene, None, 20)
        _compare(scene, before, None)


def _burst(scene: Scene, blow: str | None, count: int) -> bool:
    """Has the tool do some operations, with a blow in between; returns whether it still lives."""
    tool, log, first = scene.tool, scene.log, scene.log[Log.STARTED]
    scene.fell_in = ""
    tool.begin(scene.victim.pid, count, scene.chance.randrange(1 << 30))
    if blow is not None:
        if tool.find_tracer(scene.victim.pid) is None:
            scene.tally.met["bursts over before the blow"] += 1
        else:
            scene.aim(first, count)
            BLOWS[blow](scene)
        if scene.is_over:
            return False
    answer = tool.answer(2 * PATIENCE)
    _judge_answer(scene, answer, blow)
    if log[Log.ARRIVED] != log[Log.CAUGHT]:
        scene.harm("Ctrl-C swallowed", f"{log[Log.ARRIVED] - log[Log.CAUGHT]}, {scene.fell_in}")
        log[Log.ARRIVED] = log[Log.CAUGHT] = 0
    return True


def _judge_answer(scene: Scene, answer: Answer, blow: str | None) -> None:
    for what, n in answer.done.items():
        scene.tally.done[what] += n
    for text in answer.foreign:
        scene.harm("exceptions and answers not the library's", f"{text} ({blow})")
    if blow is None:
        for what in answer.errors.keys() - set(QUIET_ERRORS):
            scene.harm("errors when nothing had happened", what)
    else:
        for what, n in answer.errors.items():
            scene.tally.done[f"failed with {what.partition(': ')[2]}"] += n


def _compare(scene: Scene, before: Counter[str], blow: str | None) -> None:
    left = scene.tool.fds() - before
    if left:
        scene.harm("descriptors left", f"{dict(left)} after {blow}, {scene.fell_in}")
        before |= scene.tool.fds()  # counted once


def _judge(scene: Scene, when: str) -> None:
    """Notes the harms of the target, and starts another one if it is not well."""
    try:
        harms = scene.victim.harms(scene.log)
    except AssertionError as error:  # the parent waits for a child that its tracer does not reap
        harms = [f"left stopped: its parent cannot reap it: {error}"]
    if not harms:
        return
    for text in harms:
        kind = text.partition(":")[0]
        if kind == "died" and scene.fell_in.startswith("in step"):
            kind = "died of a blow within a step"
        scene.harm(kind, f"{text.partition(': ')[2]} ({when}, {scene.fell_in})")
    with contextlib.suppress(AssertionError):
        scene.victim.end()
    scene.victim = scene.nursery.start(scene.victim.mode)


def _end(scene: Scene) -> None:
    """Ends the tool; its tracer has to end with it, and neither has printed a traceback."""
    tool = scene.tool
    if tool.popen.poll() is None:
        assert tool.popen.stdin is not None
        tool.popen.stdin.close()
        if not eventually(lambda: tool.popen.poll() is not None, PATIENCE):
            scene.harm("a tool that does not end", f"{tool.waits_in()}, {scene.fell_in}")
            tool.popen.kill()
            tool.popen.wait()
    if not eventually(lambda: not tool.offspring(), PATIENCE):
        scene.harm("processes left", f"{tool.offspring()}, {scene.fell_in}")
    said = tool.said()
    for word in ("Traceback", "Exception ignored", "Fatal"):
        if word in said:
            scene.harm("tracebacks printed", f"{said.strip().splitlines()[-1]}, {scene.fell_in}")
            break
