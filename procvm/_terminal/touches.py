"""Accesses by instruction, and callers: what ``who``, ``calls`` and the viewer show."""

from __future__ import annotations

from collections.abc import Iterable

import procvm
from procvm._base.text import printable
from procvm._live.instructions import RESUME_FLAG, Instruction, instruction_of

__all__ = ["Touch", "Touches", "caller_of"]


class Touch:
    """The accesses of one instruction.

    Attributes:
        address: The instruction, or the one after it.
        is_exact: Whether `address` is the instruction itself, decoded as `text`.
        text: The instruction in Intel's syntax; empty if it is not known.
        where: The name of `address`.
        registers: As they were after the first access.
        stack: The calls that led to the first access, as text; empty unless asked for.
        count: How many accesses there were.
        threads: Which threads made them.
    """

    def __init__(
        self,
        process: procvm.Process,
        first: procvm.Access,
        instruction: Instruction | None,
        *,
        with_stack: bool,
    ) -> None:
        self.is_exact = instruction is not None
        self.address = first.ip if instruction is None else instruction.address
        self.text = "" if instruction is None else instruction.text
        self.where = process.describe(self.address)
        self.registers = dict(first.registers)
        self.stack = [printable(str(frame)) for frame in first.stack()] if with_stack else []
        self.count = 0
        self.threads: set[int] = set()

    @property
    def place(self) -> str:
        """The function and the line, as text."""
        where = str(self.where) if self.is_exact else f"before {self.where}"
        return f"{where} ({printable(self.where.line)})" if self.where.line else where


class Touches:
    """The accesses of a trace, by instruction.

    Attributes:
        count: How many there were.
    """

    def __init__(self, process: procvm.Process, *, with_stack: bool = False) -> None:
        self._process = process
        self._with_stack = with_stack
        self._instructions: dict[tuple[int, int], Instruction | None] = {}
        self._rows: dict[tuple[int, bool], Touch] = {}
        self.count = 0

    def add(self, hits: Iterable[procvm.Access]) -> None:
        """Counts accesses, which have registers."""
        for hit in hits:
            instruction = self._instruction(hit.ip, hit.registers.get("eflags", 0))
            key = (hit.ip, False) if instruction is None else (instruction.address, True)
            row = self._rows.get(key)
            if row is None:
                row = Touch(self._process, hit, instruction, with_stack=self._with_stack)
                self._rows[key] = row
            row.count += 1
            row.threads.add(hit.tid)
            self.count += 1

    def _instruction(self, ip: int, flags: int) -> Instruction | None:
        # The other flags do not matter, and would decode the same instruction again and again.
        key = (ip, flags & RESUME_FLAG)
        if key not in self._instructions:
            self._instructions[key] = instruction_of(self._process, ip, flags)
        return self._instructions[key]

    def rows(self) -> list[Touch]:
        """Returns the instructions, those with most accesses first."""
        return sorted(self._rows.values(), key=lambda row: -row.count)


def caller_of(process: procvm.Process, hit: procvm.Access) -> procvm.Location:
    """Returns the place to which a call returns; the hit has registers and a word of the stack."""
    link = hit.registers.get("x30")  # arm64; on x86-64 it is the first word of the stack
    if link is None:
        link = int.from_bytes(hit.stack_bytes[: process.address_size], "little")
    return process.describe(link)
