"""`Inspector`: the bytes at the cursor as numbers, as a pointer and as text."""

from __future__ import annotations

import sys
from typing import Any

from rich.text import Text
from textual.widget import Widget

from procvm._base.pods import usize
from procvm._base.text import printable
from procvm._terminal.kind import Kind
from procvm._terminal.kinds import kind_of
from procvm.tui.window import NOTHING, Window

__all__ = ["KINDS", "Inspector"]

_COLUMNS = (
    ("u8", "u16", "u32", "u64"),
    ("i8", "i16", "i32", "i64"),
    ("f32", "f64", "bin", "chr"),
)
KINDS: dict[str, Kind] = {
    name: kind_of(name)
    for name in (*_COLUMNS[0], *_COLUMNS[1], "f32", "f64", "ptr", "bytes", "cstr")
}
"""The types that values can be searched and written as."""

# The width of the longest number.
_COLUMN = 25
_MOST_TEXT = 256


class Inspector(Widget):
    """Shows the value of every type at one address; its owner passes the bytes."""

    DEFAULT_CSS = """
    Inspector { height: 7; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self) -> None:
        super().__init__(id="inspector")
        self.address = 0
        self.window = NOTHING
        self.points_to = ""
        self.address_size = usize.size

    def show(self, window: Window, address: int) -> None:
        """Shows the values at an address."""
        self.window, self.address = window, address
        self.refresh()

    def pointer(self) -> int | None:
        """Returns the bytes at the cursor as an address; None if they could not be read."""
        data = self.window.run(self.address, self.address_size)
        return int.from_bytes(data, sys.byteorder) if len(data) == self.address_size else None

    def value(self, kind: Kind) -> str:
        """Returns the value of one type as text; ``?`` if its bytes could not be read."""
        kind = kind.of_target(self.address_size)
        data = self.window.run(self.address, kind.size)
        return kind.text(kind.decode_one(data)) if len(data) == kind.size else "?"

    def text(self) -> str:
        """Returns the C string in quotes, with ``…`` if it is longer than shown."""
        data = self.window.run(self.address, _MOST_TEXT)
        if not data:
            return "?"
        body, nul, _ = data.partition(b"\0")
        return f'"{printable(body)}"' + ("" if nul else "…")

    def render(self) -> Text:
        """Returns the values in three columns, and the pointer and the string below."""
        text = Text()
        for row in range(len(_COLUMNS[0])):
            for column in _COLUMNS:
                name = column[row]
                text.append(f"{name:>3} ", "dim")
                text.append(f"{self._value(name):<{_COLUMN - 4}}")
            text.append("\n")
        pointer = self.pointer()
        text.append("ptr ", "dim")
        text.append("?" if pointer is None else f"{pointer:#x}")
        if self.points_to:
            text.append(" → ", "dim")
            text.append(self.points_to, "bold")
        text.append("\n")
        text.append("str ", "dim")
        text.append(self.text())
        return text

    def _value(self, name: str) -> str:
        byte: Any = self.window.byte(self.address)
        if name == "bin":
            return "?" if byte is None else f"{byte:08b}"
        if name == "chr":
            return "?" if byte is None else repr(chr(byte)) if byte < 0x80 else f"'\\x{byte:02x}'"
        return self.value(KINDS[name])
