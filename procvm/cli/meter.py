"""A progress bar on stderr, if stderr is a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from procvm.cli.output import Output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Meter", "metered"]

_PATIENCE = 0.5
"""Seconds before the bar appears: shorter work shows none."""

_TICK = 0.1


class Meter:
    """A bar that is called with (done, total), as the library calls `progress`.

    The bar is removed before a line of output is written. Without this, bar and line would
    mix on the same terminal.
    """

    def __init__(self, what: str, *, unit: str) -> None:
        self._what = what
        self._unit = unit
        self._last = time.monotonic() + _PATIENCE - _TICK
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._shown = False
        stream: TextIO | None = sys.stderr
        self._can_show = (
            stream is not None  # pyright: ignore[reportUnnecessaryComparison] (closed: None)
            and stream.isatty()
            and os.environ.get("TERM") != "dumb"
        )

    def __call__(self, done: int, total: int) -> None:
        """Draws the bar, at most ten times a second."""
        if not self._can_show:
            return
        now = time.monotonic()
        if now - self._last < _TICK:
            return
        self._last = now
        progress = self._made()
        if self._task is None:
            self._task = progress.add_task(self._what, total=total)
        if not self._shown:
            progress.start()
            self._shown = True
        progress.update(self._task, completed=done, total=total)
        progress.refresh()

    def hide(self) -> None:
        """Removes the bar until it is drawn again."""
        if self._shown and self._progress is not None:
            self._progress.stop()
            self._shown = False

    def _made(self) -> Progress:
        if self._progress is None:
            # rich is slow to import, and most work ends before a bar appears.
            from rich.console import Console  # noqa: PLC0415
            from rich.progress import (  # noqa: PLC0415
                BarColumn,
                DownloadColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            amounts = (
                (DownloadColumn(binary_units=True), TransferSpeedColumn())
                if self._unit == "bytes"
                else (MofNCompleteColumn(),)
            )
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                *amounts,
                TimeRemainingColumn(),
                console=Console(stderr=True),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
        return self._progress


@contextmanager
def metered(out: Output, what: str, *, unit: str = "bytes") -> Generator[Meter]:
    """Yields a meter, and removes its bar at the end.

    Args:
        out: The output whose lines the bar must not touch.
        what: A word for the work.
        unit: ``"bytes"``, or another word to show plain numbers.
    """
    meter = Meter(what, unit=unit)
    if out.stream.isatty():
        out.before_line = meter.hide
    try:
        yield meter
    finally:
        meter.hide()
        out.before_line = None
