"""The processes that /proc shows, and the rule that decides which of them a name means."""

from __future__ import annotations

import os
from typing import NamedTuple

from procvm._base.text import printable
from procvm._linux import procfs

__all__ = ["NamedProcess", "named_process", "processes", "processes_called"]

_DELETED = b" (deleted)"
_ENDED = frozenset({b"Z", b"X"})
_HELPERS = frozenset({b"procvm-tracer", b"procvm-keeper"})
"""The names that procvm's own processes give themselves: the tracer with its watchdog, the keeper.

They run the interpreter of the tool. Without these names "python3" would mean them too."""


class NamedProcess(NamedTuple):
    """A process by its names.

    Attributes:
        pid: Its pid.
        comm: Its comm, as proc_pid_comm(5) defines it: at most 15 bytes.
        argv: Its command line; empty for a kernel thread and for a zombie.
        has_ended: Whether it is a zombie.
    """

    pid: int
    comm: bytes
    argv: list[bytes]
    has_ended: bool = False

    @property
    def program(self) -> bytes:
        """The last part of the first word of its command line."""
        return os.path.basename(self.argv[0]) if self.argv else b""

    @property
    def command(self) -> str:
        """Its command line, printable; empty if it has none."""
        return printable(b" ".join(self.argv))

    def is_called(self, name: str) -> bool:
        """Returns whether `name` is its comm, or the base name of its argv[0] or its executable.

        A program that was started by a symlink, such as ``vi``, has the symlink's name in argv[0]
        and the name of the file that the kernel runs in /proc/PID/exe. A helper process of procvm
        has no name but its comm.
        """
        wanted = os.fsencode(name)
        if self.comm in _HELPERS:
            return wanted == self.comm
        return wanted in (self.comm, self.program) or wanted == _executable(self.pid)

    def __str__(self) -> str:
        return f"{self.pid:<8} {self.command or printable(self.comm)}"


def _executable(pid: int) -> bytes:
    """Returns the base name of a process's executable; empty where the kernel does not tell."""
    try:
        path = os.readlink(os.fsencode(f"/proc/{pid}/exe"))
    except OSError:
        return b""
    return os.path.basename(path.removesuffix(_DELETED))


def processes() -> list[NamedProcess]:
    """Returns all processes that /proc shows except the tool itself, sorted by pid."""
    found: list[NamedProcess] = []
    for pid in sorted(procfs.pids()):
        process = named_process(pid)
        if process is not None and pid != os.getpid():
            found.append(process)
    return found


def named_process(pid: int) -> NamedProcess | None:
    """Returns the names of a process, or None if /proc shows no such process."""
    stat = procfs.read_stat(pid)
    if stat is None:
        return None
    line = procfs.read_bytes(f"/proc/{pid}/cmdline") or b""
    argv = line.removesuffix(b"\0").split(b"\0") if line else []
    return NamedProcess(pid, stat[1], argv, stat[2] in _ENDED)


def processes_called(name: str) -> list[NamedProcess]:
    """Returns the processes that have a name, sorted by pid; see `NamedProcess.is_called`.

    A zombie counts only if no living process has the name.
    """
    found = [process for process in processes() if process.is_called(name)]
    return [process for process in found if not process.has_ended] or found
