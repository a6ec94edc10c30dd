"""Names without a size, as those of assembly."""

from __future__ import annotations

import procvm
from tests.support.build import compiled
from tests.support.child import Child


def test_describe_of_a_name_without_a_size_reaches_to_the_next_name() -> None:
    """Every byte up to the next name is told by the one before it."""
    with Child([compiled("bare")]) as target, procvm.open(target.pid) as process:
        one, two = target.hexes()
        assert two == one + 3
        told = [str(process.describe(at)).rpartition("!")[2] for at in range(one, two + 2)]
    assert told == ["bare_one", "bare_one+0x1", "bare_one+0x2", "bare_two", "bare_two+0x1"]
