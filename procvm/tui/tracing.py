"""Who writes here, and who calls this function: dialogs that show it while the target runs."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from rich.text import Text
from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

import procvm
from procvm._base.text import shown
from procvm._terminal.touches import Touches, caller_of
from procvm.errors import ProcvmError
from procvm.tui.dialogs import Dialog
from procvm.tui.hints import said_by
from procvm.tui.live import LiveScreen
from procvm.tui.waiting import Turns, in_thread

if TYPE_CHECKING:
    from textual.app import ComposeResult

__all__ = ["Callers", "Traced", "TracingScreen", "Writers"]

_TICK = 0.2
"""Seconds between two drawings, and how long a thread waits for a hit."""

_MOST_ROWS = 200
_PODS = {pod.size: pod for pod in (procvm.u8, procvm.u16, procvm.u32, procvm.u64)}
_NR_ARGUMENTS = 4


class _Run(ABC):
    """A trace in a thread, which takes the hits and looks up their names.

    Attributes:
        begun: When it began, in seconds of `time.monotonic`.
        is_armed: Whether the trace has begun.
        count: How many hits it took.
        lost: How many came too fast.
        wrong: Why it ended; empty if it did not fail.
        has_ended: Set when the trace is closed.
    """

    def __init__(self, process: procvm.Process, alone: Turns) -> None:
        """Makes it; `run` begins it.

        Args:
            process: The process.
            alone: Is held while names are looked up.
        """
        self.process = process
        self.begun = time.monotonic()
        self.is_armed = False
        self.count = self.lost = 0
        self.wrong = ""
        self.has_ended = threading.Event()
        self._alone = alone
        self._is_given_up = False

    def run(self, before: _Run | None) -> None:
        """Traces until `give_up` or the end of the process.

        Args:
            before: A trace that ends first: without this, both would need a debug register.
        """
        try:
            if before is not None:
                before.has_ended.wait()
            with self.opened() as trace:
                self.is_armed = True
                while not self._is_given_up:
                    hits = trace.read(_TICK)
                    with self._alone.turn():
                        self.take(hits)
                    self.count, self.lost = self.count + len(hits), trace.lost
                    if not hits and not self.process.is_alive():
                        return
        except (ProcvmError, ValueError) as error:
            self.wrong = said_by(error)
        finally:
            self.has_ended.set()

    def give_up(self) -> None:
        """Ends the trace; its thread sees it within a tick."""
        self._is_given_up = True

    @abstractmethod
    def opened(self) -> procvm.AccessTrace:
        """Returns the armed trace."""

    @abstractmethod
    def take(self, hits: list[procvm.Access]) -> None:
        """Takes hits."""

    @abstractmethod
    def rows(self) -> Text:
        """Returns the hits so far as text; in another thread."""


class _Writes(_Run):
    """The instructions that write to an address, or that touch it."""

    def __init__(
        self,
        process: procvm.Process,
        alone: Turns,
        address: int,
        size: int,
        on: Literal["write", "access"],
    ) -> None:
        super().__init__(process, alone)
        self._address, self._size = address, size
        self._on: Literal["write", "access"] = on
        self._touches = Touches(process)

    def opened(self) -> procvm.AccessTrace:
        """Returns the armed trace."""
        pod = _PODS[self._size]
        return self.process.trace_accesses(self._address, pod, on=self._on, registers=True)

    def take(self, hits: list[procvm.Access]) -> None:
        """Counts hits by their instructions."""
        self._touches.add(hits)

    def rows(self) -> Text:
        """Returns two rows for each instruction: how often and where, its text and threads."""
        what = "written" if self._on == "write" else "read or written"
        text = Text(f"{self._size} byte{'s' * (self._size != 1)}, {what} by\n", "dim")
        for row in self._touches.rows()[:_MOST_ROWS]:
            n = len(row.threads)
            text.append(f"{row.count:>9,}  ")
            text.append(f"{row.address:#x} ", "dim")
            text.append(f"{row.place}\n", "bold")
            text.append(f"{'':11}{row.text}  in {n} thread{'s' * (n != 1)}\n")
        return text


class _Calls(_Run):
    """The last calls of a function."""

    def __init__(self, process: procvm.Process, alone: Turns, address: int) -> None:
        super().__init__(process, alone)
        self._address = address
        self._calls: deque[tuple[float, int, str, str]] = deque(maxlen=_MOST_ROWS)

    def opened(self) -> procvm.AccessTrace:
        """Returns the armed trace."""
        return self.process.trace_calls(self._address, stack_len=8)

    def take(self, hits: list[procvm.Access]) -> None:
        """Keeps the last calls."""
        for hit in hits[-_MOST_ROWS:]:
            arguments = ", ".join(hex(one) for one in hit.arguments[:_NR_ARGUMENTS])
            seconds = max(hit.time / 1e9 - self.begun, 0.0)
            self._calls.append((seconds, hit.tid, arguments, str(caller_of(self.process, hit))))

    def rows(self) -> Text:
        """Returns a row for each call, the last one first."""
        text = Text()
        for seconds, tid, arguments, caller in reversed(self._calls.copy()):
            text.append(f"{seconds:9.3f} {tid:>7}  ", "dim")
            text.append(f"({arguments})", "bold")
            text.append(f"  {caller}\n")
        return text


class Traced(Dialog):
    """Shows what a trace has found, again and again, until it is closed."""

    DEFAULT_CSS = """
    Traced {
        & > Vertical { width: 100%; }
        VerticalScroll { height: auto; max-height: 60h; }
    }
    """

    AUTO_FOCUS = "VerticalScroll"

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "dismiss_it", show=False)]

    def __init__(self, title: str, about: str) -> None:
        super().__init__()
        self._head = title
        self._about = about
        self._now: _Run | None = None

    def compose(self) -> ComposeResult:
        """Yields the widgets."""
        with Vertical() as box:
            box.border_title = Text(shown(self._head))
            with VerticalScroll():
                yield Static("", id="hits", markup=False)
            yield Static("", classes="said", markup=False)
            yield Static(self._about, classes="about", markup=False)

    def on_mount(self) -> None:
        """Starts the trace."""
        self.begin()
        self.set_interval(_TICK, self.draw)

    def on_unmount(self) -> None:
        """Ends the trace."""
        if self._now is not None:
            self._now.give_up()

    def begin(self) -> None:
        """Starts a trace, in place of the one before."""
        before, self._now = self._now, self.next_run()
        if before is not None:
            before.give_up()
        self.run_worker(in_thread(partial(self._now.run, before)), group="trace")

    def draw(self) -> None:
        """Shows the hits so far."""
        now = self._now
        if now is None:
            return
        text = now.rows()
        total = now.count + now.lost
        if total:
            text.append(f"{total:,} in {time.monotonic() - now.begun:.0f} s", "dim")
            if now.lost:
                text.append(f"; {now.lost:,} of them came too fast to be shown", "dim")
        elif now.is_armed:
            text.append("none so far", "dim")
        self.query_one("#hits", Static).update(text)
        self.say(shown(now.wrong))

    def next_run(self) -> _Run:
        """Returns the trace to be shown."""
        raise NotImplementedError


class Writers(Traced):
    """Shows the instructions that write to an address, or that touch it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(size), f"watch({size})", show=False) for size in _PODS),
        Binding("r", "reads", show=False),
    ]

    def __init__(self, process: procvm.Process, alone: Turns, address: int, where: str) -> None:
        """Makes the dialog.

        Args:
            process: The process.
            alone: Is held while names are looked up.
            address: The address.
            where: Its name; empty if it has none.
        """
        super().__init__(
            f"Who writes to {address:#x} {where}".rstrip(),
            "1 2 4 8 watch as many bytes   r shows reads too   Escape closes",
        )
        self._process, self._alone = process, alone
        self._address = address
        self._watched = next(size for size in (4, 2, 1) if address % size == 0)
        self._with_reads = False

    def next_run(self) -> _Run:
        """Returns a trace of as many bytes as the user chose."""
        on: Literal["write", "access"] = "access" if self._with_reads else "write"
        return _Writes(self._process, self._alone, self._address, self._watched, on)

    def action_watch(self, size: int) -> None:
        """Watches as many bytes."""
        self._watched = size
        self.begin()

    def action_reads(self) -> None:
        """Shows the instructions that read as well, or no longer."""
        self._with_reads = not self._with_reads
        self.begin()


