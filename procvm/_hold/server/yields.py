"""`Yields`: the first looks at a state that changes within microseconds."""

from __future__ import annotations

import os
import time

__all__ = ["Yields"]

_LONGEST = 5e-3


class Yields:
    """Gives the CPU away a number of times, within five milliseconds in all.

    A yield lets every other thread of the CPU run first. Without the bound, 200 of them take
    minutes among a thousand busy threads, and no deadline is looked at meanwhile.
    """

    __slots__ = ("_end", "_left")

    def __init__(self, most: int) -> None:
        self._left = most
        self._end = time.monotonic() + _LONGEST

    def again(self) -> bool:
        """Yields; returns False, without a yield, once the time for it is over."""
        if self._left and time.monotonic() < self._end:
            self._left -= 1
            os.sched_yield()
            return True
        self._left = 0
        return False
