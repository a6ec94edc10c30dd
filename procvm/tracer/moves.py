"""What lets a held target move: on to its next event, by one instruction, without a signal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from procvm.errors import NotStoppedError, ProcessExitedError, StopTimeoutError
from procvm.linux import procfs
from procvm.tracer import requests
from procvm.tracer.hold import NAP, Hold, Pending, TaskState
from procvm.tracer.protocol import SETTLE_TIME
from procvm.tracer.requests import SigInfo

__all__ = ["cont", "deliver", "step"]

_LONGEST_NAP = 1e-3
_SPINS = 400
_STEP_TIME = 0.02
_TRAP_BIT = 1 << (signal.SIGTRAP - 1)
# si_code of the traps of a step: after a system call, after any other instruction, by a
# debug register, and the code of the stop before a signal handler's first instruction. The
# target's own have others: SI_USER, SI_TKILL, SI_KERNEL (int3), TRAP_PERF.
_TRAPS_OF_STEP = frozenset({1, 2, 4, int(signal.SIGTRAP)})


def cont(hold: Hold, deadline: float, given_up: Callable[[], bool]) -> Pending | None:
    """Lets every task run on, traced, until something happens; then holds them all again.

    Events that came together are told one by one, before anything runs on.

    Args:
        hold: The tasks.
        deadline: When to give up, on the clock of time.monotonic.
        given_up: Whether the tool does not wait any more.

    Returns:
        The first event that was not told yet; None if there was none in time.

    Raises:
        ProcessExitedError: The process ended.
        StopTimeoutError: A task did not stop again; all have to be let go.
    """
    if not hold.queue:
        hold.telling = True
        try:
            _run_to_event(hold, deadline, given_up)
        finally:
            hold.telling = False
    return hold.queue.pop(0) if hold.queue else None


def _run_to_event(hold: Hold, deadline: float, given_up: Callable[[], bool]) -> None:
    for tid in [tid for tid, state in hold.tasks.items() if state is TaskState.HELD]:
        hold.run_on(tid)
    nap = NAP
    while not hold.queue:
        event = requests.wait_any()
        if event is not None:
            nap = NAP
            hold.take(event)
            if all(state is TaskState.DEAD for state in hold.tasks.values()):
                raise ProcessExitedError(f"process {hold.pid} has ended", pid=hold.pid)
            if not hold.queue and hold.tasks.get(event.tid) is TaskState.HELD:
                hold.run_on(event.tid)
        elif time.monotonic() > deadline or given_up():
            break
        else:
            time.sleep(nap)
            nap = min(nap * 2, _LONGEST_NAP)
    hold.interrupt_running()
    try:
        hold.settle(time.monotonic() + SETTLE_TIME)
    except StopTimeoutError as error:
        unseen = [event.signo for event in hold.queue if event.kind == "signal"]
        if unseen:
            error.message += f"; signals delivered without being told: {unseen}"
            error.args = (error.message,)
        raise


def step(hold: Hold, tid: int, deadline: float, given_up: Callable[[], bool]) -> None:
    """Lets one held task run one instruction; the others stay held.

    A signal that the task was about to take is delivered: the instruction is then the
    first of its handler. One that comes before the instruction ends the step.

    Raises:
        Gone: The task left its stop: it was killed.
        ProcessExitedError: The task ended by it.
        StopTimeoutError: The instruction did not complete in time (a system
            call that blocks); the task is held again.
    """
    pending = hold.signals.pop(tid, None)
    mask = requests.signal_mask(tid)
    hold.tasks[tid] = TaskState.SEIZED
    requests.step(tid, pending.deliver if pending else 0)
    finished = _await_step(hold, tid, deadline, given_up)
    if tid not in hold.tasks:
        raise ProcessExitedError(f"thread {tid} has ended", pid=hold.pid)
    if mask & _TRAP_BIT and not requests.signal_mask(tid) & _TRAP_BIT:
        # The kernel unblocks SIGTRAP to raise the trap of a step.
        requests.set_signal_mask(tid, requests.signal_mask(tid) | _TRAP_BIT)
    if not finished:
        raise StopTimeoutError(
            f"thread {tid} did not complete an instruction in time: it is in a system call "
            "that blocks; it is held again",
            pid=hold.pid,
        )


def _await_step(hold: Hold, tid: int, deadline: float, given_up: Callable[[], bool]) -> bool:
    """Waits for the end of a step; returns whether it ended by itself."""
    soon = min(time.monotonic() + _STEP_TIME, deadline)
    spins = 0
    while True:
        event = requests.wait_for(tid)
        if event is None:
            spins += 1
            # A step takes microseconds. Until the trap is swallowed the tracer's death
            # would deliver it, so nothing sleeps here at first.
            if spins <= _SPINS:
                os.sched_yield()
                continue
            if time.monotonic() > (soon if given_up() else deadline):
                return _interrupt_step(hold, tid)
            hold.collect_ends(tid)
            if tid not in hold.tasks:
                return True
            time.sleep(NAP)
        elif not event.exited and not event.event and event.signo == signal.SIGTRAP:
            if _is_of_step(requests.siginfo(tid)):
                _park(hold, tid)
            else:
                hold.take(event)
            return True
        else:
            hold.take(event)
            if hold.tasks.get(tid) is not TaskState.SEIZED:
                return True


def _interrupt_step(hold: Hold, tid: int) -> bool:
    """Stops a task that is in a step, and drops the trap that this leaves; returns False."""
    requests.interrupt(tid)
    while True:
        event = requests.wait_for(tid)
        if event is None:
            os.sched_yield()
        elif not event.exited and not event.event and event.signo == signal.SIGTRAP:
            if _is_of_step(requests.siginfo(tid)):
                _park(hold, tid)
                return False
            hold.take(event)
            return False
        elif event.exited or not event.event or not _trap_is_pending(hold.pid, tid):
            hold.take(event)
            return False
        else:
            # The call ended with EINTR, and the trap of the step came after it. Detached with
            # it pending, the target would die. Without an interrupt the task takes it next.
            event.consume()
            requests.cont(tid, 0)


def _trap_is_pending(pid: int, tid: int) -> bool:
    status = procfs.read_bytes(f"/proc/{pid}/task/{tid}/status") or b""
    for line in status.split(b"\n"):
        if line.startswith(b"SigPnd:"):
            return bool(int(line[7:], 16) & _TRAP_BIT)
    return False


def _is_of_step(info: SigInfo | None) -> bool:
    return info is None or info.code in _TRAPS_OF_STEP


def _park(hold: Hold, tid: int) -> None:
    """Drops the signal that a task is about to take; it stays held and runs no instruction."""
    hold.signals.pop(tid, None)
    hold.tasks[tid] = TaskState.SEIZED
    requests.interrupt(tid)
    requests.cont(tid, 0)
    while (event := requests.wait_for(tid)) is None:
        os.sched_yield()
    hold.take(event)


def deliver(hold: Hold, tid: int, number: int, signo: int) -> None:
    """Decides what a task takes in place of the signal that it is about to take.

    Args:
        hold: The tasks.
        tid: The task.
        number: The number of the event that told the signal.
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
