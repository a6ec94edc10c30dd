"""No request of the tracer reaches another process, or another program of the process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import procvm
from procvm import u64
from procvm._hold.server.hold import Hold
from procvm._hold.server.proof import Proof
from procvm._hold.server.seizing import Seizer
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import assert_free, state_of, states, status_field, tracer_of, tracers
from tests.tracee.test_going_on import needs_strace, slow_ptrace

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
sets_pids = pytest.mark.root(f"writes {LAST_PID}")


def bystander(pid: int) -> subprocess.Popen[bytes]:
    """Starts a process under a number that is free."""
    for _ in range(1000):
        LAST_PID.write_text(str(pid - 1))
        child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if child.pid == pid:
            return child
        child.kill()
        child.communicate()
    raise AssertionError(f"no process gets the number {pid}")


@contextmanager
def number_of_another() -> Iterator[tuple[procvm.Tracee, subprocess.Popen[bytes]]]:
    """A tracee whose process has ended, and the process that has its number."""
    with Child(["/bin/cat"]) as child:
        tracee = procvm.attach(child.pid, longest_hold=None)
    with tracee, bystander(child.pid) as other:
        try:
            yield tracee, other
        finally:
            other.kill()


REQUESTS = {
    "stop": lambda tracee: tracee.stop(),
    "stopped": lambda tracee: tracee.stopped(),
    "resume": lambda tracee: tracee.resume(),
    "registers": lambda tracee: tracee.registers(),
    "set_registers": lambda tracee: tracee.set_registers({"rip": 0x1234}),
    "step": lambda tracee: tracee.step(),
    "cont": lambda tracee: tracee.cont(timeout=0),
    "pending_events": lambda tracee: tracee.pending_events(),
    "threads": lambda tracee: tracee.threads(),
    "snapshot": lambda tracee: tracee.snapshot(),
    "send_signal": lambda tracee: tracee.send_signal(9),
    "atomic_load": lambda tracee: tracee.vm.atomic_load(0x1000, u64),
}


@sets_pids
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_after_pid_reuse_is_refused_and_touches_nothing(name: str) -> None:
    """ProcessExitedError, and the process with the number is neither stopped nor changed."""
    with number_of_another() as (tracee, other):
        with pytest.raises(procvm.ProcessExitedError) as caught:
            REQUESTS[name](tracee)
        assert caught.value.pid == other.pid
        assert not tracers(other.pid)
        assert other.communicate(b"lives", timeout=30)[0] == b"lives"
        assert other.returncode == 0


@sets_pids
def test_a_stop_after_reuse_by_a_process_of_the_same_memory_is_refused() -> None:
    """Both run in the address space of their parent, so that only the process tells them apart."""
    with Child([compiled("sharer")]) as parent:
        parent.hexes()
        pid = int(parent.ask("clone"))
        with procvm.attach(pid, longest_hold=None) as tracee:
            parent.ask("end")
            for _ in range(1000):
                LAST_PID.write_text(str(pid - 1))
                other = int(parent.ask("clone"))
                if other == pid:
                    break
                parent.ask("end")
            assert other == pid
            with pytest.raises(procvm.ProcessExitedError):
                tracee.stop()
            assert_free(pid)
        parent.ask("end")


@pytest.mark.parametrize("name", sorted(REQUESTS.keys() - {"send_signal", "resume"}))
def test_a_request_after_an_exec_is_refused_and_touches_nothing(name: str) -> None:
    """ProcessExecedError outside of a hold, or in none; the new program runs on."""
    with Child(["/bin/sh", "-c", "read line; exec cat"]) as child:
        with procvm.attach(child.pid, longest_hold=None) as tracee:
            child.send("go")
            assert eventually(lambda: comm(child.pid) == "cat")
            if name in ("registers", "set_registers", "step", "cont", "pending_events"):
                # Nothing is held, so there is nothing that they could reach.
                with pytest.raises((procvm.ProcessExecedError, procvm.NotStoppedError)):
                    REQUESTS[name](tracee)
            else:
                with pytest.raises(procvm.ProcessExecedError):
                    REQUESTS[name](tracee)
            assert_free(child.pid)
        assert child.ask("still here") == "still here"


def test_a_program_that_an_exec_brought_is_let_go_without_a_stop() -> None:
    """It waits in epoll_wait, which any stop would end with EINTR; `stop` is refused."""
    blocked = compiled("trace_blocked")
    with Child(["/bin/sh", "-c", f"read line; exec {blocked} epoll_wait"]) as child:
        with procvm.attach(child.pid, longest_hold=None) as tracee:
            child.send("go")
            (number,) = child.hexes()
            assert eventually(lambda: in_call(child.pid, number))
            for _ in range(20):
                with pytest.raises(procvm.ProcessExecedError):
                    tracee.stop()
            assert_free(child.pid)
            assert in_call(child.pid, number)
        child.send("")
        assert child.line() == "0 0"


def in_call(pid: int, number: int) -> bool:
    """Returns whether a process sleeps in a system call."""
    words = Path(f"/proc/{pid}/syscall").read_text().split()
    return words[0] == str(number) and state_of(pid) == "S"


def stop_and_tell(tracee: procvm.Tracee) -> type[procvm.ProcvmError] | None:
    """Returns the type of the error of a stop; None if there was none."""
    try:
        tracee.stop()
    except procvm.ProcvmError as error:
        return type(error)
    return None


@needs_strace
def test_an_exec_while_the_target_is_being_stopped_is_told(tmp_path: Path) -> None:
    """It execs once it was proved to run the program: `stop` holds nothing, and says so."""
    log = tmp_path / "log"
    with (
        Child(["/bin/sh", "-c", "read line; exec cat"]) as child,
        procvm.attach(child.pid, longest_hold=None) as tracee,
    ):
        with tracee.stopped():
            tracer = tracer_of(child.pid)
        assert_free(child.pid)
        with slow_ptrace(tracer, log), ThreadPoolExecutor(1) as pool:
            found = pool.submit(stop_and_tell, tracee)
            # It is seized, and its interrupt is still to come.
            assert eventually(lambda: "PTRACE_INTERRUPT" in log.read_text())
            child.send("go")
            assert found.result() is procvm.ProcessExecedError
        assert_free(child.pid)
        assert child.ask("still here") == "still here"


@needs_strace
def test_an_exec_by_a_thread_that_is_being_seized_is_told(tmp_path: Path) -> None:
    """The thread takes the number of the leader, and its own is nobody's: it is no other task."""
    log = tmp_path / "log"
    with (
        Child([compiled("thread_exec")]) as child,
        procvm.attach(child.pid, longest_hold=None) as tracee,
    ):
        assert child.line() == "ready"
        with tracee.stopped():
            tracer = tracer_of(child.pid)
            (thread,) = states(child.pid).keys() - {child.pid}
        assert_free(child.pid)
        with slow_ptrace(tracer, log, "exit"), ThreadPoolExecutor(1) as pool:
            found = pool.submit(stop_and_tell, tracee)
            # The call that seized it has not returned.
            assert eventually(lambda: status_field(thread, "TracerPid") != "0")
            child.send("")
            assert found.result() is procvm.ProcessExecedError
        assert_free(child.pid)
        assert child.ask("still here") == "still here"


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_a_child_of_vfork_that_execs_is_not_held() -> None:
    """Its address space lives on in its parent, and the token that is read there is the same."""
    with Child([compiled("vfork_exec")]) as parent:
        pid = int(parent.line())
        with procvm.attach(pid, longest_hold=None) as tracee:
            parent.send("go")
            assert parent.line() == "execed"
            with pytest.raises(procvm.ProcessExecedError):
                tracee.stop()
            assert_free(pid)


