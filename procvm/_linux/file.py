"""Files: the parts that hold data, and reads to local memory."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator

from procvm._linux.libc import call, libc

__all__ = ["data_runs", "read_file"]


def data_runs(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the runs of data between two offsets of a file, in order.

    All of it is one run where the file system does not tell, or the file ends before `end`
    (so that the read says so).

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
        # The file may have become shorter between the two calls.
        at = max(at, data + 1)
        yield data, at


def read_file(fd: int, offset: int, own_address: int, n: int) -> tuple[int, int]:
    """Reads bytes of a file to our own memory; returns how many, and the errno if not all.

    A mapping of the file would end the tool by SIGBUS when the file is made shorter.
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
