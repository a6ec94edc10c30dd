"""Holds nest and count, from every thread; between them the target is not traced."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

import procvm
from tests.support.patience import USUAL, eventually
from tests.support.procfs import (
    assert_free,
    has_ended,
    is_free,
    own_children,
    own_fds,
    state_of,
    states,
    status_field,
    tracer_of,
    tracers,
)
from tests.tracee.witness import Tool, Work, hold_that_ends_early, sleeper


@pytest.fixture
def work() -> Iterator[Work]:
    """Two threads that tick."""
    with Work("tick", 2) as target:
        yield target


@pytest.fixture
def tracee(work: Work) -> Iterator[procvm.Tracee]:
    """The two threads, attached; they run on in the end."""
    with procvm.attach(work.pid) as tracee:
        yield tracee
    work.assert_runs()


def test_an_attached_target_runs_and_nobody_traces_it(work: Work, tracee: procvm.Tracee) -> None:
    """Attaching leaves TracerPid 0 in every thread, and the target counting."""
    assert tracers(work.pid) == set()
    work.assert_runs()
    assert not tracee.is_stopped()


def test_a_hold_stops_every_thread(work: Work, tracee: procvm.Tracee) -> None:
    """While held all threads are in a ptrace stop, and nothing is counted."""
    tracee.stop()
    assert set(states(work.pid).values()) == {"t"}
    work.assert_stands_still()
    assert tracee.is_stopped()
    tracee.resume()
    assert tracers(work.pid) == set()
    assert not tracee.is_stopped()


def test_a_hold_in_an_exit_stack_ends_with_it(work: Work, tracee: procvm.Tracee) -> None:
    """ExitStack, which looks `__exit__` up in the class; with an error of the block and without."""
    with ExitStack() as stack:
        stack.enter_context(tracee.stopped())
        work.assert_stands_still()
    assert not tracee.is_stopped()
    assert tracers(work.pid) == set()
    with suppress(KeyError), ExitStack() as stack:
        stack.enter_context(tracee.stopped())
        raise KeyError
    assert not tracee.is_stopped()
    work.assert_runs()


def test_stops_are_counted(work: Work, tracee: procvm.Tracee) -> None:
    """Only the first stop's resume lets the target go; one more is NotStoppedError."""
    for _ in range(3):
        tracee.stop()
    for _ in range(2):
        tracee.resume()
        assert tracee.is_stopped()
        work.assert_stands_still()
    tracee.resume()
    assert not tracee.is_stopped()
    work.assert_runs()
    with pytest.raises(procvm.NotStoppedError) as caught:
        tracee.resume()
    assert caught.value.pid == work.pid


def test_with_and_stop_nest_in_any_order(work: Work, tracee: procvm.Tracee) -> None:
    """A hold lasts until its last with and its last stop have ended."""
    with tracee.stopped():
        with tracee.stopped():
            tracee.stop()
        work.assert_stands_still()
    assert tracee.is_stopped()
    work.assert_stands_still()
    with tracee.stopped():
        tracee.resume()
        assert tracee.is_stopped()
        work.assert_stands_still()
    assert not tracee.is_stopped()
    work.assert_runs()


def test_resume_does_not_end_a_with(work: Work, tracee: procvm.Tracee) -> None:
    """In a with, a resume without a stop raises NotStoppedError; the hold goes on."""
    with tracee.stopped():
        with pytest.raises(procvm.NotStoppedError):
            tracee.resume()
        work.assert_stands_still()
    work.assert_runs()


def test_a_hold_ends_with_an_exception_in_it(work: Work, tracee: procvm.Tracee) -> None:
    """An exception leaves the with unchanged, and the target running."""
    with pytest.raises(ZeroDivisionError), tracee.stopped():
        raise ZeroDivisionError
    work.assert_runs()


