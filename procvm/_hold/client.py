"""The tool's side of the tracer: its start, and a channel for each tracee."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import mmap
import os
import select
import socket
import subprocess
import sys
import threading
from typing import Any

from procvm._base import forks
from procvm._base.address import PAGE_SIZE
from procvm._base.fd import Fd
from procvm._hold.line import Line
from procvm._hold.server import protocol
from procvm._hold.server.protocol import HELLO, Flags, Op
from procvm._linux.libc import errno_error
from procvm.errors import NotTracedError, ProcvmError, StopTimeoutError, UnsupportedError, VmError

__all__ = ["Channel", "open_channel", "tracer_pid"]

# The tracer is not a child of the tool: a wait of the tool for any child would find it, or would
# never end. It has a session of its own, so that no key of a terminal reaches it. Python runs
# isolated and without `site`, which would search site-packages; the tool passes its sys.path.
#
# The parent of the tracer stays as its watchdog. A suspended tracer (SIGSTOP) would keep its
# targets stopped for ever; the watchdog kills it, and the kernel detaches the targets.
_BOOT = """
import os, signal, sys
tool = os.getppid()
if os.fork():
    os._exit(0)
os.setsid()
try:
    # A search for a process by its name leaves the tracer out by this name.
    with open("/proc/self/comm", "w") as comm:
        comm.write("procvm-tracer")
except OSError:
    pass  # /proc is read-only or not mounted; the name only helps
# If SIGCHLD stayed ignored, the kernel would reap the tracer, and waitid would fail.
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
fd = int(sys.argv[1])
tracer = os.fork()
if tracer:
    for signo in (1, 2, 15, 20):
        signal.signal(signo, signal.SIG_IGN)
    os.close(fd)
    while os.waitid(os.P_PID, tracer, os.WEXITED | os.WSTOPPED).si_code == os.CLD_STOPPED:
        os.kill(tracer, signal.SIGKILL)
    os._exit(0)
sys.path[:] = sys.argv[2:]
sys.argv[1:] = [str(fd), str(tool)]
import runpy
runpy.run_module("procvm._hold.server", run_name="__main__", alter_sys=True)
"""

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_GRACE = 30.0
"""Seconds that an answer may take beyond the time of the request, which the worker keeps to.

A busy machine delays the answer. The end of the tracer is noticed at once."""

_NO_ROOM = frozenset({errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM})
_START_TIME = 60.0
_STARTS = 3


class _Tracer(Line):
    """The running tracer, by its control socket.

    Attributes:
        pid: Its pid.
    """

    def __init__(self) -> None:
        if not sys.executable:
            raise UnsupportedError("this Python does not know its own program (sys.executable)")
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(control)
        path = [os.path.abspath(entry) for entry in sys.path if entry]
        if _ROOT not in path:
            # An entry '' of sys.path was left out: it is the folder that the tool ran in.
            path.insert(0, _ROOT)
        try:
            with theirs:
                # This child forks the watchdog, and ends.
                subprocess.run(
                    [sys.executable, "-I", "-S", "-c", _BOOT, str(theirs.fileno()), *path],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd="/",
                    check=True,
                )
            # Without this wait, the start would use up the time of the first stop.
            _, answer = self.await_answer(HELLO, _START_TIME)
            self.pid = int(answer)
        except BaseException:
            self.close()
            raise

    def alive(self) -> bool:
        """Returns whether the tracer runs."""
        if self.closed:
            return False
        poll = select.poll()
        poll.register(self._line, 0)  # poll reports a hangup unasked
        return not poll.poll(0)


_lock = threading.RLock()
_running: _Tracer | None = None


def _tracer() -> _Tracer:
    """Returns the running tracer, started if there is none. The lock is held.

    Raises:
        OSError: No descriptor, memory or process is left for it.
        UnsupportedError: It does not start.
    """
    global _running  # noqa: PLW0603 (one tracer serves all of the tool)
    _watch_exit()
    if _running is not None and not _running.alive():
        _running.close()
        _running = None
    tries = 0
    while _running is None:
        tries += 1
        try:
            _running = _Tracer()
        except (EOFError, TimeoutError, subprocess.SubprocessError) as error:
            if tries == _STARTS:
                what = "it takes too long" if isinstance(error, TimeoutError) else str(error)
                raise UnsupportedError(
                    f"the tracer process does not start in {_STARTS} tries"
                    f"{': ' if what else ''}{what}; its error output is this process's own"
                ) from None
    return _running


def tracer_pid() -> int:
    """Returns the pid of the tracer, which is started if it does not run.

    Raises:
        UnsupportedError: It cannot be started.
        VmError: The tool has no descriptor, memory or process left for it.
    """
    try:
        with _lock:
            return _tracer().pid
    except OSError as error:
        if isinstance(error, ProcvmError):
            raise
        what = "starting the tracer"
        raise errno_error(error.errno or 0, what, pid=os.getpid()) from None


class _Fork:
    """Closes a forked child's control socket, which would keep the tracer after the tool's end."""

    def after_fork_in_child(self) -> None:
        """Closes the child's copy of the control socket."""
        global _running, _lock  # noqa: PLW0603 (as above: the child has none)
        _lock = threading.RLock()
        if _running is not None:
            _running.close()
        _running = None


