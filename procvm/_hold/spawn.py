"""`attach` and `spawn`: how a process becomes a tracee."""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, Any, TypeAlias, cast

from procvm._base.fd import Fd
from procvm._hold.admission import to_admit
from procvm._hold.calls import Calls
from procvm._hold.client import open_channel
from procvm._hold.defaults import DEFAULT, Default, seconds_or
from procvm._hold.server.protocol import Op
from procvm._hold.tracee import Tracee
from procvm._live.image import open_image
from procvm._live.naming import open_target
from procvm.errors import Hint, NotStoppedError, ProcessExitedError, UnsupportedError

__all__ = ["attach", "spawn"]

_EXEC_TIMEOUT = 20.0
"""Seconds from the start of a process to its first instruction, on a busy machine."""

File: TypeAlias = int | IO[bytes] | None
Arg: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def attach(
    target: int | str,
    *,
    timeout: float | Default | None = DEFAULT,
    longest_hold: float | Default | None = DEFAULT,
) -> Tracee:
    """Opens a live process so that it can be held; between holds it runs, untraced.

    The process is held once, for an instant, to find out whether it can be.

    Args:
        target: Its pid or its name, as `procvm.open` takes it.
        timeout: Seconds that a stop or a step may take, this first stop too; None for no
            limit. By default `Tracee.default_timeout`, 2 seconds.
        longest_hold: Seconds after which a hold ends by itself; None for never. By default
            `Tracee.default_longest_hold`, 5 seconds.

    Raises:
        NoSuchProcessError: No process has the pid or the name.
        AmbiguousNameError: Several processes have the name.
        ProcessExitedError: It has ended.
        AlreadyTracedError: Another process traces it; `procvm.open` still works.
        AccessDeniedError: The kernel refuses to trace it; the message names the cause.
        StopTimeoutError: A thread did not stop in time.
    """
    timeout = seconds_or(timeout, Tracee.default_timeout)
    longest_hold = seconds_or(longest_hold, Tracee.default_longest_hold, "longest_hold")
    image = open_target(target)
    tracee = Tracee(image, Calls(image, timeout=timeout), longest_hold=longest_hold)
    try:
        if image.pid == os.getpid():
            raise UnsupportedError("a process cannot hold itself", hint=Hint("open"))
        tracee.stop()
        return _resumed(tracee)
    except BaseException:
        tracee.close()
        raise


# The trampoline waits until the tracer has seized it, and then execs the program. The program
# has to start as subprocess.Popen would start it, so the trampoline first undoes Python's own
# changes of signal actions. Under Yama's scope 1 it admits the tracer, which is not its ancestor
# (PR_SET_PTRACER).
_TRAMPOLINE = """
import marshal, os, signal, sys
setup, go, failed = map(int, sys.argv[1:4])
for fd in (setup, go, failed):
    os.set_inheritable(fd, False)
try:
    with open(setup, "rb") as file:
        paths, argv, env, blocked, tracer = marshal.load(file)
except EOFError:
    os._exit(127)
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
if env is None:
    with open("/proc/self/environ", "rb") as file:
        env = dict(line.split(b"=", 1) for line in file.read().split(b"\\0") if b"=" in line)
if tracer:
    import ctypes
    ctypes.CDLL(None).prctl(0x59616D61, *map(ctypes.c_ulong, (tracer, 0, 0, 0)))
os.write(failed, b"+")
if not os.read(go, 1):
    os._exit(127)
signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
last = telling = 0
for path in paths:
    try:
        os.execve(path, argv, env)
    except OSError as error:
        last = error.errno
        if last not in (2, 20) and not telling:
            telling = last
    except ValueError:
        telling = 13
os.write(failed, str(telling or last).encode())
os._exit(127)
"""


def spawn(
    argv: Sequence[Arg] | Arg,
    *,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    cwd: Arg | None = None,
    pass_fds: Sequence[int] = (),
    start_new_session: bool = False,
    stopped: bool = False,
    timeout: float | Default | None = DEFAULT,
    longest_hold: float | Default | None = DEFAULT,
) -> Tracee:
    """Starts a program as a tracee; the end of the ``with`` statement kills it.

    The arguments mean what they mean to subprocess.Popen; pipes are binary.

    Args:
        argv: The program and its arguments; a single string is the program.
        stdin: As subprocess.Popen.
        stdout: As subprocess.Popen.
        stderr: As subprocess.Popen.
        env: As subprocess.Popen.
        cwd: As subprocess.Popen.
        pass_fds: As subprocess.Popen.
        start_new_session: As subprocess.Popen.
        stopped: Whether the program is held at its first instruction, until `resume`.
        timeout: As `attach`; for later stops, not for the start.
        longest_hold: As `attach`.

    Raises:
        OSError: The program cannot be started, as from subprocess.Popen.
        AccessDeniedError: The kernel refuses to trace it.
    """
    timeout = seconds_or(timeout, Tracee.default_timeout)
    longest_hold = seconds_or(longest_hold, Tracee.default_longest_hold, "longest_hold")
    arguments = _arguments(argv)
    variables = None if env is None else _variables(env)
    tracer = to_admit()
    blocked = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    setup, setup_end = _pipe()
    go, go_end = _pipe()
    failed, failed_end = _pipe()
    passed = (setup.number, go.number, failed_end.number)
    start = _Start(
        [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, *map(str, passed)],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        pass_fds=(*passed, *pass_fds),
        start_new_session=start_new_session,
    )
    try:
        popen = start.popen()
        popen.args = [argv] if isinstance(argv, str | bytes | os.PathLike) else list(argv)
        del setup, go, failed_end
        with os.fdopen(os.dup(setup_end.number), "wb") as file:
            del setup_end
            paths = _paths(arguments[0], os.environb if variables is None else variables)
            marshal.dump((paths, arguments, variables, blocked, tracer), file)
        # Popen returns before its exec is done. After the trampoline's byte, the next exec is the
        # program's. If the trampoline ends early, the read returns at the end of the pipe.
        os.read(failed.number, 1)
        tracee = _become(popen, go_end, failed, timeout, longest_hold)
        return tracee if stopped else _resumed(tracee)
    except BaseException:
        start.give_up()
        raise


