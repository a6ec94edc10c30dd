"""Patches and watches: what is written, what is undone, and what is told of it."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procvm
from procvm import InvalidArgsError, MismatchError, PageFaultError, Run
from procvm._live import patch as patch_module
from tests.elf.facets import Facets
from tests.support.build import compiled
from tests.support.playground import PAGE, Playground, pattern

KINDS = "rw r none wo xo sr srw file fro hole rw"
RW, R, NONE, WO, XO, SR, SRW, FILE, FRO, HOLE, LAST = range(11)


@pytest.fixture
def base(playground: Playground) -> int:
    """A page of each kind."""
    return playground.layout(KINDS)


@pytest.fixture
def opened(playground: Playground, base: int) -> Iterator[procvm.Process]:
    """The playground, opened."""
    with procvm.open(playground.pid) as process:
        yield process


def all_of(playground: Playground, base: int) -> bytes:
    """Returns what the child itself has in all pages but the hole."""
    return playground.peek(base, HOLE * PAGE) + playground.peek(base + LAST * PAGE, PAGE)


@pytest.mark.parametrize("page", [RW, R, NONE, WO, XO, SRW, FILE, FRO])
def test_a_patch_is_there_and_gone(
    playground: Playground, base: int, opened: procvm.Process, page: int
) -> None:
    """Of every kind of page, whatever it allows: written for the with, then as it was."""
    before = all_of(playground, base)
    at = base + page * PAGE + 100
    with opened.patch(at, b"patched", expect=pattern(at, 7)) as patch:
        assert playground.peek(at - 1, 9) == pattern(at - 1, 1) + b"patched" + pattern(at + 7, 1)
        assert patch.old == {at: pattern(at, 7)}
    assert all_of(playground, base) == before
    assert (patch.old, patch.overwritten) == ({}, [])


def test_a_patch_over_pages_of_several_kinds(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """One site over five pages that each allow something else."""
    before = all_of(playground, base)
    data = random.Random(1).randbytes(4 * PAGE)
    at = base + PAGE // 2
    with opened.patch(at, data):
        assert playground.peek(at, len(data)) == data
    assert all_of(playground, base) == before


@pytest.mark.parametrize("wrong", range(3))
def test_a_site_that_is_not_as_expected_leaves_all_alone(
    playground: Playground, base: int, opened: procvm.Process, wrong: int
) -> None:
    """MismatchError with the first byte that differs; nothing is written at any site."""
    before = all_of(playground, base)
    places = [base + 8, base + PAGE + 8, base + NONE * PAGE + 8]
    expected = [bytearray(pattern(at, 16)) for at in places]
    expected[wrong][5] ^= 1
    patch = opened.patch(places[0], b"a" * 16, expect=expected[0])
    for at, expect in zip(places[1:], expected[1:], strict=True):
        patch.also(at, b"b" * 16, expect=expect)
    with pytest.raises(MismatchError) as caught, patch:
        pytest.fail("it was put in place")
    assert (caught.value.address, caught.value.copied_len) == (places[wrong] + 5, 0)
    assert hex(places[wrong] + 5) in str(caught.value)
    assert all_of(playground, base) == before
    assert patch.old == {}


@pytest.mark.parametrize(("page", "reads"), [(SR, True), (HOLE, False)])
def test_a_site_that_can_not_be_written_undoes_those_before(
    playground: Playground, base: int, opened: procvm.Process, page: int, reads: bool
) -> None:
    """Shared read-only memory, and none at all: PageFaultError, and nothing is changed."""
    before = all_of(playground, base)
    at = base + page * PAGE
    patch = opened.patch(base, b"first").also(at, b"x").also(base + LAST * PAGE, b"last")
    with pytest.raises(PageFaultError) as caught, patch:
        pytest.fail("it was put in place")
    assert (caught.value.address, caught.value.copied_len) == (at, 0)
    assert all_of(playground, base) == before
    assert patch.old == {}


def test_a_site_that_begins_well_and_ends_badly_is_undone(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """The bytes before the page that refuses were written: they are put back."""
    before = all_of(playground, base)
    with pytest.raises(PageFaultError) as caught, opened.patch(base + SR * PAGE - 50, b"x" * 100):
        pytest.fail("it was put in place")
    assert (caught.value.address, caught.value.copied_len) == (base + SR * PAGE, 50)
    assert all_of(playground, base) == before


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(2)])
def test_an_exception_inside_undoes_it_and_goes_on(
    playground: Playground, base: int, opened: procvm.Process, error: BaseException
) -> None:
    """Whatever is raised inside comes out, and all is as it was."""
    before = all_of(playground, base)
    with pytest.raises(type(error)), opened.patch(base, b"abc").also(base + PAGE, b"def"):
        raise error
    assert all_of(playground, base) == before


def test_what_the_target_wrote_over_it_is_told(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """Each site gets back what it had; those that the target had changed are told in order."""
    with opened.patch(base + 8, b"one").also(base, b"two").also(base + 16, b"six") as patch:
        playground.poke(base + 9, b"X")
        playground.poke(base + 16, b"Y")
    assert patch.overwritten == [Run(base + 8, b"one", b"oXe"), Run(base + 16, b"six", b"Yix")]
    assert playground.peek(base, 32) == pattern(base, 32)
    with patch:
        assert patch.overwritten == []
        assert playground.peek(base + 8, 3) == b"one"
    assert patch.overwritten == []


def test_patches_within_each_other(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """Over the same bytes: the inner one gives back the outer one's, and that the target's."""
    with opened.patch(base, b"aaaaaaaa") as outer:
        with opened.patch(base + 2, b"bbbb", expect=b"aaaa"):
            assert playground.peek(base, 8) == b"aabbbbaa"
        assert playground.peek(base, 8) == b"aaaaaaaa"
    assert outer.overwritten == []
    assert playground.peek(base, 8) == pattern(base, 8)


@pytest.mark.parametrize(
    ("at", "n", "overlaps"),
    [(0, 8, True), (-3, 4, True), (7, 1, True), (2, 2, True), (-4, 20, True), (8, 4, False)],
)
def test_sites_that_overlap_are_refused(
    playground: Playground, base: int, opened: procvm.Process, at: int, n: int, overlaps: bool
) -> None:
    """Neighbours are fine; one common byte is not, and then nothing was added."""
    start = base + 100
    patch = opened.patch(start, b"12345678")
    if overlaps:
        with pytest.raises(InvalidArgsError, match=hex(start)):
            patch.also(start + at, b"x" * n)
    else:
        patch.also(start + at, b"x" * n)
    with patch:
        assert playground.peek(start, 8) == b"12345678"
        assert playground.peek(start + 8, 4) == (pattern(start + 8, 4) if overlaps else b"xxxx")
    assert playground.peek(start - 8, 32) == pattern(start - 8, 32)


def test_a_site_of_no_bytes_beside_another_is_harmless(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """Nothing written at an address where another site begins: that one is undone all the same."""
    with opened.patch(base, b"abc").also(base, b""):
        assert playground.peek(base, 3) == b"abc"
    assert playground.peek(base, 3) == pattern(base, 3)


def test_arguments_that_make_no_patch(base: int, opened: procvm.Process) -> None:
    """Lengths that differ, addresses that are none, and use at the wrong time are refused."""
    with pytest.raises(InvalidArgsError, match="expect has 2 bytes, and data 3"):
        opened.patch(base, b"abc", expect=b"ab")
    with pytest.raises(InvalidArgsError):
        opened.patch(-1, b"abc")
    with pytest.raises(procvm.AddressOverflowError):
        opened.patch((1 << 64) - 2, b"abc")
    with pytest.raises(TypeError):
        opened.patch(base, "abc")
    with pytest.raises(procvm.AccessDeniedError), opened.patch(1 << 63, b"abc"):
        pytest.fail("it was put in place")
    patch = opened.patch(base, b"abc")
    assert "not in place" in repr(patch)
    with patch:
        assert "not in place" not in repr(patch)
        with pytest.raises(ValueError, match="in place"):
            patch.also(base + 100, b"x")
        with pytest.raises(ValueError, match="in place already"), patch:
            pytest.fail("it was put in place twice")
    with opened.patch(base, b"") as nothing:
        assert nothing.old == {}


def test_patch_of_what_the_target_writes_is_refused(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """A thread counts the word up: what was written is not there any more at the look after it."""
    playground.poke(base, bytes(8))
    playground.spin(base)
    patch = opened.patch(base + 8, b"another").also(base, bytes(8))

    def put_in_place() -> None:
        for _ in range(10_000):  # the thread does not run at every moment
            with patch:
                pass

    with pytest.raises(MismatchError) as caught:
        put_in_place()
    assert base <= caught.value.address < base + 8
    assert playground.peek(base + 8, 7) == pattern(base + 8, 7)


def test_what_is_given_is_copied(playground: Playground, base: int, opened: procvm.Process) -> None:
    """A buffer that its owner changes later does not change the patch."""
    data, expect = bytearray(b"abc"), bytearray(pattern(base, 3))
    patch = opened.patch(base, data, expect=expect)
    data[:] = b"xyz"
    expect[:] = b"xyz"
    with patch:
        assert playground.peek(base, 3) == b"abc"


def test_a_site_that_is_unmapped_meanwhile_does_not_keep_the_others(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """PageFaultError of that site, and the others are undone; also in order before and after."""
    patch = opened.patch(base, b"a").also(base + PAGE, b"b").also(base + LAST * PAGE, b"c")
    with pytest.raises(PageFaultError) as caught, patch:
        playground.unmap(base + PAGE, PAGE)
    assert caught.value.address == base + PAGE
    assert playground.peek(base, 1) == pattern(base, 1)
    assert playground.peek(base + LAST * PAGE, 1) == pattern(base + LAST * PAGE, 1)


def test_a_site_of_which_a_part_is_unmapped_is_undone_where_it_is(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """What of a site is still there gets back what it had."""
    with pytest.raises(PageFaultError), opened.patch(base + PAGE - 4, b"12345678"):
        playground.unmap(base + PAGE, PAGE)
    assert playground.peek(base + PAGE - 4, 4) == pattern(base + PAGE - 4, 4)


def test_a_process_that_has_ended_needs_no_undoing(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """No error at the end of the with; what was raised inside comes out."""
    with opened.patch(base, b"abc") as patch:
        playground.popen.kill()
        playground.popen.wait()
    assert patch.old == {}
    with pytest.raises(procvm.ProcessExitedError), opened.patch(base, b"abc"):
        pytest.fail("it was put in place")


def test_a_process_that_runs_another_program_is_not_written() -> None:
    """After an exec the same addresses are another program's: nothing is written, no error."""
    with Facets(program=compiled("facets", "-no-pie", "-ldl")) as child:
        at = child.at["g_words"]
        with procvm.open(child.pid) as process, process.patch(at, b"patched!"):
            child.ask(f"exec {compiled('facets', '-no-pie', '-ldl').encode().hex()}")
        with procvm.open(child.pid) as process:
            assert process.vm.read_slice(at, procvm.u64, 3) == [1, 2, 3]


