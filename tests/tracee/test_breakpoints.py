"""The signal of a breakpoint whose step ended before the signal came."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import procvm
from procvm._hold.server import requests, stepping
from procvm._hold.server.breakpoints import Breakpoints
from procvm._hold.server.requests import SigInfo
from procvm._hold.server.step_outcomes import Progress, Way
from procvm._hold.server.stepping import Step, Stepper
from procvm._linux.perf_event import is_exact
from procvm._linux.sigsets import SignalSets
from tests.process.test_own_means import free_descriptors
from tests.tracee.witness import sleeper

TID, SIGNO, FD = 77, 44, 9
POLL_IN, POLL_HUP, SI_USER, SI_QUEUE, SI_SIGIO = 1, 6, 0, -1, -5


class Hit(NamedTuple):
    """A breakpoint that was hit, with the signal of its descriptor still to come."""

    fd: int = FD
    signo: int = SIGNO
    is_hit: bool = True

    def disarm(self) -> None:
        """Does nothing."""


def info(signo: int = SIGNO, code: int = POLL_IN, fd: int = FD) -> SigInfo:
    """Returns the siginfo of a signal of a descriptor."""
    raw = bytearray(128)
    for at, value in ((0, signo), (8, code), (24, fd)):
        raw[at : at + 4] = value.to_bytes(4, "little", signed=True)
    return SigInfo(signo, code, bytes(raw))


@pytest.fixture
def breakpoints() -> Iterator[Breakpoints]:
    found = Breakpoints(enabled=False)
    found.leave(TID, [Hit()])  # type: ignore[list-item]  # a stand-in without a descriptor
    yield found
    found.close()


@pytest.mark.parametrize("code", [POLL_IN, POLL_HUP, SI_SIGIO])
def test_is_left_signal_of_the_breakpoint_is_swallowed_once(
    breakpoints: Breakpoints, code: int
) -> None:
    """The breakpoint's own signal is not an event of the target; the next one like it is."""
    assert breakpoints.is_left(TID, info(code=code))
    assert not breakpoints.is_left(TID, info(code=code))


@pytest.mark.parametrize(
    "other",
    [
        info(signo=SIGNO + 1),
        info(fd=FD + 1),
        info(code=SI_USER),
        info(code=SI_QUEUE),
        info(code=POLL_HUP + 1),
        None,
    ],
    ids=["number", "descriptor", "user", "queue", "code", "none"],
)
def test_is_left_signal_of_the_target_is_told(
    breakpoints: Breakpoints, other: SigInfo | None
) -> None:
    """A signal of another number, descriptor or sender is the target's, and takes nothing away."""
    assert not breakpoints.is_left(TID, other)
    assert not breakpoints.is_left(TID + 1, info())
    assert breakpoints.is_left(TID, info())


@pytest.mark.skipif(not is_exact(), reason="exact stops need x86-64")
def test_arm_with_too_few_descriptors_says_so_and_leaves_none_armed() -> None:
    """None would mean that the kernel refuses, and the task would be stepped by a trap."""
    with sleeper() as child:
        breakpoints = Breakpoints()
        assert len(breakpoints.arm(child.pid, [0x1000])) == 1
        breakpoints.close()
        with (
            free_descriptors(1),
            pytest.raises(procvm.VmError, match="descriptors or raise RLIMIT_NOFILE"),
        ):
            breakpoints.arm(child.pid, [0x1000, 0x2000])
        assert len(breakpoints.arm(child.pid, [0x1000, 0x2000])) == 2
        breakpoints.close()


def test_step_whose_interrupt_overtook_the_signal_of_its_hit_fetches_the_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both came at one entry to the kernel, which reports the interrupt first."""
    pending = SignalSets(1 << (SIGNO - 1), 0, 0, 0, 0, (0, 0, 0))
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(stepping, "read_signal_sets", lambda _tid: pending)
    monkeypatch.setattr(requests, "cont", lambda tid, signo: told.append((tid, signo)))
    step = Step(Stepper(lambda _address, _n: b""), TID)
    step.way = Way.BREAKPOINT
    step._armed = [Hit()]  # type: ignore[list-item]  # noqa: SLF001 (a stand-in without a descriptor)
    assert step.stopped(signal.SIGTRAP, requests.EVENT_STOP) is Progress.RUNS
    assert told == [(TID, 0)]
