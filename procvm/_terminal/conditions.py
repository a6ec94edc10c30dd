"""Conditions on a value: ``5``, ``> 5``, ``5..9``, ``+``, ``changed``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from procvm._space.scan import Change
from procvm._terminal.scalars import Number

__all__ = ["CHANGES", "GRAMMAR", "Condition", "condition_of"]

GRAMMAR = (
    "N, = N, != N, > N, < N, >= N, <= N, N..M, + (increased), - (decreased), changed, unchanged"
)

CHANGES: dict[str, Change] = {
    "+": "increased",
    ">": "increased",
    "increased": "increased",
    "-": "decreased",
    "<": "decreased",
    "decreased": "decreased",
    "=": "unchanged",
    "==": "unchanged",
    "unchanged": "unchanged",
    "!=": "changed",
    "changed": "changed",
}

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "": operator.eq,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}

_BY_CHANGE: dict[Change, Callable[[Any, Any], Any]] = {
    "increased": operator.gt,
    "decreased": operator.lt,
    "changed": operator.ne,
    "unchanged": operator.eq,
}

_COMPARED = re.compile(r"(==|=|!=|>=|<=|>|<|)\s*(\S+)")


class Condition(NamedTuple):
    """A condition on a value, or on a value and the one before it.

    Attributes:
        change: How the value must compare with the one before; None for any.
        value: The `value` argument of `VmSpace.scan`; None for any number.
    """

    change: Change | None
    value: Any

    def holds(self, new: Any, old: Any) -> bool:
        """Returns whether a value fulfils the condition; without an old value nothing changed."""
        if self.change is not None:
            return old is not None and bool(_BY_CHANGE[self.change](new, old))
        if _is_pair(self.value):
            low, high = self.value
            return bool(low <= new <= high)
        if callable(self.value):
            return bool(self.value(new))
        return bool(new == self.value)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple)


def condition_of(text: str, kind: Number) -> Condition:
    """Returns the condition that a text describes.

    Raises:
        ValueError: The text is not a condition.
        OverflowError: No value of the kind equals the number.
    """
    text = text.strip()
    if text.lower() in CHANGES:
        return Condition(CHANGES[text.lower()], None)
    low, dots, high = text.partition("..")
    if dots:
        bounds = kind.number(low), kind.number(high)
        if not bounds[0] <= bounds[1]:
            raise ValueError(f"the range {text!r} is empty; give lowest..highest")
        return Condition(None, bounds)
    found = _COMPARED.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a condition; give {GRAMMAR}")
    sign, digits = found.groups()
    try:
        number = kind.number(digits)
    except ValueError:
        raise ValueError(f"{text!r} is not a condition; give {GRAMMAR}") from None
    compare = _COMPARISONS[sign]
    if compare is operator.eq:
        # Rounded to the type: without this, no f32 would equal 0.1.
        return Condition(None, kind.rounded(number))

    def holds(values: Any) -> Any:
        return compare(values, number)

    return Condition(None, holds)
