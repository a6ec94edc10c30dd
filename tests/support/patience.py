"""Waiting for a state: how long it takes is the machine's affair, and no test's outcome."""

from __future__ import annotations

import time
from collections.abc import Callable

import procvm

USUAL = 2.0
"""The default of `Tracee.default_timeout`: for a test of a stop that does not come."""

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


def be_patient() -> None:
    """Makes the default times of stops and holds long, in this process.

    Without this, two seconds are too few for a stop where forty processes want the CPU.
    """
    procvm.Tracee.default_timeout = PATIENCE
    procvm.Tracee.default_longest_hold = PATIENCE
