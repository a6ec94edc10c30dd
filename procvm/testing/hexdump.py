"""Memory as lines a person reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from procvm.errors import PageFaultError

__all__ = ["hexdump", "hexdump_readable"]

_WIDTH = 16


def hexdump(address: int, data: bytes) -> Iterator[str]:
    """Yields lines of 16 bytes: address, hex, characters; printable ASCII alone."""
    cells: list[int | None] = list(data)
    return _lines(address, cells)


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
        n = min(_WIDTH - at % _WIDTH, end - at)
        try:
            cells += read(at, n)
        except PageFaultError as error:
            got = read(at, error.copied_len)
            cells += [*got, *([None] * (n - len(got)))]
    return _lines(start, cells)


def _lines(address: int, cells: list[int | None]) -> Iterator[str]:
    at = -(address % _WIDTH)
    while at < len(cells):
        row = [cells[k] if k >= 0 else -1 for k in range(at, min(at + _WIDTH, len(cells)))]
        text = [_hex(cell) for cell in row]
        text += ["  "] * (_WIDTH - len(text))
        characters = "".join(map(_character, row))
        left, right = " ".join(text[:8]), " ".join(text[8:])
        yield f"{address + at:016x}  {left}  {right}  |{characters}|"
        at += _WIDTH


def _hex(cell: int | None) -> str:
    return "--" if cell is None else "  " if cell < 0 else f"{cell:02x}"


def _character(cell: int | None) -> str:
    if cell is None or cell < 0:
        return " "
    return chr(cell) if 0x20 <= cell < 0x7F else "."
