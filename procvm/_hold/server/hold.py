"""`Hold`: all tasks of one process, stopped and let go by one thread.

What a task can be, and what each event makes of it (``docs/tracer.md`` has it as a table):

=========  ==========================================================
`SEIZED`   ours, asked to stop, and the stop has not come yet
`HELD`     in a ptrace-stop, also a group-stop or a signal-delivery-stop
`DEAD`     a leader that ended before its threads: it cannot be traced
=========  ==========================================================

A task that ends is reaped and forgotten at once: only its tracer can do so,
and an exec or the exit of the process waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from procvm._hold.server import requests
from procvm._hold.server.proof import Proof
from procvm._hold.server.requests import EVENT_CLONE, EVENT_EXEC, EVENT_STOP, Gone, WaitEvent
from procvm._hold.server.stepping import Stepper
from procvm._linux import procfs
from procvm._linux.access import denial, open_error
from procvm.errors import (
    AlreadyTracedError,
    ProcessExitedError,
    StopTimeoutError,
)

__all__ = ["LONGEST_NAP", "NAP", "Hold", "Pending", "TaskState"]

_SPINS = 200
NAP = 50e-6
LONGEST_NAP = 1e-3
_SEIZE_TRIES = 50
_LOOK_EVERY = 64


class TaskState(Enum):
    """What is known of a task."""

    SEIZED = auto()
    HELD = auto()
    DEAD = auto()


class Pending:
    """An event of a held target.

    Attributes:
        number: A number that no other event of this tracer has.
        kind: "signal" (the task is in a signal-delivery-stop), "stop" (a group-stop
            of the process) or "exec".
        tid: The task it happened to.
        signo: The signal; 0 for an exec.
        deliver: The signal that the task takes as it goes on; 0 for none.
        raw: The signal's siginfo_t; empty if it has none.
    """

    _numbers = itertools.count(1)

    def __init__(self, kind: str, tid: int, signo: int, raw: bytes = b"") -> None:
        self.number = next(self._numbers)
        self.kind = kind
        self.tid = tid
        self.signo = signo
        self.deliver = signo
        self.raw = raw

    @property
    def fields(self) -> tuple[int, str, int, int, bytes]:
        """What the tool is told."""
        return self.number, self.kind, self.tid, self.signo, self.raw


class Hold:
    """The tasks of one process; every method is called by the same thread.

    A task that is about to take a signal is left in its signal-delivery-stop, and the
    event is not consumed: if the tracer is killed, the kernel delivers the signal.

    Attributes:
        pid: The process.
        proof: What proves that a seized task is the process's.
        tasks: Its tasks by tid, while they are seized.
        ended: Tasks that ended while they were seized.
        signals: The signal that each task in a signal-delivery-stop is about to take.
        queue: Events that were not told yet, in the order they came.
        telling: Whether a group-stop and an exec are events to be told, as in `cont`.
        execed: Whether an exec replaced the program while it was held.
        stepper: Makes the steps of its tasks.
    """

    def __init__(self, proof: Proof) -> None:
        self.pid = proof.pid
        self.proof = proof
        self.tasks: dict[int, TaskState] = {}
        self.ended: set[int] = set()
        self.signals: dict[int, Pending] = {}
        self.queue: list[Pending] = []
        self.telling = False
        self.execed = False
        self._tries: dict[int, int] = {}
        self._group_stopped: set[int] = set()
        self._group_told = False
        # Tasks that the kernel made ours and that are not of the process.
        self._strays: set[int] = set()
        # A leader that ended while it was seized stays so until this thread ends.
        self._zombie_is_ours = False
        self.stepper = Stepper(self._read)

    def _read(self, address: int, n: int) -> bytes:
        """Reads the program's memory, protections ignored; what cannot be read is left out."""
        program = self.proof.program
        if program is None:
            return b""
        try:
            return os.pread(program.mem.number, n, address)
        except (OSError, OverflowError):
            return b""

    # Stopping

    def stop(self, deadline: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Stops every task, also those born meanwhile.

        Args:
            deadline: When to give up, on the clock of time.monotonic.
            given_up: Whether the tool does not wait any more.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program than the one that was opened.
            AlreadyTracedError: Another process traces it.
            AccessDeniedError: It may not be traced.
            StopTimeoutError: Some task did not stop; all have to be let go.
        """
        self.execed = False
        self.ended.clear()
        self.queue.clear()
        self._tries.clear()
        self._seize(self.pid)
        self.settle(deadline, given_up)
        # Again, now that no task can exec any more: one may have done so before it was seized.
        self.proof.require_program()

    def settle(self, deadline: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Waits until every task is stopped, and stops those that are not seized yet.

        Raises:
            ProcessExitedError: As `stop`, and so are the others.
        """
        spins, nap = 0, NAP
        while True:
            self.collect()
            if self._all_stopped():
                # The others are listed only if the kernel counts any.
                count = self._nr_tasks()
                if count == len(self.tasks) and count and self._leader_is_the_same():
                    if self.is_held:
                        return
                    self.proof.require_process()
                if spins % _LOOK_EVERY == _LOOK_EVERY - 1:
                    self._look_again()
                self._seize_new()
            elif spins % _LOOK_EVERY == _LOOK_EVERY - 1:
                # A task that was born unseen may be what the others wait for, and one
                # that we know may have gone without a word.
                self._look_again()
                self._seize_new()
            spins += 1
            if spins <= _SPINS:
                os.sched_yield()  # on one processor the target cannot stop before we let it
            else:
                if time.monotonic() > deadline or given_up():
                    raise self._timeout()
                time.sleep(nap)
                nap = min(nap * 2, LONGEST_NAP)

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
                # Killed, with its end not told yet, or already gone.
                self._running(tid)
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

    def _running(self, tid: int) -> None:
        self.tasks[tid] = TaskState.SEIZED
        self.signals.pop(tid, None)

    def _ask(self, tid: int) -> None:
        """Asks a task that is ours to stop, unless it did so unheard."""
        self._running(tid)
        if requests.wait_for(tid) is not None:
            return
        if requests.is_stopped(tid):
            self.tasks[tid] = TaskState.HELD
            return
        with contextlib.suppress(Gone):
            requests.interrupt(tid)

    def stop_at_exec(self, go_fd: int, deadline: float, given_up: Callable[[], bool]) -> None:
        """Seizes the one task of a new process, lets it go on to its exec, and holds it there.

        Args:
            go_fd: The descriptor that the process waits for a byte from.
            deadline: When to give up, on the clock of time.monotonic.
            given_up: Whether the tool does not wait any more.

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
        self.proof.require_process()
        os.write(go_fd, b"!")
        self.execed = False
        while not self.execed:
            event = requests.wait_any()
            if event is None:
                if time.monotonic() > deadline or given_up():
                    raise self._timeout()
                time.sleep(NAP)
                continue
            if event.exited or event.event == EVENT_EXEC:
                self.take(event)
            else:
                # Whatever comes before the exec goes on as if nobody looked.
                if event.event:
                    event.consume()
                with contextlib.suppress(Gone):
                    requests.cont(event.tid, 0 if event.event else event.signo)
            if not self.tasks:
                raise ProcessExitedError(f"process {self.pid} ended before its exec", pid=self.pid)

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

    def settle_births(self, deadline: float) -> None:
        """Stops the threads that a task made as it moved; see `settle`."""
        if self._nr_tasks() != len(self.tasks):
            self.settle(deadline)

    def _nr_tasks(self) -> int:
        """Returns how many tasks the kernel counts: a listing may end early, the count does not."""
        try:
            return os.stat(f"/proc/{self.pid}/task").st_nlink - 2
        except OSError:
            # Gone for a moment during an exec by a thread; or for good.
            self.proof.require_process()
            return -1

    # Seizing

    def _seize_new(self) -> None:
        try:
            names = os.listdir(f"/proc/{self.pid}/task")
        except OSError:
            self.proof.require_process()
            return
        for name in names:
            tid = int(name)
            if tid not in self.tasks:
                self._seize(tid)

    def _seize(self, tid: int) -> None:
        """Seizes a task, and asks it to stop once it is proved to be the process's.

        A seized task loses its number only by an exec of its own, since nobody but its tracer
        can reap it. One that turns out to be another process's runs on untouched: the kernel
        lets go of it as this thread ends.
        """
        try:
            requests.seize(tid)
        except Gone:
            return
        except OSError as error:
            self._refused(tid, error)
            return
        self.tasks[tid] = TaskState.SEIZED
        self.proof.require_process()
        if not self.proof.has_task(tid):
            # By an exec it has become the leader; or it never was of the process.
            del self.tasks[tid]
            status = procfs.read_status(tid)
            if (
                status is None
                or status.tgid == self.pid
                or status.tracer_pid != threading.get_native_id()
            ):
                return
            raise StopTimeoutError(
                f"process {self.pid} did not stop in time: thread {tid} ended and its number was "
                "given to another process, which was let go untouched; try again",
                pid=self.pid,
            )
        if tid == self.pid:
            self.proof.require_program()
        with contextlib.suppress(Gone):
            requests.interrupt(tid)

    def _refused(self, tid: int, error: OSError) -> None:
        """Finds out why a task cannot be seized, or leaves it for another try."""
        if error.errno != errno.EPERM:
            raise open_error(self.pid, error) from None
        # What is found by the number is said of the process only while that has the number.
        self.proof.require_process()
        status = procfs.read_status(f"{self.pid}/task/{tid}")
        if status is None:
            return
        if status.state in "ZX":
            # A leader that ended stays until its threads have; others go soon.
            self.tasks[tid] = TaskState.DEAD
            if tid != self.pid:
                del self.tasks[tid]
            else:
                self.proof.require_process()
            return
        if status.tracer_pid == threading.get_native_id():
            # Born of a task of ours, and so ours from its first instruction; or what
            # was told of it was taken for what the leader that it replaced did.
            self._ask(tid)
            return
        if status.tracer_pid and os.path.exists(f"/proc/self/task/{status.tracer_pid}"):
            # Another thread of ours is about to let go of it.
            time.sleep(NAP)
            return
        tries = self._tries[tid] = self._tries.get(tid, 0) + 1
        if status.tracer_pid and tries > 1:
            # The field has the id of the thread that traces; one that has ended just now lets go.
            tracer_pid = procfs.thread_leader(status.tracer_pid)
            if not tracer_pid and tries <= _SEIZE_TRIES:
                time.sleep(NAP)
                return
            tracer_pid = tracer_pid or status.tracer_pid
            self.proof.require_process()
            raise AlreadyTracedError(
                f"process {self.pid} is traced by process {tracer_pid} already; reading and "
                "writing still work, holding it does not until that one detaches",
                pid=self.pid,
                tracer_pid=tracer_pid,
            )
        if tries > _SEIZE_TRIES:
            # Not just the moment of a sibling's exec.
            found = denial(self.pid) or open_error(self.pid, error)
            self.proof.require_process()
            raise found from None
        time.sleep(NAP)

    # Events

    def collect(self) -> None:
        """Takes in everything that the tasks did."""
        while (event := requests.wait_any()) is not None:
            if not self._is_known(event):
                self.take(event)
            elif not self._collect_each():
                return

    def _collect_each(self) -> bool:
        """Takes in an event of each task that is to stop; returns whether there was any.

        A signal-delivery-stop that is not consumed hides the events of other tasks from a wait
        for any.
        """
        waited = [tid for tid, state in self.tasks.items() if state is TaskState.SEIZED]
        found = False
        for tid in (*waited, *self._strays):
            event = requests.wait_for(tid)
            if event is not None and not self._is_known(event):
                self.take(event)
                found = True
        return found

    def collect_ends(self, moving: int = 0) -> None:
        """Takes in the ends of tasks: nothing else can happen to those that are held.

        A signal-delivery-stop hides the ends of other tasks for a moment only: a held task ends
        with all of its process, and then the one in that stop ends as well.

        Args:
            moving: A task that is not held, whose events are left alone; 0 for none.
        """
        while (event := requests.wait_any()) is not None:
            if event.tid == moving or self._is_known(event):
                return
            self.take(event)

    def _is_known(self, event: WaitEvent) -> bool:
        return not event.exited and event.tid in self.signals

    def take(self, event: WaitEvent) -> None:
        """Takes in an event: the task is ended, or held."""
        tid = event.tid
        if event.exited:
            event.consume()
            self._strays.discard(tid)
            self.signals.pop(tid, None)
            self._group_stopped.discard(tid)
            if self.tasks.pop(tid, None) is not None:
                self.ended.add(tid)
        elif tid not in self.tasks and not self.proof.has_task(tid):
            # A process that a task of ours made by clone(), which is not ours to hold.
            self._strays.discard(tid)
            self._let_go(event)
        elif event.event == 0:
            info = requests.siginfo(tid)
            if self.stepper.is_ours(tid, info):
                # The signal of a step that another one had overtaken: it stops again without.
                self.tasks[tid] = TaskState.SEIZED
                requests.interrupt(tid)
                requests.cont(tid, 0)
                return
            pending = Pending("signal", tid, event.signo, info.raw if info else b"")
            self.tasks[tid] = TaskState.HELD
            self.signals[tid] = pending
            self.queue.append(pending)
        else:
            event.consume()
            self.take_stop(event)

    def take_stop(self, event: WaitEvent) -> None:
        """Takes in a stop by an event, which was consumed: the task is held."""
        tid = event.tid
        self.tasks[tid] = TaskState.HELD
        was_group_stopped = tid in self._group_stopped
        self._group_stopped.discard(tid)
        if event.event == EVENT_EXEC:
            # Every other task is gone, also the one that called exec: it is the leader now.
            self.tasks = {tid: TaskState.HELD}
            self.signals.clear()
            self._group_stopped.clear()
            self.execed = True
            if self.telling:
                self.queue.append(Pending("exec", tid, 0))
        elif event.event == EVENT_CLONE:
            with contextlib.suppress(Gone, OSError):
                born = requests.event_message(tid)
                if born not in self.tasks and not self.proof.has_task(born):
                    self._strays.add(born)
        elif event.event == EVENT_STOP and event.signo != signal.SIGTRAP:
            self._group_stopped.add(tid)
            if self.telling and not self._group_told:
                self.queue.append(Pending("stop", tid, event.signo))
            self._group_told = True
        elif was_group_stopped:
            self._group_told = False  # SIGCONT ended it

    def _let_go(self, event: WaitEvent) -> None:
        with contextlib.suppress(Gone, OSError):
            requests.detach(event.tid, 0 if event.event else event.signo)

    # Going on

    def run_on(self, tid: int) -> None:
        """Lets a held task run, traced; it takes the signal that it was about to take."""
        pending = self.signals.pop(tid, None)
        self.tasks[tid] = TaskState.SEIZED
        with contextlib.suppress(Gone):
            if tid in self._group_stopped:
                # CONT would end the group-stop, which only SIGCONT may do.
                requests.listen(tid)
            else:
                requests.cont(tid, pending.deliver if pending else 0)

    def interrupt_running(self) -> None:
        """Asks every task that runs to stop."""
        for tid, state in self.tasks.items():
            if state is TaskState.SEIZED:
                with contextlib.suppress(Gone):
                    requests.interrupt(tid)

    def release(self) -> bool:
        """Lets every task go that is stopped; returns whether that was all of them.

        Those that did not stop are let go when the thread that traces them
        ends: the kernel then takes back the stop that is still to come.
        """
        self.stepper.close()
        whole = not (self._zombie_is_ours or self._strays)
        for tid, state in self.tasks.items():
            if state is TaskState.HELD:
                pending = self.signals.get(tid)
                try:
                    requests.detach(tid, pending.deliver if pending else 0)
                except (Gone, OSError):
                    whole = False  # dead, and to be reaped
            elif state is TaskState.SEIZED:
                whole = False
        self.tasks.clear()
        self.signals.clear()
        self.queue.clear()
        self._strays.clear()
        self._group_stopped.clear()
        self._group_told = False
        return whole
