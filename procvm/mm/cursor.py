"""What a reader and a writer share: a memory, a position, an end."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Self

from procvm.address import as_len
from procvm.errors import InvalidArgsError, ProcvmError
from procvm.markers import F
from procvm.mm.copy import copy
from procvm.mm.memory import Memory

__all__ = ["Cursor"]


class Cursor(Generic[F]):
    """A position in a memory and the end it may go to.

    A cursor belongs to one thread: it keeps scratch memory for its calls.
    """

    __slots__ = ("_accesses", "_cursor", "_end", "_marker", "_memory")

    _writes: ClassVar[bool]

    def __init__(self, memory: Memory, address: int, n: int, marker: type[F]) -> None:
        self._memory: Memory = memory
        self._cursor: int = address
        self._end: int = address + n
        self._marker: type[F] = marker
        # pod -> (prepared access, size); made at the first use of each pod.
        self._accesses: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}[{self._marker.__name__}] at {self._cursor:#x}, "
            f"{self._end - self._cursor} bytes left>"
        )

    def cursor(self) -> int:
        """Returns the address of the next byte."""
        return self._cursor

    def limit(self, n: int) -> Self:
        """Shortens what is left to at most `n` bytes; a larger `n` has no effect.

        Returns:
            The same cursor.

        Raises:
            ValueError: `n` is negative.
        """
        end = self._cursor + as_len(n)
        self._end = min(self._end, end)
        return self

    def skip(self, n: int) -> Self:
        """Moves over `n` bytes without touching them.

        Returns:
            The same cursor.

        Raises:
            ValueError: `n` is negative or more than what is left; the cursor
                has not moved.
        """
        after = self._cursor + as_len(n)
        if after > self._end:
            raise ValueError(
                f"can not skip {n} bytes at {self._cursor:#x}: {self._end - self._cursor} are left"
            )
        self._cursor = after
        return self

    def advance(self, n: int) -> None:
        """Moves over `n` bytes that are known to be left."""
        self._cursor += n

    @property
    def memory(self) -> Memory:
        """The memory the cursor stands in."""
        return self._memory

    def _require(self, call: str, *markers: type[object]) -> None:
        """Refuses, at run time, a cursor of the wrong kind of memory."""
        if self._marker not in markers:
            wanted = " or ".join(marker.__name__ for marker in markers)
            raise TypeError(f"{call} takes {wanted} memory, this cursor is {self._marker.__name__}")

    def _require_left(self, need: int) -> None:
        """Raises InvalidArgsError if less than `need` bytes are left."""
        left = self._end - self._cursor
        if left < need:
            raise InvalidArgsError(
                f"{need} bytes do not fit at {self._cursor:#x}: {left} are left; "
                "give a longer range"
            )

    def left(self) -> int:
        """Returns the bytes between the position and the end."""
        return self._end - self._cursor

    def copy_to(self, writer: Cursor[Any]) -> int:
        """Copies what both sides have room for, whatever memory they stand in.

        `read`, `read_fallible` and their twins are this, each for the memory
        its name promises.
        """
        # A reader taken for a writer would write into read-only bytes.
        if self._writes or not writer._writes:
            raise TypeError(
                f"bytes go from a VmReader to a VmWriter, not from a {type(self).__name__} "
                f"to a {type(writer).__name__}"
            )
        n = min(self._end - self._cursor, writer._end - writer._cursor)
        try:
            copy(writer._memory, writer._cursor, self._memory, self._cursor, n)
        except ProcvmError as error:
            self._cursor += error.copied_len
            writer._cursor += error.copied_len
            raise
        self._cursor += n
        writer._cursor += n
        return n
