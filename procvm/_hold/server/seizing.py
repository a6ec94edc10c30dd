"""Seizing: a task becomes traced here, and here alone.

Every task is seized by its number (`seize_task`) and asked to stop only after the proof that
the number still belongs to the process. A refusal is either a race that the next try decides,
or an error for the tool.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time

from procvm._hold.server import requests
from procvm._hold.server.requests import Gone
from procvm._hold.server.tasks import Tasks, TaskState
from procvm._linux import procfs
from procvm._linux.access import denial, open_error
from procvm._linux.own_means import require_own_means
from procvm.errors import (
    AccessDeniedError,
    AlreadyTracedError,
    Hint,
    ProcessExitedError,
    ProcvmError,
    StopTimeoutError,
)

__all__ = ["NAP", "Seizer"]

NAP = 50e-6
"""Seconds between two looks at a state that changes within microseconds."""

_SEIZE_TRIES = 50


class Seizer:
    """Seizes the tasks of one process, and counts the refusals of each.

    Attributes:
        zombie_is_ours: Whether a leader ended while it was seized. It stays traced until
            the tracing thread ends.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._tries: dict[int, int] = {}
        self.zombie_is_ours = False

    def begin(self) -> None:
        """Begins another stop: earlier refusals no longer count."""
        self._tries.clear()

    def seize_new(self) -> None:
        """Seizes each listed task that is not seized yet.

        Raises:
            ProcessExitedError: The process has ended.
            VmError: The tracer lacks descriptors or memory.
        """
        tasks = self._tasks
        folder = f"/proc/{tasks.pid}/task"
        try:
            names = os.listdir(folder)
        except OSError as error:
            require_own_means(error, folder)
            tasks.proof.require_process()
            return
        for name in names:
            tid = int(name)
            if tid not in tasks.states:
                self.seize_task(tid)

    def seize_task(self, tid: int) -> None:
        """Seizes a task, and asks it to stop once it is proved to belong to the process.

        A seized task loses its number only by an exec of its own: only its tracer can reap it.
        A task of another process runs on untouched: the kernel detaches it when this thread ends.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            AlreadyTracedError: Another process traces it.
            AccessDeniedError: The kernel refuses to trace it.
            StopTimeoutError: The number now belongs to another process.
        """
        tasks = self._tasks
        try:
            requests.seize(tid)
        except Gone:
            return
        except OSError as error:
            self._refused(tid, error)
            return
        tasks.states[tid] = TaskState.SEIZED
        tasks.proof.require_process()
        if not tasks.proof.has_task(tid):
            # Either an exec made the task the leader, or it never belonged to the process.
            del tasks.states[tid]
            status = procfs.read_status(tid)
            if (
                status is None
                or status.tgid == tasks.pid
                or status.tracer_pid != threading.get_native_id()
            ):
                return
            raise StopTimeoutError(
                f"process {tasks.pid} did not stop in time: thread {tid} ended and its number was "
                "given to another process, which was let go untouched; try again",
                pid=tasks.pid,
            )
        if tid == tasks.pid:
            tasks.proof.require_program()
        with contextlib.suppress(Gone):
            requests.interrupt(tid)

    def seize_child(self) -> None:
        """Seizes the one task of a new process, which waits for a byte before its exec.

        Raises:
            ProcessExitedError: The process has ended.
            AccessDeniedError: The kernel refuses to trace it.
        """
        tasks = self._tasks
        try:
            requests.seize(tasks.pid)
        except Gone:
            raise ProcessExitedError(f"process {tasks.pid} has ended", pid=tasks.pid) from None
        except OSError as error:
            raise _refusal(tasks.pid, error) from None
        tasks.states[tasks.pid] = TaskState.SEIZED
        tasks.proof.require_process()

    def look_again(self) -> None:
        """Finds the tasks whose changes the kernel does not report.

        An exec by another thread silently replaces the leader by a task that is not seized,
        also a leader that was held or has ended. The kernel does not report a leader that
        ends before its threads.
        """
        tasks = self._tasks
        for tid in tasks.in_state(TaskState.HELD):
            if not requests.is_stopped(tid):
                # Killed with its exit event pending, or already gone.
                tasks.mark_running(tid)
        ours = threading.get_native_id()
        for tid in tasks.in_state(TaskState.SEIZED):
            status = procfs.read_status(f"{tasks.pid}/task/{tid}")
            if status is None or status.tracer_pid != ours:
                del tasks.states[tid]
            elif status.state in "ZX" and tid == tasks.pid:
                tasks.states[tid] = TaskState.DEAD
                self.zombie_is_ours = True
            else:
                # An exec may have given this tid to another seized task.
                self._ask(tid)

    def leader_is_the_same(self) -> bool:
        """Returns whether the known leader is the present one; see `look_again`."""
        tasks = self._tasks
        state = tasks.states.get(tasks.pid)
        if state is TaskState.HELD and not requests.is_stopped(tasks.pid):
            self.look_again()
            return False
        if state is TaskState.DEAD:
            status = procfs.read_status(f"{tasks.pid}/task/{tasks.pid}")
            if status is None or status.state not in "ZX":
                del tasks.states[tasks.pid]
                return False
        return True

    def _ask(self, tid: int) -> None:
        """Asks a seized task to stop, unless it has stopped already."""
        self._tasks.mark_running(tid)
        if requests.wait_for(tid) is not None:
            return
        if requests.is_stopped(tid):
            self._tasks.states[tid] = TaskState.HELD
            return
        with contextlib.suppress(Gone):
            requests.interrupt(tid)

    def _refused(self, tid: int, error: OSError) -> None:
        """Raises the error of a refused seize, or leaves the task for another try."""
        tasks = self._tasks
        if error.errno != errno.EPERM:
            raise (_filtered(tasks.pid, error) or open_error(tasks.pid, error)) from None
        # /proc is read by number: its answer is about this process only while the pidfd lives.
        tasks.proof.require_process()
        status = procfs.read_status(f"{tasks.pid}/task/{tid}")
        if status is None:
            return
        if status.state in "ZX":
            # A leader that ended remains until its threads have ended; other tasks go at once.
            if tid == tasks.pid:
                tasks.states[tid] = TaskState.DEAD
                tasks.proof.require_process()
            return
        if status.tracer_pid == threading.get_native_id():
            # A seized task created it, so it was seized from its first instruction; or its event
            # was taken for one of the leader that it replaced.
            self._ask(tid)
            return
        if status.tracer_pid and os.path.exists(f"/proc/self/task/{status.tracer_pid}"):
            # Another thread of the tracer is about to detach it.
            time.sleep(NAP)
            return
        tries = self._tries[tid] = self._tries.get(tid, 0) + 1
        if status.tracer_pid and tries > 1:
            # TracerPid is the tid of the tracing thread. A thread that has just ended detaches.
            tracer_pid = procfs.thread_leader(status.tracer_pid)
            if not tracer_pid and tries <= _SEIZE_TRIES:
                time.sleep(NAP)
                return
            tracer_pid = tracer_pid or status.tracer_pid
            tasks.proof.require_process()
            raise AlreadyTracedError(
                f"process {tasks.pid} is traced by process {tracer_pid} already; reading and "
                "writing still work, holding it does not until that one detaches",
                pid=tasks.pid,
                tracer_pid=tracer_pid,
            )
        if tries > _SEIZE_TRIES:
            # The exec of a sibling, which also refuses a seize, is over by now.
            found = _refusal(tasks.pid, error)
            tasks.proof.require_process()
            raise found from None
        time.sleep(NAP)


def _refusal(pid: int, error: OSError) -> ProcvmError:
    """Returns the error for a seize that the kernel refuses, with the check that comes first."""
    return _filtered(pid, error) or denial(pid, holds=True) or open_error(pid, error)


def _filtered(pid: int, error: OSError) -> AccessDeniedError | None:
    """Returns the error for a seize that a seccomp filter refuses, with whatever errno."""
    if not _is_filtered():
        return None
    return AccessDeniedError(
        f"the tool's own seccomp filter refuses ptrace, so process {pid} cannot be held; allow "
        "ptrace in it (in a container, by the capability SYS_PTRACE)",
        pid=pid,
        hint=Hint("open"),
        errno=error.errno or errno.EPERM,
    )


def _is_filtered() -> bool:
    """Returns whether a seccomp filter of this process refuses ptrace.

    The kernel answers ESRCH to a request about a task that is not traced; a filter answers first.
    """
    ours = procfs.read_status("self")
    if ours is not None and not ours.seccomp:
        return False
    try:
        requests.interrupt(os.getpid())
    except Gone:
        return False
    except OSError:
        return True
    return False
