"""What /proc says of processes, read here without procvm."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.support.patience import eventually


def status_field(pid: int | str, field: str) -> str:
    """Returns a field of /proc/PID/status; OSError if there is no such process."""
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return value.strip()
    raise AssertionError(f"no {field} of process {pid}")


def state_of(tid: int) -> str:
    """Returns the letter of a task's state."""
    return Path(f"/proc/{tid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]


def has_ended(pid: int) -> bool:
    """Returns whether a process is gone, or a zombie."""
    try:
        return state_of(pid) in "ZX"
    except OSError:
        return True


def states(pid: int) -> dict[int, str]:
    """Returns the state of every thread; those that end meanwhile are left out."""
    found: dict[int, str] = {}
    for tid in map(int, os.listdir(f"/proc/{pid}/task")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/task/{tid}/stat").read_text(errors="replace")
            found[tid] = stat.rpartition(")")[2].split()[0]
    return found


def tracers(pid: int) -> set[int]:
    """Returns the TracerPid of all threads, without 0: empty if none of them is traced."""
    found: set[int] = set()
    for tid in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            found.add(int(status_field(f"{pid}/task/{tid}", "TracerPid")))
    return found - {0}


def tracer_of(pid: int) -> int:
    """Returns the pid of the process, not the thread, that traces a held target."""
    (thread,) = tracers(pid)
    return int(status_field(thread, "Tgid"))


def is_free(pid: int) -> bool:
    """Returns whether no thread is traced or in a ptrace stop."""
    return not tracers(pid) and "t" not in states(pid).values()


def assert_free(pid: int) -> None:
    """Asserts that the target is let go: no thread of it is traced or held."""
    assert eventually(lambda: is_free(pid)), (
        f"process {pid} is left {states(pid)}, traced by {tracers(pid)}"
    )


def assert_unharmed(pid: int, states: str = "RS") -> None:
    """Asserts that the target lives, is not traced, and is in one of these states."""
    assert status_field(pid, "TracerPid") == "0"
    assert state_of(pid) in states


def own_fds() -> list[tuple[int, str]]:
    """Returns every open descriptor of this process and what it is of."""
    found: list[tuple[int, str]] = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return sorted(found)


def own_threads() -> list[str]:
    """Returns the ids of the threads of this process."""
    return sorted(os.listdir("/proc/self/task"))


def own_children() -> list[str]:
    """Returns the pids of the children of this process, zombies too."""
    found: list[str] = []
    for tid in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):  # a joined thread is listed for a moment
            found += Path(f"/proc/self/task/{tid}/children").read_text().split()
    return sorted(found)
