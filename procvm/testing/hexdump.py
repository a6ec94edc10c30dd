"""Memory as lines a person reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from procvm._base.hexrows import ROW_LEN, ascii_text, hex_text
from procvm.errors import PageFaultError

__all__ = ["hexdump", "hexdump_readable"]


def hexdump(address: int, data: Sequence[int | None]) -> Iterator[str]:
    """Yields lines of 16 bytes: address, hex, characters; printable ASCII alone.

    Args:
        address: Of the first byte; lines begin at multiples of 16.
        data: The bytes; None for one that can not be read.
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


def hexdump_readable(read: Callable[[int, int], bytes], start: int, end: int) -> Iterator[str]:
    """Yields the lines of a range, with ``--`` for each byte that can not be read.

    Args:
        read: Returns the bytes at an address, so many, as `VmSpace.read_bytes`.
        start: The first address.
        end: One past the last.
    """
    cells: list[int | None] = []
    while start + len(cells) < end:
        at = start + len(cells)
        n = min(ROW_LEN - at % ROW_LEN, end - at)
        try:
            cells += read(at, n)
        except PageFaultError as error:
            got = read(at, error.copied_len)
            cells += [*got, *([None] * (n - len(got)))]
    return hexdump(start, cells)
