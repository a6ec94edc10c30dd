"""File descriptors whose owner is an object of C, so that no Python runs when they close."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from functools import partial
from io import FileIO
from types import TracebackType
from typing import Any, final

__all__ = ["Fd", "Use"]

# `epoll.fromfd` takes any descriptor, and its deallocation is close(2) and nothing else. With
# `__del__` in its place, a Ctrl-C that lands in there is swallowed and the descriptor stays open.
_own: Callable[[int], Any] = select.epoll.fromfd


@final
class Use:
    """One use of a descriptor: it is not closed before the ``with`` ends."""

    __slots__ = ("_number", "_owner")

    def __init__(self, owner: object, number: int) -> None:
        self._owner = owner
        self._number = number

    def __enter__(self) -> int:
        return self._number

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owner = None


@final
class Fd:
    """An open descriptor, closed by `close`, or when the object is dropped.

    Another thread may close it at any time. An access that must not reach a file which
    another thread then opens under the same number takes the number from `use`.

    Attributes:
        number: The descriptor; -1 once closed, which the kernel answers with EBADF.
    """

    __slots__ = ("_owner", "number")

    def __init__(self, number: int) -> None:
        self._owner: Any = _own(number)
        self.number = number

    @classmethod
    def of(cls, function: Callable[..., int], *args: object) -> Fd:
        """Calls a function of C that opens a descriptor, and owns what it returns.

        No bytecode runs between the two: a Ctrl-C there would leave the descriptor open.

        Raises:
            OSError: As the function.
        """
        return cls._of_owner(next(map(_own, map(function, *((arg,) for arg in args)))))

    @classmethod
    def open(cls, path: str, flags: int) -> Fd:
        """Opens `path`, close-on-exec.

        Raises:
            OSError: As os.open.
        """
        return cls.of(os.open, path, flags | os.O_CLOEXEC)

    @classmethod
    def _of_owner(cls, owner: Any) -> Fd:
        made = cls.__new__(cls)
        made._owner = owner
        made.number = owner.fileno()
        return made

    def warning(self, text: str) -> Fd:
        """Returns a second descriptor of the same file that warns if it is never closed.

        The interpreter gives the ResourceWarning, which has `text` in it, without running
        Python of ours.

        Raises:
            OSError: No descriptor is left.
        """
        with self.use() as number:
            file = next(map(FileIO, map(os.dup, (number,))))
        file.name = text
        return self._of_owner(file)

    def use(self) -> Use:
        """Returns a context manager that gives the number and keeps it from being closed."""
        # The owner first: a number that is read first may be another file's by now.
        owner = self._owner
        return Use(owner, self.number)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.number < 0

    def close(self) -> None:
        """Closes it as soon as no access uses it. Twice is fine."""
        owner, self.number, self._owner = self._owner, -1, None
        if type(owner) is FileIO:
            # Its deallocation calls this, and not its own `close`, which would warn. It is
            # not closed here, since a use of it may be under way.
            vars(owner)["close"] = partial(os.close, owner.fileno())
