"""Reads and parses the files of /proc/PID that describe a process."""

from __future__ import annotations

import errno
import functools
import os
import re
import struct
from collections.abc import Iterable
from typing import NamedTuple

from procvm._base.fd import Fd
from procvm._linux.own_means import require_own_means
from procvm.errors import UnsupportedError

__all__ = [
    "Status",
    "auxv_word",
    "children",
    "has_memory",
    "parse_auxv",
    "parse_stat",
    "parse_status",
    "parse_undumped",
    "pids",
    "read_bytes",
    "read_stat",
    "read_status",
    "read_text",
    "require_own_proc",
    "stack_pointer",
    "status_fields",
    "task_has_memory",
    "task_with_memory",
    "thread_ids",
    "thread_leader",
    "threads",
    "token_address",
    "user_space_end",
]


_AT_PHENT = 4
AT_ENTRY = 9
AT_RANDOM = 25
_PHDR_LENS = {8: 56, 4: 32}
"""Bytes of a program header (AT_PHENT), by those of a pointer. Source: elf(5)."""


def auxv_word(data: bytes) -> int:
    """Returns the size of a word of /proc/PID/auxv, 4 or 8, which is that of the pointers.

    It is the size on this machine if neither makes sense.
    """
    for size, phdr_len in _PHDR_LENS.items():
        if _pairs(data, size).get(_AT_PHENT) == phdr_len:
            return size
    return struct.calcsize("@N")


def parse_auxv(data: bytes) -> dict[int, int]:
    """Parses /proc/PID/auxv of a 32-bit or 64-bit program; leaves out an incomplete last entry."""
    return _pairs(data, auxv_word(data))


