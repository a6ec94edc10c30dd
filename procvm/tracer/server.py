"""The tracer's threads: one that listens, and one for each tracee, which does all its ptrace.

ptrace obeys the thread that seized and no other, and what a thread traces is
let go by the kernel when it ends, with stops that are still to come taken back.
So a worker that could not stop everything hands its channel to a new thread and ends.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, ClassVar

from procvm.errors import (
    AlreadyTracedError,
    NoSuchProcessError,
    NotStoppedError,
    ProcessExitedError,
    ProcvmError,
)
from procvm.linux import procfs
from procvm.linux.fds import Fd
from procvm.linux.procmem import ProcMem
from procvm.own.buffers import Scratch
from procvm.process.atomic import Atomic, require_no_peer, under_hold
from procvm.process.image import Image
from procvm.process.memory import ProcessMemory
from procvm.tracer import protocol, requests
from procvm.tracer.hold import Hold
from procvm.tracer.protocol import Flags, Op
from procvm.tracer.requests import Gone
from procvm.tracer.robust import own_futex

__all__ = ["serve"]

_LOOK_MS = 10
"""How often a held target is looked after: a task that was killed is reaped by nobody else."""

_LOOK_AFTER_WORKERS_MS = 100
_STUCK = 0.1
_BUSY_WAIT = 0.05
_LAST_WORDS = 0.08

_holds = itertools.count(1)
_MOST_HOLDS = 1 << 30
_locks: dict[int, threading.Lock] = {}
_locks_lock = threading.Lock()


def _lock_of(pid: int) -> threading.Lock:
    with _locks_lock:
        return _locks.setdefault(pid, threading.Lock())


class Worker:
    """One tracee: its channel, its holds, and the thread that traces it."""

    def __init__(self, pid: int, channel: socket.socket, pidfd: int, flags_fd: int) -> None:
        self.pid = pid
        self._channel = channel
        self._requests = select.poll()
        self._requests.register(channel, select.POLLIN)
        self._end = select.poll()
        self._end.register(channel, 0)  # told unasked
        self._pidfd = pidfd
        self._flags = Flags(mmap.mmap(flags_fd, mmap.PAGESIZE))
        os.close(flags_fd)
        self.hold = Hold(pid, pidfd)
        self._explicit = 0
        self._contexts: set[int] = set()  # descriptors, each of a `with stopped()`
        self._expires: float | None = None
        self._whole = True
        self._image: Image | None = None
        self.busy_since: float | None = None
        self.thread_id = 0
        self._lock = _lock_of(pid)
        self._locked = False
        self._hold_number = 0
        self._futex: Scratch | None = None
        self.ended = False

    def start(self, after: threading.Thread | None = None) -> None:
        """Serves the channel in a thread of its own, when thread `after` has ended."""
        threading.Thread(target=self._run, args=(after,), daemon=True).start()

    def _run(self, after: threading.Thread | None) -> None:
        if after is not None:
            after.join()
            self._unlock()
        self.thread_id = threading.get_native_id()
        self._futex = own_futex(self._flags.address)
        try:
            while self._serve_once():
                if not self._whole:
                    # What did not stop, or died, is the kernel's as this thread ends.
                    self._whole = True
                    self.hold = Hold(self.pid, self._pidfd)
                    self.start(after=threading.current_thread())
                    return
        except OSError:
            pass  # the tool is gone, in the middle of an answer
        self._let_go()
        self._close()
        if self._locked:
            # Something is left to the kernel, which takes it back as this thread ends.
            threading.Thread(
                target=self._unlock_after, args=(threading.current_thread(),), daemon=True
            ).start()

    def _unlock_after(self, thread: threading.Thread) -> None:
        thread.join()
        self._unlock()

    def _close(self) -> None:
        self.ended = True
        for fd in (*self._contexts, self._pidfd):
            os.close(fd)
        self._contexts.clear()
        self._channel.close()

    @property
    def _held(self) -> bool:
        return bool(self._explicit or self._contexts)

    def _serve_once(self) -> bool:
        """Waits for something to do, and does it; returns False when the tool is gone."""
        ready = dict(self._requests.poll(_LOOK_MS if self._held else None))
        # Ended contexts first: an answer must tell what is so after them.
        self._end_contexts(self._contexts & ready.keys())
        self._look_after()
        if not self._whole:
            return True  # a request is for the thread that comes after
        if self._channel.fileno() not in ready:
            return True
        received = protocol.receive(self._channel)
        if received is None:
            return False
        (number, op, *args), fds = received
        try:
            answer = self._answers[op](self, fds, *args)
        except ProcvmError as error:
            protocol.send_error(self._channel, number, error)
        else:
            protocol.send_answer(self._channel, number, answer)
        return bool(op != Op.DETACH)

    def _look_after(self) -> None:
        """Reaps what died while held, and ends a hold that is over or took too long."""
        if not self._flags.held:
            return
        self.hold.collect()
        late = self._expires is not None and time.monotonic() >= self._expires
        if late or not self._held or not self.hold.is_held:
            self._let_go()

    def _let_go(self) -> None:
        self._explicit = 0
        self._end_contexts(set(self._contexts))
        self._end_reliance()
        self._release()

    def _end_contexts(self, fds: set[int]) -> None:
        for fd in fds:
            self._requests.unregister(fd)
            os.close(fd)
        self._contexts -= fds

    def _begin_reliance(self, number: int = 0) -> None:
        """Tells the tool that it can rely on the hold, a new one without a number."""
        self._hold_number = number or next(_holds) % _MOST_HOLDS + 1
        self._flags.begin(self._hold_number, self.thread_id)

    def _end_reliance(self) -> None:
        """Tells the tool that it can not rely on the hold any more, and waits while it does."""
        if self._flags.end():
            until = time.monotonic() + _BUSY_WAIT
            while self._flags.relied_on and time.monotonic() < until:
                time.sleep(0.0001)

    def _is_stopped(self, _fds: list[int]) -> bool:
        return self._flags.held

    def _echo(self, _fds: list[int]) -> None:
        """Answers, which is all that is asked for."""

    def _threads(self, _fds: list[int]) -> list[tuple[int, bytes, str]]:
        return procfs.threads(self.pid)

    def _detach(self, _fds: list[int]) -> None:
        self._let_go()

    def _stop(self, fds: list[int], timeout: float, longest: float | None) -> None:
        """Stops the target if it runs, and counts one more that wants it so.

        Args:
            fds: The pipe of a ``with stopped()``; empty for a plain `stop`.
            timeout: Seconds that the stop may take.
            longest: Seconds that the hold may take; None for no limit.
        """
        if not self._flags.held:
            # Whatever was held before has expired, and the tool is told so by its `resume`.
            self._explicit = 0
            try:
                self._stop_all(timeout)
            except BaseException:
                for fd in fds:
                    os.close(fd)
                raise
            self._expires = None if longest is None else time.monotonic() + longest
            self._begin_reliance()
        for fd in fds:
            self._requests.register(fd, select.POLLIN)
        self._contexts.update(fds)
        self._explicit += not fds

    def _stop_all(self, timeout: float) -> None:
        begun = time.monotonic()
        self._take_lock(begun + timeout)
        self.busy_since = begun
        try:
            self.hold.stop(begun + timeout, self._given_up)
        except BaseException:
            self._release()
            self._whole = False
            raise
        finally:
            self.busy_since = None

    def _take_lock(self, deadline: float) -> None:
        """Waits until no other worker holds the same process: a task has one tracer."""
        while not (self._locked or self._lock.acquire(timeout=0.01)):
            if time.monotonic() > deadline or self._given_up():
                raise AlreadyTracedError(
                    f"process {self.pid} is held by way of another Tracee of this tool; use that "
                    "one, or end its hold",
                    pid=self.pid,
                    tracer_pid=os.getpid(),
                )
        self._locked = True

    def _release(self) -> None:
        """Lets go of every task; what could not be is let go as this thread ends."""
        if not self.hold.release():
            self._whole = False
        elif self._locked:
            self._unlock()

    def _unlock(self) -> None:
        if self._locked:
            self._locked = False
            self._lock.release()

    def _resume(self, _fds: list[int]) -> int:
        if not self._explicit:
            self.hold.require_alive()
            raise NotStoppedError(
                f"process {self.pid} is not stopped by stop(): it never was, every stop() has had "
                "its resume(), or the longest time of the hold was over",
                pid=self.pid,
            )
        self._explicit -= 1
        if not self._held:
            self._let_go()
        return self._explicit

    def _atomic(self, _fds: list[int], timeout: float, forced: bool, *what: Any) -> bytes:
        """Stops, operates and resumes, unless the target is held already."""
        if self._image is None:
            raise NotStoppedError("no program was named to the tracer", pid=self.pid)
        memory = ProcessMemory(self._image, ignore_protections=forced)
        held = self._flags.held
        if not held:
            self._stop_all(timeout)
        try:
            require_no_peer(self.pid)
            return under_hold(memory, Atomic(*what))
        finally:
            if not held:
                self._release()

    def _take_image(self, fds: list[int], token_address: int, writable: bool) -> None:
        """Takes the tool's own descriptors: an atomic can then reach no other program."""
        mem, maps = map(Fd, fds)
        files = ProcMem(mem, maps, pid=self.pid, writable=writable)
        pidfd = Fd(os.dup(self._pidfd))
        self._image = Image(self.pid, pidfd, files, token_address, by_calls=True)

    def _await_exec(self, fds: list[int], timeout: float, longest: float | None) -> None:
        """Seizes a process that waits for a byte, gives it one, and holds it at its exec."""
        (go,) = fds
        self.busy_since = time.monotonic()
        try:
            self._take_lock(self.busy_since + timeout)
            self.hold.stop_at_exec(go, self.busy_since + timeout)
        except BaseException:
            self._release()
            self._whole = False
            raise
        finally:
            self.busy_since = None
            os.close(go)
        self._explicit = 1
        self._expires = None if longest is None else time.monotonic() + longest
        self._begin_reliance()

    def _held_task(self, tid: int) -> int:
        if not self._flags.held:
            self.hold.require_alive()
            raise NotStoppedError(
                f"process {self.pid} runs; stop() it first, or hold it with stopped()", pid=self.pid
            )
        if tid not in self.hold.tasks:
            raise NoSuchProcessError(f"process {self.pid} has no thread {tid}", pid=tid)
        return tid

    def _get_registers(self, _fds: list[int], tid: int) -> dict[str, int]:
        with self._gone(tid):
            return requests.registers(self._held_task(tid))

    def _set_registers(self, _fds: list[int], tid: int, values: dict[str, int]) -> None:
        with self._gone(tid):
            requests.set_registers(self._held_task(tid), values)

    def _step(self, _fds: list[int], tid: int, timeout: float) -> None:
        with self._gone(tid):
            self.hold.step(self._held_task(tid), time.monotonic() + timeout, self._given_up)

    def _cont(self, _fds: list[int], timeout: float | None) -> tuple[str, int, int]:
        self._held_task(next(iter(self.hold.tasks), 0))
        self._end_reliance()
        deadline = None if timeout is None else time.monotonic() + timeout
        begun = time.monotonic()
        try:
            found = self.hold.cont(deadline, self._given_up)
        except BaseException:
            self._release()
            raise
        self._begin_reliance(self._hold_number)
        if self._expires is not None:
            # The longest time is that of standing still.
            self._expires += time.monotonic() - begun
        return found

    def _given_up(self) -> bool:
        try:
            return bool(self._end.poll(0))
        except OSError:
            return False  # it is asked again

    @contextlib.contextmanager
    def _gone(self, tid: int) -> Generator[None]:
        try:
            yield
        except Gone:
            raise ProcessExitedError(f"thread {tid} has ended", pid=self.pid) from None

    _answers: ClassVar[dict[int, Callable[..., object]]] = {
        Op.STOP: _stop,
        Op.RESUME: _resume,
        Op.IS_STOPPED: _is_stopped,
        Op.THREADS: _threads,
        Op.ATOMIC: _atomic,
        Op.IMAGE: _take_image,
        Op.AWAIT_EXEC: _await_exec,
        Op.DETACH: _detach,
        Op.GET_REGISTERS: _get_registers,
        Op.SET_REGISTERS: _set_registers,
        Op.STEP: _step,
        Op.CONT: _cont,
        Op.ECHO: _echo,
    }


