"""The notes of a core file, packed and parsed: threads, registers, mapped files.

Source:
    elf(5); the kernel's ``include/linux/elfcore.h`` and ``fs/binfmt_elf.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from procvm._linux.proc_maps import VmaEntry
from procvm._symbols.elf_headers import Note

__all__ = [
    "EM_386",
    "MACHINES",
    "MAPS_OWNER",
    "NARROW_MACHINES",
    "NT_AUXV",
    "NT_FILE",
    "NT_MAPS",
    "NT_PRPSINFO",
    "NT_PRSTATUS",
    "NT_SIGINFO",
    "UNKNOWN_REGISTERS",
    "FileNote",
    "Prpsinfo",
    "Prstatus",
    "by_kind",
    "fault_address_of",
    "native_registers",
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

NT_SIGINFO = 0x53494749

MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243}
"""ELF's numbers of machines, by the names of uname."""

EM_386 = 3
NARROW_MACHINES = {62: EM_386, 183: 40}
"""The number that a 32-bit program of a machine has."""

_X86_64 = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
)
_I386 = "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss"
_REGISTERS = {
    62: _X86_64.split(),
    EM_386: _I386.split(),
    183: [*(f"x{k}" for k in range(31)), "sp", "pc", "pstate"],
}


def register_names(machine: int) -> Sequence[str]:
    """Returns the general registers of a machine in the kernel's order; none if it is not known."""
    return _REGISTERS.get(machine, [])


UNKNOWN_REGISTERS = {"cs": 0x33, "ss": 0x2B}
"""The values of registers that are not known: debuggers see from these that it has 64 bits."""


def native_registers(machine: int, values: Mapping[str, int]) -> Mapping[str, int]:
    """Returns registers by the names of a machine.

    ptrace gives a 64-bit tool those of a 32-bit target of x86 by their 64-bit names.
    """
    if machine != EM_386 or "rip" not in values:
        return values
    wide = {name: name if name in values else f"r{name[1:]}" for name in _REGISTERS[EM_386]}
    wide["orig_eax"] = "orig_rax"
    return {name: values.get(source, 0) & 0xFFFFFFFF for name, source in wide.items()}


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


class _Layout(NamedTuple):
    """How the notes of a class are laid out."""

    prstatus: struct.Struct
    """si_signo si_code si_errno, cursig, sigpend sighold, pid ppid pgrp sid, four times; the
    registers, and whether floating-point ones follow, come last."""
    prpsinfo: struct.Struct
    """state sname zomb nice, flag, uid gid pid ppid pgrp sid, name, arguments"""
    tid_at: int
    word: str
    flag_len: int
    fault_at: int
    """Where siginfo_t has the address of a fault."""


_LAYOUTS = {
    64: _Layout(
        struct.Struct("=iiih2xQQiiii64x"), struct.Struct("=bcbb4xQIIiiii16s80s"), 32, "Q", 8, 16
    ),
    32: _Layout(
        struct.Struct("=iiih2xIIiiii32x"), struct.Struct("=bcbbIHHiiii16s80s"), 24, "I", 4, 12
    ),
}
_WORD = struct.Struct("=Q")
_MOST_UID16 = 0xFFFE  # overflowuid, as the kernel writes it


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
    machine: int,
    thread: Prstatus,
    *,
    ppid: int = 0,
    pgrp: int = 0,
    sid: int = 0,
    bits: int = 64,
) -> bytes:
    """Returns the bytes of NT_PRSTATUS."""
    layout = _LAYOUTS[bits]
    head = layout.prstatus.pack(thread.signo, 0, 0, thread.signo, 0, 0, thread.tid, ppid, pgrp, sid)
    words = [thread.registers.get(name, 0) for name in register_names(machine)]
    tail = bytes(layout.flag_len)
    return head + struct.pack(f"={len(words)}{layout.word}", *words) + tail


def parse_prstatus(machine: int, desc: memoryview, *, bits: int = 64) -> Prstatus:
    """Parses NT_PRSTATUS.

    Raises:
        ValueError: It is too short.
    """
    layout = _LAYOUTS[bits]
    names = register_names(machine)
    words = struct.Struct(f"={len(names)}{layout.word}")
    if len(desc) < layout.prstatus.size + words.size:
        raise ValueError(f"a thread of {len(desc)} bytes")
    _, _, _, signo, _, _, tid, *_ = layout.prstatus.unpack_from(desc)
    values = words.unpack_from(desc, layout.prstatus.size)
    return Prstatus(tid, signo, dict(zip(names, values, strict=True)))


def pack_prpsinfo(info: Prpsinfo, *, bits: int = 64) -> bytes:
    """Returns the bytes of NT_PRPSINFO."""
    state = info.state.encode("ascii", "replace")[:1] or b"?"
    number = max("RSDTZW".find(info.state), 0)
    ids = list(info[2:8])
    if bits == 32:
        ids[:2] = (min(one, _MOST_UID16) for one in ids[:2])
    head = (number, state, info.state == "Z", info.nice, 0)
    return _LAYOUTS[bits].prpsinfo.pack(*head, *ids, info.name[:15], info.args[:79])


