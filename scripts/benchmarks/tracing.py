"""What it costs to hold a target still: stops, atomics, and the way to the first stop."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from children import Peer, Stopper, Target
from clock import Contender, Each
from groups import Goal, Group, Scene, at_most, median_at_most
from peers import TRACERS

import procvm
from procvm import u64

__all__ = ["TRACING"]

_LEN = 1 << 20
_MANY = 1000
_THREADS = 1000
_STOP_TIMEOUT = 10.0

# A tool of its own, as any program that uses procvm is; the import is behind it.
_FIRST = """
import os, sys, time, procvm
pid = int(sys.argv[1])
os.sched_setaffinity(0, map(int, sys.argv[2:]))
start = time.perf_counter_ns()
tracee = procvm.attach(pid)
tracee.stop()
print(time.perf_counter_ns() - start)
tracee.close()
"""

_C = "C"
_STOP, _WITH = "stop(); resume()", "with stopped(): pass"
_OUTSIDE, _INSIDE = "atomic_compare_exchange", "atomic_compare_exchange, held"
_RUNNING, _BARE = "the tracer runs already", "python -I -S -c pass"
_FRESH, _FRESH_FREE = "the first of a program", "the same, on all processors"
_PROCVM = "procvm"


def _each(once: Callable[[], object], after: Callable[[], object] | None = None) -> Each:
    """Returns a run that keeps how long each call of `once` took; `after` all, one of `after`."""

    def times(n: int) -> list[int]:
        clock = time.perf_counter_ns
        found = []
        for _ in range(n):
            start = clock()
            once()
            found.append(clock() - start)
        if after is not None:
            after()
        return found

    return Each(times)


def _target(scene: Scene, *how: str) -> Target:
    return scene.stack.enter_context(Target(scene.program, _LEN, *how))


def _tracee(scene: Scene, target: Target) -> procvm.Tracee:
    return scene.stack.enter_context(procvm.attach(target.pid, longest_hold=None))


def _status(pid: int, key: str) -> int:
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def _place(pid: int, cpus: set[int]) -> None:
    for tid in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(tid), cpus)


def _give_all_cpus(scene: Scene, tracee: procvm.Tracee) -> None:
    """Lets the tool, the tracer and the target run where the kernel wants, for this group."""
    tracee.stop()
    # Who traces is a thread, and the field has its number.
    tracer = _status(_status(tracee.pid, "TracerPid"), "Tgid")
    tracee.resume()
    for pid in (os.getpid(), tracer):
        scene.stack.callback(_place, pid, os.sched_getaffinity(pid))
        _place(pid, scene.cpus)
    _place(tracee.pid, scene.cpus)


def _stops(scene: Scene, target: Target, tracee: procvm.Tracee, name: str) -> list[Contender]:
    """Returns the ways to stop and resume it; `name` is how C does it."""

    def stop_and_resume() -> None:
        tracee.stop(_STOP_TIMEOUT)
        tracee.resume()

    def stopped() -> None:
        with tracee.stopped(_STOP_TIMEOUT):
            pass

    c = Each(Stopper(scene.library, target).times(name))
    return [
        Contender(_C, c, _MANY),
        Contender(_STOP, _each(stop_and_resume), _MANY),
        # Leaving a `with` waits for nothing; the answer comes when the last hold is over.
        Contender(_WITH, _each(stopped, after=tracee.is_stopped), _MANY),
    ]


def _stops_of_one(scene: Scene, *how: str, everywhere: bool = False) -> list[Contender]:
    target = _target(scene, *how)
    tracee = _tracee(scene, target)
    if everywhere:
        _give_all_cpus(scene, tracee)
    return _stops(scene, target, tracee, "trace_stop_resume")


def _stops_of_many(scene: Scene) -> list[Contender]:
    target = _target(scene, "threads", str(_THREADS))
    return _stops(scene, target, _tracee(scene, target), "trace_stop_all_resume")


def _outside(scene: Scene, *, everywhere: bool = False) -> list[Contender]:
    target = _target(scene)
    tracee = _tracee(scene, target)
    if everywhere:
        _give_all_cpus(scene, tracee)
    vm, at = tracee.vm, target.address
    by_c = Stopper(scene.library, target).times("trace_exchange")
    return [
        Contender(_C, Each(by_c), _MANY),
        Contender(_OUTSIDE, _each(lambda: vm.atomic_compare_exchange(at, u64, 0, 0)), _MANY),
        Contender("atomic_load", _each(lambda: vm.atomic_load(at, u64)), _MANY),
    ]


def _inside(scene: Scene) -> list[Contender]:
    # Two targets: one is held by the tracer all the time, and C can not trace it as well.
    target = _target(scene)
    held = scene.stack.enter_context(_tracee(scene, target).stopped())
    vm, at = held.vm, target.address
    by_c = Stopper(scene.library, _target(scene)).times("trace_exchange_held")
    return [
        Contender(_C, Each(by_c), _MANY),
        Contender(_INSIDE, _each(lambda: vm.atomic_compare_exchange(at, u64, 0, 0)), _MANY),
        Contender("atomic_load, held", _each(lambda: vm.atomic_load(at, u64)), _MANY),
    ]


def _first_stop(scene: Scene) -> list[Contender]:
    target = _target(scene)
    tracee = _tracee(scene, target)  # starts the tracer
    tracee.stop()
    tracee.resume()

    def running(n: int) -> list[int]:
        found = []
        for _ in range(n):
            start = time.perf_counter_ns()
            tracee = procvm.attach(target.pid)
            tracee.stop()
            found.append(time.perf_counter_ns() - start)
            tracee.close()
        return found

    def fresh(cpus: set[int]) -> Each:
        command = [sys.executable, "-c", _FIRST, str(target.pid), *map(str, cpus)]
        return Each(lambda n: [int(subprocess.check_output(command)) for _ in range(n)])

    def bare() -> None:
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)

    return [
        Contender(_C, Each(Stopper(scene.library, target).times("trace_stop")), _MANY),
        Contender(_RUNNING, Each(running), _MANY),
        Contender(_FRESH, fresh(os.sched_getaffinity(0)), 1),
        Contender(_FRESH_FREE, fresh(scene.cpus), 1),
        Contender(_BARE, _each(bare), 1),
    ]


def _attaches(scene: Scene) -> list[Contender]:
    target = _target(scene)

    def procvm_attaches() -> None:
        with procvm.attach(target.pid) as tracee:
            tracee.stop()
            tracee.vm.read_val(target.address, u64)

    found = [
        Contender(_C, Each(Stopper(scene.library, target).times("trace_load")), _MANY),
        Contender(_PROCVM, _each(procvm_attaches), _MANY),
    ]
    for name in TRACERS:
        peer = Peer(name, _target(scene), "attach")
        scene.stack.callback(peer.close)
        if peer.refusal:
            print(f"{name}, attaching, does not run here: {peer.refusal}")
        else:
            found.append(Contender(name, peer.run(8), _MANY))
    return found


_STOP_GOALS: dict[str, list[Goal]] = {
    name: [at_most(name, _C, 3), median_at_most(name, 150)] for name in (_STOP, _WITH)
}

TRACING = [
    Group(
        "Stop and resume: one thread that sleeps",
        "All on one processor, as everything above. *C* traces the target itself, from the thread "
        "that measures: `PTRACE_SEIZE`, `PTRACE_INTERRUPT`, `waitpid`, `PTRACE_DETACH`. procvm has "
        "its tracer make these calls, and some that find out that no thread was missed: a `stop` "
        "and a `resume` are two questions and two answers, and each is a change from one process "
        "to the other and back. The end of a `with` is the end of a socket, which the tracer sees "
        "when it gets to it: the tool does not wait for that, but the next stop does.",
        _stops_of_one,
        unit="us",
        goals=_STOP_GOALS,
    ),
    Group(
        "Stop and resume: one thread that sleeps, wherever the kernel puts it",
        "The same, and tool, tracer and target may use every processor. To wake up one that idles "
        "takes longer than to change between two processes, above all in a virtual machine.",
        partial(_stops_of_one, everywhere=True),
        unit="us",
        goals=_STOP_GOALS,
    ),
    Group(
        "Stop and resume: one thread that spins, wherever the kernel puts it",
        "A target that never sleeps keeps a processor busy, and has to be interrupted there.",
        lambda scene: _stops_of_one(scene, "spin", everywhere=True),
        unit="us",
        goals=_STOP_GOALS,
    ),
    Group(
        "Stop and resume: 1,000 threads that sleep",
        "*C* lists the threads once, asks all to stop before it waits for the first, and would "
        "miss one that is born meanwhile.",
        _stops_of_many,
        unit="ms",
        goals={name: [median_at_most(name, 150_000)] for name in (_STOP, _WITH)},
    ),
    Group(
        "Compare and exchange, which stops the target for itself",
        "One word of private memory of a target with one thread, which runs before and after. *C* "
        "stops it, reads by `PTRACE_PEEKDATA`, compares, writes by `PTRACE_POKEDATA` and lets go. "
        "procvm does so in its tracer, asks whether the word may be written by the target, and "
        "whether another process runs in the same address space.",
        _outside,
        unit="us",
        goals={_OUTSIDE: [median_at_most(_OUTSIDE, 200)]},
    ),
    Group(
        "Compare and exchange, which stops the target for itself, wherever the kernel puts it",
        "The same, and tool, tracer and target may use every processor.",
        partial(_outside, everywhere=True),
        unit="us",
        goals={_OUTSIDE: [median_at_most(_OUTSIDE, 200)]},
    ),
    Group(
        "Compare and exchange in a hold",
        "The target stands still for all of them. *C* reads and writes by ptrace, two calls.",
        _inside,
        unit="us",
        goals={_INSIDE: [median_at_most(_INSIDE, 5)]},
    ),
    Group(
        "From nothing to the first stop",
        "From before `procvm.attach` to after `stop`. The first of a program starts the tracer, "
        "and that is a Python: what one takes that does nothing is shown too.",
        _first_stop,
        unit="us",
        goals={
            _RUNNING: [median_at_most(_RUNNING, 2000)],
            **{name: [median_at_most(name, 100_000)] for name in (_FRESH, _FRESH_FREE)},
        },
    ),
    Group(
        "Attach, stop, read a word, let go",
        "Against the peers that trace. Each has a child of its own and attaches anew each time; "
        "the debuggers themselves, and procvm's tracer, are there already. procvm opens the "
        "program by descriptors that no other can take the place of, gives it a thread of the "
        "tracer, holds it once for an instant to see that it can be, then holds it for the read, "
        "and takes all that back. Reuse one `Tracee` for repeated access to the same target.",
        _attaches,
        unit="us",
    ),
]
