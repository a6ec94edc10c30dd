"""Atomics outside of a hold are PEEKDATA and POKEDATA of the tracer, as strace sees it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import procvm
from procvm import i32, u32, u64
from procvm._hold.server.protocol import Op
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.procfs import tracer_of
from tests.tracee.witness import Cas

CALLS = "ptrace,process_vm_readv,process_vm_writev,pwrite64,pread64"
needs_strace = pytest.mark.strace


@contextmanager
def traced(tracer: int, log: Path) -> Iterator[None]:
    """Logs the tracer's calls that move memory."""
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", str(log), "-p", str(tracer), "-e", f"trace={CALLS}"],
        stderr=subprocess.PIPE,
    )
    try:
        assert strace.stderr is not None
        while {field(f"{tracer}/task/{tid}") for tid in os.listdir(f"/proc/{tracer}/task")} != {
            str(strace.pid)
        }:
            assert strace.poll() is None, strace.stderr.read()
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate()


def field(task: str) -> str:
    text = Path(f"/proc/{task}/status").read_text()
    return str(re.findall(r"^TracerPid:\s*(\S+)", text, re.MULTILINE)[0])


@needs_strace
def test_an_atomic_of_the_tracer_is_peek_and_poke(tmp_path: Path) -> None:
    """A load peeks; 8 bytes peek and poke; 4 bytes peek and store exactly 4 by the descriptor."""
    with Cas(1, 8) as target, procvm.attach(target.pid) as tracee:
        with tracee.stopped():
            tracer = tracer_of(target.pid)
        word, vm = target.word, tracee.vm
        plan: list[tuple[Callable[[], Any], Any, str]] = [
            (lambda: vm.atomic_load(word, u64), 0, "PEEKDATA"),
            (lambda: vm.atomic_load(word, u32), 0, "PEEKDATA"),
            (lambda: vm.atomic_load(word + 4, u32), 0, "PEEKDATA"),
            (lambda: vm.atomic_compare_exchange(word, u64, 0, 7), (0, True), "PEEKDATA POKEDATA"),
            (lambda: vm.atomic_compare_exchange(word, u64, 0, 9), (7, False), "PEEKDATA"),
            (lambda: vm.atomic_compare_exchange(word + 4, u32, 0, 5), (0, True), "PEEKDATA 4"),
            (lambda: vm.atomic_compare_exchange(word, i32, 7, -1), (7, True), "PEEKDATA 4"),
        ]
        for number, (call, expected, calls) in enumerate(plan):
            log = tmp_path / str(number)
            with traced(tracer, log):
                assert call() == expected
            text = log.read_text()
            found = re.findall(r"PTRACE_(PEEKDATA|POKEDATA)|pwrite64\(\d+, .*, (\d+), ", text)
            assert " ".join(peek or store for peek, store in found) == calls, text
            assert "process_vm_writev" not in text
        assert target.look(word) == (5 << 32) | 0xFFFFFFFF


def of_tracer(tracee: procvm.Tracee, address: int, old: int | None, new: int) -> bytes | None:
    """Asks the tracer alone: what the tool looks at first may be another by the time of the stop.

    Returns:
        The 8 bytes that were there; None for a fault.
    """
    expected = None if old is None else old.to_bytes(8, "little")
    found = tracee._calls.request(  # noqa: SLF001 (as the docstring says)
        Op.ATOMIC, 2.0, False, address, 8, expected, new.to_bytes(8, "little")
    )
    assert found is None or isinstance(found, bytes)
    return found


def test_the_tracer_itself_asks_what_the_page_allows() -> None:
    """A poke ignores protections: read-only, closed and absent pages are faults, and stay."""
    with Cas(1, 8) as target, procvm.attach(target.pid) as tracee:
        value = target.look(target.readonly)
        assert of_tracer(tracee, target.readonly, value, 9) is None
        assert of_tracer(tracee, target.readonly, None, 0) == value.to_bytes(8, "little")
        for address in (target.none, target.hole):
            assert of_tracer(tracee, address, 0, 9) is None
            assert of_tracer(tracee, address, None, 0) is None
        assert target.look(target.readonly) == value
        assert of_tracer(tracee, target.word, 0, 9) == bytes(8)
        assert target.look(target.word) == 9


def test_the_tracer_itself_asks_who_shares_the_memory() -> None:
    """A shared mapping, and a process of the same address space: SharedMemoryError."""
    with Cas(1, 8, "memfd") as target, procvm.attach(target.pid) as tracee:
        with pytest.raises(procvm.SharedMemoryError):
            of_tracer(tracee, target.word, 0, 9)
        assert target.look(target.word) == 0
    with Child([compiled("vfork_exec")]) as parent:
        pid = int(parent.line())
        with procvm.attach(pid) as tracee:
            with tracee.stopped():
                word = tracee.registers()["rsp"] & -8
            with pytest.raises(procvm.SharedMemoryError):
                of_tracer(tracee, word, None, 0)


def test_the_tracer_itself_refuses_the_program_that_an_exec_brought() -> None:
    """In a hold that goes on over an exec: ProcessExecedError."""
    with Child(["/bin/sh", "-c", "read line; exec cat"]) as child:
        with procvm.attach(child.pid, longest_hold=None) as tracee, tracee.stopped():
            child.send("go")
            event = tracee.cont()
            assert event is not None
            assert event.kind == "exec"
            with pytest.raises(procvm.ProcessExecedError):
                of_tracer(tracee, 0x1000, None, 0)
        assert child.ask("still here") == "still here"


@pytest.mark.parametrize("held", [False, True], ids=["by the tracer", "in a hold"])
def test_both_ways_of_an_atomic_have_the_same_results(held: bool) -> None:
    """Loads, exchanges that do and do not happen, faults and refusals, outside and in a hold."""
    with Cas(1, 8) as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        if held:
            tracee.stop()
        vm = tracee.vm
        for pod, at in ((u64, target.word), (u32, target.word), (u32, target.word + 4)):
            before = vm.atomic_load(at, pod)
            assert vm.atomic_compare_exchange(at, pod, before, before + 3) == (before, True)
            assert vm.atomic_compare_exchange(at, pod, before, 1) == (before + 3, False)
            assert vm.atomic_load(at, pod) == before + 3
        assert vm.atomic_load(target.readonly, u64) == vm.read_val(target.readonly, u64)
        for call in (
            lambda: vm.atomic_load(target.hole, u64),
            lambda: vm.atomic_load(target.none, u32),
            lambda: vm.atomic_compare_exchange(target.hole, u32, 0, 1),
            lambda: vm.atomic_compare_exchange(target.readonly, u64, 0, 1),
            # It fails as `lock cmpxchg` does: also where the values differ.
            lambda: vm.atomic_compare_exchange(target.readonly, u64, 1 << 63, 1),
        ):
            with pytest.raises(procvm.PageFaultError) as caught:
                call()
            assert caught.value.copied_len == 0
            assert caught.value.pid == target.pid
        forced = vm.forced()
        value = vm.read_val(target.readonly, u64)
        assert forced.atomic_compare_exchange(target.readonly, u64, value, 9) == (value, True)
        assert vm.read_val(target.readonly, u64) == 9
        with pytest.raises(ValueError, match="align"):
            vm.atomic_load(target.word + 1, u32)
        if held:
            tracee.resume()
        assert os.path.exists(f"/proc/{target.pid}")
