"""The viewer, driven by Textual's pilot, on a real child."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from textual.widgets import Select

import procvm
from procvm.tui import app as app_module
from procvm.tui.dialogs import Confirm, Dialog, Edit, GoTo, Help, LookFor
from procvm.tui.window import FADING, FRESH
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground
from tests.tui.pilot import in_loop, viewing

if TYPE_CHECKING:
    from textual.screen import Screen


@pytest.fixture
def target(playground: Playground) -> Iterator[procvm.Process]:
    """The playground, opened."""
    with procvm.open(playground.pid) as process:
        yield process


def row_of(address: int, data: bytes) -> str:
    """Returns eight bytes as a person expects to see them."""
    digits = f"{data[:4].hex(' ')}  {data[4:].hex(' ')}"
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in data)
    return f"{address:#014x}  {digits}  {text}".rstrip()


def choose(dialog: Screen[Any], id: str, value: str) -> None:  # noqa: A002
    """Chooses one of several in a dialog."""
    choice: Select[str] = dialog.query_one(f"#{id}", Select)
    choice.value = value


# --- looking


@in_loop
async def test_rows_show_the_bytes_of_the_target(
    playground: Playground, target: procvm.Process
) -> None:
    """At 80 columns each row has eight bytes, their digits and characters."""
    base = playground.layout("rw")
    playground.poke(base, b"hello, you")
    async with viewing(target, base) as view:
        data = playground.peek(base, 8 * view.hex.nr_rows)
        assert view.rows() == [row_of(base + k, data[k : k + 8]) for k in range(0, len(data), 8)]
        assert view.rows()[0].endswith("  hello, y")
        assert view.hex.nr_rows == 13


@in_loop
async def test_a_wide_screen_has_rows_of_sixteen(
    playground: Playground, target: procvm.Process
) -> None:
    """Where there is room for it a row has sixteen bytes, and regions their addresses."""
    base = playground.layout("rw")
    async with viewing(target, base, size=(130, 40)) as view:
        data = playground.peek(base, 16)
        assert view.hex.row_len == 16
        assert view.rows()[0].startswith(
            f"{base:#014x}  {data[:8].hex(' ')}  {data[8:].hex(' ')}  "
        )
        assert view.regions.render_line(0).text.startswith(f"{target.maps()[0].start:#014x} r--p")


@in_loop
async def test_any_size_of_a_terminal_will_do(
    playground: Playground, target: procvm.Process
) -> None:
    """The cursor is on the screen and so are the rows, however often the size changes."""
    base = playground.layout("rw")
    async with viewing(target, base + 8) as view:
        for width, height, row_len in ((40, 10, 8), (111, 30, 8), (112, 30, 16), (200, 60, 16)):
            await view.pilot.resize_terminal(width, height)
            await view.pilot.pause()
            await view.press("down", "pagedown", "pageup", "question_mark", "escape")
            hex_view = view.hex
            assert hex_view.row_len == row_len
            assert 0 <= hex_view.cursor - hex_view.top < hex_view.nr_rows * row_len
            assert hex_view.window.start == hex_view.top
            assert hex_view.window.end >= hex_view.top + hex_view.nr_rows * row_len


@in_loop
async def test_what_can_not_be_read_is_shown_as_that(
    playground: Playground, target: procvm.Process
) -> None:
    """Bytes of a page without rights, and of nothing, are ?? from the first on to the last."""
    base = playground.layout("rw none rw")
    async with viewing(target, base + PAGE - 8) as view:
        rows = view.rows()
        assert rows[0] == row_of(base + PAGE - 8, playground.peek(base + PAGE - 8, 8))
        unknown = "  ?? ?? ?? ??  ?? ?? ?? ??  ????????"
        assert rows[1:] == [f"{base + PAGE + 8 * k:#014x}{unknown}" for k in range(12)]
        view.app.go(base + 2 * PAGE)
        await view.pilot.pause()
        first = view.rows().index(row_of(base + 2 * PAGE, playground.peek(base + 2 * PAGE, 8)))
        assert view.rows()[first - 1].endswith(unknown)


@in_loop
async def test_what_changed_is_marked_and_fades(
    playground: Playground, target: procvm.Process
) -> None:
    """Just the bytes that are other than at the last look are marked, and fade after it."""
    base = playground.layout("rw")
    async with viewing(target, base) as view:
        view.tick()
        assert not any(view.hex.changes.of(base + k) for k in range(64))
        playground.poke(base + 10, b"\0\0")
        view.tick()
        assert [k for k in range(64) if view.hex.changes.of(base + k)] == [10, 11]
        assert view.hex.changes.of(base + 10) == FRESH
        strip = view.hex.render_line(1)
        style = next(segment.style for segment in strip if segment.text == "00")
        assert style == view.hex.get_component_rich_style("hexview--fresh")
        view.tick()
        assert view.hex.changes.of(base + 10) == FADING
        for _ in range(7):
            view.tick()
        assert view.hex.changes.of(base + 10) == 0


@in_loop
async def test_a_page_that_goes_is_a_change(playground: Playground, target: procvm.Process) -> None:
    """Bytes that can not be read any more are marked, and no old value is shown."""
    base = playground.layout("rw")
    async with viewing(target, base) as view:
        playground.protect(base, PAGE, "none")
        view.tick()
        assert view.rows()[0] == f"{base:#014x}  ?? ?? ?? ??  ?? ?? ?? ??  ????????"
        assert view.hex.changes.of(base) == FRESH


@in_loop
async def test_moving_marks_nothing_and_hides_no_change(
    playground: Playground, target: procvm.Process
) -> None:
    """Other rows are no change; what changed before a move is marked at the next tick."""
    base = playground.layout("rw")
    async with viewing(target, base) as view:
        await view.press("pagedown")
        shown = range(view.hex.top, view.hex.top + 104)
        assert base not in shown
        assert not any(map(view.hex.changes.of, shown))
        address = view.hex.cursor
        playground.poke(address, b"\0")
        await view.press("down")
        assert view.hex.window.byte(address) == 0
        view.tick()
        assert [a for a in shown if view.hex.changes.of(a)] == [address]


@in_loop
async def test_a_tick_reads_what_is_on_the_screen_in_one_go(
    playground: Playground, target: procvm.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing beside the rows, and a little behind the cursor for its text, is read."""
    base = playground.layout("rw rw")
    asked: list[tuple[int, int]] = []
    read = procvm.VmSpace.read_into

    def spy(space: procvm.VmSpace, offset: int, buf: memoryview) -> None:
        asked.append((offset, len(buf)))
        read(space, offset, buf)

    async with viewing(target, base) as view:
        await view.press("pagedown")
        monkeypatch.setattr(procvm.VmSpace, "read_into", spy)
        view.tick()
        monkeypatch.undo()
        assert asked == [(view.hex.top, view.hex.cursor + 256 - view.hex.top)]
        assert view.hex.nr_rows * 8 < asked[0][1] < view.hex.nr_rows * 8 + 256


