"""The tracer's main thread: it opens channels, looks after the workers, and ends with the tool."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time

from procvm._hold.server import protocol, requests
from procvm._hold.server.proof import Program
from procvm._hold.server.protocol import HELLO, Op, Request
from procvm._hold.server.worker import Worker
from procvm._linux import procfs
from procvm._linux.libc import errno_error
from procvm.errors import ProcvmError, UnsupportedError, VmError

__all__ = ["serve"]

_LOOK_MS = 100
_STUCK = 0.1
_LAST_WORDS = 0.08
_LAST_STEP = 5.0


def _rescue(worker: Worker) -> None:
    """Reaps for a worker whose seize hangs: it waits for an exec that waits for a zombie of ours.

    The zombie may be one that was born of a task of ours and that the worker
    has not heard of yet. Only its end is taken off the queue, never a stop.
    """
    lease = worker.lease
    since = lease.busy_since
    if since is None or time.monotonic() - since < _STUCK:
        return
    for tid in procfs.thread_ids(worker.pid):
        status = procfs.read_status(f"{worker.pid}/task/{tid}")
        if status is not None and status.state == "Z" and status.tracer_pid == lease.thread_id:
            with lease.reaping:
                # A hold may have begun meanwhile, and `writing` relies on the number.
                if lease.busy_since == since:
                    requests.reap(tid)


def _await_end(workers: list[Worker]) -> None:
    """Lets the workers let go themselves, for a moment: the kernel would do it worse.

    It would deliver the trap of a step that is under way. A worker that hangs is left to it
    all the same.
    """
    begun = time.monotonic()
    while not all(worker.is_idle for worker in workers):
        longest = _LAST_STEP if any(worker.lease.moving for worker in workers) else _LAST_WORDS
        if time.monotonic() - begun > longest:
            return
        time.sleep(0.0005)


class _Server:
    """The workers, and what they need from the tool's requests."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.ending = threading.Event()

    def outcome(self, request: Request) -> object:
        """Does what is asked for; returns the answer, or the error to raise in the tool."""
        if request.op == Op.ECHO:
            return None
        pid, token_address = request.args
        try:
            if not request.complete:
                return errno_error(errno.EMFILE, "the tracer has no free file descriptors", pid=pid)
            self._open(request.fds, pid, token_address)
        except OSError as error:
            return errno_error(error.errno or errno.EIO, "a channel to the tracer", pid=pid)
        except MemoryError:
            return VmError("the tracer is out of memory")
        except RuntimeError as error:
            return UnsupportedError(f"the tracer cannot start a thread: {error}")
        finally:
            request.close()
        return None

    def _open(self, fds: list[int], pid: int, token_address: int) -> None:
        channel_fd, pidfd, flags_fd, *program_fds = fds
        program = None
        if program_fds:
            mem, maps = program_fds
            del fds[3:]
            program = Program(mem, maps, token_address)
        channel = socket.socket(fileno=channel_fd)
        fds.remove(channel_fd)
        try:
            worker = Worker(pid, channel, pidfd, flags_fd, program, self.ending)
            worker.start()
        except BaseException:
            channel.close()
            raise
        # The mapping stays when `flags_fd` is closed.
        fds.remove(pidfd)
        self.workers = [other for other in self.workers if not other.ended]
        self.workers.append(worker)


def serve(control: socket.socket, tool_pidfd: int) -> None:
    """Listens for requests until the tool is gone, then ends: the kernel lets go of the rest.

    Args:
        control: The control socket.
        tool_pidfd: The tool's process. A child that C code of the tool forked keeps a copy of
            its sockets, so their end alone does not tell that the tool ended.
    """
    server = _Server()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(tool_pidfd, select.POLLIN)
    with contextlib.suppress(OSError, MemoryError):
        _answer(control, HELLO, os.getpid())
        while True:
            ready = dict(poll.poll(_LOOK_MS if server.workers else None))
            if tool_pidfd in ready:
                break
            for worker in server.workers:
                if worker.is_lost:
                    worker.bury()
            if not ready:
                for worker in server.workers:
                    _rescue(worker)
                continue
            request = protocol.receive_request(control)
            if request is None:
                break
            _answer(control, request.number, server.outcome(request))
    server.ending.set()
    _await_end(server.workers)


def _answer(control: socket.socket, number: int, answer: ProcvmError | object) -> None:
    for packet in protocol.answer_packets(number, answer):
        control.send(packet)
