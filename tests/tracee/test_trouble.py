"""What the tracer lacks is one failed request; no hold is lost, and none stays without an owner."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import procvm
from procvm import u64
from procvm._linux.perf_event import is_exact
from tests.support.build import compiled
from tests.support.child import ROOT, Child
from tests.support.patience import eventually
from tests.support.procfs import assert_free, has_ended, state_of, tracer_of
from tests.tracee.witness import sleeper


def limit_descriptors(pid: int, more: int) -> None:
    """Leaves a process so many free descriptors."""
    used = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + more, used + more))


@pytest.mark.parametrize("free", range(6))
def test_a_tracer_without_descriptors_fails_requests_and_loses_no_hold(free: int) -> None:
    """Holds and attaches that cannot be had are errors; those that were given still hold."""
    with own_tool() as tool:
        assert tool.ask(f"begin {free}") == "ok"
        holds, failed = map(int, tool.ask("holds").split())
        assert holds + failed == 12
        assert failed
        pid = int(tool.ask("pid"))
        assert state_of(pid) == "t"
        opened, refused = map(int, tool.ask("attaches").split())
        assert opened + refused == 4
        assert state_of(pid) == "t"
        assert tool.ask("close") == "ok"
        assert_free(pid)
        assert tool.ask("end") == "ok"
        assert tool.popen.wait() == 0
        assert tool.popen.stderr is not None
        assert tool.popen.stderr.read() == b""


@pytest.mark.skipif(not is_exact(), reason="steps by breakpoints need x86-64")
def test_step_of_a_tracer_without_descriptors_fails_and_takes_no_other_way() -> None:
    """A step by a trap takes no descriptor, and harms a target whose tracer is killed in it."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    assert done.stdout.split() == ["lacks", "lacks", "moved", "SIGUSR1", "lacks", "moved"]


STEPS = """
import os, resource, signal
import procvm
from tests.support.build import compiled
from tests.support.child import ROOT, Child
from tests.support.patience import eventually
from tests.support.procfs import tracer_of

with Child([compiled("points")]) as child, procvm.attach(child.pid, longest_hold=None) as tracee:
    value, _ = child.hexes()
    child.send("forever")
    assert eventually(lambda: tracee.vm.read_val(value, procvm.u64))  # it makes no calls there
    with tracee.stopped():
        tracer = tracer_of(child.pid)
    limits = resource.prlimit(tracer, resource.RLIMIT_NOFILE)

    def give(soft):
        # Its descriptors 0 to 2 are open, and poll(2) takes no more than the limit.
        resource.prlimit(tracer, resource.RLIMIT_NOFILE, (soft, limits[1]))

    def step():
        before = tracee.registers()
        try:
            tracee.step()
        except procvm.VmError as error:
            assert "open files" in str(error), error
            assert tracee.registers() == before
            print("lacks")
        else:
            assert tracee.registers() != before
            print("moved")

    tracee.stop()
    give(3)
    step()
    step()
    give(limits[0])
    step()
    # After a signal without a handler the instruction itself is stepped.
    os.kill(child.pid, signal.SIGUSR1)
    print(signal.Signals(tracee.cont(timeout=60).signo).name)
    give(3)
    step()
    give(limits[0])
    step()
"""


TOOL = """
import os, resource, sys
import procvm
from tests.tracee.test_trouble import limit_descriptors
from tests.tracee.witness import sleeper
from tests.support.procfs import tracer_of
with sleeper() as child, sleeper() as other:
    tracee = procvm.attach(child.pid, longest_hold=None)
    held, more = [], []
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "begin":
            with tracee.stopped():
                tracer = tracer_of(child.pid)
            limit_descriptors(tracer, int(rest[0]))
            print("ok", flush=True)
        elif word == "holds":
            failed = 0
            for _ in range(12):
                try:
                    held.append(tracee.stopped())
                except procvm.VmError:
                    failed += 1
                    if not held:
                        tracee.stop()
            print(len(held), failed, flush=True)
        elif word == "pid":
            print(child.pid, flush=True)
        elif word == "attaches":
            opened = refused = 0
            for _ in range(4):
                try:
                    more.append(procvm.attach(other.pid))
                    opened += 1
                except procvm.VmError:
                    refused += 1
            print(opened, refused, flush=True)
        elif word == "close":
            for hold in held:
                hold.close()
            if not held:
                tracee.resume()
            print("ok", flush=True)
        elif word == "end":
            for thing in (*more, tracee):
                thing.close()
            print("ok", flush=True)
            break
"""


