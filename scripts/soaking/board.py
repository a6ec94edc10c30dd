"""The shared memory through which targets, tools and the storm tell each other where they are.

Plain memory survives a SIGKILL of its writer, so the storm still reads what a killed tool did last.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from tests.tracee.witness import Board

__all__ = ["BOARD_LEN", "BOXES", "NR_SLOTS", "SLOT_WORDS", "Board", "Log", "Slot", "Word", "box"]

BOARD_LEN = 1 << 20
SLOT_WORDS = 64
NR_SLOTS = BOARD_LEN // 8 // SLOT_WORDS


class Word(IntEnum):
    """Words of a target's slot, as tests/support/targets/storm_victim.c numbers them."""

    COOKIE = 0
    NEXT_COOKIE = 1
    EXEC_BY = 2
    QUIET = 3
    THREADS = 4
    WRONG_SUM = 5
    WRONG_REGISTER = 6
    LAST_REGISTER = 7
    WRONG_CALL = 8
    LAST_CALL = 9
    WRONG_COUNT = 10
    FOREIGN_TRAP = 11
    LAST_TRAP = 12
    REFUSED_TOOK = 13
    OWN = 14
    WORD = 15
    SENT = 16
    GOT = 17
    TRAPS = 18
    BEATS = 24


class Log(IntEnum):
    """Words that a tool writes while it works, and the orders that the storm gives it."""

    STARTED = 0
    DONE = 1
    OPERATION = 2
    TID = 3
    PC = 4
    ARRIVED = 5
    CAUGHT = 6
    GIVE_UP = 7


BOXES = 64
"""The first word of the boxes: for each cookie, the operations begun and ended on its word."""


def box(cookie: int) -> int:
    """Returns where on the log the box of a cookie begins."""
    return BOXES + 2 * (cookie % (BOARD_LEN // 16 - BOXES))


class Slot:
    """The words of one target on the board."""

    def __init__(self, board: Board, number: int) -> None:
        self.board = board
        self.number = number % NR_SLOTS
        self._first = self.number * SLOT_WORDS

    def __getitem__(self, at: int) -> int:
        return self.board[self._first + at]

    def __setitem__(self, at: int, value: int) -> None:
        self.board[self._first + at] = value

    def clear(self) -> None:
        """Zeroes all of it, for another target."""
        for at in range(SLOT_WORDS):
            self[at] = 0

    def beats(self) -> list[int]:
        """Returns how many turns each thread has made."""
        return [self[Word.BEATS + k] for k in range(max(self[Word.THREADS], 1))]

    def wrongs(self) -> Iterator[tuple[str, int]]:
        """Yields each kind of harm that the target has counted, and how often."""
        for name, at in (
            ("wrong results", Word.WRONG_SUM),
            ("registers set by a stranger", Word.WRONG_REGISTER),
            ("calls cut short", Word.WRONG_CALL),
            ("signals lost or doubled", Word.WRONG_COUNT),
            ("traps of a debugger", Word.FOREIGN_TRAP),
            ("refused values taken", Word.REFUSED_TOOK),
        ):
            if self[at]:
                yield name, self[at]
