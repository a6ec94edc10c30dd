"""`IoMem`: a device's registers, each access exactly as wide as asked for."""

from __future__ import annotations

import mmap
import os
import stat
from array import array
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast, final

from procvm._base.address import PAGE_SIZE, check_range
from procvm._base.closing import Closing
from procvm._base.fd import Fd
from procvm._base.markers import Io
from procvm._base.pods import Pod, PodOnce
from procvm._local import buffers
from procvm._mm.io import HasVmReaderWriter
from procvm._mm.memory import Memory
from procvm._mm.reader import VmReader
from procvm._mm.writer import VmWriter
from procvm.errors import ClosedError, InvalidArgsError

__all__ = ["IoMem"]

T = TypeVar("T")

_WORD = 8


def _runs(address: int, n: int) -> Iterator[tuple[int, int, int]]:
    """Cuts a range into (address, width, count): bytes to a word, words, bytes."""
    head = min(n, -address % _WORD)
    words, tail = divmod(n - head, _WORD)
    if head:
        yield address, 1, head
    if words:
        yield address + head, _WORD, words
    if tail:
        yield address + n - tail, 1, tail


_CODES = {1: "B", _WORD: "Q"}


@final
class _IoMemory(Memory):
    """A mapped device file: each access is made once, in exactly its width.

    memmove may read a byte twice or in any width, which a device would notice:
    here all goes through views of one element width, which load and store
    element by element.
    """

    __slots__ = ("_held", "_view", "bounds")

    def __init__(self, pages: mmap.mmap) -> None:
        self._held = buffers.pin(pages, writable=True)
        self._view = memoryview(pages)
        self.bounds = (self._held.address, self._held.n)

    @property
    def address(self) -> int:
        return self._held.address

    @property
    def domain(self) -> object:
        return self

    def _elements(self, address: int, width: int, count: int) -> Any:
        at = address - self._held.address
        return cast("Any", self._view)[at : at + width * count].cast(_CODES[width])

    def read(self, address: int, own_address: int, n: int) -> None:
        done = 0
        for start, width, count in _runs(address, n):
            values = self._elements(start, width, count).tolist()
            data = array(_CODES[width], values).tobytes()
            # SAFETY: `data` lives until the copy is done; the caller's own
            # range has room for `n` bytes.
            buffers.copy(own_address + done, data, len(data))
            done += len(data)

    def write(self, address: int, own_address: int, n: int) -> None:
        done = 0
        for start, width, count in _runs(address, n):
            elements = self._elements(start, width, count)
            # SAFETY: the caller's own range holds `n` bytes and outlives this.
            source: Any = buffers.view_of(own_address + done, width * count, writable=False)
            for k, value in enumerate(source.cast(_CODES[width]).tolist()):
                elements[k] = value
            done += width * count

    def loader(self, pod: Pod[T]) -> Callable[[int], T]:
        if pod.packer is None:
            return super().loader(pod)
        ctype = pod.ctype

        def load(address: int) -> T:
            _require_aligned(address, pod)
            # SAFETY: the cursor checked the range; `_held` keeps it mapped.
            return cast("T", buffers.load(ctype, address))

        return load

    def storer(self, pod: Pod[T]) -> Callable[[int, T], None]:
        if pod.packer is None:
            return super().storer(pod)
        ctype = pod.ctype

        def store(address: int, value: T) -> None:
            number = pod.from_bytes(pod.to_bytes(value))
            _require_aligned(address, pod)
            # SAFETY: the cursor checked the range; `_held` keeps it mapped.
            buffers.store(ctype, address, number)

        return store

    def load_once(self, address: int, pod: PodOnce[T]) -> T:
        return self.loader(pod)(address)

    def store_once(self, address: int, pod: PodOnce[T], value: T) -> None:
        self.storer(pod)(address, value)


def _require_aligned(address: int, pod: Pod[Any]) -> None:
    if address % pod.size:
        raise ValueError(
            f"{address:#x} is not aligned for {pod.name}: device memory takes "
            f"{pod.size}-byte accesses at multiples of {pod.size} only"
        )


@final
class IoMem(HasVmReaderWriter, Closing):
    """A part of a device file, mapped: /dev/mem, a UIO device, a PCI ``resourceN``.

    A number is moved by one load or store of exactly its width, at its
    alignment. A run of bytes is moved in aligned 8-byte words, and in single
    bytes before and after them.

    Source:
        OSTD ``IoMem``.
    """

    def __init__(self, pages: mmap.mmap, delta: int, n: int) -> None:
        self._memory: _IoMemory | None = _IoMemory(pages)
        self._delta = delta
        self._n = n

    @classmethod
    def open(cls, path: str | os.PathLike[str], offset: int, n: int) -> IoMem:
        """Maps `n` bytes of the file at `offset`, for reading and writing.

        Raises:
            InvalidArgsError: `n` is 0, or a regular file ends before the range
                does (an access after its end would kill the tool).
            OSError: The file cannot be opened or mapped.
        """
        offset, n = check_range(offset, n, "offset")
        if n == 0:
            raise InvalidArgsError("the length is 0; map 1 byte or more")
        with Fd.open(os.fsdecode(path), os.O_RDWR | os.O_SYNC) as file:
            fd = file.number
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and offset + n > status.st_size:
                raise InvalidArgsError(
                    f"{n} bytes at offset {offset:#x} do not fit a file of {status.st_size} bytes"
                )
            delta = offset % PAGE_SIZE
            try:
                pages = mmap.mmap(fd, delta + n, mmap.MAP_SHARED, offset=offset - delta)
            except (ValueError, OverflowError) as error:
                raise InvalidArgsError(
                    f"{n} bytes at offset {offset:#x} cannot be mapped: {error}"
                ) from None
            return cls(pages, delta, n)

    def __len__(self) -> int:
        return self._n

    def _mapped(self) -> _IoMemory:
        if self._memory is None:
            raise ClosedError("the device memory is closed")
        return self._memory

    def reader(self) -> VmReader[Io]:
        """Returns a reader of the whole range."""
        memory = self._mapped()
        return VmReader(memory, memory.address + self._delta, self._n, Io)

    def writer(self) -> VmWriter[Io]:
        """Returns a writer of the whole range."""
        memory = self._mapped()
        return VmWriter(memory, memory.address + self._delta, self._n, Io)

    def close(self) -> None:
        """Closes it; cursors over it stay valid. A second call does nothing."""
        self._memory = None
