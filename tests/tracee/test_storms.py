"""Thousands of stops of targets that do not keep still: nothing is left held, nothing is missed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest

import procvm
from tests.support.child import Child
from tests.support.patience import USUAL, eventually, pass_time
from tests.support.procfs import assert_free, state_of, states
from tests.tracee.witness import Execer, Work
from tests.tracee.workloads import (
    children_storm,
    clone_storm,
    cycles_of_work,
    exec_storm,
    leaders_leave,
    plain_sleepers,
    races_met,
)


@pytest.mark.parametrize(
    ("mode", "threads", "count"),
    [
        ("spin", 1, 400),
        ("spin", 4, 100),
        ("tick", 8, 400),
        ("sleep", 16, 400),
        ("mixed", 64, 150),
        ("sleep", 64, 150),
    ],
)
def test_cycles_leave_a_working_target_as_it_was(mode: str, threads: int, count: int) -> None:
    """Every thread runs on after hundreds of stops, and moves in none."""
    found = cycles_of_work(mode, threads, count)
    assert found["cycles"] == count
    assert found["moved while held"] == 0, found
    assert found["left stopped"] == 0, found


def test_cycles_leave_a_plain_sleeper_asleep() -> None:
    """500 stops of a process in one sleep: it sleeps on after each, in the same call."""
    found = plain_sleepers(500)
    assert found == {"cycles": 500, "threads": 1, "left stopped": 0}


def test_no_thread_of_a_clone_storm_is_missed() -> None:
    """3,000 threads are born about the stops; not a word is written while held."""
    found = clone_storm(3000)
    assert found["threads born"] >= 3000
    assert found["stops"] >= 10
    assert found["moved while held"] == 0, found
    assert found["threads not held"] == 0, found


def test_children_of_a_target_are_not_touched() -> None:
    """Processes made in five ways about at least 300 stops all end as they would."""
    found = races_met({"children": 50}, lambda: children_storm(300))
    assert found["still traced"] == 0, found
    assert found["timeouts"] == 0, found


@pytest.mark.parametrize("who", ["leader", "thread"])
def test_a_target_that_execs_is_stopped_each_time(who: str) -> None:
    """A target that execs without end: no stop times out, and the target goes on.

    The target execs every few milliseconds, so that most stops meet an exec and are refused.
    """
    enough = {"stops": 20, "refused meanwhile": 40, "execs": 100}
    found = races_met(enough, lambda: exec_storm(who, 10))
    assert found["timeouts"] == 0, found


def test_an_exec_in_a_hold_waits_for_its_end() -> None:
    """While held the target begins no new image; it does afterwards."""
    with Execer("leader") as target:
        seen = 0
        while seen < 20:
            try:
                with procvm.attach(target.pid) as tracee, tracee.stopped():
                    before = target.board.snapshot()
                    pass_time(0.001)
                    assert target.board.snapshot() == before
                    seen += 1
            except (procvm.ProcessExecedError, procvm.ProcessExitedError):
                continue
        target.assert_goes_on()


def test_a_leader_may_leave_about_a_stop() -> None:
    """40 targets whose leader ends at the stop: the threads left are held, and run on."""
    found = races_met({"leader left about the stop": 3}, lambda: leaders_leave(40))
    assert found["timeouts"] == 0, found
    assert found["moved while held"] == 0, found


def test_a_child_by_clone_that_is_born_into_a_stop_runs() -> None:
    """Processes by clone() without a thread's flags run on when a hold ends."""
    with Work("raws") as target, procvm.attach(target.pid) as tracee:
        cycles = 0
        while cycles < 2000 or (target.board[18] < 200 and cycles < 40_000):
            tracee.stop()
            tracee.resume()
            cycles += 1
        assert_free(target.pid)
        target.board[3] = 1
        words = target.board.words
        assert eventually(lambda: words[32:37] == words[16:21]), (
            f"{words[16:21].tolist()} began, {words[32:37].tolist()} ended"
        )
        assert words[18] >= 200


def test_a_vfork_parent_can_not_be_stopped_and_does_not_stop_later() -> None:
    """StopTimeoutError; the parent runs on, untraced, when its child has ended."""
    with Work("vfork") as target:
        child = target.board[5]
        assert eventually(lambda: target.board[5] != 0)
        with pytest.raises(procvm.StopTimeoutError):
            procvm.attach(target.pid, timeout=USUAL)
        assert eventually(lambda: states(target.pid) == {target.pid: "D"})
        assert_free(target.pid)
        child = target.board[5]
        assert state_of(child) == "S"
        target.send("x")
        target.assert_runs()
        for _ in range(20):
            assert state_of(target.pid) in "RS"
        with procvm.attach(target.pid) as tracee, tracee.stopped():
            target.assert_stands_still()


