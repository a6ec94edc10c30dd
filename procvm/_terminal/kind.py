"""`Kind`: how the bytes of a type are read, shown and written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import procvm
from procvm._space.chunks import read_chunks

__all__ = ["Kind"]


class Kind(ABC):
    """A type of values.

    Attributes:
        name: As it was asked for.
        size: Bytes of one value.
    """

    name: str
    size: int

    @abstractmethod
    def decode(self, data: bytes) -> list[Any]:
        """Returns the values that stand one behind the other in bytes."""

    @abstractmethod
    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns a value as a person reads it, printable."""

    @abstractmethod
    def as_json(self, value: Any) -> Any:
        """Returns a value as JSON has it."""

    @abstractmethod
    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Returns the bytes to write for what a person typed.

        Raises:
            ValueError: It is no such value.
            OverflowError: It does not fit.
        """

    def of_target(self, address_size: int) -> Kind:
        """Returns the kind as it is in a target whose pointers have so many bytes."""
        return self

    def decode_one(self, data: bytes) -> Any:
        """Returns the one value that bytes are, as `encode` made them."""
        return self.decode(data)[0]

    def read(self, vm: procvm.VmSpace, address: int, count: int) -> Iterator[tuple[int, Any]]:
        """Yields (address, value) of values one behind the other, up to where they can be read.

        Raises:
            PageFaultError: `copied_len` bytes could be read; their whole values were yielded.
        """
        at = address
        for data in read_chunks(vm, address, count * self.size, self.size):
            for value in self.decode(data):
                yield at, value
                at += self.size
