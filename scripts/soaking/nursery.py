"""The targets of the storms, and the verdict on them: by their own checks and by /proc alone."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from functools import partial

from scripts.soaking.board import BOARD_LEN, Board, Slot, Word, box
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import is_free, states, tracers

__all__ = ["MODES", "Nursery", "Victim"]

MODES = ("spin", "blocked", "traps", "signals", "mixed")
PATIENCE = 60.0
"""Seconds after which a state that does not come is a harm; no verdict depends on less."""


class Victim:
    """A target, or the program that took its number or its place.

    Attributes:
        cookie: The number that the tool has to know before it may change anything.
        is_ended: Whether the storm itself has ended it.
    """

    def __init__(self, nursery: Nursery, pid: int, mode: str, cookie: int, slot: Slot) -> None:
        self.nursery = nursery
        self.pid = pid
        self.mode = mode
        self.cookie = cookie
        self.slot = slot
        self.is_ended = False
        self._end = "alive"

    def status(self) -> str:
        """Returns "alive", "exited N" or "signal N"."""
        if self._end == "alive":
            self._end = self.nursery.ask(f"look {self.pid}")
        return self._end

    def is_ready(self) -> bool:
        """Returns whether its threads run, after its start or an exec."""
        return self.slot[Word.COOKIE] == self.cookie

    def exec(self, cookie: int, thread: int) -> None:
        """Tells one of its threads to exec; the new image has another cookie."""
        self.cookie = cookie
        self.slot[Word.EXEC_BY] = thread
        self.slot[Word.NEXT_COOKIE] = cookie

    def thread_states(self) -> str:
        """Returns the states of its threads as one text; empty when it is gone."""
        with contextlib.suppress(OSError):
            return "".join(sorted(states(self.pid).values()))
        return ""

    def _moves(self, before: list[int]) -> bool:
        now = self.slot.beats()
        return all(b >= a + 2 for a, b in zip(before, now, strict=True))

    def _waits(self, condition: Callable[[], bool], within: float) -> bool:
        """Waits for a condition, or for the end of the process."""

        def settled() -> bool:
            with contextlib.suppress(OSError):
                return condition() or self.status() != "alive"
            return True

        return eventually(settled, within)

    def harms(self, log: Board | None, within: float = PATIENCE) -> list[str]:
        """Returns what is wrong with it now that no tool uses it.

        Args:
            log: What the tools wrote, to compare the word with; None to leave that out.
            within: Seconds to wait for a state that has to come.
        """
        found = [f"{name}: {count}{self._detail(name)}" for name, count in self.slot.wrongs()]
        if not self._waits(partial(is_free, self.pid), within):
            found.append(
                f"left stopped: {self.thread_states()}, traced by {sorted(tracers(self.pid))}"
            )
            return found
        if not self._waits(self.is_ready, within):
            found.append(f"never ready: {self.thread_states()}, {self.slot[Word.COOKIE]}")
        else:
            before = self.slot.beats()
            self.slot[Word.QUIET] = 1
            if not self._waits(partial(self._moves, before), within):
                found.append(f"stands still: {self.thread_states()}")
            elif self.status() == "alive":
                found += self._sums(log)
            self.slot[Word.QUIET] = 0
        if (status := self.status()) != "alive":
            return [*found, f"died: {status}"]
        return found

    def _detail(self, name: str) -> str:
        slot = self.slot
        if name.startswith("calls"):
            return f" (last {slot[Word.LAST_CALL]:#018x})"
        if name.startswith("traps"):
            return f" (last si_code {slot[Word.LAST_TRAP]})"
        if name.startswith(("registers", "refused")):
            return f" (last {slot[Word.LAST_REGISTER]:#x}, cookie {self.cookie})"
        return ""

    def _sums(self, log: Board | None) -> list[str]:
        found, slot = [], self.slot
        if not self._waits(lambda: slot[Word.GOT] == slot[Word.SENT], 5.0):
            found.append(f"queued signals: {slot[Word.SENT]} sent, {slot[Word.GOT]} handled")
        if log is not None:
            at = box(self.cookie)
            own, word, begun, ended = slot[Word.OWN], slot[Word.WORD], log[at], log[at + 1]
            if not own + ended <= word <= own + begun:
                found.append(f"word: {word}, own {own}, tools began {begun} and ended {ended}")
        return found

    def end(self) -> None:
        """Kills it; twice is fine."""
        if not self.is_ended:
            self.is_ended = True
            if self.status() == "alive":
                self.nursery.ask(f"end {self.pid}")


class Nursery(Child):
    """storm_victim.c: the parent of all targets; `board` is what they count on."""

    def __init__(self) -> None:
        self.board = Board(BOARD_LEN)
        self.log = Board(BOARD_LEN)
        self._cookies = itertools.count(1)
        self.current: Victim | None = None
        program = compiled("storm_victim", "-ffixed-r15", "-no-pie", "-fno-pie")
        super().__init__(
            [program, "nursery", str(self.board.fd)],
            pass_fds=[self.board.fd],
        )
        self.cookie_address, self.word_address = self.hexes()

    def next_cookie(self) -> int:
        """Returns a number that no target has had, with a slot and a box of its own."""
        cookie = next(self._cookies)
        self.log[box(cookie)] = self.log[box(cookie) + 1] = 0
        return cookie

    def _born(self, pid: int, mode: str, cookie: int, slot: Slot) -> Victim:
        self.current = Victim(self, pid, mode, cookie, slot)
        return self.current

    def _slot(self, cookie: int) -> Slot:
        slot = Slot(self.board, cookie)
        slot.clear()
        return slot

    def start(self, mode: str) -> Victim:
        """Starts a target and waits until its threads run."""
        cookie = self.next_cookie()
        slot = self._slot(cookie)
        victim = self._born(
            int(self.ask(f"start {mode} {cookie} {slot.number}")), mode, cookie, slot
        )
        assert eventually(victim.is_ready, PATIENCE), f"a target does not begin: {victim.status()}"
        return victim

    def swap(self, victim: Victim, how: str) -> Victim | None:
        """Ends a target and gives its number to another one; None where that cannot be had."""
        cookie = self.next_cookie()
        slot = self._slot(cookie)
        pid = int(self.ask(f"swap {victim.pid} {victim.mode} {cookie} {slot.number} {how}"))
        victim.is_ended = True
        return None if pid < 0 else self._born(pid, victim.mode, cookie, slot)

    def close(self) -> None:
        """Ends it, and with it all that it started."""
        super().close()
        self.board.close()
        self.log.close()
