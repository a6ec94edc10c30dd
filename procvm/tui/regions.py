"""`RegionList`: the mappings of a process, drawn only where they are on the screen."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from procvm._base.hexrows import address_text
from procvm._base.perms import Perms
from procvm._base.text import printable, size_text
from procvm._space.maps import Maps, Vma

if TYPE_CHECKING:
    from textual import events

__all__ = ["RegionList", "region_name"]

# With this many columns, rows show addresses.
_WITH_ADDRESSES = 39


def region_name(vma: Vma) -> str:
    """Returns a short printable name of a mapping."""
    name = vma.plain_name
    if name.startswith(b"/"):
        name = name.rpartition(b"/")[2]
    return printable(name) or "(anonymous)"


class RegionList(ScrollView, can_focus=True):
    """A row per mapping; the one with the cursor of the hex view is marked."""

    DEFAULT_CSS = """
    RegionList {
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        & > .regions--here { background: $primary-muted; text-style: bold; }
        & > .regions--cursor { background: $primary; color: $text; text-style: bold; }
        & > .regions--dim { color: $text-muted; }
        & > .regions--exec { color: $text-success; }
        & > .regions--write { color: $text-accent; }
        & > .regions--both { color: $text-error; }
    }
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "regions--here",
        "regions--cursor",
        "regions--dim",
        "regions--exec",
        "regions--write",
        "regions--both",
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "move_pages(-1)", show=False),
        Binding("pagedown,space", "move_pages(1)", show=False),
        Binding("home", "move_to(0)", show=False),
        Binding("end", "move_to(-1)", show=False),
        Binding("enter", "choose", "Open", key_display="⏎"),
    ]

    class Chosen(Message):
        """A mapping was chosen."""

        def __init__(self, vma: Vma) -> None:
            super().__init__()
            self.vma = vma

    def __init__(self) -> None:
        super().__init__(id="regions")
        self.maps = Maps([])
        self._starts: list[int] = []
        self.cursor = 0
        self.here: int | None = None

    def show(self, maps: Maps) -> None:
        """Shows new mappings; the cursor stays on its mapping if that still exists."""
        start = self.maps[self.cursor].start if len(self.maps) else 0
        self.maps = maps
        self._starts = [vma.start for vma in maps]
        self.cursor = max(bisect_right(self._starts, start) - 1, 0)
        self.virtual_size = Size(1, len(maps))
        self.refresh()

    def mark(self, address: int) -> Vma | None:
        """Marks the mapping of an address; returns it, or None."""
        at = bisect_right(self._starts, address) - 1
        found = at >= 0 and address < self.maps[at].end
        here = at if found else None
        if here != self.here:
            self.here = here
            if here is not None and not self.has_focus:
                self._move_to(here)
        self.refresh()
        return self.maps[at] if found else None

    def neighbour(self, address: int, by: int) -> Vma | None:
        """Returns the mapping after (1) or before (-1) an address, or None."""
        at = bisect_right(self._starts, address) - 1
        if by > 0:
            at += 1
        elif at >= 0 and self.maps[at].start == address:
            at -= 1
        return self.maps[at] if 0 <= at < len(self.maps) else None

    def _move_to(self, at: int) -> None:
        if len(self.maps):
            self.cursor = min(max(at, 0), len(self.maps) - 1)
            self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True)
            self.refresh()

    def action_move(self, by: int) -> None:
        """Moves by lines."""
        self._move_to(self.cursor + by)

    def action_move_pages(self, by: int) -> None:
        """Moves by pages of the screen."""
        self._move_to(self.cursor + by * max(self.size.height - 1, 1))

    def action_move_to(self, at: int) -> None:
        """Moves to a row; a negative number counts from the end."""
        self._move_to(at if at >= 0 else len(self.maps) + at)

    def action_choose(self) -> None:
        """Chooses the mapping under the cursor."""
        if len(self.maps):
            self.post_message(self.Chosen(self.maps[self.cursor]))

    def on_click(self, event: events.Click) -> None:
        """Chooses the mapping under the mouse."""
        place = event.get_content_offset(self)
        if place is not None and place.y + self.scroll_offset.y < len(self.maps):
            self._move_to(place.y + self.scroll_offset.y)
            self.action_choose()

    def on_blur(self) -> None:
        """Moves back to the mapping of the hex view's cursor."""
        if self.here is not None:
            self._move_to(self.here)

    def render_line(self, y: int) -> Strip:
        """Returns the row of a mapping."""
        at = y + self.scroll_offset.y
        width = self.scrollable_content_region.width
        if at >= len(self.maps):
            return Strip.blank(width, self.rich_style)
        vma = self.maps[at]
        over = Style.null()
        if at == self.cursor and self.has_focus:
            over = self._style("cursor")
        elif at == self.here:
            over = self._style("here")
        base = self.rich_style
        dim = self._style("dim")
        name = region_name(vma)
        is_new = at == 0 or self.maps[at - 1].name != vma.name
        parts = [
            Segment(f"{vma.perms} ", self._style_of(vma)),
            Segment(f"{size_text(vma.size):>5} ", base),
            Segment(name, base if is_new and vma.name else dim),
        ]
        if self.size.width >= _WITH_ADDRESSES:
            parts.insert(0, Segment(f"{address_text(vma.start)} ", dim))
        strip = Strip([Segment(part.text, (part.style or base) + over) for part in parts])
        return strip.adjust_cell_length(width, base + over)

    def _style(self, name: str) -> Style:
        partial = name in ("here", "cursor")
        return self.get_component_rich_style(f"regions--{name}", partial=partial)

    def _style_of(self, vma: Vma) -> Style:
        both = Perms.WRITE | Perms.EXEC
        if vma.perms & both == both:
            return self._style("both")
        if vma.perms & Perms.EXEC:
            return self._style("exec")
        return self._style("write") if vma.perms & Perms.WRITE else self._style("dim")
