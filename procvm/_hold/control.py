"""`Control`: registers and moves of a held target, which `Tracee` inherits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from procvm._base.address import as_address, as_int, as_timeout
from procvm._hold.calls import Calls
from procvm._hold.defaults import DEFAULT, Default, seconds_or
from procvm._hold.event import Event
from procvm._hold.float_registers import float_registers
from procvm._hold.server.protocol import SETTLE_TIME, Op
from procvm._live.image import Image
from procvm._live.process import Process
from procvm.errors import InvalidArgsError, UnsupportedError

__all__ = ["Control"]

_KINDS = ("general", "float", "all")


class Control(Process):
    """The operations on a target that is held."""

    def __init__(self, image: Image, calls: Calls) -> None:
        super().__init__(image, calls)
        self._calls = calls

    def registers(
        self, tid: int | None = None, kind: Literal["general", "float", "all"] = "general"
    ) -> dict[str, int]:
        """Returns the registers of a held thread, by name.

        The general registers have the kernel's names. Those of floating point and vectors are
        whole numbers that hold the bits. On x86-64 they are ``st0`` to ``st7`` (80 bits),
        ``mm0`` to ``mm7``, ``xmm0`` to ``xmm15``, ``ymm0`` to ``ymm15`` if the processor has
        AVX, ``fctrl``, ``fstat``, ``ftag``, ``fop``, ``fip``, ``fdp``, ``mxcsr`` and
        ``mxcsr_mask``; on aarch64 ``v0`` to ``v31``, ``fpsr`` and ``fpcr``.

        Args:
            tid: The thread; the leader if it is not given.
            kind: ``"general"``, ``"float"``, or ``"all"`` for both.

        Raises:
            ValueError: The kind is not one of these.
            NotStoppedError: The target runs.
            NoSuchProcessError: The process has no such thread.
            ProcessExitedError: It has ended.
            ProcessExecedError: It runs another program now.
            UnsupportedError: This machine has no such registers that procvm knows.

        Source:
            ptrace(2), PTRACE_GETREGSET with NT_X86_XSTATE or NT_PRFPREG.
        """
        if kind not in _KINDS:
            raise ValueError(
                f"{kind!r} is not a kind of registers; give one of {', '.join(_KINDS)}"
            )
        tid = self._tid(tid)
        found: dict[str, int] = {}
        if kind != "float":
            found.update(self._calls.request(Op.GET_REGISTERS, tid))
        if kind != "general":
            machine, has_xstate, data = self._calls.request(Op.GET_FLOATS, tid)
            floats = float_registers(machine, data, has_xstate=has_xstate) if data else None
            if floats is None:
                raise UnsupportedError(
                    f"the floating-point registers of thread {tid} cannot be read: the kernel or "
                    f"procvm does not know those of {machine}"
                )
            found.update(floats)
        return found

    def set_registers(self, values: Mapping[str, int], tid: int | None = None) -> None:
        """Sets registers of a held thread; those not named stay as they are.

        All of them are set, or none if there is an error. On x86-64 ``fs_base`` and
        ``gs_base`` are addresses (the first is where thread-local storage ends), which the
        kernel takes below the end of user space; ``orig_rax`` is the number of the system call
        that the thread is in, negative for none.

        Args:
            values: Values from 0 to 2^64 - 1 by the kernel's names.
            tid: The thread; the leader if it is not given.

        Raises:
            NotStoppedError: The target runs.
            ValueError: The machine has no register of that name, or the kernel refuses the value.
            NoSuchProcessError: The process has no such thread.
            ProcessExitedError: It has ended.
            ProcessExecedError: It runs another program now.
        """
        numbers = {name: as_address(value, name) for name, value in values.items()}
        unknown = numbers.keys() - self.registers(tid).keys()
        if unknown:
            raise ValueError(f"no register is called {sorted(unknown)[0]!r} on this machine")
        refused = self._calls.request(Op.SET_REGISTERS, self._tid(tid), numbers)
        if refused:
            value = f" = {numbers[refused]:#x}" if refused in numbers else ""
            raise ValueError(
                f"the kernel refuses {refused}{value} of process {self.pid}; nothing was changed"
            )

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

    def cont(self, timeout: float | None = None) -> Event | None:
        """Lets a held target run, traced, to the next event; then holds it again.

        Every signal is returned before it is delivered. If several events came together, the
        next calls return the others before any thread runs.

        Args:
            timeout: Seconds to wait for an event; None for no limit.

        Returns:
            The event; None if none came in time. In both cases the target is held again.

        Raises:
            NotStoppedError: The target runs.
            ProcessExitedError: It ended.
            StopTimeoutError: A thread did not stop again after the event (it sleeps
                uninterruptibly); all run on.
        """
        timeout = as_timeout(timeout)
        found = self._calls.request(
            Op.CONT, timeout, timeout=None if timeout is None else timeout + SETTLE_TIME
        )
        return None if found is None else Event(self._calls, *found)

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

    def _tid(self, tid: int | None) -> int:
        return self.pid if tid is None else as_int(tid, "tid")
