"""What the viewer is made of: what it reads, what changed, what was found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import procvm
from procvm.tui.hunt import Hunt
from procvm.tui.window import FADING, FRESH, Changes, Window, read_window
from tests.support.playground import PAGE, Playground


@pytest.fixture
def target(playground: Playground) -> Iterator[procvm.Process]:
    """The playground, opened."""
    with procvm.open(playground.pid) as process:
        yield process


def test_a_window_has_what_can_be_read_and_tells_the_rest(
    playground: Playground, target: procvm.Process
) -> None:
    """Bytes behind a page that can not be read are there, each at its place."""
    base = playground.layout("rw none r hole xo rw")
    window = read_window(target.vm, base + 10, 6 * PAGE)
    for k, kind in enumerate(["rw", "none", "r", "hole", "xo", "rw", "none"]):
        start, end = max(base + k * PAGE, base + 10), min(base + (k + 1) * PAGE, window.end)
        readable = kind in ("rw", "r")
        known = window.known[start - window.start : end - window.start]
        assert known == (b"\1" if readable else b"\0") * (end - start), kind
        data = window.data[start - window.start : end - window.start]
        assert data == (playground.peek(start, end - start) if readable else bytes(end - start))
    assert window.byte(base + PAGE - 1) == playground.peek(base + PAGE - 1, 1)[0]
    assert window.byte(base + PAGE) is None
    assert window.byte(base + 9) is None
    assert window.run(base + PAGE - 3, 8) == playground.peek(base + PAGE - 3, 3)
    assert window.run(base + 2 * PAGE, 4) == playground.peek(base + 2 * PAGE, 4)
    assert window.run(base + PAGE, 4) == b""


def test_a_window_may_lie_across_the_end_of_user_space(target: procvm.Process) -> None:
    """What is behind it can not be read."""
    window = read_window(target.vm, target.vm.end - 8, 16)
    assert window.known == bytes(16)
    assert read_window(target.vm, 2**64 - 8, 8).known == bytes(8)


def test_changes_are_told_by_address() -> None:
    """Only what both looks saw is compared, wherever the window lies."""

    def window(start: int, data: bytes, known: bytes | None = None) -> Window:
        return Window(start, data, known or b"\1" * len(data))

    changes = Changes()
    changes.look(window(100, b"abcd"))
    assert [changes.of(a) for a in range(99, 106)] == [0] * 7
    changes.look(window(102, b"cXef"))
    assert [changes.of(a) for a in range(99, 106)] == [0, 0, 0, 0, FRESH, 0, 0]
    changes.moved(window(103, b"Yefg"))  # seen changed by a move: told at the next look
    assert [changes.of(a) for a in range(102, 106)] == [0, FRESH, 0, 0]
    changes.look(window(103, b"Yefg", b"\1\1\1\0"))
    assert [changes.of(a) for a in range(102, 107)] == [0, FRESH, 0, 0, FRESH]
    changes.look(window(103, b"Yefg", b"\1\1\1\0"))
    assert [changes.of(a) for a in range(102, 107)] == [0, FADING, 0, 0, FADING]


def test_a_hunt_goes_from_where_it_began_and_around(
    playground: Playground, target: procvm.Process
) -> None:
    """A place across the beginning is found once, and the nearest is the first behind it."""
    base = playground.layout("rw rw")
    places = [base, base + 0x7FC, base + 0x800 + 7, base + PAGE - 2, base + 2 * PAGE - 5]
    for place in places:
        playground.poke(place, b"\xfehunt")
    for start, nearest in (
        (base, 0),
        (base + 1, 1),
        (base + 0x7FE, 2),
        (base + 0x800 + 7, 2),
        (base + 2 * PAGE - 4, 0),
    ):
        hunt = Hunt(target.vm, "hunt", {"what": b"\xfehunt"}, start)
        hunt.run()
        assert hunt.hits() == places
        assert hunt.nearest() == places[nearest]
        assert (hunt.is_done, hunt.percent, hunt.length) == (True, 100, 5)
        assert [hunt.number(place) for place in places] == [1, 2, 3, 4, 5]
    assert hunt.next(places[4], 1) == places[0]
    assert hunt.next(places[0], -1) == places[4]
    assert hunt.next(places[1] + 1, -1) == places[1]
    assert hunt.next(places[1] + 1, 1) == places[2]


def test_a_hunt_for_too_much_stops_and_one_that_is_given_up_too(
    playground: Playground, target: procvm.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the first of them, and says that there are more."""
    base = playground.layout("rw")
    playground.poke(base, b"\xfe\xfd" * 100)
    monkeypatch.setattr("procvm.tui.hunt._MOST", 10)
    hunt = Hunt(target.vm, "pairs", {"what": b"\xfe\xfd\xfe\xfd"}, base + 4)
    hunt.run()
    assert (hunt.is_cut, hunt.is_done) == (True, True)
    assert hunt.hits() == [base + 4 + 2 * k for k in range(10)]
    hunt = Hunt(target.vm, "pairs", {"what": b"\xfe\xfd\xfe\xfd"}, base)
    hunt.give_up()
    hunt.run()
    assert hunt.is_done
    assert hunt.found <= 1


def test_a_hunt_in_a_process_that_ends_tells_that(
    playground: Playground, target: procvm.Process
) -> None:
    """The error is kept for the one who looks."""
    hunt = Hunt(target.vm, "any", {"what": b"any"}, 0)
    playground.popen.kill()
    playground.popen.wait()
    hunt.run()
    assert isinstance(hunt.error, procvm.ProcessExitedError)
    assert hunt.is_done
