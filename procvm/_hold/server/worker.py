"""`Worker`: the thread that makes all ptrace requests for one tracee.

A tracee obeys only the thread that seized it. When a thread ends, the kernel detaches what it
traced, and takes back stops that are still to come. So a worker that could not stop every task
hands its channel to a new thread and ends.
"""

from __future__ import annotations

import _thread
import errno
import mmap
import os
import select
import socket
import threading
import time
import weakref

from procvm._hold.server import protocol
from procvm._hold.server.lease import Lease
from procvm._hold.server.operations import OPERATIONS
from procvm._hold.server.proof import Program, Proof
from procvm._hold.server.protocol import Flags, Op, Request
from procvm._hold.server.requests import Gone
from procvm._hold.server.robust import own_futex
from procvm._hold.server.seizing import NAP
from procvm._linux.libc import errno_error
from procvm._local.buffers import Scratch
from procvm.errors import ProcessExitedError, ProcvmError, VmError

__all__ = ["Worker"]

_LOOK_MS = 10
"""Milliseconds between two looks at a held target: only its tracer can reap a task that died."""

_FULL_NAP = 1e-3
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})


def _await_end(thread_id: int) -> None:
    """Waits until the kernel has ended a thread, and so detached what the thread traced."""
    # Python reports the end of a thread too early, before the kernel detaches.
    while os.path.exists(f"/proc/self/task/{thread_id}"):
        time.sleep(NAP)


class _GivenUp:
    """Returns whether the tool has stopped waiting: its channel has ended.

    A method of `Worker` would make a cycle of it and its lease, and its descriptors would stay
    open until the cyclic collector runs.
    """

    def __init__(self, channel: socket.socket, ending: threading.Event) -> None:
        self._ending = ending
        self._end = select.poll()
        self._end.register(channel, 0)  # poll reports a hangup unasked

    def __call__(self) -> bool:
        if self._ending.is_set():
            return True
        try:
            return bool(self._end.poll(0))
        except OSError:
            return False  # the caller asks again


class _Running:
    """Lives as long as a thread has it as an argument: the thread runs, or is about to."""


class Worker:
    """One tracee: its channel, its lease, and the thread that traces it.

    Attributes:
        pid: The process.
        lease: How long the target stays held.
        ended: Whether the worker is done.
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
        self._pidfd = pidfd
        self._flags = Flags(mmap.mmap(flags_fd, mmap.PAGESIZE))
        self._proof = Proof(pid, pidfd)
        self._proof.program = program
        self.lease = Lease(self._proof, self._flags, self._requests, _GivenUp(channel, ending))
        self._owed: tuple[int, object, bool] | None = None
        self._futex: Scratch | None = None
        self._running: weakref.ref[_Running] | None = None
        self.ended = False

    # The thread

    def start(self, after: int = 0) -> None:
        """Serves the channel in a new thread, once the thread of id `after` has ended.

        Raises:
            RuntimeError: No thread can be started.
        """
        # The start of a `threading.Thread` waits for a notice of the new thread, and hangs if
        # that thread runs out of memory first.
        running = _Running()
        found = weakref.ref(running)
        _thread.start_new_thread(self._run, (running, after))
        self._running = found  # not earlier: until here the old thread runs, if there is one

    @property
    def is_lost(self) -> bool:
        """Whether the thread has ended without closing the channel: it ran out of memory.

        Python itself may need memory before the first line of a thread runs.
        """
        return not self.ended and self._running is not None and self._running() is None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to let go."""
        return self.ended or self.lease.is_idle

    def _run(self, _running: _Running, after: int) -> None:
        handed_over = False
        try:
            if after:
                _await_end(after)
                self.lease.unlock()
            self.lease.thread_id = threading.get_native_id()
            self._futex = own_futex(self._flags.address)
            while self._serve_once():
                if not self.lease.whole:
                    handed_over = self._hand_over()
                    break
        except (OSError, MemoryError):
            pass  # the tool ended in the middle of an answer; or it sees its channel end
        finally:
            if not handed_over:
                self._finish()

    def _hand_over(self) -> bool:
        """Starts another thread; the kernel detaches the remaining tasks as this one ends."""
        self.lease.begin_again()
        try:
            self.start(after=threading.get_native_id())
        except RuntimeError:
            self._pay()
            return False  # no thread can be started; the tool sees its channel end
        return True

    def _finish(self) -> None:
        try:
            self.lease.let_go()
        finally:
            self._close()
        if self.lease.is_locked:
            # The kernel detaches the remaining tasks as this thread ends.
            try:
                _thread.start_new_thread(self._unlock_after, (threading.get_native_id(),))
            except RuntimeError:
                self.lease.unlock()

    def _close(self) -> None:
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)
        if self._proof.program is not None:
            self._proof.program.close()
        self._channel.close()
        self.ended = True

    def bury(self) -> None:
        """Closes the channel of a lost worker; the main thread calls it.

        Without this the tool would wait for an answer until its time is over.
        """
        self.lease.drop_requests()
        self._close()
        self.lease.unlock()

    def _unlock_after(self, thread_id: int) -> None:
        _await_end(thread_id)
        self.lease.unlock()

    # Serving

    def _serve_once(self) -> bool:
        """Waits for something to do, and does it; returns False when the tool has ended."""
        if not self._pay():
            return False
        ready = dict(self._requests.poll(_LOOK_MS if self.lease.is_wanted else None))
        if self._ending.is_set():
            return False
        # Ended contexts first: an answer must hold after they have ended.
        self.lease.end_contexts(set(ready))
        self.lease.look_after()
        if not self.lease.whole:
            return True  # the next thread takes the request
        if self._channel.fileno() not in ready:
            return True
        request = protocol.receive_request(self._channel)
        if request is None:
            return False
        self._owed = request.number, self._outcome(request), request.op == Op.DETACH
        return not self.lease.whole or self._pay()

    def _pay(self) -> bool:
        """Sends the answer that is owed; returns False if it ends the channel.

        If a request left tasks to the kernel, the next thread sends its answer: only then are
        those tasks detached.
        """
        owed, self._owed = self._owed, None
        if owed is None:
            return True
        number, answer, is_last = owed
        for packet in protocol.answer_packets(number, answer):
            self._send(packet)
        return not is_last

    def _outcome(self, request: Request) -> object:
        """Serves a request; returns the answer, or the error to raise in the tool."""
        try:
            if not request.complete:
                return errno_error(
                    errno.EMFILE, "the tracer has no free file descriptors", pid=self.pid
                )
            return OPERATIONS[request.op](self.lease, request.fds, *request.args)
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
                time.sleep(_FULL_NAP)  # the socket has room, but the kernel has no memory
            self.lease.look_after()
