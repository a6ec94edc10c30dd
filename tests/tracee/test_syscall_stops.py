"""cont(syscalls=...) tells the entry and the exit of system calls."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

import procvm
from tests.support.build import compiled
from tests.support.child import Child


@pytest.fixture
def child() -> Iterator[Child]:
    with Child([compiled("points")]) as child:
        child.line()
        yield child
        assert child.popen.poll() is None


def test_cont_with_a_name_tells_entry_and_exit(child: Child) -> None:
    """The answer of the target is one write: number, name, arguments and result are its own."""
    with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
        child.send("1")
        event = tracee.cont(60, syscalls="write")
        assert event is not None
        entry = event.syscall
        assert entry is not None
        assert (event.kind, event.tid, event.signo) == ("syscall", child.pid, 0)
        assert (entry.name, entry.result, entry.is_exit) == ("write", None, False)
        fd, address, n = entry.arguments[:3]
        assert (fd, tracee.vm.read_bytes(address, n)) == (1, b"done 1\n")
        assert not child.has_line()
        event = tracee.cont(60, syscalls=["write", "pause"])
        assert event is not None
        left = event.syscall
        assert left is not None
        assert (left.number, left.result, left.is_exit) == (entry.number, 7, True)
        assert child.has_line()
        with pytest.raises(ValueError, match="'wrote'"):
            tracee.cont(syscalls="wrote")
        assert tracee.is_stopped()
    assert child.line() == "done 1"
    assert child.ask("1") == "done 4"


def test_cont_with_all_tells_entries_and_exits_in_turn(child: Child) -> None:
    """The blocked read is begun again, and left; then each entry has its exit."""
    with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
        child.send("1")
        told: list[tuple[str, bool]] = []
        while ("write", True) not in told or told[-1] != ("read", False):
            event = tracee.cont(60, syscalls=True)
            assert event is not None
            assert event.syscall is not None
            told.append((event.syscall.name, event.syscall.is_exit))
        assert told[-3:] == [("write", False), ("write", True), ("read", False)]
        # In the entry of read: let go, it blocks there as before.
    assert child.line() == "done 1"
    assert child.ask("1") == "done 4"


def test_cont_tells_signals_and_points_between_system_calls(child: Child) -> None:
    """raise() is a system call, then a signal; store() is a breakpoint."""
    with (
        procvm.attach(child.pid, longest_hold=None) as tracee,
        tracee.stopped(),
        tracee.breakpoint("store"),
    ):
        child.send("usr1")
        found: list[object] = []
        while len(found) < 4:
            event = tracee.cont(60, syscalls=("tgkill", "write"))
            assert event is not None
            found.append(event.syscall.name if event.syscall else event.signo or event.kind)
        # The signal comes as the call is left, after its exit.
        assert found == ["tgkill", "tgkill", signal.SIGUSR1, "breakpoint"]
    assert child.line() == "done 1"


def test_thread_births_go_on_under_syscall_stops(child: Child) -> None:
    """Four threads are born and end; none of their system calls is missed or left in a stop."""
    with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
        child.send("threads 5")
        exits = 0
        while exits < 4:
            event = tracee.cont(60, syscalls="exit")
            assert event is not None
            assert event.syscall is not None
            exits += event.syscall.name == "exit"
    assert child.line() == "done 14"