def test_code_behaves_as_patched_and_then_as_before() -> None:
    """A function in r-x text answers otherwise while it is patched; in a tracee as well."""
    with Facets(1) as child:
        at = child.at["answer_of"]
        other = b"\xb8\x2a\x00\x00\x00\xc3"  # mov eax, 42; ret
        for opened in (procvm.open, procvm.attach):
            with opened(child.pid) as process:
                assert str(process.find_vma(at)).split()[1] == "r-xp"
                assert child.ask("call 5") == "1005"
                with process.patch(at, other):
                    assert child.ask("call 5") == "42"
                assert child.ask("call 5") == "1005"
                text = process.find_vma(at)
                assert text is not None
                path = os.readlink(f"/proc/{child.pid}/exe")
                with open(path, "rb") as file:  # the file on disk is as it was
                    file.seek(at - text.start + text.offset)
                    assert file.read(6) == process.vm.read_bytes(at, 6) != other


class Twins:
    """A child whose threads compare two words all the time; a context manager that ends it.

    Attributes:
        first: Where the one is.
        second: Where the other is.
        page: Where a page is that nobody may write.
    """

    def __enter__(self) -> Self:
        self.popen = subprocess.Popen(
            [compiled("twins")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.popen.stdout is not None
        words = self.popen.stdout.readline().split()[1:]
        self.first, self.second, self.page = (int(word, 16) for word in words)
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.communicate()

    def counts(self) -> tuple[int, int]:
        """Returns how often they looked, and how often the words were not equal."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(b"\n")
        self.popen.stdin.flush()
        looks, unequal = self.popen.stdout.readline().split()
        return int(looks), int(unequal)

    def wait(self) -> None:
        """Waits until they have looked 1,000 times more."""
        looked = self.counts()[0]
        while self.counts()[0] < looked + 1000:
            pass


def test_threads_of_a_tracee_see_both_sites_or_none() -> None:
    """Two words that threads compare all the time are never seen to differ, over 60 patches."""
    with Twins() as twins:
        begun = twins.counts()[0]
        with procvm.attach(twins.popen.pid) as tracee:
            for k in range(1, 61):
                data = k.to_bytes(8, "little")
                patch = tracee.patch(twins.first, data, expect=bytes(8))
                with patch.also(twins.second, data):
                    twins.wait()
                    assert tracee.vm.read_val(twins.first, procvm.u64) == k
                    assert not tracee.is_stopped()
                assert patch.overwritten == []
        looks, unequal = twins.counts()
        assert looks > begun + 60_000
        assert unequal == 0
        # The same without a hold is seen: the test would notice.
        with procvm.open(twins.popen.pid) as process:
            for k in range(1, 1_000_000):
                data = k.to_bytes(8, "little")
                with process.patch(twins.first, data).also(twins.second, data):
                    pass
                if twins.counts()[1]:
                    return
        pytest.fail("a patch without a hold was never seen in part")


def test_threads_of_a_tracee_see_nothing_of_a_patch_that_fails() -> None:
    """The first of three sites was written as the second refuses: nobody runs till it is undone."""
    with Twins() as twins:
        with procvm.attach(twins.popen.pid) as tracee:
            for _ in range(60):
                patch = tracee.patch(twins.first, b"x" * 8).also(twins.page, b"x")
                with pytest.raises(PageFaultError), patch.also(twins.second, b"x" * 8):
                    pytest.fail("it was put in place")
                twins.wait()
        assert twins.counts()[1] == 0


def _interrupted(patch: Any, where: str, at: int) -> tuple[bool, bool]:
    """Runs a patch with Ctrl-C before a line of a method; returns whether it came, and inside."""
    count = 0
    inside = False

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        code = frame.f_code
        if code.co_filename != patch_module.__file__:
            return None
        above: FrameType | None = frame
        while above is not None and above.f_code.co_name != where:
            above = above.f_back
        if event == "line" and above is not None:
            count += 1
            if count == at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with patch:
            inside = True
    except KeyboardInterrupt:
        return True, inside
    finally:
        sys.settrace(before)
    return False, inside


@pytest.mark.parametrize("where", ["__enter__", "__exit__"])
def test_ctrl_c_before_any_line_leaves_nothing_patched(
    playground: Playground, base: int, opened: procvm.Process, where: str
) -> None:
    """As it is put in place and as it is undone: KeyboardInterrupt, and all is as it was."""
    places = [base, base + PAGE, base + LAST * PAGE]

    def is_as_it_was() -> bool:
        return all(playground.peek(place, 4) == pattern(place, 4) for place in places)

    left: list[int] = []
    came = True
    at = 0
    while came:
        at += 1
        patch = opened.patch(places[0], b"abc").also(places[1], b"def").also(places[2], b"g")
        came, _ = _interrupted(patch, where, at)
        # Before the first line of __exit__ nothing can be caught: then `close` undoes it.
        patch.close()
        if not is_as_it_was():
            left.append(at)
            for place in places:
                opened.vm.forced().write_bytes(place, pattern(place, 4))
    assert at > 10
    assert left == []


def test_ctrl_c_as_it_is_undone_tells_of_no_change(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """What the patch itself put back is nothing that the target wrote."""
    told: list[int] = []
    came = True
    at = 0
    while came:
        at += 1
        patch = opened.patch(base, b"abc").also(base + PAGE, b"def")
        came, _ = _interrupted(patch, "__exit__", at)
        patch.close()
        if patch.overwritten:
            told.append(at)
    assert told == []


def test_what_was_not_written_is_not_put_back(
    playground: Playground,
    base: int,
    opened: procvm.Process,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A site behind the one that failed is the target's: it may have changed it meanwhile."""
    later = base + LAST * PAGE
    patch = opened.patch(base, b"first").also(base + SR * PAGE, b"x").also(later, b"last")
    write = procvm.VmSpace.write_bytes

    def writing(vm: procvm.VmSpace, address: int, data: Any) -> None:
        if address == base + SR * PAGE:
            playground.poke(later, b"NEW!")
        write(vm, address, data)

    monkeypatch.setattr(procvm.VmSpace, "write_bytes", writing)
    with pytest.raises(PageFaultError), patch:
        pytest.fail("it was put in place")
    assert playground.peek(base, 5) == pattern(base, 5)
    assert playground.peek(later, 4) == b"NEW!"
    assert patch.overwritten == []


def test_what_was_overwritten_is_told_in_order(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """Of a site over two pages, both of which the target changed, and of one before."""
    with opened.patch(base, b"ab").also(base + PAGE - 4, b"12345678") as patch:
        for at in (base, base + PAGE - 4, base + PAGE + 3):
            playground.poke(at, b"Z")
    found = {
        run.address + k: new
        for run in patch.overwritten
        for k, (old, new) in enumerate(zip(run.old, run.new, strict=True))
        if old != new
    }
    assert [*found] == [base, base + PAGE - 4, base + PAGE + 3]


def test_a_tracee_closed_within_its_patch_undoes_it(playground: Playground, base: int) -> None:
    """Closing undoes the patch first, so that leaving its with statement finds nothing to do."""
    with procvm.attach(playground.pid) as tracee:
        with tracee.patch(base, b"abc"):
            tracee.vm.write_bytes(base, b"abX")
        before = playground.peek(base, 3)
        with tracee.patch(base, b"def"):
            assert playground.peek(base, 3) == b"def"
            tracee.close()
            assert playground.peek(base, 3) == before
    assert playground.peek(base, 3) == before


# Watches


def test_what_changed_is_told_as_runs(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """Each run with what was and what is; what is outside of the ranges is not."""
    watched = [(base, base + 2 * PAGE), (base + LAST * PAGE, base + LAST * PAGE + 50)]
    with opened.unchanged(watched) as kept:
        assert kept.runs == []
    assert kept.runs == []
    with kept:
        playground.poke(base + PAGE - 2, b"\0\0\0\0")
        playground.poke(base + LAST * PAGE + 49, b"\0\0")
        playground.poke(base + 30, pattern(base + 30, 5))
        playground.poke(base + SRW * PAGE, b"elsewhere")
    assert kept.runs == [
        Run(base + PAGE - 2, pattern(base + PAGE - 2, 4), bytes(4)),
        Run(base + LAST * PAGE + 49, pattern(base + LAST * PAGE + 49, 1), b"\0"),
    ]
    with kept:
        pass
    assert kept.runs == []


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 2 * PAGE - 1), st.binary(min_size=1, max_size=40)), max_size=6
    ),
    st.integers(0, PAGE),
    st.integers(1, PAGE),
    st.booleans(),
)
def test_a_watch_is_as_plain_python(
    playground: Playground,
    base: int,
    opened: procvm.Process,
    writes: list[tuple[int, bytes]],
    low: int,
    n: int,
    raises: bool,
) -> None:
    """Any writes by any means: the runs are those that two lists of bytes have; on errors too."""
    playground.clear(base, PAGE)
    opened.vm.forced().write_bytes(base, pattern(base, 2 * PAGE))
    old = opened.vm.read_bytes(base, 2 * PAGE)
    kept = opened.unchanged([(base + low, base + low + n)])
    try:
        with kept:
            for at, data in writes:
                opened.vm.forced().write_bytes(base + at, data[: 2 * PAGE - at])
            if raises:
                raise LookupError
    except LookupError:
        assert raises
    new = opened.vm.read_bytes(base, 2 * PAGE)
    expected: list[Run] = []
    for at in range(low, low + n):
        if old[at] == new[at]:
            continue
        run = Run(base + at, old[at : at + 1], new[at : at + 1])
        if expected and expected[-1].address + len(expected[-1].old) == run.address:
            last = expected.pop()
            run = Run(last.address, last.old + run.old, last.new + run.new)
        expected.append(run)
    assert kept.runs == expected


