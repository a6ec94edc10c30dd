"""Waiting for a state: how long it takes is the machine's affair, and no test's outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import procvm
from procvm._hold import calls
from procvm._hold.tracee import Tracee

PATIENCE = 240.0
"""Seconds after which something hangs; no run that goes well comes near it on busy CPUs."""


def eventually(condition: Callable[[], object], within: float = PATIENCE) -> bool:
    """Waits until a condition holds; returns False if it hangs.

    No test gives `within`: only a storm does, whose verdict is that something never comes.
    """
    end = time.monotonic() + within
    nap = 0.0
    while not condition():
        if time.monotonic() > end:
            return bool(condition())
        time.sleep(nap)
        nap = min(nap + 0.0002, 0.005)
    return True


def pass_time(seconds: float) -> None:
    """Keeps a CPU busy for at least so long, to begin something at another instant each time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


_TIMED: tuple[Any, ...] = (
    *(procvm.attach, procvm.spawn, Tracee.stop, Tracee.stopped, Tracee.step, calls.Calls.request),
)
_USUAL = [(function.__defaults__, function.__kwdefaults__) for function in _TIMED]
_USUAL_STOP = calls.STOP_TIMEOUT


def be_patient() -> None:
    """Makes every time that this process gives a stop or a hold without saying so a long one.

    Without this, two seconds are too few for a stop where forty processes want the CPU.
    """
    calls.STOP_TIMEOUT = PATIENCE
    for function, (defaults, named) in zip(_TIMED, _USUAL, strict=True):
        function.__defaults__ = defaults and tuple(map(_longer, defaults))
        function.__kwdefaults__ = named and {name: _longer(value) for name, value in named.items()}


def _longer(value: object) -> object:
    return PATIENCE if isinstance(value, float) else value


@contextmanager
def usual_times() -> Iterator[None]:
    """What the users have: for a test of a stop that does not come."""
    calls.STOP_TIMEOUT = _USUAL_STOP
    for function, (defaults, named) in zip(_TIMED, _USUAL, strict=True):
        function.__defaults__, function.__kwdefaults__ = defaults, named
    try:
        yield
    finally:
        be_patient()