def test_holds_of_several_threads_are_counted_together(work: Work, tracee: procvm.Tracee) -> None:
    """8 threads that each hold 50 times never see the target move."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def hold(k: int) -> None:
        try:
            barrier.wait()
            for turn in range(50):
                if (k + turn) % 2:
                    tracee.stop()
                    before = work.board.snapshot()
                    assert set(states(work.pid).values()) == {"t"}
                    assert work.board.snapshot() == before
                    tracee.resume()
                else:
                    with tracee.stopped():
                        before = work.board.snapshot()
                        assert set(states(work.pid).values()) == {"t"}
                        assert work.board.snapshot() == before
        except BaseException as error:  # noqa: BLE001 (shown by the test's thread)
            failures.append(error)

    threads = [threading.Thread(target=hold, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not tracee.is_stopped()


def test_a_stop_of_one_thread_is_resumed_by_another(work: Work, tracee: procvm.Tracee) -> None:
    """The count is the tracee's, not that of the thread that stopped it."""
    stopper = threading.Thread(target=tracee.stop)
    stopper.start()
    stopper.join()
    work.assert_stands_still()
    resumer = threading.Thread(target=tracee.resume)
    resumer.start()
    resumer.join()
    work.assert_runs()


def test_a_signal_handler_may_use_the_tracee_in_the_middle_of_a_call(
    tracee: procvm.Tracee,
) -> None:
    """A handler's call in the middle of another mixes up neither answer."""
    wrong: list[object] = []
    inside = ran = 0
    handled = False

    def handler(*_: object) -> None:
        nonlocal ran, handled
        handled = True
        try:
            found: object = tracee.threads()
        except Exception as error:  # noqa: BLE001 (any is wrong here)
            found = error
        if not isinstance(found, list) or len(found) != 2:
            wrong.append(found)
        ran += 1

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        sender = threading.Thread(target=_send_often, args=(lambda: -1 if wrong else ran,))
        sender.start()
        while sender.is_alive():
            handled = False
            try:
                answer: object = tracee.is_stopped()
            except Exception as error:  # noqa: BLE001 (any is wrong here)
                answer = error
            inside += handled
            if answer is not False:
                wrong.append(answer)
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert inside >= 20, f"only {inside} of {ran} handlers ran in the middle of a call"
    assert wrong == []


def _is_more(ran: Callable[[], int], k: int) -> bool:
    return ran() > k


def _send_often(ran: Callable[[], int]) -> None:
    for k in range(200):
        os.kill(os.getpid(), signal.SIGUSR1)
        if not eventually(partial(_is_more, ran, k)):
            return


def test_a_request_that_an_exception_interrupts_lets_the_target_go() -> None:
    """A signal handler raises in the middle of a `cont` without a limit; a new hold works."""

    def interrupt() -> None:
        assert eventually(lambda: state_of(target.pid) == "S")
        signal.pthread_kill(main, signal.SIGUSR1)

    def handler(_: int, __: object) -> None:
        raise LookupError

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with sleeper() as target, procvm.attach(target.pid, longest_hold=None) as tracee:
            tracee.stop()
            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(LookupError):
                tracee.cont()
            thread.join()
            assert_free(target.pid)
            with tracee.stopped():
                assert state_of(target.pid) == "t"
            assert_free(target.pid)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_threads_are_told_with_names_and_states(tracee: procvm.Tracee, work: Work) -> None:
    """`threads` gives tid, name and state as /proc has them: t while held, R or S between."""
    comm = Path(f"/proc/{work.pid}/comm").read_bytes().strip()
    with tracee.stopped():
        found = tracee.threads()
        assert [each[:3] for each in found] == [
            (tid, comm, "t") for tid in sorted(states(work.pid))
        ]
        # Every thread is stopped, so that the kernel tells each stack pointer.
        assert all(each.stack and each.stack[0] < each.stack[1] for each in found)
    assert eventually(lambda: {t.state for t in tracee.threads()} <= {"R", "S"})


def test_a_hold_ends_after_its_longest_time(work: Work) -> None:
    """After longest_hold the target runs, is_stopped is False, resume raises NotStoppedError."""
    with procvm.attach(work.pid, longest_hold=0.2) as tracee:
        start = time.monotonic()
        tracee.stop()
        work.assert_stands_still_while_held()
        assert_free(work.pid)
        assert time.monotonic() - start >= 0.2
        assert not tracee.is_stopped()
        with pytest.raises(procvm.NotStoppedError):
            tracee.resume()
        hold_once_in_time(tracee, work)
        work.assert_runs()


