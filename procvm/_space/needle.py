"""`Needle`: something that a search looks for in a run of bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array

from procvm._local.buffers import Scratch

__all__ = ["CONTEXT", "Needle"]

CONTEXT = 64
"""Bytes before a place that an expression may look back at."""

_ZEROS_LEN = 1 << 20


class Needle(ABC):
    """Something to look for.

    Attributes:
        before: Bytes before a place that decide whether it is a hit.
        after: Bytes after the first byte of a place that decide whether it is a hit.
        stride: Words of `find_between` for each hit: 1 the address, 2 the end as well, 3 the
            address, the number of the needle, the end.
        is_disjoint: Whether no hit may begin inside another hit.
        literal: The bytes of every hit, where these are always the same, else None.
        align: Only multiples of this are hits.
    """

    before: int = 0
    after: int = 0
    stride: int = 1
    is_disjoint: bool = False
    literal: bytes | None = None
    align: int = 1

    @abstractmethod
    def find(self, view: memoryview, address: int, base: int) -> array[int]:
        """Returns the offsets of its places, in order.

        Args:
            view: The bytes.
            address: Their address in our own memory.
            base: Their address in the target.
        """

    def find_between(
        self, view: memoryview, address: int, base: int, first: int, last: int
    ) -> array[int]:
        """Returns the addresses of its places between two offsets.

        Args:
            view: The bytes.
            address: Their address in our own memory.
            base: Their address in the target.
            first: The first offset that is asked for.
            last: One past the last offset.
        """
        found = self.find(view, address, base)
        return array("Q", [at + base for at in found if first <= at < last])

    def found_in_zeros(self) -> bool:
        """Returns whether memory that was never written holds it."""
        zeros = Scratch(min(self.before + self.after + CONTEXT, _ZEROS_LEN))
        return bool(self.find(zeros.view, zeros.address, 0))
