"""The output of a command, for a terminal, as plain lines or as JSON, and its messages."""

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
    "AmbiguousError",
    "Color",
    "InterruptedByUserError",
    "NothingFoundError",
    "Output",
    "OutputError",
    "begin_line",
    "fault_of",
    "folded",
    "message_of",
    "tell",
    "wants_color",
]

Color = Literal["auto", "always", "never"]

_STYLES: dict[str, dict[str, Any]] = {
    "address": {"fg": "cyan"},
    "bad": {"fg": "red"},
    "code": {"fg": "red"},
    "data": {"fg": "yellow"},
    "dim": {"dim": True},
    "good": {"fg": "green"},
    "head": {"bold": True},
    "heap": {"fg": "blue"},
    "match": {"bold": True, "reverse": True},
    "name": {"fg": "blue", "bold": True},
    "new": {"fg": "yellow", "bold": True},
    "number": {},
    "stack": {"fg": "magenta"},
    "text": {"fg": "green"},
}


def folded(text: str, width: int) -> list[str]:
    """Returns text as lines of at most `width` columns, broken between words alone.

    A word that is wider than a line keeps a line for itself: half an address or half a path
    could not be copied.
    """
    import textwrap  # noqa: PLC0415 (only a terminal needs it)

    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)


class OutputError(Exception):
    """The output cannot be written.

    Attributes:
        code: The exit code.
        is_quiet: Whether the reader closed the pipe, which needs no message.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write the output: {error.strerror or error}")
        self.is_quiet = error.errno == errno.EPIPE
        self.code = PIPE_CLOSED if self.is_quiet else FAULT


class InterruptedByUserError(Exception):
    """Ctrl-C was pressed while a command ran."""


class NothingFoundError(Exception):
    """No mapping or value fits the options; the message says which, and the code is 1."""


class AmbiguousError(click.UsageError):
    """A name fits several processes.

    Attributes:
        choices: A line per process.
    """

    def __init__(self, message: str, choices: list[str]) -> None:
        super().__init__(message)
        self.choices = choices


def message_of(error: ProcvmError) -> str:
    """Returns an error of the library as text, its hint in the words of the command."""
    return error.worded(WORDINGS)


def tell(message: str) -> None:
    """Writes one line of message to stderr, if there is one."""
    _to_stderr(f"procvm: {shown(message)}\n")


def begin_line() -> None:
    """Begins a new line on a terminal that may show ^C on the current one."""
    stream: TextIO | None = sys.stderr
    if stream is not None and stream.isatty():
        _to_stderr("\n")


def tell_more(lines: Sequence[str]) -> None:
    """Adds indented lines to the last message."""
    _to_stderr("".join(f"  {shown(line)}\n" for line in lines))


def _to_stderr(text: str) -> None:
    stream: TextIO | None = sys.stderr
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return  # stderr is closed: the message has no reader


def wants_color(color: Color, *, is_terminal: bool) -> bool:
    """Returns whether to use colours, by the option, the environment and the terminal."""
    if color != "auto":
        return color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal and os.environ.get("TERM") != "dumb"


def fault_of(error: ProcvmError | None) -> dict[str, Any] | None:
    """Returns the ``fault`` of a JSON document for an error; None for None."""
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
    """The output of one command.

    Attributes:
        json: Whether JSON was asked for.
        is_terminal: Whether stdout is a terminal and JSON was not asked for.
        color: Whether to use colours.
        is_utf8: Whether stdout takes every character.
        width: Columns of the terminal.
        arrow: An arrow in the encoding of the output.
        ellipsis: The sign for text that was left out.
        before_line: Called before a line is written.
    """

    def __init__(self, *, as_json: bool, color: Color) -> None:
        stream: TextIO | None = sys.stdout
        if stream is None:
            raise OutputError(OSError(errno.EBADF, "stdout is closed"))
        self._stream = stream
        # Without this, a character that the encoding lacks would raise UnicodeEncodeError.
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
        self.json = as_json
        is_terminal = stream.isatty()
        self.is_terminal = is_terminal and not as_json
        self.color = not as_json and wants_color(color, is_terminal=is_terminal)
        self.width = max(shutil.get_terminal_size().columns, 40)
        self.is_utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self.arrow, self.ellipsis = ("→", "…") if self.is_utf8 and self.is_terminal else ("->", "~")
        self.before_line: Callable[[], None] | None = None

    @property
    def stream(self) -> TextIO:
        """The stream, for code that draws by itself."""
        return self._stream

    def line(self, text: str = "", *, flush: bool = False) -> None:
        """Writes a line; the caller has made text of the target printable."""
        if self.before_line is not None:
            self.before_line()
        try:
            self._stream.write(text + "\n")
            if flush:
                self._stream.flush()
        except OSError as error:
            self._failed(error)

    def raw(self, data: bytes) -> None:
        """Writes raw bytes."""
        try:
            self._stream.flush()
            self._stream.buffer.write(data)
        except OSError as error:
            self._failed(error)

    def flush(self) -> None:
        """Flushes the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def document(self, value: Any) -> None:
        """Writes the JSON document of a command."""
        self.line(json.dumps(value, indent=2, allow_nan=False))

    def long_document(self, head: dict[str, Any], key: str, items: Iterable[Any]) -> None:
        """Writes the document `head` with a list `key`, whose items are written as they come."""
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
        """Writes one object of a stream on its own line, and flushes it."""
        self.line(json.dumps(value, allow_nan=False), flush=True)

    def style(self, text: str, name: str) -> str:
        """Returns text in a style, or unchanged without colours."""
        return click.style(text, **_STYLES[name]) if self.color and text else text

    def cut_end(self, text: str, width: int) -> str:
        """Returns text cut at its end to `width` columns."""
        return text if len(text) <= width else text[: max(width - 1, 0)] + self.ellipsis

    def cut(self, text: str, width: int) -> str:
        """Returns text cut in its middle to `width` columns: a path keeps its end."""
        if len(text) <= width or width < 4:
            return text
        head = min(width // 4, 12)
        return text[:head] + self.ellipsis + text[len(text) - (width - head - 1) :]

    @staticmethod
    def _failed(error: OSError) -> NoReturn:
        raise OutputError(error) from None
