"""Held targets that end, race, nest and fail: what no other file of this folder shows."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import procvm
from procvm import u64
from tests.faults.tools import Strace, injected
from tests.support.build import compiled
from tests.support.child import ROOT, Child
from tests.support.patience import PATIENCE, USUAL, eventually, pass_time
from tests.support.procfs import assert_free, is_free, state_of, states, status_field
from tests.tracee.tool import ENOUGH
from tests.tracee.witness import Board, Recorder, Tool, Work, sleeper

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_strace = pytest.mark.strace

ENDS = (procvm.ProcessExitedError, procvm.NoSuchProcessError, procvm.PageFaultError)


# The target ends at any instant


def _exchange(vm: procvm.VmSpace, word: int) -> None:
    vm.atomic_compare_exchange(word, u64, 0, 0)


def _uses(tracee: procvm.Tracee, word: int) -> dict[str, Callable[[], object]]:
    return {
        "stop": tracee.stop,
        "registers": tracee.registers,
        "step": tracee.step,
        "read": lambda: tracee.vm.read_val(word, u64),
        "exchange in a hold": lambda: _exchange(tracee.vm, word),
        "cont": lambda: tracee.cont(0.0003),
        "resume": tracee.resume,
        "read outside": lambda: tracee.vm.read_val(word, u64),
        "exchange outside": lambda: _exchange(tracee.vm, word),
        "stopped": lambda: tracee.stopped().close(),
    }


def _use_until_it_ends(target: Work) -> tuple[str, BaseException]:
    """Attaches, holds, steps and lets go again and again; returns what met the end, and how."""
    at = "attach"
    try:
        while True:
            at = "attach"
            with procvm.attach(target.pid) as tracee:
                for at, use in _uses(tracee, target.word).items():  # noqa: B007 (told below)
                    use()
                at = "detach"
    except procvm.ProcvmError as error:
        return at, error


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGTERM])
def test_a_target_ends_at_any_instant(signo: signal.Signals) -> None:
    """Killed at any instant of attach, stop, access, step, cont, detach: it has ended."""
    chance = random.Random(f"13 {signo}")
    seen: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    groups = {
        "attach": ["attach"],
        "stop": ["stop", "stopped"],
        "in a hold": ["registers", "step", "read", "exchange in a hold", "cont"],
        "outside": ["read outside", "exchange outside"],
    }
    if signo != signal.SIGKILL:
        del groups["in a hold"]  # a held target takes the signal as it goes on
    with Child([compiled("killer")]) as killer:
        turns = 0
        while turns < 40 or any(sum(seen[at] for at in group) < 3 for group in groups.values()):
            turns += 1
            assert turns < 1500, f"{seen} is all that was met"
            with Work("tick", 2) as target:
                killer.send(f"{target.pid} {chance.randrange(6_000_000)} {int(signo)}")
                at, error = _use_until_it_ends(target)
                seen[at] += 1
                # What it should be of a target that was killed in a hold is the next test.
                if not isinstance(error, (*ENDS, procvm.NotStoppedError)):
                    wrong[f"{at}: {type(error).__name__}: {str(error)[:60]}"] += 1
                assert target.popen.wait() == -signo
                assert killer.line() == "sent"
    assert not wrong, (wrong, seen)


def test_a_held_target_that_was_killed_is_told_to_have_ended() -> None:
    """Every call on a target that was killed in a hold says that it has ended."""
    found: dict[str, str] = {}
    for name in ("registers", "step", "cont", "set_registers", "stop", "exchange", "read"):
        with Work("tick", 2) as target, procvm.attach(target.pid, longest_hold=None) as tracee:
            tracee.stop()
            target.popen.kill()
            assert target.popen.wait() == -signal.SIGKILL
            assert eventually(lambda: not tracee.is_stopped())
            uses: dict[str, Callable[[], object]] = {
                "registers": tracee.registers,
                "step": tracee.step,
                "cont": partial(tracee.cont, 0.1),
                "set_registers": partial(tracee.set_registers, {}),
                "stop": tracee.stop,
                "exchange": partial(_exchange, tracee.vm, target.word),
                "read": partial(tracee.vm.read_val, target.word, u64),
            }
            try:
                uses[name]()
            except procvm.ProcvmError as error:
                found[name] = type(error).__name__
    assert set(found.values()) == {"ProcessExitedError"}, found


def test_a_target_that_exits_by_itself_about_a_hold_has_its_status() -> None:
    """Targets that exit at any instant of stop cycles, held whole or ended, give it."""
    met = 0
    for k in range(2000):
        if k >= 25 and met:
            break
        with Work("leaves", 1) as target, procvm.attach(target.pid) as tracee:
            # Two threads, of which the leader ends by itself, and then all are killed by a signal.
            target.board[3] = 1
            with contextlib.suppress(procvm.ProcessExitedError):
                with tracee.stopped():
                    met += target.board[5] == 1
                    target.signal(signal.SIGTERM)
                tracee.stop()
                tracee.resume()
            assert target.popen.wait() == -signal.SIGTERM, k
            assert tracee.wait() == -signal.SIGTERM
    assert met >= 1


def test_a_spawned_program_that_ends_at_once() -> None:
    """A program that ends or is killed at its first instruction leaves its true status."""
    for k in range(6):
        with procvm.spawn(["true"], stopped=True) as tracee:
            if k % 2:
                tracee.kill()
            else:
                tracee.resume()
            assert tracee.wait() == (-signal.SIGKILL if k % 2 else 0)
            with pytest.raises(procvm.ProcessExitedError):
                tracee.stop()
        assert not os.path.exists(f"/proc/{tracee.pid}")


# Zombies, kernel threads and special pids


def test_an_attached_process_that_became_a_zombie_says_so() -> None:
    """Stop, stopped and atomics on a zombie raise ProcessExitedError; no permission."""
    with Work("tick", 2) as target, procvm.attach(target.pid) as tracee:
        target.signal(signal.SIGTERM)
        assert eventually(lambda: state_of(target.pid) == "Z")
        for use in (tracee.stop, tracee.stopped, lambda: _exchange(tracee.vm, target.word)):
            with pytest.raises(procvm.ProcessExitedError) as caught:
                use()
            assert "permi" not in str(caught.value)
        assert not tracee.is_stopped()
        assert target.popen.wait() == -signal.SIGTERM


@needs_root
def test_an_init_is_held_like_any_other() -> None:
    """The init of a pid namespace is held, used atomically and let go, and runs on."""
    script = f"exec {compiled('trace_work')} tick $1 2"
    with contextlib.closing(Board()) as board:
        argv = ["unshare", "--pid", "--fork", "sh", "-c", script, "sh", str(board.fd)]
        with Child(argv, pass_fds=[board.fd]) as unshare:
            (word,) = unshare.hexes()
            children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
            init = int(children[0])
            assert status_field(init, "NSpid").split() == [str(init), "1"]
            assert eventually(lambda: board[4] >= 2)
            with procvm.attach(init) as tracee:
                for _ in range(20):
                    with tracee.stopped():
                        assert set(states(init).values()) == {"t"}
                assert tracee.vm.atomic_compare_exchange(word, u64, 0, 3) == (0, True)
                os.kill(init, signal.SIGTERM)
            assert_free(init)
            before = board.sum(16, 1100)
            assert eventually(lambda: board.sum(16, 1100) > before)
            os.kill(init, signal.SIGKILL)
            unshare.popen.wait()


# Many threads, and targets that cannot stop


@pytest.mark.parametrize("end", ["resume", "close", "longest time"])
@pytest.mark.parametrize("threads", [1, 100, 1000])
def test_a_target_of_many_threads_is_let_go_whole(threads: int, end: str) -> None:
    """1, 100 and 1,000 threads are all held, and all let go, whatever ends the hold."""
    longest = 0.3 if end == "longest time" else None
    with (
        Work("mixed", threads) as target,
        procvm.attach(target.pid, longest_hold=longest) as tracee,
    ):
        tracee.stop()
        found = states(target.pid)
        if end != "longest time" or tracee.is_stopped():  # on a busy machine it may be over
            assert (len(found), set(found.values())) == (threads, {"t"})
        if end == "resume":
            tracee.resume()
        elif end == "close":
            tracee.close()
        target.assert_runs()
        assert len(states(target.pid)) == threads


def _is_more(board: Board, at: int, before: int) -> bool:
    return board[at] > before


def test_io_uring_workers_are_held_too() -> None:
    """The kernel's threads that do a target's io_uring requests stop and run on."""
    with contextlib.ExitStack() as stack:
        board = stack.enter_context(contextlib.closing(Board()))
        argv = [compiled("trace_uring"), str(board.fd)]
        with Child(argv, pass_fds=[board.fd]) as target:
            line = target.line()
            if line.startswith("refused"):
                pytest.skip(f"io_uring_setup: {os.strerror(int(line.split()[1], 16))}")
            assert eventually(lambda: board[4] == 1)
            seen = 0
            with procvm.attach(target.pid) as tracee:
                for _ in range(100):
                    with tracee.stopped():
                        names = {thread.name: thread.state for thread in tracee.threads()}
                        assert set(names.values()) == {"t"}, names
                        seen += sum(name.startswith(b"iou-wrk") for name in names) > 0
                        assert sum(name.startswith(b"iou-sqp") for name in names) == 1
                        before = board.snapshot()
                        assert set(states(target.pid).values()) == {"t"}
                        assert board.snapshot() == before
                    assert eventually(partial(_is_more, board, 16, board[16]))
            assert seen >= 50
            assert_free(target.pid)


def test_a_target_that_can_not_be_stopped_is_refused_by_every_way_to_hold_it() -> None:
    """A parent in vfork: stop, stopped, atomics: StopTimeoutError; reads go on."""
    with Work("vfork") as target:
        with procvm.open(target.pid) as process:
            image = process.vm.read_val(target.word, u64)
        target.send("x")
        target.assert_runs()
        assert image == 0
    with Work("vfork") as target, procvm.open(target.pid) as process:
        with pytest.raises(procvm.StopTimeoutError):
            procvm.attach(target.pid, timeout=USUAL)
        assert process.vm.read_val(target.word, u64) == 0
        assert_free(target.pid)
        target.send("x")
        target.assert_runs()


def _is_empty(file: Path) -> bool:
    return not file.read_text()


@pytest.fixture
def group_of_v2() -> Iterator[Path]:
    """A control group of version 2 that can be frozen."""
    roots = [Path(p) for p in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")]
    for root in roots:
        group = root / f"procvm-test-{os.getpid()}"
        if (root / "cgroup.procs").exists():
            try:
                group.mkdir()
            except OSError:
                continue
            if (group / "cgroup.freeze").exists():
                try:
                    yield group
                finally:
                    (group / "cgroup.freeze").write_text("0")
                    eventually(partial(_is_empty, group / "cgroup.procs"))
                    group.rmdir()
                return
            group.rmdir()
    pytest.skip("no control group of version 2 can be made")


@needs_root
def test_a_target_frozen_by_its_control_group_is_not_stopped_later(group_of_v2: Path) -> None:
    """Frozen by version 2 it is held or StopTimeoutError; thawed it runs, untraced."""
    frozen = group_of_v2 / "cgroup.freeze"
    events = group_of_v2 / "cgroup.events"
    with Work("tick", 3) as target, procvm.attach(target.pid) as tracee:
        (group_of_v2 / "cgroup.procs").write_text(str(target.pid))
        for use in (tracee.stopped, lambda: _exchange(tracee.vm, target.word)):
            frozen.write_text("1")
            assert eventually(lambda: "frozen 1" in events.read_text())
            held = None
            tracee.timeout = USUAL
            with contextlib.suppress(procvm.StopTimeoutError):
                held = use()
            tracee.timeout = PATIENCE
            if held is not None:
                held.close()
            assert tracee.vm.read_val(target.word, u64) == 0
            frozen.write_text("0")
            target.assert_runs()
            for _ in range(50):
                assert set(states(target.pid).values()) <= {"R", "S"}
        with tracee.stopped():
            target.assert_stands_still()
        (group_of_v2.parent / "cgroup.procs").write_text(str(target.pid))


# Targets that another tool traces


def test_two_tools_race_for_one_target() -> None:
    """Of two tools one holds and the other is told whose tracer does; it runs on after."""
    with (
        Work("tick", 4) as target,
        Tool("race", target.pid) as one,
        Tool("race", target.pid) as two,
    ):
        assert [one.line(), two.line()] == ["racing", "racing"]
        # Each goes on until the other has met as much, and is told so.
        assert [one.line(), two.line()] == ["met", "met"]
        found = [json.loads(tool.ask("end")) for tool in (one, two)]
        assert all(tool.popen.wait() == 0 for tool in (one, two))
        target.assert_runs()
    for (held, refused, ours, told), (_, _, theirs, _) in (found, found[::-1]):
        assert held >= ENOUGH, found
        assert refused >= ENOUGH, found
        assert len(ours) == 1, found
        # It may tell of a thread of the other tool's tracer that has ended since.
        assert {pid for pid in told if os.path.exists(f"/proc/{pid}")} <= set(theirs), found
        assert set(told) & set(theirs), found


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_takes_a_target_in_the_middle_of_stop_cycles() -> None:
    """A debugger that comes while we stop and resume gets it, or is refused; it lives."""
    with (
        Work("tick", 2) as target,
        procvm.attach(target.pid) as tracee,
        tempfile.TemporaryFile("w+") as output,
    ):
        argv = ["gdb", "-q", "-nx", "-batch", "-p", str(target.pid), "-ex", "print 6 * 7"]
        # It repeats a line for a thread that is ours for the moment, and would fill a pipe.
        gdb = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT)
        told: set[int] = set()
        while gdb.poll() is None:
            try:
                tracee.stop()
                tracee.resume()
            except procvm.AlreadyTracedError as error:
                told.add(error.tracer_pid)
            assert tracee.vm.read_val(target.word, u64) == 0
        output.seek(0)
        said = output.read()
        assert told <= {gdb.pid}
        assert "$1 = 42" in said or "ptrace" in said, said
        target.assert_runs()
        with tracee.stopped():
            target.assert_stands_still()


# Stops that nest and repeat


def _of_itself(pid: int) -> dict[str, object]:
    wanted = ("Sig", "Shd", "Seccomp", "NoNewPrivs", "Uid", "Threads", "TracerPid", "Cpus_allowed")
    found: dict[str, object] = {
        "maps": Path(f"/proc/{pid}/maps").read_text(),
        "fds": {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")},
        "timers": Path(f"/proc/{pid}/timers").read_text(),
    }
    for tid in sorted(states(pid)):
        lines = Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines()
        # What is pending of the alarm comes and goes.
        status = [line for line in lines if line.startswith(wanted) and "SigQ" not in line]
        found[f"status {tid}"] = [line for line in status if not line.startswith("ShdPnd")]
    return found


def test_a_target_is_what_it_was_after_2000_stops() -> None:
    """Registers of every thread, masks, timers, descriptors, mappings after 2,000 stops."""
    with Child([compiled("trace_itself")]) as target:
        main, keeper, waiter, alarmed = target.hexes()
        assert set(states(target.pid)) == {main, keeper, waiter, alarmed}
        first = [int(word) for word in target.ask("look").split()]
        assert eventually(lambda: {states(target.pid)[tid] for tid in (main, waiter)} == {"S"})
        before = _of_itself(target.pid)
        with procvm.attach(target.pid) as tracee:
            with tracee.stopped():
                registers = {tid: tracee.registers(tid) for tid in (main, waiter)}
            for k in range(2000):
                if k % 3 == 0:
                    with tracee.stopped(), tracee.stopped():
                        pass
                else:
                    tracee.stop()
                    tracee.resume()
            # They come back to their calls before anything else can be said of them.
            assert eventually(lambda: {states(target.pid)[tid] for tid in (main, waiter)} == {"S"})
            with tracee.stopped():
                assert {tid: tracee.registers(tid) for tid in (main, waiter)} == registers
        assert_free(target.pid)
        assert eventually(lambda: {states(target.pid)[tid] for tid in (main, waiter)} == {"S"})
        assert _of_itself(target.pid) == before
        last = [int(word) for word in target.ask("look").split()]
        turns, harm, alarms, fired, expected, interval, virtual, mask = last
        assert turns > first[0]
        assert harm == 0
        assert alarms > first[2] + 20
        assert expected - 2 <= fired <= expected
        assert (interval, virtual, mask) == (3000, 7, first[7])
        again = [int(word) for word in target.ask("look").split()]
        assert again[1] == 0
        assert eventually(lambda: int(target.ask("look").split()[2]) > alarms), "no more alarms"


# System calls that a stop interrupts


def _call_of(pid: int) -> int:
    """Returns the number of the system call that the leader is blocked in, or -1."""
    word = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    return -1 if word == "running" else int(word)


def _blocked_again(pid: int, numbers: set[int]) -> bool:
    return state_of(pid) == "S" and _call_of(pid) in numbers


INTERRUPTED = [
    "epoll_wait",
    "epoll_pwait",
    "sigtimedwait",
    "semtimedop",
    "recv with a timeout",
    "io_getevents",
]
# The same calls by another name, and the same cause.
INTERRUPTED_TOO = [
    "epoll_pwait2",
    "sigwaitinfo",
    "semop",
    "send with a timeout",
    "accept with a timeout",
    "io_uring_enter",
]
RESTARTED = [
    "read",
    "write",
    "recv",
    "send",
    "accept",
    "poll",
    "poll with a timeout",
    "ppoll",
    "select",
    "futex",
    "futex with a timeout",
    "wait4",
    "waitid",
    "msgrcv",
    "eventfd",
    "inotify",
    "signalfd",
    "flock",
]


@pytest.mark.parametrize("call", [*INTERRUPTED, *INTERRUPTED_TOO])
def test_a_call_that_returns_eintr_after_a_hold(call: str) -> None:
    """It returns -1 with EINTR after the first hold, and nothing else of it is done."""
    with Child([compiled("trace_blocked"), call]) as target:
        (number,) = target.hexes()
        assert eventually(lambda: _blocked_again(target.pid, {number})), call
        with procvm.attach(target.pid) as tracee:
            with tracee.stopped():
                pass
            assert target.line() == f"-1 {errno.EINTR}"


RESTART_SYSCALL = 219
"""What Linux on x86-64 goes on with, for a call that has a time left."""


@pytest.mark.parametrize("call", RESTARTED)
def test_a_call_that_goes_on_after_holds(call: str) -> None:
    """It blocks on after three holds, and returns what it would have without them."""
    with Child([compiled("trace_blocked"), call]) as target:
        (number,) = target.hexes()
        numbers = {number, RESTART_SYSCALL}
        with procvm.attach(target.pid) as tracee:
            for _ in range(3):
                assert eventually(lambda: _blocked_again(target.pid, numbers)), call
                with tracee.stopped():
                    assert state_of(target.pid) == "t"
            assert eventually(lambda: _blocked_again(target.pid, numbers)), call
        target.send("")
        assert target.line() == "0 0"


def test_a_sleep_is_as_long_as_it_would_have_been() -> None:
    """Nanosleep returns 0, and not before its time, with holds in the middle of it."""
    met = 0
    for _ in range(20):
        with Child([compiled("trace_blocked"), "nanosleep"]) as target:
            (number,) = target.hexes()
            with procvm.attach(target.pid) as tracee:
                for _ in range(5):
                    with tracee.stopped():
                        met += _call_of(target.pid) in (number, RESTART_SYSCALL)
            assert target.line() == "0 0"
        if met >= 5:
            return
    raise AssertionError(f"only {met} holds met the sleep")


# The tool ends while it holds a target


def _ended_or_counts(target: Work, before: int) -> bool:
    return target.popen.poll() is not None or target.ticks() > before


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGTERM])
def test_a_tool_that_is_killed_in_a_step_harms_nobody(signo: signal.Signals) -> None:
    """The target of a tool killed at random instants of its steps runs on, unharmed."""
    chance = random.Random(f"24 {signo}")
    dead: Counter[object] = Counter()
    for _ in range(5):
        with Work("spin") as target, Tool("step", target.pid) as tool:
            assert tool.line() == "stepping"
            pass_time(chance.random() * 0.01)
            tool.signal(signo)
            assert tool.popen.wait() == -signo
            assert eventually(lambda: target.popen.poll() is not None or is_free(target.pid))
            assert eventually(partial(_ended_or_counts, target, target.ticks()))
            dead[target.popen.poll()] += 1
    assert dead == {None: 5}, f"ended with {dead}"


def test_a_signal_that_cont_stopped_at_outlives_the_tool() -> None:
    """A tool is killed when cont has told it of a signal: its target handles it, once."""
    lost = 0
    for _ in range(4):
        with Recorder() as target, Tool("go_on", target.pid) as tool:
            assert tool.line() == "going"
            target.signal(signal.SIGUSR1)
            assert tool.line() == f"signal {int(signal.SIGUSR1)}"
            assert target.seen(signal.SIGUSR1) == 0
            tool.signal(signal.SIGKILL)
            assert tool.popen.wait() == -signal.SIGKILL
            assert_free(target.pid)
            # A later one is handled after it.
            target.signal(signal.SIGUSR2)
            assert eventually(lambda: target.seen(signal.SIGUSR2) == 1)
            lost += target.seen(signal.SIGUSR1) != 1
    assert lost == 0, f"lost {lost} of 4"


@pytest.mark.parametrize("what", ["held_at_exit", "in_del", "held_by_a_thread"])
def test_an_interpreter_that_ends_with_a_hold_open(what: str) -> None:
    """A hold taken in atexit, in __del__ or by a daemon ends with the tool."""
    with Work("tick", 3) as target, Tool(what, target.pid, stderr=subprocess.PIPE) as tool:
        assert tool.line() == "end"
        if what == "held_at_exit":
            assert tool.line() == "held at exit"
        if what == "in_del":
            assert tool.line().endswith("in del")
        assert tool.popen.wait() == 0
        target.assert_runs()
        assert tool.popen.stderr is not None
        assert tool.popen.stderr.read() == b""


@pytest.mark.parametrize("how", ["stop", "with"])
def test_keys_of_a_terminal_reach_the_tool_and_not_its_tracer(how: str) -> None:
    """Ctrl-Z stops the tool alone: its hold ends at its time; fg and Ctrl-C then work."""
    with Work("tick", 2) as target, Tool("hold", target.pid, "0.3", how) as tool:
        tracer = int(tool.line().split()[1])
        tool.send("wait")
        target.assert_stands_still_while_held()
        os.killpg(tool.pid, signal.SIGTSTP)
        assert eventually(lambda: state_of(tool.pid) == "T")
        assert state_of(tracer) in "RSD"
        target.assert_runs()
        os.killpg(tool.pid, signal.SIGCONT)
        assert eventually(lambda: state_of(tool.pid) == "S")
        os.killpg(tool.pid, signal.SIGTERM)
        assert tool.popen.wait() == -signal.SIGTERM
        assert eventually(lambda: not os.path.exists(f"/proc/{tracer}") or state_of(tracer) == "Z")
        target.assert_runs()


# Other waits of the tool beside a hold


def test_holds_send_no_sigchld() -> None:
    """A handler of SIGCHLD in the tool hears of no hold of its child, and of its end."""
    heard: list[int] = []
    old = signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))
    try:
        with sleeper() as child:
            heard.clear()  # its start made and ended another process, maybe
            with procvm.attach(child.pid) as tracee:
                for _ in range(200):
                    with tracee.stopped():
                        pass
                assert heard == []
                child.terminate()
                assert child.wait() == -signal.SIGTERM
        assert heard == [1]
    finally:
        signal.signal(signal.SIGCHLD, old)


IGNORING = """
import os, signal, sys, procvm
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
target = int(sys.argv[1])
child = os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)
with procvm.attach(target) as other, procvm.attach(child, longest_hold=None) as tracee:
    for _ in range(50):
        with tracee.stopped(), other.stopped():
            pass
    tracee.stop()
    tracee.kill()
    tracee.wait()
    print(tracee.is_alive())
