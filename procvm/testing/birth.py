"""The start and the end of one process of a `Spawner`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import IO, NamedTuple, TypeAlias, cast

from procvm._hold.admission import admission
from procvm._hold.spawn import spawn
from procvm._hold.tracee import Tracee
from procvm.errors import ProcvmError, UnsupportedError, WaitTimeoutError
from procvm.testing.keeper import Keeper, keeper
from procvm.testing.spawned import Spawned

__all__ = ["Arg", "Birth", "Child", "Env", "File", "Pipes", "finish", "start", "start_traced"]

File: TypeAlias = int | IO[bytes] | None
Arg: TypeAlias = str | bytes | os.PathLike[str]
Env: TypeAlias = Mapping[str, str] | None

_LONGEST_BIRTH = 30.0
_LONGEST_END = 10.0


class Pipes(NamedTuple):
    """The standard streams of a process, as subprocess.Popen takes them."""

    stdin: File
    stdout: File
    stderr: File


class Child:
    """A process that a spawner started, with a pidfd to end it.

    Attributes:
        process: The object that the test has.
        pidfd: A pidfd of the spawner, since the test may close the process.
    """

    def __init__(self, process: Tracee | Spawned, pidfd: int) -> None:
        self.process = process
        self.pidfd = pidfd


class Birth:
    """The start of one process, in a thread of its own.

    Ctrl-C and the alarm of pytest-timeout raise in the main thread. If the main thread
    forked, they could come before the process is on the list of those to end.
    """

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self._thread = threading.Thread(target=self._run, name="procvm-spawn", daemon=True)
        self._lock = threading.Lock()
        self._state = ""
        self._done = threading.Event()
        self.child: Child | None = None
        self.error: BaseException | None = None

    def _run(self) -> None:
        with self._lock:
            if self._state == "cancelled":
                return
            self._state = "begun"
        try:
            self.child = self._start()
        except BaseException as error:  # noqa: BLE001 (raised by `result`)
            self.error = error
        finally:
            self._done.set()

    def result(self) -> Child:
        """Starts the process, waits until it has started, and returns it."""
        self._thread.start()
        self._done.wait()
        self._thread.join()
        if self.error is not None:
            raise self.error
        return cast("Child", self.child)

    def settle(self) -> None:
        """Waits for a start that was interrupted, or cancels it if it has not begun."""
        with self._lock:
            if not self._state:
                self._state = "cancelled"
            if self._state == "cancelled":
                return
        if not self._done.wait(_LONGEST_BIRTH):
            raise WaitTimeoutError(
                f"a process was not started within {_LONGEST_BIRTH} s; the keeper ends it with "
                "this one",
                pid=os.getpid(),
            )


def start_traced(
    keeps: Keeper,
    argv: list[Arg],
    pipes: Pipes,
    env: Env,
    cwd: Arg | None,
    *,
    stopped: bool,
) -> Child:
    """Starts a `Tracee`, known to the keeper before its first instruction; may leave it held."""
    # Stopped: otherwise it could fork before the keeper knows it. No longest hold: a test may
    # keep it stopped in a debugger for minutes.
    tracee = spawn(
        argv,
        stdin=pipes.stdin,
        stdout=pipes.stdout,
        stderr=pipes.stderr,
        env=env,
        cwd=cwd,
        start_new_session=True,
        stopped=True,
        longest_hold=None,
    )
    try:
        child = Child(tracee, os.pidfd_open(tracee.pid))
        keeps.keep(tracee.pid, child.pidfd)
        if not stopped:
            tracee.resume()
    except BaseException:
        tracee.__exit__(None, None, None)
        raise
    return child


def start(keeps: Keeper, argv: list[Arg], pipes: Pipes, env: Env, cwd: Arg | None) -> Child:
    """Starts a process that is not traced but may be, and tells the keeper about it."""
    popen = subprocess.Popen(
        argv,
        stdin=pipes.stdin,
        stdout=pipes.stdout,
        stderr=pipes.stderr,
        env=env,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=admission(),  # noqa: PLW1509 (one system call)
    )
    try:
        pidfd = os.pidfd_open(popen.pid)
        keeps.keep(popen.pid, pidfd)
        return Child(Spawned(popen), pidfd)
    except BaseException:
        popen.kill()
        popen.__exit__(None, None, None)
        raise


def finish(child: Child) -> None:
    """Reaps a killed process, and closes its pipes and descriptors."""
    process = child.process
    with contextlib.suppress(ProcvmError):
        # First: a tracer that still holds it would have to reap it before `wait` could.
        process.close()
    process.wait(_LONGEST_END)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()  # flushing to a process that has ended fails with EPIPE
    with contextlib.suppress(OSError, UnsupportedError):
        keeper().drop(process.pid)
    os.close(child.pidfd)
