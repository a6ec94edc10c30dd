"""Rows of a hexadecimal dump for reports of failed tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from procvm._base.hexrows import ROW_LEN, ascii_text, hex_text
from procvm.errors import PageFaultError

__all__ = ["hexdump", "hexdump_readable"]


def hexdump(address: int, data: Sequence[int | None]) -> Iterator[str]:
    """Yields rows of 16 bytes: the address, hexadecimal digits, printable ASCII characters.

    Args:
        address: The address of the first byte; rows begin at multiples of 16.
        data: The bytes; None for a byte that cannot be read.
    """
    at = -(address % ROW_LEN)
    while at < len(data):
        row = data[max(at, 0) : at + ROW_LEN]
        digits, characters = hex_text(row), ascii_text(row)
        if at < 0:
            blank: list[int | None] = [None] * -at
            digits = hex_text([*blank, *row]).replace("--", "  ", -at)
            characters = " " * -at + characters
        yield f"{address + at:#018x}  {digits.rstrip():48}  |{characters}|"
        at += ROW_LEN


def hexdump_readable(
    read: Callable[[int, int], bytes], start: int, end: int, name_of: Callable[[int], str]
) -> Iterator[str]:
    """Yields the rows of a range; consecutive rows that cannot be read become one line.

    Args:
        read: Returns `n` bytes at an address, as `VmSpace.read_bytes`.
        start: The first address.
        end: The address after the last byte.
        name_of: Returns what is mapped at an address; rows of another mapping get another line.
    """
    at = gap = start  # from `gap` to `at` nothing can be read
    while at < end:
        n = min(ROW_LEN - at % ROW_LEN, end - at)
        cells = _cells(read, at, n)
        is_readable = any(cell is not None for cell in cells)
        if gap < at and (is_readable or name_of(at) != name_of(gap)):
            yield _unreadable(gap, at, name_of(gap))
            gap = at
        at += n
        if is_readable:
            yield from hexdump(at - n, cells)
            gap = at
    if gap < end:
        yield _unreadable(gap, end, name_of(gap))


def _unreadable(start: int, end: int, name: str) -> str:
    return f"{start:#018x}  {end - start} bytes cannot be read: {name}"


def _cells(read: Callable[[int, int], bytes], address: int, n: int) -> list[int | None]:
    """Returns `n` bytes at an address; None for each that cannot be read."""
    try:
        return [*read(address, n)]
    except PageFaultError as error:
        got = read(address, error.copied_len)
        return [*got, *([None] * (n - len(got)))]
