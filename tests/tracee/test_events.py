"""cont tells every event once, in order, before it takes effect; events can be discarded."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress

import pytest

import procvm
from procvm import u64
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import assert_free, state_of, states, tracer_of
from tests.tracee.witness import Recorder


def target(mode: str, threads: int = 1) -> Child:
    return Child([compiled("trace_events"), mode, str(threads)])


def sleeper_in_c() -> Child:
    return target("waits")


def signal_thread(pid: int, tid: int, signo: int) -> None:
    # SAFETY: numbers only.
    assert ctypes.CDLL(None).tgkill(pid, tid, signo) == 0


def test_cont_of_threads_that_signal_themselves_tells_each_signal_once() -> None:
    """Four threads signal themselves: the handler never runs more often than signals are told."""
    with target("signals", 4) as child:
        (word,) = child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.send("go")
            told = 0
            while told < 400:
                event = tracee.cont()
                assert event is not None
                assert (event.kind, event.signo) == ("signal", signal.SIGUSR1)
                told += 1
                # All of those that were told before may have run, and no other.
                assert tracee.vm.read_val(word, u64) <= told - 1
            queued = len(tracee.pending_events())
            ran = tracee.vm.read_val(word, u64)
            assert told - 4 <= ran <= told, (told, ran, queued)
        assert_free(child.pid)
        assert child.line() == "started"
        child.send("end")
        assert int(child.line().split()[1], 16) >= told + queued
        assert child.popen.wait() == 0


def test_cont_with_signals_to_two_threads_queues_the_second() -> None:
    """Both signals come before cont: it tells one, then the other, and nothing runs between."""
    with target("waits", 1) as child:
        (word,) = child.hexes()
        child.send("go")
        assert child.line() == "started"
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            tids = sorted(thread.tid for thread in tracee.threads())
            assert len(tids) == 2
            for tid in tids:
                signal_thread(child.pid, tid, signal.SIGUSR1)
            first = tracee.cont()
            assert first is not None
            waiting = tracee.pending_events()
            second = tracee.cont()
            assert second is not None
            if waiting:
                assert waiting == [second]
            assert sorted((first.tid, second.tid)) == tids
            # The first may run only if the second had not come yet.
            assert tracee.vm.read_val(word, u64) <= (not waiting)
            assert tracee.cont(timeout=0.2) is None
            assert tracee.vm.read_val(word, u64) == 2


def test_events_that_came_together_are_told_in_the_order_they_are_pending() -> None:
    """Nine threads get a signal each: cont tells the first of pending_events, to the last one."""
    longest = 0
    with target("waits", 8) as child:
        child.hexes()
        assert child.ask("go") == "started"
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            while longest < 3:
                tids = sorted(thread.tid for thread in tracee.threads())
                for tid in tids:
                    signal_thread(child.pid, tid, signal.SIGUSR1)
                told: list[int] = []
                while len(told) < len(tids):
                    waiting = tracee.pending_events()
                    longest = max(longest, len(waiting))
                    event = tracee.cont()
                    assert event is not None
                    assert not waiting or (event, waiting[1:]) == (
                        waiting[0],
                        tracee.pending_events(),
                    )
                    told.append(event.tid)
                assert sorted(told) == tids


def test_an_event_that_is_discarded_never_reaches_the_target() -> None:
    """SIGTERM, which would end it, is discarded, and so is a second one; it runs on."""
    with sleeper_in_c() as child:
        child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            for _ in range(2):
                child.signal(signal.SIGTERM)
                event = tracee.cont()
                assert event is not None
                assert event.signo == signal.SIGTERM
                event.discard()
                assert state_of(child.pid) == "t"
                with pytest.raises(procvm.NotStoppedError):
                    event.discard()
                with pytest.raises(procvm.NotStoppedError):
                    event.replace(signal.SIGUSR1)
            assert tracee.cont(timeout=0.05) is None
        assert_free(child.pid)
        assert child.ask("go") == "started"


def test_an_event_that_is_discarded_stays_so_when_the_tracer_is_killed() -> None:
    """Discarding takes effect at once: the tracer's death does not deliver the signal."""
    with sleeper_in_c() as child:
        child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee:
            tracee.stop()
            child.signal(signal.SIGTERM)
            event = tracee.cont()
            assert event is not None
            event.discard()
            os.kill(tracer_of(child.pid), signal.SIGKILL)
            assert_free(child.pid)
            assert child.ask("go") == "started"


