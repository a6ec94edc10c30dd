"""What may befall a tool, its tracer and its target at any instant of an operation."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable
from functools import partial
from random import Random

from scripts.soaking.board import Board, Log
from scripts.soaking.nursery import PATIENCE, Nursery, Victim
from scripts.soaking.tally import Tally
from scripts.soaking.tool import OPERATIONS
from scripts.soaking.toolside import ToolProcess
from tests.support.patience import eventually
from tests.support.procfs import is_free

__all__ = ["BLOWS", "Scene"]

AIMS = ("step", "step", "step", "stop", "cont", "set tag", "exchange")
"""Operations that half of the blows wait for, as often as they are waited for."""


class Scene:
    """A tool in the middle of a burst, its target, and what has been seen of them.

    Attributes:
        victim: The process that has the target's number now.
        fell_in: The operation that the last blow fell into, and how far it had come.
        is_over: Whether the tool has been ended by a blow.
    """

    def __init__(
        self, nursery: Nursery, tool: ToolProcess, victim: Victim, tally: Tally, seed: int
    ) -> None:
        self.nursery = nursery
        self.tool = tool
        self.victim = victim
        self.tally = tally
        self.seed = seed
        self.chance = Random(seed)
        self.fell_in = ""
        self.is_over = False

    @property
    def log(self) -> Board:
        """What the tool writes while it works."""
        return self.nursery.log

    def harm(self, kind: str, detail: str) -> None:
        """Counts a harm that was seen here."""
        self.tally.harm(kind, f"{detail} [{self.victim.mode}]", self.seed)

    def aim(self, first: int, count: int) -> None:
        """Waits for a random operation of a burst, and for a random instant of it."""
        log, chance = self.log, self.chance
        nth = first + chance.randrange(1, max(count // 2, 2))
        eventually(lambda: log[Log.STARTED] >= nth or self.tool.is_through(), PATIENCE)
        wanted = OPERATIONS.index(
            chance.choice(("step", "step", "stop", "cont", "set tag", "exchange"))
        )
        for _ in range(chance.choice((0, 3000))):
            if log[Log.OPERATION] == wanted and log[Log.STARTED] != log[Log.DONE]:
                break
        until = time.perf_counter() + chance.choice((0, 30e-6, 100e-6, 1e-3)) * chance.random()
        while time.perf_counter() < until:
            pass

    def strike(self, name: str, blow: Callable[[], object]) -> None:
        """Does a blow, and notes which operation it fell into."""
        log = self.log
        before = log[Log.STARTED], log[Log.DONE]
        how = self._how_far() if before[0] != before[1] else ""
        blow()
        if before[0] == before[1]:
            self.fell_in = "between operations"
        elif log[Log.DONE] != before[1]:
            self.fell_in = f"about the end of {OPERATIONS[log[Log.OPERATION]]}"
        else:
            self.fell_in = f"in {OPERATIONS[log[Log.OPERATION]]}{how}"
        self.tally.met[f"{name} {self.fell_in}"] += 1

    def _how_far(self) -> str:
        """Returns what /proc shows of the thread that is operated on."""
        pid, log = self.victim.pid, self.log
        tid = log[Log.TID] or pid
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{pid}/task/{tid}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0].decode()
            if state != "t":
                return ", runs"
            if OPERATIONS[log[Log.OPERATION]] == "step":
                with open(f"/proc/{pid}/task/{tid}/syscall") as file:
                    if int(file.read().split()[-1], 16) != log[Log.PC]:
                        return ", stepped"
            return ", stopped"
        return ""

    def free(self, kind: str) -> None:
        """The target has to be let go now, whatever the tool does."""
        pid = self.victim.pid
        # Known by now: waiting as long for each further one would take hours.
        within = 2.0 if self.tally.harms[kind] else PATIENCE

        def let_go() -> bool:
            with contextlib.suppress(OSError):
                return is_free(pid)
            return True

        if not eventually(let_go, within):
            self.harm(kind, f"{self.victim.thread_states()}, {self.fell_in}")


def kill_tool(scene: Scene) -> None:
    scene.strike("SIGKILL of the tool", scene.tool.popen.kill)
    scene.tool.popen.wait()
    scene.is_over = True


def kill_tracer(scene: Scene) -> None:
    tracer = scene.tool.tracer
    if tracer is not None:
        scene.strike("SIGKILL of the tracer", lambda: tracer.signal(signal.SIGKILL))
        # Without this the burst that follows may be the one whose tracer dies.
        eventually(tracer.has_ended, PATIENCE)


def stop_tracer(scene: Scene) -> None:
    """Without a bound the target of a tracer that is suspended stays stopped for ever."""
    tracer, tool = scene.tool.tracer, scene.tool
    if tracer is None:
        return
    scene.strike("SIGSTOP of the tracer", lambda: tracer.signal(signal.SIGSTOP))
    if scene.chance.random() < 0.5:
        tool.popen.kill()
        tool.popen.wait()
        scene.is_over = True
        scene.free("left stopped by a suspended tracer, its tool killed")
    else:
        scene.log[Log.GIVE_UP] = 1
        scene.free("left stopped by a suspended tracer, its tool alive")
    tracer.signal(scene.chance.choice((signal.SIGCONT, signal.SIGKILL)))
    if scene.is_over:
        tracer.signal(signal.SIGCONT)


def interrupt(scene: Scene) -> None:
    log, tool = scene.log, scene.tool
    for _ in range(scene.chance.randrange(1, 4)):
        arrived, begun = log[Log.ARRIVED], log[Log.STARTED]
        scene.strike("Ctrl-C", partial(tool.signal, signal.SIGINT))
        eventually(partial(_is_dealt_with, scene, arrived, begun), PATIENCE)
        if tool.is_through():
            return
        scene.aim(log[Log.STARTED], 6)


def _is_dealt_with(scene: Scene, arrived: int, begun: int) -> bool:
    """Returns whether a Ctrl-C has surfaced, or 50 operations have begun after it without that."""
    log = scene.log
    if log[Log.ARRIVED] == arrived:
        return scene.tool.is_through()
    return (
        log[Log.CAUGHT] == log[Log.ARRIVED]
        or log[Log.STARTED] > begun + 50
        or scene.tool.is_through()
    )


def _starve(scene: Scene, who: str, pid: int, limit: int) -> None:
    log, tool, begun = scene.log, scene.tool, scene.log[Log.STARTED]
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    scene.strike(
        f"descriptors of the {who} exhausted",
        lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard)),
    )
    n = scene.chance.randrange(5, 60)
    eventually(lambda: log[Log.STARTED] > begun + n or tool.is_through(), PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def starve_tool(scene: Scene) -> None:
    tool = scene.tool
    _starve(scene, "tool", tool.pid, max(tool.highest_fd() + scene.chance.randrange(-4, 9), 3))


def starve_tracer(scene: Scene) -> None:
    tracer = scene.tool.tracer
    if tracer is not None:
        with contextlib.suppress(OSError):
            n = max(map(int, os.listdir(f"/proc/{tracer.pid}/fd")))
            _starve(scene, "tracer", tracer.pid, max(n + scene.chance.randrange(-6, 6), 3))


def swap(scene: Scene) -> None:
    old, how = scene.victim, scene.chance.choice(("fork", "exec"))
    new: list[Victim | None] = []
    scene.strike(
        f"number given to another ({how})", lambda: new.append(scene.nursery.swap(old, how))
    )
    if new[0] is not None:
        for name, count in old.slot.wrongs():
            scene.harm(name, f"{count}, before its number was given away")
        scene.victim = new[0]
    else:
        scene.tally.met["numbers that did not come again"] += 1
        scene.log[Log.GIVE_UP] = 1
        scene.victim = scene.nursery.start(old.mode)


def exec_target(scene: Scene) -> None:
    victim, chance = scene.victim, scene.chance
    for _ in range(chance.randrange(1, 4)):
        cookie, thread = scene.nursery.next_cookie(), chance.randrange(8)
        scene.strike("exec of the target", partial(victim.exec, cookie, thread))
        eventually(lambda: victim.is_ready() or victim.status() != "alive", PATIENCE)
        if scene.tool.is_through():
            return
        scene.aim(scene.log[Log.STARTED], 6)


BLOWS: dict[str, Callable[[Scene], None]] = {
    "kill-tool": kill_tool,
    "kill-tracer": kill_tracer,
    "stop-tracer": stop_tracer,
    "interrupt": interrupt,
    "starve-tool": starve_tool,
    "starve-tracer": starve_tracer,
    "swap": swap,
    "exec": exec_target,
}
"""Each blow by the name that a command line gives."""
