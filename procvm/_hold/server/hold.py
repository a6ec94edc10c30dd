"""`Hold`: stops all tasks of one process, and lets them go."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from procvm._hold.server import requests
from procvm._hold.server.proof import Proof
from procvm._hold.server.requests import EVENT_EXEC, Gone
from procvm._hold.server.seizing import NAP, Seizer
from procvm._hold.server.tasks import Tasks, TaskState
from procvm._hold.server.yields import Yields
from procvm.errors import ProcessExitedError, StopTimeoutError

__all__ = ["LONGEST_NAP", "Hold"]

_YIELDS = 200
LONGEST_NAP = 1e-3
_LOOK_EVERY = 64


class Hold(Tasks):
    """The tasks of one process, which one thread stops and lets go."""

    def __init__(self, proof: Proof) -> None:
        super().__init__(proof)
        self._seizer = Seizer(self)

    # Stopping

    def stop(self, deadline: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Stops every task, also those created meanwhile.

        Args:
            deadline: When to give up, on the clock of time.monotonic.
            given_up: Returns whether the tool has stopped waiting.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program than the one that was opened.
            AlreadyTracedError: Another process traces it.
            AccessDeniedError: The kernel refuses to trace it.
            StopTimeoutError: A task did not stop; the caller has to let all of them go.
        """
        self.execed = False
        self.ended.clear()
        self.queue.clear()
        self._seizer.begin()
        self._seizer.seize_task(self.pid)
        self.settle(deadline, given_up)
        # Without this second proof, an exec before the seize of its thread would go unseen.
        self.proof.require_program()

    def settle(self, deadline: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Waits until every task is stopped, and seizes those that are not seized yet.

        Raises:
            ProcessExitedError: As `stop`, and so are the other errors.
        """
        looks, nap = 0, NAP
        # On one processor the target cannot stop before we yield.
        yields = Yields(_YIELDS)
        while True:
            self.collect()
            look_again = looks % _LOOK_EVERY == _LOOK_EVERY - 1
            all_stopped = TaskState.SEIZED not in self.states.values()
            if all_stopped and self._none_is_missing():
                return
            if look_again:
                # An unseen new task may be what the others wait for, and a known one may have
                # gone without an event.
                self._seizer.look_again()
            if all_stopped or look_again:
                self._seizer.seize_new()
            looks += 1
            if not yields.again():
                if time.monotonic() > deadline or given_up():
                    raise self._timeout()
                time.sleep(nap)
                nap = min(nap * 2, LONGEST_NAP)

    def _none_is_missing(self) -> bool:
        """Returns whether the stopped tasks are all tasks of the process.

        Raises:
            ProcessExitedError: The process has ended.
        """
        count = self._nr_tasks()
        if count != len(self.states) or not count or not self._seizer.leader_is_the_same():
            return False
        if not self.is_held:
            self.proof.require_process()
        return self.is_held

    def _nr_tasks(self) -> int:
        """Returns the kernel's count of tasks: unlike a listing, it never ends early."""
        try:
            return os.stat(f"/proc/{self.pid}/task").st_nlink - 2
        except OSError:
            # Absent for a moment while a thread execs; or for good.
            self.proof.require_process()
            return -1

    def settle_births(self, deadline: float) -> None:
        """Stops the threads that a task created as it moved; see `settle`."""
        if self._nr_tasks() != len(self.states):
            self.settle(deadline)

    def _timeout(self) -> StopTimeoutError:
        late = self.in_state(TaskState.SEIZED)
        return StopTimeoutError(
            f"process {self.pid} did not stop in time: {len(late)} of its {len(self.states)} tasks "
            f"run on or sleep uninterruptibly (tid {late[0] if late else self.pid}); all of them "
            "were let go",
            pid=self.pid,
        )

    def stop_at_exec(self, go_fd: int, deadline: float, given_up: Callable[[], bool]) -> None:
        """Seizes the one task of a new process, lets it run to its exec, and holds it there.

        Args:
            go_fd: The descriptor from which the process reads a byte before its exec.
            deadline: When to give up, on the clock of time.monotonic.
            given_up: Returns whether the tool has stopped waiting.

        Raises:
            ProcessExitedError: It ended without an exec.
            AccessDeniedError: The kernel refuses to trace it.
            StopTimeoutError: No exec came in time.
        """
        self._seizer.seize_child()
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
                # An event before the exec is passed on, as if the process were not traced.
                if event.event:
                    event.consume()
                with contextlib.suppress(Gone):
                    requests.cont(event.tid, 0 if event.event else event.signo)
            if not self.states:
                raise ProcessExitedError(f"process {self.pid} ended before its exec", pid=self.pid)

    # Letting go

    def release(self) -> bool:
        """Detaches every stopped task; returns whether no other task was left.

        The kernel detaches a task that did not stop when the tracing thread ends, and takes
        back the stop that is still to come.
        """
        self.stepper.close()
        self.points.disarm()
        whole = not (self._seizer.zombie_is_ours or self.strays)
        for tid, state in self.states.items():
            if state is TaskState.HELD:
                pending = self.signals.get(tid)
                try:
                    requests.detach(tid, pending.deliver if pending else 0)
                except (Gone, OSError):
                    whole = False  # dead, and still to be reaped
            elif state is TaskState.SEIZED:
                whole = False
        self.clear()
        return whole
