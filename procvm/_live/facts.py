"""Reads the facts about a process that are not in its memory."""

from __future__ import annotations

from procvm._linux import procfs
from procvm._saved.facts import Facts
from procvm._symbols.core_notes import NARROW_MACHINES

__all__ = ["read_facts"]


def read_facts(pid: int, machine: int) -> Facts | None:
    """Returns the facts about a process, or None if /proc does not show it."""
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


def _of_any_thread(pid: int, name: str, most: int = -1) -> bytes:
    """Returns a file of a thread that has memory, since the leader may have ended before it."""
    for tid in (pid, *procfs.thread_ids(pid)):
        data = procfs.read_bytes(f"/proc/{pid}/task/{tid}/{name}", most)
        if data or procfs.task_has_memory(tid):
            return data or b""
    return b""
