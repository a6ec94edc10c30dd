"""`HexView`: rows of memory with a cursor, changed bytes in colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from procvm._base.hexrows import ADDRESS_WIDTH, address_text
from procvm.tui.window import FADING, FRESH, NOTHING, Changes, Window

if TYPE_CHECKING:
    from rich.style import Style
    from textual import events

__all__ = ["HexView"]

_LAST = (1 << 64) - 1
_NARROW, _WIDE = 8, 16
_SCROLLED = 3
# Bytes after the cursor that are read even below the last row: the inspector shows them.
_AHEAD = 256


def _columns(row_len: int) -> int:
    """Returns the columns of a row of `row_len` bytes: address, digits with a gap, text."""
    return ADDRESS_WIDTH + 2 + 3 * row_len + 2 + row_len


class HexView(Widget, can_focus=True):
    """Shows rows of memory; its owner reads the range `wanted` and passes it to `show`."""

    DEFAULT_CSS = """
    HexView {
        & > .hexview--address { color: $text-muted; }
        & > .hexview--zero { color: $text-disabled; }
        & > .hexview--unknown { color: $text-error; text-style: dim; }
        & > .hexview--fresh { color: $background; background: $warning; text-style: bold; }
        & > .hexview--fading { color: $text-warning; text-style: bold; }
        & > .hexview--hit { background: $primary-muted; text-style: underline; }
        & > .hexview--mark { background: $accent; color: $background; }
        & > .hexview--cursor { background: $foreground; color: $background; text-style: bold; }
        & > .hexview--blurred { text-style: reverse; }
    }
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "hexview--address",
        "hexview--zero",
        "hexview--unknown",
        "hexview--fresh",
        "hexview--fading",
        "hexview--hit",
        "hexview--mark",
        "hexview--cursor",
        "hexview--blurred",
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "move(-1)", show=False),
        Binding("right,l", "move(1)", show=False),
        Binding("up,k", "move_rows(-1)", show=False),
        Binding("down,j", "move_rows(1)", show=False),
        Binding("pageup", "move_pages(-1)", show=False),
        Binding("pagedown,space", "move_pages(1)", show=False),
        Binding("home", "row_start", show=False),
        Binding("end", "row_end", show=False),
        Binding("enter,f", "app.follow", "Follow", key_display="⏎"),
        Binding("backspace,b", "app.come_back", "Back", key_display="⌫"),
    ]

    class Moved(Message):
        """The cursor or the shown range has moved."""

    def __init__(self, cursor: int) -> None:
        super().__init__(id="hex")
        self.cursor = cursor
        self.top = 0
        self.hit: range | None = None
        self.marks: set[int] = set()
        self.window = NOTHING
        self.changes = Changes()
        self._align()

    @property
    def row_len(self) -> int:
        """Bytes per row: 16 if they fit, else 8."""
        return _WIDE if self.size.width >= _columns(_WIDE) else _NARROW

    @property
    def nr_rows(self) -> int:
        """How many rows are shown."""
        return max(self.size.height, 1)

    def wanted(self) -> tuple[int, int]:
        """Returns the address and the length of the range to read."""
        end = max(self.top + self.nr_rows * self.row_len, self.cursor + _AHEAD)
        return self.top, min(end, _LAST + 1) - self.top

    def show(self, window: Window, *, is_tick: bool) -> None:
        """Shows bytes that were read."""
        self.window = window
        if is_tick:
            self.changes.look(window)
        else:
            self.changes.moved(window)
        self.refresh()

    def go(self, address: int) -> None:
        """Moves the cursor to an address; scrolls if the address is not shown."""
        self.cursor = min(max(address, 0), _LAST)
        if not self.top <= self.cursor < self.top + self.nr_rows * self.row_len:
            self.top = self.cursor - self.nr_rows // 3 * self.row_len
        self._align()
        self.post_message(self.Moved())

    def _align(self) -> None:
        """Aligns `top` to a row, and scrolls so that the cursor is shown."""
        row = self.row_len
        first = self.cursor // row * row
        last_top = max(0, (_LAST + 1) - self.nr_rows * row)
        top = max(self.top, 0) // row * row
        top = max(min(top, first), first - (self.nr_rows - 1) * row)
        self.top = max(0, min(top, last_top))

    def _step(self, by: int) -> None:
        if 0 <= self.cursor + by <= _LAST:
            self.cursor += by
            self._align()
            self.post_message(self.Moved())

    def action_move(self, by: int) -> None:
        """Moves by bytes."""
        self._step(by)

    def action_move_rows(self, by: int) -> None:
        """Moves by rows."""
        self._step(by * self.row_len)

    def action_move_pages(self, by: int) -> None:
        """Moves by pages of the screen."""
        n = by * max(self.nr_rows - 1, 1) * self.row_len
        self.top = max(self.top + n, 0)
        self._step(n if 0 <= self.cursor + n <= _LAST else 0)

    def action_row_start(self) -> None:
        """Moves to the first byte of the row."""
        self._step(-(self.cursor % self.row_len))

    def action_row_end(self) -> None:
        """Moves to the last byte of the row."""
        self._step(self.row_len - 1 - self.cursor % self.row_len)

    def on_resize(self) -> None:
        """Shows as many rows as fit."""
        self._align()
        self.post_message(self.Moved())

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scrolls down."""
        event.stop()
        self.action_move_rows(_SCROLLED)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scrolls up."""
        event.stop()
        self.action_move_rows(-_SCROLLED)

    def on_click(self, event: events.Click) -> None:
        """Moves the cursor to the byte under the mouse."""
        place = event.get_content_offset(self)
        if place is None:
            return
        column = self._column_of(place.x)
        address = self.top + place.y * self.row_len
        if column is not None and address + column <= _LAST:
            self.cursor = address + column
            self.post_message(self.Moved())

    def _column_of(self, x: int) -> int | None:
        """Returns the index of the byte at a column of the screen; None if there is none."""
        digits_at = self._address_len() + 2
        row = self.row_len
        text_at = digits_at + 3 * row + 2
        if text_at <= x < text_at + row:
            return x - text_at
        if digits_at <= x < digits_at + 3 * row + 1:
            x -= digits_at
            return min((x - (x >= 3 * row // 2)) // 3, row - 1)
        return None

    def _address_len(self) -> int:
        return ADDRESS_WIDTH if self.top + self.nr_rows * self.row_len <= 1 << 48 else 18

    def render_line(self, y: int) -> Strip:
        """Returns a row of the screen."""
        base = self.rich_style
        row = self.row_len
        start = self.top + y * row
        width = self.size.width
        if start > _LAST:
            return Strip.blank(width, base)
        address_style = self._style("address")
        digits: list[Segment] = [
            Segment(address_text(start, self._address_len()), address_style),
            Segment("  ", base),
        ]
        texts: list[Segment] = []
        for k in range(row):
            address = start + k
            byte = self.window.byte(address)
            style = self._style_of(address, byte)
            none = "." if self.window.is_awaited(address) else "?"
            digits.append(Segment(f"{byte:02x}" if byte is not None else none * 2, style))
            digits.append(Segment("  " if k == row // 2 - 1 else " ", base))
            char = none if byte is None else chr(byte) if 0x20 <= byte < 0x7F else "·"
            texts.append(Segment(char, style))
        strip = Strip([*digits, Segment(" ", base), *texts])
        return strip.adjust_cell_length(width, base)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"hexview--{name}")

    def _style_of(self, address: int, byte: int | None) -> Style:
        if address == self.cursor:
            return self._style("cursor" if self.has_focus else "blurred")
        heat = self.changes.of(address)
        if heat == FRESH:
            return self._style("fresh")
        if address in self.marks:
            return self._style("mark")
        if self.hit is not None and address in self.hit:
            return self._style("hit")
        if byte is None:
            return self._style("unknown")
        if heat == FADING:
            return self._style("fading")
        return self._style("zero") if byte == 0 else self.rich_style
