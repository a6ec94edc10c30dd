"""`Stepper`: lets one stopped task run one instruction, with no SIGTRAP that could reach it.

PTRACE_SINGLESTEP stops the task by a SIGTRAP: when the tracer is killed before it has taken that
back, the kernel delivers the signal and the target dies. So a step goes by the first of these
ways that can be had:

==================  ===========================================================
`Way.SIGNAL`        a signal to deliver: PTRACE_INTERRUPT, then PTRACE_CONT with
                    the signal; the task stops at its handler's first instruction
`Way.CALL`          a system call: PTRACE_SYSCALL to its exit
`Way.BREAKPOINT`    hardware breakpoints at all next addresses, whose hit sends
                    a signal that the target ignores; the kernel stops a traced
                    task for such a signal too, and drops it for any other
`Way.TRAP`          PTRACE_SINGLESTEP: for an instruction that cannot be decoded,
                    or where the kernel refuses the breakpoints
==================  ===========================================================

At the end of each way the task is *parked*: it is in the stop of a PTRACE_INTERRUPT, which leaves
no signal with the kernel. If the tracer dies during one of the first three ways, the target is not
harmed. During the last one, SIGTRAP kills it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping

from procvm._hold.server import requests
from procvm._hold.server.breakpoints import Breakpoints
from procvm._hold.server.next_address import (
    INSTRUCTION_MAX,
    Read,
    is_system_call,
    next_addresses,
    rseq_abort,
    width_of,
)
from procvm._hold.server.regsets import program_counter
from procvm._hold.server.requests import (
    EFLAGS_RF,
    EVENT_EXEC,
    EVENT_STOP,
    SYSCALL_ENTRY,
    SYSCALL_EXIT,
    SYSCALL_STOP,
    Gone,
    SigInfo,
)
from procvm._hold.server.step_outcomes import Progress, StepRefusedError, Way, is_our_trap
from procvm._linux.perf_event import HardwareBreakpoint
from procvm._linux.sigsets import bit, read_signal_sets

__all__ = ["Step", "Stepper"]

_MACHINE = os.uname().machine
_AFTER_CALL = 1
_RESTARTS = (-512, -513, -514, -516)
"""A system call's result that makes the kernel run the call again. Source: ERESTARTSYS and on."""


class Stepper:
    """The steps of one process's tasks, made by the thread that traces them.

    Every task must have been seized with the option TRACESYSGOOD. `close` is due before the
    tasks run on: until then a task keeps up to four of its debug registers.
    """

    def __init__(self, read: Read, *, hardware: bool = True) -> None:
        """Begins without a breakpoint.

        Args:
            read: Reads the target's memory: fewer bytes where it cannot.
            hardware: Whether hardware breakpoints may be used.
        """
        self.read = read
        self.breakpoints = Breakpoints(enabled=hardware)

    def start(self, tid: int, signo: int = 0) -> Step:
        """Begins a step of a stopped task.

        Args:
            tid: The task.
            signo: A signal to deliver first, for which the task must be in the
                signal-delivery-stop: the kernel ignores the signal in any other stop.

        Raises:
            StepRefusedError: Only a trap could step it, and it ignores SIGTRAP.
            Gone: The task has ended.
        """
        step = Step(self, tid)
        if signo:
            step.deliver(signo)
        else:
            step.run()
        return step

    def is_ours(self, tid: int, info: SigInfo | None) -> bool:
        """Returns whether a signal comes from a breakpoint that `Step.leave` left behind."""
        return self.breakpoints.is_left(tid, info)

    def close(self, tid: int | None = None) -> None:
        """Gives back the breakpoints of a task, or of all: as they run on, or have ended."""
        self.breakpoints.close(tid)


