"""`Spawner`: starts processes for a test, and ends them all."""

from __future__ import annotations

import os
import subprocess
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias, final, overload

from procvm._base.closing import Closing
from procvm._hold.tracee import Tracee
from procvm.errors import UnsupportedError, WaitTimeoutError
from procvm.testing.birth import Arg, Birth, Child, Env, File, Pipes, finish, start, start_traced
from procvm.testing.compiler import Language, as_language, compile_source, language_of
from procvm.testing.keeper import keeper
from procvm.testing.keeper_process import end_all
from procvm.testing.spawned import Spawned

__all__ = ["Spawner", "open_spawners"]

Program: TypeAlias = str | Sequence[Arg] | Path


@final
class Spawner(Closing):
    """Starts processes when it is called, and ends them all at the end of its ``with``.

    Each process leads its own session, so no key of the terminal reaches it, and the processes
    that it starts are ended with it. If this process ends without leaving the ``with``, in any
    way, a keeper process ends them.
    """

    def __init__(
        self, cache: Path | None = None, *, lacks: Callable[[str], NoReturn] | None = None
    ) -> None:
        """Creates a spawner without processes.

        Args:
            cache: The folder for programs compiled from C source; by default one of the user.
            lacks: Called with the reason if the machine lacks something that a test needs, for
                example to skip the test; by default UnsupportedError is raised.
        """
        self._cache = cache
        self._lacks = lacks
        self._owner = os.getpid()
        self._children: list[Child] = []
        self._births: list[Birth] = []
        self._closed = False
        _spawners[:] = [found for found in _spawners if found() is not None]
        _spawners.append(weakref.ref(self))

    def lack(self, error: UnsupportedError) -> NoReturn:
        """Calls `lacks` with the reason that this machine lacks something, or raises `error`."""
        if self._lacks is not None:
            self._lacks(str(error))
        raise error

    @property
    def children(self) -> list[Tracee | Spawned]:
        """The processes that it started, in order."""
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
        language: Language | None = None,
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
        language: Language | None = None,
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
        language: Language | None = None,
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
        language: Language | None = None,
    ) -> Tracee | Spawned:
        """Starts a program and returns it, traced or not.

        Args:
            program: A list is a command: the program and its arguments. A string is source, and
                a path that ends in ``.c``, ``.cc``, ``.cpp``, ``.cxx`` or ``.rs`` a file of
                source; `compile_source` compiles them.
            traced: Whether to return a `Tracee`, which can be held, instead of a `Spawned`.
            stopped: Whether to hold it at its first instruction until `resume`, without limit.
            args: Arguments of a program compiled from source.
            stdin: As for subprocess.Popen; a pipe by default.
            stdout: As for subprocess.Popen; a pipe by default.
            stderr: As for subprocess.Popen; by default that of the test, which pytest captures.
            env: As for subprocess.Popen.
            cwd: As for subprocess.Popen.
            cflags: More arguments of the compiler.
            language: The language of the source: ``"c"``, ``"c++"`` or ``"rust"``; by default
                that of the file, and C for a string.

        Raises:
            OSError: The program cannot be started; the error is that of subprocess.Popen.
            CompilerError: The source does not compile.
            AccessDeniedError: The process may not be traced, or not be opened.
            UnsupportedError: There is no compiler.
        """
        if self._closed:
            raise ValueError("the spawner was closed, and has ended its processes")
        if stopped and not traced:
            raise ValueError("stopped=True needs a tracee; leave traced=True")
        argv = self._argv(program, args, cflags, language)
        pipes = Pipes(stdin, stdout, stderr)
        keeps = keeper()

        def begin() -> Child:
            with keeps.birth():
                if traced:
                    return start_traced(keeps, argv, pipes, env, cwd, stopped=stopped)
                return start(keeps, argv, pipes, env, cwd)

        birth = Birth(begin)
        self._births.append(birth)
        child = birth.result()
        self._children.append(child)
        self._births.remove(birth)
        return child.process

    def _argv(
        self,
        program: Program,
        args: Sequence[Arg],
        cflags: Sequence[str],
        language: Language | None,
    ) -> list[Arg]:
        if language is not None:
            language = as_language(language)
        if isinstance(program, str) and "{" not in program:
            raise ValueError(
                f"a string is source, and {program[:80]!r} has no {{; give a command as a list: "
                f"[{program[:80]!r}]"
            )
        name = "program"
        if isinstance(program, Path) and (language or language_of(program)):
            name = program.stem
            language = language or language_of(program)
            program = program.read_text("utf-8", "surrogateescape")
        if isinstance(program, str):
            language = language or "c"
            try:
                made = compile_source(
                    program, language=language, cflags=cflags, cache=self._cache, name=name
                )
            except UnsupportedError as error:
                self.lack(error)
            return [made, *args]
        if cflags or language:
            raise ValueError(
                "cflags and language are for source, and the program is a command; leave them out"
            )
        command = [program] if isinstance(program, os.PathLike) else list(program)
        return [*command, *args]

    def close(self) -> None:
        """Ends and reaps the processes that it started, and ends those that they started.

        A second call does nothing.

        Raises:
            WaitTimeoutError: A process has not ended within 10 seconds after SIGKILL.
        """
        if os.getpid() != self._owner:
            return  # a forked child of the test process must not kill its processes
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
                finish(child)
            except WaitTimeoutError as error:
                late.append(error)
            else:
                self._children.remove(child)
        if late:
            raise late.pop(0)
        _spawners[:] = [found for found in _spawners if found() not in (None, self)]


_spawners: list[weakref.ref[Spawner]] = []
"""The open spawners.

This is a list of weak references and not a WeakSet, whose callbacks are Python code that runs in a
deallocation, where a Ctrl-C is swallowed.
"""


def open_spawners() -> list[Spawner]:
    """Returns the spawners that are open."""
    return [spawner for found in _spawners if (spawner := found()) is not None]
