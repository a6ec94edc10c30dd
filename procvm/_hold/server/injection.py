"""`inject`: makes a stopped thread run a system call or a function, and puts everything back.

The function returns to a ``syscall`` instruction of the target, whose entry stops the thread: no
trap and no breakpoint is needed, and no SIGTRAP ever comes. Signals are blocked meanwhile, except
those of faults, whose blocking would make the kernel reset their action.

If the tracer is killed while the thread runs, nothing puts its registers back, and the target
usually crashes.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable

from procvm._hold.server import requests
from procvm._hold.server.hold import Hold
from procvm._hold.server.next_address import rseq_abort
from procvm._hold.server.protocol import SETTLE_TIME
from procvm._hold.server.regsets import system_call_of
from procvm._hold.server.requests import EVENT_EXEC, EVENT_STOP, SYSCALL_EXIT, SYSCALL_STOP, Gone
from procvm._hold.server.seizing import NAP
from procvm._hold.server.tasks import TaskState
from procvm._hold.server.yields import Yields
from procvm._linux.sigsets import bit
from procvm.errors import ProcessExitedError, StopTimeoutError, UnsupportedError, VmError

__all__ = ["inject"]

_FAULTS = (
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGTRAP,
    signal.SIGSYS,
)
_ALL_BUT_FAULTS = ((1 << 64) - 1) & ~sum(bit(signo) for signo in _FAULTS)
_RED_ZONE = 128
_SYSCALL_LEN = 2
_NONE = (1 << 64) - 1
_CODE_32 = 0x23
_DIRECTION = 1 << 10
_CALL_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_SYSCALL_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_YIELDS = 400


def inject(
    hold: Hold,
    tid: int,
    gadget: int,
    function: int | None,
    number: int,
    arguments: tuple[int, ...],
    timeout: float | None,
    given_up: Callable[[], bool],
) -> int:
    """Makes a held thread run one system call or function; returns its result, unsigned.

    Args:
        hold: The tasks.
        tid: The thread.
        gadget: The address of a ``syscall`` instruction.
        function: The address of the function; None for a system call.
        number: The number of the system call.
        arguments: At most six.
        timeout: Seconds that it may take; None for no limit.
        given_up: Returns whether the tool has stopped waiting.

    Raises:
        UnsupportedError: The thread is in a state in which this would harm it.
        StopTimeoutError: It did not end in time; the thread is as it was before.
        VmError: A fault or an exec ended it.
        ProcessExitedError: The thread ended.
    """
    before = requests.registers(tid)
    _require_safe(hold, tid, before)
    hold.points.disarm(tid)
    mask = requests.signal_mask(tid)
    names = _SYSCALL_ARGUMENTS if function is None else _CALL_ARGUMENTS
    values = dict(zip(names, arguments, strict=False))
    values |= {"orig_rax": _NONE, "eflags": before["eflags"] & ~_DIRECTION}
    stack = ((before["rsp"] - _RED_ZONE) & ~15) - 8
    if function is None:
        values |= {"rax": number, "rip": gadget}
    else:
        values |= {"rax": 0, "rip": function, "rsp": stack}
        _write(hold, stack, gadget.to_bytes(8, "little"))
    requests.set_signal_mask(tid, _ALL_BUT_FAULTS)
    run = _Run(hold, tid, gadget, None if function is None else stack + 8)
    try:
        refused = requests.set_registers(tid, values)
        if refused:
            raise VmError(f"the kernel refuses {refused} of thread {tid}; nothing was run")
        run.run(timeout, given_up)
    finally:
        if tid in hold.states and not hold.execed:
            hold.states[tid] = TaskState.HELD
            with contextlib.suppress(Gone):
                requests.set_registers(tid, before)
                requests.set_signal_mask(tid, mask)
    hold.settle_births(time.monotonic() + SETTLE_TIME)
    return run.result


def _require_safe(hold: Hold, tid: int, registers: dict[str, int]) -> None:
    why = ""
    if os.uname().machine != "x86_64" or registers["cs"] == _CODE_32:
        why = "it is not 64-bit code of x86-64"
    elif hold.states.get(tid) is not TaskState.HELD:
        why = "it has ended"
    elif tid in hold.signals:
        why = "it is about to take a signal; discard it, or let it be delivered by `cont`"
    elif tid in hold.group_stopped:
        why = "a signal has stopped the process; SIGCONT has to come first"
    elif tid in hold.entered:
        why = "it is at the entry of a system call; let it go on to the exit"
    elif rseq_abort(registers["rip"], requests.rseq_area(tid), hold.read) is not None:
        why = "it is in a restartable sequence, which would be cut; let it run on first"
    if why:
        raise UnsupportedError(f"thread {tid} of process {hold.pid} cannot make a call now: {why}")


def _write(hold: Hold, address: int, data: bytes) -> None:
    program = hold.proof.program
    try:
        if program is not None and os.pwrite(program.mem.number, data, address) == len(data):
            return
    except OSError:
        pass
    raise VmError(f"cannot write to the stack of process {hold.pid} at {address:#x}")


class _Run:
    """One call under way; `result` is what it returned."""

    def __init__(self, hold: Hold, tid: int, gadget: int, back: int | None) -> None:
        self._hold = hold
        self._tid = tid
        self._entry = gadget + _SYSCALL_LEN
        self._back = back
        self._done = False
        self._entered = False
        self._late = False
        self._fault = 0
        self.result = 0

    def run(self, timeout: float | None, given_up: Callable[[], bool]) -> None:
        hold, tid = self._hold, self._tid
        hold.states[tid] = TaskState.SEIZED
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        requests.syscall(tid)
        yields = Yields(_YIELDS)
        while True:
            if not self._late and (time.monotonic() > deadline or given_up()):
                # Also while its own system calls stop it all the time.
                self._late = True
                requests.interrupt(tid)
            event = requests.wait_for(tid)
            if event is None:
                if yields.again():
                    continue
                hold.collect_ends(tid)
                time.sleep(NAP)
                continue
            if event.exited or event.event == EVENT_EXEC:
                hold.take(event)
                raise ProcessExitedError(
                    f"thread {tid} of process {hold.pid} ended in the call", pid=hold.pid
                )
            if event.event or event.signo == SYSCALL_STOP:
                event.consume()
            if event.event == EVENT_STOP:
                if self._over(event.signo):
                    return
                requests.syscall(tid)
            elif event.event:
                hold.take_stop(event)
                hold.states[tid] = TaskState.SEIZED
                requests.syscall(tid)
            elif event.signo == SYSCALL_STOP:
                self._at_call()
            else:
                self._fault = event.signo
                requests.cont_and_stop(tid, 0)

    def _over(self, signo: int) -> bool:
        tid, pid = self._tid, self._hold.pid
        if self._fault:
            raise VmError(
                f"the call in thread {tid} of process {pid} was ended by "
                f"{signal.Signals(self._fault).name}; its registers are as before"
            )
        if self._done:
            return True
        if self._late:
            raise StopTimeoutError(
                f"the call in thread {tid} of process {pid} did not return in time, and was cut "
                "off; its registers are as before",
                pid=pid,
            )
        del signo
        return False

    def _at_call(self) -> None:
        tid = self._tid
        registers = requests.registers(tid)
        exits = requests.event_message(tid) == SYSCALL_EXIT
        ours = registers["rip"] == self._entry
        if self._back is None:
            if exits and ours:
                self.result = registers["rax"]
                # A call that the interrupt has cut off returns an error of the kernel's own.
                self._done = not (self._late and -516 <= system_call_of(registers).result <= -512)
                requests.cont_and_stop(tid, 0)
                return
        elif not exits and ours and registers["rsp"] == self._back:
            self.result = registers["orig_rax"]
            self._done = self._entered = True
            requests.set_registers(tid, {"orig_rax": _NONE})
        elif exits and self._entered:
            requests.cont_and_stop(tid, 0)
            return
        if self._late:
            # Every stop takes back an interrupt that is still to come.
            if not exits:
                requests.set_registers(tid, {"orig_rax": _NONE})
            requests.cont_and_stop(tid, 0)
            return
        requests.syscall(tid)
