"""The condition that a search, a scan or a refine puts on values: a number, bounds, a predicate."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import (
    TYPE_CHECKING,
    Any,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    cast,
)

from procvm._base.optional import numpy_or_none, required
from procvm._space.element import Element, bytes_of_values

if TYPE_CHECKING:
    from procvm._space.arrays import Predicate

__all__ = ["About", "Condition", "Equal", "Number", "Wanted", "about_of", "condition_of"]

T = TypeVar("T")

Condition = Callable[[Any], Any]
"""Maps an array of values to an array of truth values, or one value to a truth value."""

Number: TypeAlias = SupportsIndex | SupportsFloat

Wanted: TypeAlias = "T | SupportsIndex | range | tuple[Number, Number] | Predicate"
"""A number, a range, a pair (lowest, highest), or a predicate over an array of values."""

About: TypeAlias = float | str | Decimal
"""A number as a program shows it; its digits say how it was rounded."""


class Equal:
    """Equality with one value.

    Attributes:
        value: The number as the element holds it: an f32 does not hold every number.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, values: Any) -> Any:
        """Returns which values equal the number."""
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
    """Returns the condition of a value, a pair of bounds, a range or a predicate.

    Raises:
        OverflowError: The type cannot hold the number.
        TypeError: `value` has another type.
        ValueError: The bounds are the wrong way round, or there are not two.
    """
    if isinstance(value, range):
        if value.step != 1:
            raise ValueError(f"{value} leaves numbers out; give a predicate")
        if value.start > value.stop:
            raise ValueError(f"no number is in {value}; give range(lowest, highest + 1)")
        return _between(value.start, value.stop - 1, element)
    if isinstance(value, tuple):
        bounds = list(cast("Any", value))
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
    data = bytes_of_values([number], element)  # refuses a number that does not fit
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


class _Within:
    """Between two floats, compared as f64: an f32 and an f64 are exact there."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, values: Any) -> Any:
        np: Any = numpy_or_none()
        with np.errstate(invalid="ignore"):  # a signalling NaN, as random bytes may be, warns
            wide = values.astype(np.float64)
        return (wide >= self.low) & (wide <= self.high)


def about_of(shown: About, element: Element) -> Condition:
    """Returns the condition that a value is printed as a number when rounded to its digits.

    Raises:
        TypeError: Not a number, or the type has no real numbers.
        ValueError: A text that is not a number, or a number that is not finite.
    """
    number = _decimal(shown)
    kind = element.dtype.kind if element.dtype is not None else ""
    if kind not in "iuf":
        raise TypeError(f"about is for integers and floats, not {element.dtype or element.pod}")
    _, digits, exponent = number.as_tuple()
    half = Fraction(10) ** cast("int", exponent) / 2  # it is finite
    middle = Fraction(number)
    # Printing rounds half to even, so the last digit says whether both ends belong to it.
    ends_belong = digits[-1] % 2 == 0
    if kind == "f":
        return _Within(
            _float_from(middle - half, ends_belong), -_float_from(-middle - half, ends_belong)
        )
    low, high = middle - half, middle + half
    first, last = math.ceil(low), math.floor(high)
    if not ends_belong:
        first += first == low
        last -= last == high
    limits = cast("tuple[int, int]", _limits(element))
    first, last = max(first, limits[0]), min(last, limits[1])
    return _Between(first, last) if first <= last else _Between(limits[1], limits[0])


def _decimal(shown: About) -> Decimal:
    if isinstance(shown, bool) or not (
        isinstance(shown, str | Decimal) or hasattr(shown, "__float__")
    ):
        raise TypeError(f"about is a number or its text, such as '1.35', not {shown!r}")
    try:
        number = Decimal(str(shown).strip())
    except InvalidOperation:
        raise ValueError(f"about is a number or its text, such as '1.35', not {shown!r}") from None
    if not number.is_finite():
        raise ValueError(f"about is a finite number, not {shown!r}")
    return number


def _float_from(low: Fraction, is_included: bool) -> float:
    """Returns the lowest f64 above a bound, or equal to it where the bound is included."""
    try:
        found = float(low)
    except OverflowError:
        # No f64 is as large; the lowest one is above a bound below all of them.
        return math.nan if low > 0 else -sys.float_info.max
    if Fraction(found) < low or (Fraction(found) == low and not is_included):
        return math.nextafter(found, math.inf)
    return found


def _is_f32(element: Element) -> bool:
    return element.pod is not None and element.pod.code == "f"


_F32_MOST = (2 - 2.0**-23) * 2.0**127


def _between(low: Any, high: Any, element: Element) -> _Between:
    """Returns the condition of bounds, which may lie beyond all numbers of the type."""
    if _is_f32(element):
        return _Between(_f32_bound(element, low, True), _f32_bound(element, high, False))
    limits = _limits(element)
    if limits is None:
        return _Between(low, high)
    # numpy would compare integers with a float as floats, which rounds 64-bit numbers.
    first = max(limits[0], _whole(low, math.ceil))
    last = min(limits[1], _whole(high, math.floor))
    if first > last:
        # No number is within. Bounds of the type, so that numpy compares without an error.
        return _Between(limits[1], limits[0])
    return _Between(first, last)


def _whole(value: Any, turn: Callable[[Any], int]) -> Any:
    return value if math.isinf(value) else turn(value)


def _limits(element: Element) -> tuple[int, int] | None:
    """Returns the least and the greatest value of an integer type, or None for another type."""
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
    """Returns a bound as f32 compares it; it may lie beyond all numbers of f32."""
    if math.isinf(value):
        return value
    if abs(value) <= _F32_MOST:
        return _held(bytes_of_values([value], element), value, element)
    if value > 0:
        return math.inf if is_low else _F32_MOST
    return -_F32_MOST if is_low else -math.inf
