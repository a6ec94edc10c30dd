"""``snapshot`` and ``diff``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack

import click

import procvm
from procvm import Run
from procvm._base.hexrows import ROW_LEN, ascii_text, hex_text
from procvm._base.text import printable, size_text
from procvm._symbols.mapped import Mapped
from procvm.cli.declare import command, pid_argument, range_options
from procvm.cli.exits import BAD_USE, DIFFERENT, DONE, exit_code
from procvm.cli.meter import Meter, metered
from procvm.cli.output import NothingFoundError, Output, message_of, tell
from procvm.cli.ranges import Where, ranges_in
from procvm.cli.target import name_of, names_register, open_target, pid_of
from procvm.errors import (
    AccessDeniedError,
    AlreadyTracedError,
    ProcvmError,
    StopTimeoutError,
    UnsupportedError,
)

__all__ = ["diff", "snapshot"]


@command(
    "procvm snapshot 1234 -o before.core",
    "procvm snapshot 1234 -o heap.core --in '[heap]' --no-hold",
)
@pid_argument
@click.option(
    "-o",
    "--output",
    "path",
    metavar="FILE",
    required=True,
    type=click.Path(dir_okay=False),
    help="The core file; an existing file is replaced.",
)
@click.option(
    "--hold/--no-hold",
    default=None,
    help="Hold the process meanwhile; without either, hold it if that is possible.",
)
@range_options("r")
def snapshot(out: Output, target: str, path: str, hold: bool | None, where: Where) -> None:
    """Save the memory of a process to a core file, which debuggers read as well.

    The process is held while its memory is copied, so that the file has its registers and one
    state of its memory. --no-hold copies while it runs: the file has no registers. Pages that
    were never touched are not read. Only the owner can read the file. In the hold an address may
    name a register of the first thread, as in --near '$rsp' 4K.
    """
    pid = pid_of(target)
    begin = time.monotonic()
    with ExitStack() as opened, metered(out, "snapshot") as meter:
        process = _opened(pid, hold, opened)
        is_held = isinstance(process, procvm.Tracee)
        if isinstance(process, procvm.Tracee) and names_register(*where.expressions):
            opened.enter_context(process.stopped())
        ranges = ranges_in(process, where)
        if is_held and _fits_in_memory(pid):
            # Copied to memory first: writing the file would make the hold longer.
            with process.snapshot(ranges, progress=meter) as taken:
                opened.close()
                kept = taken.save(path, progress=meter)
        else:
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
                "held": is_held,
                "seconds": round(seconds, 6),
            }
        )
    elif out.is_terminal:
        how = "held" if is_held else "not held"
        out.line(f"saved {size_text(kept)} of process {pid} ({how}) to {name} in {seconds:.1f} s")


def _opened(pid: int, hold: bool | None, opened: ExitStack) -> procvm.Process:
    """Opens the process to be saved: a `Tracee` if it is to be held and can be."""
    if hold is not False:
        try:
            return opened.enter_context(procvm.attach(pid, longest_hold=None))
        except (AccessDeniedError, AlreadyTracedError, StopTimeoutError, UnsupportedError) as error:
            if hold:
                raise
            reason = message_of(error)
        process = opened.enter_context(procvm.open(pid))
        tell(f"not held, so the file has no registers: {reason}")
        return process
    return opened.enter_context(procvm.open(pid))


def _fits_in_memory(pid: int) -> bool:
    """Returns whether a copy of a process takes at most a quarter of the free memory."""
    import psutil  # noqa: PLC0415 (slow to import)

    try:
        resident: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return False
    return resident <= psutil.virtual_memory().available // 4


@command(
    "procvm diff before.core 1234",
    "procvm diff before.core after.core --in '[heap]'",
)
@click.argument("before", metavar="A", type=click.Path(exists=True, dir_okay=False))
@click.argument("after", metavar="B")
@range_options("")
@click.option("--full", is_flag=True, help="Show runs of bytes whole, however long.")
def diff(out: Output, before: str, after: str, where: Where, full: bool) -> int:
    """Show the bytes of B, a process or a core file, that differ from the core file A.

    Memory that only one of the two contains is ignored. The exit code is that of diff(1):
    0 without a difference, 1 with one, 2 or above if the comparison failed.
    """
    nr = 0
    try:
        with procvm.open_core(before) as old, open_target(after) as new:
            ranges = ranges_in(old, where)
            with metered(out, "diff") as meter:
                for run in _runs(old, new, ranges, meter):
                    nr += 1
                    _show(out, new, run, full=full)
    except NothingFoundError as error:
        raise click.UsageError(str(error)) from None  # 1 would mean a difference
    except ProcvmError as error:
        code = exit_code(error)
        tell(message_of(error))
        return BAD_USE if code == DIFFERENT else code
    return DIFFERENT if nr else DONE


_STEP = 1 << 25
_MOST_STEPS = 256


def _runs(old: procvm.Snapshot, new: Mapped, ranges: procvm.Maps, meter: Meter) -> Iterator[Run]:
    """Yields the runs that differ, by groups of mappings, and moves the meter after each."""
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
