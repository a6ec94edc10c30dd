"""Tools that use procvm and then end in some way; each is a process of its own.

python -m tests.tracee.tool WHAT ARGUMENTS
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable

import procvm
from tests.support.patience import PATIENCE, USUAL, be_patient
from tests.support.procfs import tracer_of


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
    """Holds a target, says so and by which tracer, and ends as the next line of its input says."""
    with procvm.attach(int(pid), longest_hold=None) as first, first.stopped():
        tracer = tracer_of(int(pid))
    tracee = procvm.attach(int(pid), longest_hold=None if longest == "none" else float(longest))
    if how == "stop":
        tracee.stop()
        held = None
    else:
        held = tracee.stopped()
    say(f"held {tracer}")
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


ENOUGH = 20
"""Holds, and refusals, that a tool meets in a race with another one before it says so."""


def race(pid: str) -> None:
    """Attaches and holds until a line comes; tells how often, how often refused, and by whom."""
    held = 0
    ours: set[int] = set()
    told: Counter[int] = Counter()
    said = False
    say("racing")
    while not select.select([0], [], [], 0)[0]:
        try:
            with procvm.attach(int(pid)) as tracee, tracee.stopped():
                ours.add(tracer_of(int(pid)))
                held += 1
        except procvm.AlreadyTracedError as error:
            told[error.tracer_pid] += 1
        if not said and min(held, told.total()) >= ENOUGH:
            say("met")
            said = True
    say(json.dumps([held, told.total(), sorted(ours), sorted(told)]))


def step(pid: str) -> None:
    """Steps one thread of a held target without end."""
    with procvm.attach(int(pid)) as tracee:
        tracee.stop()
        say("stepping")
        while True:
            tracee.step()


def go_on(pid: str) -> None:
    """Lets a held target go on to its next event, tells it, and waits."""
    tracee = procvm.attach(int(pid), longest_hold=None)
    tracee.stop()
    say("going")
    event = tracee.cont()
    say(f"{event.kind} {event.signo}" if event else "nothing")
    _wait(tracee)


class _Late:
    """Holds a target when it is collected, which is when the interpreter ends."""

    def __init__(self, tracee: procvm.Tracee) -> None:
        self.tracee = tracee

    def __del__(self) -> None:
        try:
            self.tracee.stop()
            os.write(1, b"held in del\n")
        except BaseException as error:  # noqa: BLE001 (told to the test)
            os.write(1, f"{type(error).__name__} in del\n".encode())


def in_del(pid: str) -> None:
    """Ends; an object's `__del__` holds a target then, and never lets go."""
    # A cycle, so that it is collected at the very end.
    late = _Late(procvm.attach(int(pid), longest_hold=None))
    late.__dict__["itself"] = late
    gc.disable()
    say("end")


def held_at_exit(pid: str) -> None:
    """Ends; an atexit function holds a target then, and never lets go."""
    tracee = procvm.attach(int(pid), longest_hold=None)
    atexit.register(say, "held at exit")
    atexit.register(tracee.stop)
    say("end")


def held_by_a_thread(pid: str) -> None:
    """Ends its main thread while a daemon is inside the with of a hold."""
    inside = threading.Event()

    def hold_on() -> None:
        with procvm.attach(int(pid), longest_hold=None) as tracee, tracee.stopped():
            inside.set()
            threading.Event().wait()

    threading.Thread(target=hold_on, daemon=True).start()
    inside.wait()
    say("end")


def rounds(pid: str, word: str) -> None:
    """For each line, a number, uses a target so often; answers what was raised.

    The number is followed by a word where a tracer is made to fail, which may never answer then.
    """
    failures: Counter[str] = Counter()
    address = int(word)
    tracer = 0
    timeout = PATIENCE

    def attempt(name: str, use: Callable[[], object]) -> None:
        try:
            use()
        except procvm.ProcvmError as error:
            failures[f"{name}: {type(error).__name__}"] += 1
        except BaseException as error:  # noqa: BLE001 (told to the test)
            kind = f"{type(error).__name__} {getattr(error, 'errno', None) or ''}".strip()
            frames = traceback.extract_tb(error.__traceback__)
            where = [f"{os.path.basename(f.filename)}:{f.lineno}" for f in frames]
            failures[f"{name}: foreign {kind} at {where[-1]}"] += 1

    def exchange(vm: procvm.VmSpace) -> None:
        vm.atomic_compare_exchange(address, procvm.u64, 0, 0)

    def in_a_with(tracee: procvm.Tracee) -> None:
        with tracee.stopped() as held:
            held.vm.read_val(address, procvm.u64)
            exchange(held.vm)

    def look() -> None:
        nonlocal tracer
        tracer = tracer_of(int(pid))

    def once() -> None:
        with procvm.attach(int(pid), timeout=timeout) as tracee:
            attempt("stop", tracee.stop)
            with contextlib.suppress(OSError, ValueError):
                look()
            attempt("exchange", lambda: exchange(tracee.vm))
            attempt("step", tracee.step)
            attempt("resume", tracee.resume)
            attempt("with", lambda: in_a_with(tracee))
            attempt("exchange outside", lambda: exchange(tracee.vm))

    say(f"ready {os.getpid()}")
    while line := sys.stdin.readline():
        failures.clear()
        number, *failing = line.split()
        timeout = USUAL if failing else PATIENCE
        for _ in range(int(number)):
            attempt("attach", once)
        gc.collect()
        fds: list[str] = []
        while not fds:
            with contextlib.suppress(OSError):  # this call may be the one that fails
                fds = sorted(map(_kind_of, os.listdir("/proc/self/fd")))
        say(json.dumps([failures, fds, tracer]))


def _kind_of(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").partition(":[")[0]
    except OSError:
        return ""  # the one that listed the directory


if __name__ == "__main__":
    # A background job of a shell is started with these two ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    be_patient()
    globals()[sys.argv[1]](*sys.argv[2:])
