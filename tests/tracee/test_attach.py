"""What can be attached to, and what the refusal of the rest says."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import warnings
from collections.abc import Iterator

import pytest

import procvm
from tests.support.patience import eventually
from tests.support.procfs import assert_free, state_of, states, status_field, tracers
from tests.tracee.witness import Work, sleeper


def test_a_tool_can_not_hold_itself() -> None:
    """Attach(os.getpid()) raises UnsupportedError at once and leaves no descriptor open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(procvm.UnsupportedError):
        procvm.attach(os.getpid())
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_process_that_is_gone_is_told_so() -> None:
    """A pid that nobody has: NoSuchProcessError; a zombie: ProcessExitedError."""
    child = subprocess.Popen(["true"])
    assert eventually(lambda: state_of(child.pid) == "Z")
    with pytest.raises(procvm.ProcessExitedError) as ended:
        procvm.attach(child.pid)
    assert ended.value.pid == child.pid
    assert child.wait() == 0
    with pytest.raises(procvm.NoSuchProcessError) as gone:
        procvm.attach(child.pid)
    assert gone.value.pid == child.pid


@pytest.mark.parametrize("pid", [0, -1, -5, 1 << 31, 1 << 64])
def test_a_number_that_is_no_pid_is_no_such_process(pid: int) -> None:
    """0, negative, too large: NoSuchProcessError, and nothing is signalled."""
    with pytest.raises(procvm.NoSuchProcessError):
        procvm.attach(pid)


@pytest.mark.parametrize("pid", [True, b"1", 1.0, None])
def test_a_pid_is_an_int(pid: object) -> None:
    """Anything else is TypeError, unless it is a name."""
    with pytest.raises(TypeError):
        procvm.attach(pid)  # type: ignore[arg-type]


def test_a_thread_is_no_process() -> None:
    """The tid of a thread that is no leader raises NoSuchProcessError which names the leader."""
    with Work("tick", 2) as target:
        (tid,) = {*states(target.pid)} - {target.pid}
        with pytest.raises(procvm.NoSuchProcessError, match=str(target.pid)):
            procvm.attach(tid)
        target.assert_runs()


@pytest.mark.skipif(os.geteuid() != 0, reason="other users cannot even see it")
def test_a_kernel_thread_is_refused_by_its_name() -> None:
    """A kernel thread: AccessDeniedError that says so."""
    assert status_field(2, "Kthread") == "1"
    with pytest.raises(procvm.AccessDeniedError, match="kernel thread"):
        procvm.attach(2)


def test_a_zombie_leader_with_live_threads_is_held() -> None:
    """Its threads stop and run on, memory is read, `threads` tells Z for the leader."""
    with Work("orphan", 3) as target:
        assert eventually(lambda: state_of(target.pid) == "Z")
        with procvm.attach(target.pid) as tracee:
            for _ in range(20):
                with tracee.stopped() as held:
                    target.assert_stands_still()
                    found = states(target.pid)
                    assert found.pop(target.pid) == "Z"
                    assert set(found.values()) == {"t"}
                    assert len(found) == 3
                    held.vm.read_val(target.word, procvm.u64)
                    assert {t.tid: t.state for t in tracee.threads()}[target.pid] == "Z"
            vm = tracee.vm
            assert vm.atomic_compare_exchange(target.word, procvm.u64, 0, 5) == (0, True)
            assert vm.atomic_load(target.word, procvm.u64) == 5
            assert tracee.is_alive()
        target.assert_runs()


@pytest.fixture(params=["gdb", "strace"])
def traced(request: pytest.FixtureRequest) -> Iterator[tuple[Work, int]]:
    """A target that a debugger traces, and the pid of that debugger."""
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    with Work("sleep", 2) as target:
        if request.param == "gdb":
            argv = [
                program,
                "-q",
                "-nx",
                "-batch",
                "-p",
                str(target.pid),
                "-ex",
                "shell sleep 1000",
            ]
        else:
            argv = [program, "-f", "-o", "/dev/null", "-p", str(target.pid)]
        tracer = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert eventually(lambda: len(tracers(target.pid)) > 0)
            yield target, tracer.pid
        finally:
            os.killpg(tracer.pid, signal.SIGKILL)
            tracer.wait()


def test_a_traced_process_names_its_tracer_and_can_be_opened(traced: tuple[Work, int]) -> None:
    """AlreadyTracedError with the debugger's pid; procvm.open reads and writes."""
    target, debugger = traced
    with pytest.raises(procvm.AlreadyTracedError) as caught:
        procvm.attach(target.pid)
    assert caught.value.tracer_pid == debugger
    assert caught.value.pid == target.pid
    with procvm.open(target.pid) as process:
        process.vm.write_val(target.word, procvm.u64, 77)
        assert process.vm.read_val(target.word, procvm.u64) == 77
    assert tracers(target.pid) == {debugger}


def test_a_tracee_that_a_debugger_took_is_told_so_at_its_next_hold() -> None:
    """Traced by strace after the attach: stop is AlreadyTracedError, and later works."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with Work("tick", 2) as target, procvm.attach(target.pid) as tracee:
        strace = subprocess.Popen(
            ["strace", "-f", "-o", "/dev/null", "-p", str(target.pid)],
            stderr=subprocess.DEVNULL,
        )
        try:
            assert eventually(lambda: len(tracers(target.pid)) > 0)
            with pytest.raises(procvm.AlreadyTracedError) as caught:
                tracee.stop()
            assert caught.value.tracer_pid == strace.pid
            with pytest.raises(procvm.AlreadyTracedError):
                tracee.vm.atomic_load(target.word, procvm.u64)
        finally:
            strace.terminate()
            strace.wait()
        assert_free(target.pid)
        with tracee.stopped():
            target.assert_stands_still()
        target.assert_runs()


def test_attaching_twice_is_fine() -> None:
    """Two tracees of one process hold it one after the other, closed in any order."""
    with sleeper() as target:
        first = procvm.attach(target.pid)
        second = procvm.attach(target.pid)
        for tracee in (first, second, first):
            with tracee.stopped():
                assert state_of(target.pid) == "t"
            assert_free(target.pid)
        first.close()
        with second.stopped():
            assert state_of(target.pid) == "t"
        second.close()
        assert_free(target.pid)


def test_a_forgotten_tracee_warns_and_lets_go() -> None:
    """Dropping a tracee that was never closed is a ResourceWarning, and ends its hold."""
    with Work("tick", 2) as target:
        tracee = procvm.attach(target.pid, longest_hold=None)
        tracee.stop()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del tracee
            gc.collect()
            messages = [str(w.message) for w in caught if w.category is ResourceWarning]
            caught.clear()  # they keep what they warn of
            gc.collect()
        assert any(str(target.pid) in message for message in messages), messages
        target.assert_runs()
