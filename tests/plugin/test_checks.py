"""What a test says of memory: that it stays, that it becomes, and patches that are undone."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator

import pytest

import procvm
from procvm._base.address import PAGE_SIZE
from procvm.testing import (
    Patches,
    Playground,
    Playgrounds,
    Spawner,
    assert_unchanged,
    pattern,
    wait_until,
)


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint32), ("y", ctypes.c_double)]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playgrounds]:
    with Spawner(tmp_path_factory.mktemp("programs")) as spawner:
        yield Playgrounds(spawner)


@pytest.fixture(scope="module", params=[True, False], ids=["traced", "not traced"])
def playground(make: Playgrounds, request: pytest.FixtureRequest) -> Playground:
    return make("rw*4 r none file", counters=1, traced=request.param)


def test_memory_that_stays_passes(playground: Playground) -> None:
    """A mapping, a page, a pair, a range object and a list of them are regions."""
    process, base = playground.process, playground.base
    vma = process.find_vma(playground["file"])
    assert vma is not None
    pages = playground.pages
    ranges = [(base, base + 8), (base + 64, base + 72)]
    for region in (vma, pages[0], (base, base + 16), range(base, base + 9), ranges, pages[:2]):
        with assert_unchanged(process, region):
            playground.poke(base + 20 * 1024 - 4096 * 2, b"elsewhere")


def test_memory_that_changes_fails_with_what_changed(playground: Playground) -> None:
    """The message has each run, as it was and as it is, in hex and in printable characters."""
    process, base = playground.process, playground.base
    playground.poke(base, bytes(64))
    with (  # noqa: PT012 (what is done inside is what fails the outside)
        pytest.raises(AssertionError) as caught,
        assert_unchanged(process, (base, base + PAGE_SIZE)),
    ):
        playground.poke(base + 5, b"\x1b[2J")
        playground.poke(base + 32, b"ABC")
    lines = str(caught.value).splitlines()
    assert lines == [
        f"memory of process {process.pid} changed: 7 bytes in 2 places",
        f"{base + 5:#x}: 4 bytes",
        f"  was {base:#018x}                 00 00 00  00                       |     ....|",
        f"  is  {base:#018x}                 1b 5b 32  4a                       |     .[2J|",
        f"{base + 32:#x}: 3 bytes",
        f"  was {base + 32:#018x}  00 00 00                                          |...|",
        f"  is  {base + 32:#018x}  41 42 43                                          |ABC|",
    ]


def test_the_message_of_much_that_changed_is_short(playground: Playground) -> None:
    """Of many runs the first are shown, of a long one the beginning."""
    base = playground.base
    playground.poke(base, bytes(4096))
    with (  # noqa: PT012 (what is done inside is what fails the outside)
        pytest.raises(AssertionError) as caught,
        assert_unchanged(playground.process, (base, base + PAGE_SIZE)),
    ):
        playground.poke(base, b"\1" * 1000)
        for k in range(20):
            playground.poke(base + 1100 + 2 * k, b"\1")
    text = str(caught.value)
    assert "changed: 1020 bytes in 21 places" in text
    assert "and 936 bytes more" in text
    assert "and 13 places more" in text
    assert len(text.splitlines()) < 40


def test_memory_that_goes_away_has_changed(make: Playgrounds) -> None:
    """A page that is unmapped, or cannot be read any more, does not pass for unchanged."""
    for change in ("none", "hole"):
        playground = make("rw*2")
        page = playground.pages[1]
        with (  # noqa: PT012 (as above)
            pytest.raises(AssertionError, match=f"{page.start:#x} cannot be read any more"),
            assert_unchanged(playground.process, playground.pages),
        ):
            if change == "hole":
                playground.unmap(page.start, PAGE_SIZE)
            else:
                playground.protect(page.start, PAGE_SIZE, "none")


def test_memory_that_can_not_be_read_is_not_watched_in_silence(playground: Playground) -> None:
    """It is a PageFaultError at the beginning, and the body does not run."""
    with (
        pytest.raises(procvm.PageFaultError) as caught,
        assert_unchanged(playground.process, (playground["r"], playground["none"] + 8)),
    ):
        pytest.fail("the body ran")
    assert caught.value.address == playground["none"]


def test_the_exception_of_the_body_goes_first(playground: Playground) -> None:
    """What went wrong inside is told, not that memory changed by it."""
    base = playground.base
    with (  # noqa: PT012 (as above)
        pytest.raises(KeyError, match="inside"),
        assert_unchanged(playground.process, (base, base + 8)),
    ):
        playground.poke(base, b"\xff" * 8)
        raise KeyError("inside")


def test_a_region_that_nobody_touched_costs_nothing(make: Playgrounds) -> None:
    """A counter's stack, 8 MiB of which a few pages are used, is watched at once."""
    playground = make("rw", counters=1)
    stack = max(playground.process.maps().filter(perms="rw"), key=lambda vma: vma.size)
    assert stack.size >= 1 << 23
    with assert_unchanged(playground.process, (stack.start, stack.end - (1 << 16))):
        playground.poke(playground.base, b"else")


