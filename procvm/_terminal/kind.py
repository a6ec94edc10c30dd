"""`Kind`: how the bytes of a value type are decoded, shown and encoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import procvm
from procvm._space.chunks import read_chunks

__all__ = ["Kind"]


class Kind(ABC):
    """A value type of the command and the viewer.

    Attributes:
        name: The name that the user gave.
        size: Bytes per value.
    """

    name: str
    size: int

    @abstractmethod
    def decode(self, data: bytes) -> list[Any]:
        """Returns the consecutive values in `data`."""

    @abstractmethod
    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns a value as printable text."""

    @abstractmethod
    def as_json(self, value: Any) -> Any:
        """Returns a value as it is written in JSON."""

    @abstractmethod
    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Returns the bytes of a value that a user typed.

        Raises:
            ValueError: The text is not a value of this type.
            OverflowError: The value does not fit.
        """

    def of_target(self, address_size: int) -> Kind:
        """Returns this type as laid out in a target with pointers of `address_size` bytes."""
        return self

    def decode_one(self, data: bytes) -> Any:
        """Returns the value whose bytes are `data`, as `encode` makes them."""
        return self.decode(data)[0]

    def read(self, vm: procvm.VmSpace, address: int, count: int) -> Iterator[tuple[int, Any]]:
        """Yields (address, value) of consecutive values, until one cannot be read.

        Raises:
            PageFaultError: `copied_len` bytes were read; the whole values in them were yielded.
        """
        at = address
        for data in read_chunks(vm, address, count * self.size, self.size):
            for value in self.decode(data):
                yield at, value
                at += self.size
