"""`syscall_instruction`: finds an instruction of the target that an injected call can use."""

from __future__ import annotations

from contextlib import suppress

from procvm._live.process import Process
from procvm.errors import UnsupportedError, VmError

__all__ = ["syscall_instruction"]

_SYSCALL = b"\x0f\x05"


def syscall_instruction(process: Process) -> int:
    """Returns the address of a ``syscall`` instruction of x86-64, of the vdso if it has one.

    Raises:
        UnsupportedError: No executable mapping has one.
    """
    executable = process.maps().filter(perms="x")
    for vma in sorted(executable, key=lambda vma: vma.name != b"[vdso]"):
        with suppress(VmError):
            at = process.vm.read_bytes(vma.start, vma.end - vma.start).find(_SYSCALL)
            if at >= 0:
                return vma.start + at
    raise UnsupportedError(f"process {process.pid} has no syscall instruction to use")
