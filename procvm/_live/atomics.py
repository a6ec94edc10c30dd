"""Atomics on a target: by the processor where memory is shared, under a hold where not."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from procvm._base.address import PAGE_SIZE
from procvm._base.perms import READ, WRITE
from procvm._linux import procfs
from procvm._linux.libc import same_memory
from procvm._linux.proc_maps import VmaEntry, VmaRange, entry_at
from procvm._linux.shared import map_page
from procvm._local import atomics, buffers
from procvm._local.buffers import Scratch
from procvm.errors import Hint, SharedMemoryError

if TYPE_CHECKING:
    from procvm._live.memory import ProcessMemory

__all__ = [
    "Atomic",
    "Holder",
    "on_shared",
    "require_no_peer",
    "under_hold",
    "vma_of_atomic",
]

_WORDS = {4: ctypes.c_uint32, 8: ctypes.c_uint64}


class Atomic(NamedTuple):
    """One atomic operation.

    Attributes:
        address: Where; aligned.
        size: 4 or 8 bytes.
        expected: The bytes that must be there for the exchange; None to load only.
        desired: The bytes to store if they are.
    """

    address: int
    size: int
    expected: bytes | None = None
    desired: bytes = b""

    @property
    def needs(self) -> int:
        """What the page must allow: an exchange that fails needs to write as well."""
        return READ if self.expected is None else READ | WRITE


class Holder(Protocol):
    """Who can hold the target still for an atomic."""

    def quick_atomic(self, what: Atomic, *, forced: bool) -> bytes | None:
        """Performs it if the target is held and nothing is in the way; None otherwise."""
        ...

    def atomic(self, memory: ProcessMemory, what: Atomic) -> bytes:
        """Performs it while no task of the target runs; returns what was there."""
        ...


V = TypeVar("V", VmaEntry, VmaRange)


def vma_of_atomic(memory: ProcessMemory, what: Atomic, ask: Callable[[int, int], V | None]) -> V:
    """Returns the mapping of the word, as `vma_at` or `entry_at` gives it.

    Raises:
        PageFaultError: The target's own instruction would fault there.
    """
    vma = memory.image.ask(lambda maps: ask(maps, what.address), "asking for a mapping")
    needs = 0 if memory.is_forced else what.needs
    if vma is None or vma.flags & needs != needs:
        raise memory.fault(what.address, "access atomically")
    return vma


def on_shared(memory: ProcessMemory, what: Atomic) -> bytes:
    """Performs an atomic on a shared mapping, by the processor on our own mapping of it.

    Raises:
        SharedMemoryError: The object behind it can not be mapped here.
    """
    pid = memory.image.pid
    if memory.is_forced:
        raise SharedMemoryError(
            f"cannot access the memory at {what.address:#x} of process {pid} atomically: it is "
            "shared, and the protections of shared memory cannot be ignored",
            hint=Hint("unforced"),
        )
    entry = vma_of_atomic(memory, what, entry_at)
    page = map_page(pid, entry, what.address, writable=what.expected is not None)
    # Opened by a path, so look again: it may have been another mapping's by then.
    if vma_of_atomic(memory, what, entry_at) != entry:
        raise memory.fault(what.address, "access atomically")
    address = page.address + what.address % PAGE_SIZE
    if what.expected is None:
        # SAFETY: `page` keeps the mapping; an aligned load is atomic.
        found = buffers.load(_WORDS[what.size], address)
    else:
        expected, desired = (
            int.from_bytes(b, sys.byteorder) for b in (what.expected, what.desired)
        )
        # SAFETY: `page` keeps the mapping, which is writable; the word is aligned.
        found = atomics.compare_exchange(address, what.size, expected, desired)
    return int(found).to_bytes(what.size, sys.byteorder)


def under_hold(memory: ProcessMemory, what: Atomic) -> bytes:
    """Performs an atomic on private memory while every task of the target is stopped.

    It writes exactly the word, and also where the exchange fails (what was
    there), as the processor does: so it faults where the target's own
    instruction would.
    """
    scratch = Scratch(what.size)
    memory.read(what.address, scratch.address, what.size)
    found = bytes(scratch.view)
    if what.expected is not None:
        if found == what.expected:
            scratch.view[:] = what.desired
        memory.write(what.address, scratch.address, what.size)
    return found


def require_no_peer(pid: int, *, everyone: bool = False) -> None:
    """Raises SharedMemoryError if another process runs in the same address space.

    One made by vfork is none: its parent can not be held meanwhile.

    Args:
        pid: The process.
        everyone: Whether to ask of every process there is, not of its parent
            and its children alone: one that was handed on to another parent.
    """
    stat = procfs.read_stat(pid)
    if stat is None:
        return  # it is gone, which the atomic itself finds out
    tids = (pid, *procfs.thread_ids(pid))
    if everyone:
        others = procfs.pids()
    else:
        parent = int(stat[3])
        others = [*([parent] if parent else []), *procfs.children(pid, tids)]
    # A leader that has ended has no memory to compare, as has a kernel thread.
    task = procfs.task_with_memory(pid)
    for other in others:
        if other != pid and same_memory(task, other) and procfs.task_has_memory(other):
            raise SharedMemoryError(
                f"process {other} runs in the address space of process {pid} (CLONE_VM): holding "
                "one does not keep the other from writing"
            )
