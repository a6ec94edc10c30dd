"""`Pool`: the one free list, which bounds what it keeps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Generic[T]):
    """Objects that cost much to make, kept between two uses.

    An object is outside the pool while it is used. So two threads never use the same one,
    and neither does a signal handler that runs in the middle of a use.

    Attributes:
        leave: Puts an object back for the next `take`. A full pool drops its oldest object.
    """

    __slots__ = ("_idle", "_make", "leave")

    def __init__(self, most: int, make: Callable[[], T]) -> None:
        """Makes an empty pool.

        Args:
            most: How many objects it keeps.
            make: Makes an object when the pool has none.
        """
        # One call of a deque is atomic; its maxlen bounds the pool without a check that
        # another thread could invalidate.
        self._idle: deque[T] = deque(maxlen=most)
        self._make = make
        self.leave: Callable[[T], None] = self._idle.append

    def __len__(self) -> int:
        return len(self._idle)

    def take(self) -> T:
        """Returns an object that nothing else uses; makes one if the pool has none."""
        # A check before the pop would race: another thread may pop in between.
        try:
            return self._idle.pop()
        except IndexError:
            return self._make()

    def clear(self) -> None:
        """Drops the objects that are in the pool."""
        self._idle.clear()
