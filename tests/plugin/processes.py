"""What /proc tells of processes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.patience import eventually


def state_of(pid: int) -> str:
    """Returns the letter of a process's state; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_gone(pid: int) -> bool:
    """Waits until a process is gone, or is a zombie that init has not reaped yet."""

    def gone() -> bool:
        state = state_of(pid)
        return not state or (state == "Z" and not _is_ours(pid))

    return eventually(gone)


def _is_ours(pid: int) -> bool:
    return pid in children_of_ours()


def children_of_ours() -> set[int]:
    """Returns the children of this process, zombies too."""
    pid = os.getpid()
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(word) for path in lists for word in path.read_text().split()}
