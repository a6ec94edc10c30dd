"""Compare-and-exchange on a live, multi-threaded target is exact, or refused."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

import procvm
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import assert_free, has_ended, tracer_of
from tests.tracee.witness import Cas, Work
from tests.tracee.workloads import cas, cas_on_shared, races_met

SLOW = 60_000
"""Turns between a target's load and its exchange, in which a tool from outside gets a turn."""

MOST_TRIES = 100_000
"""Of one update. It takes a few hundred at most; one that never wins takes millions."""


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("threads", [1, 4, 16])
def test_exchanges_inside_holds_lose_nothing(threads: int, width: int) -> None:
    """2,000 increments under holds and the target's own add up, to the last one."""
    found = races_met({"races": 20}, lambda: cas(threads, width, 2000, held=True))
    assert found["exchanged"] == found["tries"]
    assert found["lost"] == 0
    assert found["neighbours harmed"] == 0


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("threads", [1, 4, 16])
def test_exchanges_outside_holds_lose_nothing(threads: int, width: int) -> None:
    """Single exchanges beside running threads, failed and good, lose nobody's increment."""
    # Among 16 busy threads what was read is stale nearly each time.
    enough = {"races": 20, "exchanged": int(threads < 16)}
    found = races_met(enough, lambda: cas(threads, width, 500, held=False, work=SLOW))
    assert found["lost"] == 0
    assert found["neighbours harmed"] == 0


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("kind", ["memfd", "anonymous"])
@pytest.mark.parametrize("width", [4, 8])
def test_shared_memory_is_exact_or_refused(width: int, kind: str, held: bool) -> None:
    """Beside a process that nobody stops no increment is lost, be it refused all the time."""
    found = cas_on_shared(kind, width, 8_000, held=held)
    assert found["lost"] == 0
    assert found["neighbours harmed"] == 0
    assert found["exchanged"] >= 1 or found["refused"] == found["tries"]


@pytest.mark.parametrize("threads", [1, 4])
def test_an_update_outside_a_hold_comes_to_an_end(threads: int) -> None:
    """Each of 20 updates of a word that threads increment all the time wins after a few tries."""
    done = tries = 0

    def increment(old: int) -> int:
        nonlocal tries
        tries += 1
        assert tries <= MOST_TRIES, f"{done} updates have won, and this one never does"
        return old + 1

    with Cas(threads, 8, work=200) as target, procvm.attach(target.pid) as tracee:
        target.go()
        while done < 20:
            tries = 0
            tracee.vm.atomic_fetch_update(target.word, procvm.u64, increment)
            done += 1
        word, own, _, good = target.stop()
        assert word == own + done
        assert good


