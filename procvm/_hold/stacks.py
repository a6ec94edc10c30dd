"""`copied_threads`: registers and stacks of a tracee, copied in one short hold."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Protocol

from procvm._types.sources import ThreadState
from procvm.errors import NoSuchProcessError, VmError

if TYPE_CHECKING:
    from procvm._saved.facts import Thread
    from procvm._space.maps import Vma
    from procvm._space.space import VmSpace

__all__ = ["copied_threads"]

_RED_ZONE = 128
"""Bytes below the stack pointer that a function of x86-64 may use."""

_LONGEST_STACK = 8 << 20
"""The most bytes of a stack to copy: the usual limit of a stack."""


class Holdable(Protocol):
    """The part of a `Tracee` that a copy of its stacks uses."""

    @property
    def pid(self) -> int: ...
    @property
    def vm(self) -> VmSpace: ...
    def stopped(self) -> AbstractContextManager[object]: ...
    def threads(self) -> list[Thread]: ...
    def registers(self, tid: int | None = None) -> dict[str, int]: ...
    def find_vma(self, address: int) -> Vma | None: ...


def copied_threads(
    tracee: Holdable, tid: int | None, *, every: bool
) -> tuple[dict[int, ThreadState], float]:
    """Returns the states of threads, and the seconds that the hold for them lasted.

    Args:
        tracee: The target.
        tid: The thread; the leader if it is not given.
        every: Whether to copy all threads in place of one.
    """
    begun = time.monotonic()
    with tracee.stopped():
        if every:
            tids = sorted(
                (one.tid for one in tracee.threads() if one.state not in "ZX"),
                key=lambda number: number != tracee.pid,
            )
        else:
            tids = [tracee.pid if tid is None else tid]
        found: dict[int, ThreadState] = {}
        for one in tids:
            try:
                found[one] = _copied(tracee, one)
            except NoSuchProcessError:
                if not every:
                    raise
    return found, time.monotonic() - begun


def _copied(tracee: Holdable, tid: int) -> ThreadState:
    registers = tracee.registers(tid)
    pointer = registers.get("rsp")
    kept: list[tuple[int, bytes]] = []
    vma = None if pointer is None else tracee.find_vma(pointer)
    if pointer is not None and vma is not None:
        start = max(pointer - _RED_ZONE, vma.start)
        end = min(vma.end, start + _LONGEST_STACK)
        with suppress(VmError):  # the frames are fewer then
            kept.append((start, tracee.vm.read_bytes(start, end - start)))
    return ThreadState(registers, tuple(kept))
