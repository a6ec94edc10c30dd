"""`Spawner`: starts processes for a test, and ends them all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import (
    IO,
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    TypeAlias,
    final,
    overload,
)

from procvm._base.address import as_timeout
from procvm._base.closing import Closing
from procvm._hold.spawn import spawn
from procvm._hold.tracee import Tracee
from procvm._live.image import open_image
from procvm._live.process import Process
from procvm.errors import ProcessExitedError, ProcvmError, UnsupportedError, WaitTimeoutError
from procvm.testing.compiler import compile_c
from procvm.testing.keeper import Keeper, keeper
from procvm.testing.keeper_process import end_all

__all__ = ["Child", "Spawned", "Spawner", "open_spawners"]

File: TypeAlias = int | IO[bytes] | None
Arg: TypeAlias = str | bytes | os.PathLike[str]
Program: TypeAlias = str | Sequence[Arg] | Path
Env: TypeAlias = Mapping[str, str] | None

_OF_OPEN = ("_image", "_memory", "_vm")
_LONGEST_BIRTH = 30.0
_LONGEST_END = 10.0


@final
class Spawned(Process):
    """A process that was started and is not traced: a `Process` with its pipes.

    Nothing stops it between its first instruction and the moment when it is opened. So
    one that ends at once may have no memory to look at: that is a ProcessExitedError when
    it is used, and its exit status and its pipes are there all the same.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        with contextlib.suppress(ProcessExitedError):
            super().__init__(open_image(popen.pid))

    if not TYPE_CHECKING:  # to a checker it has no more than it has

        def __getattr__(self, name: str) -> NoReturn:
            if name in _OF_OPEN:
                raise ProcessExitedError(
                    f"process {self.pid} had ended before it could be opened", pid=self.pid
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return super().__repr__() if self._was_opened else f"<{type(self).__name__} {self.pid}>"

    @property
    def _was_opened(self) -> bool:
        return "_image" in vars(self)

    @property
    def pid(self) -> int:
        """The pid it was started with."""
        return self._popen.pid

    def is_alive(self) -> bool:
        """Returns whether it has not ended; see `Process.is_alive`."""
        return self._was_opened and super().is_alive()

    def close(self) -> None:
        """Lets go of its memory; see `Process.close`."""
        if self._was_opened:
            super().close()

    @property
    def stdin(self) -> Any:
        """The pipe to it, if one was asked for."""
        return self._popen.stdin

    @property
    def stdout(self) -> Any:
        """The pipe from it, if one was asked for."""
        return self._popen.stdout

    @property
    def stderr(self) -> Any:
        """The pipe from its standard error, if one was asked for."""
        return self._popen.stderr

    @property
    def returncode(self) -> int | None:
        """The exit status as `wait` or `poll` last saw it."""
        return self._popen.returncode

    def poll(self) -> int | None:
        """Returns the exit status, or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until it has ended, and reaps it; returns the exit status.

        Raises:
            WaitTimeoutError: It has not ended in time.
            ValueError: `timeout` is negative, infinite or nan.
        """
        timeout = as_timeout(timeout)
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise WaitTimeoutError(
                f"process {self.pid} has not ended within {timeout} s", pid=self.pid
            ) from None

    def kill(self) -> None:
        """Kills it; it does not matter whether it has ended already."""
        self._popen.kill()


class _Pipes(NamedTuple):
    stdin: File
    stdout: File
    stderr: File


class Child:
    """A process that a spawner started, and what it needs to end it.

    Attributes:
        process: It, as the test has it.
        pidfd: Of its own: the test may close the process.
    """

    def __init__(self, process: Tracee | Spawned, pidfd: int) -> None:
        self.process = process
        self.pidfd = pidfd


class _Birth:
    """The start of one process, in a thread of its own.

    Ctrl-C and the alarm of pytest-timeout are raised in the main thread. So none comes
    between the fork and the moment when the process is known to those that end it.
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
        """Starts it, and waits for it."""
        self._thread.start()
        self._done.wait()
        self._thread.join()
        if self.error is not None:
            raise self.error
        assert self.child is not None
        return self.child

    def settle(self) -> None:
        """Waits for one that was interrupted, or sees to it that it never begins."""
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


@final
class Spawner(Closing):
    """Starts processes, and ends them all: a context manager, and a function to call.

    Each is the leader of a session of its own, so that no key of a terminal reaches it, and what it
    started itself is ended with it. Should this process end in any way without leaving the
    ``with``, a keeper ends them.
    """

    def __init__(
        self, cache: Path | None = None, *, lacks: Callable[[str], NoReturn] | None = None
    ) -> None:
        """Makes one that has started nothing.

        Args:
            cache: Where programs made of C source are kept; without it a folder of the user's.
            lacks: What to do where the machine lacks something that a test asks for, given the
                reason: to skip the test; without it UnsupportedError is raised.
        """
        self._cache = cache
        self._lacks = lacks
        self._owner = os.getpid()
        self._children: list[Child] = []
        self._births: list[_Birth] = []
        self._closed = False
        _spawners[:] = [found for found in _spawners if found() is not None]
        _spawners.append(weakref.ref(self))

    def lack(self, error: UnsupportedError) -> NoReturn:
        """Says that this machine lacks something, in the way that was asked for."""
        if self._lacks is not None:
            self._lacks(str(error))
        raise error

    @property
    def children(self) -> list[Tracee | Spawned]:
        """What it started, in that order."""
        return [child.process for child in self._children]

    @overload
    def __call__(
        self,
        program: Program,
        *,
        traced: Literal[True] = True,
        stopped: bool = False,
        args: Sequence[Arg] = (),
        stdin: File = subprocess.PIPE,
        stdout: File = subprocess.PIPE,
        stderr: File = None,
        env: Env = None,
        cwd: Arg | None = None,
        cflags: Sequence[str] = (),
    ) -> Tracee: ...
    @overload
    def __call__(
        self,
        program: Program,
        *,
        traced: Literal[False],
        stopped: Literal[False] = False,
        args: Sequence[Arg] = (),
        stdin: File = subprocess.PIPE,
        stdout: File = subprocess.PIPE,
        stderr: File = None,
        env: Env = None,
        cwd: Arg | None = None,
        cflags: Sequence[str] = (),
    ) -> Spawned: ...
    @overload
    def __call__(
        self,
        program: Program,
        *,
        traced: bool,
        stopped: bool = False,
        args: Sequence[Arg] = (),
        stdin: File = subprocess.PIPE,
        stdout: File = subprocess.PIPE,
        stderr: File = None,
        env: Env = None,
        cwd: Arg | None = None,
        cflags: Sequence[str] = (),
    ) -> Tracee | Spawned: ...
    def __call__(
        self,
        program: Program,
        *,
        traced: bool = True,
        stopped: bool = False,
        args: Sequence[Arg] = (),
        stdin: File = subprocess.PIPE,
        stdout: File = subprocess.PIPE,
        stderr: File = None,
        env: Env = None,
        cwd: Arg | None = None,
        cflags: Sequence[str] = (),
    ) -> Tracee | Spawned:
        """Starts a program.

        Args:
            program: A list is a command: the program and its arguments. A string is C source, and
                a path that ends in ``.c`` a file of it; they are compiled once, see `compile_c`.
            traced: Whether it is a `Tracee`, which can be held; else it is a `Spawned`.
            stopped: Whether it is held at its first instruction until `resume`, for however long.
            args: Arguments of a program made of C source.
            stdin: As subprocess.Popen; a pipe if it is not given.
            stdout: As subprocess.Popen; a pipe if it is not given.
            stderr: As subprocess.Popen; if it is not given that of the test, which pytest
                captures.
            env: As subprocess.Popen.
            cwd: As subprocess.Popen.
            cflags: More arguments of the compiler.

        Raises:
            OSError: The program can not be started, as from subprocess.Popen.
            CompilerError: The source does not compile.
            AccessDeniedError: It may not be traced, or not be opened.
            UnsupportedError: There is no compiler.
        """
        if self._closed:
            raise ValueError("the spawner was closed, and has ended its processes")
        if stopped and not traced:
            raise ValueError("stopped=True needs a tracee; leave traced=True")
        argv = self._argv(program, args, cflags)
        pipes = _Pipes(stdin, stdout, stderr)
        keeps = keeper()

        def start() -> Child:
            with keeps.birth():
                if traced:
                    return _start_traced(keeps, argv, pipes, env, cwd, stopped=stopped)
                return _start(keeps, argv, pipes, env, cwd)

        birth = _Birth(start)
        self._births.append(birth)
        child = birth.result()
        self._children.append(child)
        self._births.remove(birth)
        return child.process

    def _argv(self, program: Program, args: Sequence[Arg], cflags: Sequence[str]) -> list[Arg]:
        if isinstance(program, str) and "{" not in program:
            raise ValueError(
                f"a string is C source, and {program[:80]!r} is none; give a command as a list: "
                f"[{program[:80]!r}]"
            )
        name = "program"
        if isinstance(program, Path) and program.suffix == ".c":
            name = program.stem
            program = program.read_text("utf-8", "surrogateescape")
        if isinstance(program, str):
            try:
                return [compile_c(program, cflags=cflags, cache=self._cache, name=name), *args]
            except UnsupportedError as error:
                self.lack(error)
        if cflags:
            raise ValueError("cflags are for C source, and the program is no such")
        command = [program] if isinstance(program, os.PathLike) else list(program)
        return [*command, *args]

    def close(self) -> None:
        """Ends all that it started and all that they started, and reaps it. Twice is fine.

        Raises:
            WaitTimeoutError: One has not ended by a SIGKILL within some seconds.
        """
        if os.getpid() != self._owner:
            return  # a child that the test process forked has none of them
        self._closed = True
        for birth in list(self._births):
            birth.settle()
            if birth.child is not None and birth.child not in self._children:
                self._children.append(birth.child)
            self._births.remove(birth)
        end_all({child.process.pid: child.pidfd for child in self._children})
        late: list[WaitTimeoutError] = []
        for child in self._children[::-1]:
            try:
                _finish(child)
            except WaitTimeoutError as error:
                late.append(error)
            else:
                self._children.remove(child)
        if late:
            raise late.pop(0)
        _spawners[:] = [found for found in _spawners if found() not in (None, self)]


_spawners: list[weakref.ref[Spawner]] = []
"""Those that are open.

Not a WeakSet: its callbacks are Python that runs in a deallocation, where a Ctrl-C is swallowed.
"""


def open_spawners() -> list[Spawner]:
    """Returns the spawners that are open."""
    return [spawner for found in _spawners if (spawner := found()) is not None]


def _start_traced(
    keeps: Keeper,
    argv: list[Arg],
    pipes: _Pipes,
    env: Env,
    cwd: Arg | None,
    *,
    stopped: bool,
) -> Child:
    # It runs nothing before the keeper has it, and is held for as long as the test likes.
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


def _start(keeps: Keeper, argv: list[Arg], pipes: _Pipes, env: Env, cwd: Arg | None) -> Child:
    popen = subprocess.Popen(
        argv,
        stdin=pipes.stdin,
        stdout=pipes.stdout,
        stderr=pipes.stderr,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        pidfd = os.pidfd_open(popen.pid)
        keeps.keep(popen.pid, pidfd)
        return Child(Spawned(popen), pidfd)
    except BaseException:
        popen.kill()
        popen.__exit__(None, None, None)
        raise


def _finish(child: Child) -> None:
    """Reaps a process that was killed, and closes all that belongs to it."""
    process = child.process
    with contextlib.suppress(ProcvmError):
        process.close()  # first: a tracer that holds it still would have to reap it before us
    process.wait(_LONGEST_END)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()  # what was not flushed has no reader any more
    with contextlib.suppress(OSError, UnsupportedError):
        keeper().drop(process.pid)
    os.close(child.pidfd)
