"""A step runs one instruction, and no SIGTRAP of it ever reaches the target."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import procvm
from procvm import u64
from procvm._linux.perf_event import SLOTS, HardwareBreakpoint, is_exact
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import assert_free, state_of, states, status_field, tracer_of

TRAP = 1 << (signal.SIGTRAP - 1)


def pending(pid: int) -> int:
    return int(status_field(pid, "SigPnd"), 16) | int(status_field(pid, "ShdPnd"), 16)


def test_a_step_of_a_blocked_call_leaves_no_trap() -> None:
    """The thread waits in read: the step times out, nothing is pending, and the call goes on."""
    for _ in range(15):
        with Child(["/bin/cat"]) as child:
            assert child.ask("begin") == "begin"
            assert eventually(lambda: state_of(child.pid) == "S")
            with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
                with pytest.raises(procvm.StopTimeoutError):
                    tracee.step(timeout=0.01)
                assert not pending(child.pid) & TRAP
                assert tracee.is_stopped()
            assert child.ask("line") == "line"


def test_the_tool_killed_in_the_step_of_a_blocked_call_harms_nothing() -> None:
    """SIGKILL, SIGTERM and SIGINT of the tool while its step waits: the target runs on."""
    tool = """
import sys, procvm
sys.stdin.readline()
tracee = procvm.attach(int(sys.argv[1]), longest_hold=None)
tracee.stop()
print("steps", flush=True)
tracee.step(timeout=30)
"""
    for signo in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) * 3:
        with (
            Child(["/bin/cat"]) as child,
            Child([sys.executable, "-c", tool, str(child.pid)], stderr=subprocess.DEVNULL) as user,
        ):
            assert child.ask("begin") == "begin"
            assert eventually(lambda: state_of(child.pid) == "S")
            user.send("go")
            assert user.line() == "steps"
            user.signal(signo)
            user.popen.wait()
            assert_free(child.pid)
            assert child.ask("line") == "line"


@pytest.mark.parametrize("mode", ["waits", "ignores", "handles"])
def test_the_tracer_killed_after_a_step_harms_nothing(mode: str) -> None:
    """Whatever the target does with SIGTRAP, none is pending or delivered after a step."""
    for steps in (1, 2, 3, 10):
        with Child([compiled("trace_events"), mode, "1"]) as child:
            (word,) = child.hexes()
            with procvm.attach(child.pid, longest_hold=None) as tracee:
                tracee.stop()
                child.send("go")
                for _ in range(steps):
                    tracee.step()
                os.kill(tracer_of(child.pid), signal.SIGKILL)
                assert_free(child.pid)
                assert child.line() == "started"
                with procvm.open(child.pid) as process:
                    assert process.vm.read_val(word, u64) == 0


def test_steps_run_one_instruction_each() -> None:
    """Ten steps of a spinning thread move its counter as the instructions in its loop do."""
    with Child([compiled("trace_events"), "spins", "1"]) as child:
        child.hexes()
        assert child.ask("go") == "started"
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            (tid,) = {thread.tid for thread in tracee.threads()} - {child.pid}
            places = []
            for _ in range(12):
                tracee.step(tid)
                places.append(tracee.registers(tid)["rip"])
            loop = len(set(places))
            assert 2 <= loop <= 6
            # The loop comes round: the same places in the same order.
            assert places[loop:] == places[: len(places) - loop]
            text = Path(f"/proc/{child.pid}/task/{tid}/status").read_text()
            assert f"SigPnd:\t{0:016x}" in text


def test_a_signal_before_the_instruction_ends_the_step_and_is_queued() -> None:
    """A signal to the stepped thread is shown by pending_events, and delivered by the next step."""
    with Child([compiled("trace_events"), "spins", "1"]) as child:
        (word,) = child.hexes()
        assert child.ask("go") == "started"
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.signal(signal.SIGUSR1)
            tids = [thread.tid for thread in tracee.threads()]
            (spinner,) = {*tids} - {child.pid}
            # The kernel gives a signal of the process to whichever thread goes on.
            until = time.monotonic() + 30
            while not tracee.pending_events():
                tracee.step(spinner)
                assert time.monotonic() < until
            (event,) = tracee.pending_events()
            assert (event.kind, event.signo, event.tid) == ("signal", signal.SIGUSR1, spinner)
            tracee.step(spinner)  # into the handler
            assert tracee.vm.read_val(word, u64) == 0
            told = tracee.cont(timeout=5)
            assert told == event
            assert tracee.cont(timeout=0.05) is None
            assert tracee.vm.read_val(word, u64) == 1


def test_a_thread_that_is_born_in_a_step_is_held_and_let_go() -> None:
    """Steps through pthread_create: the new thread stands still with the others, and then runs."""
    with Child([compiled("trace_events"), "spins", "1"]) as child:
        child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.send("go")
            for _ in range(30_000):
                tracee.step()
                if len(states(child.pid)) == 2:
                    break
            (born,) = states(child.pid).keys() - {child.pid}
            assert set(states(child.pid).values()) == {"t"}
            before = tracee.registers(born)
            for _ in range(3):
                tracee.step()
            assert tracee.registers(born) == before
            tracee.step(born)
            assert tracee.registers(born)["rip"] != before["rip"]
        assert_free(child.pid)
        assert child.line() == "started"
        child.send("end")
        assert child.line().startswith("end")


FLOOD = """
import os, sys
print("floods", flush=True)
while True:
    os.kill(int(sys.argv[1]), int(sys.argv[2]))