def hold_once_in_time(tracee: procvm.Tracee, work: Work) -> None:
    """Stops a target and resumes it before the longest time is over, after some tries."""
    while True:
        tracee.stop()
        work.assert_stands_still_while_held()
        try:
            tracee.resume()
        except procvm.NotStoppedError:
            continue  # the machine was busy
        return


def test_an_expired_with_keeps_no_later_hold(work: Work) -> None:
    """Inside a with whose time was over, a new stop and its resume leave the target running."""
    with procvm.attach(work.pid, longest_hold=0.2) as tracee:
        with hold_that_ends_early(tracee):
            assert_free(work.pid)
            hold_once_in_time(tracee, work)
            assert not tracee.is_stopped(), "the expired hold came back"
        work.assert_runs()


def test_without_a_longest_time_a_hold_lasts(work: Work) -> None:
    """With longest_hold None the target is still held after a time that ends another's hold."""
    with (
        Work("tick") as other,
        procvm.attach(work.pid, longest_hold=None) as tracee,
        procvm.attach(other.pid, longest_hold=0.3) as short,
    ):
        tracee.stop()
        short.stop()
        assert_free(other.pid)
        work.assert_stands_still()
        tracee.resume()
    work.assert_runs()


@pytest.mark.parametrize("end", ["close", "detach", "with"])
def test_the_end_of_a_tracee_ends_its_hold(work: Work, end: str) -> None:
    """Close, detach and the end of the with let it go; afterwards ClosedError."""
    tracee = procvm.attach(work.pid, longest_hold=None)
    held = tracee.stopped()
    tracee.stop()
    work.assert_stands_still()
    if end == "with":
        with tracee:
            pass
    else:
        getattr(tracee, end)()
    work.assert_runs()
    for use in (
        tracee.stop,
        tracee.resume,
        tracee.stopped,
        tracee.is_stopped,
        tracee.threads,
        lambda: tracee.vm.read_val(work.word, procvm.u64),
        lambda: tracee.vm.atomic_load(work.word, procvm.u64),
        lambda: tracee.send_signal(0),
    ):
        with pytest.raises(procvm.ClosedError):
            use()
    tracee.close()
    tracee.detach()
    held.close()
    work.assert_runs()


def test_closing_leaves_nothing_in_the_tool() -> None:
    """30 held targets later, the tool has the descriptors, threads and children it had."""
    before = own_fds(), sorted(os.listdir("/proc/self/task")), own_children()
    for k in range(30):
        with sleeper() as target:
            tracee = procvm.attach(target.pid)
            tracee.stop()
            with tracee.stopped():
                if k % 3 == 0:
                    target.kill()
                    target.wait()
            tracee.close()
    assert (own_fds(), sorted(os.listdir("/proc/self/task")), own_children()) == before


def test_the_tracer_keeps_nothing_of_closed_tracees(work: Work) -> None:
    """30 tracees later the tracer has as many descriptors and threads as after the first."""

    def in_use(tracer: int) -> tuple[int, int]:
        return len(os.listdir(f"/proc/{tracer}/fd")), len(os.listdir(f"/proc/{tracer}/task"))

    def use() -> int:
        with procvm.attach(work.pid) as tracee, tracee.stopped():
            tracee.vm.atomic_load(work.word, procvm.u64)
            return tracer_of(work.pid)

    tracer = use()
    assert_free(work.pid)
    assert eventually(lambda: in_use(tracer)[1] == 1)
    before = in_use(tracer)
    for _ in range(30):
        assert use() == tracer
    # Fewer, where something of an earlier test was closed meanwhile.
    assert eventually(lambda: in_use(tracer) <= before), (in_use(tracer), before)


