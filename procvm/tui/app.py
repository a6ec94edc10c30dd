"""`Viewer`: views and edits a live process in the terminal."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType

import procvm
from procvm._base.text import printable
from procvm._terminal.conditions import condition_of
from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Number
from procvm.errors import MismatchError, UnsupportedError
from procvm.tui.dialogs import Change, Confirm, Edit, GoTo, Help, LookFor
from procvm.tui.hints import said_by
from procvm.tui.hunt import Hunt
from procvm.tui.inspector import KINDS
from procvm.tui.live import GONE, LONGEST_HOLD, PATIENCE, TICK, where_of
from procvm.tui.regions import RegionList
from procvm.tui.tracing import TracingScreen
from procvm.tui.waiting import attempt, in_thread
from procvm.tui.window import read_window

__all__ = ["LONGEST_HOLD", "TICK", "Viewer", "run"]


class Viewer(TracingScreen):
    """The live screen of a process, and the actions of its keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "go_to", "Go to"),
        Binding("slash", "search", "Search", key_display="/"),
        Binding("n", "next(1)", "Next"),
        Binding("N", "next(-1)", show=False),
        Binding("e", "edit", "Edit"),
        Binding("p", "pause", "Pause"),
        Binding("question_mark,f1", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("m", "mark", show=False),
        Binding("apostrophe", "next_mark", show=False),
        Binding("u", "undo", show=False),
        Binding("F,shift+right", "go_forward", show=False),
        Binding("r", "read_regions", show=False),
        Binding("left_square_bracket", "region(-1)", show=False),
        Binding("right_square_bracket", "region(1)", show=False),
        Binding("escape", "give_up", show=False),
    ]

    def __init__(
        self,
        process: procvm.Process,
        address: int | None = None,
        *,
        tick: float | None = TICK,
        longest_hold: float = LONGEST_HOLD,
        patience: float = PATIENCE,
    ) -> None:
        """Makes a viewer; see `LiveScreen`."""
        super().__init__(process, address, tick=tick, longest_hold=longest_hold, patience=patience)
        self.hunt: Hunt | None = None
        self._trail: list[int] = []
        self._ahead: list[int] = []
        self._written: list[Change] = []
        self._jump_when_found = False
        self._searched = ("text", "")
        self._edited = "u32"
        self._is_pausing = False

    def on_mount(self) -> None:
        """Looks for hits of a search more often than the ticks: the user waits for them."""
        self.set_interval(0.1, self._look_after_hunt)

    def release(self) -> None:
        """Cancels the search and resumes the process. May be called twice."""
        if self.hunt is not None:
            self.hunt.give_up()
        super().release()

    # --- going about

    def action_region(self, by: int) -> None:
        """Goes to the region before (-1) or after (1) the cursor."""
        vma = self._regions.neighbour(self._hex.cursor, by)
        if vma is not None:
            self.go(vma.start)

    def on_region_list_chosen(self, message: RegionList.Chosen) -> None:
        """Goes to the chosen region."""
        self.go(message.vma.start)
        self._hex.focus()

    def go(self, address: int) -> None:
        """Goes to an address; `action_come_back` returns from it."""
        if address != self._hex.cursor:
            self._trail.append(self._hex.cursor)
            self._ahead.clear()
        self._hex.go(address)

    def action_come_back(self) -> None:
        """Goes back to the cursor position before the last jump."""
        if self._trail:
            self._ahead.append(self._hex.cursor)
            self._hex.go(self._trail.pop())
        else:
            self.say("there is no earlier position")

    def action_go_forward(self) -> None:
        """Goes to the position from which the user came back."""
        if self._ahead:
            self._trail.append(self._hex.cursor)
            self._hex.go(self._ahead.pop())
        else:
            self.say("there is no later position")

    def action_mark(self) -> None:
        """Marks the byte at the cursor, or removes its mark; marks stay until the end."""
        cursor, marks = self._hex.cursor, self._hex.marks
        marks ^= {cursor}
        where = self._described.get(cursor) or f"{cursor:#x}"
        self.say(f"{'marked' if cursor in marks else 'removed the mark of'} {where}")
        self._hex.refresh()

    def action_next_mark(self) -> None:
        """Goes to the mark after the cursor, or to the first one."""
        marks = sorted(self._hex.marks)
        if marks:
            self.go(next((mark for mark in marks if mark > self._hex.cursor), marks[0]))
        else:
            self.say("there are no marks; m makes one")

    def action_follow(self) -> None:
        """Goes to the address that the bytes under the cursor hold."""
        pointer = self._inspector.pointer()
        if pointer is None:
            self.say("cannot read a pointer here", bad=True)
        elif self._regions.maps.find(pointer) is None:
            self.say(f"cannot follow {pointer:#x}: the address is not mapped", bad=True)
        else:
            self.say("")
            self.go(pointer)

    def action_go_to(self) -> None:
        """Asks for an address and goes to it."""
        if not self._is_gone():
            self.push_screen(GoTo(self._go_to))

    async def _go_to(self, text: str) -> str | None:
        found = await self._looked_up(lambda: self.pause.address(text))
        if isinstance(found, str):
            return found
        self.say("")
        self.go(found)
        return None

    # --- search

    def action_search(self) -> None:
        """Asks for a pattern and starts the search."""
        if not self._is_gone():
            self.push_screen(LookFor(self._search, *self._searched))

    async def _search(self, kind: str, text: str) -> str | None:
        hunt = await self._looked_up(lambda: self._hunt_for(kind, text))
        if isinstance(hunt, str):
            return hunt
        self._searched = (kind, text)
        if self.hunt is not None:
            self.hunt.give_up()
        self.hunt = hunt
        self._hex.hit = None
        self._jump_when_found = True
        self.run_worker(in_thread(hunt.run), group="hunt")
        self.say(f"searching for {printable(text)}")
        return None

    def _hunt_for(self, kind: str, text: str) -> Hunt:
        asked: dict[str, Any]
        if not text.strip():
            raise ValueError("the search is empty; type bytes, a text or a value")
        if kind == "bytes":
            asked = {"what": text}
        elif kind == "text":
            asked = {"what": os.fsencode(text)}
        else:
            wanted = KINDS[kind].of_target(self._inspector.address_size)
            if isinstance(wanted, Number):
                condition = condition_of(text, wanted)
                if condition.change is not None:
                    raise ValueError(
                        f"{text!r} compares two reads, and a search reads once; give 5, > 5, 5..9"
                    )
                asked = {"what": wanted.pod, "value": condition.value}
            else:
                asked = {"what": wanted.encode(text, self.process.address)}
        return Hunt(self.process.vm, printable(text), asked, self._hex.cursor)

    def _look_after_hunt(self) -> None:
        hunt = self.hunt
        if hunt is None or not self._jump_when_found:
            return
        hit = hunt.nearest()
        if hit is not None:
            self._jump_when_found = False
            self._to_hit(hunt, hit)
        elif hunt.is_done:
            self._jump_when_found = False
            if hunt.error is not None:
                error = hunt.error
                if isinstance(error, GONE):
                    self._end(error)
                else:
                    self.say(said_by(error), bad=True)
            else:
                self.say(f"{hunt.what} was not found in readable memory", bad=True)
        else:
            self.say(f"searching for {hunt.what}: {hunt.percent} %  (Escape cancels)")

    def _to_hit(self, hunt: Hunt, hit: int) -> None:
        self._hex.hit = range(hit, hit + hunt.length)
        self.go(hit)
        number, found = hunt.number(hit), hunt.found
        text = f"hit {number:,} of {found:,}"
        if not hunt.is_done:
            text += f" so far ({hunt.percent} % searched)"
        elif hunt.is_cut:
            text = f"hit {number:,} of the first {found:,}; there are more"
        self.say(f"{hunt.what}: {text}")

    def action_next(self, by: int) -> None:
        """Goes to the next hit (1) or to the previous one (-1)."""
        hunt = self.hunt
        if hunt is None:
            self.say("there was no search yet; / starts one")
            return
        hit = hunt.next(self._hex.cursor, by)
        if hit is not None:
            self._jump_when_found = False
            self._to_hit(hunt, hit)
        elif hunt.is_done:
            self.say(f"{hunt.what} was not found in readable memory", bad=True)
        else:
            self.say(f"no more hits of {hunt.what} so far ({hunt.percent} % searched)")

    def action_give_up(self) -> None:
        """Cancels the running search."""
        if self.hunt is not None and not self.hunt.is_done:
            self.hunt.give_up()
            self._jump_when_found = False
            self.say(f"cancelled the search for {self.hunt.what}")

    # --- changing it

    def action_edit(self) -> None:
        """Asks for a new value at the cursor."""
        if self._is_gone():
            return
        address = self._hex.cursor
        if self._hex.window.is_awaited(address):
            self.say(f"cannot edit {address:#x}: its page has not come yet", bad=True)
            return
        where = where_of(self._regions.maps.find(address), address)
        here = self._described.get(address, "")
        label = f"{address:#x}  {here or where}"

        async def attempt(dialog: Edit, kind: Kind, text: str, forced: bool) -> str | None:
            kind = kind.of_target(self._inspector.address_size)

            def change_of() -> Change:
                new = kind.encode(text, self.process.address)
                old = read_window(self.process.vm, address, len(new)).run(address, len(new))
                return Change(address, label, kind, old, new, forced=forced)

            change = await self._looked_up(change_of)
            if isinstance(change, str):
                return change
            self._edited = kind.name

            @work(group="edit")
            async def write(_viewer: Viewer) -> None:
                wrong = await self._looked_up(lambda: self._write(change))
                if isinstance(wrong, str):
                    dialog.say(wrong)
                    return
                dialog.dismiss()
                self._written.append(change)
                self.say(f"wrote {len(change.new)} bytes at {change.where}; u undoes it")
                self._look(is_tick=True)

            self.push_screen(Confirm(change, lambda: write(self)))
            return None

        self.push_screen(Edit(label, self._edited, self._inspector.value, attempt))

    def _write(self, change: Change) -> None:
        """Writes the confirmed bytes if the old ones are still those that were shown."""
        n = len(change.new)
        now = read_window(self.process.vm, change.address, n).run(change.address, n)
        if now != change.old:
            raise MismatchError(
                f"wrote nothing at {change.address:#x}: the bytes are {change.side(now)} by now; "
                "try again, or hold the process (p) first",
                address=change.address,
            )
        vm = self.process.vm.forced() if change.forced else self.process.vm
        vm.write_bytes(change.address, change.new)

    @work(group="edit")
    async def action_undo(self) -> None:
        """Writes back the bytes before the last edit, if the target has not changed them since."""
        if self._is_gone():
            return
        if not self._written:
            self.say("there is no edit to undo")
            return
        last = self._written[-1]
        if len(last.old) < len(last.new):
            self.say("cannot undo the edit: the old bytes could not be read", bad=True)
            return
        back = Change(last.address, last.where, last.kind, last.new, last.old, forced=last.forced)
        wrong = await self._looked_up(lambda: self._write(back))
        if isinstance(wrong, str):
            self.say(wrong, bad=True)
            return
        self._written.pop()
        self.say(f"wrote the old {len(back.new)} bytes back at {back.where}")
        self._look(is_tick=True)

    def action_pause(self) -> None:
        """Holds the process, or resumes it."""
        if self._is_gone():
            return
        if self.pause.is_held:
            self.pause.end()
            self.say("the process runs again")
        elif not self._is_pausing:
            self._is_pausing = True
            self.say("stopping every thread of the process")
            attempt(self.pause.begin, self._paused, self._patience)
        self._look()

    def _paused(self, future: Future[bool]) -> None:
        self._is_pausing = False
        if self._attempted(future.result):
            self.say("held: every thread of the process is stopped")
            self._look()

    def action_help(self) -> None:
        """Shows the keys."""
        self.push_screen(Help())


def run(process: procvm.Process, address: int | None = None) -> None:
    """Shows a process in the terminal until the user leaves; a held process is resumed then.

    Args:
        process: The process; it stays open.
        address: The first address to show; the start of the heap if not given.

    Raises:
        UnsupportedError: stdin or stderr is not a terminal, or the terminal is too simple.
    """
    # Textual reads stdin and draws on stderr; stdout may be anything.
    for stream, name in ((sys.__stdin__, "stdin"), (sys.__stderr__, "stderr")):
        if stream is None or not stream.isatty():
            raise UnsupportedError(f"procvm view needs a terminal, but {name} is not one")
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        raise UnsupportedError(
            "procvm view needs a terminal that can move its cursor, but TERM is "
            f"{os.environ.get('TERM', '') or 'not set'}; set TERM, as in TERM=xterm-256color"
        )
    viewer = Viewer(process, address)
    try:
        viewer.run()
    finally:
        viewer.release()
