"""`CoreWriter`: writes memory to a core file, in one pass and in constant memory.

The file is written from front to back: the bytes, then the notes and program headers,
then a hole. All runs of zeros share that one hole, so that the file of a process with
terabytes reserved has the size of the memory in use, also after a copy by a tool that
does not keep holes.
"""

from __future__ import annotations

import errno
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple, final

from procvm._base.address import PAGE_SIZE
from procvm._linux.proc_maps import VmaEntry
from procvm._saved.facts import Facts
from procvm._space.maps import Kind, Maps
from procvm._symbols.core_notes import (
    NT_AUXV,
    NT_FILE,
    NT_PRPSINFO,
    NT_PRSTATUS,
    NT_SIGINFO,
    UNKNOWN_REGISTERS,
    FileNote,
    Prpsinfo,
    Prstatus,
    pack_file_note,
    pack_maps_note,
    pack_note,
    pack_prpsinfo,
    pack_prstatus,
)
from procvm._symbols.elf_headers import ET_CORE, PN_XNUM, PT_LOAD, PT_NOTE, turned

__all__ = ["CoreWriter"]

_HOLE_LEN = 1 << 30


class _Formats(NamedTuple):
    """The headers of a class.

    Attributes:
        ident: The first bytes of the file: the class, least byte first, version 1.
        header: The file's header.
        segment: A program header.
        section: A section header.
        end: One past the largest offset in the file.
    """

    ident: bytes
    header: struct.Struct
    segment: struct.Struct
    section: struct.Struct
    end: int

    def segment_of(self, kind: int, load: _Load, align: int) -> bytes:
        """Returns a program header."""
        addresses = load.offset, load.start, 0, load.kept_len, load.end - load.start
        if self.end == _WIDE_END:
            return self.segment.pack(kind, load.flags, *addresses, align)
        return self.segment.pack(kind, *addresses, load.flags, align)


_WIDE_END = 1 << 64
_FORMATS = {
    8: _Formats(
        b"\x7fELF\x02\x01\x01",
        struct.Struct("=16sHHIQQQIHHHHHH"),
        struct.Struct("=IIQQQQQQ"),
        struct.Struct("=IIQQQQIIQQ"),
        _WIDE_END,
    ),
    4: _Formats(
        b"\x7fELF\x01\x01\x01",
        struct.Struct("=16sHHIIIIIHHHHHH"),
        struct.Struct("=8I"),
        struct.Struct("=10I"),
        1 << 32,
    ),
}


class _Run(NamedTuple):
    """Bytes of the target that are in the file; zeros if `offset` is -1."""

    start: int
    end: int
    offset: int