@pytest.mark.parametrize(
    "name", ["registers", "set_registers", "step", "breakpoint", "syscall", "stop"]
)
def test_a_request_in_the_hold_of_an_exec_event_is_refused_and_touches_nothing(name: str) -> None:
    """The addresses and threads that the tool knows are those of the program that is gone."""
    requests = {
        **REQUESTS,
        "breakpoint": lambda tracee: tracee.breakpoint(0x400000),
        "syscall": lambda tracee: tracee.syscall("getpid"),
    }
    with (
        Child(["/bin/sh", "-c", "read line; exec cat"]) as child,
        procvm.attach(child.pid, longest_hold=None) as tracee,
    ):
        tracee.stop()
        child.send("go")
        event = tracee.cont(timeout=60)
        assert event is not None
        assert event.kind == "exec"
        before = Path(f"/proc/{child.pid}/syscall").read_text()
        with pytest.raises(procvm.ProcessExecedError):
            requests[name](tracee)
        assert Path(f"/proc/{child.pid}/syscall").read_text() == before
        tracee.close()
        assert_free(child.pid)
        assert child.ask("still here") == "still here"


def test_seize_of_a_number_that_another_process_has_got_lets_it_go_untouched() -> None:
    """A thread was listed, ended, and its number was given again before it was seized."""
    with Child(["/bin/cat"]) as target, Child(["/bin/cat"]) as other:
        pidfd = os.pidfd_open(target.pid)

        def seize() -> tuple[str, str, bool]:
            hold = Hold(Proof(target.pid, pidfd))
            try:
                Seizer(hold).seize_task(other.pid)
            except procvm.StopTimeoutError as error:
                return str(error), state_of(other.pid), other.pid in hold.states
            return "seized", state_of(other.pid), other.pid in hold.states

        try:
            # The kernel detaches what a thread has seized as the thread ends.
            with ThreadPoolExecutor(1) as pool:
                text, state, kept = pool.submit(seize).result()
        finally:
            os.close(pidfd)
        assert "was given to another process, which was let go untouched" in text
        assert state in "RS"
        assert not kept
        assert_free(other.pid)
        assert other.ask("still here") == "still here"