def test_one_tracer_serves_every_tracee() -> None:
    """Ten targets held at a time have one tracer process, in a session of its own."""
    works = [Work("sleep", 1) for _ in range(10)]
    tracees = [procvm.attach(work.pid) for work in works]
    try:
        for tracee in tracees:
            tracee.stop()
        (tracer,) = {tracer_of(work.pid) for work in works}
        assert os.getsid(tracer) != os.getsid(0)
        for tracee in tracees:
            tracee.resume()
        for work in works:
            assert_free(work.pid)
    finally:
        for tracee in tracees:
            tracee.close()
        for work in works:
            work.close()


def test_two_tracees_of_one_process_do_not_disturb_each_other(work: Work) -> None:
    """A second tracee holds, or gets AlreadyTracedError; neither leaves it held."""
    with procvm.attach(work.pid) as first:
        with first.stopped():
            told = 0
            try:
                second = procvm.attach(work.pid, timeout=USUAL)
            except procvm.AlreadyTracedError as error:
                told = error.tracer_pid
            else:
                with second, second.stopped():
                    work.assert_stands_still()
            assert told in (0, tracer_of(work.pid))
            work.assert_stands_still()
        work.assert_runs()


def test_two_threads_that_attach_at_a_time_both_get_on(work: Work) -> None:
    """Holding from 4 threads at a time raises AlreadyTracedError at most."""
    wrong: list[BaseException] = []
    good = []

    def use() -> None:
        for _ in range(20):
            try:
                with procvm.attach(work.pid) as tracee, tracee.stopped():
                    good.append(1)
            except procvm.AlreadyTracedError:
                continue
            except BaseException as error:  # noqa: BLE001 (shown by the test's thread)
                wrong.append(error)
                return

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert good
    work.assert_runs()


@pytest.mark.parametrize("held", [False, True])
def test_the_tracer_is_killed(work: Work, held: bool) -> None:
    """The target runs on; a call raises NotTracedError, and the next one works."""
    with procvm.attach(work.pid) as tracee:
        tracee.stop()
        tracer = tracer_of(work.pid)
        if not held:
            tracee.resume()
        os.kill(tracer, signal.SIGKILL)
        assert eventually(lambda: has_ended(tracer))
        work.assert_runs()
        with pytest.raises(procvm.NotTracedError):
            tracee.is_stopped()
        with tracee.stopped():
            work.assert_stands_still()
            assert tracer_of(work.pid) != tracer
        work.assert_runs()


def test_a_tracer_ignores_the_signals_of_a_terminal(work: Work, tracee: procvm.Tracee) -> None:
    """SIGINT, SIGTERM, SIGHUP and SIGTSTP to the tracer end no hold."""
    with tracee.stopped():
        tracer = tracer_of(work.pid)
        for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
            os.kill(tracer, signo)
        assert tracee.is_stopped()
        assert tracer_of(work.pid) == tracer
        work.assert_stands_still()


def test_a_forked_child_of_the_tool_keeps_no_hold(work: Work) -> None:
    """A child forked in a hold does not prolong it; its calls are ClosedError."""
    with procvm.attach(work.pid, longest_hold=None) as tracee:
        with tracee.stopped():
            end, ours = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    tracee.is_stopped()
                except procvm.ClosedError:
                    os.write(ours, b"closed")
                finally:
                    os.write(ours, b"!")
                    signal.pause()
            assert os.read(end, 6) == b"closed"
            work.assert_stands_still()
        try:
            assert eventually(lambda: is_free(work.pid)), "held by the fork of the tool"
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(end)
            os.close(ours)
    work.assert_runs()


def test_a_forked_child_of_the_tool_can_attach_itself(work: Work, tracee: procvm.Tracee) -> None:
    """A child of the tool holds the target by a tracer of its own."""
    with tracee.stopped():
        ours = tracer_of(work.pid)
    assert_free(work.pid)
    end, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with procvm.attach(work.pid) as own, own.stopped():
                os.write(theirs, str(tracer_of(work.pid)).encode())
                status = 0
        finally:
            os._exit(status)
    os.close(theirs)
    assert os.waitpid(child, 0)[1] == 0
    assert int(os.read(end, 20)) != ours
    os.close(end)
    with tracee.stopped():
        assert tracer_of(work.pid) == ours


