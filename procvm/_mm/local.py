"""The tool's own memory, as the cursors see it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar, cast, final

from procvm._base.pods import Pod, PodAtomic, PodOnce
from procvm._local import atomics, buffers
from procvm._local.buffers import Buffer
from procvm._mm.memory import Memory
from procvm.errors import InvalidArgsError

__all__ = ["OwnMemory"]

T = TypeVar("T")

_DOMAIN = object()


@final
class OwnMemory(Memory):
    """A run of bytes of the tool's own process; its accesses do not fault.

    The cursor that uses it has checked every range against the run.
    """

    __slots__ = ("_keep", "_view", "address", "bounds", "n", "writable")

    is_own = True

    def __init__(self, address: int, n: int, *, writable: bool, keep: object = None) -> None:
        if n > sys.maxsize:
            raise InvalidArgsError(f"{n} bytes at {address:#x} leave the address space")
        self.address = address
        self.n = n
        self.bounds = (address, n)
        self.writable = writable
        self._keep = keep
        self._view = buffers.view_of(address, n, writable=writable)

    @classmethod
    def of_buffer(cls, buf: Buffer, *, writable: bool) -> OwnMemory:
        """Returns the memory of a buffer, which is held in place meanwhile."""
        held = buffers.pin(buf, writable=writable)
        return cls(held.address, held.n, writable=writable, keep=held)

    @property
    def domain(self) -> object:
        """All memory of the tool is one domain."""
        return _DOMAIN

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies within our own memory; an overlap is as with memmove."""
        # SAFETY: both ranges were checked against live memory by their cursors.
        buffers.copy(own_address, address, n)

    def write(self, address: int, own_address: int, n: int) -> None:
        """Copies within our own memory; an overlap is as with memmove."""
        # SAFETY: both ranges were checked against live memory by their cursors.
        buffers.copy(address, own_address, n)

    def fill_zeros(self, address: int, n: int) -> None:
        """Sets `n` bytes to zero."""
        # SAFETY: the range was checked by the cursor; `_keep` keeps it alive.
        buffers.fill_zeros(address, n)

    def loader(self, pod: Pod[T]) -> Callable[[int], T]:
        """Returns a reader of one value, which needs no alignment."""
        view = self._view
        base = self.address
        if pod.packer is not None:
            unpack_from = pod.packer.unpack_from

            def load(address: int) -> T:
                value: T = unpack_from(view, address - base)[0]
                return value

            return load
        from_bytes = pod.from_bytes
        return lambda address: from_bytes(view, address - base)

    def storer(self, pod: Pod[T]) -> Callable[[int, T], None]:
        """Returns a writer of one value, which needs no alignment."""
        view = self._view
        base = self.address
        size = pod.size
        to_bytes = pod.to_bytes

        def store(address: int, value: T) -> None:
            # Assigning a slice is one copy. pack_into would clear the bytes
            # first, which a child that maps them too could see.
            data = to_bytes(value)
            at = address - base
            view[at : at + size] = data

        return store

    def load_once(self, address: int, pod: PodOnce[T]) -> T:
        """Loads one aligned value with a single machine load."""
        # SAFETY: the range was checked by the cursor; `_keep` keeps it alive.
        return cast("T", buffers.load(pod.ctype, address))

    def store_once(self, address: int, pod: PodOnce[T], value: T) -> None:
        """Stores one aligned value with a single machine store."""
        # ctypes would cut a number that does not fit; to_bytes refuses it.
        number = pod.from_bytes(pod.to_bytes(value))
        # SAFETY: the range was checked by the cursor; `_keep` keeps it alive.
        buffers.store(pod.ctype, address, number)

    def atomic_load(self, address: int, pod: PodAtomic[T]) -> T:
        """Loads one aligned value with a single machine load."""
        # SAFETY: as in load_once; an aligned load of the machine is atomic.
        return cast("T", buffers.load(pod.ctype, address))

    def atomic_compare_exchange(
        self, address: int, pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Compares and exchanges by the processor, atomic against every thread and process."""
        expected = int.from_bytes(pod.to_bytes(old), _BYTEORDER)
        desired = int.from_bytes(pod.to_bytes(new), _BYTEORDER)
        # SAFETY: the range was checked by the cursor, writable and aligned.
        found = atomics.compare_exchange(address, pod.size, expected, desired)
        current = pod.from_bytes(found.to_bytes(pod.size, _BYTEORDER))
        return current, found == expected


_BYTEORDER = sys.byteorder
