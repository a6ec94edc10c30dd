"""`restore`: writes back the bytes that changed since a snapshot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, final

from procvm._base.address import PAGE_SIZE, page_end
from procvm._base.optional import numpy_or_none
from procvm._base.perms import SHARED
from procvm._local.buffers import Pin, Scratch
from procvm._local.find import same
from procvm._mm.memory import UserMemory
from procvm._saved.diff import looks, pairs_in, part_of, runs_of, zeros
from procvm._saved.saved_memory import KeptMemory
from procvm._space.ranges import add_range
from procvm._space.walk import common
from procvm.errors import (
    Hint,
    NotStoppedError,
    PageFaultError,
    ProcvmError,
)

__all__ = ["restore"]

_WRITE_LEN = 1 << 18
"""Bytes that one write moves: a hold that has ended is noticed before the next one."""

_RUNS = 1024
"""Runs that are written at a time the quick way; one that fails there takes the others along."""

_WORTH_NUMPY = 1 << 24
"""Bytes from which on numpy, if it is not there yet, is imported before the target is held."""

_MOST_NAMED = 4


def restore(kept: KeptMemory, memory: UserMemory) -> int:
    """Writes back the bytes that differ; returns how many did.

    Args:
        kept: The memory as it was.
        memory: The memory to write to, with protections ignored.

    Raises:
        PageFaultError: A page cannot be written; or a part of the copy is not mapped any
            more, and all the rest was restored.
        NotStoppedError: The hold ended before all was restored.
    """
    if sum(piece.end - piece.start for piece in kept.pieces() if piece.own) > _WORTH_NUMPY:
        numpy_or_none()
    with memory.held() as lasts:
        work = _Restore(kept, memory, lasts)
        work.run()
        work.require_hold()
    if work.lost is not None:
        work.lost.copied_len = work.done
        raise work.lost
    if work.gone:
        raise _of_gone(work.gone, memory.pid, work.done)
    return work.done


@final
class _Restore:
    """A restore under way.

    Attributes:
        done: Bytes that were put back.
        gone: The ranges of the copy that were not restored.
        lost: The error of the first byte of the copy that could not be read, if there is one.
    """

    def __init__(
        self, kept: KeptMemory, memory: UserMemory, lasts: Callable[[], bool] | None
    ) -> None:
        self._kept = kept
        self._memory = memory
        self._lasts = lasts
        self.done = 0
        self.gone: list[tuple[int, int]] = []
        self.lost: PageFaultError | None = None
        # Equal bytes between two that differ may be written again only where no process
        # changes them meanwhile: in private memory of a target that is held.
        regions = (memory.regions() or []) if lasts is not None else []
        self._private = [(one.start, one.end) for one in regions if not one.flags & SHARED]

    def run(self) -> None:
        """Restores look by look: the runs of all memory at once would take as much again."""
        for start, end, old in looks(self._kept, None):
            at = start
            for low, high, was, now in pairs_in(start, end, old, self._memory):
                self._missing(at, low, old, start)
                self._put_back(low, high, was, now)
                at = high
            kept_end = end if old is None else start + old.n
            self._missing(at, kept_end, old, start)
            if kept_end < end:
                # The core file was cut off since it was opened: its own error says so.
                self._unread(kept_end, end)

    def _missing(self, start: int, end: int, old: Pin | None, base: int) -> None:
        """Restores a range that the layout leaves out, as far as it can be read all the same."""
        at = start
        while old is not None and at < end:
            # The page held data, so that reading it allocates nothing that was not there.
            now = Scratch(min(page_end(at), end) - at)
            try:
                self._memory.read(at, now.address, len(now.view))
            except PageFaultError:
                break
            new = Pin(now.address, len(now.view), now.view)
            self._put_back(at, at + new.n, part_of(old, at - base, new.n), new)
            at += new.n
        if at < end:
            add_range(self.gone, at, end)

    def _unread(self, start: int, end: int) -> None:
        byte = Scratch(1)
        try:
            self._kept.read(start, byte.address, 1)
        except PageFaultError as error:
            self.lost = self.lost or error
        add_range(self.gone, start, end)

    def _put_back(self, start: int, end: int, was: Pin | None, now: Pin | None) -> None:
        if was is None and now is None:
            return
        old, new = was or zeros(end - start), now or zeros(end - start)
        if same(old.address, new.address, old.n):
            return
        at = start
        for low, high in [*common(start, end, self._private), (end, end)]:
            if at < low:
                a, b = part_of(old, at - start, low - at), part_of(new, at - start, low - at)
                self._write_runs(at, a, runs_of(a, b))
            if low < high:
                a, b = part_of(old, low - start, high - low), part_of(new, low - start, high - low)
                self._write(low, a, _by_pages(low, a, b))
            at = high

    def _write_runs(self, address: int, old: Pin, runs: list[tuple[int, int]]) -> None:
        """Writes only the bytes that differ."""
        for at in range(0, len(runs), _RUNS):
            some = runs[at : at + _RUNS]
            # A million runs of a byte each take a tenth of the time that `write` takes.
            nr = self._memory.write_runs(address, old.view, some, self._lasts)
            self.done += sum([last - first for first, last in some[:nr]])
            self._write(address, old, ((first, last, last - first) for first, last in some[nr:]))

    def _write(self, address: int, old: Pin, places: Iterable[tuple[int, int, int]]) -> None:
        """Writes parts of a range, each with the number of bytes in it that differ."""
        memory = self._memory
        for first, last, nr in places:
            if self._lasts is not None:
                self.require_hold()
            try:
                # SAFETY: `old` is alive, and has all of the part.
                memory.write(address + first, old.address + first, last - first)
            except ProcvmError as error:
                error.copied_len += self.done
                raise
            self.done += nr

    def require_hold(self) -> None:
        """Raises if the target was held to begin with and is not any more."""
        if self._lasts is None or self._lasts():
            return
        # Without the read, a target that has ended is reported as one whose hold ended.
        byte = Scratch(1)
        self._memory.read(self._kept.pieces()[0].start, byte.address, 1)
        raise NotStoppedError(
            f"the hold on process {self._memory.pid} ended before all was restored; the bytes "
            "that were not restored are as the target has them",
            pid=self._memory.pid,
            copied_len=self.done,
            hint=Hint("longest_hold"),
        )


def _by_pages(address: int, old: Pin, new: Pin) -> Iterator[tuple[int, int, int]]:
    """Yields parts to write in which equal bytes may be written again, as (first, end, how many).

    Neighbouring pages with a difference are one part, from the first byte that differs to
    the last. A write costs the same as moving some KiB, so that thousands of runs in a page
    would take a thousand times as long. A page without a difference is not written: that
    would copy a page of a file.
    """
    # The target is stopped here: an import of numpy takes longer than it saves.
    np = numpy_or_none() if "numpy" in sys.modules else None
    differ = (
        None
        if np is None
        else np.frombuffer(old.view, np.uint8) != np.frombuffer(new.view, np.uint8)
    )
    begin = end = 0
    for at, last in _dirty_pages(np, differ, address, old, new):
        if end and (at > end or end - begin >= _WRITE_LEN):
            yield _extremes(np, differ, begin, end, old, new)
            begin = at
        begin, end = begin if end else at, last
    if end:
        yield _extremes(np, differ, begin, end, old, new)


def _dirty_pages(
    np: Any, differ: Any, address: int, old: Pin, new: Pin
) -> Iterator[tuple[int, int]]:
    """Yields the parts of pages that have a difference, as (first, last)."""
    head = min(page_end(address) - address, old.n) if address % PAGE_SIZE else 0
    nr, step = (old.n - head) // PAGE_SIZE, PAGE_SIZE
    middle = head + nr * step
    if head and not same(old.address, new.address, head):
        yield 0, head
    if np is None:
        for at in range(head, middle, step):
            if not same(old.address + at, new.address + at, step):
                yield at, at + step
    else:
        # Eight marks at a time: most of them are 0.
        words = differ[head:middle].view(np.uint64).reshape(nr, step // 8)
        for k in np.flatnonzero(words.any(axis=1)).tolist():
            yield head + k * step, head + (k + 1) * step
    if middle < old.n and not same(old.address + middle, new.address + middle, old.n - middle):
        yield middle, old.n


def _extremes(
    np: Any, differ: Any, begin: int, end: int, old: Pin, new: Pin
) -> tuple[int, int, int]:
    """Returns where the first byte of a part is that differs, the end of the last, how many do."""
    if np is None:
        n = end - begin
        a, b = (int.from_bytes(one.view[begin:end], "big") for one in (old, new))
        marks = (a ^ b).to_bytes(n, "big")
        first, last = n - len(marks.lstrip(b"\0")), len(marks.rstrip(b"\0"))
        return begin + first, begin + last, n - marks.count(0)
    part = differ[begin:end]
    first, last = int(part.argmax()), len(part) - int(part[::-1].argmax())
    return begin + first, begin + last, int(np.count_nonzero(part))


def _of_gone(gone: list[tuple[int, int]], pid: int, done: int) -> PageFaultError:
    named = ", ".join(f"[{start:#x}, {end:#x})" for start, end in gone[:_MOST_NAMED])
    more = f" and {len(gone) - _MOST_NAMED} more" if len(gone) > _MOST_NAMED else ""
    nr = sum(end - start for start, end in gone)
    return PageFaultError(
        f"{nr} bytes of process {pid} were not restored: {named}{more} cannot be read any more; "
        "all the rest was restored",
        address=gone[0][0],
        pid=pid,
        copied_len=done,
    )
