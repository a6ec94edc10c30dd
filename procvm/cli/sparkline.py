"""The last values of a number as a line of bars."""

from __future__ import annotations

import math
from collections import deque

from procvm.cli.output import Output

__all__ = ["Sparkline"]

_BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_MOST = 40
_LEAST = 8


class Sparkline:
    """The last values, one bar each; the lowest and the highest have the ends of the scale."""

    def __init__(self, out: Output) -> None:
        self._can_be_shown = out.is_utf8
        self._values: deque[float] = deque(maxlen=_MOST)

    def add(self, value: object) -> None:
        """Adds the value of one read; a number that is not finite has no bar."""
        if isinstance(value, int | float):
            self._values.append(float(value))

    def text(self, room: int) -> str:
        """Returns two spaces and the bars, or nothing if `room` columns are too few."""
        nr = min(room - 2, len(self._values))
        if not self._can_be_shown or room - 2 < _LEAST or nr < 2:
            return ""
        last = list(self._values)[-nr:]
        finite = [value for value in last if math.isfinite(value)]
        low, high = min(finite, default=0.0), max(finite, default=0.0)
        if low == high:
            return ""  # a flat line would tell nothing
        return "  " + "".join(_bar(value, low, high) for value in last)


def _bar(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return " "
    # Halved first: the difference of two large floats may be infinite.
    span = high / 2 - low / 2
    part = (value / 2 - low / 2) / span if span else 0.0  # two of the least floats
    return _BARS[round(part * (len(_BARS) - 1))]
