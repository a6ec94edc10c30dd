"""The conditions of a look at a scan: one for each type that can hold what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from procvm._space.condition import About, Condition, about_of, condition_of
from procvm._space.element import Element
from procvm._space.patterns import NOTHING

__all__ = ["CHANGES", "asked_of", "change_of"]

CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "changed": lambda new, old: new != old,
    "unchanged": lambda new, old: new == old,
    "increased": lambda new, old: new > old,
    "decreased": lambda new, old: new < old,
}


def asked_of(
    readings: list[tuple[Element, ...]], value: Any, about: About | None, *, is_number: bool
) -> list[tuple[tuple[Element, ...], Condition]]:
    """Returns the readings that can hold what is asked for, each row with its condition.

    Raises:
        OverflowError: No type can hold the value.
        TypeError: The value is of no use for any type.
    """
    if not readings:
        return []
    found: list[tuple[tuple[Element, ...], Condition]] = []
    failed: Exception | None = None
    for row in readings:
        fitting: list[tuple[Element, Condition]] = []
        for element in row:
            try:
                fitting.append((element, _condition(element, value, about, is_number=is_number)))
            except (OverflowError, TypeError) as error:
                failed = error
        if fitting:
            found.append((tuple(one for one, _ in fitting), _either(fitting)))
    if not found and failed is not None:
        try:
            raise failed
        finally:
            del failed  # it and this frame would keep each other alive
    return found


def _condition(element: Element, value: Any, about: About | None, *, is_number: bool) -> Condition:
    parts: list[Condition] = []
    if value is not NOTHING:
        if is_number and isinstance(value, float) and value.is_integer():
            # An integer type would refuse a float, also a whole one.
            value = value if element.dtype.kind == "f" else int(value)
        parts.append(condition_of(value, element))
    if about is not None:
        parts.append(about_of(about, element))
    if len(parts) == 1:
        return parts[0]
    return lambda values: parts[0](values) & parts[1](values) if parts else True


def _either(fitting: list[tuple[Element, Condition]]) -> Condition:
    """Returns the condition that one of several readings of the same bytes fulfils its own."""
    if len(fitting) == 1:
        return fitting[0][1]

    def holds(values: Any) -> Any:
        first, *rest = (one(values.view(element.dtype)) for element, one in fitting)
        for other in rest:
            first = first | other
        return first

    return holds


def change_of(how: str, row: tuple[Element, ...]) -> Callable[[Any, Any], Any]:
    """Returns the comparison of a change, fulfilled by one of several readings."""
    change = CHANGES[how]
    if len(row) == 1:
        return change

    def holds(new: Any, old: Any) -> Any:
        first, *rest = (change(new.view(one.dtype), old.view(one.dtype)) for one in row)
        for other in rest:
            first = first | other
        return first

    return holds
