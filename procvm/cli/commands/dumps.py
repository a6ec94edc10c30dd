"""``hexdump``, ``strings`` and ``telescope``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click

import procvm
from procvm._base.hexrows import address_text
from procvm._base.text import printable
from procvm._space.hexdump import HexRow, hex_rows, without_repeats
from procvm._space.telescope import words_at
from procvm._space.texts import ENCODINGS
from procvm._symbols.mapped import Mapped
from procvm.cli.declare import (
    SIZE,
    address_argument,
    command,
    force_option,
    pid_argument,
    range_options,
)
from procvm.cli.exits import DONE, NOTHING
from procvm.cli.meter import metered
from procvm.cli.output import Output, fault_of, folded
from procvm.cli.ranges import Where, ranges_in
from procvm.cli.target import address_in, open_target
from procvm.errors import ProcvmError

__all__ = ["hexdump", "strings", "telescope"]


@command(
    "procvm hexdump 1234 '[heap]' 64",
    "procvm hexdump 1234 '*g_buffer' 4K",
    "procvm hexdump ./core 0x7ffc1234a000",
)
@pid_argument
@address_argument
@click.argument("length", metavar="[LEN]", type=SIZE, default=256)
@click.option("-a", "--all", "show_all", is_flag=True, help="Show rows that repeat as well.")
@force_option
def hexdump(
    out: Output, target: str, address: str, length: int, show_all: bool, force: bool
) -> None:
    """Show LEN bytes at ADDRESS (256 if not given) in hexadecimal and as text.

    Rows that repeat the one before are shown as one *. Bytes before a fault are shown.
    """
    with open_target(target) as process:
        at = address_in(process, address)
        vm = process.vm.forced() if force else process.vm
        if out.json:
            _hexdump_document(out, process.pid, vm, at, length)
            return
        heads = _Heads(out, process) if out.is_terminal else None
        _hexdump_rows(out, heads, hex_rows(vm, at, length), at + length, show_all=show_all)


class _Heads:
    """Writes a line with the name of a mapping before the first row that begins in it."""

    def __init__(self, out: Output, process: Mapped) -> None:
        self._out = out
        self._process = process
        self._maps = process.maps()
        self._last: procvm.Vma | None = None

    def before(self, address: int) -> None:
        """Writes the line for the mapping of an address, if it is not that of the last one."""
        vma = self._maps.find(address)
        if vma is None or vma == self._last:
            return
        self._last = vma
        where, name = self._process.describe(address), printable(vma.name) or "no name"
        extent = f"{vma.start:#x}-{vma.end:#x} {vma.perms}"
        if where == hex(address):
            parts = [name, extent]
        elif where.startswith(name):
            parts = [where, extent]  # [heap]+0x10 names the mapping already
        else:
            parts = [where, name, extent]
        for line in folded(", ".join(parts), self._out.width):
            self._out.line(self._out.style(line, "name"))


def _hexdump_rows(
    out: Output, heads: _Heads | None, rows: Iterator[HexRow], end: int, *, show_all: bool
) -> None:
    width = len(address_text(end))
    for row in rows if show_all else without_repeats(rows):
        if row is None:
            out.line(out.style("*", "dim"))
            continue
        if heads is not None and row.data:
            heads.before(row.address)
        digits = f" {row.digits()}" if row.data else ""
        out.line(f"{out.style(address_text(row.address, width), 'address')}{digits}")


def _hexdump_document(out: Output, pid: int, vm: procvm.VmSpace, at: int, length: int) -> None:
    rows: list[dict[str, Any]] = []
    broken: ProcvmError | None = None
    try:
        for row in hex_rows(vm, at, length):
            # A comprehension would lose the rows before a fault.
            rows.append(  # noqa: PERF401
                {"address": hex(row.address), "hex": row.data.hex(), "text": row.text}
            )
    except ProcvmError as error:
        broken = error
    out.document({"pid": pid, "address": hex(at), "rows": rows, "fault": fault_of(broken)})
    if broken is not None:
        raise broken


@command(
    "procvm strings 1234 --min 8",
    "procvm strings myprogram --in '[heap]'",
    "procvm strings ./core | grep -i password",
)
@pid_argument
@click.option(
    "--min",
    "least",
    type=click.IntRange(1, 1024),
    default=6,
    show_default=True,
    help="The least number of characters of a text.",
)
@click.option(
    "--encoding",
    "encodings",
    type=click.Choice(ENCODINGS),
    multiple=True,
    default=("ascii",),
    show_default=True,
    help="The encoding of the texts; give it again to list those of several.",
)
@range_options("r")
def strings(out: Output, target: str, least: int, encodings: tuple[str, ...], where: Where) -> int:
    """List the texts in memory, runs of printable characters, with their places.

    The place is a symbol or a mapping, and the offset in it. With several encodings the texts
    of each are listed in turn, and the encoding is shown.

    A text longer than 65536 bytes comes in parts. In utf-16 and utf-32 the characters are
    the letters of Latin, Greek, Cyrillic, Hebrew and Arabic, digits and punctuation.
    """
    nr = 0
    with open_target(target) as process, metered(out, "strings") as meter:
        ranges = ranges_in(process, where)
        for encoding in dict.fromkeys(encodings):
            found = process.vm.strings(
                ranges=ranges, encoding=encoding, min_len=least, progress=meter
            )
            shown = encoding if len(encodings) > 1 else ""
            for text in found:
                nr += 1
                _show_text(out, process, text.address, printable(text.text), encoding, shown)
    return DONE if nr else NOTHING


_PLACE_WIDTH = 20
"""Columns for the place of a text; a longer place moves the text to the right."""


def _show_text(out: Output, process: Mapped, at: int, text: str, encoding: str, shown: str) -> None:
    where = process.describe(at)
    if out.json:
        record = {"address": hex(at), "where": where, "text": text, "encoding": encoding}
        out.record(record)
        return
    if not out.is_terminal:
        out.line("\t".join([f"{at:#x}", *([shown] if shown else []), text]))
        return
    address = address_text(at)
    place = "" if where == hex(at) else where
    marks = f"{shown:9}  " if shown else ""
    margin = len(address) + len(marks) + 2
    line = f"{out.style(address, 'address')}  {out.style(marks, 'dim')}"
    if out.width - margin >= 2 * _PLACE_WIDTH:
        line += f"{out.style(f'{place:{_PLACE_WIDTH}}', 'dim')}  "
        margin += max(len(place), _PLACE_WIDTH) + 2
    room = out.width - margin
    lines = [text] if len(text) <= room or room < _PLACE_WIDTH else folded(text, room)
    out.line(line + lines[0])
    for more in lines[1:]:
        out.line(" " * margin + more)


@command(
    "procvm telescope 1234 g_list",
    "procvm telescope 1234 '[heap]+0x10' 32",
    "procvm telescope ./core 0x7ffc1234a000 4",
)
@pid_argument
@address_argument
@click.argument("count", metavar="[COUNT]", type=click.IntRange(1, 1 << 20), default=8)
@click.option(
    "--depth",
    type=click.IntRange(1, 64),
    default=6,
    show_default=True,
    help="Follow at most this many pointers.",
)
@force_option
def telescope(out: Output, target: str, address: str, count: int, depth: int, force: bool) -> None:
    """Follow the pointers in COUNT words from ADDRESS on (8 if not given).

    Each word is followed while it is an address that can be read, up to a text or a number.
    The colour of a pointer says what it points to: red is code, blue the heap, magenta a stack,
    yellow other data. Texts are green.
    """
    with open_target(target) as process:
        at = address_in(process, address)
        vm = process.vm.forced() if force else process.vm
        words = _words(process, vm, at, count, depth)
        if not out.json:
            _show_words(out, process, words)
            return
        found: list[dict[str, Any]] = []
        broken: ProcvmError | None = None
        try:
            found.extend(words)
        except ProcvmError as error:
            broken = error
        out.document(
            {"pid": process.pid, "address": hex(at), "words": found, "fault": fault_of(broken)}
        )
        if broken is not None:
            raise broken


def _words(
    process: Mapped, vm: procvm.VmSpace, at: int, count: int, depth: int
) -> Iterator[dict[str, Any]]:
    """Yields words and where they lead to: those before a fault, then it raises."""
    for word in words_at(vm, at, count, depth):
        yield {
            "address": hex(word.address),
            "where": process.describe(word.address),
            "chain": [
                {
                    "value": hex(link.value),
                    "where": None if link.perms is None else process.describe(link.value),
                }
                for link in word.chain
            ],
            "end": word.end,
            "text": None if word.text is None else printable(word.text),
        }


def _show_words(out: Output, process: Mapped, words: Iterable[dict[str, Any]]) -> None:
    kinds = _Kinds(process) if out.color else None
    for k, word in enumerate(words):
        if out.is_terminal:
            if k == 0 and word["where"] != word["address"]:
                out.line(out.style(word["where"], "name"))
            _show_chain(out, word, kinds)
            continue
        where = "" if word["where"] == word["address"] else f" ({word['where']})"
        parts = [f"{text} ({name})" if name else text for text, name in _steps(word)]
        out.line("\t".join([f"{word['address']}{where}", *parts, *_end(word)]))


class _Kinds:
    """Tells for an address the style of what it points to."""

    def __init__(self, process: Mapped) -> None:
        self._maps = process.maps()

    def style(self, address: int) -> str:
        """Returns the style of an address; that of a number if nothing is mapped there."""
        vma = self._maps.find(address)
        if vma is None:
            return "number"
        if vma.perms & procvm.Perms.EXEC:
            return "code"
        return vma.kind.value if vma.kind in (procvm.Kind.HEAP, procvm.Kind.STACK) else "data"


def _steps(word: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns each value of a chain, and what is there, which may be empty."""
    return [
        (step["value"], "" if step["where"] in (None, step["value"]) else step["where"])
        for step in word["chain"]
    ]


def _end(word: dict[str, Any]) -> list[str]:
    if word["text"] is not None:
        return ['"' + word["text"].replace('"', '\\"') + '"']
    return [f"({word['end']})"] if word["end"] in ("loop", "deeper", "unreadable") else []


def _show_chain(out: Output, word: dict[str, Any], kinds: _Kinds | None) -> None:
    """Shows a chain; where it is too wide for the terminal it goes on below."""
    margin = len(word["address"]) + 2
    line = out.style(word["address"], "address") + "  "
    width = margin
    # A value or a text, its style, and the name that is shown after it.
    parts: list[tuple[str, str, str]] = []
    for value, name in _steps(word):
        style = kinds.style(int(value, 16)) if kinds else "number"
        parts.append((value, style, f" <{name}>" if name else ""))
    parts += [(text, "text" if word["text"] is not None else "dim", "") for text in _end(word)]
    for k, (text, style, name) in enumerate(parts):
        arrow = f" {out.arrow} " if k else ""
        columns = len(arrow) + len(text) + len(name)
        if width + columns > out.width and k:
            out.line(line)
            line, width = " " * (margin - 1), margin - 1
        line += arrow + out.style(text, style) + out.style(name, "dim")
        width += columns
    out.line(line)