def _rescue(worker: Worker) -> None:
    """Reaps for a worker whose seize hangs: it waits for an exec that waits for a zombie of ours.

    The zombie may be one that was born of a task of ours and that the worker
    has not heard of yet. Only its end is taken off the queue, never a stop.
    """
    since = worker.busy_since
    if since is None or time.monotonic() - since < _STUCK:
        return
    for tid in procfs.thread_ids(worker.pid):
        status = procfs.read_status(f"{worker.pid}/task/{tid}")
        if status is not None and status.state == "Z" and status.tracer_pid == worker.thread_id:
            requests.reap(tid)


def _await_end(workers: list[Worker]) -> None:
    """Lets the workers let go themselves, for a moment: the kernel would do it worse.

    It would deliver the trap of a step that is under way, and drop a signal that `cont`
    took off the queue. A worker that hangs is left to it all the same.
    """
    until = time.monotonic() + _LAST_WORDS
    while not all(worker.ended for worker in workers) and time.monotonic() < until:
        time.sleep(0.0005)


def serve(control: socket.socket) -> None:
    """Listens for tracees until the tool is gone, then ends: the kernel lets go of the rest."""
    workers: list[Worker] = []
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        workers = [worker for worker in workers if not worker.ended]
        if not poll.poll(_LOOK_AFTER_WORKERS_MS if workers else None):
            for worker in workers:
                _rescue(worker)
            continue
        received = protocol.receive(control)
        if received is None:
            _await_end(workers)
            return
        (pid,), (channel_fd, pidfd, flags_fd) = received
        channel = socket.socket(fileno=channel_fd)
        worker = Worker(pid, channel, pidfd, flags_fd)
        workers.append(worker)
        worker.start()