def _pairs(data: bytes, size: int) -> dict[int, int]:
    pair = struct.Struct("=QQ" if size == 8 else "=II")
    return dict(pair.iter_unpack(data[: len(data) // pair.size * pair.size]))


_AREA = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) |^VmFlags:(.*)$", re.MULTILINE)


def parse_undumped(smaps: bytes) -> list[tuple[int, int]]:
    """Returns the mappings of /proc/PID/smaps that are marked MADV_DONTDUMP, as (start, end)."""
    found: list[tuple[int, int]] = []
    start = end = 0
    for match in _AREA.finditer(smaps):
        if match[3] is None:
            start, end = int(match[1], 16), int(match[2], 16)
        elif b"dd" in match[3].split():
            found.append((start, end))
    return found


def token_address(path: str) -> int | None:
    """Returns the address of the 16 random bytes of the exec (AT_RANDOM); 0 if it has none.

    The result is None while an exec is under way.

    Raises:
        OSError: As open and read; ESRCH for a task without memory.
    """
    with Fd.open(f"{path}/auxv", os.O_RDONLY) as file:
        data = os.read(file.number, 4096)
    if not data:
        # Linux 6.1 opens the files of a leader that has ended before its threads.
        raise ProcessLookupError(errno.ESRCH, "the task has no memory", f"{path}/auxv")
    auxv = parse_auxv(data)
    return auxv.get(AT_RANDOM, 0) if any(auxv) else None


class Status(NamedTuple):
    """The fields of /proc/PID/status that decide who may do what."""

    name: bytes
    state: str
    tgid: int
    tracer_pid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    permitted: int
    effective: int
    kernel_thread: bool
    seccomp: int


def status_fields(data: bytes) -> dict[bytes, bytes]:
    """Returns the fields of /proc/PID/status as they are in the text, by name."""
    fields: dict[bytes, bytes] = {}
    for line in data.split(b"\n"):
        key, colon, value = line.partition(b":")
        # The name comes first and its newlines are escaped, so the first line with a key is the
        # kernel's own.
        if colon and key not in fields:
            fields[key] = value.removeprefix(b"\t")
    return fields


def parse_status(data: bytes) -> Status:
    """Parses /proc/PID/status.

    Raises:
        ValueError: A field is missing or not a number.
    """
    fields = status_fields(data)
    try:
        return Status(
            # Only these two are escaped there.
            name=re.sub(rb"\\(.)", _unescape, fields[b"Name"]),
            state=fields[b"State"][:1].decode("ascii"),
            tgid=int(fields[b"Tgid"]),
            tracer_pid=int(fields[b"TracerPid"]),
            uids=tuple(map(int, fields[b"Uid"].split())),
            gids=tuple(map(int, fields[b"Gid"].split())),
            permitted=int(fields[b"CapPrm"], 16),
            effective=int(fields[b"CapEff"], 16),
            kernel_thread=fields.get(b"Kthread", b"0").strip() == b"1",
            seccomp=int(fields.get(b"Seccomp", b"0")),
        )
    except KeyError as error:
        raise ValueError(f"no {error} in a status file") from None


def _unescape(match: re.Match[bytes]) -> bytes:
    return b"\n" if match[1] == b"n" else match[1]


def read_status(pid: int | str) -> Status | None:
    """Returns the status of a process, or None if /proc shows no such process."""
    data = read_bytes(f"/proc/{pid}/status")
    return parse_status(data) if data else None


def parse_stat(data: bytes) -> list[bytes]:
    """Returns the fields of /proc/PID/stat, numbered as proc_pid_stat(5) does minus one.

    The name, field 2, may hold anything, ``) R 1`` too: it ends at the last ``)``.

    Raises:
        ValueError: It is not a line of stat.
    """
    head, closed, tail = data.rpartition(b")")
    pid, opened, name = head.partition(b"(")
    fields = tail.split()
    if not closed or not opened or not pid.strip().isdigit() or len(fields) < 2:
        raise ValueError(f"not a line of stat: {data[:80]!r}")
    return [pid.strip(), name, *fields]


_READ_LEN = 1 << 16


def read_bytes(path: str, most: int = -1) -> bytes | None:
    """Returns a small file of /proc, or None if the process or the file is not there.

    Raises:
        VmError: This process lacks descriptors or memory, so that nothing is known.
    """
    # A Python file object takes longer to make than these system calls.
    parts: list[bytes] = []
    try:
        with Fd.open(path, os.O_RDONLY) as file:
            while most and (part := os.read(file.number, most if most > 0 else _READ_LEN)):
                parts.append(part)
                most = most - len(part) if most > 0 else most
    except OSError as error:
        require_own_means(error, path)
        return None
    return b"".join(parts)


def read_stat(pid: int) -> list[bytes] | None:
    """Returns the fields of /proc/PID/stat, or None if there is no such process."""
    data = read_bytes(f"/proc/{pid}/stat")
    return parse_stat(data) if data else None


def has_memory(pid: int) -> bool:
    """Returns whether any thread of the process has an address space; one that ends has none."""
    return any(task_has_memory(tid) for tid in (pid, *thread_ids(pid)))


def task_has_memory(tid: int) -> bool:
    """Returns whether a task has an address space."""
    return (read_bytes(f"/proc/{tid}/statm") or b"0 ")[:2] != b"0 "


def task_with_memory(pid: int) -> int:
    """Returns the leader's tid, or that of a thread with memory if the leader has ended."""
    for tid in (pid, *thread_ids(pid)):
        if task_has_memory(tid):
            return tid
    return pid


def thread_ids(pid: int) -> list[int]:
    """Returns the ids of the threads of a process other than its leader.

    Raises:
        VmError: This process lacks descriptors or memory.
    """
    try:
        names = os.listdir(f"/proc/{pid}/task")
    except OSError as error:
        require_own_means(error, f"/proc/{pid}/task")
        return []
    return [int(name) for name in names if name != str(pid)]


def threads(pid: int) -> list[tuple[int, bytes, str]]:
    """Returns (tid, name, state) of every thread of a process, in plain types."""
    found: list[tuple[int, bytes, str]] = []
    for tid in sorted({pid, *thread_ids(pid)}):
        data = read_bytes(f"/proc/{pid}/task/{tid}/stat")
        if data:
            fields = parse_stat(data)
            found.append((tid, fields[1], fields[2].decode("ascii", "replace")))
    return found


def stack_pointer(pid: int, tid: int) -> int | None:
    """Returns the stack pointer of a thread that sleeps or is stopped; None where it is not known.

    The kernel does not tell it of a thread that runs, nor to a reader that may not trace it.

    Source:
        /proc/PID/task/TID/syscall, proc_pid_syscall(5): the last field but one.
    """
    fields = (read_bytes(f"/proc/{pid}/task/{tid}/syscall") or b"").split()
    return int(fields[-2], 16) if len(fields) > 2 else None


def pids() -> list[int]:
    """Returns the pids of all processes.

    Raises:
        VmError: This process lacks descriptors or memory.
    """
    try:
        names = os.listdir("/proc")
    except OSError as error:
        require_own_means(error, "/proc")
        return []
    return [int(name) for name in names if name.isdigit()]


def children(pid: int, tids: Iterable[int]) -> list[int]:
    """Returns the children of the tasks `tids` of a process."""
    found: list[int] = []
    for tid in tids:
        found.extend(map(int, (read_bytes(f"/proc/{pid}/task/{tid}/children") or b"").split()))
    return found


def thread_leader(tid: int) -> int | None:
    """Returns the pid of the process whose thread, not leader, `tid` is; else None."""
    status = read_status(tid)
    return status.tgid if status is not None and status.tgid != tid else None


def read_text(path: str) -> str | None:
    """Returns the stripped text of a small file, or None if it cannot be read."""
    data = read_bytes(path)
    return None if data is None else data.decode("ascii", "replace").strip()


def require_own_proc() -> None:
    """Raises UnsupportedError unless /proc is that of the tool's own pid namespace."""
    try:
        found = os.readlink("/proc/self")
    except OSError:
        raise UnsupportedError(
            "/proc is not mounted, or does not show this process; mount proc on /proc"
        ) from None
    if found != str(os.getpid()):
        raise UnsupportedError(
            f"/proc belongs to another pid namespace: it calls this process {found}, and its pid "
            f"is {os.getpid()}; mount the proc of this namespace on /proc"
        )


_USER_SPACE_END = {"aarch64": 1 << 52, "riscv64": 1 << 56}


@functools.cache
def user_space_end() -> int:
    """Returns one past the last address that user space of this machine can have.

    Source:
        The kernel's ``TASK_SIZE_MAX`` of each architecture.
    """
    if os.uname().machine != "x86_64":
        return _USER_SPACE_END.get(os.uname().machine, 1 << 56)
    # The last page is kept free on x86-64. With five-level paging a program can ask for 56-bit
    # addresses. The flags of the first processor are in the first 8 KiB of the text.
    flags = read_bytes("/proc/cpuinfo", 8192) or b""
    return (1 << (56 if b" la57" in flags else 47)) - 4096
