"""The markers that tell type checkers whether a cursor's memory can fault.

They are never instantiated. They are unrelated classes on purpose: were
`Infallible` a subclass of `Fallible`, or were they protocols, both checkers
would let a fallible cursor pass where an infallible one is asked for.
"""

from __future__ import annotations

from typing import TypeVar, final

__all__ = ["F", "Fallible", "G", "Infallible", "Io"]


class _Marker:
    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} is a marker for types, it has no instances")


@final
class Fallible(_Marker):
    """Memory whose access may fault: a target's address space.

    Source:
        OSTD ``Fallible``.
    """


@final
class Infallible(_Marker):
    """Memory of the tool's own process, whose access cannot fault.

    Source:
        OSTD ``Infallible``.
    """


@final
class Io(_Marker):
    """Device memory: every access has exactly the requested width.

    Source:
        OSTD ``Io``.
    """


F = TypeVar("F", Fallible, Infallible, Io)
G = TypeVar("G", Fallible, Infallible, Io)
