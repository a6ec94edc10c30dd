"""Checks of addresses, lengths and timeouts, made before anything happens."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import procvm
from procvm._base.address import as_timeout
from procvm.testing.checks import wait_until


@pytest.mark.parametrize(
    "value", [0, 1, 2.5, 0.0, 1e300, np.float32(2.5), np.float64(0.5), np.int64(3), Fraction(1, 2)]
)
def test_as_timeout_finite_number_is_those_seconds(value: Any) -> None:
    """Whole numbers, floats and numpy's numbers are taken, as a float."""
    seconds = as_timeout(value)
    assert type(seconds) is float
    assert seconds == float(value)


def test_as_timeout_none_is_no_limit() -> None:
    """None stays None."""
    assert as_timeout(None) is None


NOT_SECONDS = [-1, -0.001, float("nan"), float("inf"), -float("inf"), 10**400, np.float64("nan")]
NOT_NUMBERS = [True, "5", b"5", [1], np.True_, np.array(1.0), Decimal(1), 1j, object()]


@pytest.mark.parametrize("value", NOT_SECONDS)
def test_as_timeout_not_finite_or_negative_is_a_value_error(value: Any) -> None:
    """The message has the argument's name and says what to give."""
    with pytest.raises(ValueError, match=r"^longest is .*; give seconds, 0 or more, or None"):
        as_timeout(value, "longest")


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_as_timeout_not_a_number_is_a_type_error(value: Any) -> None:
    """A text, a bool, an array and a Decimal are refused by their type."""
    message = rf"^longest must be a number of seconds or None, not {type(value).__name__}"
    with pytest.raises(TypeError, match=message):
        as_timeout(value, "longest")


def waits(process: procvm.Process) -> list[Callable[[Any], object]]:
    """What takes a timeout and neither stops nor traces."""
    return [
        process.wait,
        lambda timeout: wait_until(process, 0, procvm.u8, bool, timeout=timeout),
    ]


@pytest.mark.parametrize("value", [*NOT_SECONDS, *NOT_NUMBERS])
def test_waits_refuse_what_is_no_timeout_before_they_wait(value: Any) -> None:
    """No wait begins: address 0 is not even read."""
    with procvm.open(os.getpid()) as process:
        for wait in waits(process):
            with pytest.raises((TypeError, ValueError), match=r"^timeout "):
                wait(value)
