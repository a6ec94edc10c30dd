"""Makes text of a target safe to show on a terminal.

Names of mappings, of processes and of files come from the target, which may
put escape sequences, newlines or bidirectional controls into them.
"""

from __future__ import annotations

__all__ = ["printable", "shown", "size_text"]


def printable(text: bytes | str) -> str:
    r"""Returns `text` with everything but printable characters escaped.

    Bytes are taken as UTF-8; what is not valid becomes ``\xNN``. A backslash is
    doubled, so that the result is unambiguous. Newlines are escaped as well:
    the caller who wants lines joins them itself.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(_escape(char) for char in text)


def _escape(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown(message: str) -> str:
    """Returns a message with text of a target in it as one line that is safe to show.

    Backslashes stay as they are: the safe parts have theirs doubled already.
    """
    if message.isascii() and message.isprintable():
        return message
    return "".join(char if char.isprintable() else printable(char) for char in message)


def size_text(n: int) -> str:
    """Returns a number of bytes in at most five characters, as in ``132K``."""
    if n < 1 << 10:
        return str(n)
    power = 1
    while n >= 999.5 * 1024**power:
        power += 1
    size = n / 1024**power
    text = f"{size:.0f}" if size >= 9.95 else f"{size:.1f}".removesuffix(".0")
    return text + "KMGTPE"[power - 1]
