"""A bad argument is refused before anything happens: the hold and the target stay as they are."""

from __future__ import annotations

import math
import os
from subprocess import PIPE
from typing import Any

import pytest

import procvm
from tests.support.procfs import assert_free, state_of
from tests.tracee.witness import Work, sleeper

BAD_TIMEOUTS = [-1, -0.5, math.nan, math.inf, -math.inf, "1", b"1", True, (1,), 1j]


@pytest.mark.parametrize("bad", BAD_TIMEOUTS, ids=repr)
def test_a_timeout_that_is_none_is_refused_and_keeps_the_hold(bad: Any) -> None:
    """Each method that takes one raises ValueError or TypeError; the target stays held."""
    with sleeper() as child, procvm.attach(child.pid, longest_hold=None) as tracee:
        tracee.stop()
        for call in (
            lambda: tracee.cont(bad),
            lambda: tracee.step(timeout=bad),
            lambda: tracee.stop(bad),
            lambda: tracee.stopped(bad),
            lambda: tracee.wait(bad),
        ):
            with pytest.raises((TypeError, ValueError)):
                call()
            assert state_of(child.pid) == "t"
        tracee.resume()
        assert_free(child.pid)


@pytest.mark.parametrize("bad", BAD_TIMEOUTS, ids=repr)
def test_a_longest_hold_that_is_none_is_refused_and_locks_nothing(bad: Any) -> None:
    """Attach and spawn refuse it; nothing is stopped or started, and the next attach works."""
    with sleeper() as child:
        with pytest.raises((TypeError, ValueError)):
            procvm.attach(child.pid, longest_hold=bad)
        assert_free(child.pid)
        with procvm.attach(child.pid) as tracee, tracee.stopped():
            assert state_of(child.pid) == "t"
    with pytest.raises((TypeError, ValueError)):
        procvm.spawn(["/bin/cat"], longest_hold=bad)


@pytest.mark.parametrize("bad", BAD_TIMEOUTS, ids=repr)
def test_attach_timeout_invalid_is_refused(bad: Any) -> None:
    """Attach, spawn and the attribute refuse it; the target runs, and the old value stays."""
    with sleeper() as child:
        with pytest.raises((TypeError, ValueError)):
            procvm.attach(child.pid, timeout=bad)
        assert_free(child.pid)
        with procvm.attach(child.pid, timeout=30) as tracee:
            with pytest.raises((TypeError, ValueError)):
                tracee.timeout = bad
            assert tracee.timeout == 30
    with pytest.raises((TypeError, ValueError)):
        procvm.spawn(["/bin/cat"], timeout=bad)


def test_attach_timeout_serves_stops_and_atomics_that_name_none() -> None:
    """A timeout of the tracee ends each stop of a frozen target; a timeout of the call wins."""
    with Work("vfork") as target:
        with pytest.raises(procvm.StopTimeoutError):
            procvm.attach(target.pid, timeout=0.05)
        target.send("x")
        target.assert_runs()
        with procvm.attach(target.pid, timeout=None) as tracee:
            assert tracee.timeout is None
            tracee.timeout = 0.05
            assert tracee.timeout == 0.05
            with tracee.stopped(None):
                target.assert_stands_still()


def test_default_timeout_set_on_the_class_counts_for_later_tracees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The class attributes are the defaults of attach and spawn; open tracees keep theirs."""
    with sleeper() as child, procvm.attach(child.pid) as first:
        before = first.timeout
        monkeypatch.setattr(procvm.Tracee, "default_timeout", 77)
        with procvm.attach(child.pid) as second, procvm.spawn(["/bin/cat"], stdin=PIPE) as third:
            assert (first.timeout, second.timeout, third.timeout) == (before, 77, 77)
        monkeypatch.setattr(procvm.Tracee, "default_longest_hold", -1)
        with pytest.raises(ValueError, match="longest_hold"):
            procvm.attach(child.pid)


def test_a_stop_without_a_limit_stops() -> None:
    """timeout=None is no limit, for stop, stopped and step."""
    with sleeper() as child, procvm.attach(child.pid, longest_hold=None) as tracee:
        tracee.stop(timeout=None)
        with tracee.stopped(timeout=None):
            assert state_of(child.pid) == "t"
        tracee.resume()
        assert_free(child.pid)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fs_base", 1 << 47),
        ("gs_base", (1 << 64) - 1),
        ("cs", 0x1234),
        ("eflags", 0xFFFF_FFFF),
    ],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs_x86_64: its registers")
def test_a_register_value_that_the_kernel_refuses_changes_nothing(name: str, value: int) -> None:
    """ValueError that names the register; the others are as they were, and the hold lasts."""
    with sleeper() as child:
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            before = tracee.registers()
            for values in (
                {name: value},
                {"r15": before["r15"] ^ 99, name: value},
                {name: value, "r15": before["r15"] ^ 99},
            ):
                with pytest.raises(ValueError, match=name):
                    tracee.set_registers(values)
                assert tracee.registers() == before
                assert state_of(child.pid) == "t"
            tracee.set_registers({"r15": before["r15"] ^ 99})
            assert tracee.registers() == {**before, "r15": before["r15"] ^ 99}
            tracee.set_registers(before)
        assert_free(child.pid)
        assert child.poll() is None


def test_set_registers_of_bad_names_and_values_changes_nothing() -> None:
    """Unknown names, values out of range and of other types are refused together with the rest."""
    with sleeper() as child, procvm.attach(child.pid) as tracee, tracee.stopped():
        before = tracee.registers()
        good = {"r15": 1}
        for bad in ({"nix": 1}, {"r14": -1}, {"r14": 1 << 64}):
            with pytest.raises((ValueError, procvm.AddressOverflowError)):
                tracee.set_registers(good | bad)
            assert tracee.registers() == before
        with pytest.raises(TypeError):
            tracee.set_registers(good | {"r14": "1"})  # type: ignore[arg-type]
        assert tracee.registers() == before


def test_a_hold_shows_only_what_it_offers() -> None:
    """vm, close and is_over; close ends it, and leaving the with afterwards is fine."""
    with sleeper() as child, procvm.attach(child.pid) as tracee:
        with tracee.stopped() as held:
            assert [name for name in dir(held) if not name.startswith("_")] == [
                "close",
                "is_over",
                "vm",
            ]
            assert not held.is_over()
            held.close()
            assert held.is_over()
            assert_free(child.pid)
            held.close()
        with pytest.raises(ZeroDivisionError), tracee.stopped():
            _ = 1 / 0
        assert_free(child.pid)