while os.path.exists(f"/proc/{child}"):
    pass
print("gone")
"""


def test_a_tool_that_ignores_sigchld_holds_and_leaves_no_zombie() -> None:
    """With SIGCHLD ignored holds work, and a child killed in one is gone at once."""
    with Work("tick", 2) as target:
        found = subprocess.run(
            [sys.executable, "-c", IGNORING, str(target.pid)],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert (found.stdout, found.stderr) == ("False\ngone\n", "")
        target.assert_runs()


# Threads and forks of the tool


def test_answers_to_many_threads_are_not_mixed_up() -> None:
    """Eight threads ask one held tracee different things; each gets its own answers."""
    wrong: list[object] = []
    with Work("sleep", 8) as target, procvm.attach(target.pid) as tracee:
        with tracee.stopped() as held:
            tids = sorted(states(target.pid))
            registers = {tid: tracee.registers(tid) for tid in tids}
            assert len({tuple(found.items()) for found in registers.values()}) == 8
            listed = tracee.threads()

            def ask(k: int) -> None:
                tid = tids[k]
                try:
                    for _ in range(100):
                        if tracee.registers(tid) != registers[tid]:
                            wrong.append(tid)
                        if tracee.threads() != listed or not tracee.is_stopped():
                            wrong.append("threads")
                        if held.vm.atomic_load(target.word, u64) != 0:
                            wrong.append("word")
                        tracee.stop()
                        tracee.resume()
                        with pytest.raises(procvm.NoSuchProcessError):
                            tracee.registers(1)
                except BaseException as error:  # noqa: BLE001 (shown by the test's thread)
                    wrong.append(error)

            threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert_free(target.pid)
        assert eventually(lambda: set(states(target.pid).values()) == {"S"})


# System calls of the tool that fail

CALLS_OF_THE_TOOL = (
    ("sendmsg", "recvmsg", "mmap", "ioctl", "pwrite64"),
    ("sendto", "poll", "pidfd_open", "process_vm_readv", "pipe2"),
    ("recvfrom", "openat", "memfd_create", "pread64", "ftruncate", "socketpair"),
)
ERRORS = ("EINTR", "EAGAIN", "ENOMEM", "EMFILE", "EPERM")

CALLS_OF_THE_TRACER = (
    # On which of its turns, and with the errors that the kernel may give it.
    ("ptrace", "5+7", ("EPERM", "EIO", "ENOMEM")),
    ("waitid", "5+7", ("EINTR", "ECHILD")),
    ("wait4", "2+3", ("EINTR",)),
    ("openat", "1+2", ("EINTR", "EMFILE", "EPERM")),
    ("sendto", "3+5", ("EINTR", "EAGAIN", "ENOMEM")),
    ("recvmsg", "3+5", ("EINTR", "EAGAIN", "ENOMEM")),
    ("poll", "5+7", ("EINTR",)),
    ("mmap", "1+2", ("ENOMEM",)),
)

PYTHONS_OWN = ("MemoryError", "BlockingIOError", "InterruptedError", "OSError", "PermissionError")
"""What Python raises where its own memory, descriptors, sockets and files fail."""


def _foreign(failures: dict[str, int]) -> list[str]:
    """Returns what was raised that is neither ours nor Python's own."""
    kinds = {what: what.partition(": foreign ")[2].split() for what in failures}
    return [what for what, kind in kinds.items() if kind and kind[0] not in PYTHONS_OWN]


