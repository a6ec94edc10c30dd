"""`restore`: what is written, while the target is held, and what is said when it cannot be."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

import procvm
from procvm import VmSpace
from procvm._mm.extent import Extent
from procvm._mm.memory import Region, UserMemory
from procvm._saved import diff, restore
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import state_of
from tests.tracee.witness import Work

MIB = 1 << 20


class Watched(UserMemory):
    """The memory of a process, with what is written and the target's state at each write."""

    def __init__(self, inner: UserMemory, before: Callable[[int], None] = lambda _: None) -> None:
        self.inner = inner
        self.before = before
        self.writes: list[tuple[int, int]] = []
        self.states: list[str] = []

    @property
    def domain(self) -> object:
        return self.inner.domain

    @property
    def end(self) -> int:
        return self.inner.end

    @property
    def pid(self) -> int:
        return self.inner.pid

    def forced(self) -> UserMemory:
        self.inner = self.inner.forced()
        return self

    @contextmanager
    def held(self) -> Generator[Callable[[], bool] | None]:
        with self.inner.held() as lasts:
            yield lasts

    def regions(self) -> list[Region] | None:
        return self.inner.regions()

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        return self.inner.layout(start, end)

    def read(self, address: int, own_address: int, n: int) -> None:
        self.inner.read(address, own_address, n)

    def write(self, address: int, own_address: int, n: int) -> None:
        self.before(len(self.writes))
        self.writes.append((address, n))
        self.states.append(state_of(self.pid))
        self.inner.write(address, own_address, n)


def changed(data: bytes, places: Sequence[int]) -> bytes:
    """Returns data with the bytes at these places turned round."""
    new = bytearray(data)
    for place in places:
        new[place] ^= 0xFF
    return bytes(new)


