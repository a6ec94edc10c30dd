"""The addresses that a thread can reach by its next instruction, for `stepping`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["INSTRUCTION_MAX", "is_system_call", "next_addresses", "rseq_abort", "width_of"]

INSTRUCTION_MAX = 15
"""Bytes that an x86 instruction has at most."""

_SYSTEM_CALLS = (b"\x0f\x05", b"\x0f\x34", b"\xcd\x80")  # syscall, sysenter, int 0x80
_CS_64, _CS_32 = 0x33, 0x23
_FLAT = 0x2B

Read = Callable[[int, int], bytes]
"""Reads bytes of the target: fewer, or none, where they cannot be read."""


def is_system_call(machine: str, code: bytes) -> bool:
    """Returns whether the instruction at the start of `code` is a system call."""
    if machine == "x86_64":
        return code.startswith(_SYSTEM_CALLS)
    if machine == "aarch64" and len(code) >= 4:
        return int.from_bytes(code[:4], "little") & 0xFFE0001F == 0xD4000001  # svc
    return False


def width_of(registers: Mapping[str, int]) -> int | None:
    """Returns the bits of an x86 thread's code, 64 or 32; None for a segment of its own."""
    return {_CS_64: 64, _CS_32: 32}.get(registers["cs"])


def rseq_abort(rip: int, area: int, read: Read) -> int | None:
    """Returns where the kernel sends a thread that it stopped in a restartable sequence.

    Without this, a breakpoint after the instruction at `rip` is never reached: the kernel moves
    the thread to the abort handler before it runs on.

    Args:
        rip: The address of the next instruction.
        area: The thread's ``struct rseq``; 0 if it registered none.
        read: Reads the target.
    """
    if not area:
        return None
    descriptor = int.from_bytes(read(area + 8, 8), "little")
    if not descriptor:
        return None
    fields = read(descriptor + 8, 24)
    start, length, abort = (int.from_bytes(fields[i : i + 8], "little") for i in (0, 8, 16))
    return abort if 0 <= rip - start < length else None


def next_addresses(
    machine: str, registers: Mapping[str, int], read: Read, *, is_32bit: bool
) -> list[int] | None:
    """Returns every address that the instruction at the program counter can lead to.

    Args:
        machine: As os.uname names it.
        registers: The general registers, by the kernel's names.
        read: Reads the target.
        is_32bit: Whether the thread runs 32-bit code.

    Returns:
        One or two addresses, each once; None if the instruction cannot be decoded, or if
        the processor or the kernel may pass over a breakpoint after it.
    """
    if machine != "x86_64" or (iced := _iced()) is None:
        return None
    mask = 0xFFFFFFFF if is_32bit else 0xFFFFFFFFFFFFFFFF
    code = read(registers["rip"], INSTRUCTION_MAX)
    flow = _Flow(iced, code, registers, read, is_32bit=is_32bit)
    found = flow.addresses(iced.DecoderOptions.NONE)
    if found and flow.is_branch and flow.addresses(iced.DecoderOptions.AMD) != found:
        return None  # with a prefix 66 the branch is 16 bits wide for one maker only
    return None if found is None else list(dict.fromkeys(address & mask for address in found))


@functools.cache
def _iced() -> Any:
    """Returns the decoder's module, or None where it is not installed: it has no aarch64."""
    try:
        return importlib.import_module("iced_x86")
    except ImportError:
        return None


@functools.cache
def _passed_over(iced: Any) -> frozenset[int]:
    """Returns the mnemonics after which a breakpoint at the next instruction may not hit.

    The kernel emulates these in its fault handler and leaves the resume flag set.
    """
    names = ("SGDT", "SIDT", "SLDT", "SMSW", "STR", "CLI", "STI", "LSS", "ENCLU")
    return frozenset(getattr(iced.Mnemonic, name) for name in names)


@functools.cache
def _registers(iced: Any) -> dict[int, tuple[str, int]]:
    """Returns the kernel's name and the mask of each register that a branch can go by."""
    found: dict[int, tuple[str, int]] = {iced.Register.NONE: ("", 0)}
    for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp"):
        found[getattr(iced.Register, f"R{name.upper()}")] = (f"r{name}", (1 << 64) - 1)
        found[getattr(iced.Register, f"E{name.upper()}")] = (f"r{name}", (1 << 32) - 1)
    for number in range(8, 16):
        found[getattr(iced.Register, f"R{number}")] = (f"r{number}", (1 << 64) - 1)
        found[getattr(iced.Register, f"R{number}D")] = (f"r{number}", (1 << 32) - 1)
    return found


