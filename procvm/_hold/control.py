"""`Control`: moves of a held target, which `Tracee` inherits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Literal

from procvm._base.address import as_int, as_len, as_timeout
from procvm._base.pods import PodLike, pod_of
from procvm._hold.defaults import DEFAULT, Default, seconds_or
from procvm._hold.event import Event
from procvm._hold.gadgets import syscall_instruction
from procvm._hold.points import Breakpoint, Watchpoint, stops_at
from procvm._hold.registers import Registers
from procvm._hold.server.protocol import SETTLE_TIME, Op
from procvm._linux.syscall_names import syscall_name, syscall_number
from procvm.errors import InvalidArgsError, VmError

__all__ = ["Control"]

_NO_RETURN = ("fork", "vfork", "clone", "clone3", "execve", "execveat", "exit", "exit_group")
_NO_RETURN_EITHER = ("rt_sigreturn", "restart_syscall")
_MOST_ARGUMENTS = 6
_WORD = (1 << 64) - 1
_PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS = 3, 0x22


class Control(Registers):
    """The operations on a target that is held."""

    def step(self, tid: int | None = None, timeout: float | Default | None = DEFAULT) -> None:
        """Lets a held thread run one instruction; the others stay held.

        If the thread is in a signal-delivery-stop, the signal is delivered, and the instruction
        is the first of its handler. A signal that comes before the instruction ends the step;
        `pending_events` shows it.

        Args:
            tid: The thread; the leader if it is not given.
            timeout: Seconds that the instruction may take; see `stop`.

        Raises:
            NotStoppedError: The target runs.
            StopTimeoutError: The instruction is a system call that blocks; the
                thread is held again, and the call goes on when the target does.
            UnsupportedError: Without hardware breakpoints the step would change the thread's
                action for SIGTRAP, so no step was made; or the machine's breakpoints stopped
                the thread too late, after more than one instruction.
            NoSuchProcessError: The process has no such thread.
            ProcessExitedError: The thread ended during the step.
            ProcessExecedError: The process runs another program now.
        """
        timeout = seconds_or(timeout, self._calls.timeout)
        self._calls.request(Op.STEP, self._tid(tid), timeout, timeout=timeout)

    def cont(
        self,
        timeout: float | None = None,
        *,
        syscalls: bool | str | int | Iterable[str | int] = False,
    ) -> Event | None:
        """Lets a held target run, traced, to the next event; then holds it again.

        Every signal is returned before it is delivered. If several events came together, the
        next calls return the others before any thread runs.

        A thread that has told a breakpoint passes over it. A thread that blocks the signals that
        tell a hit (SIGURG, SIGWINCH and SIGCHLD) stops some milliseconds late.

        Args:
            timeout: Seconds to wait for an event; None for no limit.
            syscalls: Whether system calls are events, at their entry and their exit; or the
                names or numbers of those that are.

        Returns:
            The event; None if none came in time. In both cases the target is held again.

        Raises:
            ValueError: No system call has that name.
            NotStoppedError: The target runs.
            ProcessExitedError: It ended.
            UnsupportedError: A thread has no free slot for a breakpoint or watchpoint.
            StopTimeoutError: A thread did not stop again after the event (it sleeps
                uninterruptibly); all run on.
        """
        timeout = as_timeout(timeout)
        calls = _numbers(syscalls)
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            found = self._calls.request(
                Op.CONT, left, calls, timeout=None if left is None else left + SETTLE_TIME
            )
            event = None if found is None else Event(self._calls, *found)
            if event is None or event.point is None or stops_at(event.point, event):
                return event

    def breakpoint(
        self, place: int | str, *, condition: Callable[[Event], object] | None = None
    ) -> Breakpoint:
        """Returns a breakpoint at which every thread stops during `cont`, while it is open.

        ``with tracee.breakpoint("count") as b: event = tracee.cont()``. It is a debug register
        of the processor: the code is not changed, and threads that are born later stop too. If
        the tool or the tracer ends, the kernel disarms it, and the target runs on unharmed. It is
        armed while the target is held and during `cont`, also in later holds. `step` does
        not tell a hit.

        Args:
            place: An address, or what `address` takes, such as ``"libc.so.6!malloc"``.
            condition: Called in the tool with each `Event` while the target is held. If it
                returns false, `cont` lets the target run on; a hit takes a fraction of a
                millisecond then.

        Raises:
            TypeError: The condition cannot be called.
            NotStoppedError: The target runs.
            NoSuchSymbolError: No file has that symbol.
            UnsupportedError: All four slots of a thread are in use; or the machine has no exact
                breakpoints; or the target handles every signal that could tell a hit.
            AccessDeniedError: The kernel refuses perf events to this user.
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program now.

        Source:
            perf_event_open(2), PERF_TYPE_BREAKPOINT; fcntl(2), F_SETSIG.
        """
        return Breakpoint(self._calls, self.address(place), condition)

    def watchpoint(
        self,
        place: int | str,
        pod: PodLike[Any],
        on: Literal["write", "access"] = "write",
        *,
        condition: Callable[[Event], object] | None = None,
    ) -> Watchpoint:
        """Returns a watchpoint: a thread stops after it has written or accessed a value.

        ``with tracee.watchpoint("g_score", i32) as w: event = tracee.cont()``. The event has the
        value before and after, and the address after the instruction. An access by the kernel, as
        in read(2), is not seen. See `breakpoint` for the rest.

        Args:
            place: An address, a multiple of the size of `pod`; or what `address` takes.
            pod: A type of 1, 2, 4 or 8 bytes. An access that overlaps these bytes is a hit.
            on: ``"write"``, or ``"access"`` for reads and writes.
            condition: See `breakpoint`; ``lambda event: event.new == 3`` stops at a value.

        Raises:
            ValueError: The address or size cannot be watched.
            NotStoppedError: As `breakpoint`, and so are the others.
        """
        return Watchpoint(self._calls, self.address(place), pod_of(pod), on, condition)

    def syscall(
        self,
        call: str | int,
        *arguments: int,
        tid: int | None = None,
        timeout: float | Default | None = DEFAULT,
    ) -> int:
        """Makes a held thread run one system call, and returns its result.

        The other threads stay held. Registers, signal mask and stack are as before afterwards,
        also after an error, and a system call that the hold interrupted is begun again as it would
        have been. Signals wait until the end. If the tracer is killed while the call runs, the
        thread is left in it, and the target may crash.

        Args:
            call: Its name or number.
            arguments: At most six numbers, modulo 2^64; those not given are 0.
            tid: The thread; the leader if it is not given.
            timeout: Seconds that the call may take; see `stop`.

        Returns:
            What the kernel returned: an errno as a negative number.

        Raises:
            ValueError: No call has this name, it has too many arguments, or it is one that does
                not return to the thread as it was (fork, clone, exec, exit).
            NotStoppedError: The target runs.
            UnsupportedError: The thread is at the entry of a system call, in a group-stop, in a
                restartable sequence, or about to take a signal; or it is not x86-64.
            StopTimeoutError: The call blocks; it was cut off.
        """
        number = syscall_number(call)
        if syscall_name(number) in _NO_RETURN + _NO_RETURN_EITHER:
            raise ValueError(f"{call} does not return to the thread as it was")
        return _signed(self._inject(None, number, arguments, tid, timeout))

    def call(
        self,
        function: int | str,
        *arguments: int,
        tid: int | None = None,
        timeout: float | Default | None = DEFAULT,
    ) -> int:
        """Makes a held thread call a function of whole numbers, and returns its result.

        As `syscall`. The other threads stay held, so a function that waits for a lock of theirs
        does not return; after `timeout` it is cut off, with the locks that it has taken.

        Args:
            function: An address, or what `address` takes.
            arguments: At most six numbers or addresses.
            tid: The thread; the leader if it is not given.
            timeout: Seconds that the call may take; see `stop`.

        Returns:
            The register of the result, as a signed number of 64 bits; of an ``int`` the lower
            32 bits count.

        Raises:
            VmError: A fault ended the call.
            NoSuchSymbolError: No file has that symbol.
            NotStoppedError: As `syscall`, and so are the others.
        """
        return _signed(self._inject(self.address(function), 0, arguments, tid, timeout))

    @contextmanager
    def scratch(self, n: int) -> Generator[int]:
        """Context manager that maps `n` new bytes in the target, and yields their address.

        They are unmapped at the end, in the same hold, but not if the tool or tracer ends first.

        Raises:
            VmError: The target has no memory for them; the rest is as for `syscall`.
        """
        n = as_len(n, "n")
        address = self.syscall("mmap", 0, n, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
        if address < 0:
            raise VmError(f"process {self.pid} cannot map {n} bytes: {os.strerror(-address)}")
        try:
            yield address
        finally:
            self.syscall("munmap", address, n)

    def _inject(
        self,
        function: int | None,
        number: int,
        arguments: tuple[int, ...],
        tid: int | None,
        timeout: float | Default | None,
    ) -> int:
        if len(arguments) > _MOST_ARGUMENTS:
            raise ValueError(f"{len(arguments)} arguments are too many: give at most six")
        words = tuple(as_int(value, "an argument") & _WORD for value in arguments)
        words += (0,) * (_MOST_ARGUMENTS - len(words))
        seconds = seconds_or(timeout, self._calls.timeout)
        tid = self._tid(tid)
        self.registers(tid)  # refuses a target that runs
        found: int = self._calls.request(
            Op.CALL,
            tid,
            syscall_instruction(self),
            function,
            number,
            words,
            seconds,
            timeout=seconds,
        )
        return found

    def pending_events(self) -> list[Event]:
        """Returns the events that the next calls of `cont` will return, in that order.

        Raises:
            NotStoppedError: The target runs.
            ProcessExitedError: It ended.
        """
        return [Event(self._calls, *found) for found in self._calls.request(Op.PENDING)]

    def address(self, expression: str | int, *, tid: int | None = None) -> int:
        """Returns the address that an expression means; in a hold it may name registers.

        ``$rsp`` is the register of that name: ``"*($rsp+8)"`` is the second word of the stack.

        Args:
            expression: See `Mapped.address`.
            tid: The thread whose registers are meant; the leader if it is not given.

        Raises:
            InvalidArgsError: It cannot be parsed, or no general register has that name.
            NotStoppedError: It names a register, and the target runs.
            NoSuchSymbolError: As `Mapped.address`, and so are the others.
        """
        return self._address(expression, lambda name: self._value(name, tid))

    def _register(self, name: str) -> int:
        return self._value(name, None)

    def _value(self, name: str, tid: int | None) -> int:
        value = self.registers(tid).get(name)
        if value is None:
            raise InvalidArgsError(f"no general register is called {name!r} on this machine")
        return value


def _numbers(syscalls: bool | str | int | Iterable[str | int]) -> tuple[int, ...] | None:
    """Returns the numbers of the system calls that `cont` tells; none for all of them."""
    if isinstance(syscalls, bool):
        return () if syscalls else None
    if isinstance(syscalls, str | int):
        syscalls = (syscalls,)
    return tuple(map(syscall_number, syscalls)) or None


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
