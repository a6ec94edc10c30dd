"""What is known of a process beside its memory, as a core file tells it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from procvm.elf.core import NARROW_MACHINES
from procvm.errors import AccessDeniedError, InvalidArgsError, PageFaultError
from procvm.linux import procfs

if TYPE_CHECKING:
    from procvm.mm.space import VmSpace

__all__ = ["Facts", "Thread", "names_of_program", "read_facts"]

_AT_EXECFN = 31


class Thread(NamedTuple):
    """A thread of a target.

    Attributes:
        tid: Its id.
        name: Its name; any bytes.
        state: As /proc tells it: R runs, S and D sleep, t is held, T is stopped
            by a signal, Z has ended. Empty in a core file, which does not say.
    """

    tid: int
    name: bytes
    state: str


class Facts(NamedTuple):
    """What is known of a process at one time.

    Attributes:
        pid: Its number.
        ppid: Its parent's.
        pgrp: Its group's.
        sid: Its session's.
        uid: Whose it is.
        gid: Of which group.
        nice: Its niceness.
        state: One letter, as of a thread.
        name: Its name; any bytes.
        args: Its command line, with spaces between.
        auxv: What the kernel told the program at its start, as it stands there.
        machine: The kind of processor, by ELF's number.
        threads: Those whose registers are known, first the one to begin with.
        registers: By tid, and by the kernel's names.
        signo: The signal that ended it, in a core file; 0 for none.
        siginfo: What the kernel told with that signal, as it stands there; or nothing.
        address_size: Bytes of a pointer, 4 or 8.
    """

    pid: int
    ppid: int = 0
    pgrp: int = 0
    sid: int = 0
    uid: int = 0
    gid: int = 0
    nice: int = 0
    state: str = "R"
    name: bytes = b""
    args: bytes = b""
    auxv: bytes = b""
    machine: int = 0
    threads: tuple[Thread, ...] = ()
    registers: Mapping[int, Mapping[str, int]] = {}
    signo: int = 0
    siginfo: bytes = b""
    address_size: int = 8


def read_facts(pid: int, machine: int) -> Facts | None:
    """Returns what /proc tells of a process, or None if it does not."""
    stat = procfs.read_stat(pid)
    status = procfs.read_status(pid)
    if stat is None or status is None:
        return None
    args = _of_any_thread(pid, "cmdline", 4096)
    auxv = _of_any_thread(pid, "auxv")
    address_size = procfs.auxv_word(auxv)
    return Facts(
        pid=pid,
        ppid=int(stat[3]),
        pgrp=int(stat[4]),
        sid=int(stat[5]),
        uid=status.uids[0],
        gid=status.gids[0],
        nice=int(stat[18]),
        state=status.state,
        name=stat[1],
        args=args.rstrip(b"\0").replace(b"\0", b" "),
        auxv=auxv,
        machine=NARROW_MACHINES.get(machine, machine) if address_size == 4 else machine,
        address_size=address_size,
    )


def names_of_program(facts: Facts, argv0: bytes, vm: VmSpace) -> set[bytes]:
    """Returns what a program was started as: paths, their last parts, and its comm."""
    names = {facts.name, argv0}
    # The path that was given to exec, of a symlink too.
    path = procfs.parse_auxv(facts.auxv).get(_AT_EXECFN, 0)
    if path:
        with suppress(PageFaultError, AccessDeniedError, InvalidArgsError):
            names.add(vm.forced().read_cstring(path, 4096))
    return {name for each in names for name in (each, os.path.basename(each)) if name}


def _of_any_thread(pid: int, name: str, most: int = -1) -> bytes:
    """Returns a file of a thread that has memory: the leader may have ended."""
    for tid in (pid, *procfs.thread_ids(pid)):
        data = procfs.read_bytes(f"/proc/{pid}/task/{tid}/{name}", most)
        if data or procfs.task_has_memory(tid):
            return data or b""
    return b""
