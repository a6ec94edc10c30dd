"""Signals that race with stops arrive once, in order; a stop by a signal stays one."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

import procvm
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually, pass_time
from tests.support.procfs import assert_free, is_free, state_of, states
from tests.tracee.witness import Recorder, Work
from tests.tracee.workloads import cycles_of_stopped, queued_signals, races_met, standard_signals

STOPS = [signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU]
IGNORED = {signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT}


@pytest.mark.parametrize("threads", [1, 3])
def test_numbered_signals_arrive_once_in_order_with_their_payload(threads: int) -> None:
    """6,000 queued signals across stops: none lost, doubled, reordered, changed."""
    found = races_met({"stops with a signal about": 15}, lambda: queued_signals(6000, threads))
    for harm in ("lost", "doubled", "out of order", "changed"):
        assert found[harm] == 0, found


@pytest.mark.parametrize("threads", [1, 3])
def test_every_standard_signal_is_handled_once(threads: int) -> None:
    """Each signal sent before, in and between stops runs its handler once."""
    found = standard_signals(6, threads)
    assert found["lost"] == 0, found
    assert found["doubled"] == 0, found


def test_signals_sent_in_a_hold_arrive_after_it() -> None:
    """500 signals queued while held are seen after it, all and in order."""
    with Recorder() as target, procvm.attach(target.pid) as tracee:
        program = compiled("trace_signals")
        with tracee.stopped():
            subprocess.run([program, "send", str(target.pid), "40", "1", "500"], check=True)
            assert target.seen(40) == 0
        assert eventually(lambda: target.seen(40) == 500)
        assert (target.board[2], target.board[3]) == (0, 0)


@pytest.mark.parametrize("signo", sorted({*range(1, 32), *range(34, 65)} - {*STOPS}))
def test_a_signal_has_its_default_effect_across_stops(signo: int) -> None:
    """It ends the target with that very status, or is ignored, as without a tracer."""
    with Child([compiled("trace_signals"), "default"]) as target:
        assert target.line() == "ready"
        with procvm.attach(target.pid) as tracee:
            for k in range(3):
                with tracee.stopped():
                    if k == 1:
                        target.signal(signo)
                if signo not in IGNORED:
                    if k == 1:
                        break
                    continue
            if signo in IGNORED:
                assert_free(target.pid)
                assert eventually(lambda: state_of(target.pid) == "S")
                assert target.popen.poll() is None
            else:
                assert target.popen.wait() == -signo


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGSEGV, signal.SIGKILL, 50])
def test_a_signal_that_ends_the_target_races_with_stops(signo: int) -> None:
    """Sent at random instants of cycles it ends 15 targets, as it would."""
    for k in range(15):
        with Child([compiled("trace_signals"), "default"]) as target:
            assert target.line() == "ready"
            with procvm.attach(target.pid) as tracee:
                pid = os.fork()
                if pid == 0:
                    pass_time(k * 0.00007)
                    os.kill(target.pid, signo)
                    os._exit(0)
                try:
                    while True:
                        with tracee.stopped():
                            pass
                except procvm.ProcessExitedError:
                    pass
                assert os.waitpid(pid, 0)[1] == 0
                assert target.popen.wait() == -signo
                assert tracee.wait() == -signo


@pytest.mark.parametrize("signo", STOPS)
def test_a_stopped_target_stays_stopped(signo: int) -> None:
    """A target that a signal stopped before the holds is T after each, until SIGCONT."""
    found = cycles_of_stopped(signo, 100)
    assert found["left stopped"] == 0, found
    assert found["not T any more"] == 0, found


@pytest.mark.parametrize("signo", STOPS)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_stop_signal_in_a_hold_stops_after_it(signo: int, threads: int) -> None:
    """Sent while held, it makes all threads T after the detach; SIGCONT lets them run."""
    with Work("tick", threads) as target:
        with procvm.attach(target.pid) as tracee:
            with tracee.stopped():
                target.signal(signo)
                target.assert_stands_still()
            assert eventually(lambda: set(states(target.pid).values()) == {"T"}), states(target.pid)
            assert is_free(target.pid)
            with tracee.stopped():
                assert set(states(target.pid).values()) == {"t"}
        assert eventually(lambda: set(states(target.pid).values()) == {"T"})
        found = os.waitid(os.P_PID, target.pid, os.WSTOPPED | os.WNOHANG)
        assert found is not None, "its parent was not told of the stop"
        assert (found.si_code, found.si_status) == (os.CLD_STOPPED, signo)
        target.signal(signal.SIGCONT)
        target.assert_runs()


@pytest.mark.parametrize("signo", STOPS)
def test_sigcont_in_a_hold_runs_after_it(signo: int) -> None:
    """Stopped, with SIGCONT while held, it stands still until the end, and runs then."""
    with Work("tick", 4) as target, procvm.attach(target.pid) as tracee:
        target.signal(signo)
        assert eventually(lambda: set(states(target.pid).values()) == {"T"})
        with tracee.stopped():
            target.signal(signal.SIGCONT)
            target.assert_stands_still()
        target.assert_runs()
        with tracee.stopped():
            target.signal(signo)
            target.signal(signal.SIGCONT)
            target.assert_stands_still()
        target.assert_runs()


def test_stops_and_conts_race_with_holds() -> None:
    """Of 300 SIGSTOPs and SIGCONTs in stop cycles the last one counts."""
    with Work("tick", 3) as target, procvm.attach(target.pid) as tracee:
        cycles = 0
        while cycles < 20:
            pid = os.fork()
            if pid == 0:
                for k in range(300):
                    os.kill(target.pid, signal.SIGCONT if k % 2 else signal.SIGSTOP)
                    pass_time((k * 7 % 13) * 0.00005)
                os._exit(0)
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                with tracee.stopped():
                    cycles += 1
            target.assert_runs()
        target.signal(signal.SIGSTOP)
        with tracee.stopped():
            pass
        assert eventually(lambda: set(states(target.pid).values()) == {"T"})
        target.signal(signal.SIGCONT)
        target.assert_runs()


@pytest.mark.parametrize(
    ("number", "error"),
    [(99, ValueError), (-1, ValueError), (65, ValueError), (True, TypeError),
     (9.0, TypeError), ("SIGKILL", TypeError), (None, TypeError)],
)  # fmt: skip
def test_send_signal_of_no_signal_is_refused_by_its_number(
    number: Any, error: type[Exception]
) -> None:
    """The message names what was given, and nothing is sent."""
    with Recorder() as target, procvm.attach(target.pid) as tracee:
        with pytest.raises(error, match=rf" {number};|signo must be an int"):
            tracee.send_signal(number)
        assert tracee.is_alive()
        tracee.send_signal(signal.SIGURG)
