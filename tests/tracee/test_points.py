"""Breakpoints and watchpoints: each hit is told exactly, and none harms the target."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator

import pytest

import procvm
from procvm import u32, u64
from procvm._linux.perf_event import SLOTS, HardwareBreakpoint, is_exact
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.procfs import assert_free, status_field, tracer_of

pytestmark = pytest.mark.skipif(not is_exact(), reason="exact stops need x86-64")

WORD = (1 << 64) - 1


class Points(Child):
    """tests/support/targets/points.c."""

    def __init__(self) -> None:
        super().__init__([compiled("points")])
        self.value, self.shared = self.hexes()


@pytest.fixture
def child() -> Iterator[Points]:
    with Points() as child:
        yield child
        assert child.popen.poll() is None  # no signal of ours ended it


@pytest.fixture
def tracee(child: Points) -> Iterator[procvm.Tracee]:
    with procvm.attach(child.pid, longest_hold=None) as tracee:
        yield tracee


def free_slots(tid: int) -> int:
    """Returns how many debug registers of a thread the kernel gives."""
    opened: list[HardwareBreakpoint] = []
    try:
        while len(opened) <= SLOTS:
            opened.append(HardwareBreakpoint(tid, signal.SIGURG))
    except OSError:
        pass
    for one in opened:
        one.close()
    return len(opened)


def cont(tracee: procvm.Tracee) -> procvm.Event:
    event = tracee.cont(timeout=60)
    assert event is not None
    return event


def test_watchpoint_tells_each_write_with_value_and_instruction(
    child: Points, tracee: procvm.Tracee
) -> None:
    """1,000 writes: the value before and after and the address are right each time."""
    after = tracee.symbol("after_store")
    with tracee.stopped(), tracee.watchpoint("value", u64) as point:
        child.send("1000")
        value = 0
        for _ in range(1000):
            event = cont(tracee)
            old, value = value, (value * 3 + 1) & WORD
            assert (event.kind, event.tid, event.point) == ("watchpoint", child.pid, point)
            assert (event.old, event.new, event.address) == (old, value, after)
            assert tracee.registers()["rip"] == after
        assert point.hits == 1000
    assert child.line() == f"done {value:x}"


def test_breakpoint_stops_before_the_instruction_and_is_passed_over(
    child: Points, tracee: procvm.Tracee
) -> None:
    """Every call stops once, at the first instruction, before it has written."""
    with tracee.stopped(), tracee.breakpoint("store") as point:
        child.send("20")
        value = 0
        for _ in range(20):
            event = cont(tracee)
            assert (event.kind, event.point, event.address) == ("breakpoint", point, point.address)
            assert tracee.vm.read_val(child.value, u64) == value
            value = (value * 3 + 1) & WORD
        assert tracee.cont(timeout=0.05) is None
    assert child.line() == f"done {value:x}"


def test_breakpoint_stops_threads_born_later(child: Points, tracee: procvm.Tracee) -> None:
    """Four threads that are born under cont: each of their calls is told once."""
    with tracee.stopped(), tracee.breakpoint("bump") as point:
        child.send("threads 25")
        tids = [cont(tracee).tid for _ in range(100)]
        assert sorted(tids.count(tid) for tid in set(tids)) == [25] * 4
        assert child.pid not in tids
        assert tracee.cont(timeout=0.05) is None
        assert point.hits == 100
    assert child.line() == "done 64"


def test_watchpoint_on_access_tells_reads(child: Points, tracee: procvm.Tracee) -> None:
    """store() reads the value, then writes it: two hits, of which the first changes nothing."""
    with tracee.stopped(), tracee.watchpoint(child.value, u64, on="access"):
        child.send("2")
        changes = [(event.old, event.new) for event in (cont(tracee) for _ in range(4))]
    assert changes == [(0, 0), (0, 1), (1, 1), (1, 4)]
    assert child.line() == "done 4"


def test_condition_lets_the_target_run_on(child: Points, tracee: procvm.Tracee) -> None:
    """Stops at the third write; a condition that raises leaves the target held."""
    with tracee.stopped():
        with tracee.watchpoint("value", u64, condition=lambda event: event.new > 4) as point:
            child.send("5")
            event = cont(tracee)
            assert (event.old, event.new, point.hits) == (4, 13, 3)
            point.condition = lambda event: event.new < 1 / 0
            with pytest.raises(ZeroDivisionError):
                tracee.cont(timeout=60)
            assert tracee.is_stopped()
            assert tracee.vm.read_val(child.value, u64) == 40
        assert tracee.cont(timeout=0.05) is None
    assert child.line() == "done 79"


def test_both_points_of_one_instruction_are_told(child: Points, tracee: procvm.Tracee) -> None:
    """Two watchpoints that one write hits: an event of each, in one stop."""
    with (
        tracee.stopped(),
        tracee.watchpoint(child.value, u64) as whole,
        tracee.watchpoint(child.value, u32) as low,
    ):
        child.send("1")
        events = [cont(tracee)]
        assert [event.point for event in tracee.pending_events()] == [low]
        events.append(cont(tracee))
        assert [event.point for event in events] == [whole, low]
        assert [event.new for event in events] == [1, 1]
    assert child.line() == "done 1"


def test_a_fifth_point_names_the_four(child: Points, tracee: procvm.Tracee) -> None:
    """All four slots work; a fifth is refused with their names, and nothing changes."""
    with (
        tracee.stopped(),
        tracee.breakpoint("store") as store,
        tracee.breakpoint("bump"),
        tracee.watchpoint("value", u64),
        tracee.watchpoint("shared", u64),
    ):
        with pytest.raises(procvm.UnsupportedError) as caught:
            tracee.breakpoint("main")
        assert "4 slots" in str(caught.value)
        assert f"breakpoint {store.address:#x}" in str(caught.value)
        assert f"watchpoint {child.shared:#x}" in str(caught.value)
        child.send("1")
        assert [cont(tracee).kind for _ in range(2)] == ["breakpoint", "watchpoint"]
    assert child.line() == "done 1"
    assert free_slots(child.pid) == SLOTS


def test_points_are_refused_before_anything_is_armed(child: Points, tracee: procvm.Tracee) -> None:
    """A target that runs, bad sizes, addresses and conditions."""
    with pytest.raises(procvm.NotStoppedError):
        tracee.breakpoint("store")
    with tracee.stopped():
        with pytest.raises(ValueError, match="multiple of the 8 bytes"):
            tracee.watchpoint(child.value + 4, u64)
        with pytest.raises(ValueError, match="'write' or 'access'"):
            tracee.watchpoint(child.value, u64, on="read")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="condition"):
            tracee.breakpoint("store", condition=3)  # type: ignore[arg-type]
        with pytest.raises(procvm.NoSuchSymbolError):
            tracee.breakpoint("no_such_function")
        assert free_slots(child.pid) == SLOTS


def test_closed_point_stops_no_more(child: Points, tracee: procvm.Tracee) -> None:
    """After its close the calls are not told; another point of the same hold still is."""
    with tracee.stopped(), tracee.watchpoint("value", u64):
        with tracee.breakpoint("store") as point:
            child.send("2")
            assert cont(tracee).point is point
        assert point.closed
        point.close()
        assert [cont(tracee).new for _ in range(2)] == [1, 4]
    assert child.line() == "done 4"


def test_point_lasts_from_hold_to_hold(child: Points, tracee: procvm.Tracee) -> None:
    """Between two holds the target runs freely; in the next one the point is armed again."""
    with tracee.stopped():
        point = tracee.breakpoint("store")
    assert child.ask("2") == "done 4"
    assert free_slots(child.pid) == SLOTS
    with tracee.stopped():
        child.send("1")
        assert cont(tracee).point is point
        point.close()
    assert child.line() == "done d"


def test_point_of_a_thread_that_blocks_every_signal_is_told(
    child: Points, tracee: procvm.Tracee
) -> None:
    """The signal of the hit cannot come; its count tells it, and nothing is left pending."""
    assert child.ask("block") == "blocked"
    with tracee.stopped(), tracee.watchpoint("value", u64):
        child.send("1")
        event = cont(tracee)
        assert (event.kind, event.new) == ("watchpoint", 1)
        assert tracee.cont(timeout=0.05) is None
    assert child.line() == "done 1"


def test_point_in_a_target_that_handles_every_signal_is_refused(
    child: Points, tracee: procvm.Tracee
) -> None:
    """Its handler would run if the tracer died at the wrong moment."""
    assert child.ask("handle") == "handled"
    refused = pytest.raises(procvm.UnsupportedError, match="handles each of the signals")
    with tracee.stopped(), refused:
        tracee.breakpoint("store")
    assert child.ask("1") == "done 1"


def test_signal_of_the_target_is_told_beside_the_points(
    child: Points, tracee: procvm.Tracee
) -> None:
    """A SIGUSR1 and two hits: each is an event of its own, and only the signal has a signo."""
    with tracee.stopped(), tracee.breakpoint("store"), tracee.watchpoint("value", u64):
        child.send("usr1")
        events = [cont(tracee) for _ in range(3)]
        assert [event.kind for event in events] == ["signal", "breakpoint", "watchpoint"]
        assert [event.signo for event in events] == [signal.SIGUSR1, 0, 0]
        with pytest.raises(ValueError, match="no signal to deliver"):
            events[1].discard()
    assert child.line() == "done 1"


def test_step_from_a_breakpoint_runs_one_instruction(child: Points, tracee: procvm.Tracee) -> None:
    """All slots are in use: the step takes them for a moment, and the next call stops again."""
    with (
        tracee.stopped(),
        tracee.breakpoint("store") as point,
        tracee.breakpoint("bump"),
        tracee.breakpoint("main"),
        tracee.watchpoint("value", u64),
    ):
        child.send("2")
        assert cont(tracee).point is point
        tracee.step()
        place = tracee.registers()["rip"]
        assert 0 < place - point.address < 16
        assert [cont(tracee).kind for _ in range(3)] == ["watchpoint", "breakpoint", "watchpoint"]
    assert child.line() == "done 4"


def test_signal_of_a_hit_that_comes_late_ends_no_step(child: Points, tracee: procvm.Tracee) -> None:
    """The hit is told by its count; its signal comes only as the target takes signals again."""
    taken = tracee.symbol("taken")
    with tracee.stopped(), tracee.breakpoint("store") as point:
        child.send("masked")
        assert cont(tracee).point is point
        tracee.vm.write_val(child.shared, u64, 1)
        places = [point.address]
        while places[-1] != taken and len(places) < 1000:
            tracee.step()
            places.append(tracee.registers()["rip"])
        assert places[-1] == taken
        assert not [a for a, b in itertools.pairwise(places) if a == b]
    assert child.line() == "done 1"


def test_fork_and_exec_leave_no_breakpoint(child: Points, tracee: procvm.Tracee) -> None:
    """A forked child runs past it and lives; the program after an exec has none."""
    with tracee.stopped(), tracee.breakpoint("store"):
        child.send("fork")
        while (event := tracee.cont(timeout=60)) is not None:
            if event.signo == signal.SIGCHLD:
                break
    assert child.line() == "forked 0"
    with tracee.stopped(), tracee.breakpoint("store"):
        child.send("exec")
        assert cont(tracee).kind == "exec"
        assert free_slots(child.pid) == SLOTS
    assert child.line().startswith("ready")


def test_tracer_killed_at_a_hit_leaves_the_target_unharmed(child: Points) -> None:
    """The tracer dies while the target is held at a breakpoint: it runs on, and has no SIGTRAP."""
    with procvm.attach(child.pid, longest_hold=None) as tracee:
        tracee.stop()
        tracee.breakpoint("store")
        child.send("3")
        assert cont(tracee).kind == "breakpoint"
        os.kill(tracer_of(child.pid), signal.SIGKILL)
        assert_free(child.pid)
        with pytest.raises(procvm.ProcvmError):
            tracee.cont()
    assert child.line() == "done d"
    assert free_slots(child.pid) == SLOTS
    assert status_field(child.pid, "SigPnd").strip("0") == ""


ASYNC = """
import ctypes, fcntl, os, signal, socket, sys
taken = []
signal.signal(signal.SIGUSR1, lambda *_: taken.append(1))
word = ctypes.c_uint64(0)
pairs = [socket.socketpair() for _ in range(40)]
for one in [end for pair in pairs for end in pair]:
    fcntl.fcntl(one, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(one, 10, signal.SIGUSR1)  # F_SETSIG
    fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC)