def own_tool() -> Child:
    """A tool with a tracer of its own."""
    return Child([sys.executable, "-c", TOOL], stderr=subprocess.PIPE)


def test_a_suspended_tracer_ends_and_lets_go() -> None:
    """SIGSTOP of the tracer: its watchdog ends it, the target runs on, the next hold works."""
    with sleeper() as child, procvm.attach(child.pid, longest_hold=None) as tracee:
        tracee.stop()
        tracer = tracer_of(child.pid)
        os.kill(tracer, signal.SIGSTOP)
        assert_free(child.pid)
        assert eventually(lambda: has_ended(tracer))
        with pytest.raises(procvm.NotTracedError):
            tracee.resume()
        with tracee.stopped():
            assert state_of(child.pid) == "t"
        assert_free(child.pid)


FORKING = """
import ctypes, os, sys, procvm
tracee = procvm.attach(int(sys.argv[1]), longest_hold=None)
held = tracee.stopped()
# C code forks: no hook of Python runs in the child, which keeps every descriptor.
child = ctypes.PyDLL(None).fork()
if not child:
    os.read(0, 1)
    os._exit(0)
print(child, flush=True)
os.read(int(sys.argv[3]), 1)
if sys.argv[2] == "leave":
    with held:
        pass
elif sys.argv[2] == "close":
    held.close()
else:
    os._exit(0)
print("left", flush=True)
os.read(int(sys.argv[3]), 1)
"""


@pytest.mark.parametrize("how", ["leave", "close", "exit"])
def test_a_child_that_c_code_forked_does_not_keep_the_hold(how: str) -> None:
    """The child has a copy of every socket; the target runs on as the tool lets go or ends."""
    go, go_end = os.pipe()
    stay, stay_end = os.pipe()
    try:
        with sleeper() as child:
            tool = subprocess.Popen(
                [sys.executable, "-c", FORKING, str(child.pid), how, str(go)],
                stdin=stay,
                stdout=subprocess.PIPE,
                pass_fds=(go,),
            )
            with tool:
                assert tool.stdout is not None
                forked = int(tool.stdout.readline())
                assert state_of(child.pid) == "t"
                os.write(go_end, b"1")
                assert_free(child.pid)
                assert not has_ended(forked)
                os.write(stay_end, b"1")
                os.write(go_end, b"1")
    finally:
        for fd in (go, go_end, stay, stay_end):
            os.close(fd)


def test_a_failed_start_of_the_tracer_is_one_error_and_the_next_works() -> None:
    """Its program is missing, then is no Python, then is there: two errors of ours, then a hold."""
    tool = """
import os, signal, sys, procvm
from tests.tracee.witness import eventually, sleeper
from tests.support.procfs import assert_free, has_ended, tracer_of
with sleeper() as child:
    tracee = procvm.attach(child.pid)
    for program in ("/nowhere/python", "/bin/false", "/bin/true"):
        with tracee.stopped():
            tracer = tracer_of(child.pid)
        os.kill(tracer, signal.SIGKILL)
        assert eventually(lambda: has_ended(tracer))
        python, sys.executable = sys.executable, program
        for _ in range(2):
            try:
                tracee.stop()
            except procvm.NotTracedError:
                pass  # the first to hear of the tracer's end
            except (procvm.UnsupportedError, procvm.VmError) as error:
                print(type(error).__name__, flush=True)
        sys.executable = python
        with tracee.stopped():
            pass
        procvm.attach(child.pid).close()
        assert_free(child.pid)
    tracee.close()
print("end")
"""
    with Child([sys.executable, "-c", tool]) as child:
        lines = [child.line()]
        while lines[-1] != "end":
            lines.append(child.line())
    assert len(lines) >= 4
    assert {*lines[:-1]} <= {"UnsupportedError", "VmError"}


