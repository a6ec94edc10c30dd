"""syscall, call and scratch: what the target was doing goes on as if nothing had happened."""

from __future__ import annotations

import errno
import os
import signal

import pytest

import procvm
from procvm import u64
from procvm._linux.perf_event import is_exact
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import assert_free, state_of, status_field

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls need x86-64")


class Callee(Child):
    """tests/support/targets/callee.c in a mode."""

    def __init__(self, mode: str) -> None:
        super().__init__([compiled("callee"), mode])
        (self.word,) = self.hexes()


def test_call_and_syscall_return_results_and_keep_a_blocked_read() -> None:
    """The thread waits in read: it still does after the calls, with the same registers."""
    with Callee("read") as child, procvm.attach(child.pid) as tracee:
        assert eventually(lambda: state_of(child.pid) == "S")
        mask = status_field(child.pid, "SigBlk")
        with tracee.stopped():
            before = tracee.registers(kind="all")
            assert tracee.syscall("getpid") == child.pid
            assert tracee.syscall("close", 12345) == -errno.EBADF
            assert tracee.call("add", 1, 2, 3, 4, 5, 6) == 654321
            assert tracee.call("add", -1) == -1
            assert tracee.vm.read_val(child.word, u64) == 9
            assert tracee.registers() == {n: before[n] for n in tracee.registers()}
        assert_free(child.pid)
        assert child.ask("hello") == "read hello"
        assert status_field(child.pid, "SigBlk") == mask


def test_syscall_in_a_sleep_does_not_cut_it_short() -> None:
    """clock_nanosleep goes on for its two seconds, and returns 0."""
    with Callee("sleep") as child, procvm.attach(child.pid) as tracee:
        assert eventually(lambda: state_of(child.pid) == "S")
        with tracee.stopped():
            assert tracee.syscall("getppid") == os.getpid()
            assert tracee.call("add") == 0
        assert child.line() == "slept 0"
        assert child.popen.wait() == 0


def test_calls_at_any_instruction_keep_registers_and_red_zone() -> None:
    """300 calls into a loop that keeps values in its red zone and in vector registers."""
    with Callee("spin") as child, procvm.attach(child.pid) as tracee:
        add = tracee.symbol("add")
        for _ in range(300):
            with tracee.stopped():
                assert tracee.call(add, 5) == 5
        with tracee.stopped():
            tracee.vm.write_val(child.word, u64, 1000)
        assert child.line() == "wrong 0"


def test_scratch_is_mapped_and_unmapped() -> None:
    """The bytes can be used by the target, and are gone afterwards, also after an error."""
    with Callee("read") as child, procvm.attach(child.pid) as tracee:
        with tracee.stopped():
            before = len(tracee.maps())
            with tracee.scratch(100) as address:
                tracee.vm.write_bytes(address, b"from outside\n")
                assert tracee.syscall("write", 1, address, 13) == 13
                assert tracee.syscall("mprotect", address, 4096, 1) == 0
                vma = tracee.find_vma(address)
                assert vma is not None
                assert str(vma.perms) == "r--p"
            assert tracee.find_vma(address) is None
            with pytest.raises(KeyError), tracee.scratch(1):
                raise KeyError
            assert len(tracee.maps()) == before
        assert child.line() == "from outside"
        assert child.ask("x") == "read x"


def test_fault_and_timeout_of_a_call_are_undone() -> None:
    """A crash in the called function and one that never returns leave the target as it was."""
    with Callee("read") as child, procvm.attach(child.pid) as tracee:
        with tracee.stopped():
            before = tracee.registers()
            with pytest.raises(procvm.VmError, match="SIGSEGV"):
                tracee.call("crash")
            with pytest.raises(procvm.StopTimeoutError):
                tracee.call("wait_for_ever", timeout=0.1)
            with pytest.raises(procvm.StopTimeoutError):
                tracee.syscall("pause", timeout=0.1)
            assert tracee.registers() == before
            assert tracee.is_stopped()
        assert child.ask("y") == "read y"


def test_calls_are_refused_where_they_would_harm() -> None:
    """A running target, bad arguments, a signal to be taken, the entry of a system call."""
    with Callee("read") as child, procvm.attach(child.pid) as tracee:
        with pytest.raises(procvm.NotStoppedError):
            tracee.syscall("getpid")
        with tracee.stopped():
            for bad in ("execve", "clone", "no_such_call"):
                with pytest.raises(ValueError, match=bad):
                    tracee.syscall(bad)
            with pytest.raises(ValueError, match="at most six"):
                tracee.syscall("getpid", *range(7))
            os.kill(child.pid, signal.SIGCONT)
            event = tracee.cont(timeout=60)
            assert event is not None
            with pytest.raises(procvm.UnsupportedError, match="take a signal"):
                tracee.syscall("getpid")
            event.discard()
            assert tracee.syscall("getpid") == child.pid
            entry = tracee.cont(timeout=60, syscalls="read")
            assert entry is not None
            with pytest.raises(procvm.UnsupportedError, match="entry of a system call"):
                tracee.syscall("getpid")
        assert child.ask("z") == "read z"


@pytest.mark.skipif(not is_exact(), reason="exact stops need x86-64")
def test_call_at_a_breakpoint_goes_on_from_there() -> None:
    """The point is armed again after the call, and the thread passes over it once."""
    with Child([compiled("points")]) as child:
        child.line()
        with procvm.attach(child.pid) as tracee:
            with tracee.stopped(), tracee.breakpoint("store") as point:
                child.send("2")
                for _ in range(2):
                    event = tracee.cont(timeout=60)
                    assert event is not None
                    assert event.point is point
                    assert tracee.syscall("getpid") == child.pid
                assert tracee.cont(timeout=0.05) is None
            assert child.line() == "done 4"