class _Start:
    """Starts a child so that Ctrl-C cannot leave it without an owner.

    KeyboardInterrupt comes only in the main thread. Within `subprocess.Popen` it could come after
    the fork and before the object exists, so another thread starts the child. The thread blocks
    SIGINT, and the child inherits the mask: otherwise Ctrl-C would make the trampoline's
    interpreter write a traceback.
    """

    def __init__(self, argv: list[str], **options: Any) -> None:
        self._argv = argv
        self._options = options
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._error: BaseException | None = None
        self._given_up = False

    def popen(self) -> subprocess.Popen[bytes]:
        """Starts the child.

        Raises:
            OSError: As subprocess.Popen, and so are its other errors.
        """
        thread = threading.Thread(target=self._run, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"no thread to start a process from: {error}") from None
        thread.join()
        if self._error is not None:
            raise self._error
        popen = self._popen
        if popen is None:
            raise OSError(errno.EAGAIN, "the thread that starts a process ended")
        return popen

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            popen = cast("subprocess.Popen[bytes]", subprocess.Popen(self._argv, **self._options))
        except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
            self._error = error
            return
        with self._lock:
            self._popen = popen
            given_up = self._given_up
        if given_up:
            _end(popen)

    def give_up(self) -> None:
        """Kills the child, also if its start is still under way."""
        with self._lock:
            self._given_up = True
            popen = self._popen
        if popen is not None:
            _end(popen)


def _end(popen: subprocess.Popen[bytes]) -> None:
    popen.kill()
    # Popen.__exit__ would also wait for pipes of the caller.
    popen.wait()
    for pipe in (popen.stdin, popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()


def _become(
    popen: subprocess.Popen[bytes],
    go_end: Fd,
    failed: Fd,
    timeout: float | None,
    longest_hold: float | None,
) -> Tracee:
    """Lets the trampoline exec the program, which is then held at its first instruction."""
    pidfd = Fd.of(os.pidfd_open, popen.pid)
    channel = open_channel(popen.pid, pidfd.number)
    try:
        try:
            channel.request(
                popen.pid,
                Op.AWAIT_EXEC,
                (_EXEC_TIMEOUT, longest_hold),
                fds=(go_end.number,),
                timeout=_EXEC_TIMEOUT,
            )
        except ProcessExitedError:
            code = os.read(failed.number, 16)
            if not code:
                raise
            name = popen.args[0] if isinstance(popen.args, list) else popen.args
            raise OSError(int(code), os.strerror(int(code)), name) from None
        image = open_image(popen.pid)
        files = image.open_files()
        channel.request(
            popen.pid,
            Op.IMAGE,
            (image.token_address,),
            fds=(files.mem.number, files.maps.number),
            timeout=_EXEC_TIMEOUT,
        )
    except BaseException:
        channel.close()
        raise
    calls = Calls(image, channel, timeout=timeout)
    return Tracee(image, calls, longest_hold=longest_hold, popen=popen)


def _resumed(tracee: Tracee) -> Tracee:
    """Ends the first hold, whose longest time may be over on a busy machine; returns `tracee`."""
    with suppress(NotStoppedError):
        tracee.resume()
    return tracee


def _arguments(argv: Sequence[Arg] | Arg) -> list[bytes]:
    if isinstance(argv, str | bytes | os.PathLike):
        return [os.fsencode(argv)]
    arguments = [os.fsencode(argument) for argument in argv]
    if not arguments:
        raise ValueError("argv is empty; give at least the program")
    if any(b"\0" in argument for argument in arguments):
        raise ValueError("embedded null byte")
    return arguments


def _variables(env: Mapping[str, str] | Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    variables = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
    for name, value in variables.items():
        if not name or b"=" in name[1:]:
            raise ValueError("illegal environment variable name")
        if b"\0" in name + value:
            raise ValueError("embedded null byte")
    return variables


def _pipe() -> tuple[Fd, Fd]:
    """Returns a pipe whose ends are numbered 3 or more, also if 0, 1 or 2 are free."""
    read_end, write_end = (
        Fd.of(partial(fcntl.fcntl, end.number, fcntl.F_DUPFD_CLOEXEC), 3)
        for end in Fd.pair(os.pipe2, os.O_CLOEXEC)
    )
    return read_end, write_end


def _paths(program: bytes, env: Mapping[bytes, bytes]) -> list[bytes]:
    """Returns where to look for the program, as subprocess does."""
    if os.path.dirname(program):
        return [program]
    path = env.get(b"PATH", os.fsencode(os.defpath))
    return [os.path.join(folder, program) for folder in path.split(b":")]
