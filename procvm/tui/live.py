"""`LiveScreen`: the screen of the viewer, read from the process again at each tick."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.containers import Horizontal
from textual.widgets import Footer, Static

import procvm
from procvm._base.text import printable, shown
from procvm._linux.procfs import read_status
from procvm._space.maps import Kind as MappingKind
from procvm._space.maps import Maps, Vma
from procvm.errors import ClosedError, ProcessExecedError, ProcessExitedError, ProcvmError
from procvm.tui.hexview import HexView
from procvm.tui.hints import said_by
from procvm.tui.inspector import Inspector
from procvm.tui.pause import Pause
from procvm.tui.regions import RegionList, region_name
from procvm.tui.waiting import Reads, Turns, attempt, in_thread

__all__ = ["GONE", "LONGEST_HOLD", "PATIENCE", "TICK", "LiveScreen", "where_of"]

LONGEST_HOLD = 60.0
"""Seconds after which a held target is resumed by itself."""

TICK = 0.25
"""Seconds between two reads of the screen's bytes."""

PATIENCE = 0.1
"""Seconds that the screen waits for what it reads, before it goes on without that."""

_REGIONS_EVERY = 2.0
# At least this many times as long between two reads as one takes: with very many mappings,
# the viewer would read nothing else.
_REGIONS_SHARE = 20
_MOST_DESCRIBED = 10_000

GONE = (ProcessExitedError, ProcessExecedError, ClosedError)

T = TypeVar("T")