def test_a_hold_of_1000_threads_stops_all_of_them() -> None:
    """A target of 1,000 threads is held whole, each time, and let go whole."""
    with Work("mixed", 1000) as target, procvm.attach(target.pid) as tracee:
        for _ in range(3):
            with tracee.stopped():
                found = states(target.pid)
                assert len(found) == 1000
                assert set(found.values()) == {"t"}
                target.assert_stands_still()
                assert len(tracee.threads()) == 1000
            target.assert_runs()


def test_a_killed_target_is_not_held_any_more(work: Work) -> None:
    """Killed while held it ends at once: it is reaped, and calls say it has ended."""
    with procvm.attach(work.pid, longest_hold=None) as tracee:
        tracee.stop()
        work.popen.kill()
        assert work.popen.wait() == -signal.SIGKILL
        assert eventually(lambda: not tracee.is_alive())
        assert tracee.wait() == -signal.SIGKILL
        assert not tracee.is_stopped()
        with pytest.raises((procvm.NotStoppedError, procvm.ProcessExitedError)):
            tracee.resume()
        with pytest.raises(procvm.ProcessExitedError):
            tracee.stop()
        with pytest.raises(procvm.ProcessExitedError):
            tracee.vm.read_val(work.word, procvm.u64)


def test_a_zombie_leader_that_is_killed_while_held_is_not_stopped_any_more() -> None:
    """After the leader's, the end of the last thread ends the hold."""
    with Work("orphan", 2) as target:
        assert eventually(lambda: state_of(target.pid) == "Z")
        with procvm.attach(target.pid, longest_hold=None) as tracee:
            tracee.stop()
            assert tracee.is_stopped()
            target.popen.kill()
            assert target.popen.wait() == -signal.SIGKILL
            assert eventually(lambda: not tracee.is_stopped()), "a dead process is held"
            with pytest.raises(procvm.ProcessExitedError):
                tracee.stop()


def test_kill_and_signals_reach_a_held_target(work: Work) -> None:
    """A kill ends a held target; twice is fine, and send_signal then says that it has ended."""
    with procvm.attach(work.pid) as tracee:
        tracee.stop()
        tracee.kill()
        assert work.popen.wait() == -signal.SIGKILL
        tracee.kill()
        with pytest.raises(procvm.ProcessExitedError):
            tracee.send_signal(signal.SIGTERM)


def test_reading_and_writing_go_on_in_a_hold(work: Work, tracee: procvm.Tracee) -> None:
    """Under a hold `held.vm` reads what was written; the target sees it afterwards."""
    with tracee.stopped() as held:
        held.vm.write_val(work.word, procvm.u64, 0x1122334455667788)
        assert tracee.vm.read_val(work.word, procvm.u64) == 0x1122334455667788


def test_a_tool_on_two_targets_holds_them_apart(work: Work, tracee: procvm.Tracee) -> None:
    """Holding one target leaves another one running, and the other way round."""
    with Work("tick", 2) as other, procvm.attach(other.pid) as second:
        other.assert_runs()
        with tracee.stopped():
            other.assert_runs()
            with second.stopped():
                other.assert_stands_still()
            other.assert_runs()
            work.assert_stands_still()


def test_a_second_tool_is_told_who_traces(work: Work, tracee: procvm.Tracee) -> None:
    """Held by another tool: AlreadyTracedError with the pid of that one's tracer."""
    with Tool("hold", work.pid) as tool:
        tool.line()
        tracer = tracer_of(work.pid)
        assert status_field(tracer, "PPid") != str(tool.pid)
        with pytest.raises(procvm.AlreadyTracedError) as caught:
            tracee.stop()
        assert caught.value.tracer_pid == tracer
        with pytest.raises(procvm.AlreadyTracedError):
            procvm.attach(work.pid)
        tool.send("plain")
        assert tool.popen.wait() == 0
    with tracee.stopped():
        work.assert_stands_still()
