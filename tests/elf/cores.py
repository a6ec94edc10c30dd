"""Core files of three makers, and one made by hand."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import procvm
from tests.elf.facets import Facets

EHDR = struct.Struct("=16sHHIQQQIHHHHHH")
PHDR = struct.Struct("=IIQQQQQQ")
SHDR = struct.Struct("=IIQQQQIIQQ")
PT_LOAD, PT_NOTE = 1, 4
X86_64 = 62

GDB = shutil.which("gdb")


def load(vaddr: int, memsz: int, offset: int = 0, filesz: int = 0) -> tuple[int, ...]:
    """Returns a segment of memory, readable and writable."""
    return (PT_LOAD, 6, offset, vaddr, 0, filesz, memsz, 4096)


def made(
    segments: Sequence[tuple[int, ...]],
    notes: bytes = b"",
    *,
    phnum: int | None = None,
    machine: int = X86_64,
    data: bytes = b"",
) -> bytes:
    """Returns a core file of these segments, and of one of notes behind their headers."""
    rows = list(segments)
    notes_at = EHDR.size + PHDR.size * (len(rows) + bool(notes))
    if notes:
        rows.append((PT_NOTE, 0, notes_at, 0, 0, len(notes), 0, 4))
    count = len(rows) if phnum is None else phnum
    ident = b"\x7fELF\x02\x01\x01"
    head = EHDR.pack(ident, 4, machine, 1, 0, EHDR.size, 0, 0, EHDR.size, PHDR.size, count, 0, 0, 0)
    return head + b"".join(PHDR.pack(*row) for row in rows) + notes + data


def note(owner: bytes, kind: int, desc: bytes) -> bytes:
    """Returns a note."""
    name = owner + b"\0"
    head = struct.pack("=III", len(name), len(desc), kind)
    return head + name + bytes(-len(name) % 4) + desc + bytes(-len(desc) % 4)


def gdb(*commands: str, program: str | None = None, core: Path | None = None) -> str:
    """Runs commands of gdb; returns what it said."""
    assert GDB is not None
    args = [GDB, "-nx", "-nh", "-batch", "-iex", "set debuginfod enabled off"]
    args += ["-iex", "set auto-load off", "-iex", "set width 0"]
    for command in commands:
        args += ["-ex", command]
    if program is not None:
        args.append(program)
    if core is not None:
        args += ["-c", str(core)]
    done = subprocess.run(args, capture_output=True, check=False)
    return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


def gcore(pid: int, to: Path) -> Path:
    """Lets gdb make a core file of a process."""
    said = gdb(f"attach {pid}", f"generate-core-file {to}", "detach")
    assert to.exists(), said
    return to


def small_ranges(process: procvm.Process) -> list[tuple[int, int]]:
    """Returns ranges of a process that make a core small and still one with symbols."""
    first = [vma for vma in process.maps() if vma.offset == 0 and vma.kind is procvm.Kind.FILE]
    stack = process.maps().filter(kind=procvm.Kind.STACK)[0]
    program = os.readlink(f"/proc/{process.pid}/exe").encode()
    own = [(vma.start, vma.end) for vma in process.maps() if vma.name == program]
    return [(vma.start, vma.start + 4096) for vma in first] + [(stack.end - 4096, stack.end), *own]


def three(folder: Path) -> dict[str, bytes]:
    """Returns a core of a held process, one of a running one, and one of gdb's (if installed)."""
    found: dict[str, bytes] = {}
    with Facets(2) as facets:
        with procvm.attach(facets.pid) as tracee:
            tracee.save(folder / "held", small_ranges(tracee))
        with procvm.open(facets.pid) as process:
            process.save(folder / "plain", small_ranges(process))
    if GDB is not None:
        with Facets() as facets:  # no stacks of 8 MiB
            gcore(facets.pid, folder / "gcore")
    for name in ("held", "plain", "gcore"):
        path = folder / name
        if path.exists():
            found[name] = path.read_bytes()
            path.unlink()
    return found


def hot_parts(data: bytes) -> list[tuple[int, int]]:
    """Returns the parts of a core that say what the rest is: its header, segments and notes."""
    fields = EHDR.unpack_from(data)
    phoff, phnum = fields[5], fields[10]
    parts = [(0, EHDR.size), (phoff, phoff + PHDR.size * phnum)]
    for k in range(phnum):
        row = PHDR.unpack_from(data, phoff + PHDR.size * k)
        if row[0] == PT_NOTE:
            parts += [(row[2], row[2] + row[5])] * 2
    return parts
