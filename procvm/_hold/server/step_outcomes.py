"""The outcomes of a step: how it is made, and what a stop of its task means for it."""

from __future__ import annotations

import signal
from enum import Enum, auto

from procvm._hold.server.requests import SigInfo

__all__ = ["Progress", "StepRefusedError", "Way", "is_our_trap"]

_TRAPS = (1, 2, 4, 5)
"""si_code of a SIGTRAP of a step: TRAP_BRKPT after a system call, TRAP_TRACE, TRAP_HWBKPT, and
SIGTRAP itself after the kernel set up a handler."""


class Way(Enum):
    """How a step is made."""

    SIGNAL = auto()
    CALL = auto()
    BREAKPOINT = auto()
    TRAP = auto()


class Progress(Enum):
    """The meaning of a task's stop for its step.

    `RUNS`: the task runs on; wait for its next stop. `DONE`: the task is parked after the
    instruction, or at the first instruction of a handler. `LATE`: `Step.give_up` was called and
    the task is parked before the end of the instruction, with nothing pending. `SIGNAL`: a
    signal of the target's own is about to be delivered; call `Step.deliver` or `Step.leave`.
    `RAN_ON`: the task is parked, but passed over its breakpoints: it ran more than one instruction.
    """

    RUNS = auto()
    DONE = auto()
    LATE = auto()
    SIGNAL = auto()
    RAN_ON = auto()


class StepRefusedError(Exception):
    """The task can only be stepped in a way that would change its action for SIGTRAP."""


def is_our_trap(info: SigInfo | None) -> bool:
    """Returns whether a SIGTRAP comes from a single-step, and not from the target itself."""
    return info is not None and info.signo == signal.SIGTRAP and info.code in _TRAPS
