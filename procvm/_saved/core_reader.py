"""`open_core`: opens a core file as a snapshot."""

from __future__ import annotations

import os
import stat
import struct
from bisect import bisect_right
from typing import Any, cast

from procvm._base.fd import Fd
from procvm._base.perms import Perms
from procvm._base.text import printable
from procvm._linux import procfs
from procvm._saved.core_pages import CorePages, FileFinder
from procvm._saved.facts import Facts, Thread
from procvm._saved.saved_memory import KeptMemory
from procvm._saved.snapshot import Snapshot, regions_of
from procvm._space.maps import Maps, Vma
from procvm._symbols import core_notes as core
from procvm._symbols.elf_headers import ET_CORE, PN_XNUM, PT_LOAD, PT_NOTE, Elf, Segment, turned
from procvm.errors import MalformedError, UnsupportedError

__all__ = ["open_core"]

_AT_EXECFN, _AT_SYSINFO_EHDR = 31, 33
_NO_DEV = (0, 0)
_AUXV_LEN = 1 << 14
_SIGINFO_LEN = 1 << 10
_EHDR_LEN = 64


def open_core(path: Any, *, exe: Any = None, sysroot: Any = None) -> Snapshot:
    """Opens a core file: one that was saved, one of gdb's ``gcore``, or one of the kernel's.

    Memory is read from the file at each access. Pages of mapped files that the core file
    leaves out are read from those files, if they are of the same build. Reading a page that
    is in neither raises a PageFaultError that says why.

    Args:
        path: The path of the file.
        exe: The path of the program, if it is not where it was.
        sysroot: The folder that has the mapped files under their paths, where they are looked
            for first.

    Raises:
        MalformedError: It is not a core file, or is cut off before its headers end.
        UnsupportedError: It is compressed, or from a machine of the other byte order; or
            pyelftools is not installed.
        OSError: It cannot be opened.
    """
    finder_args = _text_of(exe, "exe"), _text_of(sysroot, "sysroot")
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    file = Fd.open(os.fsdecode(path), os.O_RDONLY | os.O_NONBLOCK)
    what = printable(os.fsencode(path))
    if not stat.S_ISREG(os.fstat(file.number).st_mode):
        raise MalformedError(f"{what} is not a regular file, so it is not a core file")
    _refuse_compressed(os.pread(file.number, _MAGIC_LEN, 0), what)
    with open(file.number, "rb", buffering=0, closefd=False) as stream:
        elf = Elf(stream, what)
        if elf.kind != ET_CORE:
            raise elf.malformed(f"it is an ELF file of type {elf.kind}, not a core file")
        bits = elf.bits
        _refuse_cut_off(elf, os.pread(file.number, _EHDR_LEN, 0))
        segments = elf.segments()
        for part in segments:
            if part.type == PT_NOTE and part.offset + part.filesz > elf.size:
                raise elf.malformed(_cut_off(elf, "notes", part.offset + part.filesz))
        end = procfs.user_space_end()
        try:
            found = core.by_kind(
                (note for part in segments if part.type == PT_NOTE for note in elf.notes(part)),
                bits=bits,
            )
            facts = _facts(found, elf.machine, bits)
            loads = _loads(elf, segments, end)
            noted = found.get((b"CORE", core.NT_FILE), [])
            files = core.parse_file_note(noted[0], bits=bits) if noted else []
            maps = _maps(found, loads, facts, files)
        except MalformedError:
            raise
        except ValueError as error:
            raise elf.malformed(str(error)) from None
    finder = FileFinder(_program_of(facts, files), *finder_args)
    pages = CorePages(elf, file, loads, files)
    # A core file of procvm has the pages that were asked for: the file may differ in others.
    if (core.MAPS_OWNER, core.NT_MAPS) not in found:
        pages.fill(finder, _stack_of(facts))
    kept = KeptMemory(
        pages.pieces,
        regions_of(maps),
        end,
        facts.pid,
        address_size=facts.address_size,
        what="core file",
        gaps=pages.gaps,
    )
    return Snapshot(kept, maps, facts, None, finder)