def test_an_error_inside_a_watch_is_the_one_that_comes_out(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """Also where the process has ended by then; without one that is the error."""

    def end() -> None:
        playground.popen.kill()
        playground.popen.wait()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), opened.unchanged([(base, base + 8)]):
        end()
    with pytest.raises(procvm.ProcessExitedError), opened.unchanged([(base, base + 8)]):
        pytest.fail("there was nothing to look at")


def test_a_watch_that_a_process_does_not_live_through_says_so(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """An end inside is an error at the end, and not an empty list."""
    with pytest.raises(procvm.ProcessExitedError), opened.unchanged([(base, base + 8)]):
        playground.close()


def test_a_patch_inside_a_watch_is_no_change(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """What was undone is as it was, copy-on-write of file pages included."""
    here = [(base + page * PAGE, base + page * PAGE + PAGE) for page in (RW, R, FILE, FRO, LAST)]
    with opened.unchanged(here) as kept:
        with opened.patch(base + PAGE, b"abc").also(base + FRO * PAGE, b"def"):
            pass
        with opened.patch(base, b"abc"):
            playground.poke(base + 1, b"Z")
    assert kept.runs == []


def test_what_came_and_went_is_told_beside_the_runs(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """Pages that can not be read any more, and pages that can be now, are no runs."""
    with opened.unchanged([(base, base + (LAST + 1) * PAGE)]) as kept:
        playground.unmap(base, PAGE)
        playground.poke(base + LAST * PAGE, b"\0\1")
    assert kept.gone == [(base, base + PAGE)]
    assert kept.new == []
    assert [run.address for run in kept.runs] == [base + LAST * PAGE]
    with opened.unchanged([(base, base + PAGE)]) as kept:
        playground.map(base, PAGE)
    assert (kept.gone, kept.new, kept.runs) == ([], [(base, base + PAGE)], [])


def test_patch_dropped_in_place_warns_and_writes_nothing(
    playground: Playground, base: int, opened: procvm.Process
) -> None:
    """A patch that lost its with statement is told of, and the target is left alone."""
    patch = opened.patch(base, b"abc")
    patch.__enter__()
    with pytest.warns(ResourceWarning, match=f"{base:#x} of process {playground.pid}"):  # noqa: PT031
        del patch
        gc.collect()
    assert playground.peek(base, 4) == b"abc" + pattern(base, 4)[3:]


def test_patch_close_undoes_it(playground: Playground, base: int, opened: procvm.Process) -> None:
    """`close` ends a patch that has no with statement; twice is fine."""
    patch = opened.patch(base, b"abc")
    patch.close()
    patch.__enter__()
    assert playground.peek(base, 3) == b"abc"
    patch.close()
    patch.close()
    assert playground.peek(base, 3) == pattern(base, 3)


def test_process_close_undoes_patches_in_place(playground: Playground, base: int) -> None:
    """A Ctrl-C before the first line of a patch's end leaves it to the end of the process's."""
    with procvm.open(playground.pid) as process:
        patch = process.patch(base, b"abc")
        patch.__enter__()
        assert playground.peek(base, 3) == b"abc"
    assert playground.peek(base, 3) == pattern(base, 3)


def test_patch_that_fails_keeps_no_descriptor(playground: Playground, base: int) -> None:
    """Its error is freed without the collector, and what it kept with it."""
    gc.collect()
    gc.disable()
    try:
        before = sorted(os.listdir("/proc/self/fd"))
        with procvm.open(playground.pid) as process:
            where = playground.layout("rw")
            with pytest.raises(procvm.PageFaultError), process.patch(where, b"abc"):
                playground.unmap(where, PAGE)
        assert sorted(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_patch_is_left_in_place_by_a_forked_child(playground: Playground) -> None:
    """It belongs to the parent: the child ends it without a word, and changes nothing."""
    at = playground.layout("rw")
    before = playground.peek(at, 8)
    with procvm.open(playground.pid) as process:
        with process.patch(at, b"patched!") as patch:
            child = os.fork()
            if not child:
                code = 1
                try:
                    patch.close()
                    code = 7
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert playground.peek(at, 8) == b"patched!"
        assert playground.peek(at, 8) == before
