"""/proc/PID/maps: the mapping at one address, and all mappings.

A descriptor of maps belongs to the address space that it was opened on. After an exec or the end
of the process it shows no mapping.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import threading
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from procvm._base import forks
from procvm._local.buffers import Scratch
from procvm._local.pool import Pool

__all__ = [
    "QUERY",
    "VmaEntry",
    "VmaRange",
    "entries_between",
    "entry_at",
    "parse_maps",
    "prepared_query",
    "read_maps",
    "read_named",
    "vma_at",
]


class VmaRange(NamedTuple):
    """The range and the permissions of a mapping."""

    start: int
    end: int
    flags: int


class VmaEntry(NamedTuple):
    """A line of /proc/PID/maps."""

    start: int
    end: int
    flags: int
    offset: int
    dev: tuple[int, int]
    inode: int
    name: bytes


QUERY = 0xC0686611  # _IOWR('f', 17, struct procmap_query), Linux 6.11
_QUERY_LEN = 104
_OR_NEXT = 0x10  # PROCMAP_QUERY_COVERING_OR_NEXT_VMA
_QUERY_HEAD = struct.Struct("@QQQ")  # size, query_flags, query_addr
_QUERY_ANSWER = struct.Struct("@QQQ")  # vma_start, vma_end, vma_flags
_ANSWER_AT = 24
# The whole: size, query_flags, query_addr, vma_start, vma_end, vma_flags,
# vma_page_size, vma_offset, inode, dev_major, dev_minor, vma_name_size,
# build_id_size, vma_name_addr, build_id_addr.
_ENTRY = struct.Struct("@QQQQQQQQQIIIIQQ")
# The errnos of PROCMAP_QUERY before Linux 6.11 or under a seccomp filter.
_NOT_KNOWN = frozenset({errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES})
_PERMS = re.compile(rb"[r-][w-][x-][ps]")
_ESCAPED_NEWLINE = rb"\012"
_PERMS_MASK = 0xF
_KERNEL_HALF = 1 << 63


_NAME_LEN = 4096 + 64  # PATH_MAX, and room for what the kernel adds


def vma_at(maps_fd: int, address: int) -> VmaRange | None:
    """Returns the mapping that holds `address`, or None if none does.

    Raises:
        OSError: ESRCH if the address space is gone; else as ioctl and read.

    Source:
        PROCMAP_QUERY; before Linux 6.11 the text of /proc/PID/maps.
    """
    query = bytearray(_QUERY_LEN)
    _QUERY_HEAD.pack_into(query, 0, _QUERY_LEN, 0, address)
    try:
        fcntl.ioctl(maps_fd, QUERY, query)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        entry = _entry_in_text(maps_fd, address, error)
        return None if entry is None else VmaRange(*entry[:3])
    start, end, flags = _QUERY_ANSWER.unpack_from(query, _ANSWER_AT)
    return VmaRange(start, end, flags & _PERMS_MASK)


def prepared_query(maps_fd: int, need: int) -> tuple[memoryview, bytearray] | None:
    """Returns a question for a mapping whose permissions include `need`, to be asked often.

    The caller writes the address to word 2 and calls ioctl with `QUERY`. The start of the mapping
    is then in word 3 and its end in word 4. The ioctl raises OSError if there is no such mapping.

    Returns:
        The words of the question, and the argument of the ioctl. None where the kernel does not
        know the question.

    Source:
        PROCMAP_QUERY, whose query_flags are numbered as `Perms`.
    """
    query = bytearray(_QUERY_LEN)
    _QUERY_HEAD.pack_into(query, 0, _QUERY_LEN, need, 0)
    try:
        fcntl.ioctl(maps_fd, QUERY, query)
    except OSError as error:
        if error.errno in _NOT_KNOWN:
            return None
    return memoryview(query).cast("Q"), query


def entry_at(maps_fd: int, address: int, *, or_next: bool = False) -> VmaEntry | None:
    """Returns the whole line of the mapping that holds `address`, or None if none does.

    Args:
        maps_fd: The maps.
        address: The address.
        or_next: Whether to return the first mapping after the address if none holds it.

    Raises:
        OSError: As `vma_at`.
    """
    query, room = _questions.take()
    flags = _OR_NEXT if or_next else 0
    _ENTRY.pack_into(query, 0, _QUERY_LEN, flags, address, *_UNKNOWN, _NAME_LEN, 0, room.address, 0)
    try:
        # SAFETY: the kernel writes the name into `room`, which outlives the call.
        fcntl.ioctl(maps_fd, QUERY, query)
    except OSError as error:
        if error.errno == errno.ENOENT and address < _KERNEL_HALF:
            return None
        # PROCMAP_QUERY does not know the vsyscall page, and refuses a name that is too long.
        return _entry_in_text(maps_fd, address, error, or_next=or_next)
    _, _, _, start, end, flags, _, offset, inode, major, minor, size, *_ = _ENTRY.unpack(query)
    text = bytes(room.view[: size - 1]) if size else b""
    _questions.leave((query, room))
    return VmaEntry(start, end, flags & _PERMS_MASK, offset, (major, minor), inode, text)


def entries_between(maps_fd: int, start: int, end: int) -> Iterator[VmaEntry]:
    """Yields the mappings that overlap a range; each is asked for when it is due.

    Raises:
        OSError: As `vma_at`.

    Source:
        PROCMAP_QUERY; before Linux 6.11 one reading of the text of /proc/PID/maps.
    """
    if prepared_query(maps_fd, 0) is None:
        listed = read_maps(maps_fd, exact_names=False)
        if not listed:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        yield from (one for one in listed if one.end > start and one.start < end)
        return
    at = start
    while at < end:
        entry = entry_at(maps_fd, at, or_next=True)
        if entry is None or entry.start >= end:
            return
        yield entry
        at = entry.end


_questions = Pool(8, lambda: (bytearray(_QUERY_LEN), Scratch(_NAME_LEN)))
_UNKNOWN = (0,) * 8


def _entry_in_text(
    maps_fd: int, address: int, refused: OSError, *, or_next: bool = False
) -> VmaEntry | None:
    """Finds a mapping in the text where PROCMAP_QUERY is not known; raises any other refusal."""
    if refused.errno not in _NOT_KNOWN | {errno.ENOENT, errno.ENAMETOOLONG}:
        try:
            raise refused
        finally:
            del refused  # it and this frame would refer to each other
    entries = read_maps(maps_fd, exact_names=False)
    if not entries:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    at = bisect_right(entries, address, key=lambda entry: entry.start) - 1
    if at >= 0 and address < entries[at].end:
        return entries[at]
    return entries[at + 1] if or_next and at + 1 < len(entries) else None


def parse_maps(text: bytes) -> list[VmaEntry]:
    r"""Parses the text of /proc/PID/maps.

    The kernel writes a newline in a name as ``\012``, and every other byte, also a backslash,
    as it is.

    Raises:
        ValueError: A line is not one of maps.
    """
    return [_parse_line(line) for line in text.split(b"\n") if line]


def _parse_line(line: bytes) -> VmaEntry:
    fields = line.split(None, 5)
    if len(fields) < 5 or not _PERMS.fullmatch(fields[1]) or not fields[4].isdigit():
        raise ValueError(f"not a line of maps: {line[:80]!r}")
    first, _, last = fields[0].partition(b"-")
    start, end = int(first, 16), int(last, 16)
    if start >= end:
        raise ValueError(f"not a line of maps: {line[:80]!r}")
    perms = fields[1]
    flags = (
        (perms[0] == 0x72) * 1
        | (perms[1] == 0x77) * 2
        | (perms[2] == 0x78) * 4
        | (perms[3] == 0x73) * 8
    )
    major, _, minor = fields[3].partition(b":")
    name = fields[5] if len(fields) == 6 else b""
    return VmaEntry(
        start,
        end,
        flags,
        int(fields[2], 16),
        (int(major, 16), int(minor, 16)),
        int(fields[4]),
        name.replace(_ESCAPED_NEWLINE, b"\n"),
    )


_TRIES = 8


def read_maps(maps_fd: int, *, exact_names: bool = True) -> list[VmaEntry]:
    r"""Returns all mappings, sorted and disjoint; empty if the address space is gone.

    The kernel returns the text in pieces of a page, and the target may change its mappings between
    two of them. Lines that overlap show that; the text is then read again, at most 8 times. Lines
    of the last text that overlap an earlier one are left out. Threads that list through one
    descriptor take turns: the kernel continues at the mapping where the last call on the
    descriptor ended, and counts bytes from the first mapping for any other offset, so that it
    would begin within a line if the mappings have changed.

    Args:
        maps_fd: The descriptor of maps.
        exact_names: Whether to ask for each name in which the text has ``\012``, which may be a
            newline or these four characters.

    Raises:
        OSError: As read.
    """
    entries: list[VmaEntry] = []
    for _ in range(_TRIES):
        try:
            entries = parse_maps(_read_all(maps_fd))
        except ValueError:
            # A forked child has the same open file, and may read it at the same time.
            continue
        if _in_order(entries):
            break
    else:
        entries = _without_contradictions(entries)
    return _with_exact_names(maps_fd, entries) if exact_names else entries


def read_named(maps_fd: int, known: bytes) -> tuple[bytes, list[VmaEntry]]:
    """Returns the text of maps, and the mappings in it that have a name.

    A process may have 65,530 mappings, nearly all without a name. Reading their text takes a
    quarter of the time of parsing it.

    Args:
        maps_fd: The descriptor of maps.
        known: A text that an earlier call returned. If it has not changed, the mappings are not
            parsed again.

    Returns:
        An empty text if the address space is gone; no mappings if the text is `known`.

    Raises:
        OSError: As read.
    """
    text, entries = b"", list[VmaEntry]()
    for _ in range(_TRIES):
        text = _read_all(maps_fd)
        if text == known:
            return text, []
        # Every name has a "/" or a "[", and no other field has one.
        named = [line for line in text.split(b"\n") if b"/" in line or b"[" in line]
        try:
            entries = [_parse_line(line) for line in named]
        except ValueError:
            continue  # as in `read_maps`
        if _in_order(entries):
            break
    else:
        # The text is torn. The added newline makes the next call parse it again.
        text, entries = text + b"\n", _without_contradictions(entries)
    return text, _with_exact_names(maps_fd, entries)


def _with_exact_names(maps_fd: int, entries: list[VmaEntry]) -> list[VmaEntry]:
    if any(b"\n" in entry.name for entry in entries):
        return [_with_exact_name(maps_fd, entry) for entry in entries]
    return entries


def _with_exact_name(maps_fd: int, entry: VmaEntry) -> VmaEntry:
    if b"\n" not in entry.name:
        return entry
    try:
        asked = entry_at(maps_fd, entry.start)
    except OSError:
        return entry
    return asked if asked is not None and asked[:6] == entry[:6] else entry


class _Turns:
    """A lock for each descriptor number, which one listing at a time holds."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}
        forks.register(self)

    def of(self, fd: int) -> threading.RLock:
        """Returns the lock of a number; re-entrant, for a signal handler that lists as well."""
        return self._locks.get(fd) or self._locks.setdefault(fd, threading.RLock())

    def after_fork_in_child(self) -> None:
        """Forgets the locks that threads of the parent may have held."""
        self._locks = {}


_turns = _Turns()


def _read_all(fd: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        with _turns.of(fd):
            # The kernel returns at most a page or so per call, whatever the size of the buffer.
            while part := os.pread(fd, 1 << 16, size):
                parts.append(part)
                size += len(part)
    except ProcessLookupError:
        return b""  # ended and reaped
    return b"".join(parts)


def _in_order(entries: list[VmaEntry]) -> bool:
    end = 0
    for entry in entries:
        if entry.start < end:
            return False
        end = entry.end
    return True


def _without_contradictions(entries: list[VmaEntry]) -> list[VmaEntry]:
    kept: list[VmaEntry] = []
    end = 0
    for entry in sorted(entries):
        if entry.start >= end:
            kept.append(entry)
            end = entry.end
    return kept
