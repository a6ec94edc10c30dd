"""The instruction that made an access, where the processor tells the one after it."""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from procvm._space.texts import read_some
from procvm.errors import ProcvmError

if TYPE_CHECKING:
    from procvm._symbols.mapped import Mapped

__all__ = ["RESUME_FLAG", "Instruction", "instruction_of"]

_LONGEST = 15
"""The most bytes of an x86 instruction."""

_FARTHEST = 1 << 16
"""Bytes from the start of a function up to which it is decoded."""

RESUME_FLAG = 1 << 16
"""The bit of eflags that the processor sets between two rounds of a repeated instruction."""


class Instruction(NamedTuple):
    """An instruction of a target.

    Attributes:
        address: Its address.
        text: Its text in Intel's syntax; empty if it is not known.
    """

    address: int
    text: str


@functools.cache
def _iced() -> Any:
    """Returns the decoder's module, or None where it is not installed: it has no aarch64."""
    if os.uname().machine != "x86_64":
        return None
    try:
        return importlib.import_module("iced_x86")
    except ImportError:
        return None


def instruction_of(process: Mapped, ip: int, flags: int = 0) -> Instruction | None:
    """Returns the instruction that made an access, or None if it cannot be told.

    A data breakpoint of x86-64 reports the instruction after the one that made the access. An
    instruction cannot be decoded backwards, so the function is decoded from its start. Without
    a symbol all starts up to 15 bytes before `ip` are tried: it is told if there is only one
    which leads to `ip` and touches memory. At the start of a function it is not told: an
    instruction elsewhere called the function, and wrote the return address.

    A repeated instruction such as ``rep stosb`` is interrupted by its own accesses. Then `ip` is
    that instruction itself, and the processor has set the resume flag.

    Args:
        process: The process.
        ip: The instruction pointer at the hit.
        flags: eflags at the hit.
    """
    iced = _iced()
    if iced is None:
        return None
    bits = 32 if process.address_size == 4 else 64
    if flags & RESUME_FLAG:
        found = _repeated(iced, process, bits, ip)
        if found is not None:
            return found
    where = process.describe(ip)
    if where.symbol is not None and where.offset == 0:
        return None
    if where.symbol is not None and where.offset <= _FARTHEST:
        found = _decoded(iced, process, bits, ip - where.offset, ip)
        if found is not None:
            return found
    starts = (_decoded(iced, process, bits, ip - n, ip, single=True) for n in range(1, 16))
    fitting = [one for one in starts if one is not None and "[" in one.text]
    return fitting[0] if len(fitting) == 1 else None


def _repeated(iced: Any, process: Mapped, bits: int, ip: int) -> Instruction | None:
    """Returns the instruction at an address if it is a string instruction with a rep prefix."""
    code = read_some(process.vm.forced(), ip, bytearray(_LONGEST))
    for one in iced.Decoder(bits, code, ip=ip):
        is_repeated = one.has_rep_prefix or one.has_repne_prefix
        return _told(iced, one) if is_repeated and one.is_string_instruction else None
    return None


def _told(iced: Any, one: Any) -> Instruction:
    return Instruction(one.ip, iced.Formatter(iced.FormatterSyntax.INTEL).format(one))


def _decoded(
    iced: Any, process: Mapped, bits: int, start: int, ip: int, *, single: bool = False
) -> Instruction | None:
    """Returns the last instruction between two addresses, if instructions end at the second."""
    try:
        code = process.vm.forced().read_bytes(start, ip - start)
    except ProcvmError:
        return None
    decoder = iced.Decoder(bits, code, ip=start)
    last = None
    for instruction in decoder:
        if instruction.is_invalid or (single and last is not None):
            return None
        last = instruction
    if last is None or last.next_ip != ip:
        return None
    return _told(iced, last)
