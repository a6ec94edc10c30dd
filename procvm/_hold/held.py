"""`Held`: a hold on a target as the tool has it, and `Grip`, the socket that keeps it."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, cast, final

from procvm._base import forks
from procvm._hold.server.protocol import Reliance
from procvm._space.space import VmSpace
from procvm.errors import Hint, NotStoppedError

__all__ = ["LAST_BREATH_MS", "Grip", "Held", "hold_is_over"]

LAST_BREATH_MS = 2000
"""Milliseconds that the kernel may take to report the end of a target that died in a hold."""


class Grip:
    """The tool's end of one hold: a socket; when it is shut down, the tracer lets go.

    Attributes:
        pid: The held process.
        reliance: Tells whether the hold lasts; None if it was over at once.
        raw: The object whose ``close`` is the C function that ends the hold; `Held.__exit__`
            hands it to C code.
    """

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self.reliance: Reliance | None = None
        self._line = line
        # Closing the socket would not end the hold while a child that C code of the tool forked
        # has a copy of it; shutting it down does.
        self.raw = SimpleNamespace(
            closed=False, writable=_yes, close=partial(line.shutdown, socket.SHUT_RDWR)
        )
        forks.register(self)

    @property
    def closed(self) -> bool:
        """Whether the tool ended the hold."""
        return bool(self.raw.closed)

    def close(self) -> None:
        """Ends the hold. A second call does nothing."""
        with contextlib.suppress(OSError):
            self.raw.close()
        self.abandon()

    def abandon(self) -> None:
        """Closes the socket without a shutdown: the hold has ended, or belongs to the parent."""
        self.raw.close = int  # does nothing
        self.raw.closed = True
        self._line.close()

    def after_fork_in_child(self) -> None:
        """Closes a forked child's copy of the socket; the hold stays with the parent."""
        self.abandon()

    def leave(self, before: BaseException | None) -> None:
        """Closes the socket after the C function has ended the hold.

        Args:
            before: The exception that was being handled when the ``with`` was entered.

        Raises:
            NotStoppedError: The target ran on within the ``with``, and no other error
                is under way.
        """
        was_over = not self.closed and (self.reliance is None or self.reliance.ended_by_itself)
        self.abandon()
        if was_over and sys.exception() is before:
            raise hold_is_over(self.pid)


class _Exit:
    """`Held.__exit__`: of an object a C function, of the class a function that takes the object.

    `contextlib.ExitStack` looks the method up in the class, and a property would fail there.
    """

    def __get__(self, held: Any, kind: type[Any]) -> Callable[..., None]:
        if held is None:
            return _leave_stack
        leaving: Callable[..., None] = held._leaving(sys.exception())
        return leaving


@final
class Held:
    """A hold on a target, as `Tracee.stopped` returns it; `close` or the ``with`` ends it.

    Ctrl-C at any moment in or around the ``with`` leaves the target running: the end of the
    ``with`` calls a C function first, and dropping the object also lets the target go.
    """

    vm: VmSpace
    """The target's address space, with each page kept after its first read.

    Small reads of lists, trees and the like are about ten times faster than by `Tracee.vm`.
    Only pages of private memory are kept: during the hold only the tool can change them, and a
    write by any space of the same `Tracee` is visible here. Shared memory, unmodified pages of
    files, and reads into a buffer of the caller are read from the target each time. After the
    ``with`` has ended, every read is. After the longest time of the hold, a read raises
    NotStoppedError.
    """

    def __init__(self, grip: Grip, vm: VmSpace) -> None:
        self._grip = grip
        self.vm = vm

    def __repr__(self) -> str:
        return f"<Held: process {self._grip.pid}{', over' if self.is_over() else ''}>"

    def is_over(self) -> bool:
        """Returns whether this hold has ended."""
        return self._grip.closed or not self._grip.reliance

    def close(self) -> None:
        """Ends the hold; the target runs on if no other hold is left.

        A second call does nothing.
        """
        self._grip.close()

    def __enter__(self) -> Held:
        return self

    if TYPE_CHECKING:

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None: ...

    else:
        __exit__ = _Exit()

    def _leaving(self, before: BaseException | None) -> Callable[..., None]:
        """Returns a C function that ends the hold, so that no Ctrl-C can come before the end.

        The ``with`` statement looks it up at its start. The function closes the pair's writer,
        which ends the hold, and then its reader, which is Python code and raises if the hold was
        over before.
        """
        leaving = _Leaving(self._grip, before)
        pair: Any = io.BufferedRWPair(cast("Any", leaving), cast("Any", self._grip.raw), 1)
        return cast("Callable[..., None]", pair.__exit__)


def _yes() -> bool:
    return True


def _leave_stack(
    held: Any,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    """Ends a hold that `contextlib.ExitStack` has entered."""
    held._leaving(None if error is not None else sys.exception())(kind, error, traceback)


class _Leaving:
    """The reader of the pair that ends a hold; see `Held._leaving`."""

    def __init__(self, grip: Grip, before: BaseException | None) -> None:
        self.closed = False
        self._grip = grip
        self._before = before

    readable = staticmethod(_yes)

    def flush(self) -> None:
        """Does nothing; the pair's end requires the method."""

    def close(self) -> None:
        """Closes the socket, after the hold has ended."""
        self.closed = True
        self._grip.leave(self._before)


def hold_is_over(pid: int) -> NotStoppedError:
    """Returns the error of a hold that ended without the tool."""
    return NotStoppedError(
        f"the hold on process {pid} is over, and the process ran on: its longest time was over, "
        "or the tracer ended",
        pid=pid,
        hint=Hint("longest_hold"),
    )
