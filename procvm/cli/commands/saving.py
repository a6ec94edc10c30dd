"""``snapshot`` and ``diff``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import click

import procvm
from procvm import Run
from procvm._base.hexrows import ROW_LEN, ascii_text, hex_text
from procvm._base.text import printable, size_text
from procvm._symbols.mapped import Mapped
from procvm.cli.declare import command, pid_argument, range_options
from procvm.cli.exits import DONE, NOTHING
from procvm.cli.meter import Meter, metered
from procvm.cli.output import Output
from procvm.cli.ranges import ranges_in
from procvm.cli.target import name_of, open_target, pid_of

__all__ = ["diff", "snapshot"]


@command(
    "procvm snapshot 1234 -o before.core",
    "procvm snapshot 1234 -o heap.core --in '[heap]' --hold",
)
@pid_argument
@click.option(
    "-o",
    "--output",
    "path",
    metavar="FILE",
    required=True,
    type=click.Path(dir_okay=False),
    help="The core file; what was there is replaced.",
)
@click.option("--hold", is_flag=True, help="Hold the process meanwhile; takes its size in memory.")
@range_options("r")
def snapshot(
    out: Output, target: str, path: str, hold: bool, perms: str, within: str | None
) -> None:
    """Save the memory of a process to a core file, which debuggers read as well.

    Memory that nobody ever touched is not read. Only the owner can read the file.
    """
    pid = pid_of(target)
    begin = time.monotonic()
    with metered(out, "snapshot") as meter:
        if hold:
            # To memory first, so that it is held no longer than it must be.
            with procvm.attach(pid, longest_hold=None) as tracee:
                ranges = ranges_in(tracee, within, perms)
                taken = tracee.snapshot(ranges, progress=meter)
            with taken:
                kept = taken.save(path, progress=meter)
        else:
            with procvm.open(pid) as process:
                ranges = ranges_in(process, within, perms)
                kept = process.save(path, ranges, progress=meter)
    seconds = time.monotonic() - begin
    name = printable(os.fsencode(path))
    if out.json:
        out.document(
            {
                "pid": pid,
                "file": name,
                "mappings": len(ranges),
                "bytes": kept,
                "held": hold,
                "seconds": round(seconds, 6),
            }
        )
    elif out.is_terminal:
        out.line(f"{size_text(kept)} of process {pid} saved to {name} in {seconds:.1f} s")


@command(
    "procvm diff before.core 1234",
    "procvm diff before.core after.core --in '[heap]'",
)
@click.argument("before", metavar="A", type=click.Path(exists=True, dir_okay=False))
@click.argument("after", metavar="B")
@range_options("")
@click.option("--full", is_flag=True, help="Whole runs, however long.")
def diff(out: Output, before: str, after: str, perms: str, within: str | None, full: bool) -> int:
    """Show where B, a process or a core file, has other bytes than the core file A.

    Memory that only one of the two has is no difference. The exit code is 0 if there is a
    difference and 1 if there is none: found, and nothing found.
    """
    nr = 0
    with procvm.open_core(before) as old, open_target(after) as new:
        ranges = ranges_in(old, within, perms)
        with metered(out, "diff") as meter:
            for run in _runs(old, new, ranges, meter):
                nr += 1
                _show(out, new, run, full=full)
    return DONE if nr else NOTHING


_STEP = 1 << 25
_MOST_STEPS = 256


def _runs(old: procvm.Snapshot, new: Mapped, ranges: procvm.Maps, meter: Meter) -> Iterator[Run]:
    """Yields the runs that differ, mappings by mappings, so that one sees how far it is."""
    total = sum(vma.size for vma in ranges)
    step = max(_STEP, total // _MOST_STEPS)
    done = 0
    group: list[procvm.Vma] = []
    size = 0
    for k, vma in enumerate(ranges):
        group.append(vma)
        size += vma.size
        if size < step and k + 1 < len(ranges):
            continue
        yield from old.diff(new.vm, group)
        done += size
        meter(done, total)
        group, size = [], 0


_ROWS = 4


def _show(out: Output, new: Mapped, run: Run, *, full: bool) -> None:
    at, n = run.address, len(run.old)
    if out.json:
        out.record(
            {
                "address": hex(at),
                "length": n,
                "where": new.describe(at),
                "old": run.old.hex(),
                "new": run.new.hex(),
            }
        )
        return
    name = name_of(new, at)
    if not out.is_terminal:
        out.line(f"{at:#x}\t{n}\t{name}\t{run.old.hex()}\t{run.new.hex()}")
        return
    where = f"{out.style(name, 'name')}  " if name else ""
    out.line(f"{out.style(hex(at), 'address')}  {where}{n} byte{'s' * (n != 1)}")
    for start in range(0, n, ROW_LEN):
        if start == _ROWS * ROW_LEN and not full:
            out.line(
                out.style(f"  {out.ellipsis} {n - start} more bytes; --full shows them", "dim")
            )
            return
        for sign, data, style in (("-", run.old, "bad"), ("+", run.new, "good")):
            row = data[start : start + ROW_LEN]
            out.line(out.style(f"{sign} {hex_text(row)}  {ascii_text(row)}", style))
