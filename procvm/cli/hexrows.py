"""Bytes as rows of hexadecimal digits and of characters, made for 80 columns."""

from __future__ import annotations

__all__ = ["ROW_LEN", "ascii_text", "hex_text"]

ROW_LEN = 16
"""Bytes in a row."""

_HALF = ROW_LEN // 2
_WIDTH = 3 * ROW_LEN
_TABLE = bytes(byte if 0x20 <= byte < 0x7F else 0x2E for byte in range(256))


def hex_text(row: bytes) -> str:
    """Returns the digits of up to 16 bytes, always as wide."""
    first, second = row[:_HALF].hex(" "), row[_HALF:].hex(" ")
    return f"{first:{_WIDTH // 2}} {second}".ljust(_WIDTH)


def ascii_text(row: bytes) -> str:
    """Returns the printable ASCII characters of bytes, and a point for each other one."""
    return row.translate(_TABLE).decode("ascii")
