"""What the viewer asks a person, and its help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Select, Static

from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Text as TextKind
from procvm.tui.inspector import KINDS

__all__ = ["Change", "Confirm", "Edit", "GoTo", "Help", "LookFor"]

# Typed by a person; it is what went wrong with it, or None.
Attempt = Callable[..., Awaitable[str | None]]

_SEARCHED = ("bytes", "text", *(name for name in KINDS if name not in ("bytes", "cstr")))
_HINTS = {
    "bytes": "48 8b ?? c3, with ? for any digit",
    "text": "any text",
    "ptr": "an address: 0x7f.., [heap]+8, a symbol",
    "cstr": "a text; a NUL is added",
}


class Dialog(ModalScreen[None]):
    """A box over the viewer; Escape closes it and does nothing."""

    DEFAULT_CSS = """
    Dialog {
        align: center middle;
        & > Vertical {
            width: 74; max-width: 100%; height: auto; max-height: 100%;
            border: round $primary; padding: 0 1; background: $surface;
        }
        Input { border: none; height: 1; padding: 0 1; background: $boost; }
        Input:focus { border: none; background: $primary-muted; }
        Select { width: 14; }
        #force { width: 40; margin: 1 0 0 0; }
        Horizontal { height: auto; align: left middle; }
        .about { color: $text-muted; }
        .said { height: auto; min-height: 1; color: $text-error; }
        .space { margin: 1 0 0 0; }
    }
    """

    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss_it", "Leave", show=False)]

    def action_dismiss_it(self) -> None:
        """Closes it."""
        self.dismiss()

    def say(self, text: str) -> None:
        """Tells what is wrong."""
        self.query_one(".said", Static).update(Text(text))


def _choice(names: Iterable[str], value: str, id: str = "kind") -> Select[str]:  # noqa: A002
    return Select(
        [(name, name) for name in names], value=value, allow_blank=False, compact=True, id=id
    )


class GoTo(Dialog):
    """Asks for an address."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__()
        self._attempt = attempt

    def compose(self) -> ComposeResult:
        """Makes its parts."""
        with Vertical() as box:
            box.border_title = "Go to"
            yield Input(placeholder="0x7f.., [heap]+8, libc.so.6+0x10, a symbol, *pointer")
            yield Static("", classes="said", markup=False)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Goes there, or tells why not."""
        wrong = await self._attempt(event.value)
        if wrong is None:
            self.dismiss()
        else:
            self.say(wrong)


class LookFor(Dialog):
    """Asks for what to search for."""

    def __init__(self, attempt: Attempt, kind: str, text: str) -> None:
        super().__init__()
        self._attempt = attempt
        self._text = text
        self._first = kind
        self._kinds = _choice(_SEARCHED, kind)

    def compose(self) -> ComposeResult:
        """Makes its parts."""
        with Vertical() as box:
            box.border_title = "Search"
            with Horizontal():
                yield self._kinds
                yield Input(self._text, placeholder=_hint(self._first))
            yield Static("", classes="said", markup=False)
            yield Static("Tab goes to the type. Later n and N go on.", classes="about")

    @on(Select.Changed)
    def _other_kind(self, event: Select.Changed) -> None:
        self.query_one(Input).placeholder = _hint(str(event.value))

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Begins the search, or tells why not."""
        wrong = await self._attempt(str(self._kinds.value), event.value)
        if wrong is None:
            self.dismiss()
        else:
            self.say(wrong)


def _hint(kind: str) -> str:
    return _HINTS.get(kind, "1337, > 5, 5..9")


class Change:
    """Bytes that are to take the place of others.

    Attributes:
        address: Where.
        where: What that is, printable.
        kind: What they are.
        old: What was shown, or as much of it as could be read.
        new: What to write.
        forced: Whether to ignore what the page allows.
    """

    def __init__(
        self, address: int, where: str, kind: Kind, old: bytes, new: bytes, *, forced: bool
    ) -> None:
        self.address, self.where, self.kind = address, where, kind
        self.old, self.new, self.forced = old, new, forced

    def side(self, data: bytes) -> str:
        """Returns one side of it as text: the bytes, and their value."""
        shown = data[:16].hex(" ") + (" …" if len(data) > 16 else "")
        if not data:
            return "?? (can not be read)"
        if self.kind.name in ("bytes", "cstr"):
            return shown
        if len(data) < self.kind.size:
            return f"{shown} ??"
        return f"{shown}   = {self.kind.text(self.kind.decode_one(data))}"


