"""The interfaces of objects of memory: `VmIo`, `VmIoFill`, `VmIoOnce`.

A class with `reader()` and `writer()` inherits `HasVmReaderWriter` and gets all three. A class
with only `read` and `write` inherits `VmIo` and gets the rest of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, TypeVar, overload

from procvm._base.address import as_len, check_range
from procvm._base.pods import C, Pod, PodLike, PodOnce, once_pod, pod_of
from procvm._local.buffers import Buffer
from procvm._mm.cursor import require_reader, require_writer
from procvm._mm.reader import VmReader
from procvm._mm.writer import VmWriter
from procvm.errors import InvalidArgsError, ProcvmError, VmError

__all__ = ["HasVmReaderWriter", "VmIo", "VmIoFill", "VmIoOnce"]

T = TypeVar("T")


class VmIo(ABC):
    """Reads and writes at an offset: all of it, or an error.

    Bytes are in the order of the object's memory, offsets and lengths in bytes.
    Several threads may use one object; an access is not atomic.

    Source:
        OSTD ``VmIo``.
    """

    @abstractmethod
    def read(self, offset: int, writer: VmWriter[Any]) -> None:
        """Fills all of `writer` from `offset` on.

        Raises:
            InvalidArgsError: The range does not fit; nothing was touched.
            AddressOverflowError: `offset + writer.avail()` passes 2^64.
            PageFaultError: `copied_len` bytes did arrive, `writer` is
                after them.
        """

    @abstractmethod
    def write(self, offset: int, reader: VmReader[Any]) -> None:
        """Writes all of `reader` from `offset` on.

        Raises:
            InvalidArgsError: The range does not fit; nothing was touched.
            AddressOverflowError: `offset + reader.remain()` passes 2^64.
            PageFaultError: `copied_len` bytes were written, `reader` is
                after them.
        """

    def read_bytes(self, offset: int, n: int) -> bytes:
        """Returns the `n` bytes at `offset`, without a second copy.

        Raises:
            PageFaultError: `copied_len` bytes could be read; they are dropped
                (use `read_into` to keep them).
        """
        # A subclass defines `read`. Without zeroing, bytes that it leaves out would show our
        # freed memory; without the copy, a writer that it keeps could change the result.
        offset, n = check_range(offset, n, "offset")
        try:
            data = bytearray(n)
            self.read_into(offset, data)
            return bytes(data)
        except (MemoryError, OverflowError) as error:
            if isinstance(error, ProcvmError):
                raise
            raise InvalidArgsError(
                f"{n} bytes do not fit this process's memory; read them in parts"
            ) from None

    def read_into(self, offset: int, buf: Buffer) -> None:
        """Fills the caller's writable buffer from `offset` on.

        Raises:
            PageFaultError: The first `copied_len` bytes of `buf` did arrive; the
                rest of it is as it was.
            TypeError: Not a writable, C-contiguous buffer.
        """
        writer = VmWriter.from_buffer(buf)
        end = writer.cursor() + writer.avail()
        self.read(offset, writer)
        if writer.cursor() != end:
            raise VmError(
                f"the {type(self).__name__} left out {end - writer.cursor()} bytes of a read"
            )

    def write_bytes(self, offset: int, data: Buffer) -> None:
        """Writes all bytes of `data` at `offset`.

        Raises:
            PageFaultError: `copied_len` bytes were written.
            TypeError: Not a C-contiguous buffer.
        """
        reader = VmReader.from_buffer(data)
        self.write(offset, reader)
        if reader.has_remain():
            raise VmError(f"the {type(self).__name__} left out {reader.remain()} bytes of a write")

    @overload
    def read_val(self, offset: int, pod: Pod[T]) -> T: ...
    @overload
    def read_val(self, offset: int, pod: type[C]) -> C: ...
    def read_val(self, offset: int, pod: PodLike[Any]) -> Any:
        """Returns the value at `offset`, which needs no alignment.

        Raises:
            PageFaultError: The value could not be read whole.
            TypeError: `pod` is not plain data.
        """
        plain = pod_of(pod)
        return plain.from_bytes(self.read_bytes(offset, plain.size))

    @overload
    def write_val(self, offset: int, pod: Pod[T], value: T) -> None: ...
    @overload
    def write_val(self, offset: int, pod: type[C], value: C) -> None: ...
    def write_val(self, offset: int, pod: PodLike[Any], value: Any) -> None:
        """Writes one value at `offset`, which needs no alignment.

        Raises:
            PageFaultError: `copied_len` bytes of the value were written.
            OverflowError: The number does not fit the pod; nothing was written.
        """
        self.write_bytes(offset, pod_of(pod).to_bytes(value))

    @overload
    def read_slice(self, offset: int, pod: Pod[T], n: int) -> list[T]: ...
    @overload
    def read_slice(self, offset: int, pod: type[C], n: int) -> list[C]: ...
    def read_slice(self, offset: int, pod: PodLike[Any], n: int) -> list[Any]:
        """Returns `n` consecutive values at `offset`.

        Raises:
            PageFaultError: `copied_len` bytes could be read; they are dropped.
        """
        plain = pod_of(pod)
        n = as_len(n)
        return plain.slice_from_bytes(self.read_bytes(offset, n * plain.size), n)

    @overload
    def write_slice(self, offset: int, pod: Pod[T], values: Iterable[T]) -> None: ...
    @overload
    def write_slice(self, offset: int, pod: type[C], values: Iterable[C]) -> None: ...
    def write_slice(self, offset: int, pod: PodLike[Any], values: Iterable[Any]) -> None:
        """Writes consecutive values at `offset`.

        Raises:
            PageFaultError: `copied_len` bytes were written.
            OverflowError: A number does not fit the pod; nothing was written.
        """
        self.write_bytes(offset, pod_of(pod).slice_to_bytes(list(values)))


class VmIoFill(ABC):
    """Fills with zeros.

    Source:
        OSTD ``VmIoFill``.
    """

    @abstractmethod
    def fill_zeros(self, offset: int, n: int) -> None:
        """Writes `n` zeros from `offset` on; unlike `VmIo`, short is possible.

        Raises:
            InvalidArgsError: The range leaves the object; `copied_len` zeros were
                written.
            PageFaultError: `copied_len` zeros were written.
        """


class VmIoOnce(ABC):
    """Moves a value with one load or store of exactly its width.

    Source:
        OSTD ``VmIoOnce``.
    """

    @abstractmethod
    def read_once(self, offset: int, pod: PodOnce[T]) -> T:
        """Loads one value.

        Raises:
            InvalidArgsError: The value leaves the object.
            ValueError: `offset` is not aligned for the value.
        """

    @abstractmethod
    def write_once(self, offset: int, pod: PodOnce[T], value: T) -> None:
        """Stores one value.

        Raises:
            InvalidArgsError: The value leaves the object.
            ValueError: `offset` is not aligned for the value.
            OverflowError: The number does not fit the pod; nothing was written.
        """


def _does_not_fit(offset: int, n: int, size: int, copied_len: int = 0) -> InvalidArgsError:
    return InvalidArgsError(
        f"{n} bytes at offset {offset:#x} do not fit an object of {size} bytes",
        copied_len=copied_len,
    )


class HasVmReaderWriter(VmIo, VmIoFill, VmIoOnce):
    """An object with a reader and a writer of all of itself.

    Source:
        OSTD ``HasVmReaderWriter``.
    """

    @abstractmethod
    def reader(self) -> VmReader[Any]:
        """Returns a reader of the whole object."""

    @abstractmethod
    def writer(self) -> VmWriter[Any]:
        """Returns a writer of the whole object."""

    def _reader_at(self, offset: int, n: int) -> VmReader[Any]:
        offset, n = check_range(offset, n, "offset")
        reader = self.reader()
        if offset + n > reader.remain():
            raise _does_not_fit(offset, n, reader.remain())
        return reader.skip(offset)

    def _writer_at(self, offset: int, n: int) -> VmWriter[Any]:
        offset, n = check_range(offset, n, "offset")
        writer = self.writer()
        if offset + n > writer.avail():
            raise _does_not_fit(offset, n, writer.avail())
        return writer.skip(offset)

    def read(self, offset: int, writer: VmWriter[Any]) -> None:
        """Fills all of `writer` from `offset` on; see `VmIo.read`."""
        require_writer(writer, "read", "read_bytes(offset, n) or read_into(offset, buffer)")
        self._reader_at(offset, writer.avail()).copy_to(writer)

    def write(self, offset: int, reader: VmReader[Any]) -> None:
        """Writes all of `reader` from `offset` on; see `VmIo.write`."""
        require_reader(reader, "write", "write_bytes(offset, data)")
        reader.copy_to(self._writer_at(offset, reader.remain()))

    def read_bytes(self, offset: int, n: int) -> bytes:
        """Returns the `n` bytes at `offset`; see `VmIo.read_bytes`."""
        return self._reader_at(offset, n).read_bytes(n)

    @overload
    def read_val(self, offset: int, pod: Pod[T]) -> T: ...
    @overload
    def read_val(self, offset: int, pod: type[C]) -> C: ...
    def read_val(self, offset: int, pod: PodLike[Any]) -> Any:
        """Returns the value at `offset`; see `VmIo.read_val`."""
        plain = pod_of(pod)
        return self._reader_at(offset, plain.size).read_val(plain)

    @overload
    def write_val(self, offset: int, pod: Pod[T], value: T) -> None: ...
    @overload
    def write_val(self, offset: int, pod: type[C], value: C) -> None: ...
    def write_val(self, offset: int, pod: PodLike[Any], value: Any) -> None:
        """Writes one value at `offset`; see `VmIo.write_val`."""
        plain = pod_of(pod)
        self._writer_at(offset, plain.size).write_val(plain, value)

    def fill_zeros(self, offset: int, n: int) -> None:
        """Writes `n` zeros from `offset` on; see `VmIoFill.fill_zeros`."""
        offset, n = check_range(offset, n, "offset")
        writer = self._writer_at(offset, 0)
        filled_len = writer.fill_zeros(n)
        if filled_len < n:
            raise _does_not_fit(offset, n, offset + filled_len, filled_len)

    def read_once(self, offset: int, pod: PodOnce[T]) -> T:
        """Loads one value with a single load; see `VmIoOnce.read_once`."""
        return self._reader_at(offset, once_pod(pod).size).read_once(pod)

    def write_once(self, offset: int, pod: PodOnce[T], value: T) -> None:
        """Stores one value with a single store; see `VmIoOnce.write_once`."""
        self._writer_at(offset, once_pod(pod).size).write_once(pod, value)