def parse_prpsinfo(desc: memoryview, *, bits: int = 64) -> Prpsinfo:
    """Parses NT_PRPSINFO.

    Raises:
        ValueError: It is too short.
    """
    layout = _LAYOUTS[bits].prpsinfo
    if len(desc) < layout.size:
        raise ValueError(f"a process of {len(desc)} bytes")
    _, state, _, nice, _, *ids, name, args = layout.unpack_from(desc)
    uid, gid, pid, ppid, pgrp, sid = ids
    texts = name.partition(b"\0")[0], args.partition(b"\0")[0]
    return Prpsinfo(state.decode("latin-1"), nice, uid, gid, pid, ppid, pgrp, sid, *texts)


_ADDRESS_SIGNALS = frozenset({4, 5, 7, 8, 11})  # SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV
_SI_KERNEL = 0x80


def fault_address_of(siginfo: bytes, *, bits: int = 64) -> int | None:
    """Returns the address of a fault that a siginfo_t tells, or None if it tells none.

    The kernel tells none for a signal that a process sent (si_code <= 0), and for a general
    protection fault (SI_KERNEL), where the address field is 0.
    """
    at, word = _LAYOUTS[bits].fault_at, struct.Struct("=" + _LAYOUTS[bits].word)
    if len(siginfo) < at + word.size:
        return None
    signo, _, code = struct.unpack_from("=iii", siginfo)
    if signo not in _ADDRESS_SIGNALS or code <= 0 or code == _SI_KERNEL:
        return None
    return int(word.unpack_from(siginfo, at)[0])


def pack_file_note(files: Iterable[FileNote], page_size: int, *, bits: int = 64) -> bytes:
    """Returns the bytes of NT_FILE."""
    entries = list(files)
    word = _LAYOUTS[bits].word
    row = struct.Struct(f"=3{word}")
    parts = [struct.pack(f"=2{word}", len(entries), page_size)]
    parts += [row.pack(file.start, file.end, file.offset // page_size) for file in entries]
    parts += [file.name + b"\0" for file in entries]
    return b"".join(parts)


def parse_file_note(desc: memoryview, *, bits: int = 64) -> list[FileNote]:
    """Parses NT_FILE.

    Raises:
        ValueError: It is too short for what it says.
    """
    head, entry = (struct.Struct(f"={k}{_LAYOUTS[bits].word}") for k in (2, 3))
    if len(desc) < head.size:
        raise ValueError(f"mapped files in {len(desc)} bytes")
    count, unit = head.unpack_from(desc)
    found: list[FileNote] = []
    for (start, end, pages), name in _named(desc[head.size :], count, entry, "mapped files"):
        if pages * unit > _LAST_OFFSET:
            raise ValueError(f"a mapped file from {pages:#x} x {unit:#x} on at {start:#x}")
        found.append(FileNote(start, end, pages * unit, name))
    return found


_LAST_OFFSET = (1 << 64) - 1


def _named(
    rows: memoryview, count: int, entry: struct.Struct, what: str
) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yields rows that begin with a start and an end, each with its name from after the rows.

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


# A core file names mapped files only. This note of procvm, which other tools ignore, keeps
# the rest: [heap] and [stack], permissions, devices and inodes.
MAPS_OWNER = b"procvm"
# A number that no other tool uses: many tools ignore the owner.
NT_MAPS = 0x50564D31
_MAPS_ENTRY = struct.Struct("=QQIQIIQ")


def pack_maps_note(rows: list[VmaEntry]) -> bytes:
    """Returns the note that has the mappings."""
    parts = [_WORD.pack(len(rows))]
    parts += [_MAPS_ENTRY.pack(*row[:4], *row.dev, row.inode) for row in rows]
    parts += [row.name + b"\0" for row in rows]
    return pack_note(MAPS_OWNER, NT_MAPS, b"".join(parts))


def parse_maps_note(desc: memoryview) -> list[VmaEntry]:
    """Parses the note that has the mappings.

    Raises:
        ValueError: It is too short for what it says, or not in order.
    """
    if len(desc) < _WORD.size:
        raise ValueError(f"mappings in {len(desc)} bytes")
    count = _WORD.unpack_from(desc)[0]
    found: list[VmaEntry] = []
    for row, name in _named(desc[_WORD.size :], count, _MAPS_ENTRY, "mappings"):
        start, end, flags, offset, major, minor, inode = row
        if flags > _ALL_PERMS:
            raise ValueError(f"a mapping of permissions {flags:#x} at {start:#x}")
        found.append(VmaEntry(start, end, flags, offset, (major, minor), inode, name))
    return found


_ALL_PERMS = 15


def by_kind(notes: Iterable[Note], *, bits: int = 64) -> dict[tuple[bytes, int], list[memoryview]]:
    """Returns the bytes of the notes of each owner and type, in their order.

    Raises:
        ValueError: Two are of the same thread.
    """
    found: dict[tuple[bytes, int], list[memoryview]] = {}
    tids: set[bytes] = set()
    for owner, kind, desc in notes:
        if kind == NT_PRSTATUS and owner == b"CORE":
            # Checked here, so that a crafted file does not cost more than its first notes.
            at = _LAYOUTS[bits].tid_at
            tid = bytes(desc[at : at + 4])
            if tid in tids:
                raise ValueError(f"two threads of the number {int.from_bytes(tid, 'little')}")
            tids.add(tid)
        found.setdefault((owner, kind), []).append(desc)
    return found