class Sweep:
    """A tool that uses a target while its own calls, or those of its tracer, are made to fail."""

    def __init__(self, target: Work) -> None:
        self.target = target
        self.tool = Tool("rounds", target.pid, target.word, stderr=subprocess.DEVNULL)
        self.tool.line()
        self.problems: list[str] = []
        self.hits: Counter[str] = Counter()
        self.raised: Counter[str] = Counter()
        self.tracer = 0
        failures, self.fds = self.rounds("2")
        assert failures == {}

    def rounds(self, order: str) -> tuple[dict[str, int], list[str]]:
        failures, fds, self.tracer = json.loads(self.tool.ask(order))
        return failures, fds

    def provoke(self, pid: int, faults: list[tuple[str, str, str]]) -> None:
        """Has calls of a process fail: (call, error, on which of its turns)."""
        options = ["-e", "trace=" + ",".join(call for call, _, _ in faults)]
        for call, error, when in faults:
            options += ["-e", f"inject={call}:error={error}:when={when}"]
        with Strace(pid, *options) as strace:
            failures, _ = self.rounds("5 failing")
        for name in injected(strace.stop()):
            self.hits[name] += 1
        self.problems += [f"{faults}: {what}" for what in _foreign(failures)]
        self.raised.update(failures)
        ended = self.target.popen.poll()
        assert ended is None, f"{faults}: the target has ended, {ended}"
        self.target.assert_runs()

    def finish(self) -> None:
        """Nothing fails any more, and the tool has kept nothing."""
        failures, fds = self.rounds("3")
        assert self.problems == [], "\n".join(self.problems[:40])
        assert failures == {}
        assert not Counter(fds) - Counter(self.fds), (fds, self.fds)

    def close(self) -> None:
        self.tool.close()