_COMPRESSED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4",
    b"BZh": "bzip2",
    b"\x1f\x9d": "compress",
    b"LZIP": "lzip",
    b"\x5d\x00\x00": "lzma",
    b"\x89LZO": "lzop",
    b"PK\x03\x04": "zip",
}
_MAGIC_LEN = 6


def _refuse_compressed(head: bytes, what: str) -> None:
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise UnsupportedError(
                f"{what} is compressed with {name}, and a core file is read in place: "
                "decompress it first"
            )


def _refuse_cut_off(elf: Elf, head: bytes) -> None:
    """Raises MalformedError if the file ends before its program headers do."""
    at, layout = (32, "=Q") if elf.bits == 64 else (28, "=I")
    count_at = 54 if elf.bits == 64 else 42
    if len(head) < count_at + 4:
        return
    (begin,) = struct.unpack_from(layout, head, at)
    size, count = struct.unpack_from("=HH", head, count_at)
    if count != PN_XNUM and begin + size * count > elf.size:
        raise elf.malformed(_cut_off(elf, "program headers", begin + size * count))


def _cut_off(elf: Elf, what: str, end: int) -> str:
    return f"it is cut off: it has {elf.size} bytes, and its {what} end at {end}"


def _text_of(path: Any, what: str) -> str | None:
    if path is None:
        return None
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"{what} must be a path, not {type(path).__name__}")
    return os.fsdecode(cast("str | bytes | os.PathLike[str]", path))


def _program_of(facts: Facts, files: list[core.FileNote]) -> bytes:
    """Returns the path of the file that the entry point lies in."""
    entry = procfs.parse_auxv(facts.auxv).get(procfs.AT_ENTRY, 0)
    return next((one.name for one in files if one.start <= entry < one.end), b"")


def _stack_of(facts: Facts) -> int:
    """Returns the stack pointer of the first thread; 0 if it is not known."""
    if not facts.threads:
        return 0
    registers = facts.registers[facts.threads[0].tid]
    return next((registers[name] for name in ("rsp", "esp", "sp") if name in registers), 0)


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
    # Without this, the vsyscall page, which lies outside of user space, becomes readable.
    return [load for load in loads if load.vaddr + load.memsz <= end]


def _facts(notes: dict[tuple[bytes, int], list[memoryview]], machine: int, bits: int) -> Facts:
    descs = notes.get((b"CORE", core.NT_PRSTATUS), [])
    threads = [core.parse_prstatus(machine, desc, bits=bits) for desc in descs]
    infos = notes.get((b"CORE", core.NT_PRPSINFO), [])
    info = core.parse_prpsinfo(infos[0], bits=bits) if infos else None
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
    siginfo = next(iter(notes.get((b"CORE", core.NT_SIGINFO), [])), memoryview(b""))
    if len(siginfo) > _SIGINFO_LEN:
        raise ValueError(f"a siginfo of {len(siginfo):#x} bytes")
    return facts._replace(
        machine=machine,
        auxv=bytes(auxv),
        threads=tuple(Thread(tid, name if tid == facts.pid else b"", "") for tid in known),
        registers=known,
        signo=threads[0].signo if threads else 0,
        siginfo=bytes(siginfo),
        address_size=bits // 8,
    )


def _maps(
    notes: dict[tuple[bytes, int], list[memoryview]],
    loads: list[Segment],
    facts: Facts,
    files: list[core.FileNote],
) -> Maps:
    """Returns the mappings, as far as the file records them."""
    ours = notes.get((core.MAPS_OWNER, core.NT_MAPS), [])
    if ours:
        rows = core.parse_maps_note(ours[0])
        return Maps([Vma(row.start, row.end, Perms(row.flags), *row[3:]) for row in rows])
    auxv = procfs.parse_auxv(facts.auxv)
    names = {auxv.get(_AT_EXECFN, 0): b"[stack]", auxv.get(_AT_SYSINFO_EHDR, 0): b"[vdso]"}
    names.pop(0, None)
    found: list[Vma] = []
    k = 0
    ends = [load.vaddr + load.memsz for load in loads]
    for one in files:
        # A file without any bytes in the core file: only its name is known.
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
