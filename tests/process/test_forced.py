"""Forced accesses by one call of the descriptor: the same answers as the complete way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import procvm
from procvm import Pod, f64, u8, u32, u64
from tests.support.playground import PAGE, Playground, pattern


def test_forced_read_after_unmap_raises_page_fault() -> None:
    """The mapping that was last asked for is gone: the read faults, however often it is made."""
    with Playground() as child, procvm.open(child.pid) as process:
        base = child.layout("rw rw")
        vm = process.vm.forced()
        want = int.from_bytes(pattern(base, 8), "little")
        assert [vm.read_val(base, u64) for _ in range(9)] == [want] * 9
        child.unmap(base, PAGE)
        for _ in range(3):
            with pytest.raises(procvm.PageFaultError) as caught:
                vm.read_val(base, u64)
            assert (caught.value.address, caught.value.copied_len) == (base, 0)
        assert vm.read_val(base + PAGE, u8) == pattern(base + PAGE, 1)[0]


def test_forced_access_over_a_hole_tells_the_exact_count() -> None:
    """A value and a buffer that run into a hole: the bytes before it, and no byte after them."""
    with Playground() as child, procvm.open(child.pid) as process:
        base = child.layout("none hole")
        vm = process.vm.forced()
        at = base + PAGE - 4
        buffer = bytearray(b"\xee" * 4096)
        for access in (
            lambda: vm.read_val(at, u64),
            lambda: vm.write_val(at, u64, int.from_bytes(pattern(at, 4) + bytes(4), "little")),
            lambda: vm.read_into(at, buffer),
        ):
            vm.read_val(base, u64)
            with pytest.raises(procvm.PageFaultError) as caught:
                access()
            assert (caught.value.address, caught.value.copied_len) == (base + PAGE, 4)
        assert buffer == pattern(at, 4) + b"\xee" * 4092
        assert child.peek(at, 4) == pattern(at, 4)


@pytest.mark.parametrize("kind", ["rw", "r", "none"])
def test_forced_values_are_those_of_the_target(kind: str) -> None:
    """Numbers and buffers through pages of any permission, written and read back by the target."""
    with Playground() as child, procvm.open(child.pid) as process:
        base = child.layout(f"{kind} {kind}")
        vm = process.vm.forced()
        at = base + PAGE - 3
        numbers: list[tuple[Pod[Any], Any]] = [(u32, 0xDEADBEEF), (u64, 1 << 63), (f64, -1.5)]
        for pod, value in numbers:
            vm.write_val(at, pod, value)
            assert child.peek(at, pod.size) == pod.to_bytes(value)
            assert vm.read_val(at, pod) == value
        for n in (1, 4096, PAGE + 1):
            buffer = bytearray(n)
            vm.read_into(base, buffer)
            assert bytes(buffer) == child.peek(base, n)


def test_forced_read_just_below_the_stack_faults_after_reads_of_it() -> None:
    """The mapping last asked for is the stack: a read that begins below it does not grow it."""
    with Playground() as child, procvm.open(child.pid) as process:
        maps = Path(f"/proc/{child.pid}/maps")
        (line,) = (line for line in maps.read_text().splitlines() if line.endswith("[stack]"))
        start = int(line.partition("-")[0], 16)
        vm = process.vm.forced()
        for below in (1, 8, PAGE):
            vm.read_val(start, u64)
            with pytest.raises(procvm.PageFaultError):
                vm.read_val(start - below, u64)
            vm.read_val(start, u64)
            with pytest.raises(procvm.PageFaultError):
                vm.read_into(start - below, bytearray(64))
        assert line in maps.read_text().splitlines()


def test_forced_access_after_close_and_after_the_end_is_refused() -> None:
    """Prepared functions raise the error that says why."""
    with Playground() as child:
        process = procvm.open(child.pid)
        base = child.layout("rw")
        vm = process.vm.forced()
        with procvm.open(child.pid) as other:
            closed = other.vm.forced()
            closed.read_val(base, u64)
            closed.write_val(base, u64, 1)
        for access in (
            lambda: closed.read_val(base, u64),
            lambda: closed.write_val(base, u64, 2),
            lambda: closed.read_into(base, bytearray(8)),
        ):
            with pytest.raises(procvm.ClosedError):
                access()
        assert vm.read_val(base, u64) == 1
    for access in (
        lambda: vm.read_val(base, u64),
        lambda: vm.write_val(base, u64, 2),
        lambda: vm.read_into(base, bytearray(8)),
    ):
        with pytest.raises(procvm.ProcessExitedError):
            access()
    process.close()