def test_wait_until_returns_the_value_that_it_waited_for(playground: Playground) -> None:
    """It is the first one seen for which the predicate holds; a structure as well as a number."""
    process, counter, base = playground.process, playground.counters[0], playground.base
    now = process.vm.read_val(counter, procvm.u64)
    assert wait_until(process, counter, procvm.u64, lambda value: value > now + 1000) > now + 1000
    playground.poke(base, bytes(Point(3, 0.5)))
    assert wait_until(process, base, Point, lambda point: point.x == 3).y == 0.5


def test_wait_until_says_what_was_there_last(playground: Playground) -> None:
    """When the time is over it is an AssertionError, after a last look."""
    process, base = playground.process, playground.base
    playground.poke(base, (77).to_bytes(8, "little"))
    begun = time.monotonic()
    with pytest.raises(AssertionError) as caught:
        wait_until(process, base, procvm.u64, lambda value: value == 78, 0.05)
    assert time.monotonic() - begun >= 0.05
    assert f"the u64 at {base:#x} of process {process.pid} did not" in str(caught.value)
    assert str(caught.value).endswith("and is 77 (0x4d)")
    playground.poke(base, bytes(Point(5, 1.5)))
    with pytest.raises(AssertionError, match=r"and is x=5, y=1\.5$"):
        wait_until(process, base, Point, lambda _: False, 0)
    with pytest.raises(AssertionError, match=r"b'\\x05\\x00\\x00\\x00'$"):
        wait_until(process, base, ctypes.c_char * 4, lambda _: False, 0)
    with pytest.raises(procvm.PageFaultError):
        wait_until(process, playground["none"], procvm.u8, bool)


def test_wait_until_notices_the_end(make: Playgrounds) -> None:
    """A process that ends meanwhile is a ProcessExitedError, not a timeout."""
    playground = make("rw")
    looks = []

    def kill(value: int) -> bool:
        looks.append(value)
        playground.tracee.kill()
        return False

    with pytest.raises(procvm.ProcessExitedError):
        wait_until(playground.process, playground.base, procvm.u64, kill, 30)
    assert looks


def test_patches_are_undone_last_first(playground: Playground) -> None:
    """Read-only memory too, and one patch over another."""
    process, page = playground.process, playground["r"]
    before = pattern(page, 8)
    with Patches() as patch:
        patch(process, page, b"abcd", expect=before[:4])
        patch(process, page + 2, b"XY", expect=b"cd")
        assert playground.peek(page, 6) == b"abXY" + before[4:6]
        with pytest.raises(procvm.ProcvmError, match="not the expected one"):
            patch(process, page, b"no", expect=b"ac")
    assert playground.peek(page, 8) == before


def test_a_patch_of_a_process_that_ended_is_fine(make: Playgrounds) -> None:
    """With its memory the patch is gone, and the others are undone all the same."""
    first, second = make("rw"), make("rw")
    before = pattern(first.base, 2)
    with Patches() as patch:
        patch(first.process, first.base, b"ab")
        patch(second.process, second.base, b"ab")
        second.tracee.kill()
        second.tracee.wait()
    assert first.peek(first.base, 2) == before


def test_a_patch_that_can_not_be_undone_is_told(make: Playgrounds) -> None:
    """A page that is gone is an error, and what can be undone is undone."""
    playground = make("rw*2")
    first, second = playground.pages
    patches = Patches()
    patches(playground.process, first.start, b"ab")
    patches(playground.process, second.start, b"ab")
    playground.unmap(second.start, PAGE_SIZE)
    with pytest.raises(procvm.PageFaultError):
        patches.close()
    assert playground.peek(first.start, 2) == pattern(first.start, 2)
    patches.close()