class Callers(Traced):
    """Shows the last calls of a function, with their first arguments and their callers."""

    def __init__(self, process: procvm.Process, alone: Turns, address: int, name: str) -> None:
        super().__init__(f"Calls of {name}", "The last call is the first row. Escape closes")
        self._process, self._alone = process, alone
        self._address = address

    def next_run(self) -> _Run:
        """Returns a trace of the function."""
        return _Calls(self._process, self._alone, self._address)


class TracingScreen(LiveScreen):
    """The live screen, and the keys that trace what is at the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "who", show=False),
        Binding("c", "calls", show=False),
    ]

    def on_mount(self) -> None:
        """Names the keys below the values."""
        self._inspector.border_subtitle = "w who writes here   c calls of this function"

    def action_who(self) -> None:
        """Shows which instructions write to the cursor's address, until the dialog is closed."""
        if not self._is_gone():
            cursor = self._hex.cursor
            name = self._described.get(cursor, "")
            self.push_screen(Writers(self.process, self._symbols, cursor, name))

    @work(group="calls")
    async def action_calls(self) -> None:
        """Shows the calls of the function at the cursor, until the dialog is closed."""
        if self._is_gone():
            return
        cursor = self._hex.cursor
        vma = self._regions.maps.find(cursor)
        if vma is None or not vma.perms.executable:
            self.say(f"{cursor:#x} is not in code: go to a function first", bad=True)
            return
        found = await self._looked_up(lambda: self.process.describe(cursor))
        if not isinstance(found, procvm.Location):
            self.say(found, bad=True)
        elif found.symbol is None:
            self.say(f"no function is known at {cursor:#x}", bad=True)
        else:
            name = found.rpartition("+")[0] if found.offset else str(found)
            self.push_screen(Callers(self.process, self._symbols, cursor - found.offset, name))
