"""The signal of a breakpoint whose step ended before the signal came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from procvm._hold.server.breakpoints import Breakpoints
from procvm._hold.server.requests import SigInfo

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
