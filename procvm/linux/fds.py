"""File descriptors that close when the last user of them is gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import final

__all__ = ["Fd"]


@final
class Fd:
    """An open descriptor, closed when the object dies.

    An access holds the object while it uses the number. So a `close` in one
    thread can not hand the number of a file that somebody opens just then to
    an access that another thread has under way.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def open(cls, path: str, flags: int) -> Fd:
        """Opens `path`, close-on-exec.

        Raises:
            OSError: As os.open.
        """
        return cls(os.open(path, flags | os.O_CLOEXEC))

    # Bound at class creation: at interpreter shutdown `os` may be gone first.
    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        # Nobody is left who could be told of a failure.
        with suppress(OSError):
            _close(self.number)
