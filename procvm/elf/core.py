"""What a core file says of a process beside its memory: its notes, made and parsed.

Source:
    elf(5); the kernel's ``include/linux/elfcore.h`` and ``fs/binfmt_elf.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from procvm.elf.headers import Note

__all__ = [
    "MACHINES",
    "MAPS_OWNER",
    "NT_AUXV",
    "NT_FILE",
    "NT_MAPS",
    "NT_PRPSINFO",
    "NT_PRSTATUS",
    "UNKNOWN_REGISTERS",
    "FileNote",
    "MapsNote",
    "Prpsinfo",
    "Prstatus",
    "by_kind",
    "pack_file_note",
    "pack_maps_note",
    "pack_note",
    "pack_prpsinfo",
    "pack_prstatus",
    "parse_file_note",
    "parse_maps_note",
    "parse_prpsinfo",
    "parse_prstatus",
    "register_names",
]

NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE = 1, 3, 6, 0x46494C45

MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243}
"""ELF's numbers of machines, by the names of uname."""

_X86_64 = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
)
_REGISTERS = {62: _X86_64.split(), 183: [*(f"x{k}" for k in range(31)), "sp", "pc", "pstate"]}


def register_names(machine: int) -> Sequence[str]:
    """Returns the general registers of a machine in the kernel's order; none if it is not known."""
    return _REGISTERS.get(machine, [])


UNKNOWN_REGISTERS = {"cs": 0x33, "ss": 0x2B}
"""What stands for registers that are not known: debuggers tell by these that it has 64 bits."""


class Prstatus(NamedTuple):
    """A thread.

    Attributes:
        tid: Its id.
        signo: The signal that ended it; 0 for none.
        registers: By the kernel's names; empty where the machine is not known.
    """

    tid: int
    signo: int
    registers: Mapping[str, int]


# si_signo si_code si_errno, cursig, sigpend sighold, pid ppid pgrp sid, four times;
# the registers, and whether there are others, follow.
_PRSTATUS = struct.Struct("=iiih2xQQiiii64x")
# state sname zomb nice, flag, uid gid pid ppid pgrp sid, name, arguments
_PRPSINFO = struct.Struct("=bcbb4xQIIiiii16s80s")
_TID_AT = 32
_WORD = struct.Struct("=Q")
_FILE_HEAD = struct.Struct("=QQ")
_FILE_ENTRY = struct.Struct("=QQQ")


class Prpsinfo(NamedTuple):
    """A process.

    Attributes:
        state: As /proc tells it, one letter.
        nice: Its niceness.
        uid: Whose it is.
        gid: Of which group.
        pid: Its number.
        ppid: Its parent's.
        pgrp: Its group's.
        sid: Its session's.
        name: Its name, at most 15 bytes.
        args: The beginning of its command line.
    """

    state: str
    nice: int
    uid: int
    gid: int
    pid: int
    ppid: int
    pgrp: int
    sid: int
    name: bytes
    args: bytes


class FileNote(NamedTuple):
    """A part of a file that was mapped; `offset` in bytes."""

    start: int
    end: int
    offset: int
    name: bytes


def pack_note(owner: bytes, kind: int, desc: bytes) -> bytes:
    """Returns a note."""
    name = owner + b"\0"
    head = struct.pack("=III", len(name), len(desc), kind)
    return head + name + bytes(-len(name) % 4) + desc + bytes(-len(desc) % 4)


def pack_prstatus(
    machine: int, thread: Prstatus, *, ppid: int = 0, pgrp: int = 0, sid: int = 0
) -> bytes:
    """Returns the bytes of NT_PRSTATUS."""
    head = _PRSTATUS.pack(thread.signo, 0, 0, thread.signo, 0, 0, thread.tid, ppid, pgrp, sid)
    words = (thread.registers.get(name, 0) for name in register_names(machine))
    return head + b"".join(map(_WORD.pack, words)) + _WORD.pack(0)


def parse_prstatus(machine: int, desc: memoryview) -> Prstatus:
    """Parses NT_PRSTATUS.

    Raises:
        ValueError: It is too short.
    """
    names = register_names(machine)
    if len(desc) < _PRSTATUS.size + _WORD.size * len(names):
        raise ValueError(f"a thread of {len(desc)} bytes")
    _, _, _, signo, _, _, tid, *_ = _PRSTATUS.unpack_from(desc)
    words = struct.unpack_from(f"={len(names)}Q", desc, _PRSTATUS.size)
    return Prstatus(tid, signo, dict(zip(names, words, strict=True)))


def pack_prpsinfo(info: Prpsinfo) -> bytes:
    """Returns the bytes of NT_PRPSINFO."""
    state = info.state.encode("ascii", "replace")[:1] or b"?"
    number = max("RSDTZW".find(info.state), 0)
    ids = info[2:8]
    return _PRPSINFO.pack(
        number, state, info.state == "Z", info.nice, 0, *ids, info.name[:15], info.args[:79]
    )


