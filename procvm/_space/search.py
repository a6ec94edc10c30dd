"""`Search`: the hits of a search in order, found as the caller asks for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, final

from procvm._space.hits import Hits
from procvm._space.patterns import Hit
from procvm._space.pieces import Found, Task, results, run_task
from procvm._space.ranges import add_range

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Progress", "Search"]

Progress = Callable[[int, int], object]


@final
class Search(Iterator[Hit]):
    """An iterator of the hits of a search, in the order of addresses, found as they are asked for.

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
        # A method here and the search would keep each other, and their threads, alive.
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

    def __next__(self) -> Hit:
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
) -> Generator[Hit, None, None]:
    done = 0
    hits = Hits()
    try:
        for found, n in found_in_order:
            task = noted.popleft()
            if found is not None and task is not None:
                for start, end in found.skipped:
                    add_range(skipped, start, end)
                yield from hits.next(task, found)
            done += n
            if progress is not None:
                progress(done, total)
    finally:
        found_in_order.close()