def test_a_start_of_the_tracer_that_fails_once_is_no_error(tmp_path: Path) -> None:
    """The first process fails, the second one becomes the tracer: the first hold works."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nmkdir "{tmp_path}/tried" && exit 1\nexec "$PYTHON" "$@"\n')
    program.chmod(0o755)
    tool = f"""
import sys, procvm
from tests.tracee.witness import sleeper
sys.executable = {str(program)!r}
with sleeper() as child, procvm.attach(child.pid) as tracee, tracee.stopped():
    print("held")
"""
    environment = {**os.environ, "PYTHON": sys.executable}
    with Child([sys.executable, "-c", tool], env=environment) as child:
        assert child.line() == "held"
    assert (tmp_path / "tried").exists()


def test_thousands_of_threads_and_events_are_told_whole() -> None:
    """3,000 threads, each with a signal: the list and the events of all of them arrive."""
    nr = 3000
    with Child([compiled("trace_events"), "waits", str(nr)]) as child:
        (word,) = child.hexes()
        assert child.ask("go") == "started"
        there = sorted(map(int, os.listdir(f"/proc/{child.pid}/task")))
        assert len(there) == nr + 1
        with procvm.attach(child.pid, longest_hold=None) as tracee:
            tracee.stop(timeout=None)
            assert sorted(thread.tid for thread in tracee.threads()) == there
            tgkill = ctypes.CDLL(None).tgkill
            for tid in there:
                # SAFETY: numbers only.
                assert tgkill(child.pid, tid, signal.SIGUSR1) == 0
            event = tracee.cont()
            assert event is not None
            told = [event, *tracee.pending_events()]
            while len(told) < nr + 1:
                before = len(told)
                for _ in range(before - (told.index(event))):
                    event = tracee.cont()
                    assert event is not None
                told = told[: told.index(event) + 1] + tracee.pending_events()
            assert sorted(event.tid for event in told) == there
            tracee.resume()
            assert eventually(lambda: not tracee.is_stopped())
            assert eventually(lambda: tracee.vm.read_val(word, u64) == nr + 1)


def test_a_first_attach_on_a_busy_machine_is_not_late() -> None:
    """The tracer's start takes seconds here, and none of them count against the stop's two."""
    slow = Path(__file__).parent / "slow_python.sh"
    tool = f"""
import sys, procvm
from tests.tracee.witness import sleeper
sys.executable = {str(slow)!r}
with sleeper() as child, procvm.attach(child.pid) as tracee, tracee.stopped():
    print("held")
"""
    environment = {**os.environ, "SLOW_PYTHON": sys.executable}
    with Child([sys.executable, "-c", tool], env=environment) as child:
        assert child.line() == "held"


def leave_by_error(tracee: procvm.Tracee) -> None:
    with tracee.stopped() as held:
        assert eventually(held.is_over)
        raise KeyError


def test_a_hold_that_was_over_is_told_as_it_is_left() -> None:
    """NotStoppedError; not where another error is under way, and not for one that lasted."""
    with sleeper() as child, procvm.attach(child.pid, longest_hold=0.05) as tracee:
        with pytest.raises(procvm.NotStoppedError), tracee.stopped() as held:
            assert eventually(held.is_over)
        with pytest.raises(KeyError):
            leave_by_error(tracee)
        try:
            raise LookupError
        except LookupError:
            with pytest.raises(procvm.NotStoppedError), tracee.stopped() as held:
                assert eventually(held.is_over)
    with sleeper() as child, procvm.attach(child.pid) as tracee:
        with tracee.stopped() as outer, tracee.stopped() as inner:
            assert not outer.is_over()
            assert not inner.is_over()
        assert outer.is_over()
        with tracee.stopped():
            child.kill()
            child.wait()
