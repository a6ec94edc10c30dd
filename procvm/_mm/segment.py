"""`Segment`: untyped pages of our own."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import final

from procvm._base.address import PAGE_SIZE, as_len
from procvm._base.closing import Closing
from procvm._base.fd import Fd
from procvm._base.markers import Infallible
from procvm._mm.io import HasVmReaderWriter
from procvm._mm.local import OwnMemory
from procvm._mm.reader import VmReader
from procvm._mm.writer import VmWriter
from procvm.errors import ClosedError, InvalidArgsError

__all__ = ["Segment"]

_F_ADD_SEALS = 1033
_F_SEAL_SHRINK = 0x2


@final
class Segment(HasVmReaderWriter, Closing):
    """Contiguous, page-aligned, untyped memory of the tool's own process.

    A shared one is a memfd: a child that inherits `fd` can map the same pages,
    and atomics on it are atomic against that child. It cannot be shrunk, so
    no process that has it can make the tool's accesses fault. The pages live
    until the segment and every cursor over it are gone.

    Source:
        OSTD ``Segment``, ``FrameAllocOptions::alloc_segment``.
    """

    def __init__(self, pages: mmap.mmap, fd: Fd | None) -> None:
        self._pages: mmap.mmap | None = pages
        self._fd = fd
        self._memory = OwnMemory.of_buffer(pages, writable=True)

    @classmethod
    def alloc(cls, npages: int, *, zeroed: bool = True, shared: bool = False) -> Segment:  # noqa: ARG003
        """Allocates `npages` pages.

        Args:
            npages: How many, 1 or more.
            zeroed: Whether the bytes must be 0. Linux hands out no others, so
                both give zeros.
            shared: Whether a child can map them, through `fd`.

        Raises:
            InvalidArgsError: `npages` is 0, negative or more than there is
                room for.
        """
        npages = as_len(npages, "npages")
        if npages == 0:
            raise InvalidArgsError("npages is 0; a segment has 1 page or more")
        n = npages * PAGE_SIZE
        fd = None
        try:
            if not shared:
                return cls(mmap.mmap(-1, n, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), None)
            flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            fd = Fd.of(os.memfd_create, "procvm-segment", flags)
            os.ftruncate(fd.number, n)
            fcntl.fcntl(fd.number, _F_ADD_SEALS, _F_SEAL_SHRINK)
            return cls(mmap.mmap(fd.number, n, mmap.MAP_SHARED), fd)
        except (OSError, OverflowError, ValueError) as error:
            if fd is not None:
                fd.close()
            raise InvalidArgsError(f"no room for {npages} pages: {error}") from None

    def __len__(self) -> int:
        return self._memory.n

    def __repr__(self) -> str:
        shared = "" if self._fd is None else " shared"
        return f"<Segment{shared} at {self._memory.address:#x}, {self._memory.n} bytes>"

    @property
    def address(self) -> int:
        """Where the first page is, in the tool's own address space."""
        self._require_open()
        return self._memory.address

    @property
    def fd(self) -> int:
        """The memfd of a shared segment; it is closed with the segment.

        Raises:
            ValueError: The segment is not shared.
        """
        self._require_open()
        if self._fd is None:
            raise ValueError("the segment is private and has no fd; use alloc(..., shared=True)")
        return self._fd.number

    def reader(self) -> VmReader[Infallible]:
        """Returns a reader of the whole segment."""
        self._require_open()
        return VmReader(self._memory, self._memory.address, self._memory.n, Infallible)

    def writer(self) -> VmWriter[Infallible]:
        """Returns a writer of the whole segment."""
        self._require_open()
        return VmWriter(self._memory, self._memory.address, self._memory.n, Infallible)

    def _require_open(self) -> None:
        if self._pages is None:
            raise ClosedError("the segment is closed")

    def close(self) -> None:
        """Closes the segment; cursors over it stay valid. A second call does nothing."""
        self._pages = None
        if self._fd is not None:
            self._fd.close()
