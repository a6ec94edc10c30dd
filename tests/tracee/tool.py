"""Tools that use procvm and then end in some way; each is a process of its own.

python -m tests.tracee.tool WHAT ARGUMENTS
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable

import procvm


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def cycle(pid: str) -> None:
    """Stops and resumes without end."""
    with procvm.attach(int(pid)) as tracee:
        say("cycling")
        while True:
            with tracee.stopped():
                pass
            tracee.stop()
            tracee.resume()


def hold(pid: str, longest: str = "60", how: str = "stop") -> None:
    """Holds a target, says so, and ends as the next line of its input says."""
    tracee = procvm.attach(int(pid), longest_hold=None if longest == "none" else float(longest))
    if how == "stop":
        tracee.stop()
        held = None
    else:
        held = tracee.stopped()
    say(f"held {os.getpid()}")
    order = sys.stdin.readline().strip()
    endings[order](tracee)
    del held


def _segv(_: procvm.Tracee) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(8)


def _abort(_: procvm.Tracee) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


def _raise(_: procvm.Tracee) -> None:
    raise RuntimeError("the tool fails")


def _exec(_: procvm.Tracee) -> None:
    os.execv("/bin/sleep", ["sleep", "1000"])


def _fork_and_end(_: procvm.Tracee) -> None:
    """Ends with a forked child left, which has copies of all that the tool had open."""
    child = os.fork()
    if child == 0:
        signal.pause()
    say(f"forked {child}")
    os._exit(0)


def _fork_and_resume(tracee: procvm.Tracee) -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    say(f"forked {child}")
    with contextlib.suppress(procvm.NotStoppedError):
        tracee.resume()
    say("resumed")
    signal.pause()


def _thread(tracee: procvm.Tracee) -> None:
    """Ends its main thread; another one waits for ever, as a daemon."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    _plain(tracee)


def _plain(_: procvm.Tracee) -> None:
    return


def _sys_exit(_: procvm.Tracee) -> None:
    raise SystemExit(0)


def _wait(_: procvm.Tracee) -> None:
    while True:
        signal.pause()


endings: dict[str, Callable[[procvm.Tracee], None]] = {
    "segv": _segv,
    "abort": _abort,
    "_exit": lambda _: os._exit(0),
    "exception": _raise,
    "exec": _exec,
    "fork": _fork_and_end,
    "fork and resume": _fork_and_resume,
    "thread": _thread,
    "plain": _plain,
    "sys.exit": _sys_exit,
    "wait": _wait,
}


def interrupted(pid: str, how: str) -> None:
    """Holds again and again; answers each Ctrl-C, and waits then for a line."""
    # Nothing of it may be interrupted but the holds.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    tracee = procvm.attach(int(pid), longest_hold=None)
    word = tracee.maps()[0].start
    say("ready")
    while sys.stdin.readline():
        inside = False
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            while True:
                if how == "with":
                    with tracee.stopped():
                        inside = True
                        for _ in range(100):
                            tracee.vm.read_bytes(word, 8)
                        inside = False
                elif how == "nested":
                    with tracee.stopped():
                        inside = True
                        with tracee.stopped() as held:
                            held.vm.read_bytes(word, 8)
                        inside = False
                else:
                    tracee.is_stopped()
                    with tracee.stopped():
                        inside = True
                        tracee.threads()
                        inside = False
        except KeyboardInterrupt:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            # Here, where the exception is still being handled, the target must run already.
            say("caught held" if inside else "caught")


def spawner() -> None:
    """Spawns and ends programs without end."""
    say("spawning")
    while True:
        with procvm.spawn(["sleep", "1000"], stopped=True) as tracee:
            tracee.resume()


def at_exit(pid: str) -> None:
    """Ends; an atexit function holds a target then."""

    def last() -> None:
        tracee = procvm.attach(int(pid), longest_hold=None)
        tracee.stop()
        say("held at exit")
        tracee.resume()
        tracee.close()

    tracee = procvm.attach(int(pid))
    atexit.register(last)
    with tracee, tracee.stopped():
        say("end")


if __name__ == "__main__":
    # A background job of a shell is started with these two ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    globals()[sys.argv[1]](*sys.argv[2:])
