"""What the command says, and in which form: a terminal, plain lines, or JSON."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NoReturn, TextIO

import click

from procvm._base.text import shown
from procvm.cli.exits import FAULT, PIPE_CLOSED
from procvm.cli.hints import WORDINGS
from procvm.errors import PageFaultError, ProcvmError

__all__ = [
    "Color",
    "InterruptedByUserError",
    "Output",
    "OutputError",
    "begin_line",
    "fault_of",
    "message_of",
    "tell",
    "wants_color",
]

Color = Literal["auto", "always", "never"]

_STYLES: dict[str, dict[str, Any]] = {
    "address": {"fg": "cyan"},
    "bad": {"fg": "red"},
    "dim": {"dim": True},
    "good": {"fg": "green"},
    "head": {"bold": True},
    "name": {"fg": "blue", "bold": True},
    "new": {"fg": "yellow", "bold": True},
}


class OutputError(Exception):
    """The output can not be written.

    Attributes:
        code: The exit code that it gives.
        is_quiet: Whether the reader just went away, of which nobody needs to be told.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output can not be written: {error.strerror or error}")
        self.is_quiet = error.errno == errno.EPIPE
        self.code = PIPE_CLOSED if self.is_quiet else FAULT


class InterruptedByUserError(Exception):
    """Ctrl-C while a command was at work."""


def message_of(error: ProcvmError) -> str:
    """Returns an error of the library as text, its hint in the words of the command."""
    return error.worded(WORDINGS)


def tell(message: str) -> None:
    """Says something on stderr, on one line; where there is no stderr nothing."""
    _to_stderr(f"procvm: {shown(message)}\n")


def begin_line() -> None:
    """Begins a new line on a terminal, which may have shown ^C on this one."""
    stream: TextIO | None = sys.stderr
    if stream is not None and stream.isatty():
        _to_stderr("\n")


def tell_more(lines: Sequence[str]) -> None:
    """Adds lines to what was told last."""
    _to_stderr("".join(f"  {shown(line)}\n" for line in lines))


def _to_stderr(text: str) -> None:
    stream: TextIO | None = sys.stderr
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return  # nobody is left who could be told


def wants_color(color: Color, *, is_terminal: bool) -> bool:
    """Returns whether to use colours: what the option says, the environment, the terminal."""
    if color != "auto":
        return color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal and os.environ.get("TERM") != "dumb"


def fault_of(error: ProcvmError | None) -> dict[str, Any] | None:
    """Returns what broke a document off, as it stands in its ``fault``; None if nothing did."""
    if error is None:
        return None
    address = error.address if isinstance(error, PageFaultError) else None
    return {
        "error": type(error).__name__,
        "message": shown(error.message),
        "address": None if address is None else hex(address),
        "copied": error.copied_len,
    }


class Output:
    """Where a command writes to.

    Attributes:
        json: Whether JSON was asked for.
        is_terminal: Whether a person looks at it: never together with `json`.
        color: Whether to use colours.
        width: Columns of the terminal.
        arrow: An arrow that can be shown.
        ellipsis: What stands for text that was left out.
        before_line: Is called before anything is written.
    """

    def __init__(self, *, as_json: bool, color: Color) -> None:
        stream: TextIO | None = sys.stdout
        if stream is None:
            raise OutputError(OSError(errno.EBADF, "stdout is closed"))
        self._stream = stream
        # What the terminal's encoding has not is escaped, as what is not printable.
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
        self.json = as_json
        is_terminal = stream.isatty()
        self.is_terminal = is_terminal and not as_json
        self.color = not as_json and wants_color(color, is_terminal=is_terminal)
        self.width = max(shutil.get_terminal_size().columns, 40)
        is_utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self.arrow, self.ellipsis = ("→", "…") if is_utf8 and self.is_terminal else ("->", "~")
        self.before_line: Callable[[], None] | None = None

    @property
    def stream(self) -> TextIO:
        """The stream itself, for what draws by other means."""
        return self._stream

    def line(self, text: str = "", *, flush: bool = False) -> None:
        """Writes a line; what is foreign in it was made printable before."""
        if self.before_line is not None:
            self.before_line()
        try:
            self._stream.write(text + "\n")
            if flush:
                self._stream.flush()
        except OSError as error:
            self._failed(error)

    def raw(self, data: bytes) -> None:
        """Writes bytes as they are."""
        try:
            self._stream.flush()
            self._stream.buffer.write(data)
        except OSError as error:
            self._failed(error)

    def flush(self) -> None:
        """Sees to it that all is written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def document(self, value: Any) -> None:
        """Writes the one JSON document of a command."""
        self.line(json.dumps(value, indent=2, allow_nan=False))

    def long_document(self, head: dict[str, Any], key: str, items: Iterable[Any]) -> None:
        """Writes the document `head` with a list of items as `key`, each as it comes."""
        begun = json.dumps(head, allow_nan=False).removesuffix("}")
        self.line(f"{begun}, {json.dumps(key)}: [")
        last: str | None = None
        for item in items:
            if last is not None:
                self.line(f"  {last},")
            last = json.dumps(item, allow_nan=False)
        if last is not None:
            self.line(f"  {last}")
        self.line("]}")

    def record(self, value: Any) -> None:
        """Writes one object of a stream, on a line of its own, at once."""
        self.line(json.dumps(value, allow_nan=False), flush=True)

    def style(self, text: str, name: str) -> str:
        """Returns text in a style, if there are colours."""
        return click.style(text, **_STYLES[name]) if self.color and text else text

    def cut_end(self, text: str, width: int) -> str:
        """Returns text with its end left out if it is wider."""
        return text if len(text) <= width else text[: max(width - 1, 0)] + self.ellipsis

    def cut(self, text: str, width: int) -> str:
        """Returns text with its middle left out if it is wider; the end tells most."""
        if len(text) <= width or width < 4:
            return text
        head = min(width // 4, 12)
        return text[:head] + self.ellipsis + text[len(text) - (width - head - 1) :]

    @staticmethod
    def _failed(error: OSError) -> NoReturn:
        raise OutputError(error) from None