@pytest.fixture
def sweep() -> Iterator[Sweep]:
    """A tool and its target, which must run on in the end."""
    with Work("tick", 2) as target:
        sweep = Sweep(target)
        try:
            yield sweep
        finally:
            sweep.close()
        target.assert_runs()


@needs_strace
@pytest.mark.parametrize("calls", CALLS_OF_THE_TOOL, ids=" ".join)
def test_a_call_of_the_tool_fails_now_and_then(sweep: Sweep, calls: tuple[str, ...]) -> None:
    """Whichever call of the tool fails with whichever error: the target runs on."""
    for k in range(len(ERRORS)):
        errors = [ERRORS[(k + i) % len(ERRORS)] for i in range(len(calls))]
        whens = [f"{2 + (3 * i + k) % 7}+{(5, 7, 11)[(i + k) % 3]}" for i in range(len(calls))]
        sweep.provoke(sweep.tool.pid, list(zip(calls, errors, whens, strict=True)))
    sweep.finish()
    # Not each of them is made in each way to run.
    assert len(sweep.hits) >= 2, sweep.hits
    assert sum(sweep.hits.values()) >= 15, sweep.hits


@needs_strace
@pytest.mark.parametrize(("call", "when", "errors"), CALLS_OF_THE_TRACER)
def test_a_call_of_the_tracer_fails_now_and_then(
    sweep: Sweep, call: str, when: str, errors: tuple[str, ...]
) -> None:
    """Whichever call of the tracer fails: errors of ours alone, and the target runs on."""
    for error in errors:
        sweep.provoke(sweep.tracer, [(call, error, when)])
    foreign = [what for what in sweep.raised if "foreign" in what]
    assert foreign == []
    sweep.finish()
    assert sum(sweep.hits.values()) >= 1, sweep.hits


