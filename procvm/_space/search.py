"""Search: a target's memory in pieces, several at a time, the hits in order.

A piece of work is one range of one memory with one needle, and pickles, so
that any executor can run it: threads by default, or processes on a cluster
that open the same core file.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, final

from procvm._base.address import as_address, as_len
from procvm._base.perms import SHARED, Perms, needed
from procvm._local.buffers import Scratch, fill_zeros
from procvm._mm.extent import Content
from procvm._mm.memory import Region, UserMemory
from procvm._space.hits import Hits
from procvm._space.patterns import Needle
from procvm._space.walk import clipped, read_extents
from procvm.errors import Hint, UnsupportedError

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

__all__ = [
    "CHUNK_LEN",
    "Found",
    "Search",
    "Task",
    "add_range",
    "leave_room",
    "nr_threads",
    "pairs_of",
    "ranges_by_perms",
    "ranges_of",
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

Progress = Callable[[int, int], object]

_MOST_THREADS = 8
_NEAR = 1 << 16
_LONG_HOLE = 1 << 24

# Out of the list while it is used.
_idle: list[Scratch] = []


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
    """What one piece of work found: hits as the needle gives them, and what could not be read."""

    hits: array[int]
    skipped: list[tuple[int, int]]


def run_task(task: Task) -> Found:
    """Searches one range."""
    if task.is_hole:
        return Found(array("Q"), [(task.start, task.end)])
    needle = task.needle
    low = max(task.low, task.start - needle.before)
    high = min(task.high, task.end + needle.after)
    room = take_room(high - low)
    hits = array("Q")
    try:
        pieces, skipped = read_pieces(task.memory, low, high, room)
        for first, last in pieces:
            view = room.view[first - low : last - low]
            # Those before the range and behind it are another one's.
            begin, end = max(task.start - first, 0), max(task.end - first, 0)
            end = min(end, last - first)
            hits.extend(needle.find_between(view, room.address + first - low, first, begin, end))
    finally:
        leave_room(room)
    return Found(hits, clipped(skipped, task.start, task.end))


def take_room(n: int) -> Scratch:
    """Returns room for `n` bytes, to be given back to `leave_room`."""
    try:
        room = _idle.pop()
    except IndexError:
        return Scratch(n)
    return room if len(room.view) >= n else Scratch(n)


def leave_room(room: Scratch) -> None:
    """Keeps room for the next one who needs some."""
    if len(_idle) < _MOST_THREADS:
        _idle.append(room)


def read_pieces(
    memory: UserMemory, low: int, high: int, room: Scratch
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Reads a range to the room, as far as it can be read, each byte to its own place.

    Returns:
        The runs that stand in the room, and those that could not be read.
    """
    pieces: list[tuple[int, int]] = []
    skipped: list[tuple[int, int]] = []
    # SAFETY: the room has `high - low` bytes.
    for start, end, content, _ in read_extents(memory, memory.layout(low, high), low, room.address):
        if content is Content.HOLE:
            add_range(skipped, start, end)
            continue
        if content is Content.ZEROS:
            fill_zeros(room.address + start - low, end - start)
        add_range(pieces, start, end)
    return pieces, skipped


