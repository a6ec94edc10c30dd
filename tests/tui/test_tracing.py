"""The viewer's dialogs of a trace: who writes here, and who calls this function."""

from __future__ import annotations

import os
import re

import pytest
from textual.widgets import Static

import procvm
from procvm import u64
from procvm._linux.perf_event import SLOTS
from tests.process.test_accesses import Touched, pytestmark, touched
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.tui.pilot import View, in_loop, viewing

__all__ = ["pytestmark", "touched"]


def hits(view: View) -> str:
    """Returns what the dialog shows."""
    return str(view.app.screen.query_one("#hits", Static).content)


def counts(view: View) -> dict[str, int]:
    """Returns how often each function has touched the address, as the dialog shows it."""
    found: dict[str, int] = {}
    for count, name in re.findall(r"^ *([\d,]+)  0x\w+ \S+?!(\w+)", hits(view), re.MULTILINE):
        found[name] = found.get(name, 0) + int(count.replace(",", ""))
    return found


def slots(touched: Touched) -> int:
    """Returns how many debug registers the target has left."""
    traces: list[procvm.AccessTrace] = []
    try:
        for _ in range(SLOTS):
            traces.append(touched.process.trace_accesses(touched.word, u64))  # noqa: PERF401 (those made before the error are closed)
    except procvm.UnsupportedError:
        pass
    for trace in traces:
        trace.close()
    return len(traces)


@in_loop
async def test_who_shows_the_functions_that_write_and_their_counts(touched: Touched) -> None:
    async with viewing(touched.process, touched.word) as view:
        await view.press("w")
        await view.until(lambda: "none so far" in hits(view))
        increments, stores, _, reads = touched.work(50)
        await view.until(lambda: counts(view) == {"increment": increments, "store": stores})
        assert "4 bytes, written by" in hits(view)
        assert view.wrong() == ""
        await view.press("r")
        await view.until(lambda: "read or written" in hits(view) and "none so far" in hits(view))
        reads = touched.work(20)[3] - reads
        await view.until(lambda: counts(view).get("load") == reads)
        await view.press("8")
        await view.until(lambda: "8 bytes" in hits(view))
        await view.press("escape")
        await view.until(lambda: slots(touched) == SLOTS)
        assert view.app.said == ""


@in_loop
async def test_who_that_is_refused_says_why(touched: Touched) -> None:
    async with viewing(touched.process, touched.word + 4) as view:
        await view.press("w", "8")
        await view.until(lambda: "multiple of the 8 bytes" in view.wrong())
        await view.press("4")
        await view.until(lambda: not view.wrong() and "none so far" in hits(view))


@in_loop
async def test_calls_shows_arguments_and_callers_of_the_function_at_the_cursor(
    touched: Touched,
) -> None:
    async with viewing(touched.process, touched.process.symbol("called") + 1) as view:
        await view.press("c")
        await view.until(lambda: view.app.screen is not view.app.screen_stack[0])
        await view.until(lambda: "none so far" in hits(view))
        assert touched.ask("call") == "called"
        await view.until(lambda: "(0x1, 0x2, 0x3, 0x4)" in hits(view))
        assert "!main+" in hits(view)
        await view.press("q")
    assert eventually(lambda: slots(touched) == SLOTS)


@in_loop
async def test_calls_outside_of_code_says_so(touched: Touched) -> None:
    async with viewing(touched.process, touched.word) as view:
        await view.press("c")
        await view.until(lambda: "not in code" in view.app.said)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="$rbx is a register of x86-64")
@in_loop
async def test_go_to_takes_a_register_while_the_process_is_held() -> None:
    with Child([compiled("vectors")]) as child, procvm.open(child.pid) as process:
        word = child.hexes()[0]
        async with viewing(process, word + 64) as view:
            await view.press("g")
            await view.fill("$rbx")
            assert "p holds the process" in view.wrong()
            await view.press("escape", "p", "g")
            await view.fill("$rbx")
            assert view.hex.cursor == word