def parse_prpsinfo(desc: memoryview) -> Prpsinfo:
    """Parses NT_PRPSINFO.

    Raises:
        ValueError: It is too short.
    """
    if len(desc) < _PRPSINFO.size:
        raise ValueError(f"a process of {len(desc)} bytes")
    _, state, _, nice, _, *ids, name, args = _PRPSINFO.unpack_from(desc)
    uid, gid, pid, ppid, pgrp, sid = ids
    texts = name.partition(b"\0")[0], args.partition(b"\0")[0]
    return Prpsinfo(state.decode("latin-1"), nice, uid, gid, pid, ppid, pgrp, sid, *texts)


def pack_file_note(files: Iterable[FileNote], page_size: int) -> bytes:
    """Returns the bytes of NT_FILE."""
    entries = list(files)
    parts = [_FILE_HEAD.pack(len(entries), page_size)]
    parts += [_FILE_ENTRY.pack(file.start, file.end, file.offset // page_size) for file in entries]
    parts += [file.name + b"\0" for file in entries]
    return b"".join(parts)


def parse_file_note(desc: memoryview) -> list[FileNote]:
    """Parses NT_FILE.

    Raises:
        ValueError: It is too short for what it says.
    """
    if len(desc) < _FILE_HEAD.size:
        raise ValueError(f"mapped files in {len(desc)} bytes")
    count, unit = _FILE_HEAD.unpack_from(desc)
    found: list[FileNote] = []
    rows = desc[_FILE_HEAD.size :]
    for (start, end, pages), name in _named(rows, count, _FILE_ENTRY, "mapped files"):
        if pages * unit > _LAST_OFFSET:
            raise ValueError(f"a mapped file from {pages:#x} x {unit:#x} on at {start:#x}")
        found.append(FileNote(start, end, pages * unit, name))
    return found


_LAST_OFFSET = (1 << 64) - 1


def _named(
    rows: memoryview, count: int, entry: struct.Struct, what: str
) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yields rows that begin with a start and an end, and the name of each, which stand behind.

    Raises:
        ValueError: They are not as many as said, or not in order.
    """
    begin = count * entry.size
    if begin > len(rows):
        raise ValueError(f"{count} {what} in {len(rows)} bytes")
    names = bytes(rows[begin:]).split(b"\0", count)
    if len(names) < count:
        raise ValueError(f"{len(names)} names of {count} {what}")
    last = 0
    for row, name in zip(entry.iter_unpack(rows[:begin]), names, strict=False):
        start, end, *_ = row
        if not last <= start < end:
            raise ValueError(f"{what} that are not in order at {start:#x}")
        last = end
        yield row, name


class MapsNote(NamedTuple):
    """A mapping, as /proc/PID/maps tells it."""

    start: int
    end: int
    flags: int
    offset: int
    dev: tuple[int, int]
    inode: int
    name: bytes


# A core names mapped files alone. This note of our own, which others pass over, keeps
# the rest: [heap] and [stack], permissions, devices and inodes.
MAPS_OWNER = b"procvm"
# No number that somebody else uses: many tools look at the number alone.
NT_MAPS = 0x50564D31
_MAPS_ENTRY = struct.Struct("=QQIQIIQ")


def pack_maps_note(rows: list[MapsNote]) -> bytes:
    """Returns the note that has the mappings."""
    parts = [_WORD.pack(len(rows))]
    for row in rows:
        parts.append(_MAPS_ENTRY.pack(*row[:4], *row.dev, row.inode))
    parts += [row.name + b"\0" for row in rows]
    return pack_note(MAPS_OWNER, NT_MAPS, b"".join(parts))


def parse_maps_note(desc: memoryview) -> list[MapsNote]:
    """Parses the note that has the mappings.

    Raises:
        ValueError: It is too short for what it says, or not in order.
    """
    if len(desc) < _WORD.size:
        raise ValueError(f"mappings in {len(desc)} bytes")
    count = _WORD.unpack_from(desc)[0]
    found: list[MapsNote] = []
    for row, name in _named(desc[_WORD.size :], count, _MAPS_ENTRY, "mappings"):
        start, end, flags, offset, major, minor, inode = row
        if flags > _ALL_PERMS:
            raise ValueError(f"a mapping of permissions {flags:#x} at {start:#x}")
        found.append(MapsNote(start, end, flags, offset, (major, minor), inode, name))
    return found


_ALL_PERMS = 15


def by_kind(notes: Iterable[Note]) -> dict[tuple[bytes, int], list[memoryview]]:
    """Returns the bytes of the notes of each owner and type, in their order.

    Raises:
        ValueError: Two are of the same thread.
    """
    found: dict[tuple[bytes, int], list[memoryview]] = {}
    tids: set[bytes] = set()
    for owner, kind, desc in notes:
        if kind == NT_PRSTATUS and owner == b"CORE":
            # Here, so that nobody looks at more of a file that is made up than it takes.
            tid = bytes(desc[_TID_AT : _TID_AT + 4])
            if tid in tids:
                raise ValueError(f"two threads of the number {int.from_bytes(tid, 'little')}")
            tids.add(tid)
        found.setdefault((owner, kind), []).append(desc)
    return found
