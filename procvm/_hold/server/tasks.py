"""`Tasks`: the state of each task of one process, and how each event changes it.

The states of a task (``docs/tracer.md`` has a table of the transitions):

=========  ==========================================================
`SEIZED`   seized and asked to stop; the stop has not come yet
`HELD`     in a ptrace-stop, also a group-stop or a signal-delivery-stop
`DEAD`     a leader that ended before its threads: it cannot be traced
=========  ==========================================================

A task that ends is reaped and forgotten at once: only its tracer can reap it, and an exec or
the exit of the process waits for it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from enum import Enum, auto

from procvm._hold.server import requests
from procvm._hold.server.points import Points
from procvm._hold.server.proof import Proof
from procvm._hold.server.regsets import program_counter, system_call_of
from procvm._hold.server.requests import (
    EFLAGS_RF,
    EVENT_CLONE,
    EVENT_EXEC,
    EVENT_STOP,
    SYSCALL_EXIT,
    SYSCALL_STOP,
    Gone,
    SigInfo,
    WaitEvent,
)
from procvm._hold.server.stepping import Stepper

__all__ = ["Pending", "TaskState", "Tasks"]


class TaskState(Enum):
    """The state of a task; the module describes each."""

    SEIZED = auto()
    HELD = auto()
    DEAD = auto()


class Pending:
    """An event of a held target.

    Attributes:
        number: A number that no other event of this tracer has.
        kind: "signal" (the task is in a signal-delivery-stop), "stop" (a group-stop
            of the process), "exec", "breakpoint" or "watchpoint".
        tid: The task that the event happened to.
        signo: The signal; 0 for an exec.
        deliver: The signal that the task takes when it runs on; 0 for none.
        raw: The signal's siginfo_t; empty if it has none.
        more: What else the tool is told of it: of a hit the number of its point, the
            instruction pointer, and the watched bytes before and after.
    """

    _numbers = itertools.count(1)

    def __init__(
        self, kind: str, tid: int, signo: int, raw: bytes = b"", more: tuple[object, ...] = ()
    ) -> None:
        self.number = next(self._numbers)
        self.kind = kind
        self.tid = tid
        self.signo = signo
        self.deliver = signo
        self.raw = raw
        self.more = more

    @property
    def point(self) -> object:
        """The number of the point that was hit; None for other events."""
        return self.more[0] if self.kind in ("breakpoint", "watchpoint") else None

    @property
    def fields(self) -> tuple[int, str, int, int, bytes, tuple[object, ...]]:
        """The fields that the tool receives."""
        return self.number, self.kind, self.tid, self.signo, self.raw, self.more


class Tasks:
    """The seized tasks of one process; one thread calls every method.

    A task in a signal-delivery-stop stays there with its event unconsumed: if the tracer is
    killed, the kernel delivers the signal.

    Attributes:
        pid: The process.
        proof: Proves that a seized task belongs to the process.
        states: The state of each seized task, by tid.
        ended: Tasks that ended while they were seized.
        signals: The signal of each task in a signal-delivery-stop.
        queue: Events that the tool has not received yet, oldest first.
        telling: Whether a group-stop and an exec are queued as events, as during `cont`.
        execed: Whether an exec replaced the program during the hold.
        strays: Tasks that the kernel seized for us and that belong to another process.
        group_stopped: Tasks in a group-stop.
        calls: The system calls that `cont` tells; empty for all, None for none.
        entered: The tasks that are in the stop at the entry of a system call, and the call.
        stepper: Makes the steps of the tasks.
        points: The breakpoints and watchpoints.
    """

    def __init__(self, proof: Proof) -> None:
        self.pid = proof.pid
        self.proof = proof
        self.states: dict[int, TaskState] = {}
        self.ended: set[int] = set()
        self.signals: dict[int, Pending] = {}
        self.queue: list[Pending] = []
        self.telling = False
        self.execed = False
        self.strays: set[int] = set()
        self.group_stopped: set[int] = set()
        self._group_told = False
        self.calls: frozenset[int] | None = None
        self.entered: dict[int, int] = {}
        self.stepper = Stepper(self.read)
        self.points = Points(self.pid, self.read)

    def read(self, address: int, n: int) -> bytes:
        """Reads the program's memory, protections ignored; returns fewer bytes at a hole."""
        program = self.proof.program
        if program is None:
            return b""
        try:
            return os.pread(program.mem.number, n, address)
        except (OSError, OverflowError):
            return b""

    @property
    def is_held(self) -> bool:
        """Whether any task is stopped; a leader that has ended does not count."""
        return TaskState.HELD in self.states.values()

    def in_state(self, wanted: TaskState) -> list[int]:
        """Returns the tids of the tasks in a state."""
        return [tid for tid, state in self.states.items() if state is wanted]

    def mark_running(self, tid: int) -> None:
        """Notes that a task is seized and runs, without a signal to take."""
        self.states[tid] = TaskState.SEIZED
        self.signals.pop(tid, None)

    def clear(self) -> None:
        """Forgets every task: they were let go."""
        self.states.clear()
        self.signals.clear()
        self.queue.clear()
        self.strays.clear()
        self.entered.clear()
        self.group_stopped.clear()
        self._group_told = False

    # Events

    def collect(self) -> None:
        """Takes every event that the kernel has for the tasks."""
        while (event := requests.wait_any()) is not None:
            if not self._is_known(event):
                self.take(event)
            elif not self._collect_each():
                return

    def _collect_each(self) -> bool:
        """Takes an event of each task that is to stop; returns whether there was any.

        An unconsumed signal-delivery-stop hides the events of other tasks from a wait for any.
        """
        found = False
        for tid in (*self.in_state(TaskState.SEIZED), *self.strays):
            event = requests.wait_for(tid)
            if event is not None and not self._is_known(event):
                self.take(event)
                found = True
        return found

    def collect_ends(self, moving: int = 0) -> None:
        """Takes the ends of tasks: a held task can have no other event.

        A signal-delivery-stop hides the ends of other tasks only for a moment: a held task ends
        with its whole process, and then the task in that stop ends as well.

        Args:
            moving: A task that is not held, whose events stay with the kernel; 0 for none.
        """
        while (event := requests.wait_any()) is not None:
            if event.tid == moving or self._is_known(event):
                return
            self.take(event)

    def _is_known(self, event: WaitEvent) -> bool:
        return not event.exited and event.tid in self.signals

    def take(self, event: WaitEvent) -> None:
        """Takes an event: the task has ended, or it is held."""
        tid = event.tid
        if event.exited:
            event.consume()
            self.strays.discard(tid)
            self.signals.pop(tid, None)
            self.group_stopped.discard(tid)
            self.entered.pop(tid, None)
            self._tell_hits(tid, None)
            self.points.disarm(tid)
            if self.states.pop(tid, None) is not None:
                self.ended.add(tid)
        elif tid not in self.states and not self.proof.has_task(tid):
            # A process that a task made by clone(2): it is not part of the target.
            self.strays.discard(tid)
            with contextlib.suppress(Gone, OSError):
                requests.detach(tid, 0 if event.event else event.signo)
        elif event.signo == SYSCALL_STOP:
            event.consume()
            self.states[tid] = TaskState.HELD
            with contextlib.suppress(Gone):
                self._take_call(tid)
        elif event.event == 0:
            info = requests.siginfo(tid)
            if self._is_of_hit(tid, info):
                # The target ignores the signal, but a tool that read it as an event could deliver
                # another.
                self.take_hits(tid)
                self.swallow(tid)
                return
            pending = Pending("signal", tid, event.signo, info.raw if info else b"")
            self.states[tid] = TaskState.HELD
            self.signals[tid] = pending
            self.queue.append(pending)
        else:
            event.consume()
            self.take_stop(event)

    def _is_of_hit(self, tid: int, info: SigInfo | None) -> bool:
        return self.stepper.is_ours(tid, info) or self.points.is_ours(tid, info)

    def is_late_hit(self, tid: int) -> bool:
        """Returns whether a task stopped for the signal of a hit that was told by its count."""
        return self._is_of_hit(tid, requests.siginfo(tid))

    def take_hits(self, tid: int) -> None:
        """Queues an event for each point that a stopped task has hit."""
        with contextlib.suppress(Gone):
            self._tell_hits(tid, program_counter(requests.registers(tid)))

    def _tell_hits(self, tid: int, place: int | None) -> None:
        for point, old, new in self.points.hits(tid, place):
            kind = "breakpoint" if point.on == "breakpoint" else "watchpoint"
            more = (point.number, place, old, new)
            self.queue.append(Pending(kind, tid, 0, more=more))

    def _take_call(self, tid: int) -> None:
        """Queues an event for the entry or exit of a system call that is to be told."""
        registers = requests.registers(tid)
        found = system_call_of(registers)
        exits = requests.event_message(tid) == SYSCALL_EXIT
        if not exits:
            self.entered[tid] = found.number
        number = self.entered.get(tid, found.number) if exits else found.number
        if self.telling and self.calls is not None and (not self.calls or number in self.calls):
            result = found.result if exits else None
            more = (number, found.arguments, result, found.is_64bit)
            self.queue.append(Pending("syscall", tid, 0, more=more))
        if exits:
            self.entered.pop(tid, None)

    def swallow(self, tid: int) -> None:
        """Discards the signal of a signal-delivery-stop; the task runs no instruction.

        The task stops again without a signal; this second stop is reported as an event later.
        """
        self.mark_running(tid)
        requests.cont_and_stop(tid, 0)

    def take_stop(self, event: WaitEvent) -> None:
        """Takes a consumed stop that is not a signal-delivery-stop: the task is held."""
        tid = event.tid
        self.states[tid] = TaskState.HELD
        was_group_stopped = tid in self.group_stopped
        self.group_stopped.discard(tid)
        if event.event == EVENT_EXEC:
            # Every other task is gone. The thread that called exec has the leader's tid now.
            self.states = {tid: TaskState.HELD}
            self.signals.clear()
            self.group_stopped.clear()
            self.execed = True
            # The signal of a hit may be blocked, and the thread that made it is gone.
            for each in self.points.tids:
                self._tell_hits(each, None)
            self.points.forget()
            if self.telling:
                self.queue.append(Pending("exec", tid, 0))
        elif event.event == EVENT_CLONE:
            with contextlib.suppress(Gone, OSError):
                born = requests.event_message(tid)
                if born not in self.states and not self.proof.has_task(born):
                    self.strays.add(born)
        elif event.event == EVENT_STOP and event.signo != signal.SIGTRAP:
            self.group_stopped.add(tid)
            if self.telling and not self._group_told:
                self.queue.append(Pending("stop", tid, event.signo))
            self._group_told = True
        elif was_group_stopped:
            self._group_told = False  # SIGCONT ended the group-stop

    # Running on

    def run_on(self, tid: int) -> None:
        """Lets a held task run, traced; the task takes the signal of its stop."""
        pending = self.signals.get(tid)
        self.mark_running(tid)
        with contextlib.suppress(Gone):
            if self.points:
                self._arm(tid)
            if tid in self.group_stopped:
                # PTRACE_CONT would end the group-stop, which only SIGCONT may do.
                requests.listen(tid)
            else:
                signo = pending.deliver if pending else 0
                if self.calls is None or not self.telling:
                    requests.cont(tid, signo)
                else:
                    requests.syscall(tid, signo)

    def _arm(self, tid: int) -> None:
        """Arms the points of a task, and lets it pass over a breakpoint that was told."""
        self.points.arm(tid)
        told = self.points.told_at(tid)
        if told is not None:
            registers = requests.registers(tid)
            if registers["rip"] == told:
                requests.set_eflags(tid, registers["eflags"] | EFLAGS_RF)

    def interrupt_running(self) -> None:
        """Asks every running task to stop."""
        for tid in self.in_state(TaskState.SEIZED):
            with contextlib.suppress(Gone):
                requests.interrupt(tid)
