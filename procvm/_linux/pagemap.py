"""/proc/PID/pagemap: tells which pages of a mapping the process has."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from array import array

from procvm._base.address import PAGE_SIZE

__all__ = ["is_copied", "is_own", "touched"]

Run = tuple[int, int]

_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg), Linux 6.7
# size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
# category_mask, category_anyof_mask, return_mask
_ARGUMENT = struct.Struct("@12Q")
_WALK_END_AT = 4 * 8
_FILE, _PRESENT, _SWAPPED, _PFNZERO = 4, 8, 16, 32
_NR_RUNS = 512
_NOT_KNOWN = frozenset({errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES})

_ENTRY_LEN = 8
_ENTRIES = 1 << 16
# Bits of an entry.
_HERE, _THERE, _OF_FILE = 1 << 63, 0b11 << 62, 1 << 61  # present; present or swapped; a file's


def touched(pagemap_fd: int, start: int, end: int, *, files: bool = False) -> list[Run]:
    """Returns the runs of pages that are resident or swapped, as (start, end) addresses.

    Every other page of a private anonymous mapping is all zeros. Before Linux 6.7 a page that
    was read and never written may be among those returned.

    Args:
        pagemap_fd: The descriptor of pagemap.
        start: The first address.
        end: The address after the last.
        files: Whether pages of a file or of shared memory count. If not, the rest of a private
            file mapping has the bytes of the file.

    Raises:
        OSError: The address space is gone, or cannot be accessed.

    Source:
        PAGEMAP_SCAN; before Linux 6.7 the entries of pagemap.
    """
    start = start // PAGE_SIZE * PAGE_SIZE
    try:
        return _scan(pagemap_fd, start, end, _PFNZERO if files else _PFNZERO | _FILE)
    except OSError as error:
        if error.errno not in _NOT_KNOWN:
            raise
    return _by_entries(pagemap_fd, start, end, 0 if files else _OF_FILE)


def _scan(pagemap_fd: int, start: int, end: int, unwanted: int) -> list[Run]:
    runs: list[Run] = []
    vector = array("Q", bytes(3 * 8 * _NR_RUNS))
    at = start
    while at < end:
        asked = (
            *(_ARGUMENT.size, 0, at, end, 0, vector.buffer_info()[0], _NR_RUNS, 0),
            *(unwanted, unwanted, _PRESENT | _SWAPPED, _PRESENT),
        )
        argument = bytearray(_ARGUMENT.pack(*asked))
        # SAFETY: `vector` has room for `_NR_RUNS` runs and outlives the call.
        count = fcntl.ioctl(pagemap_fd, _SCAN, argument)
        for k in range(0, 3 * count, 3):
            _append(runs, vector[k], vector[k + 1])
        (at,) = struct.unpack_from("@Q", argument, _WALK_END_AT)
        if count < _NR_RUNS and at < end:
            # The kernel did not finish the walk, so the rest may be resident.
            _append(runs, at, end)
            break
    return runs


def _by_entries(pagemap_fd: int, start: int, end: int, unwanted: int) -> list[Run]:
    runs: list[Run] = []
    at = start
    while at < end:
        count = min((end - at + PAGE_SIZE - 1) // PAGE_SIZE, _ENTRIES)
        data = os.pread(pagemap_fd, count * _ENTRY_LEN, at // PAGE_SIZE * _ENTRY_LEN)
        if not data:
            _append(runs, at, end)
            break
        for k, entry in enumerate(array("Q", data)):
            if entry & _THERE and not entry & unwanted:
                _append(runs, at + k * PAGE_SIZE, at + (k + 1) * PAGE_SIZE)
        at += len(data) // _ENTRY_LEN * PAGE_SIZE
    return runs


def is_copied(pagemap_fd: int, number: int) -> bool:
    """Returns whether a page of a private mapping is resident and not a page of a file.

    Args:
        pagemap_fd: The descriptor of pagemap.
        number: The page's address / page size.

    Raises:
        OSError: The address space is gone, or cannot be accessed.
    """
    return _entry(pagemap_fd, number) & (_HERE | _OF_FILE) == _HERE


def is_own(pagemap_fd: int, number: int) -> bool:
    """Returns whether a page of a private mapping was written, so that it may differ from the file.

    A page in swap counts. Otherwise it would be taken for an unwritten page of the file.

    Args:
        pagemap_fd: The descriptor of pagemap.
        number: The page's address / page size.

    Raises:
        OSError: The address space is gone, or cannot be accessed.
    """
    entry = _entry(pagemap_fd, number)
    return bool(entry & _THERE) and not entry & _OF_FILE


def _entry(pagemap_fd: int, number: int) -> int:
    data = os.pread(pagemap_fd, _ENTRY_LEN, number * _ENTRY_LEN)
    return int.from_bytes(data, sys.byteorder)


def _append(runs: list[tuple[int, int]], start: int, end: int) -> None:
    if runs and runs[-1][1] == start:
        runs[-1] = (runs[-1][0], end)
    else:
        runs.append((start, end))
