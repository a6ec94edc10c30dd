"""The tool's end of the tracer: its start, and a channel for each tracee."""

from __future__ import annotations

import atexit
import contextlib
import functools
import mmap
import os
import select
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from procvm.address import PAGE_SIZE
from procvm.errors import NotTracedError, ProcvmError, StopTimeoutError, UnsupportedError
from procvm.linux.libc import errno_error
from procvm.tracer import protocol
from procvm.tracer.protocol import Flags, Op

__all__ = ["Channel", "open_channel"]

# A grandchild, so that the tool has no child but its own: a wait for any child would
# find it, or wait for it for ever. In a session of its own, so that no key of a terminal
# reaches it. Isolated, and without `site`, which would look through all of
# site-packages: where modules are is told by the tool, as it finds them itself.
_BOOT = """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
fd, sys.path[:] = sys.argv[1], sys.argv[2:]
sys.argv[1:] = [fd]
import runpy
runpy.run_module("procvm.tracer", run_name="__main__", alter_sys=True)
"""


_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class _Tracer:
    """The running tracer: its process and the control socket."""

    def __init__(self) -> None:
        if not sys.executable:
            raise UnsupportedError("this Python does not know its own program (sys.executable)")
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = [os.path.abspath(entry) for entry in sys.path if entry]
        if _ROOT not in path:
            # It was found in the folder that the tool was in, which sys.path may call ''.
            path.insert(0, _ROOT)
        with theirs:
            # Its only job is to become a grandparent.
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", _BOOT, str(theirs.fileno()), *path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                check=True,
            )

    def close(self) -> None:
        """Ends it; it lets go of everything."""
        self.control.close()

    def alive(self) -> bool:
        """Returns whether it is there."""
        poll = select.poll()
        poll.register(self.control, 0)  # the end of the other side is told unasked
        return not poll.poll(0)


_GRACE = 1.0
"""Seconds that the tracer may need beyond those it was given."""

_lock = threading.RLock()
_running: _Tracer | None = None


def _tracer() -> _Tracer:
    """Returns the running tracer, started if there is none. The lock is held."""
    global _running  # noqa: PLW0603 (one tracer serves all of the tool)
    _watch_forks()
    if _running is None or not _running.alive():
        if _running is not None:
            _running.control.close()
        _running = _Tracer()
    return _running


@functools.cache
def _watch_forks() -> None:
    atexit.register(_at_exit)
    os.register_at_fork(after_in_child=_forget)


def _at_exit() -> None:
    if _running is not None:
        _running.close()


def _forget() -> None:
    """Lets a forked child keep nothing open that tells the tracer that the tool lives."""
    global _running, _lock  # noqa: PLW0603 (as above: the child has none)
    _lock = threading.RLock()
    if _running is not None:
        _running.control.close()
    _running = None


class Channel:
    """A tracee's own line to its worker in the tracer."""

    def __init__(self, line: socket.socket, flags: Flags) -> None:
        self._line = line
        self.flags = flags
        self.image_named = False
        self._number = 0
        self._answers: dict[int, tuple[bool, Any]] = {}
        self._waiting: set[int] = set()

    def request(
        self,
        pid: int,
        op: Op,
        args: tuple[object, ...],
        *,
        fds: tuple[int, ...] = (),
        timeout: float | None,
    ) -> Any:
        """Asks the worker, and waits for its answer.

        Whatever interrupts it, Ctrl-C too, ends the channel: the worker then
        lets go, and no answer is ever taken for that of a later request.

        Raises:
            ProcvmError: The worker's own, or StopTimeoutError if it does not answer.
            NotTracedError: The tracer has ended.
        """
        number = self._number = self._number + 1
        begun = time.monotonic()
        answered = False
        try:
            self._waiting.add(number)
            self._send(number, op, args, fds)
            poll = select.poll()
            poll.register(self._line, select.POLLIN)
            while number not in self._answers:
                left = None if timeout is None else begun + timeout + _GRACE - time.monotonic()
                if not poll.poll(None if left is None else max(left, 0) * 1000):
                    raise StopTimeoutError(
                        f"the tracer did not answer for process {pid} in time; it lets go of it as "
                        "soon as it can",
                        pid=pid,
                    )
                whose, good, answer = protocol.receive_answer(self._line)
                if whose in self._waiting:
                    self._answers.setdefault(whose, (good, answer))
                    if whose != number:
                        # A signal handler makes this request in the middle of another one,
                        # which waits for something to arrive.
                        self._send(whose, Op.ECHO, (), ())
            good, answer = self._answers.pop(number)
            answered = True
        except (OSError, EOFError) as error:
            if isinstance(error, StopTimeoutError):
                raise
            raise NotTracedError(
                "the tracer process has ended, and so has every hold; the next call starts another",
                pid=pid,
            ) from None
        finally:
            self._waiting.discard(number)
            if not answered:
                self.close()
        if not good:
            raise answer
        return answer

    def _send(self, number: int, op: Op, args: tuple[object, ...], fds: tuple[int, ...]) -> None:
        protocol.send(self._line, (number, int(op), *args), fds)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._line.fileno() < 0

    def close(self) -> None:
        """Ends it; the worker lets go of the target. Twice is fine."""
        self._line.close()


def open_channel(pid: int, pidfd: int) -> Channel:
    """Returns a new channel for a process.

    Raises:
        UnsupportedError: The tracer can not be started.
    """
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise _refusal(pid, error) from None
    given = False
    try:
        with theirs:
            flags = _pass_channel(pid, pidfd, theirs)
        given = True
    except (OSError, subprocess.SubprocessError) as error:
        raise _refusal(pid, error) from None
    finally:
        if not given:
            ours.close()
    return Channel(ours, flags)


def _refusal(pid: int, error: Exception) -> ProcvmError:
    """Returns the error of ours for one that Python raised: most often no descriptor is left."""
    code = getattr(error, "errno", None)
    if code is None:
        return UnsupportedError(f"the tracer process does not start: {error}")
    return errno_error(code, f"no channel to the tracer for process {pid}", pid=pid)


def _pass_channel(pid: int, pidfd: int, theirs: socket.socket) -> Flags:
    # The memfd is closed at once: both sides keep the page by their mappings, and
    # nothing of ours runs when they go.
    memfd = os.memfd_create("procvm-flags", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memfd, PAGE_SIZE)
        flags = Flags(mmap.mmap(memfd, PAGE_SIZE))
        with _lock:
            for _ in range(2):
                control = _tracer().control
                with contextlib.suppress(BrokenPipeError, ConnectionError):
                    protocol.send(control, (pid,), (theirs.fileno(), pidfd, memfd))
                    return flags
    finally:
        os.close(memfd)
    raise UnsupportedError("the tracer process does not start; look at what it wrote to stderr")
