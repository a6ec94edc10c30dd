"""Bytes as rows of hexadecimal digits and of characters, made for 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ADDRESS_WIDTH", "ROW_LEN", "address_text", "ascii_text", "hex_text"]

ROW_LEN = 16
"""Bytes in a row."""

ADDRESS_WIDTH = 14
"""Columns of an address of user space, with its 0x."""

_HALF = ROW_LEN // 2
_WIDTH = 3 * ROW_LEN
_TABLE = bytes(byte if 0x20 <= byte < 0x7F else 0x2E for byte in range(256))


def address_text(address: int, width: int = ADDRESS_WIDTH) -> str:
    """Returns an address as it is typed too, in as many columns or more."""
    return f"{address:#0{width}x}"


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
