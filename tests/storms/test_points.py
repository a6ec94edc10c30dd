"""A slice of the storms of points; scripts/soak kills a thousand times, and stops ten thousand."""

from __future__ import annotations

import pytest

from procvm._linux.perf_event import is_exact
from scripts.soaking.points import killed_points, watched_stops

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_exact(), reason="exact stops need x86-64"),
]


@pytest.mark.parametrize("part", range(4))
def test_points_with_killed_tools_and_tracers_harm_nothing(part: int) -> None:
    """15 kills while four points are hit all the time: the target lives, its slots are free."""
    tally = killed_points(15, 1000 * part)
    assert not tally.harms, tally.report()
    assert tally.done["killed"] == 15, tally.report()


def test_watchpoint_stops_tell_value_and_instruction_beside_other_threads() -> None:
    """200 stops, half of them while two more threads run."""
    tally = watched_stops(200, 0)
    assert not tally.harms, tally.report()
    assert tally.done.total() == 200, tally.report()