class _Flow:
    """The flow of control out of one x86 instruction."""

    def __init__(
        self,
        iced: Any,
        code: bytes,
        registers: Mapping[str, int],
        read: Read,
        *,
        is_32bit: bool,
    ) -> None:
        self._iced = iced
        self._code = code
        self._registers = registers
        self._read = read
        self._is_32bit = is_32bit
        self.is_branch = False

    def addresses(self, options: int) -> list[int] | None:
        """Returns the addresses, decoded as one maker's processors do."""
        iced = self._iced
        bits = 32 if self._is_32bit else 64
        instruction = iced.Decoder(bits, self._code, options, self._registers["rip"]).decode()
        flow, kinds = instruction.flow_control, iced.FlowControl
        if flow == kinds.NEXT:
            # A write of SS delays a breakpoint at the next instruction past it.
            to_ss = instruction.op_count > 0 and instruction.op0_register == iced.Register.SS
            if to_ss or instruction.mnemonic in _passed_over(iced):
                return None
            return [instruction.next_ip]
        self.is_branch = True
        if flow == kinds.CONDITIONAL_BRANCH:
            return [instruction.next_ip, instruction.near_branch_target]
        if flow == kinds.UNCONDITIONAL_BRANCH and instruction.is_jmp_short_or_near:
            return [instruction.near_branch_target]
        if flow == kinds.CALL and instruction.is_call_near:
            return [instruction.near_branch_target]
        if flow == kinds.RETURN:
            return self._return(instruction)
        near = instruction.is_call_near_indirect or instruction.is_jmp_near_indirect
        if flow in (kinds.INDIRECT_CALL, kinds.INDIRECT_BRANCH) and near:
            return self._indirect(instruction)
        return None  # far, an interrupt, a transaction, or no instruction

    def _return(self, instruction: Any) -> list[int] | None:
        code = self._iced.Code
        wanted = (
            (code.RETND, code.RETND_IMM16) if self._is_32bit else (code.RETNQ, code.RETNQ_IMM16)
        )
        if instruction.code not in wanted:
            return None
        stack = self._registers["rsp"]
        return self._pointer(stack & 0xFFFFFFFF if self._is_32bit else stack)

    def _indirect(self, instruction: Any) -> list[int] | None:
        wanted = self._iced.MemorySize.DWORD_OFFSET, self._iced.MemorySize.QWORD_OFFSET
        if instruction.op0_kind == self._iced.OpKind.REGISTER:
            value = self._value(instruction.op0_register)
            wide = _registers(self._iced).get(instruction.op0_register, ("", 0))[1] >> 32 != 0
            return None if value is None or wide == self._is_32bit else [value]
        if instruction.memory_size != wanted[not self._is_32bit]:
            return None
        address = self._effective(instruction)
        return None if address is None else self._pointer(address)

    def _effective(self, instruction: Any) -> int | None:
        """Returns the address of the instruction's memory operand."""
        iced = self._iced
        base = self._segment_base(instruction.memory_segment)
        if base is None:
            return None
        if instruction.is_ip_rel_memory_operand:
            offset = int(instruction.ip_rel_memory_address)
        else:
            first, index = (
                self._value(instruction.memory_base),
                self._value(instruction.memory_index),
            )
            if first is None or index is None:
                return None  # 16-bit addressing
            offset = first + index * instruction.memory_index_scale
            offset += instruction.memory_displacement
        by_32 = self._is_32bit or 4 in (
            iced.RegisterExt.size(register)
            for register in (instruction.memory_base, instruction.memory_index)
        )
        offset &= 0xFFFFFFFF if by_32 else 0xFFFFFFFFFFFFFFFF
        return (base + offset) & (0xFFFFFFFF if self._is_32bit else 0xFFFFFFFFFFFFFFFF)

    def _segment_base(self, segment: int) -> int | None:
        register = self._iced.Register
        if segment in (register.FS, register.GS):
            return self._registers["fs_base" if segment == register.FS else "gs_base"]
        # Flat for a 64-bit thread, and for a 32-bit one that uses the kernel's own segments.
        if self._is_32bit and not all(
            self._registers[name] == _FLAT for name in ("ds", "es", "ss")
        ):
            return None
        return 0

    def _value(self, register: int) -> int | None:
        known = _registers(self._iced).get(register)
        if known is None:
            return None
        name, mask = known
        return self._registers[name] & mask if name else 0

    def _pointer(self, address: int) -> list[int] | None:
        width = 4 if self._is_32bit else 8
        data = self._read(address, width)
        return [int.from_bytes(data, "little")] if len(data) == width else None
