"""`Access`: bytes, values and strings at the addresses of a target."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from procvm._base.address import as_address, as_int, as_len, check_range, page_end
from procvm._base.markers import Fallible
from procvm._base.pods import (
    C,
    Pod,
    PodAtomic,
    PodLike,
    PodOnceAtomic,
    atomic_pod,
    pod_of,
    require_aligned,
    u32,
    u64,
)
from procvm._local.buffers import Buffer, address_of, refuse_pointers, writable_cell
from procvm._mm.cursor import require_reader, require_writer
from procvm._mm.io import VmIo, VmIoFill
from procvm._mm.local import OwnMemory
from procvm._mm.memory import UserMemory
from procvm._mm.reader import VmReader, bytes_by
from procvm._mm.writer import VmWriter
from procvm._space.stream import read_by_threads
from procvm.errors import (
    AccessDeniedError,
    AddressOverflowError,
    Hint,
    InvalidArgsError,
    PageFaultError,
    ProcvmError,
)

__all__ = ["Access"]

T = TypeVar("T")


class _Prepared(threading.local):
    """Prepared accesses by pod, each with the last address that the pod fits at.

    Their scratch memory serves one thread only.
    """

    def __init__(self) -> None:
        self.loads: dict[Any, tuple[Callable[[int], Any], int]] = {}
        self.stores: dict[Any, tuple[Callable[[int, Any], None], int]] = {}


class Access(VmIo, VmIoFill):
    """Reads and writes the memory of a target; an offset is an address of the target."""

    def __init__(self, memory: UserMemory) -> None:
        if not isinstance(cast("object", memory), UserMemory):
            raise TypeError(
                f"a VmSpace is the vm of procvm.open(pid), not made of a {type(memory).__name__}"
            )
        self._memory = memory
        self._end = memory.end
        self._is_forced = memory.is_forced
        self._prepared = _Prepared()

    @property
    def memory(self) -> UserMemory:
        """The memory that the accesses go to."""
        return self._memory

    @property
    def end(self) -> int:
        """One past the last address of user space."""
        return self._end

    @property
    def address_size(self) -> int:
        """The size of the target's pointers in bytes: 4 for a 32-bit program, else 8."""
        return self._memory.address_size

    def _check(self, vaddr: object, n: object) -> tuple[int, int]:
        if type(vaddr) is int and type(n) is int and 0 <= vaddr <= vaddr + n <= self._end:
            return vaddr, n
        start, length = check_range(vaddr, n)
        # An access of 0 bytes touches nothing, so it is allowed at any address.
        return (start, length) if length == 0 else self._in_user_space(start, length)

    def _in_user_space(self, start: int, length: int) -> tuple[int, int]:
        if start + length > self._end:
            raise AccessDeniedError(
                f"[{start:#x}, {start + length:#x}) leaves user space, which ends at "
                f"{self._end:#x}; give a range below it",
                errno=14,
            )
        return start, length

    def reader(self, vaddr: int, n: int) -> VmReader[Fallible]:
        """Returns a reader of `n` bytes at `vaddr`; nothing is read yet.

        Raises:
            AccessDeniedError: The range leaves user space.

        Source:
            OSTD ``VmSpace::reader``.
        """
        if not (type(vaddr) is int and type(n) is int and 0 <= vaddr <= vaddr + n <= self._end):
            vaddr, n = self._in_user_space(*check_range(vaddr, n))
        return VmReader(self._memory, vaddr, n, Fallible)

    def writer(self, vaddr: int, n: int) -> VmWriter[Fallible]:
        """Returns a writer of `n` bytes at `vaddr`; nothing is written yet.

        Raises:
            AccessDeniedError: The range leaves user space.

        Source:
            OSTD ``VmSpace::writer``.
        """
        if not (type(vaddr) is int and type(n) is int and 0 <= vaddr <= vaddr + n <= self._end):
            vaddr, n = self._in_user_space(*check_range(vaddr, n))
        return VmWriter(self._memory, vaddr, n, Fallible)

    def reader_writer(self, vaddr: int, n: int) -> tuple[VmReader[Fallible], VmWriter[Fallible]]:
        """Returns a reader and a writer of the same range, as atomics take them.

        Raises:
            AccessDeniedError: The range leaves user space.

        Source:
            OSTD ``VmSpace::reader_writer``.
        """
        return self.reader(vaddr, n), self.writer(vaddr, n)

    def read(self, offset: int, writer: VmWriter[Any]) -> None:
        """Fills all of `writer` from the target; see `VmIo.read`."""
        require_writer(writer, "read", "read_bytes(address, n) or read_into(address, buffer)")
        self.reader(offset, writer.avail()).copy_to(writer)

    def write(self, offset: int, reader: VmReader[Any]) -> None:
        """Writes all of `reader` to the target; see `VmIo.write`."""
        require_reader(reader, "write", "write_bytes(address, data)")
        reader.copy_to(self.writer(offset, reader.remain()))

    def read_bytes(self, offset: int, n: int, *, threads: int = 1) -> bytes:
        """Returns the `n` bytes at an address; see `VmIo.read_bytes`.

        Args:
            offset: The address.
            n: The number of bytes.
            threads: How many threads read; more than one helps for many megabytes on
                several CPUs.
        """
        offset, n = self._check(offset, n)
        # SAFETY: bytes_by keeps the `n` bytes at `address` alive meanwhile.
        if threads == 1:
            return bytes_by(n, lambda address: self._memory.read_scratch(offset, address, n))
        return bytes_by(n, lambda address: self._read(offset, address, n, threads))

    def _read(self, offset: int, own_address: int, n: int, threads: int) -> None:
        read_by_threads(self._memory, offset, own_address, n, as_len(threads, "threads"))

    def read_into(self, offset: int, buf: Buffer, *, threads: int = 1) -> None:
        """Fills the caller's buffer from the target; see `VmIo.read_into`.

        Args:
            offset: The address.
            buf: A writable buffer. After a page fault its first `copied_len` bytes are the
                target's; with several threads later bytes may be the target's too.
            threads: As in `read_bytes`.
        """
        if type(buf) is bytearray:
            n = len(buf)
        else:
            view = memoryview(buf)
            refuse_pointers(view)
            n = view.nbytes
        if type(offset) is not int or not 0 <= offset <= self._end - n:
            offset, n = self._check(offset, n)
        if n:
            done = 0
            if self._is_forced and threads == 1:
                done = self._memory.read_buffer(offset, buf, n)
                if done == n:
                    return
            # Keeps the buffer at its address, and refuses one that cannot be written.
            cell = writable_cell(buf)
            # SAFETY: `cell` lies at the first of the buffer's `n` bytes and keeps them
            # alive until the read is done.
            if done:
                _read_rest(self._memory, offset, address_of(cell), n, done)
            elif threads == 1:
                self._memory.read(offset, address_of(cell), n)
            else:
                self._read(offset, address_of(cell), n, threads)

    def write_bytes(self, offset: int, data: Buffer) -> None:
        """Writes all bytes of `data` to the target; see `VmIo.write_bytes`."""
        source = OwnMemory.of_buffer(data, writable=False)
        offset, n = self._check(offset, source.n)
        if n:
            self._memory.write(offset, source.address, n)

    @overload
    def read_val(self, offset: int, pod: Pod[T]) -> T: ...
    @overload
    def read_val(self, offset: int, pod: type[C]) -> C: ...
    def read_val(self, offset: int, pod: PodLike[Any]) -> Any:
        """Returns the value at an address; see `VmIo.read_val`."""
        loads = self._prepared.loads
        try:
            load, last = loads[pod]
        except (KeyError, TypeError):
            plain = pod_of(pod)
            load, last = loads[pod] = self._memory.loader(plain), self._end - plain.size
        if type(offset) is not int or not 0 <= offset <= last:
            offset, _ = self._check(offset, self._end - last)
        return load(offset)

    @overload
    def write_val(self, offset: int, pod: Pod[T], value: T) -> None: ...
    @overload
    def write_val(self, offset: int, pod: type[C], value: C) -> None: ...
    def write_val(self, offset: int, pod: PodLike[Any], value: Any) -> None:
        """Writes one value at an address; see `VmIo.write_val`."""
        stores = self._prepared.stores
        try:
            store, last = stores[pod]
        except (KeyError, TypeError):
            plain = pod_of(pod)
            store, last = stores[pod] = self._memory.storer(plain), self._end - plain.size
        if type(offset) is not int or not 0 <= offset <= last:
            offset, _ = self._check(offset, self._end - last)
        store(offset, value)

    def fill_zeros(self, offset: int, n: int) -> None:
        """Writes `n` zeros to the target.

        Raises:
            AccessDeniedError: The range leaves user space; nothing was written.
            PageFaultError: `copied_len` zeros were written.
        """
        offset, n = self._check(offset, n)
        if n:
            self._memory.fill_zeros(offset, n)

    def read_cstring(self, vaddr: int, max_len: int = 4096) -> bytes:
        """Returns the bytes at `vaddr` up to the first NUL, without it.

        No page after the one that holds the NUL is read, so a string that ends just before
        an unmapped page is read whole.

        Args:
            vaddr: The address of the first byte.
            max_len: The most bytes to look at, the NUL included; 0 gives an empty string.

        Raises:
            InvalidArgsError: The first `max_len` bytes hold no NUL.
            PageFaultError: No NUL comes before the first byte that cannot be read, which is
                `address`; the `copied_len` bytes before it could be read.

        Source:
            The seed's kernel: ``read_cstring``.
        """
        vaddr, max_len = check_range(vaddr, max_len)
        parts: list[bytes] = []
        done = 0
        while done < max_len:
            at = vaddr + done
            n = min(page_end(at) - at, max_len - done)
            try:
                part = self.read_bytes(at, n)
            except ProcvmError as error:
                # The segment of a core file may end within a page, after the NUL.
                part = self.read_bytes(at, error.copied_len)
                if b"\0" not in part:
                    error.copied_len += done
                    raise
            end = part.find(b"\0")
            if end >= 0:
                parts.append(part[:end])
                return b"".join(parts)
            parts.append(part)
            done += n
        if max_len == 0:
            return b""
        raise InvalidArgsError(f"no NUL in the {max_len} bytes at {vaddr:#x}", hint=Hint("max_len"))

    def _word(self) -> PodOnceAtomic[int]:
        """Returns the pod of a pointer of the target."""
        return u32 if self.address_size == u32.size else u64

    def follow(self, base: int, *offsets: int) -> int:
        """Returns the address that a pointer path leads to.

        For each offset the pointer at the current address is read and the offset is added to
        it: ``follow(base, 0x10, 8)`` is ``*(*base + 0x10) + 8``, an address that was not read.
        Pointers are as wide as the target's.

        Args:
            base: The address of the first pointer.
            offsets: Bytes to add after each read; negative ones too.

        Raises:
            PageFaultError: A pointer could not be read; the message says which one.
            AccessDeniedError: A pointer leads out of user space and was to be followed.
            AddressOverflowError: A pointer plus its offset is not an address.
        """
        word = self._word()
        address = as_address(base, "base")
        steps = [as_int(offset, "offset") for offset in offsets]
        for k, offset in enumerate(steps):
            try:
                pointer = self.read_val(address, word)
            except PageFaultError as error:
                raise PageFaultError(
                    f"pointer {k + 1} of {len(steps)}, at {address:#x}: {error.message}",
                    address=error.address,
                    pid=error.pid,
                    errno=error.errno or 0,
                    hint=error.hint,
                ) from None
            if not 0 <= pointer + offset < 1 << 8 * word.size:
                raise AddressOverflowError(
                    f"pointer {k + 1} of {len(steps)}, {pointer:#x} at {address:#x}, plus "
                    f"{offset:#x} is not an address of {8 * word.size} bits"
                )
            address = pointer + offset
        return address

    def _atomic_at(self, vaddr: int, pod: PodAtomic[T]) -> int:
        size = atomic_pod(pod).size
        vaddr, _ = self._check(vaddr, size)
        if vaddr % size:
            require_aligned(vaddr, pod)
        return vaddr

    def atomic_load(self, vaddr: int, pod: PodAtomic[T]) -> T:
        """Loads one aligned value of the target atomically.

        Raises:
            ValueError: `vaddr` is not aligned for the value.
            NotTracedError: The target was opened without tracing.
        """
        return self._memory.atomic_load(self._atomic_at(vaddr, pod), pod)

    def atomic_compare_exchange(
        self, vaddr: int, pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Stores `new` if the value is `old`, as one atomic step.

        Returns:
            The value before, and whether `new` was stored.

        Raises:
            ValueError: `vaddr` is not aligned for the value.
            NotTracedError: The target was opened without tracing.
        """
        return self._memory.atomic_compare_exchange(self._atomic_at(vaddr, pod), pod, old, new)

    def atomic_fetch_update(self, vaddr: int, pod: PodAtomic[T], fn: Callable[[T], T]) -> T:
        """Replaces a value by `fn` of it, as one atomic step; returns the old value.

        `fn` may be called more than once.

        Raises:
            ValueError: `vaddr` is not aligned for the value.
            NotTracedError: The target was opened without tracing.
        """
        current = self.atomic_load(vaddr, pod)
        while True:
            found, stored = self.atomic_compare_exchange(vaddr, pod, current, fn(current))
            if stored:
                return found
            current = found


def _read_rest(memory: UserMemory, address: int, own_address: int, n: int, done: int) -> None:
    try:
        memory.read(address + done, own_address + done, n - done)
    except ProcvmError as error:
        error.copied_len += done
        raise