@final
class CoreWriter:
    """A core file in the making; addresses must come in order."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._runs: list[_Run] = []
        self._at = PAGE_SIZE  # the header's page comes first

    def data(self, address: int, data: memoryview) -> None:
        """Writes bytes of the target.

        Raises:
            OSError: As write.
        """
        last = self._runs[-1] if self._runs else None
        if last is not None and last.end == address and last.offset >= 0:
            self._runs[-1] = last._replace(end=address + len(data))
        else:
            # Without the same offset within a page, debuggers cannot map the segment.
            self._at += (address - self._at) % PAGE_SIZE
            self._runs.append(_Run(address, address + len(data), self._at))
        self._write(data)

    def zeros(self, start: int, end: int) -> None:
        """Records that a range is zeros."""
        self._runs.append(_Run(start, end, -1))

    def _write(self, data: memoryview | bytes) -> None:
        rest = memoryview(data)
        while rest:
            done = os.pwrite(self._fd, rest, self._at)
            self._at += done
            rest = rest[done:]

    def finish(self, facts: Facts, maps: Maps, end: int) -> None:
        """Writes the notes, the program headers and the header.

        Args:
            facts: The ids, threads and registers of the process.
            maps: Its mappings.
            end: One past the last address of user space.

        Raises:
            OSError: As write; EFBIG if it is too large for the core file of a 32-bit process.
        """
        formats = _FORMATS[facts.address_size]
        notes = b"".join(_notes(facts, maps))
        notes_at = self._at = self._at + 7 & ~7
        self._write(notes)
        headers_at = self._at = self._at + 7 & ~7
        loads = list(self._loads(maps, end))
        extended = len(loads) + 1 >= PN_XNUM
        headers_end = headers_at + formats.segment.size * (len(loads) + 1)
        headers_end += formats.section.size * extended
        hole_at = -(-headers_end // PAGE_SIZE) * PAGE_SIZE
        longest = 0
        if hole_at + PAGE_SIZE > formats.end:
            raise OSError(errno.EFBIG, "too large for the core file of a 32-bit process")
        rows = [formats.segment_of(PT_NOTE, _Load(0, 0, 0, notes_at, len(notes)), 4)]
        for one in loads:
            load = one
            if load.offset < 0:
                load = load._replace(offset=hole_at + load.start % PAGE_SIZE)
                longest = max(longest, load.kept_len + PAGE_SIZE)
            rows.append(formats.segment_of(PT_LOAD, load, PAGE_SIZE))
        self._write(b"".join(rows))
        if extended:
            self._write(formats.section.pack(0, 0, 0, 0, 0, 1, 0, len(rows), 0, 0))
        os.ftruncate(self._fd, hole_at + longest if longest else self._at)
        self._at = 0
        self._write(
            formats.header.pack(
                *(formats.ident, ET_CORE, facts.machine, 1, 0, headers_at),
                *(headers_end - formats.section.size if extended else 0, 0),
                *(formats.header.size, formats.segment.size),
                *(PN_XNUM if extended else len(rows), formats.section.size if extended else 0),
                *(int(extended), 0),
            )
        )

    def _loads(self, maps: Maps, end: int) -> Iterator[_Load]:
        """Yields the segments: the kept and the left out parts of each mapping."""
        runs = self._runs
        starts = [run.start for run in runs]
        for vma in maps:
            flags = turned(int(vma.perms))
            at, last = vma.start, min(vma.end, end)
            k = max(bisect_right(starts, at) - 1, 0)
            while at < last:
                while k < len(runs) and runs[k].end <= at:
                    k += 1
                if k == len(runs) or runs[k].start >= last:
                    yield _Load(at, last, flags, 0, 0)
                    break
                run = runs[k]
                if run.start > at:
                    yield _Load(at, run.start, flags, 0, 0)
                    at = run.start
                stop = min(run.end, last)
                if run.offset < 0:
                    stop = min(stop, at + _HOLE_LEN)
                    yield _Load(at, stop, flags, -1, stop - at)
                else:
                    yield _Load(at, stop, flags, run.offset + at - run.start, stop - at)
                at = stop


class _Load(NamedTuple):
    """A segment; zeros if `offset` is -1."""

    start: int
    end: int
    flags: int
    offset: int
    kept_len: int


def _notes(facts: Facts, maps: Maps) -> Iterator[bytes]:
    ids = {"ppid": facts.ppid, "pgrp": facts.pgrp, "sid": facts.sid}
    bits = 8 * facts.address_size
    unknown = UNKNOWN_REGISTERS if bits == 64 else {}
    # Debuggers start at the first thread, and refuse a core file without one.
    tids = list(facts.registers) or [facts.pid]
    for k, tid in enumerate(tids):
        signo = facts.signo if k == 0 else 0
        thread = Prstatus(tid, signo, facts.registers.get(tid, unknown))
        desc = pack_prstatus(facts.machine, thread, bits=bits, **ids)
        yield pack_note(b"CORE", NT_PRSTATUS, desc)
        if k == 0:
            info = Prpsinfo(
                *(facts.state, facts.nice, facts.uid, facts.gid, facts.pid, facts.ppid),
                *(facts.pgrp, facts.sid, facts.name, facts.args),
            )
            yield pack_note(b"CORE", NT_PRPSINFO, pack_prpsinfo(info, bits=bits))
            if facts.siginfo:
                yield pack_note(b"CORE", NT_SIGINFO, facts.siginfo)
            if facts.auxv:
                yield pack_note(b"CORE", NT_AUXV, facts.auxv)
            files = [
                FileNote(vma.start, vma.end, vma.offset, vma.name)
                for vma in maps
                if vma.kind is Kind.FILE
            ]
            yield pack_note(b"CORE", NT_FILE, pack_file_note(files, PAGE_SIZE, bits=bits))
            rows = [VmaEntry(vma.start, vma.end, int(vma.perms), *vma[3:]) for vma in maps]
            yield pack_maps_note(rows)
