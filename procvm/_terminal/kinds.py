"""The value types of the option ``-t``, by name."""

from __future__ import annotations

from procvm._base.pods import PODS
from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Bytes, Number, Pointer, Text
from procvm._terminal.structures import STRUCT, structure_of

__all__ = ["KIND_NAMES", "kind_of"]

KIND_NAMES = (*PODS, "ptr", "cstr", "bytes", STRUCT)
"""The names of all types, or how they begin."""


def kind_of(name: str) -> Kind:
    """Returns the type of a name.

    Raises:
        ValueError: No type has this name.
    """
    if name in PODS:
        return Number(PODS[name])
    if name.startswith(STRUCT):
        return structure_of(name)
    for kind in (Pointer, Bytes, Text):
        if kind.name == name:
            return kind()
    raise ValueError(
        f"{name!r} is not a type; give one of {', '.join(KIND_NAMES[:-1])}, or struct:x=u32,y=f64"
    )
