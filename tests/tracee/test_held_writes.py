"""Writes to many ranges of a held target: to the byte, by one call, and to no other process."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

import procvm
from procvm import VmReader, VmSpace, VmWriterArray, u64
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import has_ended, state_of, tracer_of
from tests.tracee.held_writes import writes_while_it_dies, writes_while_it_execs
from tests.tracee.witness import Work
from tests.tracee.workloads import races_met

with contextlib.suppress(ImportError):
    import numpy  # noqa: F401 (for `scatter`; its threads begin before any are counted)

NR = 1024


def write(vm: VmSpace, places: list[int], data: bytes) -> int:
    """Writes as many bytes to each place, in order."""
    n = len(data) // len(places)
    return VmWriterArray([vm.writer(at, n) for at in places]).write(VmReader.from_buffer(data))


def write_on(vm: VmSpace, places: list[int]) -> None:
    """Writes zeros without end."""
    while True:
        write(vm, places, bytes(8 * len(places)))


def counting(n: int) -> bytes:
    """Returns `n` bytes in which neighbours differ."""
    return bytes(1 + k * 7 % 251 for k in range(n))


def test_ranges_written_in_a_hold_are_all_there(playground: Playground) -> None:
    """1,024 ranges of 64 bytes with gaps between them, over many pages; the gaps are as before."""
    base = playground.layout(" ".join(["rw"] * 33))
    places = [base + 3 + 130 * k for k in range(NR)]
    data = counting(64 * NR)
    with procvm.attach(playground.pid, longest_hold=None) as tracee, tracee.stopped() as held:
        kept = held.vm.read_val(base, u64)  # a page that is kept is dropped by the write
        assert kept == int.from_bytes(pattern(base, 8), "little")
        assert write(held.vm, places, data) == len(data)
        seen = held.vm.read_bytes(base, 33 * PAGE)
        assert held.vm.read_val(base, u64).to_bytes(8, "little") == seen[:8]
    expected = bytearray(pattern(base, 33 * PAGE))
    for k, at in enumerate(places):
        expected[at - base : at - base + 64] = data[64 * k : 64 * k + 64]
    assert seen == expected
    assert playground.peek(base, 33 * PAGE) == expected


@pytest.mark.strace
def test_ranges_written_in_a_hold_take_one_call(playground: Playground, tmp_path: Path) -> None:
    """As strace counts the calls of the tracer: one for 1,024 ranges."""
    base = playground.layout(" ".join(["rw"] * 33))
    log = tmp_path / "log"
    with procvm.attach(playground.pid, longest_hold=None) as tracee, tracee.stopped() as held:
        tracer = tracer_of(playground.pid)
        command = ["strace", "-f", "-o", str(log), "-e", "trace=process_vm_writev", "-p"]
        with subprocess.Popen([*command, str(tracer)], stderr=subprocess.PIPE) as strace:
            assert strace.stderr is not None
            assert b"attached" in strace.stderr.readline()
            write(held.vm, [base + 130 * k for k in range(NR)], counting(64 * NR))
            strace.send_signal(signal.SIGINT)
    assert re.findall(r"process_vm_writev\(.* = (\d+)$", log.read_text(), re.MULTILINE) == ["65536"]


def test_a_range_that_the_target_cannot_write_ends_the_write(playground: Playground) -> None:
    """The bytes before it are written and no others; each cursor tells how far it came."""
    base = playground.layout(" ".join(["rw"] * 20 + ["r"] + ["rw"] * 20))
    edge = base + 20 * PAGE
    places = [base + 1000 * k + 888 for k in range(160)]  # one of them crosses the edge
    data = counting(64 * 160)
    assert any(at < edge < at + 64 for at in places)
    before = bytearray(pattern(base, 41 * PAGE))
    with procvm.attach(playground.pid, longest_hold=None) as tracee, tracee.stopped() as held:
        writers = [held.vm.writer(at, 64) for at in places]
        reader = VmReader.from_buffer(data)
        with pytest.raises(procvm.PageFaultError) as caught:
            VmWriterArray(writers).write(reader)
        done = caught.value.copied_len
        assert caught.value.address == edge
        assert caught.value.pid == playground.pid
        assert reader.remain() == len(data) - done
        for k, (at, writer) in enumerate(zip(places, writers, strict=True)):
            n = max(min(done - 64 * k, 64), 0)
            assert writer.cursor() == at + n
            before[at - base : at - base + n] = data[64 * k : 64 * k + n]
        assert sum(writer.cursor() - at for at, writer in zip(places, writers, strict=True)) == done
    assert playground.peek(base, 41 * PAGE) == before


def test_forced_ranges_are_written_where_the_target_cannot(playground: Playground) -> None:
    """Read-only pages among others: all is written, as without a hold."""
    base = playground.layout("rw r rw r rw")
    places = [base + 100 * k for k in range(200)]
    data = counting(50 * 200)
    with procvm.attach(playground.pid, longest_hold=None) as tracee, tracee.stopped() as held:
        assert write(held.vm.forced(), places, data) == len(data)
    for k, at in enumerate(places):
        assert playground.peek(at, 50) == data[50 * k : 50 * k + 50]


def test_ranges_that_overlap_are_written_in_order(playground: Playground) -> None:
    """The later one wins, also across two calls."""
    base = playground.layout("rw")
    places = [base + k % 30 for k in range(3000)]
    with procvm.attach(playground.pid, longest_hold=None) as tracee, tracee.stopped() as held:
        write(held.vm, places, counting(8 * 3000))
    expected = bytearray(pattern(base, 64))
    for k, at in enumerate(places):
        expected[at - base : at - base + 8] = counting(8 * 3000)[8 * k : 8 * k + 8]
    assert playground.peek(base, 64) == expected


@pytest.mark.parametrize("mask", [False, True])
def test_scatter_in_a_hold_tells_the_values_that_fault(playground: Playground, mask: bool) -> None:
    """As without one: the index of the first, or a truth value for each."""
    base = playground.layout("rw none rw none rw")
    places = [base + 40 * k for k in range(500)]
    bad = {
        k for k, at in enumerate(places) if ((at + 7 - base) // PAGE) % 2 or (at - base) // PAGE % 2
    }
    with procvm.attach(playground.pid, longest_hold=None) as tracee, tracee.stopped() as held:
        if mask:
            ok = held.vm.scatter(places, u64, range(500), faults="mask")
            assert {k for k in range(500) if not ok[k]} == bad
        else:
            with pytest.raises(procvm.PageFaultError) as caught:
                held.vm.scatter(places, u64, range(500))
            assert caught.value.index == min(bad)
    written = set(range(500)) - bad if mask else set(range(min(bad)))
    for k in set(range(500)) - bad:
        value = k.to_bytes(8, "little") if k in written else pattern(places[k], 8)
        assert playground.peek(places[k], 8) == value


def test_bytes_of_a_truncated_file_fault_in_the_tool(playground: Playground) -> None:
    """A buffer of the caller whose file was cut: an error with the tool's pid, and no SIGBUS."""
    base = playground.layout("rw rw")
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * PAGE)
        buffer = mmap.mmap(file.fileno(), 2 * PAGE)
        file.truncate(PAGE)
        with procvm.attach(playground.pid, longest_hold=None) as tracee, tracee.stopped() as held:
            writers = [held.vm.writer(base + 64 * k, 64) for k in range(128)]
            with pytest.raises(procvm.PageFaultError) as caught:
                VmWriterArray(writers).write(VmReader.from_buffer(buffer))
    assert (caught.value.pid, caught.value.copied_len) == (os.getpid(), PAGE)
    assert playground.peek(base, PAGE) == bytes(PAGE)
    assert playground.peek(base + PAGE, PAGE) == pattern(base + PAGE, PAGE)


