"""Other processes that share a target's address space."""

from __future__ import annotations

from procvm._linux import procfs
from procvm._linux.libc import same_memory
from procvm.errors import SharedMemoryError

__all__ = ["require_no_peer"]


def require_no_peer(pid: int, *, everyone: bool = False) -> None:
    """Raises SharedMemoryError if another process runs in the same address space.

    A child made by vfork does not count: its parent is blocked meanwhile.

    Args:
        pid: The process.
        everyone: Whether to ask about every process of the machine, instead of the parent and
            the children alone. It finds a process that was reparented, too.
    """
    stat = procfs.read_stat(pid)
    if stat is None:
        return  # it is gone, which the atomic itself finds out
    tids = (pid, *procfs.thread_ids(pid))
    if everyone:
        others = procfs.pids()
    else:
        parent = int(stat[3])
        others = [*([parent] if parent else []), *procfs.children(pid, tids)]
    # kcmp fails for a leader that has ended before its threads, and for a kernel thread.
    task = procfs.task_with_memory(pid)
    for other in others:
        if other != pid and same_memory(task, other) and procfs.task_has_memory(other):
            raise SharedMemoryError(
                f"cannot access the memory of process {pid} atomically: process {other} runs in "
                "the same address space (CLONE_VM), and would write while the first is held"
            )