"""


def test_a_step_that_a_signal_overtakes_tells_no_signal_of_its_own() -> None:
    """Among 1,000 steps in a flood of SIGUSR1 no other signal is told."""
    with Child([compiled("trace_events"), "spins", "1"]) as child:
        child.hexes()
        assert child.ask("go") == "started"
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            (spinner,) = {thread.tid for thread in tracee.threads()} - {child.pid}
            flood = [sys.executable, "-c", FLOOD, str(child.pid), str(int(signal.SIGUSR1))]
            told = set()
            with Child(flood) as sender:
                assert sender.line() == "floods"
                for _ in range(1000):
                    tracee.step(spinner)
                    for event in tracee.pending_events():
                        told.add(event.signo)
                        event.discard()
                        assert tracee.cont(timeout=0) == event
            assert told == {signal.SIGUSR1}


def be_on(tid: int, cpus: set[int]) -> None:
    """Lets a task, which may have ended, run on some CPUs."""
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(tid, cpus)


CLONES = (56, 435)
"""clone and clone3 on x86-64."""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs_x86_64: its registers")
def test_a_thread_that_is_born_in_a_step_and_does_not_run_yet_is_let_go() -> None:
    """The hold ends at once, while the newborn waits for a CPU that another process takes up."""
    cpu, *others = os.sched_getaffinity(0)
    if not others:
        pytest.skip("one CPU is too few: the tracer would wait as well")
    with (
        contextlib.ExitStack() as undo,
        Child([sys.executable, "-c", "print('hog', flush=True)\nwhile True: pass"]) as hog,
        Child([compiled("trace_events"), "spins", "1"]) as child,
    ):
        assert hog.line() == "hog"
        hog.signal(signal.SIGSTOP)
        os.sched_setaffinity(hog.pid, {cpu})
        os.sched_setaffinity(child.pid, {cpu})
        child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee:
            with tracee.stopped() as held:
                for tid in (0, *map(int, os.listdir(f"/proc/{tracer_of(child.pid)}/task"))):
                    undo.callback(be_on, tid, os.sched_getaffinity(tid))
                    os.sched_setaffinity(tid, others)
                child.send("go")
                for _ in range(30_000):
                    registers = tracee.registers()
                    at = registers["rip"], 2
                    if registers["rax"] in CLONES and held.vm.read_bytes(*at) == b"\x0f\x05":
                        break
                    tracee.step()
                # The leader comes before the hog, which comes before the newborn.
                first = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
                try:
                    os.sched_setscheduler(child.pid, first, os.sched_param(2))
                    os.sched_setscheduler(hog.pid, os.SCHED_FIFO, os.sched_param(1))
                except PermissionError:
                    pytest.skip("real-time scheduling is refused")
                hog.signal(signal.SIGCONT)
                tracee.step(timeout=None)
                assert len(states(child.pid)) == 2
            hog.close()
            assert_free(child.pid)
            assert child.line() == "started"


@pytest.mark.skipif(not is_exact(), reason="execution breakpoints are used on x86-64 only")
@pytest.mark.parametrize("how", ["cont", "end"])
def test_a_target_that_goes_on_after_steps_has_all_its_debug_registers(how: str) -> None:
    """Whoever wants them gets all four, in a `cont` and after the hold."""

    def take_all() -> None:
        taken: list[HardwareBreakpoint] = []
        try:
            taken.extend(HardwareBreakpoint(child.pid, signal.SIGURG) for _ in range(SLOTS))
        except PermissionError:
            pytest.skip("perf_event_open is refused")
        finally:
            for one in taken:
                one.close()

    with (
        Child(["/bin/cat"]) as child,
        procvm.attach(child.pid, longest_hold=None) as tracee,
    ):
        take_all()
        with tracee.stopped():
            child.send("line")
            for _ in range(20):
                tracee.step()
            if how == "cont":
                tracee.cont(timeout=0)
                take_all()
        assert_free(child.pid)
        take_all()
        assert child.line() == "line"


def test_a_step_keeps_the_signal_mask_of_the_thread() -> None:
    """A thread that blocks SIGTRAP still does after a step."""
    code = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin: print(line, end='', flush=True)\n"
    )
    with Child([sys.executable, "-S", "-c", code]) as child:
        assert child.line() == "ready"
        before = status_field(child.pid, "SigBlk")
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.send("line")
            for _ in range(5):
                tracee.step()
            assert status_field(child.pid, "SigBlk") == before
        assert child.line() == "line"