def test_an_event_that_was_told_is_delivered_when_the_tracer_is_killed() -> None:
    """The event is not consumed: with the tracer gone, the kernel delivers it, once."""
    with sleeper_in_c() as child:
        (word,) = child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee:
            tracee.stop()
            child.signal(signal.SIGUSR1)
            assert tracee.cont() is not None
            os.kill(tracer_of(child.pid), signal.SIGKILL)
            assert_free(child.pid)
            assert child.ask("go") == "started"
            with procvm.open(child.pid) as process:
                assert process.vm.read_val(word, u64) == 1


def test_an_event_of_before_has_no_part_in_the_one_of_now() -> None:
    """Two signals of one thread: once the second is told, the first cannot be discarded."""
    with sleeper_in_c() as child:
        (word,) = child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.signal(signal.SIGUSR1)
            first = tracee.cont()
            child.signal(signal.SIGUSR1)
            second = tracee.cont()
            assert first is not None
            assert second is not None
            assert first != second
            for change in (first.discard, lambda: first.replace(signal.SIGTERM)):
                with pytest.raises(procvm.NotStoppedError):
                    change()
            assert tracee.cont(timeout=0.05) is None
            assert tracee.vm.read_val(word, u64) == 2
        assert child.ask("go") == "started"
        child.send("end")
        assert child.line() == "end 2"


def test_an_event_that_is_replaced_as_the_hold_ends_delivers_the_other_signal() -> None:
    """SIGTERM is replaced by SIGUSR1, and the hold ends: the handler runs, and the target lives."""
    with sleeper_in_c() as child:
        (word,) = child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee:
            with tracee.stopped():
                child.signal(signal.SIGTERM)
                event = tracee.cont()
                assert event is not None
                event.replace(signal.SIGUSR1)
            assert child.ask("go") == "started"
            assert tracee.vm.read_val(word, u64) == 1


def test_cont_that_takes_longer_than_the_longest_hold_keeps_the_hold() -> None:
    """The longest time is that of standing still: the target is held after a long `cont`."""
    held = 0
    with sleeper_in_c() as child, procvm.attach(child.pid, longest_hold=0.5) as tracee:
        child.hexes()
        for _ in range(40):
            with suppress(procvm.NotStoppedError), tracee.stopped():
                assert tracee.cont(timeout=0.6) is None
                held += tracee.is_stopped()
            if held:  # on a busy machine the rest of the hold may take longer
                break
        assert held
        assert_free(child.pid)


def test_an_event_that_is_replaced_delivers_the_other_signal() -> None:
    """SIGTERM is replaced by SIGUSR1: the handler runs, and the target lives."""
    with sleeper_in_c() as child:
        (word,) = child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.signal(signal.SIGTERM)
            event = tracee.cont()
            assert event is not None
            for bad in (0, 65, -1):
                with pytest.raises(ValueError, match="no signal"):
                    event.replace(bad)
            with pytest.raises(TypeError):
                event.replace("USR1")  # type: ignore[arg-type]
            event.replace(signal.SIGUSR1)
            assert tracee.cont(timeout=0.05) is None
            assert tracee.vm.read_val(word, u64) == 1
        assert child.ask("go") == "started"


