"""``who`` and ``calls``: what touches an address, and who calls a function, without a stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

import procvm
from procvm import u8, u16, u32, u64
from procvm._base.optional import required
from procvm._terminal.kind import Kind
from procvm._terminal.touches import Touch, Touches, caller_of
from procvm.cli.declare import SECONDS, SIZE_ABOVE_0, address_argument, command, pid_argument
from procvm.cli.exits import DONE, NOTHING
from procvm.cli.kind_param import kind_option
from procvm.cli.output import Output, OutputError, tell
from procvm.cli.target import address_in, open_process, said_of

__all__ = ["calls", "who"]

_PODS = {pod.size: pod for pod in (u8, u16, u32, u64)}

_TICK = 0.25
"""Seconds between two drawings of the table."""

_STACK_LEN = 8192
"""Bytes of a stack from which its calls are unwound."""

_for_option = click.option(
    "--for", "duration", type=SECONDS, metavar="SECONDS", help="Stop after this time."
)


@command(
    "procvm who 1234 g_counter -t u32",
    "procvm who 1234 '*g_player+0x10' -t f32 --reads --for 5",
    "procvm who 1234 g_state -t u8 --stack",
)
@pid_argument
@address_argument
@kind_option("u64")
@click.option("--reads", is_flag=True, help="Show the instructions that read it as well.")
@click.option("--stack", is_flag=True, help="Show the calls that led to each instruction.")
@_for_option
def who(
    out: Output,
    target: str,
    address: str,
    kind: Kind,
    reads: bool,
    stack: bool,
    duration: float | None,
) -> int:
    """Show which instructions write to ADDRESS, how often, and in which threads.

    The process is never stopped: a debug register of the processor tells each access, in all
    threads. TYPE says how many bytes to watch: 1, 2, 4 or 8. Each row has the registers as they
    were after the first hit. Writes by the kernel, as in read(2), are not seen. The command ends
    with Ctrl-C, with the process, or after --for. The exit code is 0 if there was a hit.
    """
    if stack:
        required("drgn", "--stack")
    with open_process(target) as process:
        pod = _PODS.get(kind.of_target(process.address_size).size)
        if pod is None:
            raise click.UsageError(f"{kind.name} is not 1, 2, 4 or 8 bytes: give another --type")
        at = address_in(process, address)
        trace = said_of(
            "ADDRESS",
            lambda: process.trace_accesses(
                at,
                pod,
                "access" if reads else "write",
                registers=True,
                stack_len=_STACK_LEN if stack else 0,
            ),
        )
        with trace:
            touches = Touches(process, with_stack=stack)
            begin = time.monotonic()
            show = _Live(out) if out.is_terminal else None
            try:
                if show is not None:
                    what = "touches" if reads else "writes"
                    tell(f"who {what} {process.describe(at)}; Ctrl-C ends")
                for hits in _hits(process, trace, duration):
                    touches.add(hits)
                    if show is not None:
                        show.draw(_table(out, touches, trace.lost, time.monotonic() - begin))
            finally:
                touches.add(trace.read(0) if process.is_alive() else [])
                seconds, lost = time.monotonic() - begin, trace.lost
                if show is not None:
                    show.close()
                if out.json:
                    out.document(
                        {
                            "pid": process.pid,
                            "address": hex(at),
                            "type": kind.name,
                            "on": "access" if reads else "write",
                            "seconds": round(seconds, 6),
                            "count": touches.count + lost,
                            "lost": lost,
                            "instructions": [_as_json(row) for row in touches.rows()],
                        }
                    )
                else:
                    for line in _table(out, touches, lost, seconds):
                        out.line(line)
        return DONE if touches.count + lost else NOTHING


def _hits(
    process: procvm.Process, trace: procvm.AccessTrace, duration: float | None
) -> Iterator[list[procvm.Access]]:
    """Yields the hits as they come, several times a second, until the end."""
    end = None if duration is None else time.monotonic() + duration
    while True:
        now = time.monotonic()
        if end is not None and now >= end:
            return
        found = trace.read(_TICK if end is None else min(_TICK, end - now))
        yield found
        if not found and not process.is_alive():
            return
        if found:
            time.sleep(_TICK if end is None else max(0.0, min(_TICK, end - time.monotonic())))


def _as_json(row: Touch) -> dict[str, Any]:
    return {
        "instruction": hex(row.address),
        "is_exact": row.is_exact,
        "text": row.text,
        "where": str(row.where),
        "line": row.where.line,
        "count": row.count,
        "threads": sorted(row.threads),
        "registers": {name: hex(value) for name, value in row.registers.items()},
        "stack": row.stack,
    }


def _lines(out: Output, row: Touch) -> list[str]:
    """Returns a row, and below it its registers and its calls."""
    threads = f"{len(row.threads)} thread{'s' * (len(row.threads) != 1)}"
    head = (
        f"{row.count:>9}  {out.style(hex(row.address), 'address')}  "
        f"{out.style(row.place, 'name')}  {row.text}  {threads}"
    )
    named = [f"{name}={value:#x}" for name, value in row.registers.items()]
    rows = [head]
    rows += [
        out.style(f"{'':11}{' '.join(named[k : k + 4])}", "dim")
        for k in range(0, len(named), 4)
        if out.is_terminal
    ]
    return rows + [f"{'':11}{frame}" for frame in row.stack]


def _table(out: Output, touches: Touches, lost: int, seconds: float) -> list[str]:
    """Returns the lines of the table."""
    rows = [line for row in touches.rows() for line in _lines(out, row)]
    total = f"{touches.count + lost} hits in {seconds:.1f} s"
    return [*rows, f"{total}; {lost} of them came too fast to be shown" if lost else total]


class _Live:
    """Draws the table again and again at the same place of a terminal."""

    def __init__(self, out: Output) -> None:
        from rich.console import Console  # noqa: PLC0415 (slow to import)
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        self._text = Text
        console = Console(file=out.stream, no_color=not out.color, highlight=False, markup=False)
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def draw(self, lines: list[str]) -> None:
        """Shows the lines in place of those before."""
        try:
            self._live.update(self._text.from_ansi("\n".join(lines)), refresh=True)
        except OSError as error:
            raise OutputError(error) from None

    def close(self) -> None:
        """Removes the table."""
        self._live.stop()


@command(
    "procvm calls 1234 libc.so.6!malloc --args 1",
    "procvm calls 1234 on_message -n 10",
)
@pid_argument
@click.argument("function", metavar="SYMBOL")
@click.option(
    "--args",
    "nr_args",
    type=click.IntRange(0, 8),
    default=3,
    show_default=True,
    metavar="N",
    help="Show N integer arguments.",
)
@click.option("-n", "--count", type=SIZE_ABOVE_0, metavar="N", help="Stop after N calls.")
@_for_option
def calls(
    out: Output,
    target: str,
    function: str,
    nr_args: int,
    count: int | None,
    duration: float | None,
) -> int:
    """Show each call of the function SYMBOL, with its arguments and its caller.

    The process is never stopped. SYMBOL may be any ADDRESS of an instruction. Arguments are the
    registers in which the calling convention passes integers and pointers; a function with
    fewer parameters leaves anything in the rest. The command ends with Ctrl-C, with the process,
    after N calls or after --for. The exit code is 0 if there was a call.
    """
    nr = 0
    with open_process(target) as process:
        at = address_in(process, function, "SYMBOL")
        name = str(process.describe(at))
        with process.trace_calls(at, stack_len=8) as trace:
            begin = time.monotonic_ns()
            try:
                for hits in _hits(process, trace, duration):
                    for hit in hits if count is None else hits[: count - nr]:
                        nr += 1
                        _show_call(out, process, hit, name, nr_args, (hit.time - begin) / 1e9)
                    if nr == count:
                        break
            finally:
                if trace.lost:
                    tell(f"{trace.lost} calls came too fast and are not shown")
    return DONE if nr else NOTHING


def _show_call(
    out: Output,
    process: procvm.Process,
    hit: procvm.Access,
    name: str,
    nr_args: int,
    seconds: float,
) -> None:
    arguments = hit.arguments
    caller = str(caller_of(process, hit))
    if out.json:
        out.record(
            {
                "seconds": round(seconds, 6),
                "tid": hit.tid,
                "function": name,
                "arguments": [hex(one) for one in arguments],
                "caller": caller,
            }
        )
        return
    shown = ", ".join(hex(one) for one in arguments[:nr_args])
    call = f"{out.style(name, 'name')}({shown})"
    if out.is_terminal:
        out.line(f"{seconds:10.6f}  {hit.tid:>7}  {call}  {out.style(caller, 'dim')}")
    else:
        out.line(f"{seconds:.6f}\t{hit.tid}\t{call}\t{caller}", flush=True)
