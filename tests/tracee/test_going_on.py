"""What is true again, or still, after a held target has gone on, and after its tracer's death."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import procvm
from procvm import u64
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground
from tests.support.procfs import assert_free, has_ended, states, tracer_of
from tests.tracee.witness import Recorder, Work

needs_strace = pytest.mark.strace


def _go_on_and_ask(tracee: procvm.Tracee, playground: Playground, line: str) -> None:
    """Sends a held playground a command, and lets it go on until it has obeyed."""
    playground.send(line)
    while not playground.has_line():
        tracee.cont(0.01)
    assert not playground.line().startswith("error")


def test_cont_over_a_change_of_mappings_is_seen_by_every_access(playground: Playground) -> None:
    """In one hold: what the target has closed faults afterwards, what it has opened is read."""
    base = playground.layout("rw none rw")
    with procvm.attach(playground.pid, longest_hold=None) as tracee, tracee.stopped() as held:
        vm = held.vm
        first = vm.read_val(base, u64)
        assert vm.atomic_compare_exchange(base, u64, first, 5) == (first, True)
        assert vm.atomic_load(base + 2 * PAGE, u64) == vm.read_val(base + 2 * PAGE, u64)
        with pytest.raises(procvm.PageFaultError):
            vm.read_val(base + PAGE, u64)
        _go_on_and_ask(tracee, playground, f"protect {base:x} {PAGE} none")
        _go_on_and_ask(tracee, playground, f"protect {base + PAGE:x} {PAGE} rw")
        _go_on_and_ask(tracee, playground, f"protect {base + 2 * PAGE:x} {PAGE} r")
        for use in (
            lambda: vm.read_val(base, u64),
            lambda: vm.read_bytes(base, 100),
            lambda: vm.atomic_load(base, u64),
            lambda: vm.atomic_compare_exchange(base, u64, 5, 6),
            lambda: vm.atomic_compare_exchange(base + 2 * PAGE, u64, 0, 6),
        ):
            with pytest.raises(procvm.PageFaultError):
                use()
        opened = vm.read_val(base + PAGE, u64)
        assert vm.atomic_compare_exchange(base + PAGE, u64, opened, 7) == (opened, True)
    assert playground.peek(base, 8) == (5).to_bytes(8, "little")
    assert playground.peek(base + PAGE, 8) == (7).to_bytes(8, "little")


@pytest.mark.parametrize("signo", [signal.SIGSTOP, signal.SIGTSTP])
def test_cont_of_a_target_that_a_signal_stopped_leaves_it_stopped(signo: signal.Signals) -> None:
    """It counts nothing until SIGCONT, however often it is let go on, and is T after the hold."""
    with Work("tick", 2) as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        target.signal(signo)
        assert eventually(lambda: set(states(target.pid).values()) == {"T"})
        tracee.stop()
        before = target.ticks()
        for _ in range(10):
            tracee.cont(0.02)
            assert target.ticks() == before
        tracee.resume()
        assert eventually(lambda: set(states(target.pid).values()) == {"T"})
        assert target.ticks() == before
        target.signal(signal.SIGCONT)
        target.assert_runs()


@contextmanager
def slow_ptrace(tracer: int, log: Path, where: str = "enter") -> Iterator[None]:
    """Each ptrace call of the tracer waits at its entry or exit; strace logs the calls."""
    strace = subprocess.Popen(
        [
            *("strace", "-f", "-o", log, "-p", str(tracer), "-e", "trace=ptrace,waitid,wait4"),
            *("-e", f"inject=ptrace:delay_{where}=300000"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert strace.stderr is not None
    try:
        assert b"attached" in strace.stderr.readline()
        yield
    finally:
        # Asked to detach from what has just been killed, it may wait for ever.
        strace.kill()
        strace.wait()
        strace.stderr.close()


@needs_strace
def test_tracer_killed_between_seeing_a_signal_and_passing_it_on_loses_none(tmp_path: Path) -> None:
    """The signal came instead of the stop; the target handles it, once."""
    log = tmp_path / "log"
    with Recorder() as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        with tracee.stopped():
            tracer = tracer_of(target.pid)
        assert_free(target.pid)

        def stop() -> None:
            with pytest.raises(procvm.ProcvmError):
                tracee.stop()

        stopper = threading.Thread(target=stop)
        with slow_ptrace(tracer, log):
            stopper.start()
            # It is seized, and its interrupt is still to come.
            assert eventually(lambda: re.search(r"PTRACE_SEIZE.* = 0", log.read_text()))
            target.signal(signal.SIGUSR1)
            assert eventually(lambda: re.search(r"(waitid|wait4)\(.*SIGUSR1", log.read_text()))
            os.kill(tracer, signal.SIGKILL)
        stopper.join()
        assert eventually(lambda: has_ended(tracer))
        assert eventually(lambda: target.seen(signal.SIGUSR1) == 1)
        target.signal(signal.SIGUSR2)
        assert eventually(lambda: target.seen(signal.SIGUSR2) == 1)
        assert target.seen(signal.SIGUSR1) == 1


def test_stop_of_two_targets_at_a_time_takes_no_event_of_the_other() -> None:
    """Two threads hold one target each, 300 times: each is stopped whole, and runs on after."""
    wrong: list[object] = []

    def cycle(target: Work, tracee: procvm.Tracee) -> None:
        try:
            for _ in range(300):
                with tracee.stopped():
                    found = set(states(target.pid).values())
                    if found != {"t"}:
                        wrong.append(found)
        except BaseException as error:  # noqa: BLE001 (shown by the test's thread)
            wrong.append(error)

    with (
        Work("tick", 3) as one,
        Work("tick", 3) as two,
        procvm.attach(one.pid) as first,
        procvm.attach(two.pid) as second,
    ):
        threads = [
            threading.Thread(target=cycle, args=pair) for pair in ((one, first), (two, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        one.assert_runs()
        two.assert_runs()


def test_stop_of_another_target_while_one_stands_at_an_event_is_no_slower() -> None:
    """What one target is held at is not taken for news of the other, which stops 50 times."""
    with (
        Recorder() as held,
        Work("tick", 2) as other,
        procvm.attach(held.pid, longest_hold=None) as first,
        procvm.attach(other.pid) as second,
    ):
        first.stop()
        held.signal(signal.SIGUSR1)
        event = first.cont()
        assert event is not None
        assert event.signo == signal.SIGUSR1
        for _ in range(50):
            with second.stopped():
                assert set(states(other.pid).values()) == {"t"}
        other.assert_runs()
        assert held.seen(signal.SIGUSR1) == 0
        first.resume()
        assert eventually(lambda: held.seen(signal.SIGUSR1) == 1)
