"""`Unchanged`: compares ranges of memory before and after a ``with`` statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, final

from procvm._saved.diff import Run, without
from procvm._saved.snapshot import Snapshot
from procvm.errors import ProcvmError

__all__ = ["Unchanged"]


@final
class Unchanged:
    """Ranges of memory that are compared before and after a ``with`` statement.

    Attributes:
        runs: After the ``with``: the bytes that differ, by address.
        gone: The ranges that could be read before and cannot be read now, as (start, end).
        new: The ranges that can be read now and could not be read before, as (start, end).
    """

    def __init__(self, ranges: Iterable[Any], *, take: Callable[[Iterable[Any]], Snapshot]) -> None:
        """Takes nothing yet.

        Args:
            ranges: The ranges to compare.
            take: Returns a snapshot of ranges.
        """
        self._take = take
        self._ranges = list(ranges)
        self.runs: list[Run] = []
        self.gone: list[tuple[int, int]] = []
        self.new: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        self.runs, self.gone, self.new = [], [], []
        self._before = self._take(self._ranges)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._before as before:
            try:
                with self._take(self._ranges) as after:
                    self.runs = before.diff(after)
                    was, now = before.kept_ranges(), after.kept_ranges()
                    self.gone, self.new = list(without(was, now)), list(without(now, was))
            except ProcvmError:
                # The error of the with statement says more than the failed comparison.
                if error is None:
                    raise
