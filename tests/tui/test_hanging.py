"""The viewer over a page that never comes: nothing waits for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import procvm
from procvm.tui.dialogs import GoTo, LookFor
from tests.faults.subjects import needs
from tests.support.child import Child
from tests.support.hanging import hanging
from tests.support.playground import PAGE, Playground
from tests.tui.pilot import in_loop, viewing
from tests.tui.test_terminal import Terminal

pytestmark = needs("umount")

AWAITED = "  .. .. .. ..  .. .. .. ..  ........"


class Hung(NamedTuple):
    """A process with a mapping of which no page ever comes, and another one."""

    playground: Playground
    server: Child
    address: int
    rest: int


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Hung]:
    """Maps two pages of a file that is never read."""
    with Playground() as playground, hanging(tmp_path) as server:
        rest = playground.layout("rw")
        address = playground.map_file(os.fsencode(tmp_path / "file"), 2 * PAGE)
        yield Hung(playground, server, address, rest)


@in_loop
async def test_page_that_never_comes_is_shown_as_such_and_the_keys_work(hung: Hung) -> None:
    with procvm.open(hung.playground.pid) as process:
        async with viewing(process, hung.address + PAGE - 16, patience=0.01) as view:
            base = hung.address + PAGE - 16
            assert view.rows() == [f"{base + 8 * k:#014x}{AWAITED}" for k in range(13)]
            assert "has not come yet" in str(view.hex.border_title)
            assert view.values()["u64"] == "?"
            view.tick()
            await view.press("down")
            assert view.hex.cursor == base + 8
            view.app.go(hung.rest)
            await view.until(lambda: view.hex.window.run(hung.rest, 8) != b"")
            assert view.hex.window.run(hung.rest, 8) == hung.playground.peek(hung.rest, 8)
            await view.press("backspace")
            assert view.hex.cursor == base + 8
            assert not any(view.hex.changes.of(base + k) for k in range(64))


@in_loop
async def test_few_threads_wait_for_a_page_that_never_comes(hung: Hung) -> None:
    """As many after a hundred ticks as after one."""
    with procvm.open(hung.playground.pid) as process:
        async with viewing(process, hung.address, patience=0.01) as view:
            view.tick()
            before = len(os.listdir("/proc/self/task"))
            for _ in range(100):
                view.tick()
            assert len(os.listdir("/proc/self/task")) <= before + 2  # reads of the regions


@in_loop
async def test_page_that_comes_late_is_shown(hung: Hung) -> None:
    """Here it comes as one that cannot be read: its server has ended."""
    with procvm.open(hung.playground.pid) as process:
        async with viewing(process, hung.address, patience=0.01) as view:
            assert view.rows()[0].endswith(AWAITED)
            os.kill(hung.server.pid, signal.SIGKILL)
            await view.until(lambda: "??" in view.rows()[0])
            assert view.rows()[0].endswith("  ?? ?? ?? ??  ?? ?? ?? ??  ????????")


@in_loop
async def test_edit_search_and_address_of_a_page_that_never_comes_can_be_left(hung: Hung) -> None:
    with procvm.open(hung.playground.pid) as process:
        async with viewing(process, hung.address, patience=0.01) as view:
            await view.press("e")
            assert view.app.said == f"cannot edit {hung.address:#x}: its page has not come yet"
            await view.press("g")
            assert isinstance(view.app.screen, GoTo)
            await view.press(*f"*{hung.address:#x}", "enter", "escape")
            await view.until(lambda: len(view.app.screen_stack) == 1)
            await view.press("slash")
            assert isinstance(view.app.screen, LookFor)
            await view.press(*"a text that is nowhere", "enter")
            await view.until(lambda: view.app.hunt is not None)
            await view.until(lambda: len(view.app.screen_stack) == 1)
            await view.press("escape")
            assert view.app.said == "cancelled the search for a text that is nowhere"
            hunt = view.app.hunt
            assert hunt is not None
            assert not hunt.is_done
            assert hung.server.popen.poll() is None


def test_viewer_of_a_page_that_never_comes_is_left_by_q(hung: Hung) -> None:
    terminal = Terminal(hung.playground.pid, hung.address)
    try:
        terminal.until(b"has not come yet")
        terminal.type(b"q")
        terminal.until(b"ended well")
        assert terminal.popen.wait() == 0
    finally:
        terminal.close()
