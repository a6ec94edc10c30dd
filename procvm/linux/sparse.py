"""The parts of a file that hold data; the rest is holes, which read as zeros."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

__all__ = ["data_runs"]


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