def peek(pid: int, address: int, n: int) -> bytes:
    """Returns what the kernel says is there."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(n)


def poke(pid: int, address: int, data: bytes) -> None:
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        assert memory.write(data) == len(data)


@pytest.mark.parametrize("numpy", [True, False])
@pytest.mark.parametrize("step", [2, 16, 1000, PAGE, 2 * PAGE, 3 * PAGE + 5])
def test_restore_of_many_runs_of_a_tracee_writes_ranges_while_it_is_held(
    playground: Playground, step: int, monkeypatch: pytest.MonkeyPatch, *, numpy: bool
) -> None:
    """All is as it was, by a write for each neighbourhood of pages, none to an equal page."""
    if not numpy:
        monkeypatch.setattr(restore, "numpy_or_none", lambda: None)
    n = MIB
    at = playground.reserve(n)
    data = pattern(at, n)
    poke(playground.pid, at, data)
    places = range(7, n, step)
    with procvm.attach(playground.pid) as tracee, tracee.snapshot([(at, at + n)]) as kept:
        tracee.vm.write_bytes(at, changed(data, places))
        memory = Watched(tracee.vm.memory)
        assert kept.restore(VmSpace(memory)) == len(places)
        assert peek(playground.pid, at, n) == data
        assert set(memory.states) == {"t"}
        assert eventually(lambda: state_of(playground.pid) != "t")
        dirty = {place // PAGE for place in places}
        for address, length in memory.writes:
            first, last = address - at, address - at + length - 1
            assert {first // PAGE, last // PAGE} <= dirty
            assert first in places or last in places
            assert set(range(first // PAGE, last // PAGE + 1)) <= dirty
        neighbourhoods = sum(page - 1 not in dirty for page in dirty)
        assert len(memory.writes) <= neighbourhoods + n // restore._WRITE_LEN  # noqa: SLF001 (the bound)


@pytest.mark.parametrize("kind", ["rw", "srw"])
def test_restore_without_a_hold_or_in_shared_memory_writes_only_bytes_that_differ(
    playground: Playground, kind: str
) -> None:
    """A byte between two runs may be changed just then, by a thread or by another process."""
    at = playground.layout(kind)
    data = playground.peek(at, PAGE)
    places = sorted(random.Random(3).sample(range(PAGE), 100))
    runs = sum(place - 1 not in places for place in places)
    with procvm.open(playground.pid) as process, procvm.attach(playground.pid) as tracee:
        for vm in (process.vm, tracee.vm) if kind == "srw" else (process.vm,):
            with process.snapshot([(at, at + PAGE)]) as kept:
                process.vm.write_bytes(at, changed(data, places))
                memory = Watched(vm.memory)
                assert kept.restore(VmSpace(memory)) == len(places)
                assert playground.peek(at, PAGE) == data
                assert len(memory.writes) == runs
                assert sum(n for _, n in memory.writes) == len(places)


@pytest.mark.parametrize("outer", [True, False])
def test_restore_in_a_hold_that_ends_meanwhile_stops_and_says_how_much(
    playground: Playground, *, outer: bool
) -> None:
    """Nothing is written over a running target; `copied_len` bytes are as they were."""
    at = playground.layout(" ".join(["rw"] * 7))
    data = playground.peek(at, 7 * PAGE)
    places = range(0, 7 * PAGE, 2 * PAGE)
    pid = playground.pid

    def let_it_run(nr: int) -> None:
        if nr == 1:
            assert eventually(lambda: state_of(pid) != "t")

    ranges = [(at, at + 7 * PAGE)]
    with procvm.attach(pid, longest_hold=0.3) as tracee, tracee.snapshot(ranges) as kept:
        tracee.vm.write_bytes(at, changed(data, places))
        memory = Watched(tracee.vm.memory, let_it_run)
        if outer:
            tracee.stop()
        with pytest.raises(procvm.NotStoppedError, match="longest_hold") as caught:
            kept.restore(VmSpace(memory))
        # The one that was under way as the hold ended, and none after it.
        assert len(memory.writes) == 2
        assert caught.value.copied_len == 2
        assert playground.peek(at, 7 * PAGE) == changed(data, places[2:])
        memory.before = lambda _: None
        assert kept.restore(VmSpace(memory)) == len(places) - 2
        assert playground.peek(at, 7 * PAGE) == data


def test_patch_in_a_hold_that_ends_meanwhile_is_undone_and_says_so(
    playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No site is written over a running target after the one that was under way."""
    at = playground.layout("rw rw rw")
    data = playground.peek(at, 3 * PAGE)
    pid = playground.pid
    writes: list[int] = []
    with procvm.attach(pid, longest_hold=0.3) as tracee:
        patch = tracee.patch(at, b"one").also(at + PAGE, b"two").also(at + 2 * PAGE, b"six")
        write_bytes = VmSpace.write_bytes

        def slow(space: VmSpace, address: int, new: bytes) -> None:
            writes.append(address - at)
            if len(writes) == 2:
                assert eventually(lambda: state_of(pid) != "t")
            write_bytes(space, address, new)

        monkeypatch.setattr(VmSpace, "write_bytes", slow)
        with pytest.raises(procvm.NotStoppedError, match="longest_hold"), patch:
            raise AssertionError("it was put in place")
        # Two sites, and the same two undone.
        assert writes == [0, PAGE, PAGE, 0]
        assert playground.peek(at, 3 * PAGE) == data


def test_restore_of_a_target_that_is_killed_says_that_it_has_ended() -> None:
    with Work("mixed", 2) as work, procvm.attach(work.pid) as tracee:
        vma = tracee.maps().filter(perms="rw")[0]
        with tracee.snapshot([vma]) as kept:
            tracee.vm.write_bytes(vma.start, b"x" * 9)

            def kill(_: int) -> None:
                tracee.kill()
                tracee.wait()

            with pytest.raises(procvm.ProcessExitedError):
                kept.restore(VmSpace(Watched(tracee.vm.memory, kill)))


