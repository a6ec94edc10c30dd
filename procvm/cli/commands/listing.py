"""``ps`` and ``maps``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

import click

import procvm
from procvm import Kind, Vma
from procvm._base.hexrows import address_text
from procvm._base.text import printable, size_text
from procvm._linux.processes import NamedProcess, processes
from procvm.cli.declare import command, missing, pid_argument, range_options
from procvm.cli.exits import DONE, NOTHING
from procvm.cli.output import NothingFoundError, Output, folded, tell
from procvm.cli.ranges import Where, ranges_in
from procvm.cli.target import open_target, process_text
from procvm.cli.use import Use, Uses, uses_of

__all__ = ["maps", "ps"]


@command("procvm ps", "procvm ps python", "procvm ps --json | jq '.processes[].pid'")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--all", "show_all", is_flag=True, help="List kernel threads as well.")
def ps(out: Output, name: str | None, show_all: bool) -> int:
    """List processes, and whether they can be accessed.

    NAME lists only processes whose name or executable contains it. ACCESS is yes, or names
    what prevents access; procvm doctor PID says how to fix it.
    """
    found = list(_rows(name, show_all=show_all))
    if not found and name is not None:
        tell(f"no process has {printable(os.fsencode(name))} in its name or executable")
    if out.json:
        out.document({"processes": found})
    elif out.is_terminal:
        _ps_table(out, found)
    else:
        for row in found:
            out.line("\t".join("-" if cell is None else str(cell) for cell in row.values()))
    return DONE if found else NOTHING


def _rows(wanted: str | None, *, show_all: bool) -> Iterator[dict[str, Any]]:
    """Yields a row for each process that has `wanted` in one of its names."""
    import psutil  # noqa: PLC0415 (slow to import)

    for named in processes():
        if not _has(named, wanted):
            continue
        why = procvm.explain(named.pid)
        if why.cause == "no process" or (why.kernel_thread and not show_all):
            continue
        try:
            # psutil returns None for what this user may not see.
            info = cast("Any", psutil.Process(named.pid)).as_dict(
                ["username", "status", "memory_info", "num_threads"]
            )
        except psutil.NoSuchProcess:
            continue
        yield {
            "pid": named.pid,
            "user": printable(info["username"] or "?"),
            "state": str(info["status"] or "?"),
            "resident": None if info["memory_info"] is None else info["memory_info"].rss,
            "threads": info["num_threads"],
            "access": why.cause or "yes",
            "name": printable(named.comm),
            "command": named.command,
        }


def _has(named: NamedProcess, wanted: str | None) -> bool:
    if wanted is None:
        return True
    part = os.fsencode(wanted).lower()
    return part in named.comm.lower() or part in named.program.lower()


def _ps_table(out: Output, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    pid_width = max([3, *(len(str(row["pid"])) for row in rows)])
    user_width = min(max([4, *(len(row["user"]) for row in rows)]), 10)
    access_width = max([6, *(len(row["access"]) for row in rows)])
    head = (
        f"{'PID':>{pid_width}}  {'USER':{user_width}}  {'RSS':>5}  {'THR':>3}  "
        f"{'ACCESS':{access_width}}  COMMAND"
    )
    out.line(out.style(head, "head"))
    room = out.width - len(head) + len("COMMAND")
    for row in rows:
        size = "-" if row["resident"] is None else size_text(row["resident"])
        access = f"{row['access']:{access_width}}"
        text = row["command"] or f"[{row['name']}]"
        out.line(
            f"{row['pid']:>{pid_width}}  {out.cut_end(row['user'], user_width):{user_width}}  "
            f"{size:>5}  {row['threads'] or '-':>3}  "
            f"{out.style(access, 'good' if row['access'] == 'yes' else 'bad')}  "
            f"{out.cut_end(text, max(room, 12))}"
        )


@command(
    "procvm maps 1234",
    "procvm maps python --perms rw --kind heap",
    "procvm maps 1234 --in libc.so.6",
    "procvm maps 1234 --picture map.svg",
)
@pid_argument
@range_options("")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    help="Only mappings of this kind.",
)
@click.option("-w", "--wide", is_flag=True, help="Show whole names, and offsets in files.")
@click.option(
    "--picture",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Draw the address space to this SVG or PNG file instead.",
)
def maps(
    out: Output,
    target: str,
    where: Where,
    kind: str | None,
    wide: bool,
    picture: str | None,
) -> int:
    """List the mappings of a process, their sizes, and how much is resident and dirty.

    RSS is in physical memory; DIRTY was written, and is in no file. A core file has neither.
    In a pipe the lines are those of /proc/PID/maps, with 0x before each address and with
    printable names. --range and --near list the mappings that overlap them, whole.
    """
    with open_target(target) as process:
        if picture is not None:
            try:
                from procvm.cli.picture import draw  # noqa: PLC0415 (only --picture needs it)
            except ModuleNotFoundError as error:
                raise missing(error, "procvm maps --picture", "tui") from None
            draw(process, picture)
            if out.json:
                out.document({"pid": process.pid, "file": printable(os.fsencode(picture))})
            elif out.is_terminal:
                out.line(f"wrote the picture to {printable(os.fsencode(picture))}")
            return DONE
        found = ranges_in(process, where, whole=True)
        if kind is not None:
            found = found.filter(kind=Kind(kind))
            if not found:
                fits = f"--kind {kind} {where}".rstrip()
                raise NothingFoundError(f"no mapping of {process_text(process)} fits {fits}")
        pid = process.pid
        uses = uses_of(process) if out.json or out.is_terminal else Uses({})
    if out.json:
        rows = (_mapping(vma, uses.by_range.get((vma.start, vma.end))) for vma in found)
        out.long_document({"pid": pid}, "mappings", rows)
    elif out.is_terminal:
        _maps_table(out, found, uses, wide=wide)
    else:
        for vma in found:
            out.line(str(vma))
    return DONE


def _mapping(vma: Vma, use: Use | None) -> dict[str, Any]:
    return {
        "start": hex(vma.start),
        "end": hex(vma.end),
        "size": vma.size,
        "perms": str(vma.perms),
        "offset": vma.offset,
        "device": f"{vma.dev[0]:x}:{vma.dev[1]:x}",
        "inode": vma.inode,
        "kind": vma.kind.value,
        "name": printable(vma.name),
        "resident": None if use is None else use.resident,
        "dirty": None if use is None else use.dirty,
    }


_LEAST_FOR_ENDS = 78
"""Columns below which a table leaves the ends out: the sizes tell them."""


def _maps_table(out: Output, found: procvm.Maps, uses: Uses, *, wide: bool) -> None:
    # Only [vsyscall] has longer addresses: its row alone is out of line.
    ends = wide or out.width >= _LEAST_FOR_ENDS
    head = (f"{'START':14} {'END':14} " * ends or f"{'START':14} ") + "PERM  SIZE "
    if uses.by_range:
        head += "  RSS DIRTY "
    head += f" {'OFFSET':>10} " * wide + " "
    out.line(out.style(head + "NAME", "head"))
    room = max(out.width - len(head), 12)
    last = b""
    for vma in found:
        name = printable(vma.name)
        is_new = vma.name != last
        if not wide:
            # The mappings of a file are consecutive: only the first shows the whole path.
            name = out.cut(name if is_new else name.rpartition("/")[2], room)
        cells = [out.style(address_text(vma.start), "address")]
        cells += [address_text(vma.end)] if ends else []
        cells += [_perms(out, vma), f"{size_text(vma.size):>5}"]
        if uses.by_range:
            use = uses.by_range.get((vma.start, vma.end))
            cells += [
                f"{'-' if use is None else size_text(n) if n else '':>5}"
                for n in (use or (0, 0))[:2]
            ]
        cells += [f" {vma.offset:>#10x}"] if wide else []
        out.line(" ".join([*cells, "", out.style(name, "name" if is_new else "dim")]).rstrip())
        last = vma.name
    _maps_summary(out, found, uses)


def _maps_summary(out: Output, found: procvm.Maps, uses: Uses) -> None:
    """Shows the sums; of the part of a list that was asked for, if it was a part."""
    n = len(found)
    text = f"{n} mapping{'s' * (n != 1)}, {size_text(sum(vma.size for vma in found))} in all"
    if uses.why_not:
        text += f"; resident and dirty memory is not known: {uses.why_not}"
    else:
        used = [uses.by_range.get((vma.start, vma.end), Use(0, 0, 0)) for vma in found]
        text += f", {size_text(sum(use.resident for use in used))} resident"
        text += f", {size_text(sum(use.dirty for use in used))} dirty"
        swapped = sum(use.swapped for use in used)
        text += f", {size_text(swapped)} in swap" if swapped else ""
    for line in folded(text, out.width):
        out.line(out.style(line, "head"))


def _perms(out: Output, vma: Vma) -> str:
    text = str(vma.perms)
    if vma.perms & procvm.Perms.EXEC:
        return out.style(text, "good")
    return out.style(text, "new") if vma.perms & procvm.Perms.WRITE else text
