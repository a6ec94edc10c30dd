"""Bytes as rows of hexadecimal digits and of characters, made for 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ROW_LEN", "ascii_text", "hex_text"]

ROW_LEN = 16
"""Bytes in a row."""

_HALF = ROW_LEN // 2
_WIDTH = 3 * ROW_LEN
_TABLE = bytes(byte if 0x20 <= byte < 0x7F else 0x2E for byte in range(256))


def hex_text(row: Sequence[int | None]) -> str:
    """Returns the digits of up to 16 bytes, always as wide; ``--`` for one that is not there."""
    first, second = _digits(row[:_HALF]), _digits(row[_HALF:])
    return f"{first:{_WIDTH // 2}} {second}".ljust(_WIDTH)


def _digits(part: Sequence[int | None]) -> str:
    if isinstance(part, bytes):
        return part.hex(" ")
    return " ".join("--" if byte is None else f"{byte:02x}" for byte in part)


def ascii_text(row: Sequence[int | None]) -> str:
    """Returns the printable ASCII characters of bytes, a point for each other one.

    For one that is not there it is a space.
    """
    if isinstance(row, bytes):
        return row.translate(_TABLE).decode("ascii")
    return "".join(" " if byte is None else chr(_TABLE[byte]) for byte in row)
