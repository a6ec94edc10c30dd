"""Pieces of work: a search or scan cuts memory into pieces and works on several at a time.

A piece is one range of one memory with one needle. It pickles, so any executor can run it:
threads by default, or processes on a cluster that open the same core file.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from procvm._base.address import as_len
from procvm._local.buffers import Scratch, fill_zeros
from procvm._local.pool import Pool
from procvm._mm.extent import Content
from procvm._mm.memory import UserMemory
from procvm._space.patterns import Needle
from procvm._space.ranges import add_range
from procvm._space.walk import clipped, read_extents

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

__all__ = [
    "CHUNK_LEN",
    "Found",
    "Task",
    "leave_room",
    "nr_threads",
    "read_pieces",
    "results",
    "run_task",
    "take_room",
    "tasks_of",
]

CHUNK_LEN = 1 << 22
"""Bytes that one piece of work searches."""

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 8
_NEAR = 1 << 16
_LONG_HOLE = 1 << 24

_rooms = Pool(_MOST_THREADS, lambda: Scratch(0))


class Task(NamedTuple):
    """One piece of work: the places from `start` to `end`, of the range from `low` to `high`."""

    memory: UserMemory
    needle: Needle
    start: int
    end: int
    low: int
    high: int

    @property
    def is_hole(self) -> bool:
        """Whether nothing is mapped there: then it has no range."""
        return self.low == self.high


class Found(NamedTuple):
    """The result of one piece of work.

    Attributes:
        words: The hits, as many words for each as `Needle.stride` says.
        matches: The bytes of the hits, one after the other; none where `Needle.literal` has them.
        skipped: Ranges that could not be read.
    """

    words: array[int]
    matches: bytearray
    skipped: list[tuple[int, int]]


def run_task(task: Task) -> Found:
    """Searches one range."""
    if task.is_hole:
        return Found(array("Q"), bytearray(), [(task.start, task.end)])
    needle = task.needle
    low = max(task.low, task.start - needle.before)
    high = min(task.high, task.end + needle.after)
    room = take_room(high - low)
    words = array("Q")
    matches = bytearray()
    try:
        pieces, skipped = read_pieces(task.memory, low, high, room.address)
        for first, last in pieces:
            view = room.view[first - low : last - low]
            # Hits before the range and after it belong to other pieces of work.
            begin, end = max(task.start - first, 0), max(task.end - first, 0)
            end = min(end, last - first)
            found = needle.find_between(view, room.address + first - low, first, begin, end)
            words.extend(found)
            _add_matches(matches, needle, found, view, first)
    finally:
        leave_room(room)
    return Found(words, matches, clipped(skipped, task.start, task.end))


def _add_matches(
    matches: bytearray, needle: Needle, words: array[int], view: memoryview, base: int
) -> None:
    """Adds the bytes of hits, of which `view` holds those from `base` on."""
    if needle.literal is not None:
        return
    if needle.stride == 1:
        size = needle.after + 1
        for at in words:
            matches += view[at - base : at - base + size]
        return
    stride = needle.stride
    for at, end in zip(words[::stride], words[stride - 1 :: stride], strict=True):
        matches += view[at - base : end - base]


def take_room(n: int) -> Scratch:
    """Returns room for `n` bytes, to be given back to `leave_room`."""
    room = _rooms.take()
    return room if len(room.view) >= n else Scratch(n)


def leave_room(room: Scratch) -> None:
    """Keeps room for the next one who needs some."""
    _rooms.leave(room)


def read_pieces(
    memory: UserMemory, low: int, high: int, own_address: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Reads a range to local memory as far as possible, each byte to its own place.

    Returns:
        The runs that were read, and those that could not be read.
    """
    pieces: list[tuple[int, int]] = []
    skipped: list[tuple[int, int]] = []
    # SAFETY: the caller has `high - low` bytes at `own_address`.
    for start, end, content, _ in read_extents(memory, memory.layout(low, high), low, own_address):
        if content is Content.HOLE:
            add_range(skipped, start, end)
            continue
        if content is Content.ZEROS:
            fill_zeros(own_address + start - low, end - start)
        add_range(pieces, start, end)
    return pieces, skipped


def tasks_of(
    memory: UserMemory, needle: Needle, ranges: list[tuple[int, int]], chunk_len: int
) -> Iterator[tuple[Task | None, int]]:
    """Yields pieces of work and the bytes that each brings the search on; some bring nothing."""
    sparse = not needle.found_in_zeros()
    for low, high in ranges:
        at = first = low
        for start, end, content in (*_passed_over(memory, low, high, sparse), (high, high, None)):
            is_hole = content is Content.HOLE
            # No hit reaches into a hole; one may begin in zeros and end in what comes after.
            last = start if is_hole else high
            left = start if is_hole else min(start + needle.before, high)
            while at < left:
                step = min(at + chunk_len, left)
                yield Task(memory, needle, at, step, first, last), step - at
                at = step
            if is_hole:
                yield Task(memory, needle, start, end, start, start), end - start
                at = first = end
                continue
            over = max(at, end - needle.after) if end < high else end
            if over > at:
                yield None, over - at
                at = over


def _passed_over(
    memory: UserMemory, low: int, high: int, sparse: bool
) -> Iterator[tuple[int, int, Content]]:
    """Yields what of a range no piece of work looks at: long holes, and zeros that hold no hit."""
    for start, end, content, _ in memory.layout(low, high):
        n = end - start
        is_long_hole = content is Content.HOLE and n > _LONG_HOLE
        if is_long_hole or (sparse and content is Content.ZEROS and n >= _NEAR):
            yield start, end, content


def results(
    run: Callable[[T], R],
    tasks: Iterable[tuple[T | None, int]],
    threads: int,
    executor: Executor | None,
) -> Generator[tuple[R | None, int], None, None]:
    """Yields what the pieces of work found, in their order, a few worked on ahead."""
    if executor is None and threads <= 1:
        for task, n in tasks:
            yield (None if task is None else run(task)), n
        return
    own = None
    if executor is None:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 (slow to import)

        own = executor = ThreadPoolExecutor(threads, "procvm-search")
    ahead: deque[tuple[Future[R] | None, int]] = deque()
    try:
        for task, n in tasks:
            ahead.append((None if task is None else executor.submit(run, task), n))
            if len(ahead) > threads + 1:
                future, done = ahead.popleft()
                yield (None if future is None else future.result()), done
        while ahead:
            future, done = ahead.popleft()
            yield (None if future is None else future.result()), done
    finally:
        for future, _ in ahead:
            if future is not None:
                future.cancel()
        if own is not None:
            own.shutdown(wait=True, cancel_futures=True)


def nr_threads(threads: int | None, executor: Executor | None, total: int) -> int:
    """Returns how many pieces of work are under way at a time, of `total` bytes."""
    if threads is not None:
        asked = max(as_len(threads, "threads"), 1)
        return asked if executor is not None else min(asked, -(-total // CHUNK_LEN) or 1)
    cores = len(os.sched_getaffinity(0))
    if executor is not None:
        return 2 * cores + 6
    return min(cores, _MOST_THREADS, -(-total // CHUNK_LEN) or 1)