print(f"ready {ctypes.addressof(word):x}", flush=True)
sys.stdin.readline()
for one, other in pairs:
    one.send(b"x")
    other.send(b"x")
print(len(taken), flush=True)
sys.stdin.readline()
"""


def test_signals_of_the_targets_own_descriptors_are_told_beside_watchpoints() -> None:
    """Their si_fd has the numbers that the tracer's breakpoints have in the tracer."""
    with (
        Child([sys.executable, "-c", ASYNC]) as child,
        procvm.attach(child.pid, longest_hold=None) as tracee,
    ):
        (word,) = child.hexes()
        tracee.stop()
        tracee.watchpoint(word, u64)
        child.send("go")
        told = [cont(tracee).signo for _ in range(80)]
        assert told == [signal.SIGUSR1] * 80
        tracee.resume()
        assert child.line() == "80"


EXECS = """
import ctypes, os, signal, sys
if len(sys.argv) == 1:
    word = ctypes.c_uint64(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    print(f"ready {ctypes.addressof(word):x}", flush=True)
    sys.stdin.readline()
    word.value = 5
    os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[-1], "again"])
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
os.kill(os.getpid(), signal.SIGUSR2)
sys.stdin.readline()
"""


def test_a_hit_whose_signal_an_exec_overtakes_is_told_once() -> None:
    """The thread blocks the signal, which stays pending for the new program."""
    with (
        Child([sys.executable, "-c", EXECS]) as child,
        procvm.attach(child.pid, longest_hold=None) as tracee,
    ):
        (word,) = child.hexes()
        tracee.stop()
        tracee.watchpoint(word, u64)
        child.send("go")
        events = [cont(tracee) for _ in range(3)]
        assert [event.kind for event in events] == ["watchpoint", "exec", "signal"]
        assert (events[0].tid, events[0].old) == (child.pid, 0)
        assert events[-1].signo == signal.SIGUSR2


ENDS = """
import ctypes, signal, sys, threading
word = ctypes.c_uint64(0)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
go = threading.Event()
def write():
    go.wait()
    word.value = 5
writers = [threading.Thread(target=write) for _ in range(8)]
for writer in writers:
    writer.start()
print(f"ready {ctypes.addressof(word):x}", flush=True)
sys.stdin.readline()
go.set()
for writer in writers:
    writer.join()
print("done", flush=True)
sys.stdin.readline()
"""


def test_hits_of_threads_that_end_with_their_signals_blocked_are_told() -> None:
    with (
        Child([sys.executable, "-c", ENDS]) as child,
        procvm.attach(child.pid, longest_hold=None) as tracee,
    ):
        (word,) = child.hexes()
        tracee.stop()
        tracee.watchpoint(word, u64)
        writers = {tid for tid in os.listdir(f"/proc/{child.pid}/task") if tid != str(child.pid)}
        child.send("go")
        events = [cont(tracee) for _ in range(8)]
        assert {event.kind for event in events} == {"watchpoint"}
        assert {str(event.tid) for event in events} == writers
        assert tracee.cont(timeout=0.1) is None
        assert child.line() == "done"