class Step:
    """One step under way; every stop of its task goes to `stopped`.

    Attributes:
        tid: The task.
        way: How the step is made.
    """

    def __init__(self, stepper: Stepper, tid: int) -> None:
        self.tid = tid
        self.way = Way.TRAP
        self._read = stepper.read
        self._breakpoints = stepper.breakpoints
        self._armed: list[HardwareBreakpoint] = []
        self._addresses: list[int] = []
        self._before: tuple[int, ...] = ()
        self._mask: int | None = None
        self._given_up = False
        self._entered = False
        self._parking: Progress | None = None
        self._delivered = False

    # How it begins

    def run(self) -> None:
        """Lets the task run its next instruction."""
        tid = self.tid
        registers = requests.registers(tid)
        code = self._read(program_counter(registers), INSTRUCTION_MAX)
        self._before = _place(registers)
        self._entered = False
        if _restarts(registers) or is_system_call(_MACHINE, code):
            self.way = Way.CALL
            self._breakpoints.forget_signals()  # the call may change them
        else:
            self._addresses = self._next(registers) or []
            self._armed = self._breakpoints.arm(tid, self._addresses) if self._addresses else []
            self.way = Way.BREAKPOINT if self._armed else Way.TRAP
            if self._armed:
                # Without the flag a jump to itself would stop before it runs; with it, after
                # an instruction that the hypervisor emulates, the breakpoint may be missed.
                self._set_resume_flag(registers, registers["rip"] in self._addresses)
            else:
                self._unblock_trap()
        self._resume()

    def _next(self, registers: Mapping[str, int]) -> list[int] | None:
        if _MACHINE != "x86_64" or (width := width_of(registers)) is None:
            return None
        read, is_32bit = self._read, width == 32
        found = next_addresses(_MACHINE, registers, read, is_32bit=is_32bit)
        abort = rseq_abort(registers["rip"], requests.rseq_area(self.tid), read)
        if abort is None or found is None:
            return found
        moved = next_addresses(_MACHINE, {**registers, "rip": abort}, read, is_32bit=is_32bit)
        return None if moved is None else list(dict.fromkeys(found + moved))

    def _set_resume_flag(self, registers: Mapping[str, int], wanted: bool) -> None:
        flags = registers["eflags"]
        value = flags | EFLAGS_RF if wanted else flags & ~EFLAGS_RF
        if value != flags:
            requests.set_eflags(self.tid, value)

    def _unblock_trap(self) -> None:
        """Keeps the kernel from resetting the action for SIGTRAP, as a blocked trap makes it."""
        sets = read_signal_sets(self.tid)
        if sets is None:
            raise Gone
        trap = bit(signal.SIGTRAP)
        if sets.ignored & trap:
            raise StepRefusedError("it ignores SIGTRAP")
        if sets.blocked & trap:
            if (sets.pending | sets.shared) & trap:
                raise StepRefusedError("it has a blocked SIGTRAP of its own pending")
            self._mask = requests.signal_mask(self.tid)
            requests.set_signal_mask(self.tid, self._mask & ~trap)

    def _resume(self) -> None:
        if self.way is Way.CALL:
            requests.syscall(self.tid)
        elif self.way is Way.TRAP:
            requests.step(self.tid, 0)
        else:
            requests.cont(self.tid, 0)

    # Stops, signals, and the end of the step

    def give_up(self) -> None:
        """Interrupts the task; `stopped` then ends with `Progress.DONE` or `Progress.LATE`."""
        self._given_up = True
        requests.interrupt(self.tid)

    def deliver(self, signo: int) -> None:
        """Delivers a signal, and steps into its handler; runs the instruction if it has none."""
        if self._is_hit:
            # The instruction has run. The breakpoint's signal comes next, and is taken there.
            self._delivered = True
            requests.cont(self.tid, signo)
            return
        self._disarm()
        self._restore_mask()
        self._breakpoints.forget_signals()
        self.way = Way.SIGNAL
        self._parking = None
        self._before = _place(requests.registers(self.tid))
        requests.cont_and_stop(self.tid, signo)

    def leave(self) -> bool:
        """Ends the step at a signal that is not delivered; returns whether the instruction ran."""
        hit = self._is_hit
        if hit:
            self._breakpoints.leave(self.tid, self._armed)
        self._disarm()
        self._restore_mask()
        return hit

    def stopped(self, signo: int, event: int) -> Progress:
        """Takes in a stop of the task, which the caller has consumed if it is an event.

        Args:
            signo: The low byte of the stop's status: the signal, or 0x85 in a syscall-stop.
            event: The ptrace event; 0 for a signal-delivery-stop or a syscall-stop.

        Raises:
            Gone: The task was killed.
        """
        if event == EVENT_STOP:
            return self._interrupted(signo)
        if event == EVENT_EXEC:
            self._disarm()
            self._breakpoints.close(self.tid)
            return Progress.DONE
        if event:
            self._resume()
            return Progress.RUNS
        if signo == SYSCALL_STOP:
            return self._at_call()
        if self._is_hit and signo == self._armed[0].signo:
            return self._park(self._passed())
        if self.way is Way.TRAP and signo == signal.SIGTRAP:
            info = requests.siginfo(self.tid)
            if info is not None and info.code == _AFTER_CALL and not self._has_moved:
                requests.step(self.tid, 0)  # it ended the execve in whose stop the step began
                return Progress.RUNS
            if is_our_trap(info):
                return self._park(Progress.DONE)
            return Progress.SIGNAL
        return Progress.SIGNAL

    @property
    def _is_hit(self) -> bool:
        return any(breakpoint_.is_hit for breakpoint_ in self._armed)

    def _park(self, progress: Progress) -> Progress:
        """Takes the signal of a stop back: the task stops again, before it runs anything."""
        self._parking = progress
        requests.cont_and_stop(self.tid, 0)
        return Progress.RUNS

    def _at_call(self) -> Progress:
        message = requests.event_message(self.tid)
        # Before Linux 5.3 the message does not tell, and the stops take turns.
        exits = message == SYSCALL_EXIT or (message != SYSCALL_ENTRY and self._entered)
        if not exits or not self._entered:
            # An exit without an entry ends the call in which the task was stopped.
            self._entered = not exits
            requests.syscall(self.tid)
            return Progress.RUNS
        cut_short = self._given_up and _restarts(requests.registers(self.tid))
        return self._park(Progress.LATE if cut_short else Progress.DONE)

    def _passed(self) -> Progress:
        """Disarms the breakpoints after a hit; returns whether the task is where it should be."""
        registers = requests.registers(self.tid)
        exact = self._delivered or registers["rip"] in self._addresses
        if exact:
            self._set_resume_flag(registers, wanted=False)
        else:
            self._breakpoints.enabled = False  # this machine stops a task too late
        self._disarm()
        return Progress.DONE if exact else Progress.RAN_ON

    def _interrupted(self, signo: int) -> Progress:
        """Takes in the stop of an interrupt: ours, or one that came late."""
        if self._parking is not None:
            self._restore_mask()
            return self._parking
        if self.way is Way.SIGNAL:
            if signo != signal.SIGTRAP or self._has_moved:
                return Progress.DONE  # in a group-stop, or in its handler
            if self._given_up:
                return Progress.LATE
            self.run()
            return Progress.RUNS
        if self.way is Way.BREAKPOINT and self._is_hit:
            return self._drain(self._armed[0].signo)
        if not self._given_up:
            self._resume()
            return Progress.RUNS
        if self.way is Way.TRAP:
            return self._drain(signal.SIGTRAP)
        ran_on = self.way is Way.BREAKPOINT and self._has_moved
        if ran_on:
            self._breakpoints.enabled = False
        self._disarm()
        return Progress.RAN_ON if ran_on else Progress.LATE

    def _drain(self, signo: int) -> Progress:
        """Fetches a signal of ours that an interrupt overtook."""
        sets = read_signal_sets(self.tid)
        if sets is None:
            raise Gone
        if sets.pending & bit(signo):
            # With another interrupt the stops of interrupts come for ever, and never the signal.
            requests.cont(self.tid, 0)
            return Progress.RUNS
        self._restore_mask()
        return self._passed() if self._armed else Progress.LATE

    @property
    def _has_moved(self) -> bool:
        return _place(requests.registers(self.tid)) != self._before

    def _disarm(self) -> None:
        for breakpoint_ in self._armed:
            breakpoint_.disarm()
        self._armed = []

    def _restore_mask(self) -> None:
        if self._mask is not None:
            mask, self._mask = self._mask, None
            with contextlib.suppress(OSError):
                requests.set_signal_mask(self.tid, mask)


def _place(registers: Mapping[str, int]) -> tuple[int, ...]:
    """Returns what the kernel changes as it sets up a handler: where the task is."""
    return program_counter(registers), registers.get("rsp", registers.get("sp", 0))


def _restarts(registers: Mapping[str, int]) -> bool:
    """Returns whether the task lies in a system call that the kernel is to run again."""
    if "orig_rax" not in registers or registers["orig_rax"] >> 63:
        return False
    value = registers["rax"]
    if registers["cs"] == 0x23:
        value &= 0xFFFFFFFF
        return value - (1 << 32) in _RESTARTS
    return value - (1 << 64) in _RESTARTS
