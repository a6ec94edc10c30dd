"""Interleaved measurement: every contender of a group a short while, again and again.

Machines are noisy, and they are so for seconds at a time. What is compared is
therefore measured next to each other, and a ratio is taken within a round; the
median over the rounds is what is reported. Rounds go on, up to three times as
many, until the ratios are stable.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from statistics import median, quantiles
from typing import NamedTuple

__all__ = ["STABLE", "Contender", "Each", "Run", "Times", "measure"]

Run = Callable[[int], float]

_BATCH_NS = 2_000_000
_PASSES = 3
_CALIBRATIONS = 5
_LONG_NS = 100_000_000
_MORE = 3
STABLE = 0.05
"""The spread of a ratio up to which it is called stable."""


class Each:
    """A run that also keeps how long each single time took.

    For what takes so long, and differs so much from time to time, that its
    median says more than its best.

    Attributes:
        taken: Nanoseconds of every time so far.
    """

    def __init__(self, times: Callable[[int], Iterable[int]]) -> None:
        self._times = times
        self.taken: list[int] = []

    def __call__(self, n: int) -> float:
        """Does it `n` times; returns the nanoseconds of all."""
        found = list(self._times(n))
        self.taken += found
        return sum(found)


class Contender(NamedTuple):
    """One way of doing what its group is about.

    Attributes:
        name: What the table calls it.
        run: Does it a number of times; returns the nanoseconds that took.
        most: Times that one call of `run` does at most.
    """

    name: str
    run: Run
    most: int


class Times:
    """Nanoseconds a time, by contender and round; and each single time, where it was kept."""

    def __init__(self, rounds: dict[str, list[float]], each: dict[str, list[int]]) -> None:
        self._rounds = rounds
        self._each = each

    def __contains__(self, name: str) -> bool:
        return name in self._rounds

    def best(self, name: str) -> float:
        """Returns the shortest time, which noise can not have made shorter."""
        return min(self._each.get(name) or self._rounds[name])

    def median(self, name: str) -> float | None:
        """Returns the median of all single times, or None if they were not kept."""
        return median(self._each[name]) if name in self._each else None

    def ratio(self, name: str, base: str) -> float:
        """Returns the median over the rounds of how many times longer `name` takes."""
        return median(self._ratios(name, base))

    def spread(self, name: str, base: str) -> float:
        """Returns how far the ratio is to be trusted, as a part of it.

        It is the range of the middle half of the ratios, divided by their median and by the
        square root of their number, since a median of many is known better.
        """
        ratios = self._ratios(name, base)
        if name == base or len(ratios) < 2:
            return 0.0
        low, middle, high = quantiles(ratios, n=4)
        return (high - low) / middle / len(ratios) ** 0.5

    def is_stable(self, base: str) -> bool:
        """Returns whether the ratios of all to `base` are."""
        return all(self.spread(name, base) <= STABLE for name in self._rounds)

    def _ratios(self, name: str, base: str) -> list[float]:
        pairs = zip(self._rounds[name], self._rounds[base], strict=True)
        return [one / other for one, other in pairs]


def _times_in_batch(contender: Contender) -> int:
    n = 1
    while True:
        took = contender.run(n)
        if _BATCH_NS / 4 <= took < _LONG_NS:
            # One noisy call would give a batch of 1, and ratios of the cost of a loop.
            took = min(took, *(contender.run(n) for _ in range(_CALIBRATIONS - 1)))
        if took >= _BATCH_NS / 4 or n == contender.most:
            fitting = int(n * _BATCH_NS / took) if took else n
            return max(1, min(contender.most, fitting))
        n = min(contender.most, n * 4)


def measure(
    contenders: list[Contender], rounds: int, passes: int = _PASSES, *, more: bool = True
) -> Times:
    """Runs all contenders in every round, `passes` times; returns the best time of each in each.

    Args:
        contenders: The first is what ratios are of.
        rounds: The least number of rounds.
        passes: Runs of each contender in a round.
        more: Whether to go on, up to three times as long, until the ratios are stable.
    """
    batch = {contender.name: _times_in_batch(contender) for contender in contenders}
    found: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    each = {name: run.taken for name, run, _ in contenders if isinstance(run, Each)}
    for taken in each.values():
        taken.clear()  # those that found out how many fit were not interleaved
    gc.collect()
    gc.disable()
    try:
        times = Times(found, each)
        for done in range(_MORE * rounds if more else rounds):
            if done >= rounds and times.is_stable(contenders[0].name):
                break
            best = dict.fromkeys(found, float("inf"))
            for _ in range(passes):
                for name, run, _ in contenders:
                    took = run(batch[name]) / batch[name]
                    best[name] = min(best[name], took)
            for name, took in best.items():
                found[name].append(took)
    finally:
        gc.enable()
    return times