@needs_strace
def test_a_worker_whose_thread_dies_at_its_start_is_told_at_once(sweep: Sweep) -> None:
    """Python maps memory for a thread before its first line: if it cannot, the call fails.

    The error is not StopTimeoutError, which comes only after the time of the call and more.
    """
    # Turns count for each thread: the main thread maps the page of flags, of which every other
    # fails; the first mapping of a new thread is Python's.
    sweep.provoke(sweep.tracer, [("mmap", "ENOMEM", "1+2")])
    sweep.finish()
    assert sweep.raised["attach: NotTracedError"] >= 1, sweep.raised
    assert "attach: StopTimeoutError" not in sweep.raised


WITHOUT = """
import os, procvm, resource, sys
tracee = procvm.attach(int(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
def name_of(use):
    try:
        use()
    except Exception as error:
        return type(error).__name__ if isinstance(error, procvm.ProcvmError) else repr(error)
for use in (tracee.stopped, lambda: procvm.attach(int(sys.argv[1]))):
    print(name_of(use))
# Enough to open the process, too few for a channel.
for _ in range(4):
    os.close(taken.pop())
print(name_of(lambda: procvm.attach(int(sys.argv[1]))))
tracee.stop()
tracee.resume()
"""


def test_a_tool_without_descriptors_is_told_so_by_errors_of_ours() -> None:
    """Where no descriptor is left stopped and attach raise errors of ours; stop works."""
    with Work("tick", 2) as target:
        found = subprocess.run(
            [sys.executable, "-c", WITHOUT, str(target.pid)],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert (found.stdout, found.stderr) == ("VmError\n" * 3, "")
        target.assert_runs()
