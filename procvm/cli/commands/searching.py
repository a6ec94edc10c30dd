"""``search``."""

from __future__ import annotations

import itertools
import os
import re
import sys
from typing import Any

import click

from procvm import Hit
from procvm._base.address import PAGE_SIZE
from procvm._base.hexrows import ADDRESS_WIDTH, address_text, ascii_text
from procvm._space.texts import read_some
from procvm._symbols.mapped import Mapped
from procvm._terminal.conditions import GRAMMAR, condition_of
from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Number
from procvm.cli.declare import (
    SIZE,
    SIZE_ABOVE_0,
    command,
    pid_argument,
    range_options,
)
from procvm.cli.exits import DONE, NOTHING
from procvm.cli.kind_param import kind_option
from procvm.cli.meter import metered
from procvm.cli.output import Output
from procvm.cli.ranges import Where, ranges_in
from procvm.cli.target import name_of, open_target, said_of

__all__ = ["search"]

_CONTEXT_LEN = 8
"""Bytes that a terminal shows before and after a hit."""

_MATCH_LEN = 16
"""Bytes of a hit that are shown in hexadecimal at most."""


@command(
    "procvm search 1234 '48 8B ?? ?F'",
    "procvm search 1234 --text 'hello' --in '[heap]'",
    "procvm search 1234 --regex 'user=[a-z]+'",
    "procvm search 1234 -t u32 --value 1337 --perms rw",
    "procvm search 1234 -t ptr --value '[heap]+0x10'",
    ignore_unknown_options=True,
)
@pid_argument
@click.argument("pattern", metavar="[PATTERN]", required=False)
@click.option("--text", metavar="TEXT", help="Search for this text.")
@click.option(
    "--encoding",
    metavar="NAME",
    help="The encoding of TEXT, such as utf-16-le; by default that of the terminal.",
)
@click.option("--regex", metavar="EXPR", help="Search for a regular expression of bytes.")
@kind_option(None)
@click.option(
    "--value",
    metavar="COND",
    help="Search for values of TYPE: 1337, 5..9, '> 5'.",
)
@range_options("r")
@click.option(
    "--align",
    type=SIZE_ABOVE_0,
    metavar="BYTES",
    default=1,
    help="Only addresses that are multiples of this.",
)
@click.option("--limit", type=SIZE_ABOVE_0, metavar="N", help="Stop after N addresses.")
@click.option(
    "-C",
    "--context",
    type=SIZE,
    metavar="BYTES",
    help="Show so many bytes before and after each hit; a terminal shows 8 anyway.",
)
def search(
    out: Output,
    target: str,
    pattern: str | None,
    text: str | None,
    encoding: str | None,
    regex: str | None,
    kind: Kind | None,
    value: str | None,
    where: Where,
    align: int,
    limit: int | None,
    context: int | None,
) -> int:
    """Find every address of bytes, a text or a value, in ascending order.

    PATTERN is hexadecimal digits, with ? for any digit: '48 8B ?? ?F'. Memory that cannot be
    read is skipped. Each address is written as soon as it is found.
    """
    if sum(one is not None for one in (pattern, text, regex, value)) != 1:
        raise click.UsageError("give one of PATTERN, --text, --regex, and -t TYPE with --value")
    if value is None and kind is not None:
        raise click.UsageError("-t TYPE is for --value")
    if text is None and encoding is not None:
        raise click.UsageError("--encoding is for --text")
    nr = 0
    with open_target(target) as process, metered(out, "search") as meter:
        asked: dict[str, Any] = _asked(process, pattern, text, regex, kind, value)
        if encoding is not None:
            asked = {"text": text, "encoding": encoding}
        ranges = ranges_in(process, where)
        given = {"PATTERN": pattern, "--text": text, "--regex": regex, "--value": value}
        hits = said_of(
            next(name for name, one in given.items() if one is not None),
            lambda: process.vm.search(**asked, ranges=ranges, align=align, progress=meter),
        )
        for hit in itertools.islice(hits, None if limit is None else min(limit, sys.maxsize)):
            nr += 1
            _show(out, process, hit, context, as_text=text is not None or regex is not None)
        hits.close()
    return DONE if nr else NOTHING


def _asked(
    process: Mapped,
    pattern: str | None,
    text: str | None,
    regex: str | None,
    kind: Kind | None,
    value: str | None,
) -> dict[str, Any]:
    """Returns the arguments of `VmSpace.search`."""
    if pattern is not None:
        return {"what": pattern}
    if text is not None:
        return {"what": os.fsencode(text)}
    if regex is not None:
        try:
            return {"what": re.compile(os.fsencode(regex))}
        except re.error as error:
            raise click.BadParameter(f"{regex!r}: {error}", param_hint="--regex") from None
    if kind is None or value is None:
        raise click.UsageError("-t TYPE and --value go together")
    given = value
    kind = kind.of_target(process.address_size)
    if isinstance(kind, Number):
        condition = said_of("--value", lambda: condition_of(given, kind))
        if condition.change is not None:
            raise click.UsageError(
                f"{given!r} compares two reads, and a search reads once; give one of {GRAMMAR}"
            )
        return {"what": kind.pod, "value": condition.value}
    return {"what": said_of("--value", lambda: kind.encode(given, process.address))}


def _show(out: Output, process: Mapped, hit: Hit, context: int | None, *, as_text: bool) -> None:
    if out.json:
        record: dict[str, Any] = {"address": hex(hit), "where": process.describe(hit)}
        if context is not None:
            around = _around(process, hit, context)
            record.update(zip(("before", "match", "after"), (b.hex() for b in around), strict=True))
        out.record(record)
        return
    name = name_of(process, hit)
    if not out.is_terminal:
        more = [] if context is None else [b.hex() for b in _around(process, hit, context)]
        out.line("\t".join([f"{hit:#x}", name, *more]), flush=True)
        return
    n = _CONTEXT_LEN if context is None else context
    before, match, after = _around(process, hit, n)
    if as_text:
        parts, widest, gap = [ascii_text(part) for part in (before, match, after)], n, ""
    else:
        # Half as many bytes if the user did not say: each takes three columns.
        n = n if context is not None else n // 2
        around = before[len(before) - min(n, len(before)) :], match[:_MATCH_LEN], after[:n]
        parts, widest, gap = [part.hex(" ") for part in around], max(3 * n - 1, 0), " "
    shown = (
        f"{out.style(f'{parts[0]:>{widest}}', 'dim')}{gap}{out.style(parts[1], 'match')}"
        f"{gap}{out.style(f'{parts[2]:{widest}}', 'dim')}"
    )
    place = out.style(address_text(hit), "address")
    columns = ADDRESS_WIDTH + 2 + 2 * (widest + len(gap)) + len(parts[1])
    if columns + 2 + len(name) <= out.width:
        out.line(f"{place}  {shown}  {out.style(name, 'name')}".rstrip())
    else:
        out.line(f"{place}  {out.style(name, 'name')}".rstrip())
        out.line(f"  {shown}".rstrip())


def _around(process: Mapped, hit: Hit, n: int) -> tuple[bytes, bytes, bytes]:
    """Returns what can be read of the bytes before a hit, the hit, and the bytes after it."""
    vm, at = process.vm, int(hit)
    before = b""
    # If the page before the hit cannot be read, the bytes of its own page still can.
    for low in (max(at - n, 0), max(at - n, at & -PAGE_SIZE)):
        before = read_some(vm, low, bytearray(at - low))
        if len(before) == at - low:
            break
    else:
        before = b""
    after = read_some(vm, hit.end, bytearray(max(min(n, vm.end - hit.end), 0)))
    return before, hit.match, after
