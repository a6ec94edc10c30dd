"""`VmWriter`: writes to a contiguous range of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from procvm._local.buffers import Buffer, refuse_pointers
from procvm._mm.cursor import Cursor, require_reader
from procvm._mm.local import OwnMemory
from procvm.errors import ProcvmError

if TYPE_CHECKING:
    from procvm._mm.reader import VmReader

__all__ = ["VmWriter"]

T = TypeVar("T")


class _UserSpace(Protocol):
    """The one method of `VmSpace` that `from_user_space` needs."""

    def writer(self, vaddr: int, n: int, /) -> VmWriter[Fallible]: ...


@final
class VmWriter(Cursor[F]):
    """Writes to a contiguous range of memory, moving as it goes.

    Over a target (`VmWriter[Fallible]`) any access may fault; over the tool's
    own memory (`VmWriter[Infallible]`) none does. A writer belongs to one
    thread at a time.

    Source:
        OSTD ``VmWriter``.
    """

    __slots__ = ()

    writes = True

    @staticmethod
    def from_buffer(buf: Buffer) -> VmWriter[Infallible]:
        """Returns a writer of all bytes of `buf`, which is kept alive and in place.

        Raises:
            TypeError: Not a C-contiguous buffer, a read-only one, or one that holds
                objects or pointers of this process.

        Source:
            OSTD ``impl From<&mut [u8]> for VmWriter``.
        """
        refuse_pointers(memoryview(buf))
        memory = OwnMemory.of_buffer(buf, writable=True)
        return VmWriter(memory, memory.address, memory.n, Infallible)

    @staticmethod
    def from_kernel_space(address: int, n: int) -> VmWriter[Infallible]:
        """Returns a writer of `n` bytes of the tool's own memory.

        The caller vouches that they stay writable while the writer is used: a
        wrong address crashes the tool.

        Raises:
            AddressOverflowError: The range passes 2^64.

        Source:
            OSTD ``VmWriter::from_kernel_space``.
        """
        address, n = check_range(address, n)
        return VmWriter(OwnMemory(address, n, writable=True), address, n, Infallible)

    @staticmethod
    def from_user_space(space: _UserSpace, address: int, n: int) -> VmWriter[Fallible]:
        """Returns a writer of `n` bytes of a target; the same as `space.writer`.

        Raises:
            AccessDeniedError: The range leaves user space.

        Source:
            OSTD ``VmWriter::from_user_space``.
        """
        return space.writer(address, n)

    def avail(self) -> int:
        """Returns the number of bytes left to write."""
        return self._end - self._cursor

    def has_avail(self) -> bool:
        """Returns whether any byte is left to write."""
        return self._end > self._cursor

    def clone_exclusive(self) -> VmWriter[F]:
        """Returns a copy of the writer, which moves independently.

        Do not use this one until the other is done: both write the same bytes.

        Source:
            OSTD ``VmWriter::clone_exclusive``.
        """
        return VmWriter(self._memory, self._cursor, self._end - self._cursor, self._marker)

    def to_fallible(self: VmWriter[Infallible] | VmWriter[Io]) -> VmWriter[Fallible]:
        """Returns a writer of the same range with the marker `Fallible`.

        Raises:
            TypeError: It is fallible already.

        Source:
            OSTD ``VmWriter::to_fallible``.
        """
        self._require("to_fallible", Infallible, Io)
        return VmWriter(self._memory, self._cursor, self._end - self._cursor, Fallible)

    def write(self: VmWriter[Infallible], reader: VmReader[Infallible]) -> int:
        """Copies own memory to own memory, until one side is used up.

        Returns:
            Bytes copied, `min(self.avail(), reader.remain())` on entry.

        Raises:
            TypeError: One side is not Infallible; use `write_fallible`.

        Source:
            OSTD ``VmWriter::write``.
        """
        self._require("write", Infallible)
        require_reader(reader, "write", "write_bytes(data)")
        reader._require("write", Infallible)
        return reader.copy_to(self)

    @overload
    def write_fallible(self: VmWriter[Fallible], reader: VmReader[G]) -> int: ...
    @overload
    def write_fallible(self, reader: VmReader[Fallible]) -> int: ...
    def write_fallible(self, reader: VmReader[Any]) -> int:
        """Copies from `reader` until one side is used up or an access faults.

        Both cursors move by the bytes copied, whether this returns or raises.

        Returns:
            Bytes copied, `min(self.avail(), reader.remain())` on entry; may be 0.

        Raises:
            PageFaultError: `copied_len` bytes (maybe 0) were written; `address`
                is the first byte that could not be written or, if the fault is
                the reader's, read.
            ProcessExitedError: A target ended; `copied_len` bytes were written.
            ProcessExecedError: A target runs another program now, of which
                nothing was touched.
            TypeError: Neither side is Fallible; use `write`.

        Source:
            OSTD ``FallibleVmWrite::write_fallible``; proc_pid_mem(5).
        """
        require_reader(reader, "write_fallible", "write_bytes(data)")
        if self._marker is not Fallible:
            reader._require("write_fallible with a writer of own memory", Fallible)
        return reader.copy_to(self)

    @overload
    def write_val(self, pod: Pod[T], value: T) -> None: ...
    @overload
    def write_val(self, pod: type[C], value: C) -> None: ...
    def write_val(self, pod: PodLike[Any], value: Any) -> None:
        """Writes one value; it needs no alignment.

        Raises:
            InvalidArgsError: Less is left than the value's size.
            PageFaultError: `copied_len` bytes of the value were written; the
                cursor is where it was.
            OverflowError: The number does not fit the pod; nothing was written.
            TypeError: `pod` is not plain data, or `value` not one of it.

        Source:
            OSTD ``VmWriter::write_val``.
        """
        try:
            store, size = self._accesses[pod]
        except (KeyError, TypeError):
            store, size = self._prepare(pod)
        cursor = self._cursor
        after: int = cursor + size
        if after > self._end:
            self._require_left(size)
        store(cursor, value)
        self._cursor = after

    def _prepare(self, kind: PodLike[Any]) -> tuple[Callable[[int, Any], None], int]:
        pod = pod_of(kind)
        access = self._memory.storer(pod), pod.size
        self._accesses[kind] = access
        return access

    def write_once(self: VmWriter[Infallible] | VmWriter[Io], pod: PodOnce[T], value: T) -> None:
        """Writes one value with a single store of exactly its width.

        Raises:
            InvalidArgsError: Less is left than the value's size.
            ValueError: The cursor is not aligned for the value.
            OverflowError: The number does not fit the pod; nothing was written.
            TypeError: Fallible memory, or a type that one store cannot move.

        Source:
            OSTD ``VmWriter::write_once``.
        """
        self._require("write_once", Infallible, Io)
        pod = once_pod(pod)
        self._require_left(pod.size)
        require_aligned(self._cursor, pod)
        self._memory.store_once(self._cursor, pod, value)
        self._cursor += pod.size

    def fill_zeros(self, n: int) -> int:
        """Writes `n` zeros, or as many as there is room for.

        Returns:
            Zeros written, `min(n, self.avail())`.

        Raises:
            PageFaultError: `copied_len` zeros were written and the cursor
                is after them.

        Source:
            OSTD ``VmWriter::fill_zeros``.
        """
        n = min(as_len(n), self._end - self._cursor)
        if n == 0:
            return 0
        try:
            self._memory.fill_zeros(self._cursor, n)
        except ProcvmError as error:
            self._cursor += error.copied_len
            raise
        self._cursor += n
        return n

    def atomic_compare_exchange(
        self: VmWriter[Fallible], reader: VmReader[Fallible], pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Stores `new` if the value is `old`, as one atomic step; no cursor moves.

        `reader` is at the same address and shows that reading is allowed too.
        On own memory (`to_fallible`) it is one instruction of the processor,
        atomic against every process that maps the memory.

        Returns:
            What was there, and whether `new` was stored.

        Raises:
            InvalidArgsError: Less is left on a side than the value's size.
            ValueError: The two cursors are at different addresses, or not aligned.
            PageFaultError: The value could not be read and written.
            NotTracedError: A target opened without tracing.
            UnsupportedError: This machine has no atomics for own memory.
            TypeError: Infallible memory, or a type without atomics.

        Source:
            OSTD ``VmWriter::atomic_compare_exchange``.
        """
        self._require("atomic_compare_exchange", Fallible)
        require_reader(reader, "atomic_compare_exchange")
        reader._require("atomic_compare_exchange", Fallible)
        pod = atomic_pod(pod)
        self._require_left(pod.size)
        reader._require_left(pod.size)
        if reader.cursor() != self._cursor or reader._memory.domain is not self._memory.domain:
            raise ValueError(
                f"the reader at {reader.cursor():#x} and the writer at {self._cursor:#x} "
                "are not at the same address"
            )
        require_aligned(self._cursor, pod)
        return self._memory.atomic_compare_exchange(self._cursor, pod, old, new)

    def write_bytes(self, data: Buffer) -> None:
        """Writes all bytes of `data`.

        Raises:
            InvalidArgsError: There is less room than `data` has bytes.
            PageFaultError: `copied_len` bytes were written; the cursor is where
                it was.
            TypeError: `data` is not a C-contiguous buffer.
        """
        source = OwnMemory.of_buffer(data, writable=False)
        self._require_left(source.n)
        if source.n:
            self._memory.write(self._cursor, source.address, source.n)
            self._cursor += source.n

    @overload
    def write_slice(self, pod: Pod[T], values: Iterable[T]) -> None: ...
    @overload
    def write_slice(self, pod: type[C], values: Iterable[C]) -> None: ...
    def write_slice(self, pod: PodLike[Any], values: Iterable[Any]) -> None:
        """Writes consecutive values.

        Raises:
            InvalidArgsError: There is less room than they take.
            PageFaultError: `copied_len` bytes were written; the cursor is where
                it was.
            OverflowError: A number does not fit the pod; nothing was written.
        """
        self.write_bytes(pod_of(pod).slice_to_bytes(list(values)))
