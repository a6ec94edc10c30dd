"""`Hold`: all tasks of one process, stopped and let go by one thread.

What a task can be, and what each event makes of it (``docs/tracer.md`` has it as a table):

=========  ==========================================================
`SEIZED`   ours, asked to stop, and the stop has not come yet
`HELD`     in a ptrace-stop, a group-stop too
`DEAD`     a leader that ended before its threads: it can not be traced
=========  ==========================================================

A task that ends is reaped and forgotten at once: only its tracer can do so,
and an exec or the exit of the process waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from procvm.errors import (
    AlreadyTracedError,
    ProcessExitedError,
    StopTimeoutError,
)
from procvm.linux import procfs
from procvm.linux.access import denial, open_error
from procvm.tracer import requests
from procvm.tracer.requests import EVENT_EXEC, EVENT_STOP, Event, Gone

__all__ = ["Hold", "TaskState"]

_SPINS = 200
_NAP = 50e-6
_LONGEST_NAP = 1e-3
_SEIZE_TRIES = 50
_AFTER_EVENT = 5.0
_STEP_TIME = 0.02


class TaskState(Enum):
    """What is known of a task."""

    SEIZED = auto()
    HELD = auto()
    DEAD = auto()


class Hold:
    """The tasks of process `pid`; every method is called by the same thread.

    Attributes:
        pid: The process.
        tasks: Its tasks by tid, while they are seized.
        execed: Whether an exec replaced the program while it was held.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.tasks: dict[int, TaskState] = {}
        self.execed = False
        self._pidfd = pidfd
        self._tries: dict[int, int] = {}
        # Signals that `cont` stopped at, to be delivered as the task goes on.
        self._signals: dict[int, int] = {}
        self._group_stopped: set[int] = set()
        # A leader that ended while it was seized stays so until this thread ends.
        self._zombie_is_ours = False

    def stop(self, deadline: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Stops every task, also those born meanwhile.

        Args:
            deadline: When to give up, on the clock of time.monotonic.
            given_up: Whether the tool does not wait any more.

        Raises:
            ProcessExitedError: It has ended.
            AlreadyTracedError: Somebody else traces it.
            AccessDeniedError: It may not be traced.
            StopTimeoutError: Some task did not stop; all have to be let go.
        """
        self.execed = False
        self._tries.clear()
        spins, nap = 0, _NAP
        # The others are listed only if the kernel counts any.
        self._seize(self.pid)
        while True:
            self.collect()
            if self._all_stopped():
                count = self._nr_tasks()
                if count == len(self.tasks) and count and self._leader_is_the_same():
                    if self.is_held:
                        return
                    self.require_alive()
                if spins % 64 == 63:
                    self._look_again()
                self._seize_new()
            elif spins % 64 == 63:
                # A task that was born unseen may be what the others wait for, and one
                # that we know may have gone without a word.
                self._look_again()
                self._seize_new()
            spins += 1
            if spins <= _SPINS:
                os.sched_yield()  # on one processor the target can not stop before we let it
            else:
                if time.monotonic() > deadline or given_up():
                    raise self._timeout()
                time.sleep(nap)
                nap = min(nap * 2, _LONGEST_NAP)

    def _leader_is_the_same(self) -> bool:
        """Returns whether the leader that we know is the one there is; see `_look_again`."""
        state = self.tasks.get(self.pid)
        if state is TaskState.HELD and not requests.is_stopped(self.pid):
            self._look_again()
            return False
        if state is TaskState.DEAD:
            status = procfs.read_status(f"{self.pid}/task/{self.pid}")
            if status is None or status.state not in "ZX":
                del self.tasks[self.pid]
                return False
        return True

    def _look_again(self) -> None:
        """Finds the tasks that will not announce themselves.

        An exec by another thread replaces the leader silently, by a task that is
        not ours, also a leader that we held or saw ending; and a leader that ends
        before its threads is not reported.
        """
        for tid, state in self.tasks.items():
            if state is TaskState.HELD and not requests.is_stopped(tid):
                # Killed, and its end is still to be told; or not there any more.
                self.tasks[tid] = TaskState.SEIZED
        ours = threading.get_native_id()
        for tid in [tid for tid, state in self.tasks.items() if state is TaskState.SEIZED]:
            status = procfs.read_status(f"{self.pid}/task/{tid}")
            if status is None or status.tracer_pid != ours:
                del self.tasks[tid]
            elif status.state in "ZX" and tid == self.pid:
                self.tasks[tid] = TaskState.DEAD
                self._zombie_is_ours = True
            else:
                # An exec may have given this id to another task of ours.
                self._ask(tid)

    def _ask(self, tid: int) -> None:
        """Asks a task that is ours to stop, unless it did so unheard."""
        self.tasks[tid] = TaskState.SEIZED
        if requests.has_event(tid):
            return
        if requests.is_stopped(tid):
            self.tasks[tid] = TaskState.HELD
            return
        with contextlib.suppress(Gone):
            requests.interrupt(tid)

    def stop_at_exec(self, go_fd: int, deadline: float) -> None:
        """Seizes the one task of a new process, lets it go on to its exec, and holds it there.

        Args:
            go_fd: What the process waits for a byte from.
            deadline: When to give up, on the clock of time.monotonic.

        Raises:
            ProcessExitedError: It ended without an exec.
            AccessDeniedError: It may not be traced.
            StopTimeoutError: No exec came in time.
        """
        try:
            requests.seize(self.pid)
        except Gone:
            raise ProcessExitedError(f"process {self.pid} has ended", pid=self.pid) from None
        except OSError as error:
            raise denial(self.pid) or open_error(self.pid, error) from None
        self.tasks[self.pid] = TaskState.SEIZED
        os.write(go_fd, b"!")
        self.execed = False
        while not self.execed:
            event = requests.wait_any()
            if event is None:
                if time.monotonic() > deadline:
                    raise self._timeout()
                time.sleep(_NAP)
                continue
            if event.exited or event.event == EVENT_EXEC:
                self._take(event)
            else:
                # Whatever comes before the exec goes on as if nobody looked.
                if event.event:
                    event.consume()
                with contextlib.suppress(Gone):
                    requests.cont(event.tid, 0 if event.event else event.signo)
            if not self.tasks:
                raise ProcessExitedError(f"process {self.pid} ended before its exec", pid=self.pid)
        # It stopped within the system call: a step ends that, and no instruction has run yet.
        self.step(self.pid, deadline, lambda: False)

    @property
    def is_held(self) -> bool:
        """Whether there is a task that is stopped: an ended leader alone is none."""
        return TaskState.HELD in self.tasks.values()

    def _timeout(self) -> StopTimeoutError:
        late = [tid for tid, state in self.tasks.items() if state is TaskState.SEIZED]
        return StopTimeoutError(
            f"process {self.pid} did not stop in time: {len(late)} of its {len(self.tasks)} tasks "
            f"run on or sleep uninterruptibly (tid {late[0] if late else self.pid}); all of them "
            "were let go",
            pid=self.pid,
        )

    def _all_stopped(self) -> bool:
        return TaskState.SEIZED not in self.tasks.values()

    def _nr_tasks(self) -> int:
        """Returns how many tasks the kernel counts: a listing may end early, the count does not."""
        try:
            return os.stat(f"/proc/{self.pid}/task").st_nlink - 2
        except OSError:
            # Gone for a moment during an exec by a thread; or for good.
            self.require_alive()
            return -1

    def require_alive(self) -> None:
        """Raises ProcessExitedError if the process has ended."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if poll.poll(0):
            raise ProcessExitedError(f"process {self.pid} has ended", pid=self.pid)

    def _seize_new(self) -> None:
        try:
            names = os.listdir(f"/proc/{self.pid}/task")
        except OSError:
            self.require_alive()
            return
        for name in names:
            tid = int(name)
            if tid not in self.tasks:
                self._seize(tid)

    def _seize(self, tid: int) -> None:
        try:
            requests.seize(tid)
            self.tasks[tid] = TaskState.SEIZED
            requests.interrupt(tid)
        except Gone:
            return
        except OSError as error:
            self._refused(tid, error)

    def _refused(self, tid: int, error: OSError) -> None:
        """Finds out why a task can not be seized, or leaves it for another try."""
        if error.errno != errno.EPERM:
            raise open_error(self.pid, error) from None
        status = procfs.read_status(f"{self.pid}/task/{tid}")
        if status is None:
            return
        if status.state in "ZX":
            # A leader that ended stays until its threads have; others go soon.
            self.tasks[tid] = TaskState.DEAD
            if tid != self.pid:
                del self.tasks[tid]
            else:
                self.require_alive()
            return
        if status.tracer_pid == threading.get_native_id():
            # Born of a task of ours, and so ours from its first instruction; or what
            # was told of it was taken for what the leader that it replaced did.
            self._ask(tid)
            return
        if status.tracer_pid and os.path.exists(f"/proc/self/task/{status.tracer_pid}"):
            # Another thread of ours is about to let go of it.
            time.sleep(_NAP)
            return
        tries = self._tries[tid] = self._tries.get(tid, 0) + 1
        if status.tracer_pid and tries > 1:
            # The field has the id of the thread that traces; one that has ended just now lets go.
            tracer_pid = procfs.thread_leader(status.tracer_pid)
            if not tracer_pid and tries <= _SEIZE_TRIES:
                time.sleep(_NAP)
                return
            tracer_pid = tracer_pid or status.tracer_pid
            raise AlreadyTracedError(
                f"process {self.pid} is traced by process {tracer_pid} already; reading and "
                "writing still work, holding it does not until that one detaches",
                pid=self.pid,
                tracer_pid=tracer_pid,
            )
        if tries > _SEIZE_TRIES:
            # Not just the moment of a sibling's exec.
            raise denial(self.pid) or open_error(self.pid, error) from None
        time.sleep(_NAP)

    def collect(self) -> None:
        """Takes in everything that the tasks did."""
        while (event := requests.wait_any()) is not None:
            self._take(event)

    def _take(self, event: Event) -> None:
        tid = event.tid
        if event.exited:
            self.tasks.pop(tid, None)
            event.consume()
            return
        if event.event == 0:
            self._pass_signal(event)
            return
        event.consume()
        self._group_stopped.discard(tid)
        if event.event == EVENT_EXEC:
            # Every other task is gone, the one that called exec too: it is the leader now.
            self.tasks = {tid: TaskState.HELD}
            self._signals.clear()
            self.execed = True
        elif tid in self.tasks or self._is_task(tid):
            self.tasks[tid] = TaskState.HELD
            if event.event == EVENT_STOP and event.signo != signal.SIGTRAP:
                self._group_stopped.add(tid)
        elif event.event == EVENT_STOP:
            # A process that a task of ours made by clone(): not a task, not ours to hold.
            self._let_go(tid)

    def _pass_signal(self, event: Event) -> None:
        """Delivers a signal that came first; the task stops again before its handler's start.

        The event is not consumed: until the signal is passed on it stays where
        the kernel keeps it for the target, should we die.
        """
        self.tasks[event.tid] = TaskState.SEIZED
        try:
            requests.interrupt(event.tid)
            requests.cont(event.tid, event.signo)
        except Gone:
            pass  # its end is an event of its own

    def _is_task(self, tid: int) -> bool:
        return os.path.exists(f"/proc/{self.pid}/task/{tid}")

    def _let_go(self, tid: int) -> None:
        with contextlib.suppress(Gone, OSError):
            requests.detach(tid)

    def release(self) -> bool:
        """Lets every task go that is stopped; returns whether that was all of them.

        Those that did not stop are let go when the thread that traces them
        ends: the kernel then takes back the stop that is still to come.
        """
        whole = not self._zombie_is_ours
        for tid, state in self.tasks.items():
            if state is TaskState.HELD:
                try:
                    requests.detach(tid, self._signals.get(tid, 0))
                except (Gone, OSError):
                    whole = False  # dead, and to be reaped
            elif state is TaskState.SEIZED:
                whole = False
        self.tasks.clear()
        self._signals.clear()
        self._group_stopped.clear()
        return whole

    def step(self, tid: int, deadline: float, given_up: Callable[[], bool]) -> None:
        """Lets one held task run one instruction; the others stay held.

        Args:
            tid: The task.
            deadline: When to give up, on the clock of time.monotonic.
            given_up: Whether the tool does not wait any more.

        Raises:
            ProcessExitedError: The task ended by it.
            StopTimeoutError: The instruction did not complete in time (a system
                call that blocks); the task is held again.
        """
        self.tasks[tid] = TaskState.SEIZED
        late = False
        soon = min(time.monotonic() + _STEP_TIME, deadline)
        requests.step(tid, self._signals.pop(tid, 0))
        while self.tasks.get(tid) is TaskState.SEIZED:
            event = requests.wait_any()
            if event is None:
                # A step takes microseconds, and a stop that overtakes its trap leaves that pending.
                if not late and (time.monotonic() > (soon if given_up() else deadline)):
                    late = True
                    requests.interrupt(tid)
                time.sleep(_NAP)
            elif event.tid != tid or event.exited or event.event:
                self._take(event)
            elif event.signo == signal.SIGTRAP:
                event.consume()
                self.tasks[tid] = TaskState.HELD
            else:
                # It came before the instruction: the step is into its handler.
                requests.step(tid, event.signo)
        if tid not in self.tasks:
            raise ProcessExitedError(f"thread {tid} has ended", pid=self.pid)
        if late:
            raise StopTimeoutError(
                f"thread {tid} did not complete an instruction in time: it is in a system call "
                "that blocks; it is held again",
                pid=self.pid,
            )

    def cont(self, deadline: float | None, given_up: Callable[[], bool]) -> tuple[str, int, int]:
        """Lets every task run on, traced, until something happens; then holds them all again.

        Args:
            deadline: When to give up, on the clock of time.monotonic; None for never.
            given_up: Whether the tool does not wait any more.

        Returns:
            What happened, to which task, with which signal: ("signal", tid,
            signo) about to be delivered, ("stop", tid, signo) of the group,
            ("exec", pid, 0), or ("timeout", pid, 0).

        Raises:
            ProcessExitedError: The process ended.
        """
        for tid, state in self.tasks.items():
            if state is TaskState.HELD:
                self._run_on(tid)
        nap = _NAP
        found: tuple[str, int, int] | None = None
        while found is None:
            event = requests.wait_any()
            if event is not None:
                nap = _NAP
                found = self._happened(event)
            elif (deadline is not None and time.monotonic() > deadline) or given_up():
                found = ("timeout", self.pid, 0)
            else:
                time.sleep(nap)
                nap = min(nap * 2, _LONGEST_NAP)
        for tid, state in self.tasks.items():
            if state is TaskState.SEIZED:
                with contextlib.suppress(Gone):
                    requests.interrupt(tid)
        self.stop(time.monotonic() + _AFTER_EVENT)
        return found

    def _run_on(self, tid: int) -> None:
        self.tasks[tid] = TaskState.SEIZED
        with contextlib.suppress(Gone):
            if tid in self._group_stopped:
                requests.listen(tid)
            else:
                requests.cont(tid, self._signals.pop(tid, 0))

    def _happened(self, event: Event) -> tuple[str, int, int] | None:
        """Takes in an event of a running target; returns it if it is one to stop at."""
        tid = event.tid
        if event.event == 0 and not event.exited:
            # Taken off the queue: should the tracer be killed now, the signal is lost.
            event.consume()
            self.tasks[tid] = TaskState.HELD
            self._signals[tid] = event.signo
            return "signal", tid, event.signo
        self._take(event)
        if not self.tasks:
            raise ProcessExitedError(f"process {self.pid} has ended", pid=self.pid)
        if event.exited:
            return None
        if event.event == EVENT_EXEC:
            return "exec", tid, 0
        if tid in self._group_stopped:
            return "stop", tid, event.signo
        if self.tasks.get(tid) is TaskState.HELD:
            self._run_on(tid)
        return None
