"""A worker: the thread that makes all ptrace requests for one tracee.

ptrace obeys the thread that seized and no other, and the kernel lets go of what a
thread traces when that thread ends, with stops that are still to come taken back.
So a worker that could not stop everything hands its channel to a new thread and ends.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import itertools
import math
import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Generator
from typing import ClassVar

from procvm._hold.server import atomics, moves, protocol, requests
from procvm._hold.server.hold import NAP, Hold, TaskState
from procvm._hold.server.proof import Program, Proof
from procvm._hold.server.protocol import Flags, Op, Request
from procvm._hold.server.requests import Gone
from procvm._hold.server.robust import own_futex
from procvm._linux.libc import errno_error
from procvm._live.atomics import require_no_peer
from procvm._local.buffers import Scratch
from procvm.errors import (
    AlreadyTracedError,
    Hint,
    NoSuchProcessError,
    NotStoppedError,
    ProcessExitedError,
    ProcvmError,
    VmError,
)

__all__ = ["Worker"]

_LOOK_MS = 10
"""How often a held target is looked after: nothing else reaps a task that was killed."""

_BUSY_WAIT = 0.05
_NAP = 1e-3
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})

_holds = itertools.count(1)
_MOST_HOLDS = 1 << 30
_locks: dict[int, threading.Lock] = {}
_locks_lock = threading.Lock()


def _lock_of(pid: int) -> threading.Lock:
    with _locks_lock:
        return _locks.setdefault(pid, threading.Lock())


def _await_end(thread_id: int) -> None:
    """Waits until the kernel has ended a thread, and so let go of what it traced."""
    # The kernel's word, since Python's comes earlier.
    while os.path.exists(f"/proc/self/task/{thread_id}"):
        time.sleep(NAP)


def _deadline(timeout: float | None) -> float:
    return math.inf if timeout is None else time.monotonic() + timeout


class Worker:
    """One tracee: its channel, its holds, and the thread that traces it.

    Attributes:
        pid: The process.
        thread_id: The thread that traces it.
        busy_since: When a stop that is under way began; None if none is.
        moving: Whether a step is under way, which must end before the tracer does.
        ended: Whether it is done.
    """

    def __init__(
        self,
        pid: int,
        channel: socket.socket,
        pidfd: int,
        flags_fd: int,
        program: Program | None,
        ending: threading.Event,
    ) -> None:
        self.pid = pid
        self._channel = channel
        self._ending = ending
        self._requests = select.poll()
        self._requests.register(channel, select.POLLIN)
        self._end = select.poll()
        self._end.register(channel, 0)  # the end of the other side is told unasked
        self._pidfd = pidfd
        self._flags = Flags(mmap.mmap(flags_fd, mmap.PAGESIZE))
        self._proof = Proof(pid, pidfd)
        self._proof.program = program
        self._hold = Hold(self._proof)
        self._explicit = 0
        self._contexts: set[int] = set()  # descriptors, each of a `with stopped()`
        self._expires = math.inf
        self._died = False
        self._whole = True
        self._owed: tuple[int, object, bool] | None = None
        self.busy_since: float | None = None
        self.moving = False
        self.thread_id = 0
        self._lock = _lock_of(pid)
        self._locked = False
        self._hold_number = 0
        self._futex: Scratch | None = None
        self.ended = False

    def start(self, after: int = 0) -> None:
        """Serves the channel in a thread of its own, when the thread of id `after` has ended.

        Raises:
            RuntimeError: No thread can be started.
        """
        # Not by `threading.Thread`, whose start waits for a word of the new thread: one that
        # is out of memory before that never gives it.
        _thread.start_new_thread(self._run, (after,))

    @property
    def is_idle(self) -> bool:
        """Whether nothing has to be let go by it."""
        return self.ended or not (self._flags.held or self.busy_since or self.moving)

    def _run(self, after: int) -> None:
        handed_over = False
        try:
            if after:
                _await_end(after)
                self._unlock()
            self.thread_id = threading.get_native_id()
            self._futex = own_futex(self._flags.address)
            while self._serve_once():
                if not self._whole:
                    handed_over = self._hand_over()
                    break
        except (OSError, MemoryError):
            pass  # the tool is gone, in the middle of an answer; or it sees its channel end
        finally:
            if not handed_over:
                self._finish()

    def _hand_over(self) -> bool:
        """Leaves what did not stop, or died, to the kernel, which takes it as this thread ends."""
        self._whole = True
        self._hold = Hold(self._proof)
        try:
            self.start(after=threading.get_native_id())
        except RuntimeError:
            self._pay()
            return False  # no thread is to be had; the tool sees its channel end
        return True

    def _finish(self) -> None:
        self._let_go()
        self.ended = True
        for fd in (*self._contexts, self._pidfd):
            os.close(fd)
        self._contexts.clear()
        if self._proof.program is not None:
            self._proof.program.close()
        self._channel.close()
        if self._locked:
            # Something is left to the kernel, which takes it back as this thread ends.
            try:
                _thread.start_new_thread(self._unlock_after, (threading.get_native_id(),))
            except RuntimeError:
                self._unlock()

    def _unlock_after(self, thread_id: int) -> None:
        _await_end(thread_id)
        self._unlock()

    # Serving

    @property
    def _held(self) -> bool:
        return bool(self._explicit or self._contexts)

    def _serve_once(self) -> bool:
        """Waits for something to do, and does it; returns False when the tool is gone."""
        if not self._pay():
            return False
        ready = dict(self._requests.poll(_LOOK_MS if self._held else None))
        if self._ending.is_set():
            return False
        # Ended contexts first: an answer must tell what is so after them.
        self._end_contexts(self._contexts & ready.keys())
        self._look_after()
        if not self._whole:
            return True  # a request is for the thread that comes after
        if self._channel.fileno() not in ready:
            return True
        request = protocol.receive_request(self._channel)
        if request is None:
            return False
        self._owed = request.number, self._outcome(request), request.op == Op.DETACH
        return not self._whole or self._pay()

    def _pay(self) -> bool:
        """Sends the answer that is owed; returns False if nothing is to come after it.

        An answer to a request that left something to the kernel is sent by the next thread:
        only then is the target, or what was seized in its place, let go.
        """
        owed, self._owed = self._owed, None
        if owed is None:
            return True
        number, answer, is_last = owed
        self._answer(number, answer)
        return not is_last

    def _outcome(self, request: Request) -> object:
        """Does what is asked for; returns the answer, or the error to raise in the tool."""
        try:
            if not request.complete:
                return errno_error(
                    errno.EMFILE, "the tracer has no free file descriptors", pid=self.pid
                )
            return self._answers[request.op](self, request.fds, *request.args)
        except ProcvmError as error:
            return error
        except Gone:
            return ProcessExitedError(f"process {self.pid} has ended", pid=self.pid)
        except OSError as error:
            return errno_error(error.errno or errno.EIO, "a request to the tracer", pid=self.pid)
        except MemoryError:
            return VmError("the tracer is out of memory")
        finally:
            request.close()

    def _answer(self, number: int, answer: object) -> None:
        for packet in protocol.answer_packets(number, answer):
            self._send(packet)

    def _send(self, packet: bytes) -> None:
        """Sends a packet; looks after the hold while the tool does not receive."""
        while True:
            try:
                self._channel.send(packet, socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
            else:
                return
            writable = select.poll()
            writable.register(self._channel, select.POLLOUT)
            if writable.poll(_LOOK_MS):
                time.sleep(_NAP)  # no memory, with room in the socket
            self._look_after()

    def _look_after(self) -> None:
        """Reaps what died while held, and ends a hold that is over or took too long."""
        if not self._flags.held:
            return
        self._hold.collect_ends()
        if not self._hold.is_held:
            self._died = True
            self._let_go()
        elif not self._held:
            self._let_go()
        elif time.monotonic() >= self._expires:
            self._flags.expire()
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
        """Tells the tool that it cannot rely on the hold any more, and waits while it does."""
        if self._flags.end():
            until = time.monotonic() + _BUSY_WAIT
            while self._flags.relied_on and time.monotonic() < until:
                time.sleep(0.0001)
            if self._flags.relied_on:
                self._flags.give_up_waiting(self._hold_number)

    # Requests

    def _is_stopped(self, _fds: list[int]) -> bool:
        return self._flags.held

    def _echo(self, _fds: list[int]) -> None:
        """Answers, which is all that is asked for."""

    def _detach(self, _fds: list[int]) -> None:
        self._let_go()

    def _stop(self, fds: list[int], timeout: float | None, longest: float | None) -> int:
        """Stops the target if it runs, and counts one more that wants it so.

        Args:
            fds: The socket of a ``with stopped()``; empty for a plain `stop`.
            timeout: Seconds that the stop may take; None for no limit.
            longest: Seconds that the hold may take; None for no limit.

        Returns:
            The number of the hold.
        """
        if self._flags.held:
            self._require_program()
        else:
            # A hold that has expired is over; the tool is told so by its `resume`.
            self._explicit = 0
            self._stop_all(timeout)
            self._expires = _deadline(longest)
            self._begin_reliance()
        if not fds:
            self._explicit += 1
        while fds:
            fd = fds.pop()
            self._requests.register(fd, select.POLLIN)
            self._contexts.add(fd)
        return self._hold_number

    def _stop_all(self, timeout: float | None) -> None:
        deadline = _deadline(timeout)
        self._died = False
        with self._stopping(deadline):
            self._hold.stop(deadline, self._given_up)

    @contextlib.contextmanager
    def _stopping(self, deadline: float) -> Generator[None]:
        """Surrounds a stop: the main thread may rescue it, and a failed one is let go of."""
        self._take_lock(deadline)
        self.busy_since = time.monotonic()
        try:
            yield
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
                    f"process {self.pid} is held by another tracee object of this process",
                    pid=self.pid,
                    tracer_pid=os.getpid(),
                    hint=Hint("other_tracee"),
                )
        self._locked = True

    def _release(self) -> None:
        """Lets go of every task; what could not be is let go as this thread ends."""
        if not self._hold.release():
            self._whole = False
        elif self._locked:
            self._unlock()

    def _unlock(self) -> None:
        if self._locked:
            self._locked = False
            self._lock.release()

    def _resume(self, _fds: list[int]) -> int:
        if not self._explicit:
            if self._died:
                raise Gone
            self._proof.require_process()
            raise NotStoppedError(
                f"process {self.pid} is not stopped: it never was, every stop has had its resume, "
                "or the longest time of the hold was over",
                pid=self.pid,
            )
        self._explicit -= 1
        if not self._held:
            self._let_go()
        return self._explicit

    def _atomic(
        self,
        _fds: list[int],
        timeout: float | None,
        forced: bool,
        address: int,
        size: int,
        expected: bytes | None,
        desired: bytes,
    ) -> bytes | None:
        """Stops, operates and resumes, unless the target is held already.

        Returns:
            What was there; None if the target's own instruction would fault.
        """
        held = self._flags.held
        if held:
            self._require_program()
        else:
            self._stop_all(timeout)
        try:
            program = self._proof.program
            stopped = [t for t, state in self._hold.tasks.items() if state is TaskState.HELD]
            if program is None or not stopped:
                raise Gone
            require_no_peer(self.pid)
            return atomics.operate(
                program, stopped[0], address, size, expected, desired, forced=forced
            )
        finally:
            if not held:
                self._release()

    def _take_image(self, fds: list[int], token_address: int) -> None:
        """Takes the tool's own descriptors of the program that a new process became."""
        mem, maps = fds
        fds.clear()
        self._proof.program = Program(mem, maps, token_address)
        self._hold.execed = False

    def _await_exec(self, fds: list[int], timeout: float | None, longest: float | None) -> None:
        """Seizes a process that waits for a byte, gives it one, and holds it at its exec."""
        (go,) = fds
        deadline = _deadline(timeout)
        with self._stopping(deadline):
            self._hold.stop_at_exec(go, deadline, self._given_up)
        self._explicit = 1
        self._expires = _deadline(longest)
        self._begin_reliance()

    def _require_hold(self) -> None:
        if self._flags.held:
            # The target may have been killed since the last look.
            self._hold.collect_ends()
            if self._hold.is_held:
                return
            self._died = True
        if self._died:
            raise Gone
        self._proof.require_process()
        raise NotStoppedError(f"process {self.pid} is not stopped", pid=self.pid, hint=Hint("stop"))

    def _require_program(self) -> None:
        """Refuses to act on the program that replaced the one that was opened, in a hold."""
        if self._hold.execed:
            raise self._proof.execed()

    def _held_task(self, tid: int) -> int:
        self._require_hold()
        self._require_program()
        if tid not in self._hold.tasks:
            if tid in self._hold.ended:
                # A held task ends only with its process.
                raise Gone
            self._proof.require_process()
            raise NoSuchProcessError(f"process {self.pid} has no thread {tid}", pid=tid)
        return tid

    def _get_registers(self, _fds: list[int], tid: int) -> dict[str, int]:
        return requests.registers(self._held_task(tid))

    def _set_registers(self, _fds: list[int], tid: int, values: dict[str, int]) -> str | None:
        return requests.set_registers(self._held_task(tid), values)

    def _step(self, _fds: list[int], tid: int, timeout: float | None) -> None:
        self._held_task(tid)
        self.moving = True
        try:
            moves.step(self._hold, tid, timeout, self._given_up)
        finally:
            self.moving = False

    def _cont(
        self, _fds: list[int], timeout: float | None
    ) -> tuple[int, str, int, int, bytes] | None:
        self._require_hold()
        self._end_reliance()
        begun = time.monotonic()
        try:
            found = moves.cont(self._hold, _deadline(timeout), self._given_up)
        except BaseException:
            self._explicit = 0
            self._end_contexts(set(self._contexts))
            self._release()
            self._whole = False
            raise
        self._begin_reliance(self._hold_number)
        # The longest time is that of standing still.
        self._expires += time.monotonic() - begun
        return None if found is None else found.fields

    def _pending(self, _fds: list[int]) -> list[tuple[int, str, int, int, bytes]]:
        self._require_hold()
        return [event.fields for event in self._hold.queue]

    def _deliver(self, _fds: list[int], tid: int, number: int, signo: int) -> None:
        self._require_hold()
        moves.deliver(self._hold, tid, number, signo)

    def _given_up(self) -> bool:
        if self._ending.is_set():
            return True
        try:
            return bool(self._end.poll(0))
        except OSError:
            return False  # it is asked again

    _answers: ClassVar[dict[int, Callable[..., object]]] = {
        Op.STOP: _stop,
        Op.RESUME: _resume,
        Op.IS_STOPPED: _is_stopped,
        Op.ATOMIC: _atomic,
        Op.IMAGE: _take_image,
        Op.AWAIT_EXEC: _await_exec,
        Op.DETACH: _detach,
        Op.GET_REGISTERS: _get_registers,
        Op.SET_REGISTERS: _set_registers,
        Op.STEP: _step,
        Op.CONT: _cont,
        Op.PENDING: _pending,
        Op.DELIVER: _deliver,
        Op.ECHO: _echo,
    }