def add_range(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    """Adds a range behind others, as one with the last if they meet or overlap."""
    if ranges and ranges[-1][0] <= start <= ranges[-1][1]:
        ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
    else:
        ranges.append((start, end))


def pairs_of(ranges: Iterable[Any]) -> list[tuple[int, int]]:
    """Returns ranges as (start, end) pairs, in their order.

    Args:
        ranges: Each a mapping (whatever has `start` and `end`), a range object,
            or a pair (start, end).

    Raises:
        TypeError: None of these.
        ValueError: One ends before it starts.
    """
    pairs: list[tuple[int, int]] = []
    for one in _listed(ranges):
        if isinstance(one, range):
            if one.step != 1:
                raise ValueError(f"{one} leaves addresses out; give one without a step")
            start, end = one.start, one.stop
        elif hasattr(one, "start") and hasattr(one, "end"):
            start, end = one.start, one.end
        else:
            try:
                start, end = one
            except (TypeError, ValueError):
                raise _not_a_range(one) from None
        start, end = as_address(start, "start"), as_address(end, "end")
        if start > end:
            raise ValueError(f"[{start:#x}, {end:#x}) ends before it starts; give (start, end)")
        pairs.append((start, end))
    return pairs


def _listed(ranges: object) -> Iterator[Any]:
    # A mapping is a tuple itself, whose fields would be taken for ranges.
    if isinstance(ranges, str | bytes) or hasattr(ranges, "perms"):
        raise _not_a_range(ranges)
    try:
        yield from cast("Iterable[Any]", ranges)
    except TypeError:
        raise _not_a_range(ranges) from None


def _not_a_range(one: object) -> TypeError:
    return TypeError(
        f"ranges are mappings, range objects or pairs (start, end), in a list: [(start, end)]; "
        f"{one!r} is none"
    )


def ranges_of(ranges: Iterable[Any]) -> list[tuple[int, int]]:
    """Returns what `pairs_of` does, sorted, and those that meet or overlap as one."""
    return _merged(sorted((start, end) for start, end in pairs_of(ranges) if start < end))


def _merged(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in pairs:
        add_range(found, start, end)
    return found


def ranges_by_perms(memory: UserMemory, perms: str | Perms) -> list[tuple[int, int]]:
    """Returns what is mapped with at least these permissions, as `ranges_of` does."""
    need, private = needed(perms)
    want = int(need)
    regions: list[Region] | None = memory.regions()
    if regions is None:
        raise UnsupportedError(
            "this memory does not tell which of its addresses are mapped", hint=Hint("ranges")
        )
    return _merged(
        (region.start, region.end)
        for region in regions
        if region.flags & want == want
        and not (private and region.flags & SHARED)
        and region.end <= memory.end
    )


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


@final
class Search(Iterator[int]):
    """The addresses at which a needle stands, in order, found as they are asked for.

    Attributes:
        skipped: Ranges (start, end) passed so far that could not be read.
    """

    def __init__(
        self,
        tasks: Iterable[tuple[Task | None, int]],
        *,
        total: int,
        threads: int,
        executor: Executor | None,
        progress: Progress | None,
    ) -> None:
        self.skipped: list[tuple[int, int]] = []
        # Not a method: it and the search would keep each other, and their threads, alive.
        noted: deque[Task | None] = deque()
        self._hits = _run(
            results(run_task, _noting(tasks, noted), threads, executor),
            noted,
            self.skipped,
            total=total,
            progress=progress,
        )

    def __iter__(self) -> Search:
        return self

    def __next__(self) -> int:
        return next(self._hits)

    def close(self) -> None:
        """Ends the search; no thread of it is left."""
        self._hits.close()


def _noting(
    tasks: Iterable[tuple[Task | None, int]], noted: deque[Task | None]
) -> Iterator[tuple[Task | None, int]]:
    """Yields the pieces of work, and keeps each until what it found is there."""
    for task, n in tasks:
        noted.append(task)
        yield task, n


def _run(
    found_in_order: Generator[tuple[Found | None, int], None, None],
    noted: deque[Task | None],
    skipped: list[tuple[int, int]],
    *,
    total: int,
    progress: Progress | None,
) -> Generator[int, None, None]:
    done = 0
    hits = Hits(lambda task: run_task(task).hits)
    try:
        for found, n in found_in_order:
            task = noted.popleft()
            if found is not None and task is not None:
                for start, end in found.skipped:
                    add_range(skipped, start, end)
                yield from hits.next(task, found.hits)
            done += n
            if progress is not None:
                progress(done, total)
    finally:
        found_in_order.close()


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
