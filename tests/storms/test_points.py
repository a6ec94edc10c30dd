"""A slice of the storm of kills with points armed; scripts/soak kills a thousand times."""

from __future__ import annotations

import pytest

from procvm._linux.perf_event import is_exact
from scripts.soaking.points import killed_points

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
