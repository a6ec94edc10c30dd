"""Marks, the way back and forward, undo, and the viewer's own hints."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import procvm
from procvm._error_values import WORDINGS as LIBRARY
from procvm.cli.hints import WORDINGS as COMMAND
from procvm.tui.dialogs import LookFor
from procvm.tui.hints import WORDINGS, said_by
from tests.support.playground import PAGE, Playground
from tests.tui.pilot import in_loop, viewing


@pytest.fixture
def target(playground: Playground) -> Iterator[procvm.Process]:
    with procvm.open(playground.pid) as process:
        yield process


@in_loop
async def test_viewer_goes_back_and_forward(playground: Playground, target: procvm.Process) -> None:
    base = playground.layout("rw rw")
    async with viewing(target, base) as view:
        view.app.go(base + 16)
        view.app.go(base + PAGE)
        await view.press("b")
        assert view.hex.cursor == base + 16
        await view.press("F")
        assert view.hex.cursor == base + PAGE
        await view.press("F")
        assert "no later position" in view.app.said
        await view.press("b")
        view.app.go(base + 32)  # another way: the old one is forgotten
        await view.press("F")
        assert view.hex.cursor == base + 32


@in_loop
async def test_mark_stays_and_is_found_again(
    playground: Playground, target: procvm.Process
) -> None:
    base = playground.layout("rw")
    async with viewing(target, base + 8) as view:
        await view.press("m")
        view.app.go(base + 64)
        await view.press("m")
        view.app.go(base)
        view.tick()
        style = view.hex.get_component_rich_style("hexview--mark")
        assert view.hex._style_of(base + 8, 1) == style  # noqa: SLF001 (the color of a cell)
        for expected in (base + 8, base + 64, base + 8):
            await view.press("apostrophe")
            assert view.hex.cursor == expected
        await view.press("m")
        assert view.hex.marks == {base + 64}


@in_loop
async def test_undo_writes_the_old_bytes_back_unless_the_target_changed_them(
    playground: Playground, target: procvm.Process
) -> None:
    base = playground.layout("rw")
    playground.poke(base, b"\1\0\0\0")
    async with viewing(target, base) as view:
        await view.press("u")
        assert "no edit" in view.app.said
        for text in ("2", "3"):
            await view.press("e")
            await view.fill(text)
            await view.press("y")
            await view.until(lambda: "u undoes it" in view.app.said)
            view.app.say("")
        assert playground.peek(base, 4) == b"\3\0\0\0"
        await view.press("u")
        await view.until(lambda: "back" in view.app.said)
        assert playground.peek(base, 4) == b"\2\0\0\0"
        playground.poke(base, b"\7")
        await view.press("u")
        await view.until(lambda: "wrote nothing" in view.app.said)
        assert playground.peek(base, 4) == b"\7\0\0\0"


@in_loop
async def test_search_box_takes_a_text(playground: Playground, target: procvm.Process) -> None:
    base = playground.layout("rw")
    playground.poke(base + 100, b"cafe babe")  # hexadecimal digits as well
    async with viewing(target, base) as view:
        await view.press("slash")
        assert isinstance(view.app.screen, LookFor)
        await view.fill("cafe babe")
        await view.until(lambda: view.hex.cursor == base + 100)


def test_hints_of_the_viewer_name_its_keys() -> None:
    """Every hint has a wording, and none that the command words is left in Python's words."""
    assert set(WORDINGS) == set(LIBRARY)
    for key in COMMAND:
        assert "()" not in WORDINGS[key], key
    error = procvm.PageFaultError(
        "cannot write", hint=procvm.Hint("forced", {}), address=1, errno=14, pid=1
    )
    assert said_by(error).endswith("e can ignore them")
    assert said_by(ValueError("wrong")) == "wrong"
