"""The threads of a live process, and where their stacks are."""

from __future__ import annotations

from bisect import bisect_right

from procvm._linux import procfs
from procvm._linux.proc_maps import VmaEntry
from procvm._live.image import Image
from procvm._saved.facts import Thread

__all__ = ["threads_of"]

_LEADERS_STACK = b"[stack]"


def threads_of(image: Image) -> list[Thread]:
    """Returns the threads of a process, sorted by tid.

    Raises:
        ProcessExitedError: The process has ended.
        ProcessExecedError: The process runs another program.
        ClosedError: The process was closed.
    """
    image.open_files()
    listed = procfs.threads(image.pid)
    pointers = {tid: procfs.stack_pointer(image.pid, tid) for tid, _, _ in listed}
    # Both were read by pid. Without this proof they could be those of a process that got the
    # pid later.
    image.prove()
    if not listed:
        raise image.gone()
    entries = image.entries()
    return [
        Thread(tid, name, state, _stack(entries, pointers[tid], is_leader=tid == image.pid))
        for tid, name, state in listed
    ]


def _stack(
    entries: list[VmaEntry], pointer: int | None, *, is_leader: bool
) -> tuple[int, int] | None:
    if is_leader:
        for entry in reversed(entries):
            if entry.name == _LEADERS_STACK:
                return entry.start, entry.end
    if pointer is None:
        return None
    at = bisect_right(entries, pointer, key=lambda entry: entry.start) - 1
    if at < 0 or pointer >= entries[at].end:
        return None
    return entries[at].start, entries[at].end
