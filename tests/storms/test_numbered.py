"""A slice of the storm of numbered signals; scripts/soak sends a million."""

from __future__ import annotations

import pytest

from scripts.soaking.numbered import numbered_signals

pytestmark = pytest.mark.slow


def test_signals_under_cont_are_each_told_once() -> None:
    """3,000 signals to eight threads: each is told, and handled unless it was discarded."""
    tally = numbered_signals(3000, 5)
    assert not tally.harms, tally.report()
    assert tally.done["told"] == 3000, tally.report()
    assert tally.done["discarded or replaced"] == 600, tally.report()


def test_signals_between_holds_are_told_or_delivered_once() -> None:
    """The tool lets go, steps and reads between events: no signal is lost, doubled, reordered."""
    tally = numbered_signals(3000, 6, gaps=True)
    assert not tally.harms, tally.report()
    assert tally.done["told"] >= 100, tally.report()


def test_signals_with_killed_tools_are_told_or_delivered_once() -> None:
    """Tools and tracers are killed between and in events: no signal is lost or doubled."""
    tally = numbered_signals(2000, 7, kills=4)
    assert not tally.harms, tally.report()
    assert sum(tally.met.values()) == 4, tally.report()
