"""File descriptors whose owner is an object of C, so that no Python runs when they close."""

from __future__ import annotations

import os
import select
import warnings
from collections.abc import Callable
from functools import partial
from io import FileIO
from itertools import chain
from types import TracebackType
from typing import Any, final

from procvm._base.closing import Closing

__all__ = ["CLOSED", "Fd", "Use"]

CLOSED = 0x7FFFFFFF
"""A number that no descriptor has: the kernel answers EBADF, and Python takes it, unlike -1."""

# `epoll.fromfd` takes any descriptor, and its deallocation is close(2) and nothing else. With
# `__del__` in its place, a Ctrl-C that lands in there is swallowed and the descriptor stays open.
_own: Callable[[int], Any] = select.epoll.fromfd


def _is_shown(kind: type[Warning]) -> bool:
    """Returns whether the filters of warnings show or raise one of this kind anywhere."""
    for action, message, category, module, _ in warnings.filters:
        if issubclass(kind, category):
            if action != "ignore":
                return True
            if message is None and module is None:
                return False
    return True


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
class Fd(Closing):
    """An open descriptor, closed by `close`, or when the object is dropped.

    Another thread may close it at any time. An access that must not reach a file which
    another thread then opens under the same number takes the number from `use`, or keeps
    `owner` while it uses the number.

    Attributes:
        number: The descriptor; `CLOSED` once closed.
        owner: Keeps it open; None once closed.
    """

    __slots__ = ("number", "owner")

    def __init__(self, number: int) -> None:
        self.owner: Any = _own(number)
        self.number = number

    @classmethod
    def of(cls, function: Callable[..., int], *args: object) -> Fd:
        """Calls a function of C that opens a descriptor, and owns what it returns.

        No bytecode runs between the two: a Ctrl-C there would leave the descriptor open.

        Raises:
            OSError: As the function.
        """
        return cls._of_owner(next(map(_own, map(function, *[(arg,) for arg in args]))))

    @classmethod
    def of_call(cls, function: Callable[..., int], *args: object) -> Fd | None:
        """As `of`, for a function of ctypes, which returns -1 and does not raise; then None."""
        numbers = map(function, *[(arg,) for arg in args])
        owner = next(map(_own, filter((-1).__ne__, numbers)), None)
        return None if owner is None else cls._of_owner(owner)

    @classmethod
    def pair(cls, function: Callable[..., tuple[int, int]], *args: object) -> tuple[Fd, Fd]:
        """As `of`, for a function that returns two descriptors.

        Raises:
            OSError: As the function.
        """
        numbers = map(function, *[(arg,) for arg in args])
        one, other = tuple(map(_own, chain.from_iterable(numbers)))
        return cls._of_owner(one), cls._of_owner(other)

    @classmethod
    def open(cls, path: str, flags: int) -> Fd:
        """Opens `path`, close-on-exec.

        Raises:
            OSError: As os.open.
        """
        return cls._of_owner(
            next(map(_own, map(os.open, (path,), (flags | os.O_CLOEXEC,)))),
        )

    @classmethod
    def open_at(cls, folder: int, name: str, flags: int) -> Fd:
        """Opens `name` in the folder of a descriptor, close-on-exec.

        Raises:
            OSError: As os.open.
        """
        return cls.of(partial(os.open, dir_fd=folder), name, flags | os.O_CLOEXEC)

    @classmethod
    def of_file(cls, function: Callable[..., int], *args: object) -> Fd:
        """As `of`; the result is one that can `warn_if_dropped`.

        Raises:
            OSError: As the function.
        """
        made = cls._of_owner(next(map(FileIO, map(function, *[(arg,) for arg in args]))))
        made._be_silent()
        return made

    @classmethod
    def _of_owner(cls, owner: Any) -> Fd:
        made = cls.__new__(cls)
        made.owner = owner
        made.number = owner.fileno()
        return made

    def warn_if_dropped(self, text: str) -> None:
        """Has the interpreter give a ResourceWarning with `text` if this is never closed.

        Only for one of `of_file`. No Python of ours runs then, as it would in a `__del__`.
        Where the warning is ignored now, as it is by default, none is prepared: the
        interpreter looks for signals as it puts the text together, and loses what a
        handler raises.
        """
        owner = self.owner
        if owner is not None and _is_shown(ResourceWarning):
            owner.name = text
            owner.__dict__.pop("close", None)

    def _be_silent(self) -> None:
        # The deallocation calls this, and not the file's own `close`, which would warn. The
        # file is not closed here, since a use of it may be under way.
        owner = self.owner
        vars(owner)["close"] = partial(os.close, owner.fileno())

    def use(self) -> Use:
        """Returns a context manager that gives the number and keeps it from being closed."""
        # The owner first: a number that is read first may be another file's by now.
        owner = self.owner
        return Use(owner, self.number)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.number == CLOSED

    def close(self) -> None:
        """Closes it as soon as no access uses it. A second call does nothing."""
        if type(self.owner) is FileIO:
            self._be_silent()
        # In this order: `use` reads them the other way round.
        self.number = CLOSED
        self.owner = None
