"""`open_core`: a core file as the snapshot that it is."""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from typing import Any

from procvm.elf import core
from procvm.elf.headers import ET_CORE, PT_LOAD, PT_NOTE, Elf, Segment, turned
from procvm.errors import MalformedError, UnsupportedError
from procvm.escape import printable
from procvm.linux import procfs
from procvm.linux.fds import Fd
from procvm.perms import Perms
from procvm.process.facts import Facts, Thread
from procvm.process.kept import FilePart, KeptMemory, Piece
from procvm.process.maps import Maps, Vma
from procvm.process.snapshot import Snapshot, regions_of

__all__ = ["open_core"]

_AT_EXECFN, _AT_SYSINFO_EHDR = 31, 33
_NO_DEV = (0, 0)
_AUXV_LEN = 1 << 14


def open_core(path: Any) -> Snapshot:
    """Opens a core file: one that was saved, one of gdb's ``gcore``, or one of the kernel's.

    Nothing of the memory is read until it is asked for. What the file leaves out,
    or lost by being cut off, is a page fault.

    Args:
        path: Of the file.

    Raises:
        MalformedError: It is no core file.
        UnsupportedError: It is of a 32-bit process, or of a machine of the other
            byte order; or pyelftools is not installed.
        OSError: It can not be opened.
    """
    # Not waiting for the writer of a pipe.
    file = Fd.open(os.fsdecode(path), os.O_RDONLY | os.O_NONBLOCK)
    what = printable(os.fsencode(path))
    if not stat.S_ISREG(os.fstat(file.number).st_mode):
        raise MalformedError(f"{what} is not a regular file, and so no core file")
    with open(file.number, "rb", buffering=0, closefd=False) as stream:
        elf = Elf(stream, what)
        if elf.kind != ET_CORE:
            raise elf.malformed(f"an ELF file of type {elf.kind}, which is no core file")
        if elf.bits != 64:
            raise UnsupportedError(f"{what} is the core file of a 32-bit process")
        segments = elf.segments()
        end = procfs.user_space_end()
        try:
            found = core.by_kind(
                note for part in segments if part.type == PT_NOTE for note in elf.notes(part)
            )
            facts = _facts(found, elf.machine)
            loads = _loads(elf, segments, end)
            maps = _maps(found, loads, facts)
        except MalformedError:
            raise
        except ValueError as error:
            raise elf.malformed(str(error)) from None
    pieces: list[Piece] = []
    for load in loads:
        # Of a file that was cut off, what is there.
        kept_len = min(load.filesz, elf.size - load.offset)
        if kept_len > 0:
            part = FilePart(file, load.offset)
            pieces.append(Piece(load.vaddr, load.vaddr + kept_len, part))
    kept = KeptMemory(pieces, regions_of(maps), end, facts.pid, what="core file")
    return Snapshot(kept, maps, facts, None)


def _loads(elf: Elf, segments: list[Segment], end: int) -> list[Segment]:
    """Returns the segments of memory, sorted and disjoint."""
    loads = sorted(
        (one for one in segments if one.type == PT_LOAD and one.memsz),
        key=lambda one: one.vaddr,
    )
    last = 0
    for load in loads:
        if load.filesz > load.memsz:
            raise elf.malformed(
                f"the segment at {load.vaddr:#x} has {load.filesz:#x} bytes in the file, and "
                f"{load.memsz:#x} in memory"
            )
        if load.vaddr < last or load.vaddr + load.memsz > 1 << 64:
            raise elf.malformed(f"the segment at {load.vaddr:#x} overlaps another one, or wraps")
        last = load.vaddr + load.memsz
    # The kernel's own page in its half of the addresses is no address of user space.
    return [load for load in loads if load.vaddr + load.memsz <= end]


def _facts(notes: dict[tuple[bytes, int], list[memoryview]], machine: int) -> Facts:
    descs = notes.get((b"CORE", core.NT_PRSTATUS), [])
    threads = [core.parse_prstatus(machine, desc) for desc in descs]
    infos = notes.get((b"CORE", core.NT_PRPSINFO), [])
    info = core.parse_prpsinfo(infos[0]) if infos else None
    known = {
        thread.tid: thread.registers
        for thread in threads
        if any(
            value != core.UNKNOWN_REGISTERS.get(name, 0) for name, value in thread.registers.items()
        )
    }
    name = info.name if info else b""
    if info is None:
        facts = Facts(threads[0].tid if threads else 0)
    else:
        facts = Facts(
            info.pid,
            *(info.ppid, info.pgrp, info.sid, info.uid, info.gid, info.nice, info.state),
            *(info.name, info.args),
        )
    auxv = next(iter(notes.get((b"CORE", core.NT_AUXV), [])), memoryview(b""))
    if len(auxv) > _AUXV_LEN:
        raise ValueError(f"an auxiliary vector of {len(auxv):#x} bytes")
    return facts._replace(
        machine=machine,
        auxv=bytes(auxv),
        threads=tuple(Thread(tid, name if tid == facts.pid else b"", "") for tid in known),
        registers=known,
    )


def _maps(
    notes: dict[tuple[bytes, int], list[memoryview]], loads: list[Segment], facts: Facts
) -> Maps:
    """Returns the mappings, as far as the file tells."""
    ours = notes.get((core.MAPS_OWNER, core.NT_MAPS), [])
    if ours:
        rows = core.parse_maps_note(ours[0])
        return Maps([Vma(row.start, row.end, Perms(row.flags), *row[3:]) for row in rows])
    noted = notes.get((b"CORE", core.NT_FILE), [])
    files = core.parse_file_note(noted[0]) if noted else []
    auxv = procfs.parse_auxv(facts.auxv)
    names = {auxv.get(_AT_EXECFN, 0): b"[stack]", auxv.get(_AT_SYSINFO_EHDR, 0): b"[vdso]"}
    names.pop(0, None)
    found: list[Vma] = []
    k = 0
    ends = [load.vaddr + load.memsz for load in loads]
    for one in files:
        # Of what it leaves out whole, the name alone is known.
        j = bisect_right(ends, one.start)
        if j == len(loads) or loads[j].vaddr >= one.end:
            found.append(Vma(one.start, one.end, Perms(0), one.offset, _NO_DEV, 0, one.name))
    for load in loads:
        at, end = load.vaddr, load.vaddr + load.memsz
        perms = Perms(turned(load.flags))
        while at < end:
            while k < len(files) and files[k].end <= at:
                k += 1
            file = files[k] if k < len(files) and files[k].start < end else None
            if file is None or file.start > at:
                stop = end if file is None else file.start
                name = next((name for a, name in names.items() if at <= a < stop), b"")
                found.append(Vma(at, stop, perms, 0, _NO_DEV, 0, name))
            else:
                stop = min(file.end, end)
                offset = file.offset + at - file.start
                found.append(Vma(at, stop, perms, offset, _NO_DEV, 0, file.name))
            at = stop
    return Maps(sorted(found))
