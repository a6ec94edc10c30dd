"""`Hexdump`: bytes as rows of hexadecimal digits and text, as the command shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, final, overload

from procvm._base.hexrows import ROW_LEN, address_text, ascii_text, hex_text
from procvm._space.access import Access
from procvm._space.chunks import read_chunks

__all__ = ["HexRow", "Hexdump", "hex_rows", "without_repeats"]


class HexRow(NamedTuple):
    """Up to 16 bytes.

    Attributes:
        address: The address of the first byte.
        data: The bytes.
    """

    address: int
    data: bytes

    @property
    def text(self) -> str:
        """The printable ASCII characters, with a point for each other byte."""
        return ascii_text(self.data)

    def __str__(self) -> str:
        """Returns the row: address, hexadecimal digits, text."""
        return f"{address_text(self.address)} {self.digits()}"

    def digits(self) -> str:
        """Returns the row without its address."""
        return f"{hex_text(self.data)} {self.text}"


def hex_rows(vm: Access, address: int, n: int) -> Iterator[HexRow]:
    """Yields `n` bytes as rows, read as they are asked for.

    Raises:
        PageFaultError: Raised after the rows of the bytes that could be read.
    """
    at = address
    for data in read_chunks(vm, address, n):
        for row in _rows(at, data):
            yield row
            at += ROW_LEN


def _rows(address: int, data: bytes) -> Iterator[HexRow]:
    for k in range(0, len(data), ROW_LEN):
        yield HexRow(address + k, data[k : k + ROW_LEN])


def without_repeats(rows: Iterable[HexRow]) -> Iterator[HexRow | None]:
    """Yields rows, and None once for all rows that repeat the row before.

    If the last row is such a repeat, a row without bytes at the end follows.
    """
    last: bytes | None = None
    end = 0
    is_repeat = False
    for row in rows:
        end = row.address + len(row.data)
        if row.data == last and len(row.data) == ROW_LEN:
            if not is_repeat:
                yield None
            is_repeat = True
            continue
        last, is_repeat = row.data, False
        yield row
    if is_repeat:
        yield HexRow(end, b"")


@final
class Hexdump(Sequence[HexRow]):
    """Bytes that were read, as a sequence of rows of 16; `print` shows them.

    ``str()`` shows rows that repeat the row before as one ``*``; iteration gives every row.

    Attributes:
        address: The address of the first byte.
        data: The bytes.
    """

    def __init__(self, address: int, data: bytes) -> None:
        self.address = address
        self.data = data
        self._rows = list(_rows(address, data))

    @overload
    def __getitem__(self, index: int) -> HexRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[HexRow]: ...
    def __getitem__(self, index: int | slice) -> HexRow | Sequence[HexRow]:
        return self._rows[index]

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._rows)

    def __str__(self) -> str:
        """Returns the rows as lines."""
        width = len(address_text(self.address + len(self.data)))
        lines: list[str] = []
        for row in without_repeats(self._rows):
            if row is None:
                lines.append("*")
            else:
                address = address_text(row.address, width)
                lines.append(f"{address} {row.digits()}" if row.data else address)
        return "\n".join(lines)

    __repr__ = __str__
