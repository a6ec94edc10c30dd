"""Atomics on a target: by the processor in shared memory, in a hold in private memory."""

from __future__ import annotations

import ctypes
import sys
from typing import NamedTuple, Protocol, TypeVar

from procvm._base.address import PAGE_SIZE
from procvm._base.perms import READ, WRITE
from procvm._linux.proc_maps import VmaEntry, VmaRange
from procvm._linux.shared import map_page
from procvm._live.faults import page_fault
from procvm._live.image import Image
from procvm._local import atomics, buffers
from procvm._local.buffers import Buffer, Scratch
from procvm._mm.memory import UserMemory
from procvm.errors import Hint, ProcvmError, SharedMemoryError

__all__ = [
    "Atomic",
    "Holder",
    "atomic_fault",
    "on_shared",
    "under_hold",
    "vma_of_atomic",
]

_WORDS = {4: ctypes.c_uint32, 8: ctypes.c_uint64}


class Atomic(NamedTuple):
    """One atomic operation.

    Attributes:
        address: The address of the word; aligned to its size.
        size: 4 or 8 bytes.
        expected: The bytes that the word must have for the exchange; None for a load.
        desired: The bytes that the exchange stores.
    """

    address: int
    size: int
    expected: bytes | None = None
    desired: bytes = b""

    @property
    def needs(self) -> int:
        """The permissions that the mapping must have: an exchange that fails writes as well."""
        return READ if self.expected is None else READ | WRITE


class Holder(Protocol):
    """Holds the target for an atomic on its private memory."""

    def quick_atomic(self, what: Atomic, *, forced: bool) -> bytes | None:
        """Performs an atomic if the target is held already; returns None if it cannot."""
        ...

    def atomic(self, memory: UserMemory, what: Atomic) -> bytes:
        """Performs an atomic while no thread of the target runs; returns the bytes before it."""
        ...

    def write_ranges(self, ranges: Buffer, data: Buffer) -> int:
        """Writes consecutive bytes to ranges, as far as the pages allow, if the target is held.

        Args:
            ranges: The address and the length of each, as words; at most 1,024.
            data: The bytes, at most 80 KiB.

        Returns:
            How many bytes were written; -1 if this cannot be used, or its outcome is not known.
        """
        ...


V = TypeVar("V", VmaEntry, VmaRange)


def vma_of_atomic(image: Image, what: Atomic, *, forced: bool) -> VmaRange:
    """Returns the range and the permissions of the word's mapping.

    Raises:
        PageFaultError: The target's own instruction would fault there.
    """
    return _allowed(image, image.vma_at(what.address), what, forced=forced)


def _allowed(image: Image, vma: V | None, what: Atomic, *, forced: bool) -> V:
    needs = 0 if forced else what.needs
    if vma is None or vma.flags & needs != needs:
        raise atomic_fault(image, what, forced=forced)
    return vma


def atomic_fault(image: Image, what: Atomic, *, forced: bool) -> ProcvmError:
    """Returns the error for a word that cannot be accessed; see `page_fault`."""
    return page_fault(image, what.address, "access atomically", forced=forced)


def on_shared(image: Image, what: Atomic, *, forced: bool) -> bytes:
    """Performs an atomic on shared memory by the processor, in a mapping of the tool's own.

    Returns:
        The bytes of the word before it.

    Raises:
        SharedMemoryError: The object of the mapping cannot be mapped by the tool, or page
            protections are to be ignored.
        PageFaultError: The target's own instruction would fault there.
    """
    if forced:
        raise SharedMemoryError(
            f"cannot access the memory at {what.address:#x} of process {image.pid} atomically: it "
            "is shared, and the protections of shared memory cannot be ignored",
            hint=Hint("unforced"),
        )
    entry = _allowed(image, image.entry_at(what.address), what, forced=False)
    page = map_page(image.pid, entry, what.address, writable=what.expected is not None)
    # `map_page` opened the object by a path, which may have led to another one by then.
    if image.entry_at(what.address) != entry:
        raise atomic_fault(image, what, forced=False)
    address = page.address + what.address % PAGE_SIZE
    if what.expected is None:
        # SAFETY: `page` keeps the mapping, and an aligned load is atomic.
        found = buffers.load(_WORDS[what.size], address)
    else:
        expected, desired = (
            int.from_bytes(b, sys.byteorder) for b in (what.expected, what.desired)
        )
        # SAFETY: `page` keeps the mapping, which is writable, and the word is aligned.
        found = atomics.compare_exchange(address, what.size, expected, desired)
    return int(found).to_bytes(what.size, sys.byteorder)


def under_hold(memory: UserMemory, what: Atomic) -> bytes:
    """Performs an atomic on private memory while every thread of the target is stopped.

    It writes exactly the word. Where the exchange fails it writes the bytes that were there, as
    the processor does, so that it faults where the target's own instruction would.
    """
    scratch = Scratch(what.size)
    memory.read(what.address, scratch.address, what.size)
    found = bytes(scratch.view)
    if what.expected is not None:
        if found == what.expected:
            scratch.view[:] = what.desired
        memory.write(what.address, scratch.address, what.size)
    return found
