"""What is asked of a value: ``5``, ``> 5``, ``5..9``, ``+``, ``changed``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from procvm._space.scan import Change
from procvm._terminal.scalars import Number

__all__ = ["GRAMMAR", "Condition", "condition_of"]

GRAMMAR = (
    "N, = N, != N, > N, < N, >= N, <= N, N..M, + (increased), - (decreased), changed, unchanged"
)

_CHANGES: dict[str, Change] = {
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
    """What is asked of a value, or of a value and the one before.

    Attributes:
        change: How it has to compare to the one before; None if that does not matter.
        value: What `VmSpace.scan` takes as `value`; None if the number does not matter.
    """

    change: Change | None
    value: Any

    def holds(self, new: Any, old: Any) -> bool:
        """Returns whether one value fulfils it; nothing has changed without one before."""
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
    """Returns what a person asks for.

    Raises:
        ValueError: It can not be understood.
        OverflowError: A number that no value of the kind equals.
    """
    text = text.strip()
    if text.lower() in _CHANGES:
        return Condition(_CHANGES[text.lower()], None)
    low, dots, high = text.partition("..")
    if dots:
        bounds = kind.number(low), kind.number(high)
        if not bounds[0] <= bounds[1]:
            raise ValueError(f"no number is in {text!r}; give lowest..highest")
        return Condition(None, bounds)
    found = _COMPARED.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is none of {GRAMMAR}")
    sign, digits = found.groups()
    try:
        number = kind.number(digits)
    except ValueError:
        raise ValueError(f"{text!r} is none of {GRAMMAR}") from None
    compare = _COMPARISONS[sign]
    if compare is operator.eq:
        # As the type has it: no f32 equals 0.1 to all digits.
        return Condition(None, kind.pod.from_bytes(kind.pod.to_bytes(number)))

    def holds(values: Any) -> Any:
        return compare(values, number)

    return Condition(None, holds)