def test_threads_of_the_tool_lose_nothing_to_each_other() -> None:
    """Four threads exchange under holds and without, beside the target's own."""
    added = [0] * 4
    with Cas(2, 8, work=SLOW) as target, procvm.attach(target.pid) as tracee:
        target.go()

        def increment(k: int) -> None:
            for _ in range(60):
                if k % 2:
                    with tracee.stopped():
                        old = tracee.vm.atomic_load(target.word, procvm.u64)
                        _, good = tracee.vm.atomic_compare_exchange(
                            target.word, procvm.u64, old, old + 1
                        )
                else:
                    old = tracee.vm.atomic_load(target.word, procvm.u64)
                    _, good = tracee.vm.atomic_compare_exchange(
                        target.word, procvm.u64, old, old + 1
                    )
                added[k] += good

        threads = [threading.Thread(target=increment, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        word, own, _, good = target.stop()
    assert word == own + sum(added)
    assert good
    assert sum(added) >= 60


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("pod", [procvm.u32, procvm.u64])
def test_an_exchange_faults_where_the_targets_own_would(
    pod: procvm.PodAtomic[int], held: bool
) -> None:
    """Read-only, hole, PROT_NONE: PageFaultError there, also where the compare fails."""
    with Cas(1, 8) as target, procvm.attach(target.pid) as tracee:
        if held:
            tracee.stop()
        there = tracee.vm.read_val(target.readonly, pod)
        assert tracee.vm.atomic_load(target.readonly, pod) == there
        for address in (target.readonly, target.hole, target.none):
            for old in (there, there ^ 1):
                with pytest.raises(procvm.PageFaultError) as caught:
                    tracee.vm.atomic_compare_exchange(address, pod, old, 5)
                assert caught.value.address == address
                assert caught.value.pid == target.pid
                assert caught.value.copied_len == 0
        for address in (target.hole, target.none):
            with pytest.raises(procvm.PageFaultError):
                tracee.vm.atomic_load(address, pod)
        if held:
            tracee.resume()
        assert_free(target.pid)
        assert target.look(target.readonly) == 0x1122334455667788


@pytest.mark.parametrize("held", [False, True])
def test_forced_exchanges_ignore_protections(held: bool) -> None:
    """forced() exchanges on read-only and PROT_NONE pages as anywhere; a hole still faults."""
    with Cas(1, 8) as target, procvm.attach(target.pid) as tracee:
        forced = tracee.vm.forced()
        if held:
            tracee.stop()
        for address in (target.readonly, target.none):
            there = 0x1122334455667788
            assert forced.atomic_load(address, procvm.u64) == there
            assert forced.atomic_compare_exchange(address, procvm.u64, 1, 2) == (there, False)
            assert forced.atomic_compare_exchange(address, procvm.u64, there, 7) == (there, True)
            assert forced.atomic_compare_exchange(address, procvm.u32, 7, 9) == (7, True)
            with pytest.raises(procvm.PageFaultError):
                tracee.vm.atomic_compare_exchange(address, procvm.u64, 9, 8)
        with pytest.raises(procvm.PageFaultError):
            forced.atomic_compare_exchange(target.hole, procvm.u64, 0, 0)
        if held:
            tracee.resume()
        assert target.look(target.readonly) == 9
        assert target.look(target.none) == 9


def test_forced_exchanges_on_shared_memory_are_refused() -> None:
    """forced() and shared memory: SharedMemoryError, and the word as it was."""
    with Cas(1, 8, "memfd") as target, procvm.attach(target.pid) as tracee:
        with pytest.raises(procvm.SharedMemoryError):
            tracee.vm.forced().atomic_compare_exchange(target.word, procvm.u64, 0, 5)
        assert target.look(target.word) == 0


def test_without_tracing_private_memory_is_refused_and_shared_is_not() -> None:
    """procvm.open: NotTracedError on private memory, an exchange by the processor on shared."""
    with Cas(1, 8) as target, procvm.open(target.pid) as process:
        for use in (
            lambda: process.vm.atomic_load(target.word, procvm.u64),
            lambda: process.vm.atomic_compare_exchange(target.word, procvm.u64, 0, 1),
            lambda: process.vm.atomic_fetch_update(target.word, procvm.u64, lambda n: n + 1),
        ):
            with pytest.raises(procvm.NotTracedError) as caught:
                use()
            assert caught.value.pid == target.pid
        assert target.look(target.word) == 0
    with Cas(1, 8, "memfd") as target, procvm.open(target.pid) as process:
        assert process.vm.atomic_compare_exchange(target.word, procvm.u64, 0, 6) == (0, True)
        assert target.look(target.word) == 6


@pytest.mark.parametrize("mode", ["refork", "lost", "sibling"])
@pytest.mark.parametrize("held", [False, True])
def test_memory_of_a_process_that_shares_all_of_it_is_refused(mode: str, held: bool) -> None:
    """A CLONE_VM process runs on in a hold: SharedMemoryError, whatever its relation is."""
    with Work(mode, started=2) as target, procvm.attach(target.pid) as tracee:
        try:
            if held:
                tracee.stop()
            ticks = target.board[1]
            assert eventually(lambda: target.board[1] > ticks), "the other process must run"
            with pytest.raises(procvm.SharedMemoryError):
                tracee.vm.atomic_compare_exchange(target.word, procvm.u64, 0, 1)
            if held:
                tracee.resume()
        finally:
            _end_peers(target)


def _end_peers(target: Work) -> None:
    """Ends the processes that have the board of a target mapped, but for ourselves."""
    board = os.fstat(target.board.fd).st_ino
    for name in filter(str.isdigit, os.listdir("/proc")):
        if int(name) in (os.getpid(), target.pid):
            continue
        try:
            with open(f"/proc/{name}/maps") as maps:
                if any(f" {board} " in line and "board" in line for line in maps):
                    os.kill(int(name), signal.SIGKILL)
                    if target.board[5] == int(name):
                        os.waitpid(int(name), 0x40000000)
        except OSError:
            continue


def test_an_exchange_on_a_hold_that_died_with_its_tracer_loses_nothing() -> None:
    """The tracer is killed in a hold: exchanges are exact or raise."""
    added = refused = 0
    with Cas(2, 8, work=20) as target, procvm.attach(target.pid) as tracee:
        target.go()
        held = tracee.stopped()
        assert tracee.vm.atomic_load(target.word, procvm.u64) >= 0
        tracer = tracer_of(target.pid)
        os.kill(tracer, signal.SIGKILL)
        assert eventually(lambda: has_ended(tracer))
        assert_free(target.pid)
        for _ in range(600):
            try:
                old = tracee.vm.atomic_load(target.word, procvm.u64)
                _, good = tracee.vm.atomic_compare_exchange(target.word, procvm.u64, old, old + 1)
                added += good
            except procvm.NotTracedError:
                refused += 1
        held.close()
        word, own, _, _ = target.stop()
    assert own + added - word == 0, f"{own + added - word} lost of {own} and {added}"
    assert refused <= 1


def test_an_expired_hold_is_not_relied_on() -> None:
    """Exchanges in holds whose longest time is over in the middle of them are exact."""
    added, over, most = 0, 0, 400
    with Cas(2, 8, work=20) as target, procvm.attach(target.pid, longest_hold=0.02) as tracee:
        target.go()
        # On a busy machine a hold may be over before the first exchange.
        while over < 15 or added < 300:
            assert most > 0, f"{over} holds, {added} exchanges"
            most -= 1
            with contextlib.suppress(procvm.NotStoppedError), tracee.stopped():
                while tracee.is_stopped():
                    for _ in range(100):
                        added += _increment(tracee, target)
                over += 1
                for _ in range(3):
                    added += _increment(tracee, target)
        word, own, _, good = target.stop()
    assert own + added == word
    assert good


SLOW_TOOL = """
import contextlib, sys, procvm
word, added, refused, over = int(sys.argv[2]), 0, 0, 0
with procvm.attach(int(sys.argv[1]), longest_hold=float(sys.argv[3])) as tracee:
    vm = tracee.vm
    while over < 6:
        with contextlib.suppress(procvm.NotStoppedError), tracee.stopped() as held:
            while not held.is_over():
                old = vm.atomic_load(word, procvm.u64)
                try:
                    added += vm.atomic_compare_exchange(word, procvm.u64, old, old + 1)[1]
                except procvm.NotStoppedError:
                    refused += 1
            over += 1
print(added, refused)
"""


def _slow_exchanges(delay: str, longest_hold: float) -> tuple[int, int]:
    """Exchanges in holds that end meanwhile, by a tool whose stores take long.

    Returns:
        Increments that were lost, and exchanges that were refused.
    """
    with Cas(2, 8, work=20) as target:
        target.go()
        strace = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"]
        inject = ["-e", f"inject=pwrite64:delay_enter={delay}"]
        tool = [sys.executable, "-c", SLOW_TOOL, str(target.pid), str(target.word)]
        with Child([*strace, *inject, *tool, str(longest_hold)]) as child:
            added, refused = map(int, child.line().split())
        word, own, _, _ = target.stop()
    return own + added - word, refused


@pytest.mark.strace
def test_an_exchange_under_way_is_awaited_by_the_end_of_its_hold() -> None:
    """Each store takes so long that the longest time is over in the middle of one: none is lost."""
    refused = lost = 1
    for _ in range(20):
        lost, refused = _slow_exchanges("10ms", 0.1)
        if not refused:  # the tracer waits for some time only, which a busy machine may exceed
            break
    assert (lost, refused) == (0, 0)


DYING_TOOL = """
import sys, procvm
word, added = int(sys.argv[2]), 0
with procvm.attach(int(sys.argv[1]), longest_hold=None) as tracee:
    vm = tracee.vm
    held = tracee.stopped()
    try:
        while True:
            old = vm.atomic_load(word, procvm.u64)
            added += vm.atomic_compare_exchange(word, procvm.u64, old, old + 1)[1]
            print("exchanged", flush=True)
    except procvm.NotTracedError:
        print(added)
"""


@pytest.mark.strace
def test_an_exchange_under_way_as_the_tracer_dies_is_no_success(tmp_path: Path) -> None:
    """The store is done when the target runs already: NotTracedError by the exchange itself."""
    log, stored, added = tmp_path / "log", 0, 0
    for _ in range(20):
        with Cas(1, 8) as target:
            strace = ["strace", "-qq", "-o", str(log), "-e", "trace=pwrite64"]
            inject = ["-e", "inject=pwrite64:delay_enter=300ms"]
            tool = [sys.executable, "-c", DYING_TOOL, str(target.pid), str(target.word)]
            with Child([*strace, *inject, *tool]) as child:
                for _ in range(2):
                    assert child.line() == "exchanged"
                os.kill(tracer_of(target.pid), signal.SIGKILL)
                while (line := child.line()) == "exchanged":
                    pass
                child.popen.wait()
        stored, added = log.read_text().count("pwrite64("), int(line)
        if stored > added:  # else it died between two stores
            break
    assert stored == added + 1


@pytest.mark.strace
def test_an_exchange_that_its_hold_did_not_wait_for_says_so() -> None:
    """A store that takes longer than the tracer waits: NotStoppedError, and never a success."""
    _, refused = _slow_exchanges("300ms", 0.4)
    assert refused >= 1


def _increment(tracee: procvm.Tracee, target: Cas) -> bool:
    old = tracee.vm.atomic_load(target.word, procvm.u64)
    return tracee.vm.atomic_compare_exchange(target.word, procvm.u64, old, old + 1)[1]


def test_values_of_every_width_and_sign_are_exchanged() -> None:
    """i32, i64, u32, u64 with values at their ends arrive in the target as they are."""
    with Cas(1, 8) as target, procvm.attach(target.pid) as tracee:
        vm = tracee.vm
        ends = [(procvm.i64, -(1 << 63)), (procvm.u64, (1 << 64) - 1), (procvm.i64, -1)]
        old = 0
        for pod, value in ends:
            was, good = vm.atomic_compare_exchange(target.word, procvm.u64, old, value % (1 << 64))
            assert (was, good) == (old, True)
            assert vm.atomic_load(target.word, pod) == value
            old = value % (1 << 64)
            assert target.look(target.word) == old
            tracee.vm.forced().write_val(target.word, procvm.u64, old)
        with pytest.raises(ValueError, match="align"):
            vm.atomic_load(target.word + 1, procvm.u32)
        with pytest.raises((OverflowError, ValueError)):
            vm.atomic_compare_exchange(target.word, procvm.u32, 0, 1 << 32)
