"""The playground: pages of every kind, and what the child itself sees of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import procvm
from procvm._base.address import PAGE_SIZE
from procvm.testing import Playground, Playgrounds, Spawner, pattern, wait_until


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playgrounds]:
    """Makes playgrounds; they live as long as these tests."""
    with Spawner(tmp_path_factory.mktemp("programs")) as spawner:
        yield Playgrounds(spawner)


@pytest.fixture(scope="module")
def playground(make: Playgrounds) -> Playground:
    """One that no test changes for good."""
    return make("rw r rx none hole wo shared file guard x*2", counters=2)


def perms(playground: Playground, kind: str) -> str:
    vma = playground.process.find_vma(playground[kind])
    return "" if vma is None else str(vma.perms)


def test_each_kind_is_mapped_as_it_is_called(playground: Playground) -> None:
    """The listing has each page with its permissions, side by side, and nothing around them."""
    kinds = ["rw", "r", "rx", "none", "hole", "wo", "shared", "file", "guard", "x", "x"]
    assert [page.kind for page in playground.pages] == kinds
    starts = [playground.base + k * PAGE_SIZE for k in range(len(kinds))]
    assert [page.start for page in playground.pages] == starts
    found = {page.kind: perms(playground, page.kind) for page in playground.pages}
    assert found == {
        "rw": "rw-p",
        "r": "r--p",
        "rx": "r-xp",
        "none": "---p",
        "hole": "",
        "wo": "-w-p",
        "shared": "rw-s",
        "file": "rw-p",
        "guard": "rw-p",
        "x": "--xp",
    }
    assert playground.process.find_vma(playground.base - 1) is None
    assert playground.process.find_vma(playground.pages[-1].end) is None
    vma = playground.process.find_vma(playground["file"])
    assert vma is not None
    assert vma.kind is procvm.Kind.FILE


@pytest.mark.parametrize("kind", ["rw", "r", "rx", "shared", "file", "none", "hole", "guard"])
def test_the_child_and_procvm_see_the_same(playground: Playground, kind: str) -> None:
    """Both read the pattern, or both fault at the same byte with as many before it."""
    start = playground[kind] - 8
    found: list[object] = []
    for read in (playground.peek, playground.vm.read_bytes):
        try:
            found.append(read(start + 8, 64))
        except procvm.PageFaultError as error:
            found.append((error.address, error.copied_len))
    ours, theirs = found
    assert ours == theirs
    if kind in ("none", "hole", "guard"):
        assert ours == (start + 8, 0)
    else:
        assert ours == pattern(start + 8, 64)


def test_an_access_stops_at_the_first_bad_byte(playground: Playground) -> None:
    """What the child's own loads and stores reach before a fault is told exactly."""
    end = playground["none"]
    with pytest.raises(procvm.PageFaultError, match="itself cannot read") as caught:
        playground.peek(end - 5, 10)
    assert (caught.value.address, caught.value.copied_len) == (end, 5)
    wo = playground["wo"]
    with pytest.raises(procvm.PageFaultError, match="itself cannot write") as caught:
        playground.poke(playground["r"] - 3, b"abcdef")
    assert (caught.value.address, caught.value.copied_len) == (playground["r"], 3)
    assert playground.vm.read_bytes(playground["r"] - 4, 3)[1:] == b"ab"
    playground.poke(wo, b"xyz")
    assert playground.peek(wo, 3, forced=True) == b"xyz"


def test_forced_reaches_what_the_pages_do_not_allow(playground: Playground) -> None:
    """The child looks by /proc/self/mem, so that a test can see that nothing was written."""
    none = playground["none"]
    assert playground.peek(none, 16, forced=True) == pattern(none, 16)
    playground.poke(none, b"new", forced=True)
    assert playground.peek(none, 3, forced=True) == b"new"
    with pytest.raises(procvm.PageFaultError) as caught:
        playground.peek(playground["hole"] - 2, 4, forced=True)
    assert caught.value.copied_len == 2


def test_a_private_page_of_a_file_leaves_the_file_alone(playground: Playground) -> None:
    """`contents` is the file's, whatever the page has become."""
    page = playground["file"]
    playground.vm.write_bytes(page, b"ours")
    assert playground.peek(page, 4) == b"ours"
    assert playground.contents(page) == pattern(page, PAGE_SIZE)
    with pytest.raises(OSError, match="No such file"):
        playground.contents(playground["rw"])


def test_counters_count(playground: Playground) -> None:
    """Each has a thread of its own, which runs at full speed."""
    assert len(playground.counters) == 2
    for address in playground.counters:
        first = playground.vm.read_val(address, procvm.u64)
        wait_until(playground.process, address, procvm.u64, lambda now, old=first: now > old)


def test_a_word_of_any_page_can_be_counted(make: Playgrounds) -> None:
    """`count` starts a thread on an address, also on memory that was mapped later."""
    playground = make("r", traced=False)
    (page,) = playground.map("rw")
    playground.poke(page.start, bytes(8))
    playground.count(page.start)
    assert wait_until(playground.process, page.start, procvm.u64, bool) > 0
    with pytest.raises(procvm.NotTracedError):
        playground.tracee.stop()


def test_pages_change(make: Playgrounds) -> None:
    """A page can lose its permissions and keep what it has, and can be unmapped."""
    playground = make("rw*3")
    page = playground.pages[1]
    playground.protect(page.start, PAGE_SIZE, "none")
    with pytest.raises(procvm.PageFaultError):
        playground.vm.read_bytes(page.start, 1)
    playground.protect(page.start, PAGE_SIZE, "r")
    assert playground.vm.read_bytes(page.start, 8) == pattern(page.start, 8)
    playground.unmap(page.start, PAGE_SIZE)
    assert playground.process.find_vma(page.start) is None
    with pytest.raises(ValueError, match="'rwz' is not a permission"):
        playground.protect(page.start, PAGE_SIZE, "rwz")


def test_much_is_moved_in_parts(make: Playgrounds) -> None:
    """More than a line of the protocol holds goes through whole."""
    playground = make("rw*40")
    data = bytes(k * 31 % 251 for k in range(40 * PAGE_SIZE))
    playground.poke(playground.base, data)
    assert playground.peek(playground.base, len(data)) == data
    assert playground.vm.read_bytes(playground.base, len(data)) == data


def test_a_held_playground_does_not_answer(make: Playgrounds) -> None:
    """That is told at once; afterwards the answers are those to the questions."""
    playground = make("rw")
    with (
        playground.tracee.stopped(),
        pytest.raises(procvm.WaitTimeoutError, match="ask it when it runs"),
    ):
        playground.peek(playground.base, 1)
    assert playground.peek(playground.base, 3) == pattern(playground.base, 3)


def test_a_playground_that_has_ended_says_so(make: Playgrounds) -> None:
    """Every question is a ProcessExitedError then."""
    playground = make("rw")
    playground.tracee.kill()
    playground.tracee.wait()
    with pytest.raises(procvm.ProcessExitedError):
        playground.peek(playground.base, 1)


@pytest.mark.parametrize("layout", ["", " ", "rw wr", "rw*0", "RW", "hole*", "rw,none"])
def test_a_layout_that_can_not_be_meant_is_refused(make: Playgrounds, layout: str) -> None:
    """The message names the word, and all kinds that there are."""
    with pytest.raises(ValueError, match="none, hole, wo, shared, file, guard"):
        make(layout)


def test_the_source_is_part_of_the_package() -> None:
    """The C program lies beside the module, where a wheel has it too."""
    import procvm.testing.playground as module  # noqa: PLC0415

    assert Path(module.__file__).with_name("playground.c").is_file()
