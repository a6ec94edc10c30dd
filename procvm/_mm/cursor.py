"""`Cursor`: the base of readers and writers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Self

from procvm._base.address import as_len, check_range
from procvm._base.markers import F
from procvm._mm.copy import copy
from procvm._mm.memory import Memory
from procvm.errors import InvalidArgsError, ProcvmError

__all__ = ["Cursor", "advance", "memory_of", "require_reader", "require_writer", "run_of"]


class Cursor(Generic[F]):
    """A position in a memory, and the end that it may move to.

    A cursor belongs to one thread: it keeps scratch memory for its calls.
    """

    __slots__ = ("_accesses", "_cursor", "_end", "_marker", "_memory")

    writes: ClassVar[bool]
    """Whether it is a writer."""

    def __init__(self, memory: Memory, address: int, n: int, marker: type[F]) -> None:
        try:
            bounds = memory.bounds
        except AttributeError:
            raise TypeError(
                f"a {type(self).__name__} is made by {type(self).__name__}.from_buffer(buffer), by "
                f"vm.{'writer' if self.writes else 'reader'}(address, n), or by an object of "
                f"memory; not of a {type(memory).__name__}"
            ) from None
        # Without this a cursor over own memory could name any address, and crash the tool.
        if bounds is not None and not (
            type(address) is int
            and type(n) is int
            and bounds[0] <= address <= address + n <= bounds[0] + bounds[1]
        ):
            _require_within(address, n, *bounds)
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
                f"cannot skip {n} bytes at {self._cursor:#x}: {self._end - self._cursor} are left"
            )
        self._cursor = after
        return self

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
        """Copies as many bytes as both cursors have left, between any two memories.

        `read`, `read_fallible` and their twins are this, each for the memory
        its name promises.
        """
        # A reader taken for a writer would write into read-only bytes.
        require_writer(writer, "copy_to")
        if self.writes:
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


def run_of(cursors: Sequence[Cursor[Any]], start: int, room: int) -> list[tuple[Cursor[Any], int]]:
    """Returns the cursors from index `start` on that are in one memory, each with a length.

    Args:
        cursors: The cursors.
        start: The index of the first.
        room: The most bytes together.
    """
    memory = memory_of(cursors[start])
    run: list[tuple[Cursor[Any], int]] = []
    seen: set[int] = set()
    for k in range(start, len(cursors)):
        cursor = cursors[k]
        # By the attributes: a call of a method takes as long as the rest for a cursor.
        same = cursor._memory is memory  # pyright: ignore[reportPrivateUsage]
        # A cursor that is given twice has already moved at its second place.
        if not room or not same or id(cursor) in seen:
            break
        seen.add(id(cursor))
        n = cursor._end - cursor._cursor  # pyright: ignore[reportPrivateUsage]
        if n > room:  # noqa: PLR1730 (`min` is a call)
            n = room
        run.append((cursor, n))
        room -= n
    return run


def advance(run: list[tuple[Cursor[Any], int]], n: int) -> None:
    """Moves the cursors of `run_of` over the first `n` bytes of their ranges."""
    for cursor, most in run:
        step = min(most, n)
        cursor._cursor += step  # pyright: ignore[reportPrivateUsage]  # of this module
        n -= step


def _require_within(address: int, n: int, start: int, size: int) -> None:
    """Raises InvalidArgsError for a range that is not within `size` bytes from `start` on."""
    address, n = check_range(address, n)
    if not start <= address <= address + n <= start + size:
        raise InvalidArgsError(
            f"[{address:#x}, {address + n:#x}) leaves the memory at {start:#x}, {size} bytes long"
        )


def memory_of(cursor: Cursor[Any]) -> Memory:
    """Returns the memory of a cursor, whose methods trust every address they are given."""
    return cursor._memory  # pyright: ignore[reportPrivateUsage]  # of this module


def require_writer(value: object, call: str, instead: str = "") -> None:
    """Raises TypeError for what is not a VmWriter, and says what to write instead.

    Args:
        value: What the caller gave.
        call: What it was given to.
        instead: Another call, which may be what the caller meant.
    """
    if _writes(value) is not True:
        raise _not_a_cursor(type(value), call, "VmWriter", instead)


def require_reader(value: object, call: str, instead: str = "") -> None:
    """Raises TypeError for what is not a VmReader, as `require_writer` does."""
    if _writes(value) is not False:
        raise _not_a_cursor(type(value), call, "VmReader", instead)


def _writes(value: object) -> bool | None:
    """Returns whether a cursor is a writer; None for what is not a cursor."""
    return value.writes if isinstance(value, Cursor) else None


def _not_a_cursor(given: type[object], call: str, wanted: str, instead: str) -> TypeError:
    also = f", or use {instead}" if instead else ""
    return TypeError(
        f"{call} takes a {wanted}, not {given.__name__}; give {wanted}.from_buffer(buffer){also}"
    )
