"""`Lease`: how long one target stays held, and the thread that ends the hold in time.

A hold lasts while the tool wants it: until every `stop` has had its `resume`, and every socket
of a ``with stopped()`` is closed. `Lease.look_after`, which the worker calls every 10 ms, ends
it earlier when its longest time is over or the target has died.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import select
import threading
import time
from collections.abc import Callable, Generator

from procvm._hold.server.hold import Hold
from procvm._hold.server.proof import Proof
from procvm._hold.server.protocol import Flags
from procvm._hold.server.requests import Gone
from procvm.errors import AlreadyTracedError, Hint, NoSuchProcessError, NotStoppedError

__all__ = ["Lease", "deadline_of"]

_BUSY_WAIT = 0.05
"""Seconds that an expired hold waits for an atomic of the tool that relies on it."""

_holds = itertools.count(1)
_MOST_HOLDS = 1 << 30
_locks: dict[int, threading.Lock] = {}
_locks_lock = threading.Lock()


def _lock_of(pid: int) -> threading.Lock:
    with _locks_lock:
        return _locks.setdefault(pid, threading.Lock())


def deadline_of(timeout: float | None) -> float:
    """Returns the time of time.monotonic at which `timeout` seconds are over."""
    return math.inf if timeout is None else time.monotonic() + timeout


class Lease:
    """The hold of one target, and the requests of the tool that keep it.

    Attributes:
        pid: The process.
        proof: Proves that a task belongs to the process.
        hold: The tasks.
        thread_id: The thread that traces them.
        whole: Whether every task was let go. If not, the thread has to end: the kernel
            then detaches the rest.
        busy_since: When the stop that is under way began; None if none is.
        moving: Whether a step is under way, which must end before the tracer does.
        reaping: Held where a tid has to stay that of the task, and where the main thread reaps.
    """

    def __init__(
        self, proof: Proof, flags: Flags, readable: select.poll, given_up: Callable[[], bool]
    ) -> None:
        """Begins without a hold.

        Args:
            proof: Proves that a task belongs to the process.
            flags: The words that tell the tool whether the hold lasts.
            readable: Where the sockets of the ``with`` statements are registered.
            given_up: Returns whether the tool has stopped waiting.
        """
        self.pid = proof.pid
        self.proof = proof
        self.hold = Hold(proof)
        self.thread_id = 0
        self.whole = True
        self.busy_since: float | None = None
        self.moving = False
        self.reaping = threading.Lock()
        self._flags = flags
        self._readable = readable
        self.given_up = given_up
        self._explicit = 0  # stops without their resume
        self._contexts: set[int] = set()  # descriptors, each of a `with stopped()`
        self._expires = math.inf
        self._died = False
        self._number = 0
        self._lock = _lock_of(self.pid)
        self._locked = False

    @property
    def is_held(self) -> bool:
        """Whether the target is held."""
        return self._flags.held

    @property
    def is_wanted(self) -> bool:
        """Whether a `stop` or a ``with`` of the tool keeps the hold."""
        return bool(self._explicit or self._contexts)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to let go."""
        return not (self._flags.held or self.busy_since or self.moving)

    # Its begin

    def stop(self, fds: list[int], timeout: float | None, longest: float | None) -> int:
        """Stops the target if it runs, and counts one more request that keeps it held.

        Args:
            fds: The socket of a ``with stopped()``, which is taken; empty for a plain `stop`.
            timeout: Seconds that the stop may take; None for no limit.
            longest: Seconds that the hold may take; None for no limit.

        Returns:
            The number of the hold.
        """
        if self._flags.held:
            self.require_program()
        else:
            # A hold that has expired is over; the tool learns it from its `resume`.
            self._explicit = 0
            self.stop_all(timeout)
            self._begin(longest)
        if not fds:
            self._explicit += 1
        while fds:
            fd = fds.pop()
            self._readable.register(fd, select.POLLIN)
            self._contexts.add(fd)
        return self._number

    def stop_all(self, timeout: float | None) -> None:
        """Stops every task; `release` lets them go."""
        deadline = deadline_of(timeout)
        self._died = False
        with self._stopping(deadline):
            self.hold.stop(deadline, self.given_up)

    def stop_at_exec(self, go_fd: int, timeout: float | None, longest: float | None) -> None:
        """Holds a new process at its exec; see `Hold.stop_at_exec`."""
        deadline = deadline_of(timeout)
        with self._stopping(deadline):
            self.hold.stop_at_exec(go_fd, deadline, self.given_up)
        self._explicit = 1
        self._begin(longest)

    @contextlib.contextmanager
    def _stopping(self, deadline: float) -> Generator[None]:
        """Surrounds a stop: the main thread can rescue it, and a failed one is let go."""
        self._take_lock(deadline)
        self.busy_since = time.monotonic()
        try:
            yield
        except BaseException:
            self.release()
            self.whole = False
            raise
        finally:
            self.busy_since = None

    def _take_lock(self, deadline: float) -> None:
        """Waits until no other worker holds the same process: a task has one tracer."""
        while not (self._locked or self._lock.acquire(timeout=0.01)):
            if time.monotonic() > deadline or self.given_up():
                raise AlreadyTracedError(
                    f"process {self.pid} is held by another tracee object of this process",
                    pid=self.pid,
                    tracer_pid=os.getpid(),
                    hint=Hint("other_tracee"),
                )
        self._locked = True

    def _begin(self, longest: float | None) -> None:
        self._expires = deadline_of(longest)
        self._number = next(_holds) % _MOST_HOLDS + 1
        self._flags.begin(self._number, self.thread_id)

    # Its end

    def look_after(self) -> None:
        """Reaps tasks that died in the hold, and ends a hold that is over or took too long."""
        if not self._flags.held:
            return
        self.hold.collect_ends()
        if not self.hold.is_held:
            self._died = True
            self.let_go()
        elif not self.is_wanted:
            self.let_go()
        elif time.monotonic() >= self._expires:
            self._flags.expire()
            self.let_go()

    def resume(self) -> int:
        """Takes back one `stop`; returns how many are left.

        Raises:
            Gone: The target died in the hold.
            NotStoppedError: There is no `stop` to take back.
        """
        if not self._explicit:
            if self._died:
                raise Gone
            self.proof.require_process()
            raise NotStoppedError(
                f"process {self.pid} is not stopped: it never was, every stop has had its resume, "
                "or the longest time of the hold was over",
                pid=self.pid,
            )
        self._explicit -= 1
        if not self.is_wanted:
            self.let_go()
        return self._explicit

    def let_go(self) -> None:
        """Ends the hold; nothing keeps it any more."""
        self.drop_requests()
        self._end_reliance()
        self.release()

    def drop_requests(self) -> None:
        """Forgets every request that keeps the hold."""
        self._explicit = 0
        self.end_contexts(set(self._contexts))

    def end_contexts(self, fds: set[int]) -> None:
        """Closes the sockets of ``with`` statements; ignores other descriptors."""
        for fd in self._contexts & fds:
            self._readable.unregister(fd)
            os.close(fd)
        self._contexts -= fds

    def _end_reliance(self) -> None:
        """Tells the tool that the hold is over, and waits for an atomic that relies on it."""
        if self._flags.end():
            until = time.monotonic() + _BUSY_WAIT
            while self._flags.relied_on and time.monotonic() < until:
                time.sleep(0.0001)
            if self._flags.relied_on:
                self._flags.give_up_waiting(self._number)

    def release(self) -> None:
        """Lets every task go; the rest goes as this thread ends."""
        if not self.hold.release():
            self.whole = False
        else:
            self.unlock()

    def unlock(self) -> None:
        """Lets another worker hold the same process."""
        if self._locked:
            self._locked = False
            self._lock.release()

    @property
    def is_locked(self) -> bool:
        """Whether tasks are left that the kernel detaches as this thread ends."""
        return self._locked

    def begin_again(self) -> None:
        """Forgets the tasks that are left to the end of this thread; another one serves then."""
        self.whole = True
        self.hold = Hold(self.proof)

    # Within it

    @contextlib.contextmanager
    def moved(self) -> Generator[None]:
        """Surrounds a move of all tasks, in which the hold does not last; an error ends it.

        The time of the move does not count as time of the hold.
        """
        self._end_reliance()
        begun = time.monotonic()
        try:
            yield
        except BaseException:
            self.drop_requests()
            self.release()
            self.whole = False
            raise
        self._flags.begin(self._number, self.thread_id)
        self._expires += time.monotonic() - begun

    def require_hold(self) -> None:
        """Requires that the target is held now.

        Raises:
            Gone: It died in the hold.
            ProcessExitedError: It has ended.
            NotStoppedError: It runs.
        """
        if self._flags.held:
            # The target may have been killed since the last look.
            self.hold.collect_ends()
            if self.hold.is_held:
                return
            self._died = True
        if self._died:
            raise Gone
        self.proof.require_process()
        raise NotStoppedError(f"process {self.pid} is not stopped", pid=self.pid, hint=Hint("stop"))

    def require_program(self) -> None:
        """Requires that no exec replaced the opened program during the hold.

        Raises:
            ProcessExecedError: An exec did.
        """
        if self.hold.execed:
            raise self.proof.execed()

    def held_task(self, tid: int) -> int:
        """Returns `tid`, which is a held task of the opened program.

        Raises:
            Gone: The process has ended.
            NoSuchProcessError: The process has no such thread.
            NotStoppedError: As `require_hold`, and so are the other errors.
        """
        self.require_hold()
        self.require_program()
        if tid not in self.hold.states:
            if tid in self.hold.ended:
                # A held task ends only with its process.
                raise Gone
            self.proof.require_process()
            raise NoSuchProcessError(f"process {self.pid} has no thread {tid}", pid=tid)
        return tid
