"""`VmFile`: a range of memory as a file."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import Any, final

from procvm._base.address import as_int
from procvm._local.buffers import refuse_pointers
from procvm._mm.local import OwnMemory
from procvm._mm.memory import UserMemory
from procvm.errors import PageFaultError

__all__ = ["VmFile"]


@final
class VmFile(io.RawIOBase):
    """A range of memory as a seekable binary file.

    Offset 0 is the first byte of the range; at its end a read returns no bytes and a write is
    refused. A read or write that meets a page that cannot be accessed moves the bytes before
    it, as a file may; if there are none it raises PageFaultError, which is an OSError.
    """

    def __init__(self, memory: UserMemory, start: int, end: int) -> None:
        self._memory = memory
        self._start = start
        self._len = end - start
        self._at = 0

    def __repr__(self) -> str:
        start = self._start
        return f"<VmFile [{start:#x}, {start + self._len:#x}) of {self._memory!r}, at {self._at}>"

    def _require_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def readable(self) -> bool:
        """Returns True."""
        self._require_open()
        return True

    def writable(self) -> bool:
        """Returns True: a page may still refuse."""
        self._require_open()
        return True

    def seekable(self) -> bool:
        """Returns True."""
        self._require_open()
        return True

    def tell(self) -> int:
        """Returns the offset of the next byte."""
        self._require_open()
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to an offset, which may lie after the end; returns it.

        Raises:
            ValueError: The offset would be negative, or `whence` is not 0, 1 or 2.
        """
        self._require_open()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"whence is {whence}; give 0, 1 or 2")
        base = (0, self._at, self._len)[whence]
        at = base + as_int(offset, "offset")
        if at < 0:
            raise ValueError(f"cannot seek to the negative offset {at}")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer as far as it goes; returns how many bytes that was."""
        self._require_open()
        refuse_pointers(memoryview(buffer))
        target = OwnMemory.of_buffer(buffer, writable=True)
        return self._move(self._memory.read, target)

    def write(self, data: Any) -> int:
        """Writes bytes as far as it goes; returns how many.

        Raises:
            OSError: The range ends here.
        """
        self._require_open()
        source = OwnMemory.of_buffer(data, writable=False)
        if source.n and self._at >= self._len:
            raise OSError(errno.ENOSPC, f"the range ends at offset {self._len}")
        return self._move(self._memory.write, source)

    def _move(self, access: Callable[[int, int, int], None], own: OwnMemory) -> int:
        n = max(min(own.n, self._len - self._at), 0)
        if not n:
            return 0
        try:
            # SAFETY: `own` keeps its bytes alive meanwhile.
            access(self._start + self._at, own.address, n)
        except PageFaultError as error:
            n = error.copied_len
            if not n:
                raise
        self._at += n
        return n
