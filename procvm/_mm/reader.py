"""`VmReader`: reads from a contiguous range of memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final, overload

from procvm._base.address import as_len, check_range
from procvm._base.markers import F, Fallible, G, Infallible, Io
from procvm._base.pods import (
    C,
    Pod,
    PodAtomic,
    PodLike,
    PodOnce,
    atomic_pod,
    once_pod,
    pod_of,
    require_aligned,
)
from procvm._local.buffers import Buffer, Scratch, new_bytes
from procvm._local.pool import Pool
from procvm._mm.cursor import Cursor, require_writer
from procvm._mm.local import OwnMemory
from procvm.errors import InvalidArgsError

if TYPE_CHECKING:
    from procvm._mm.writer import VmWriter

__all__ = ["VmReader", "bytes_by"]

T = TypeVar("T")


class _UserSpace(Protocol):
    """The one method of `VmSpace` that `from_user_space` needs."""

    def reader(self, vaddr: int, n: int, /) -> VmReader[Fallible]: ...


_FEW = 1 << 13
_rooms = Pool(8, lambda: Scratch(_FEW))


def bytes_by(n: int, fill: Callable[[int], None]) -> bytes:
    """Returns `n` bytes that `fill(address)` wrote; a large result is not copied.

    Raises:
        InvalidArgsError: This process cannot allocate them.
    """
    if 0 < n <= _FEW:
        # A small copy costs less than asking the interpreter for an object to fill.
        room = _rooms.take()
        try:
            fill(room.address)
            return bytes(room.view[:n])
        finally:
            _rooms.leave(room)
    try:
        # More than the machine can count would reach the interpreter as a negative size.
        data, address = new_bytes(min(n, sys.maxsize))
    except (MemoryError, OverflowError):
        raise InvalidArgsError(
            f"{n} bytes do not fit this process's memory; read them in parts"
        ) from None
    if n:
        fill(address)
    return data


@final
class VmReader(Cursor[F]):
    """Reads from a contiguous range of memory, moving as it goes.

    Over a target (`VmReader[Fallible]`) any access may fault; over the tool's
    own memory (`VmReader[Infallible]`) none does. A reader belongs to one
    thread at a time; `clone` gives another thread its own.

    Source:
        OSTD ``VmReader``.
    """

    __slots__ = ()

    writes = False

    @staticmethod
    def from_buffer(buf: Buffer) -> VmReader[Infallible]:
        """Returns a reader of all bytes of `buf`, which is kept alive and in place.

        Raises:
            TypeError: Not a C-contiguous buffer.

        Source:
            OSTD ``impl From<&[u8]> for VmReader``.
        """
        memory = OwnMemory.of_buffer(buf, writable=False)
        return VmReader(memory, memory.address, memory.n, Infallible)

    @staticmethod
    def from_kernel_space(address: int, n: int) -> VmReader[Infallible]:
        """Returns a reader of `n` bytes of the tool's own memory.

        The caller vouches that they stay readable while the reader is used: a
        wrong address crashes the tool.

        Raises:
            AddressOverflowError: The range passes 2^64.

        Source:
            OSTD ``VmReader::from_kernel_space``.
        """
        address, n = check_range(address, n)
        return VmReader(OwnMemory(address, n, writable=False), address, n, Infallible)

    @staticmethod
    def from_user_space(space: _UserSpace, address: int, n: int) -> VmReader[Fallible]:
        """Returns a reader of `n` bytes of a target; the same as `space.reader`.

        Raises:
            AccessDeniedError: The range leaves user space.

        Source:
            OSTD ``VmReader::from_user_space``.
        """
        return space.reader(address, n)

    def remain(self) -> int:
        """Returns the number of bytes left to read."""
        return self._end - self._cursor

    def has_remain(self) -> bool:
        """Returns whether any byte is left to read."""
        return self._end > self._cursor

    def clone(self) -> VmReader[F]:
        """Returns a copy of the reader, which moves independently."""
        return VmReader(self._memory, self._cursor, self._end - self._cursor, self._marker)

    def to_fallible(self: VmReader[Infallible] | VmReader[Io]) -> VmReader[Fallible]:
        """Returns a reader of the same range with the marker `Fallible`.

        Raises:
            TypeError: It is fallible already.

        Source:
            OSTD ``VmReader::to_fallible``.
        """
        self._require("to_fallible", Infallible, Io)
        return VmReader(self._memory, self._cursor, self._end - self._cursor, Fallible)

    def read(self: VmReader[Infallible], writer: VmWriter[Infallible]) -> int:
        """Copies own memory to own memory, until one side is used up.

        Returns:
            Bytes copied, `min(self.remain(), writer.avail())` on entry.

        Raises:
            TypeError: One side is not Infallible; use `read_fallible`.

        Source:
            OSTD ``VmReader::read``.
        """
        self._require("read", Infallible)
        require_writer(writer, "read", "read_bytes(n)")
        writer._require("read", Infallible)
        return self.copy_to(writer)

    @overload
    def read_fallible(self: VmReader[Fallible], writer: VmWriter[G]) -> int: ...
    @overload
    def read_fallible(self, writer: VmWriter[Fallible]) -> int: ...
    def read_fallible(self, writer: VmWriter[Any]) -> int:
        """Copies into `writer` until one side is used up or an access faults.

        Both cursors move by the bytes copied, whether this returns or raises. A
        running target may change bytes meanwhile: the copy is not atomic.

        Returns:
            Bytes copied, `min(self.remain(), writer.avail())` on entry; may be 0.

        Raises:
            PageFaultError: `copied_len` bytes (maybe 0) did arrive; `address` is
                the first byte that could not be read or, if the fault is the
                writer's, written.
            ProcessExitedError: A target ended; `copied_len` bytes did arrive.
            ProcessExecedError: A target runs another program now.
            TypeError: Neither side is Fallible; use `read`.

        Source:
            OSTD ``FallibleVmRead::read_fallible``; process_vm_readv(2).
        """
        require_writer(writer, "read_fallible", "read_bytes(n)")
        if self._marker is not Fallible:
            writer._require("read_fallible with a reader of own memory", Fallible)
        return self.copy_to(writer)

    @overload
    def read_val(self, pod: Pod[T]) -> T: ...
    @overload
    def read_val(self, pod: type[C]) -> C: ...
    def read_val(self, pod: PodLike[Any]) -> Any:
        """Reads one value; it needs no alignment.

        Raises:
            InvalidArgsError: Less is left than the value's size.
            PageFaultError: The value could not be read whole; the cursor is
                where it was.
            TypeError: `pod` is not plain data.

        Source:
            OSTD ``VmReader::read_val``.
        """
        try:
            load, size = self._accesses[pod]
        except (KeyError, TypeError):
            load, size = self._prepare(pod)
        cursor = self._cursor
        after: int = cursor + size
        if after > self._end:
            self._require_left(size)
        value = load(cursor)
        self._cursor = after
        return value

    def _prepare(self, kind: PodLike[Any]) -> tuple[Callable[[int], Any], int]:
        pod = pod_of(kind)
        access = self._memory.loader(pod), pod.size
        self._accesses[kind] = access
        return access

    def read_once(self: VmReader[Infallible] | VmReader[Io], pod: PodOnce[T]) -> T:
        """Reads one value with a single load of exactly its width.

        Raises:
            InvalidArgsError: Less is left than the value's size.
            ValueError: The cursor is not aligned for the value.
            TypeError: Fallible memory, or a type that one load cannot move.

        Source:
            OSTD ``VmReader::read_once``.
        """
        self._require("read_once", Infallible, Io)
        pod = once_pod(pod)
        self._require_left(pod.size)
        require_aligned(self._cursor, pod)
        value = self._memory.load_once(self._cursor, pod)
        self._cursor += pod.size
        return value

    def atomic_load(self: VmReader[Fallible], pod: PodAtomic[T]) -> T:
        """Loads one value atomically; the cursor never moves.

        On own memory (`to_fallible`) it is one load of the processor.

        Raises:
            InvalidArgsError: Less is left than the value's size.
            ValueError: The cursor is not aligned for the value.
            PageFaultError: The value could not be read.
            NotTracedError: A target opened without tracing.
            TypeError: Infallible memory, or a type without atomics.

        Source:
            OSTD ``VmReader::atomic_load``.
        """
        self._require("atomic_load", Fallible)
        pod = atomic_pod(pod)
        self._require_left(pod.size)
        require_aligned(self._cursor, pod)
        return self._memory.atomic_load(self._cursor, pod)

    def read_bytes(self, n: int) -> bytes:
        """Reads exactly `n` bytes, without a second copy.

        Raises:
            InvalidArgsError: Less than `n` bytes are left.
            PageFaultError: `copied_len` of them could be read; they are dropped
                and the cursor is where it was.
        """
        n = as_len(n)
        self._require_left(n)
        data = bytes_by(n, lambda address: self._read_to(address, n))
        self._cursor += n
        return data

    def _read_to(self, own_address: int, n: int) -> None:
        # SAFETY: bytes_by keeps the `n` bytes at `own_address` alive meanwhile.
        self._memory.read_scratch(self._cursor, own_address, n)

    @overload
    def read_slice(self, pod: Pod[T], n: int) -> list[T]: ...
    @overload
    def read_slice(self, pod: type[C], n: int) -> list[C]: ...
    def read_slice(self, pod: PodLike[Any], n: int) -> list[Any]:
        """Reads `n` consecutive values.

        Raises:
            InvalidArgsError: Less is left than `n` values take.
            PageFaultError: `copied_len` bytes could be read; they are dropped
                and the cursor is where it was.
        """
        plain = pod_of(pod)
        return plain.slice_from_bytes(self.read_bytes(as_len(n) * plain.size), as_len(n))
