"""A slice of the storm of operations for each blow; scripts/soak runs the whole of it."""

from __future__ import annotations

import pytest

from scripts.soaking.blows import BLOWS
from scripts.soaking.operations import Plan, operations

pytestmark = pytest.mark.slow


def test_operations_undisturbed_do_no_harm() -> None:
    """150 operations on targets of several kinds: no error, nothing left, no target harmed."""
    tally = operations(150, 11, Plan(blows=(), burst=60))
    assert not tally.harms, tally.report()
    assert tally.done["step"] >= 5, tally.report()


@pytest.mark.parametrize("blow", BLOWS)
def test_operations_under_a_blow_do_no_harm(blow: str) -> None:
    """Sessions that a kill, an interrupt, an exec and so on fall into: no target is harmed."""
    tally = operations(90, 23, Plan(blows=(blow,), burst=30))
    assert not tally.harms, tally.report()
    assert tally.met.total() >= 2, tally.report()
