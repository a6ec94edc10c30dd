"""Which values a search, a scan or a refine asks for: a number, bounds, a predicate."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, cast

from procvm._base.optional import numpy_or_none, required
from procvm._space.element import Element, bytes_of_values

__all__ = ["Condition", "Equal", "condition_of"]

Condition = Callable[[Any], Any]
"""An array of values -> which of them are looked for."""


class Equal:
    """Equality with one value.

    Attributes:
        value: The number as the element holds it: an f32 does not hold every number.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, values: Any) -> Any:
        """Returns which values are equal to it."""
        return values == self.value


class _Between:
    def __init__(self, low: Any, high: Any) -> None:
        self.low, self.high = low, high

    def __call__(self, values: Any) -> Any:
        return (values >= self.low) & (values <= self.high)


class _Predicate:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, values: Any) -> Any:
        found = self._function(values)
        if getattr(found, "shape", None) != values.shape or found.dtype != bool:
            raise TypeError(
                "a predicate takes an array of values and returns an array of truth values, one "
                f"for each, not {type(found).__name__}"
            )
        return found


def condition_of(value: Any, element: Element) -> Condition:
    """Returns what a value, a pair of bounds, a range or a predicate asks for.

    Raises:
        OverflowError: A number that the type cannot hold.
        TypeError: None of these.
        ValueError: Bounds the wrong way round.
    """
    if isinstance(value, range):
        if value.step != 1:
            raise ValueError(f"{value} leaves numbers out; give a predicate")
        if value.start > value.stop:
            raise ValueError(f"no number is in {value}; give range(lowest, highest + 1)")
        return _between(value.start, value.stop - 1, element)
    if isinstance(value, tuple):
        bounds = list(cast(Any, value))
        if len(bounds) != 2:
            raise ValueError(f"{bounds!r} is not (lowest, highest)")
        low, high = map(_number, bounds)
        for bound in (low, high):
            if not hasattr(bound, "__float__"):
                raise TypeError(f"{bound!r} is not a number")
        if not low <= high:
            raise ValueError(f"no number is from {low} to {high}; give (lowest, highest)")
        return _between(low, high, element)
    if callable(value):
        required("numpy", "a predicate over values")
        return _Predicate(value)
    number = _number(value)
    data = bytes_of_values([number], element)  # refuses what does not fit
    return Equal(_held(data, number, element))


def _number(value: Any) -> Any:
    """Returns a number that has only ``__index__`` as an int; numpy compares it to nothing else."""
    if hasattr(value, "__index__") and not hasattr(value, "__float__"):
        return operator.index(value)
    return value


def _held(data: bytes, value: Any, element: Element) -> Any:
    """Returns a value as the element holds it, in a type that numpy compares as a number."""
    if element.pod is not None:
        return element.pod.from_bytes(data) if element.pod.code else value
    if element.dtype.kind in "iufc" and element.dtype.shape == ():
        np: Any = numpy_or_none()
        return np.frombuffer(data, element.dtype)[0].item()
    return value


def _is_f32(element: Element) -> bool:
    return element.pod is not None and element.pod.code == "f"


_F32_MOST = (2 - 2.0**-23) * 2.0**127


def _between(low: Any, high: Any, element: Element) -> _Between:
    """Returns the condition of bounds, also of some beyond all numbers that the type has."""
    if _is_f32(element):
        return _Between(_f32_bound(element, low, True), _f32_bound(element, high, False))
    limits = _limits(element)
    if limits is None:
        return _Between(low, high)
    # numpy compares integers and a float by turning both to floats, which cuts 64-bit numbers.
    first = max(limits[0], _whole(low, math.ceil))
    last = min(limits[1], _whole(high, math.floor))
    if first > last:
        # Nothing is within; as numbers of the type, so that numpy compares without an error.
        return _Between(limits[1], limits[0])
    return _Between(first, last)


def _whole(value: Any, turn: Callable[[Any], int]) -> Any:
    return value if math.isinf(value) else turn(value)


def _limits(element: Element) -> tuple[int, int] | None:
    """Returns the least and the greatest value of a whole type; None for another one."""
    if element.pod is not None:
        code, bits = element.pod.code, 8 * element.pod.size
        is_whole, is_signed = code not in ("", "f", "d"), code.islower()
    else:
        kind, bits = element.dtype.kind, 8 * element.dtype.itemsize
        is_whole, is_signed = kind in "iu" and element.dtype.shape == (), kind == "i"
    if not is_whole:
        return None
    return (-1 << bits - 1, (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)


def _f32_bound(element: Element, value: Any, is_low: bool) -> Any:
    """Returns a bound as f32 compares it, also one beyond all numbers that it has."""
    if math.isinf(value):
        return value
    if abs(value) <= _F32_MOST:
        return _held(bytes_of_values([value], element), value, element)
    if value > 0:
        return math.inf if is_low else _F32_MOST
    return -_F32_MOST if is_low else -math.inf
