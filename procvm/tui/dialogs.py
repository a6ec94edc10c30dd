"""The dialogs of the viewer, and its help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Select, Static

from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Text as TextKind
from procvm.tui.inspector import KINDS

if TYPE_CHECKING:
    from textual.app import ComposeResult

__all__ = ["Change", "Confirm", "Edit", "GoTo", "Help", "LookFor"]

# Takes what the user typed; returns an error message, or None.
Attempt = Callable[..., Awaitable[str | None]]

_SEARCHED = ("text", "bytes", *(name for name in KINDS if name not in ("bytes", "cstr")))
_HINTS = {
    "bytes": "48 8b ?? c3; ? is any digit",
    "text": "any text",
    "ptr": "an address: 0x7f.., [heap]+8, a symbol",
    "cstr": "a text; a NUL is added",
}


class Dialog(ModalScreen[None]):
    """A box over the viewer; Escape closes it without an effect."""

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
        """Closes the dialog."""
        self.dismiss()

    def say(self, text: str) -> None:
        """Shows an error in the dialog."""
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
        """Yields the widgets."""
        with Vertical() as box:
            box.border_title = "Go to"
            yield Input(placeholder="0x7f.., [heap]+8, libc.so.6+0x10, a symbol, *pointer")
            yield Static("", classes="said", markup=False)

    @work
    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Goes to the address, or shows the error."""
        wrong = await self._attempt(event.value)
        if wrong is None:
            self.dismiss()
        else:
            self.say(wrong)


class LookFor(Dialog):
    """Asks for a pattern to search for."""

    def __init__(self, attempt: Attempt, kind: str, text: str) -> None:
        super().__init__()
        self._attempt = attempt
        self._text = text
        self._first = kind
        self._kinds = _choice(_SEARCHED, kind)

    def compose(self) -> ComposeResult:
        """Yields the widgets."""
        with Vertical() as box:
            box.border_title = "Search"
            with Horizontal():
                yield self._kinds
                yield Input(self._text, placeholder=_hint(self._first))
            yield Static("", classes="said", markup=False)
            yield Static(
                "Tab selects the type. n and N go to the next and the previous hit.",
                classes="about",
            )

    @on(Select.Changed)
    def _other_kind(self, event: Select.Changed) -> None:
        self.query_one(Input).placeholder = _hint(str(event.value))

    @work
    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Starts the search, or shows the error."""
        wrong = await self._attempt(str(self._kinds.value), event.value)
        if wrong is None:
            self.dismiss()
        else:
            self.say(wrong)


def _hint(kind: str) -> str:
    return _HINTS.get(kind, "1337, > 5, 5..9")


class Change:
    """A write that waits for confirmation.

    Attributes:
        address: The address to write to.
        where: The address and its name, printable.
        kind: The type of the value.
        old: The bytes that were shown, as many as could be read.
        new: The bytes to write.
        forced: Whether to ignore page protections.
    """

    def __init__(
        self, address: int, where: str, kind: Kind, old: bytes, new: bytes, *, forced: bool
    ) -> None:
        self.address, self.where, self.kind = address, where, kind
        self.old, self.new, self.forced = old, new, forced

    def side(self, data: bytes) -> str:
        """Returns the old or the new bytes as text, with their value."""
        shown = data[:16].hex(" ") + (" …" if len(data) > 16 else "")
        if not data:
            return "?? (cannot be read)"
        if self.kind.name in ("bytes", "cstr"):
            return shown
        if len(data) < self.kind.size:
            return f"{shown} ??"
        return f"{shown}   = {self.kind.text(self.kind.decode_one(data))}"


_AS_ALLOWED, _FORCED = "respect page protections", "ignore page protections (forced)"


class Edit(Dialog):
    """Asks for a new value; nothing is written before the user confirms."""

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
        """Yields the widgets."""
        with Vertical() as box:
            box.border_title = "Edit"
            yield Static(Text(self._where), classes="about")
            with Horizontal(classes="space"):
                yield self._kinds
                yield Input(placeholder=self._hint(self._first))
            yield self._force
            yield Static("", classes="said", markup=False)
            yield Static(
                "Shift+Tab selects the type. Enter shows the change before it is made.",
                classes="about",
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

    @work
    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Asks for confirmation, or shows the error."""
        kind = KINDS[str(self._kinds.value)]
        wrong = await self._attempt(self, kind, event.value, self._force.value == _FORCED)
        self.say(wrong or "")


class Confirm(Dialog):
    """Shows the old and the new bytes, and writes after a y."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "write", "Write", show=False),
        Binding("n", "dismiss_it", "Leave", show=False),
    ]

    def __init__(self, change: Change, write: Callable[[], object]) -> None:
        super().__init__()
        self._change = change
        self._write = write

    def compose(self) -> ComposeResult:
        """Yields the widgets."""
        change = self._change
        n = len(change.new)
        text = Text()
        text.append(f"{change.where}\n\n")
        text.append("old  ", "dim")
        text.append(change.side(change.old))
        text.append("\nnew  ", "dim")
        text.append(change.side(change.new), "bold")
        if change.forced:
            text.append("\n\nPage protections are ignored.", "bold")
        with Vertical() as box:
            box.border_title = f"Write {n} byte{'s' if n > 1 else ''}?"
            yield Static(text)
            yield Static("y writes   n and Escape cancel", classes="about space")

    def action_write(self) -> None:
        """Closes the dialog and writes."""
        self.dismiss()
        self._write()


_KEYS = (
    ("← → ↑ ↓   h l k j", "move by a byte, by a row"),
    ("PgUp PgDn Home End", "move by a page, to the ends of a row"),
    ("[ ]", "go to the previous, the next region"),
    ("Tab", "switch to the regions and back; Enter opens one"),
    ("Enter  Backspace  F", "follow the pointer; go back; go forward"),
    ("m  '", "mark the byte or unmark it; go to the next mark"),
    ("g", "go to 0x7f.., [heap]+8, a symbol, *pointer"),
    ("", ""),
    ("/", "search for bytes, a text or a value"),
    ("n N", "go to the next, the previous hit"),
    ("Escape", "cancel the search"),
    ("", ""),
    ("e  u", "edit the value, asks before writing; undo"),
    ("p", "hold the process; resume it"),
    ("w  c", "who writes here; calls of the function at the cursor"),
    ("r", "read the list of regions again"),
    ("q  Ctrl-C", "leave; a held process is resumed"),
)

_COLORS = """\
?? cannot be read, .. has not come yet. A changed byte is marked, then
coloured for two seconds. A held process is resumed after the time in the
first line, and when the viewer ends."""


class Help(Dialog):
    """Shows the keys."""

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
        """Yields the widgets."""
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
