"""`Registers`: the registers of a held target, which `Tracee` inherits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from procvm._base.address import as_address, as_int
from procvm._hold.calls import Calls
from procvm._hold.float_registers import float_registers
from procvm._hold.server.protocol import Op
from procvm._live.image import Image
from procvm._live.process import Process
from procvm.errors import UnsupportedError

__all__ = ["Registers"]

_KINDS = ("general", "float", "all")


class Registers(Process):
    """The registers of the threads of a target that is held."""

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

    def _tid(self, tid: int | None) -> int:
        return self.pid if tid is None else as_int(tid, "tid")