def test_the_deadline_of_a_stop_is_kept() -> None:
    """A stop of a vfork parent gives up, and not before its time; a later one works."""
    with Work("vfork") as target, procvm.open(target.pid) as process:
        assert process.is_alive()
        start = time.monotonic()
        with pytest.raises(procvm.StopTimeoutError):
            procvm.attach(target.pid, timeout=USUAL)
        assert time.monotonic() - start >= USUAL
        target.send("x")
        target.assert_runs()
        with procvm.attach(target.pid) as tracee, tracee.stopped():
            target.assert_stands_still()


FREEZER = "/sys/fs/cgroup/freezer"


def test_a_frozen_target_is_not_stopped_later() -> None:
    """In a frozen cgroup: StopTimeoutError; after the thaw it runs, and nobody holds it."""
    group = f"{FREEZER}/procvm-test-{os.getpid()}"
    try:
        os.mkdir(group)
    except OSError as error:
        pytest.skip(f"no freezer of cgroup v1 to use: {error}")
    try:
        if not os.path.exists(f"{group}/freezer.state"):
            pytest.skip("no freezer here")
        with Work("tick", 3) as target:
            with procvm.attach(target.pid) as tracee:
                _write(f"{group}/cgroup.procs", str(target.pid))
                _write(f"{group}/freezer.state", "FROZEN")
                try:
                    assert eventually(lambda: "FROZEN" in _read(f"{group}/freezer.state"))
                    with pytest.raises(procvm.StopTimeoutError):
                        tracee.stop(0.5)
                finally:
                    _write(f"{group}/freezer.state", "THAWED")
                target.assert_runs()
                for _ in range(50):
                    assert set(states(target.pid).values()) <= {"R", "S"}
                with tracee.stopped():
                    target.assert_stands_still()
                _write(f"{FREEZER}/cgroup.procs", str(target.pid))
            target.assert_runs()
    finally:
        os.rmdir(group)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def test_a_target_that_dies_about_a_stop_ends_with_its_status() -> None:
    """30 targets killed at random in cycles: ProcessExitedError, and -9 for all."""
    for k in range(30):
        with Work("mixed", 8) as target, procvm.attach(target.pid) as tracee:
            pid = os.fork()
            if pid == 0:
                pass_time(k * 0.0001)
                os.kill(target.pid, signal.SIGKILL)
                os._exit(0)
            with pytest.raises(procvm.ProcessExitedError):
                _read_in_holds(tracee, target.word)
            assert os.waitpid(pid, 0)[1] == 0
            assert target.popen.wait() == -signal.SIGKILL


def _read_in_holds(tracee: procvm.Tracee, address: int) -> None:
    while True:
        with tracee.stopped():
            tracee.vm.read_val(address, procvm.u64)


def test_what_a_target_sees_of_itself_is_equal_after_many_stops() -> None:
    """Descriptors, mappings, masks, dispositions, timers: equal after 500 stops."""
    with Child(["sleep", "1000"]) as target:
        assert eventually(lambda: _read(f"/proc/{target.pid}/comm") == "sleep\n")
        assert eventually(lambda: state_of(target.pid) == "S")
        before = _itself(target.pid)
        with procvm.attach(target.pid) as tracee:
            for _ in range(500):
                tracee.stop()
                tracee.resume()
        assert eventually(lambda: state_of(target.pid) == "S")
        assert _itself(target.pid) == before


def _itself(pid: int) -> dict[str, object]:
    # SigQ is left out: it counts the signals of every process of the user.
    wanted = (
        "SigPnd",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "Shd",
        "Seccomp",
        "NoNewPrivs",
        "Uid",
        "Threads",
        "TracerPid",
        "Cpus_allowed",
    )
    status = [line for line in _read(f"/proc/{pid}/status").splitlines() if line.startswith(wanted)]
    return {
        "status": status,
        "maps": _read(f"/proc/{pid}/maps"),
        "fds": sorted(os.listdir(f"/proc/{pid}/fd")),
        "timers": _read(f"/proc/{pid}/timers"),
        "call": _read(f"/proc/{pid}/syscall").split()[-2:],
    }


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_attaches_between_holds() -> None:
    """Between holds another tracer gets the target; then holds go on."""
    with Work("tick", 2) as target, procvm.attach(target.pid) as tracee:
        with tracee.stopped():
            pass
        assert_free(target.pid)
        argv = ["gdb", "-q", "-nx", "-batch", "-p", str(target.pid), "-ex", "print 6 * 7"]
        found = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert "$1 = 42" in found.stdout, found
        assert_free(target.pid)
        with tracee.stopped():
            target.assert_stands_still()
        target.assert_runs()
