"""``hexdump``, ``strings`` and ``telescope``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click

import procvm
from procvm._base.hexrows import address_text
from procvm._base.text import printable
from procvm._space.hexdump import hex_rows, without_repeats
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
from procvm.cli.output import Output, fault_of
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
        _hexdump_rows(out, vm, at, length, show_all=show_all)


def _hexdump_rows(out: Output, vm: procvm.VmSpace, at: int, length: int, *, show_all: bool) -> None:
    width = len(address_text(at + length))
    rows = hex_rows(vm, at, length)
    for row in rows if show_all else without_repeats(rows):
        if row is None:
            out.line(out.style("*", "dim"))
            continue
        digits = f" {row.digits()}" if row.data else ""
        out.line(f"{out.style(address_text(row.address, width), 'address')}{digits}")


def _hexdump_document(out: Output, pid: int, vm: procvm.VmSpace, at: int, length: int) -> None:
    rows: list[dict[str, Any]] = []
    broken: ProcvmError | None = None
    try:
        for row in hex_rows(vm, at, length):
            rows.append({"address": hex(row.address), "hex": row.data.hex(), "text": row.text})
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
    type=click.Choice(ENCODINGS),
    default="ascii",
    show_default=True,
    help="The encoding of the texts.",
)
@range_options("r")
def strings(out: Output, target: str, least: int, encoding: str, where: Where) -> int:
    """List the texts in memory, runs of printable characters, with their addresses.

    A text longer than 65536 bytes comes in parts. In utf-16 and utf-32 the characters are
    the letters of Latin, Greek, Cyrillic, Hebrew and Arabic, digits and punctuation.
    """
    nr = 0
    with open_target(target) as process, metered(out, "strings") as meter:
        ranges = ranges_in(process, where)
        found = process.vm.strings(ranges=ranges, encoding=encoding, min_len=least, progress=meter)
        for text in found:
            nr += 1
            _show_text(out, process, text.address, printable(text.text))
    return DONE if nr else NOTHING


def _show_text(out: Output, process: Mapped, at: int, text: str) -> None:
    if out.json:
        out.record({"address": hex(at), "where": process.describe(at), "text": text})
    elif out.is_terminal:
        out.line(f"{out.style(address_text(at), 'address')}  {text}")
    else:
        out.line(f"{at:#x}\t{text}")


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
    """
    with open_target(target) as process:
        at = address_in(process, address)
        vm = process.vm.forced() if force else process.vm
        words = _words(process, vm, at, count, depth)
        if not out.json:
            _show_words(out, words)
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


def _show_words(out: Output, words: Iterable[dict[str, Any]]) -> None:
    for k, word in enumerate(words):
        if out.is_terminal:
            if k == 0 and word["where"] != word["address"]:
                out.line(out.style(word["where"], "name"))
            _show_chain(out, word)
            continue
        where = "" if word["where"] == word["address"] else f" ({word['where']})"
        parts = [f"{text} ({name})" if name else text for text, name in _steps(word)]
        out.line("\t".join([f"{word['address']}{where}", *parts, *_end(word)]))


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


def _show_chain(out: Output, word: dict[str, Any]) -> None:
    """Shows a chain; where it is too wide for the terminal it goes on below."""
    margin = len(word["address"]) + 2
    line = out.style(word["address"], "address") + "  "
    width = margin
    # A name is an ADDRESS as well, and shorter to read.
    parts = [(name or text, "name" if name else "") for text, name in _steps(word)]
    parts += [(text, "new" if word["text"] is not None else "dim") for text in _end(word)]
    for k, (text, style) in enumerate(parts):
        arrow = f" {out.arrow} " if k else ""
        if width + len(arrow) + len(text) > out.width and k:
            out.line(line)
            line, width = " " * (margin - 1), margin - 1
        line += arrow + (out.style(text, style) if style else text)
        width += len(arrow) + len(text)
    out.line(line)