def test_an_event_not_discarded_is_delivered_once_as_the_hold_ends() -> None:
    """The default: the signal that was told is delivered when the target goes on."""
    with sleeper_in_c() as child:
        (word,) = child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee:
            with tracee.stopped():
                child.signal(signal.SIGUSR1)
                event = tracee.cont()
                assert event is not None
                assert tracee.vm.read_val(word, u64) == 0
            assert child.ask("go") == "started"
            assert tracee.vm.read_val(word, u64) == 1
            with pytest.raises(procvm.NotStoppedError):
                event.discard()


def test_a_trap_instruction_in_a_thread_is_told_before_it_kills() -> None:
    """A thread runs an illegal instruction while the leader waits: the signal is told."""
    with target("traps", 1) as child:
        child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.send("go")
            event = tracee.cont()
            assert event is not None
            assert (event.kind, event.signo) == ("signal", signal.SIGILL)
            assert event.tid != child.pid
            assert event.siginfo is not None
            assert event.siginfo.address == tracee.registers(event.tid)["rip"]
            assert event.siginfo.pid is None
        assert child.popen.wait() == -signal.SIGILL


def test_siginfo_of_a_sent_signal_names_its_sender() -> None:
    """A signal by kill has the sender's pid and uid, and one by sigqueue its value."""
    with sleeper_in_c() as child:
        child.hexes()
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.signal(signal.SIGUSR1)
            event = tracee.cont()
            assert event is not None
            info = event.siginfo
            assert info is not None
            assert (info.signo, info.code, info.pid, info.uid) == (10, 0, os.getpid(), os.getuid())
            assert (info.value, info.address) == (None, None)


def test_an_exec_event_has_no_signal_to_discard() -> None:
    """After an exec the tracee's requests are refused, and the new program runs on unharmed."""
    with Child(["/bin/sh", "-c", "read line; exec cat"]) as child:
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.send("go")
            event = tracee.cont()
            assert event is not None
            assert (event.kind, event.tid, event.signo) == ("exec", child.pid, 0)
            with pytest.raises(ValueError, match="no signal"):
                event.discard()
            for request in (
                tracee.registers,
                lambda: tracee.set_registers({"rip": 0}),
                tracee.step,
                tracee.stop,
            ):
                with pytest.raises(procvm.ProcessExecedError):
                    request()
        assert child.ask("still here") == "still here"


def test_a_stop_by_a_signal_is_told_once() -> None:
    """SIGSTOP of three threads: the signal, then one stop; the target stays stopped after."""
    with target("waits", 2) as child:
        child.hexes()
        assert child.ask("go") == "started"
        with procvm.attach(child.pid, longest_hold=None) as tracee:
            with tracee.stopped():
                child.signal(signal.SIGSTOP)
                kinds: list[tuple[str, int]] = []
                while len(kinds) < 9 and (event := tracee.cont(timeout=0.2)) is not None:
                    kinds.append((str(event.kind), event.signo))
                assert kinds == [("signal", signal.SIGSTOP), ("stop", signal.SIGSTOP)]
            assert_free(child.pid)
            # Let go, each thread wakes for a moment to take up the stop of its process again.
            assert eventually(lambda: set(states(child.pid).values()) == {"T"})
        child.signal(signal.SIGCONT)
        child.send("end")
        assert child.line().startswith("end")


def test_an_event_whose_signal_a_step_delivered_cannot_be_discarded_any_more() -> None:
    with Recorder() as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        tracee.stop()
        target.signal(signal.SIGUSR1)
        event = tracee.cont(timeout=60)
        assert event is not None
        assert event.signo == signal.SIGUSR1
        tracee.step()
        with pytest.raises(procvm.NotStoppedError):
            event.discard()
        with pytest.raises(procvm.NotStoppedError):
            event.replace(signal.SIGUSR2)
        tracee.resume()
        assert eventually(lambda: target.seen(signal.SIGUSR1))
        assert (target.seen(signal.SIGUSR1), target.seen(signal.SIGUSR2)) == (1, 0)
