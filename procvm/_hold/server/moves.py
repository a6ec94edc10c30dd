"""Moves of a held target: `cont` to the next event, `step` by an instruction, `deliver`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from procvm._hold.server import requests
from procvm._hold.server.hold import LONGEST_NAP, Hold
from procvm._hold.server.protocol import SETTLE_TIME
from procvm._hold.server.seizing import NAP
from procvm._hold.server.step_outcomes import Progress, StepRefusedError
from procvm._hold.server.stepping import Step
from procvm._hold.server.tasks import Pending, TaskState
from procvm._hold.server.yields import Yields
from procvm.errors import (
    NotStoppedError,
    ProcessExitedError,
    StopTimeoutError,
    UnsupportedError,
    VmError,
)

__all__ = ["cont", "deliver", "step"]

_YIELDS = 400
_STEP_TIME = 0.02


def cont(
    hold: Hold,
    deadline: float,
    given_up: Callable[[], bool],
    calls: frozenset[int] | None = None,
) -> Pending | None:
    """Lets every task run, traced, until an event comes; then holds them all again.

    Events that came together are returned one by one, before any task runs.

    Args:
        hold: The tasks.
        deadline: When to give up, on the clock of time.monotonic.
        given_up: Returns whether the tool has stopped waiting.
        calls: The numbers of the system calls to tell; empty for all, None for none.

    Returns:
        The oldest event that was not returned yet; None if none came in time.

    Raises:
        ProcessExitedError: The process ended.
        StopTimeoutError: A task did not stop again; all have to be let go.
    """
    if not hold.queue:
        hold.telling = True
        hold.calls = calls
        try:
            _run_to_event(hold, deadline, given_up)
        finally:
            hold.telling = False
            hold.calls = None
    return hold.queue.pop(0) if hold.queue else None


def _run_to_event(hold: Hold, deadline: float, given_up: Callable[[], bool]) -> None:
    # The target may need its debug registers, and may change its signal actions.
    hold.stepper.close()
    hold.points.look()
    for tid in hold.in_state(TaskState.HELD):
        hold.run_on(tid)
    nap = NAP
    while not hold.queue:
        event = requests.wait_any()
        if event is not None:
            nap = NAP
            hold.take(event)
            if all(state is TaskState.DEAD for state in hold.states.values()):
                raise ProcessExitedError(f"process {hold.pid} has ended", pid=hold.pid)
            if not hold.queue and hold.states.get(event.tid) is TaskState.HELD:
                hold.run_on(event.tid)
        elif time.monotonic() > deadline or given_up() or hold.points.has_hits():
            break
        else:
            time.sleep(nap)
            nap = min(nap * 2, LONGEST_NAP)
    hold.interrupt_running()
    try:
        hold.settle(time.monotonic() + SETTLE_TIME)
        # The interrupt may overtake the signal of a hit, and a task may block the signal.
        for tid in hold.in_state(TaskState.HELD):
            hold.take_hits(tid)
    except StopTimeoutError as error:
        unseen = [event.signo for event in hold.queue if event.kind == "signal"]
        if unseen:
            error.message += f"; signals delivered without being told: {unseen}"
            error.args = (error.message,)
        raise


def step(hold: Hold, tid: int, timeout: float | None, given_up: Callable[[], bool]) -> None:
    """Lets one held task run one instruction; the others stay held.

    If the task is in a signal-delivery-stop, the signal is delivered, and the instruction is the
    first of its handler. A signal that comes before the instruction ends the step.

    Args:
        hold: The tasks.
        tid: The task.
        timeout: Seconds that the instruction may take; None for no limit.
        given_up: Returns whether the tool has stopped waiting.

    Raises:
        Gone: The task left its stop: it was killed.
        ProcessExitedError: The task ended during the step.
        StopTimeoutError: The instruction did not complete in time (a system
            call that blocks); the task is held again.
        UnsupportedError: The task cannot be stepped, or ran more than one instruction.
        VmError: The tracer lacks descriptors or memory; the task is held as before.
    """
    pending = hold.signals.pop(tid, None)
    hold.states[tid] = TaskState.SEIZED
    hold.points.disarm(tid)  # the step needs the debug registers
    try:
        under_way = hold.stepper.start(tid, pending.deliver if pending else 0)
    except (StepRefusedError, VmError, OSError) as error:
        if pending:
            hold.signals[tid] = pending
        raise _not_begun(hold, tid, error) from None
    try:
        progress = _await_step(hold, under_way, timeout, given_up)
    except (StepRefusedError, VmError, OSError) as error:
        # In the stop after a signal without a handler, before the instruction itself.
        under_way.leave()
        raise _not_begun(hold, tid, error) from None
    if tid not in hold.states:
        hold.stepper.close(tid)
        raise ProcessExitedError(f"thread {tid} has ended", pid=hold.pid)
    hold.settle_births(time.monotonic() + SETTLE_TIME)
    if progress is Progress.LATE:
        raise StopTimeoutError(
            f"thread {tid} did not complete an instruction in time: it is in a system call "
            "that blocks; it is held again",
            pid=hold.pid,
        )
    if progress is Progress.RAN_ON:
        raise UnsupportedError(
            f"thread {tid} of process {hold.pid} ran more than one instruction: the hardware "
            "breakpoints of this machine stop it too late; it is held again"
        )


def _not_begun(hold: Hold, tid: int, error: Exception) -> Exception:
    """Keeps a task held whose step did not begin; returns the error for the tool."""
    hold.states[tid] = TaskState.HELD
    if not isinstance(error, StepRefusedError):
        return error
    return UnsupportedError(
        f"thread {tid} of process {hold.pid} cannot be stepped without changing its action for "
        f"SIGTRAP: {error}, and no hardware breakpoint can be had"
    )


def _await_step(
    hold: Hold, under_way: Step, timeout: float | None, given_up: Callable[[], bool]
) -> Progress:
    """Takes the stops of a task until its step is over."""
    tid = under_way.tid
    begun = time.monotonic()
    soon = begun + _STEP_TIME
    deadline = math.inf if timeout is None else begun + timeout
    yields, late = Yields(_YIELDS), False  # a step takes microseconds
    while True:
        event = requests.wait_for(tid)
        if event is None:
            if yields.again():
                continue
            if not late and time.monotonic() > (min(soon, deadline) if given_up() else deadline):
                late = True
                under_way.give_up()
            # An exec or the exit of the process waits for tasks that only we can reap.
            hold.collect_ends(tid)
            time.sleep(NAP)
            continue
        if event.exited:
            hold.take(event)
            return Progress.DONE
        if event.event:
            event.consume()
        progress = under_way.stopped(event.signo, event.event)
        if progress is Progress.RUNS:
            continue
        if progress is Progress.SIGNAL:
            if hold.is_late_hit(tid):
                under_way.deliver(0)
                continue
            under_way.leave()
            hold.take(event)
        else:
            hold.take_stop(event)
        return progress


def _park(hold: Hold, tid: int) -> None:
    """Discards the signal of a signal-delivery-stop; the task runs no instruction."""
    hold.swallow(tid)
    yields = Yields(_YIELDS)
    while (event := requests.wait_for(tid)) is None:
        if not yields.again():
            time.sleep(NAP)
    hold.take(event)


def deliver(hold: Hold, tid: int, number: int, signo: int) -> None:
    """Sets which signal a task in a signal-delivery-stop takes when it runs on.

    Args:
        hold: The tasks.
        tid: The task.
        number: The number of the signal's event.
        signo: The signal to take; 0 for none.

    Raises:
        Gone: The task left its stop: it was killed.
        NotStoppedError: The signal was delivered or discarded already.
    """
    pending = hold.signals.get(tid)
    if pending is None or pending.number != number:
        raise NotStoppedError(
            f"the signal that thread {tid} of process {hold.pid} stopped for was delivered or "
            "discarded already",
            pid=hold.pid,
        )
    if signo:
        pending.deliver = signo
    else:
        # At once: if the tracer were killed before the task goes on, the kernel would
        # deliver the signal.
        _park(hold, tid)