_fork = _Fork()


@functools.cache
def _watch_exit() -> None:
    atexit.register(_at_exit)
    forks.register(_fork)


def _at_exit() -> None:
    if _running is not None:
        _running.close()


class Channel(Line):
    """The socket of one tracee to its worker in the tracer."""

    def __init__(self, line: socket.socket, flags: Flags) -> None:
        super().__init__(line)
        self.flags = flags

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

        If Ctrl-C or another error interrupts the wait, the channel ends: the worker lets the
        target go, and the answer cannot be taken for the answer of a later request.

        Raises:
            ProcvmError: The error of the worker; StopTimeoutError if it does not answer.
            NotTracedError: The tracer has ended.
        """
        answered = False
        try:
            limit = None if timeout is None else timeout + _GRACE
            good, answer = self.ask(op, args, fds, limit)
            answered = True
        except TimeoutError:
            raise StopTimeoutError(
                f"the tracer did not answer for process {pid} in time; it lets the process go as "
                "soon as it can",
                pid=pid,
            ) from None
        except (OSError, EOFError) as error:
            raise _lost(pid, error) from None
        finally:
            if not answered:
                self.close()
        if good:
            return answer
        try:
            raise answer
        finally:
            # The error's traceback refers to this frame. If the frame kept the error, both would
            # be a cycle, and descriptors of the callers' frames would stay open until the cyclic
            # collector runs.
            del answer

    def attempt(self, pid: int, op: Op, args: tuple[object, ...]) -> Any:
        """As `request`; returns None if it cannot ask. Ctrl-C comes after the answer."""
        number = self._number = self._number + 1
        self._waiting.add(number)
        answered = False
        try:
            try:
                protocol.send_request(self._line, number, op, args)
            except OSError as error:
                answered = error.errno in _NO_ROOM  # another request may find room
                return None
            try:
                good, answer = self.await_answer(number, _GRACE)
            except KeyboardInterrupt:
                self.await_answer(number, _GRACE)
                answered = True
                raise
            answered = True
        except (OSError, EOFError) as error:
            raise _lost(pid, error) from None
        finally:
            self._waiting.discard(number)
            if not answered:
                self.close()
        return answer if good else None


def _lost(pid: int, error: OSError | EOFError) -> ProcvmError:
    """Returns the error of a request without an answer, which ended the channel."""
    if isinstance(error, EOFError | ConnectionError):
        return NotTracedError(
            f"the tracer process has ended, or had no memory to serve process {pid}; every hold on "
            "the process has ended; the next call starts a tracer again",
            pid=pid,
        )
    return VmError(
        f"a request to the tracer for process {pid} failed ({error}), so its hold was given up; "
        "call again"
    )


def open_channel(
    pid: int, pidfd: int, program: tuple[int, int] | None = None, token_address: int = 0
) -> Channel:
    """Returns a new channel for a process.

    Args:
        pid: The process.
        pidfd: Its pidfd, which stays the caller's.
        program: /proc/PID/mem and maps of its program; None if it is yet to exec.
        token_address: The address of the program's token; see `_linux.process_vm`.

    Raises:
        UnsupportedError: The tracer cannot be started.
        VmError: The tool or the tracer has no descriptor or memory left.
    """
    what = f"no channel to the tracer for process {pid}"
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise errno_error(error.errno or 0, what, pid=pid) from None
    given = False
    try:
        with theirs:
            flags = _pass_channel(pid, (theirs.fileno(), pidfd), program or (), token_address)
        given = True
    except OSError as error:
        if isinstance(error, ProcvmError):
            raise
        raise errno_error(error.errno or 0, what, pid=pid) from None
    finally:
        if not given:
            ours.close()
    return Channel(ours, flags)


def _pass_channel(
    pid: int, fds: tuple[int, int], program: tuple[int, ...], token_address: int
) -> Flags:
    # The memfd is closed at once: the mappings of both sides keep the page.
    memfd = Fd.of(os.memfd_create, "procvm-flags", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memfd.number, PAGE_SIZE)
        flags = Flags(mmap.mmap(memfd.number, PAGE_SIZE))
        with _lock:
            for _ in range(_STARTS):
                # The control socket outlives a Ctrl-C here: other tracees depend on it.
                with contextlib.suppress(ConnectionError, EOFError):
                    good, answer = _tracer().ask(
                        Op.OPEN, (pid, token_address), (*fds, memfd.number, *program), _START_TIME
                    )
                    if good:
                        return flags
                    try:
                        raise answer
                    finally:
                        del answer  # as in `Channel.request`
    except TimeoutError:
        raise UnsupportedError(
            f"the tracer process does not answer within {_START_TIME:.0f} s"
        ) from None
    finally:
        memfd.close()
    raise UnsupportedError("the tracer process ends as soon as it has started")