_AS_ALLOWED, _FORCED = "if the page allows it", "whatever the page allows (forced)"


class Edit(Dialog):
    """Asks for a new value; nothing is written before that is confirmed."""

    def __init__(
        self,
        where: str,
        kind: str,
        current: Callable[[Kind], str],
        attempt: Callable[[Edit, Kind, str, bool], Awaitable[str | None]],
    ) -> None:
        super().__init__()
        self._where = where
        self._current = current
        self._attempt = attempt
        self._first = kind
        self._kinds = _choice(KINDS, kind)
        self._force = _choice((_AS_ALLOWED, _FORCED), _AS_ALLOWED, id="force")

    def compose(self) -> ComposeResult:
        """Makes its parts."""
        with Vertical() as box:
            box.border_title = "Edit"
            yield Static(Text(self._where), classes="about")
            with Horizontal(classes="space"):
                yield self._kinds
                yield Input(placeholder=self._hint(self._first))
            yield self._force
            yield Static("", classes="said", markup=False)
            yield Static(
                "Shift+Tab goes to the type. Enter shows what would be written.", classes="about"
            )

    def _hint(self, name: str) -> str:
        kind = KINDS[name]
        if name == "bytes":
            return "de ad be ef"
        return _HINTS["cstr"] if isinstance(kind, TextKind) else f"now {self._current(kind)}"

    @on(Select.Changed)
    def _other_kind(self, event: Select.Changed) -> None:
        if event.select is self._kinds:
            self.query_one(Input).placeholder = self._hint(str(event.value))

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Asks for confirmation, or tells what is wrong."""
        kind = KINDS[str(self._kinds.value)]
        wrong = await self._attempt(self, kind, event.value, self._force.value == _FORCED)
        self.say(wrong or "")


class Confirm(Dialog):
    """Shows what is there and what would be, and writes only if told to."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "write", "Write", show=False),
        Binding("n", "dismiss_it", "Leave", show=False),
    ]

    def __init__(self, change: Change, write: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._change = change
        self._write = write

    def compose(self) -> ComposeResult:
        """Makes its parts."""
        change = self._change
        n = len(change.new)
        text = Text()
        text.append(f"{change.where}\n\n")
        text.append("old  ", "dim")
        text.append(change.side(change.old))
        text.append("\nnew  ", "dim")
        text.append(change.side(change.new), "bold")
        if change.forced:
            text.append("\n\nWhat the page allows is ignored.", "bold")
        with Vertical() as box:
            box.border_title = f"Write {n} byte{'s' if n > 1 else ''}?"
            yield Static(text)
            yield Static("y writes   n and Escape leave it as it is", classes="about space")

    async def action_write(self) -> None:
        """Writes."""
        self.dismiss()
        await self._write()


_KEYS = (
    ("← → ↑ ↓   h l k j", "a byte, a row"),
    ("PgUp PgDn Home End", "a page, the ends of a row"),
    ("[ ]", "the region before, the one behind"),
    ("Tab", "to the regions and back; Enter looks at one"),
    ("Enter  Backspace", "follow the pointer under the cursor; come back"),
    ("g", "go to 0x7f.., [heap]+8, a symbol, *pointer"),
    ("", ""),
    ("/", "search for bytes, a text, a value"),
    ("n N", "the next place, the one before"),
    ("Escape", "give the search up"),
    ("", ""),
    ("e", "write a value; asks before it does"),
    ("p", "hold the process still; let it run on"),
    ("r", "read the list of regions again"),
    ("q  Ctrl-C", "leave; the process runs on"),
    ("", ""),
)

_COLORS = """\
?? can not be read. What changed since the last look is marked, and in
colour for two seconds more. A process that is held runs on when its
time is over, which the first line tells, and when the viewer ends."""


class Help(Dialog):
    """Tells the keys."""

    DEFAULT_CSS = """
    Help {
        VerticalScroll { height: auto; max-height: 100h; }
    }
    """

    AUTO_FOCUS = "VerticalScroll"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,f1,question_mark,enter", "dismiss_it", show=False)
    ]

    def compose(self) -> ComposeResult:
        """Makes its parts."""
        text = Text()
        for key, what in _KEYS:
            text.append(f"{key:<20}", "bold")
            text.append(f"{what}\n")
        text.append(_COLORS, "dim")
        with Vertical() as box:
            box.border_title = "Keys"
            box.border_subtitle = "Escape closes this"
            with VerticalScroll():
                yield Static(text)