def test_ranges_are_written_after_the_leader_has_ended() -> None:
    """Its number has no memory any more; the other threads have the same memory."""
    with Work("leaves", 2) as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        target.board[3] = 1
        assert eventually(lambda: state_of(target.pid) == "Z")
        with tracee.stopped() as held:
            start = next(one.start for one in tracee.maps() if one.name == b"[stack]")
            places = [start + 16 * k for k in range(100)]
            old = b"".join(held.vm.read_bytes(at, 8) for at in places)
            write(held.vm, places, bytes(800))
            assert all(held.vm.read_bytes(at, 8) == bytes(8) for at in places)
            write(held.vm, places, old)
        target.assert_runs()


def test_ranges_of_a_target_that_was_killed_in_the_hold_are_refused(playground: Playground) -> None:
    """ProcessExitedError, whether its tracer has reaped it or not."""
    base = playground.layout("rw")
    places = [base + 8 * k for k in range(100)]
    with procvm.attach(playground.pid, longest_hold=None) as tracee:
        held = tracee.stopped()
        os.kill(playground.pid, signal.SIGKILL)
        with pytest.raises(procvm.ProcessExitedError):
            write_on(held.vm, places)
        held.close()
    assert eventually(lambda: state_of(playground.pid) in ("Z", ""))


def test_ranges_are_written_after_the_tracer_was_killed(playground: Playground) -> None:
    """The hold is over, and the write goes the way that needs no tracer."""
    base = playground.layout("rw")
    data = counting(800)
    with procvm.attach(playground.pid, longest_hold=None) as tracee:
        held = tracee.stopped()
        tracer = tracer_of(playground.pid)
        os.kill(tracer, signal.SIGKILL)
        assert eventually(lambda: has_ended(tracer))
        assert write(held.vm, [base + 8 * k for k in range(100)], data) == 800
        held.close()
        assert playground.peek(base, 800) == data


@pytest.mark.parametrize("blow", ["expiry", "tracer"])
def test_writes_in_holds_reach_no_later_program(blow: str) -> None:
    """A target that execs as soon as its hold is over, however that ends: nothing goes astray."""
    enough = {"holds": 20, "writes": 40}
    found = races_met(enough, lambda: writes_while_it_execs(blow, 20, 30.0))
    assert found["written elsewhere"] == 0, found


@pytest.mark.root
def test_writes_in_holds_reach_no_process_of_the_same_pid() -> None:
    """Targets that are killed in the middle of a write: the next process with the pid is whole."""
    enough = {"holds": 40, "writes": 40, "ProcessExitedError": 5}
    found = races_met(enough, lambda: writes_while_it_dies(40, 30.0))
    assert found["written elsewhere"] == 0, found