@in_loop
async def test_the_viewer_ticks_by_itself(playground: Playground, target: procvm.Process) -> None:
    """A counter that a thread of the target counts up is seen to change."""
    base = playground.layout("rw")
    playground.spin(base)
    async with viewing(target, base, tick=0.01) as view:
        first = view.hex.window.run(base, 8)
        await view.until(lambda: view.hex.window.run(base, 8) != first)
        await view.until(lambda: view.hex.changes.of(base))


@in_loop
async def test_the_end_of_the_target_is_told_and_nothing_is_asked_any_more(
    playground: Playground, target: procvm.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there last stays on the screen, and no key does harm."""
    base = playground.layout("rw")
    async with viewing(target, base) as view:
        rows = view.rows()
        playground.popen.kill()
        playground.popen.wait()
        view.tick()
        assert view.title == (
            f"{playground.pid} playground  ENDED: process {playground.pid} has ended"
        )
        assert view.rows() == rows
        monkeypatch.setattr(app_module, "read_window", None)  # whoever calls it fails
        view.tick()
        await view.press("e", "g", "slash", "p", "r", "n", "enter", "down", "backspace")
        assert not isinstance(view.app.screen, Dialog)
        assert view.app.ended


# --- values


@in_loop
async def test_the_inspector_has_every_type(playground: Playground, target: procvm.Process) -> None:
    """Each value is that of the bytes under the cursor."""
    base = playground.layout("rw")
    data = struct.pack("d", -1234.5) + b"Text\0"
    playground.poke(base + 3, data)
    async with viewing(target, base + 3) as view:
        (number,) = struct.unpack("<q", data[:8])
        text = data.partition(b"\0")[0]
        assert view.values() == {
            "u8": str(data[0]),
            "i8": str(struct.unpack("b", data[:1])[0]),
            "u16": str(struct.unpack("<H", data[:2])[0]),
            "i16": str(struct.unpack("<h", data[:2])[0]),
            "u32": str(struct.unpack("<I", data[:4])[0]),
            "i32": str(struct.unpack("<i", data[:4])[0]),
            "u64": str(number % 2**64),
            "i64": str(number),
            "f32": str(struct.unpack("<f", data[:4])[0]),
            "f64": "-1234.5",
            "bin": "00000000",
            "chr": "'\\x00'",
            "ptr": hex(number % 2**64),
            "str": f'"{text.decode()}"',
        }
        await view.press("end")
        assert view.hex.cursor % 8 == 7


@in_loop
async def test_a_text_and_the_edge_of_what_can_be_read(
    playground: Playground, target: procvm.Process
) -> None:
    """A string is shown up to its NUL or as far as it can be read; a number not in part."""
    base = playground.layout("rw hole")
    end = base + PAGE
    playground.poke(end - 12, b"[red]ok\0\x1b[2J")
    async with viewing(target, end - 12) as view:
        assert view.values()["str"] == '"[red]ok"'
        view.app.go(end - 4)
        await view.pilot.pause()
        values = view.values()
        assert values["str"] == '"\\x1b[2J"…'
        assert values["u32"] == str(int.from_bytes(b"\x1b[2J", "little"))
        assert (values["u64"], values["f64"], values["ptr"]) == ("?", "?", "?")
        view.app.go(end)
        await view.pilot.pause()
        assert set(view.values().values()) == {"?"}


# --- going about


@in_loop
async def test_the_keys_that_move(playground: Playground, target: procvm.Process) -> None:
    """Each moves the cursor by what it says, and the cursor stays on the screen."""
    base = playground.layout("rw")
    async with viewing(target, base) as view:
        for key, by in (
            ("right", 1),
            ("down", 9),
            ("end", 15),
            ("home", 8),
            ("left", 7),
            ("up", -1),
            ("pagedown", 95),
            ("pageup", -1),
        ):
            await view.press(key)
            assert view.hex.cursor - base == by, key
            assert view.hex.top <= view.hex.cursor < view.hex.top + 104


@in_loop
async def test_a_pointer_is_followed_and_come_back_from(
    playground: Playground, target: procvm.Process
) -> None:
    """Enter goes where the bytes point to, Backspace back, as often as it went."""
    base = playground.layout("rw rw")
    playground.poke(base + 8, (base + PAGE + 16).to_bytes(8, "little"))
    playground.poke(base + PAGE + 16, base.to_bytes(8, "little"))
    playground.poke(base, (16).to_bytes(8, "little"))
    async with viewing(target, base + 8) as view:
        assert view.values()["ptr"].startswith(f"{base + PAGE + 16:#x} → (anonymous)+")
        seen = []
        for key in ("enter", "enter", "enter", "backspace", "backspace", "backspace"):
            await view.press(key)
            seen.append(view.hex.cursor - base)
            if key == "enter":
                said = view.app.said
        assert seen == [PAGE + 16, 0, 0, PAGE + 16, 8, 8]
        assert said == "cannot follow 0x10: the address is not mapped"
        assert view.app.said == "there is no earlier position"


@in_loop
async def test_an_address_is_gone_to(playground: Playground, target: procvm.Process) -> None:
    """It may be a number, a region, a symbol; what it is not is told in the dialog."""
    base = playground.layout("rw")
    async with viewing(target, base) as view:
        heap = target.maps().filter(kind=procvm.Kind.HEAP)[0]
        for text, address in (
            ("[heap]+8", heap.start + 8),
            (hex(base + 5), base + 5),
            ("libc.so.6!environ", target.symbol("libc.so.6!environ")),
        ):
            await view.press("g")
            await view.fill(text)
            await view.until(lambda wanted=address: view.hex.cursor == wanted)
        environ = target.symbol("libc.so.6!environ")
        await view.until(lambda: "libc.so.6!" in str(view.inspector.border_title))
        assert f"{environ:#x}  libc.so.6!" in str(view.inspector.border_title)
        await view.press("g")
        await view.fill("no_such_thing")
        assert isinstance(view.app.screen, GoTo)
        assert "nothing is called 'no_such_thing'" in view.wrong()
        await view.press("escape")
        assert len(view.app.screen_stack) == 1
        assert view.hex.cursor == environ


@in_loop
async def test_regions_are_listed_and_chosen(
    playground: Playground, target: procvm.Process
) -> None:
    """The list has all of them; Enter shows one, and the keys [ and ] the neighbours."""
    base = playground.layout("rw r none")
    async with viewing(target, base + 8) as view:
        maps = target.maps()
        at = next(k for k, vma in enumerate(maps) if base in vma)
        assert len(view.regions.maps) == len(maps)
        assert view.regions.here == at
        assert view.regions.render_line(at - view.regions.scroll_offset.y).text.startswith(
            "rw-p    4K (anonymous)"
        )
        await view.press("right_square_bracket")
        assert view.hex.cursor == base + PAGE
        await view.press("left_square_bracket", "left_square_bracket")
        assert view.hex.cursor == maps[at - 1].start
        await view.press("shift+tab", "home", "down", "enter")
        assert view.hex.cursor == maps[1].start
        assert view.hex.has_focus


@in_loop
async def test_the_list_of_regions_follows_the_target(
    playground: Playground, target: procvm.Process
) -> None:
    """A mapping that comes is there after r, and by itself after a while."""
    async with viewing(target) as view:
        base = playground.layout("rw")
        await view.press("r")
        assert view.regions.maps.find(base) is not None
        playground.unmap(base, PAGE)
        view.app._regions_at = 0  # the while is over  # noqa: SLF001 (the time of the last look)
        view.tick()
        assert view.regions.maps.find(base) is None
        assert view.hex.cursor == target.maps().filter(kind=procvm.Kind.HEAP)[0].start


@in_loop
async def test_the_mouse_puts_the_cursor(playground: Playground, target: procvm.Process) -> None:
    """A click on digits or on a character goes to that byte."""
    base = playground.layout("rw")
    async with viewing(target, base) as view:
        for x, k in ((17, 0), (20, 1), (26, 3), (30, 4), (39, 7), (43, 0), (50, 7)):
            await view.pilot.click("HexView", offset=(x, 3))
            assert view.hex.cursor == base + 16 + k, x


@in_loop
async def test_the_last_addresses_there_are(target: procvm.Process) -> None:
    """The end of the address space is an end, and shown as what can not be read."""
    last = 2**64 - 1
    async with viewing(target, last) as view:
        assert view.rows()[-1] == f"{last - 7:#x}  ?? ?? ?? ??  ?? ?? ?? ??  ????"
        await view.press("right", "down", "pagedown")
        assert view.hex.cursor == last


# --- search


@in_loop
async def test_what_is_searched_for_is_found_one_after_the_other(
    playground: Playground, target: procvm.Process
) -> None:
    """The first behind the cursor comes first; n and N go on, around the ends."""
    base = playground.layout("rw rw hole rw")
    hits = [base + 0x10, base + PAGE - 4, base + 3 * PAGE]
    for hit in hits:
        playground.poke(hit, b"needle\xff7")
    async with viewing(target, base + 0x11) as view:
        await view.press("slash")
        choose(view.app.screen, "kind", "bytes")
        await view.fill("6e 65 65 64 6c 65 ff 3?")
        await view.until(lambda: view.hex.cursor == hits[1])
        await view.until(lambda: view.app.hunt.is_done)
        assert view.app.hunt.hits() == hits
        assert view.hex.hit == range(hits[1], hits[1] + 8)
        seen = []
        for key in ("n", "n", "N", "N", "N"):
            await view.press(key)
            seen.append(hits.index(view.hex.cursor))
        assert seen == [2, 0, 2, 1, 0]
        assert view.app.said == "6e 65 65 64 6c 65 ff 3?: hit 1 of 3"


@in_loop
async def test_values_of_types_are_searched_for(
    playground: Playground, target: procvm.Process
) -> None:
    """A text, a number, a range of numbers and an address are found where they stand."""
    base = playground.layout("rw")
    asked = (
        ("text", "[b]grüß", "[b]grüß".encode()),
        ("u32", "3735928559", b"\xef\xbe\xad\xde"),
        ("i64", "-4242424242..-4242424240", struct.pack("<q", -4242424241)),
        ("f64", "2.718281", struct.pack("<d", 2.718281)),
        ("ptr", "0x123456789abcd", struct.pack("<Q", 0x123456789ABCD)),
    )
    async with viewing(target, base) as view:
        for k, (kind, text, data) in enumerate(asked, 1):
            place = base + 0x100 * k
            playground.poke(place, data)
            await view.press("slash")
            choose(view.app.screen, "kind", kind)
            await view.fill(text)
            await view.until(lambda wanted=place: view.hex.cursor == wanted)
            assert view.hex.hit == range(place, place + len(data))


@in_loop
async def test_a_search_that_can_not_be_and_one_that_finds_nothing(
    playground: Playground, target: procvm.Process
) -> None:
    """What is wrong with it is told in the dialog; that nothing is there in the message."""
    base = playground.layout("rw")
    async with viewing(target, base) as view:
        await view.press("n")
        assert view.app.said == "there was no search yet; / starts one"
        await view.press("slash")
        choose(view.app.screen, "kind", "bytes")
        for text in ("", "xyz", "?? ??"):
            await view.fill(text)
            assert isinstance(view.app.screen, LookFor)
            assert view.wrong()
            view.app.screen.say("")
        choose(view.app.screen, "kind", "u8")
        await view.fill("256")
        assert "256" in view.wrong()
        view.app.screen.say("")
        choose(view.app.screen, "kind", "text")
        # Made here: the text itself is in no memory of the target.
        await view.fill("".join(reversed("ereht si sdrow hcus oN")))
        await view.until(lambda: "was not found in readable memory" in view.app.said)
        assert view.hex.cursor == base


# --- changing it


@in_loop
async def test_a_value_is_written_after_it_was_confirmed(
    playground: Playground, target: procvm.Process
) -> None:
    """Old and new are shown; n leaves it as it is, and y writes these bytes and no others."""
    base = playground.layout("rw")
    playground.poke(base + 4, struct.pack("<I", 1000))
    around = playground.peek(base, 4), playground.peek(base + 8, 8)
    async with viewing(target, base + 4) as view:
        await view.press("e")
        await view.fill("0x7d0")
        assert isinstance(view.app.screen, Confirm)
        text = "\n".join(view.screen())
        assert "old  e8 03 00 00   = 1000" in text
        assert "new  d0 07 00 00   = 2000" in text
        await view.press("n")
        assert isinstance(view.app.screen, Edit)
        assert playground.peek(base + 4, 4) == struct.pack("<I", 1000)
        await view.press("enter")
        await view.until(lambda: isinstance(view.app.screen, Confirm))
        await view.press("y")
        await view.until(lambda: not isinstance(view.app.screen, Dialog))
        assert playground.peek(base + 4, 4) == struct.pack("<I", 2000)
        assert (playground.peek(base, 4), playground.peek(base + 8, 8)) == around
        assert view.values()["u32"] == "2000"
        assert view.app.said.startswith(f"wrote 4 bytes at {base + 4:#x}")


@in_loop
async def test_what_the_page_does_not_allow_is_written_only_if_forced(
    playground: Playground, target: procvm.Process
) -> None:
    """A read-only page refuses, and says so; forced, it is written."""
    base = playground.layout("r")
    old = playground.peek(base, 2)
    async with viewing(target, base) as view:
        await view.press("e")
        dialog = view.app.screen
        choose(dialog, "kind", "u16")
        await view.fill("7")
        await view.press("y")
        await view.until(lambda: view.app.screen is dialog and view.wrong())
        assert hex(base) in view.wrong()
        assert playground.peek(base, 2) == old
        choose(dialog, "force", "ignore page protections (forced)")
        await view.press("enter")
        await view.until(lambda: isinstance(view.app.screen, Confirm))
        assert "Page protections are ignored." in "\n".join(view.screen())
        await view.press("y")
        await view.until(lambda: not isinstance(view.app.screen, Dialog))
        assert playground.peek(base, 2) == b"\7\0"


@in_loop
async def test_what_changed_meanwhile_is_not_written_over(
    playground: Playground, target: procvm.Process
) -> None:
    """What was confirmed is a change of what was shown, and of nothing else."""
    base = playground.layout("rw")
    playground.poke(base, b"\5\0\0\0")
    async with viewing(target, base) as view:
        await view.press("e")
        await view.fill("6")
        playground.poke(base, b"\x09")
        await view.press("y")
        await view.until(lambda: isinstance(view.app.screen, Edit) and view.wrong())
        assert f"wrote nothing at {base:#x}: the bytes are 09 00 00 00   = 9" in view.wrong()
        assert playground.peek(base, 1) == b"\x09"


@in_loop
async def test_bad_values_are_told_in_the_dialog(
    playground: Playground, target: procvm.Process
) -> None:
    """A number that does not fit, and what is none, are refused before anything is asked."""
    base = playground.layout("rw")
    async with viewing(target, base) as view:
        await view.press("e")
        for text in ("4294967296", "many", ""):
            view.app.screen.say("")
            await view.fill(text)
            assert isinstance(view.app.screen, Edit)
            assert view.wrong()
        await view.press("escape")
        assert not isinstance(view.app.screen, Dialog)


# --- holding it still


def counts(process: procvm.Process, address: int) -> bool:
    """Returns whether a thread of the target counts a word up."""
    first = process.vm.read_val(address, procvm.u64)
    return eventually(lambda: process.vm.read_val(address, procvm.u64) != first)


def stands(process: procvm.Process, address: int) -> bool:
    """Returns whether a word stays as it is for many reads."""
    first = process.vm.read_val(address, procvm.u64)
    return all(process.vm.read_val(address, procvm.u64) == first for _ in range(20_000))


@in_loop
async def test_the_target_is_held_and_runs_on(
    playground: Playground, target: procvm.Process
) -> None:
    """The key p stops every thread, or lets them run on; the first line tells how long."""
    base = playground.layout("rw")
    playground.spin(base)
    async with viewing(target, base) as view:
        assert view.title == f"{playground.pid} playground  running"
        await view.press("p")
        assert view.title == (f"{playground.pid} playground  HELD  60 s left of 60 s  (p resumes)")
        assert stands(target, base)
        view.tick()
        assert view.app.pause.is_held
        await view.press("p")
        assert view.title == f"{playground.pid} playground  running"
        assert counts(target, base)
        await view.press("p", "p", "p")
        assert stands(target, base)
    assert counts(target, base)


@in_loop
async def test_a_hold_whose_time_is_over_is_told(
    playground: Playground, target: procvm.Process
) -> None:
    """The target runs on by itself, and the first line says so."""
    base = playground.layout("rw")
    playground.spin(base)
    async with viewing(target, base, longest_hold=0.05) as view:
        await view.press("p")
        assert counts(target, base)
        view.tick()
        assert view.title == f"{playground.pid} playground  running"
        assert "after 0.05 s, its longest time" in view.app.said


_TRACER = """
import sys, procvm
with procvm.attach(int(sys.argv[1])) as tracee, tracee.stopped():
    print("held", flush=True)
    sys.stdin.read()
"""


@in_loop
async def test_one_that_somebody_else_traces_is_told(
    playground: Playground, target: procvm.Process
) -> None:
    """The message names the tracer, the viewer goes on, and it can be held once that is gone."""
    base = playground.layout("rw")
    other = subprocess.Popen(
        [sys.executable, "-c", _TRACER, str(playground.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        async with viewing(target, base) as view:
            await view.press("p")
            assert not view.app.pause.is_held
            assert "is traced by" in view.app.said
            view.tick()
            assert view.title == f"{playground.pid} playground  running"
            other.communicate()
            await view.press("p")
            assert view.app.pause.is_held


@in_loop
async def test_the_end_of_a_target_that_is_held(
    playground: Playground, target: procvm.Process
) -> None:
    """It can be killed while it is held, and that is told as any end is."""
    async with viewing(target) as view:
        await view.press("p")
        playground.popen.kill()
        playground.popen.wait()
        view.tick()
        assert "ENDED: process" in view.title
        assert not view.app.pause.is_held


# --- what the target puts in the way


@in_loop
async def test_names_of_the_target_are_shown_and_do_nothing(
    playground: Playground, target: procvm.Process
) -> None:
    """Neither markup nor escape sequences of a name or of memory are obeyed."""
    name = b"[red]a[b]\x1b[2J\n[@click=app.quit]"
    base = playground.map_memfd(name, PAGE)
    playground.set_comm(b"[/b]\x1b]0;x\x07")
    playground.poke(base, b"[blink]\x1b[31m\0")
    async with viewing(target, base, size=(150, 40)) as view:
        assert view.title == f"{playground.pid} [/b]\\x1b]0;x\\x07  running"
        await view.until(lambda: "memfd:" in str(view.inspector.border_title))
        lines = "\n".join(view.screen())
        assert "memfd:[red]a[b]\\x1b[2J\\x0a[@click=app.quit]" in lines
        assert '"[blink]\\x1b[31m"' in lines
        assert all(line.isprintable() for line in view.screen())
        await view.press("e")
        assert "[red]a[b]\\x1b[2J" in "\n".join(view.screen())


# --- around it


@in_loop
async def test_help_tells_every_key(target: procvm.Process) -> None:
    """It fits on 80 columns and 24 rows, and Escape closes it."""
    async with viewing(target) as view:
        for key in ("question_mark", "f1"):
            await view.press(key)
            assert isinstance(view.app.screen, Help)
            text = "\n".join(view.screen())
            for words in ("follow the pointer", "search for bytes", "hold the process", "ends."):
                assert words in text
            await view.press("escape")
            assert not isinstance(view.app.screen, Help)


@in_loop
@pytest.mark.parametrize("keys", [("q",), ("p", "e", "ctrl+c")])
async def test_it_can_be_left_from_anywhere(
    playground: Playground, target: procvm.Process, keys: tuple[str, ...]
) -> None:
    """Ctrl-C leaves a dialog and all, and the target runs on."""
    base = playground.layout("rw")
    playground.spin(base)
    async with viewing(target, base) as view:
        await view.press(*keys)
        assert view.app.return_code == 0
    assert counts(target, base)
