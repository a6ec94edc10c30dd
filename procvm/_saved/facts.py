"""`Facts`: ids, threads and registers of a process, as a core file records them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from procvm._linux import procfs
from procvm.errors import AccessDeniedError, InvalidArgsError, PageFaultError

if TYPE_CHECKING:
    from procvm._space.space import VmSpace

__all__ = ["Facts", "Thread", "names_of_program"]

_AT_EXECFN = 31


class Thread(NamedTuple):
    """A thread of a target.

    Attributes:
        tid: Its id.
        name: Its name; any bytes.
        state: As /proc tells it: R runs, S and D sleep, t is held, T is stopped
            by a signal, Z has ended. Empty in a core file, which does not say.
        stack: The first address and the end (exclusive) of the mapping that its stack lies in;
            None where it is not known: of a thread other than the leader that runs just now, and
            in a core file.
    """

    tid: int
    name: bytes
    state: str
    stack: tuple[int, int] | None = None


class Facts(NamedTuple):
    """The ids, threads and registers of a process at one time.

    Attributes:
        pid: Its pid.
        ppid: The pid of its parent.
        pgrp: Its process group.
        sid: Its session.
        uid: Its real user id.
        gid: Its real group id.
        nice: Its niceness.
        state: One letter, as of a thread.
        name: Its name; any bytes.
        args: Its command line, with spaces between.
        auxv: Its auxiliary vector, raw.
        machine: The kind of processor, by ELF's number.
        threads: Those whose registers are known, first the one to begin with.
        registers: By tid, and by the kernel's names.
        signo: The signal that ended it, in a core file; 0 for none.
        siginfo: The siginfo of that signal, raw; empty if there is none.
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


def names_of_program(facts: Facts, argv0: bytes, vm: VmSpace) -> set[bytes]:
    """Returns the names that a program was started by: paths, file names, and its comm."""
    names = {facts.name, argv0}
    # The path that was given to exec, of a symlink too.
    path = procfs.parse_auxv(facts.auxv).get(_AT_EXECFN, 0)
    if path:
        with suppress(PageFaultError, AccessDeniedError, InvalidArgsError):
            names.add(vm.forced().read_cstring(path, 4096))
    return {name for each in names for name in (each, os.path.basename(each)) if name}
