"""Runs the viewer without a terminal, and looks at what is on its screen."""

from __future__ import annotations

import asyncio
import functools
import html
import re
import time
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from textual.widgets import Input, Static

import procvm
from procvm.tui.app import Viewer
from procvm.tui.dialogs import Dialog
from procvm.tui.hexview import HexView
from procvm.tui.inspector import Inspector
from procvm.tui.regions import RegionList
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from textual.pilot import Pilot

Test = Callable[..., Coroutine[Any, Any, None]]


def in_loop(test: Test) -> Callable[..., None]:
    """Makes a test of a coroutine."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class View:
    """The viewer while it runs."""

    def __init__(self, app: Viewer, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def hex(self) -> HexView:
        return self.app.screen_stack[0].query_one(HexView)

    @property
    def regions(self) -> RegionList:
        return self.app.screen_stack[0].query_one(RegionList)

    @property
    def inspector(self) -> Inspector:
        return self.app.screen_stack[0].query_one(Inspector)

    @property
    def title(self) -> str:
        return str(self.app.screen_stack[0].query_one("#title", Static).content)

    def rows(self) -> list[str]:
        """Returns the text of the hex view."""
        return [self.hex.render_line(y).text.rstrip() for y in range(self.hex.nr_rows)]

    def values(self) -> dict[str, str]:
        """Returns the values of the inspector by their names."""
        text = self.inspector.render().plain
        parts = re.findall(r"^ *(ptr|str) (.*)$", text, re.MULTILINE)
        parts += re.findall(r"(\w\w?\d|bin|chr) (\S+|' ')(?:\s|$)", text)
        return {name: value.rstrip() for name, value in parts}

    def screen(self) -> list[str]:
        """Returns the text of the whole screen, a line a row."""
        lines: dict[float, list[tuple[float, str]]] = {}
        picture = self.app.export_screenshot()
        for x, y, text in re.findall(r'<text[^>]*? x="([\d.]+)" y="([\d.]+)".*?>([^<]+)<', picture):
            if text != "\n":
                lines.setdefault(float(y), []).append((float(x), html.unescape(text)))
        rows = ("".join(text for _, text in sorted(lines[y])) for y in sorted(lines))
        return [row.replace("\xa0", " ") for row in rows]

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def fill(self, text: str) -> None:
        """Types into the dialog that is open, and presses Enter."""
        dialog = self.app.screen
        assert isinstance(dialog, Dialog)
        dialog.query_one(Input).value = text
        await self.press("enter")
        await self.until(lambda: self.app.screen is not dialog or bool(self.wrong()))

    def wrong(self) -> str:
        """Returns what the dialog that is open tells."""
        return str(self.app.screen.query_one(".said", Static).content)

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits until something holds; fails if it never does."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, f"still not; {self.title}; {self.app.said}"
            await self.pilot.pause(0.01)

    def tick(self) -> None:
        self.app.tick()


@asynccontextmanager
async def viewing(
    process: procvm.Process,
    address: int | None = None,
    size: tuple[int, int] = (80, 24),
    **settings: Any,
) -> Any:
    """Runs the viewer; it looks only when it is told to, unless `tick` says else."""
    settings.setdefault("tick", None)
    settings.setdefault("patience", PATIENCE)
    app = Viewer(process, address, **settings)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield View(app, pilot)