def test_restore_does_not_copy_a_page_of_a_file_that_did_not_change(
    playground: Playground, tmp_path: Path
) -> None:
    """A page between two that differ stays the file's own: its copy would cost the target."""
    with procvm.attach(playground.pid) as tracee:
        (vma,) = [
            one for one in tracee.maps().filter(name="libc.so.6") if one.perms & procvm.Perms.EXEC
        ]
        at = vma.start + 4 * PAGE
        with tracee.snapshot([(at, at + 3 * PAGE)]) as kept:
            for page in (0, 2):
                tracee.vm.forced().write_bytes(at + page * PAGE + 50, b"zz")
            assert 0 < kept.restore() <= 4
        with Path(f"/proc/{playground.pid}/pagemap").open("rb") as pages:
            pages.seek(at // PAGE * 8)
            entries = [int.from_bytes(pages.read(8), "little") for _ in range(3)]
        of_file = [not entry >> 63 or bool(entry >> 61 & 1) for entry in entries]
        assert of_file == [False, True, False]


def test_snapshot_of_a_target_that_is_killed_meanwhile_raises_process_exited_error() -> None:
    """Whichever request its end comes before: no thread is missed, and no advice is wrong."""
    rounds = 40
    seen: list[str] = []
    chance = random.Random(11)
    for _ in range(rounds):
        with Work("mixed", 20) as work, procvm.attach(work.pid) as tracee:
            ranges = tracee.maps().filter(perms="rw")
            killer = threading.Timer(chance.random() * 0.02, tracee.kill)
            killer.start()
            try:
                while True:
                    tracee.snapshot(ranges).close()
            except procvm.ProcvmError as error:
                seen.append(type(error).__name__)
            finally:
                killer.join()
    assert seen == ["ProcessExitedError"] * rounds


def test_restore_after_a_program_of_pairs_ran_puts_both_back() -> None:
    """Two words that are written one after the other are of one instant before and after."""
    with Child([compiled("pairs"), "1"]) as child, procvm.attach(child.pid) as tracee:
        first, second = child.hexes()
        with tracee.snapshot([(first, first + PAGE), (second, second + PAGE)]) as kept:
            was = kept.vm.read_val(first, procvm.u64), kept.vm.read_val(second, procvm.u64)
            assert eventually(lambda: tracee.vm.read_val(first, procvm.u64) > was[0] + 1000)
            with tracee.stopped() as held:
                kept.restore()
                now = held.vm.read_val(first, procvm.u64), held.vm.read_val(second, procvm.u64)
            assert now == was


@pytest.mark.parametrize("numpy", [True, False])
@pytest.mark.parametrize("kind", ["rw", "srw", "ro"])
@pytest.mark.parametrize("hold", [True, False])
def test_restore_of_bytes_and_runs_puts_back_each_and_nothing_beside_them(
    playground: Playground, kind: str, monkeypatch: pytest.MonkeyPatch, *, numpy: bool, hold: bool
) -> None:
    """In shared memory, in a file and without a hold a call is made for each run."""
    if not numpy:
        monkeypatch.setattr(diff, "numpy_or_none", lambda: None)
    at = playground.layout(" ".join([kind] * 8))
    n = 8 * PAGE
    data = playground.peek(at, n)
    chosen = random.Random(5)
    runs = [(place, 1 + place % 9) for place in chosen.sample(range(n - 9), 3000)]
    places = {place + k for place, length in runs for k in range(length)}
    with procvm.attach(playground.pid, longest_hold=None) as tracee:
        process = tracee if hold else procvm.open(playground.pid)
        with process, process.snapshot([(at, at + n)]) as kept:
            tracee.vm.forced().write_bytes(at, changed(data, sorted(places)))
            with tracee.stopped() if hold else nullcontext() as held:
                if held is not None and kind == "rw":
                    # What a hold has kept of the pages is dropped.
                    assert held.vm.read_bytes(at, 8) == changed(data, sorted(places))[:8]
                assert kept.restore() == len(places)
                if held is not None and kind != "ro":
                    assert held.vm.read_bytes(at, 8) == data[:8]
            assert playground.peek(at, n) == data


def test_restore_of_runs_in_a_hold_that_ended_writes_none(playground: Playground) -> None:
    at = playground.layout("srw")
    data = playground.peek(at, PAGE)
    with procvm.attach(playground.pid, longest_hold=None) as tracee:
        memory = tracee.vm.forced().memory
        runs = [(place, place + 1) for place in range(0, PAGE, 8)]
        calls = iter([True, True, True, False])
        view = memoryview(changed(data, range(PAGE)))
        assert memory.write_runs(at, view, runs, lambda: next(calls)) == 3 * 16
        written = range(0, 3 * 16 * 8, 8)
        assert playground.peek(at, PAGE) == changed(data, written)
        beyond = [(0, 1), (PAGE - 1, PAGE), (PAGE, PAGE + 1)]
        assert memory.write_runs(at, memoryview(bytes(2 * PAGE)), beyond, None) == 0
