"""Files: the runs of data in them, and reads to the tool's own memory."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator

from procvm._linux.libc import call, libc

__all__ = ["data_runs", "read_file"]


def data_runs(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the runs of data between two offsets of a file, in order.

    The whole range is one run where the file system does not tell, and where the file ends before
    `end`: the read then finds that out.

    Source:
        SEEK_DATA and SEEK_HOLE of lseek(2): on tmpfs these are the pages that exist.
    """
    at = start
    while at < end:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: no data up to the end of the file.
            if error.errno != errno.ENXIO or os.fstat(fd).st_size < end:
                yield at, end
            return
        if data >= end:
            return
        try:
            at = min(os.lseek(fd, data, os.SEEK_HOLE), end)
        except OSError:
            at = end
        # The file may have been truncated between the two calls.
        at = max(at, data + 1)
        yield data, at


def read_file(fd: int, offset: int, own_address: int, n: int) -> tuple[int, int]:
    """Reads bytes of a file to the tool's memory; returns the count, and the errno if it is short.

    A read through a mapping of the file would end the tool by SIGBUS if the file is truncated.
    """
    got = 0
    while got < n:
        # SAFETY: the caller keeps `n` bytes at `own_address` alive.
        step, code = call(
            libc().pread,
            fd,
            ctypes.c_void_p(own_address + got),
            ctypes.c_size_t(n - got),
            ctypes.c_int64(offset + got),
        )
        if step <= 0:
            if code == errno.EINTR:
                continue
            return got, code or errno.EFAULT
        got += step
    return got, 0