class LiveScreen(App[None]):
    """The regions, bytes and values of a process at this moment."""

    TITLE = "procvm view"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = "HexView"

    CSS = """
    #title { height: 1; background: $primary; color: $text; text-style: bold; padding: 0 1;
             text-wrap: nowrap; text-overflow: ellipsis; }
    #title.held { background: $warning; color: $background; }
    #title.ended { background: $error; color: $text; }
    #body { height: 1fr; }
    RegionList { width: 29; border-top: solid $primary-muted; border-right: solid $primary-muted; }
    .wide RegionList { width: 1fr; min-width: 29; max-width: 60; }
    HexView { width: 1fr; min-width: 51; border-top: solid $primary-muted; padding: 0 0 0 1; }
    .wide HexView { width: 83; min-width: 83; }
    Inspector { border-top: solid $primary-muted; }
    RegionList, HexView, Inspector { border-title-color: $foreground; }
    RegionList:focus, HexView:focus { border-top: solid $accent; }
    #message { height: auto; max-height: 5; min-height: 1; padding: 0 1; }
    #message.bad { color: $text-error; }
    """

    def __init__(
        self,
        process: procvm.Process,
        address: int | None = None,
        *,
        tick: float | None = TICK,
        longest_hold: float = LONGEST_HOLD,
        patience: float = PATIENCE,
    ) -> None:
        """Makes the screen; nothing is read before it runs.

        Args:
            process: The process; it stays open.
            address: The first address to show; the start of the heap if not given.
            tick: Seconds between two reads; None to read only when `tick` is called.
            longest_hold: Seconds after which a held process is resumed.
            patience: Seconds to wait for each read before the screen goes on without it.
        """
        super().__init__()
        self.process = process
        self.pause = Pause(process, longest_hold)
        self.ended = ""
        self._tick_every = tick
        self._name = _name_of(process.pid)
        self._hex = HexView(0 if address is None else address)
        self._regions = RegionList()
        self._inspector = Inspector()
        self._title = Static("", id="title", markup=False)
        self._message = Static("", id="message", markup=False)
        self._given = address
        self._regions_at = 0.0
        # For the thread that looks up symbols: two at a time would read the files twice.
        self._symbols = Turns()
        self._patience = patience
        self._reads = Reads(process.vm, patience, self._come)
        self._reads_regions = False
        self._described: dict[int, str] = {}
        self._describing = False

    # --- its parts

    def compose(self) -> ComposeResult:
        """Yields the widgets."""
        yield self._title
        with Horizontal(id="body"):
            yield self._regions
            yield self._hex
        yield self._inspector
        yield self._message
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Reads the process for the first time."""
        self._regions.border_title = "Regions"
        size = self._attempted(lambda: self.process.address_size)
        self._inspector.address_size = size or self._inspector.address_size
        self.action_read_regions()
        self._look()
        if self._tick_every is not None:
            self.set_interval(self._tick_every, self.tick)

    def on_resize(self) -> None:
        """Chooses rows of 16 bytes if they fit, else of 8."""
        self.screen.set_class(self.size.width >= 83 + 29, "wide")

    def on_unmount(self) -> None:
        """Releases the process."""
        self.release()

    def release(self) -> None:
        """Resumes the process. May be called twice."""
        self.pause.close()

    def say(self, text: str, *, bad: bool = False) -> None:
        """Shows a message in the line above the keys."""
        self._message.set_class(bad, "bad")
        self._message.update(Text(shown(text)))

    @property
    def said(self) -> str:
        """The last message."""
        return str(self._message.content)

    # --- looking

    def tick(self) -> None:
        """Reads the bytes on the screen again, and the regions from time to time."""
        if self.ended:
            return
        if self._attempted(self._hold_lasts) is False:
            self.say(
                f"the hold ended after {self.pause.longest:g} s, its longest time; the process runs"
            )
        if time.monotonic() >= self._regions_at:
            self._read_regions()
        self._look(is_tick=True)

    def _hold_lasts(self) -> bool:
        """Returns False if a hold ended because its longest time was over."""
        return not self.pause.is_held or self.pause.look()

    def _look(self, *, is_tick: bool = False) -> None:
        if not self.ended:
            start, n = self._hex.wanted()
            window = self._attempted(lambda: self._reads.window(start, n))
            if window is not None:
                self._hex.show(window, is_tick=is_tick)
        self._show_rest()

    def _come(self) -> None:
        """Shows a page that has come late."""
        if self.is_running:
            self._look(is_tick=True)

    def _show_rest(self) -> None:
        """Shows everything that depends on the bytes and the cursor."""
        cursor = self._hex.cursor
        vma = self._regions.mark(cursor)
        awaited = "  has not come yet" if self._hex.window.is_awaited(cursor) else ""
        self._hex.border_title = Text(where_of(vma, cursor) + awaited)
        self._inspector.show(self._hex.window, cursor)
        here = self._describe(cursor)
        self._inspector.border_title = Text(f"{cursor:#x}" + (f"  {here}" if here else ""))
        pointer = self._inspector.pointer()
        self._inspector.points_to = "" if pointer is None else self._pointed_at(pointer)
        self._show_title()

    def _show_title(self) -> None:
        text = f"{self.process.pid} {self._name}"
        if self.ended:
            text += f"  ENDED: {self.ended}"
        elif self.pause.is_held:
            left, longest = self.pause.left, self.pause.longest
            text += f"  HELD  {left:.0f} s left of {longest:g} s  (p resumes)"
        else:
            text += "  running"
        self._title.set_class(bool(self.ended), "ended")
        self._title.set_class(not self.ended and self.pause.is_held, "held")
        if str(self._title.content) != text:
            self._title.update(Text(text))

    def _attempted(self, act: Callable[[], T]) -> T | None:
        """Returns what `act` returns; an error becomes a message and None."""
        try:
            return act()
        except GONE as error:
            self._end(error)
        except ProcvmError as error:
            self.say(said_by(error), bad=True)
        return None

    def _end(self, error: ProcvmError) -> None:
        if not self.ended:
            self.ended = shown(error.message)
            self.release()
            self.say("the screen shows the last bytes that were read; q leaves")
            self._show_title()

    def _is_gone(self) -> bool:
        """Returns whether the process is gone, and shows why."""
        if self.ended:
            self.say(self.ended, bad=True)
        return bool(self.ended)

    # --- regions

    def action_read_regions(self) -> None:
        """Reads the list of regions again."""
        if not self._is_gone():
            self._read_regions()

    def _read_regions(self) -> None:
        if self._reads_regions:
            return
        self._reads_regions, begun = True, time.monotonic()

        def show(future: Future[Maps]) -> None:
            maps = self._attempted(future.result)
            if maps is not None and list(maps) != list(self._regions.maps):
                self._regions.show(maps)
                self._regions.border_title = Text(f"{len(maps):,} regions")
                self._described.clear()
                if self._given is None:
                    self._given = _first_of(maps).start
                    self._hex.go(self._given)
            now = time.monotonic()
            self._regions_at = now + max(_REGIONS_EVERY, _REGIONS_SHARE * (now - begun))
            self._reads_regions = False
            self._show_rest()

        attempt(self.process.maps, show, self._patience)

    def on_hex_view_moved(self, _message: HexView.Moved) -> None:
        """Reads the bytes that the hex view shows now."""
        self._look()

    async def _in_thread(self, act: Callable[[], T]) -> T:
        """Runs slow work in a thread, one piece at a time, so that the screen stays live."""

        def alone() -> T:
            with self._symbols.turn():
                return act()

        return await in_thread(alone)

    async def _looked_up(self, act: Callable[[], T]) -> T | str:
        """Runs slow work in a thread; returns an error as text."""
        try:
            return await self._in_thread(act)
        except GONE as error:
            self._end(error)
            return shown(error.message)
        except (ProcvmError, ValueError, OverflowError) as error:
            return shown(said_by(error))

    # --- names of addresses

    def _describe(self, address: int) -> str:
        """Returns the name of an address if it is known; else starts to look it up."""
        found = self._described.get(address)
        if found is None and not self._describing and not self.ended:
            self._describing = True
            self.run_worker(self._find_out(address), group="symbols")
        return found or ""

    async def _find_out(self, address: int) -> None:
        found = ""
        try:
            found = await self._in_thread(lambda: _described(self.process, address))
        except GONE as error:
            self._end(error)
        except ProcvmError as error:
            self.say(said_by(error), bad=True)
        self._describing = False
        if len(self._described) > _MOST_DESCRIBED:
            self._described.clear()
        self._described[address] = found
        self._show_rest()

    def _pointed_at(self, pointer: int) -> str:
        vma = self._regions.maps.find(pointer)
        if vma is None:
            return ""
        return f"{self._describe(pointer) or _place(vma, pointer)}  {vma.perms}"


def where_of(vma: Vma | None, address: int) -> str:
    """Returns the mapping of an address and its permissions, as text."""
    if vma is None:
        return "not mapped"
    return f"{_place(vma, address)}  {vma.perms}"


def _place(vma: Vma, address: int) -> str:
    return f"{region_name(vma)}+{address - vma.start:#x}"


def _described(process: procvm.Process, address: int) -> str:
    found = process.describe(address)
    return "" if found == f"{address:#x}" else found


def _first_of(maps: Maps) -> Vma:
    """Returns the region to show first: the heap, else a writable region, else any."""
    found = maps.filter(kind=MappingKind.HEAP) or maps.filter(perms="rw") or maps
    return found[0]


def _name_of(pid: int) -> str:
    status = read_status(pid)
    return printable(status.name) if status is not None else ""
