"""Opening a process, reading and writing it: the main job."""

from __future__ import annotations

import os

import pytest

import procvm
from procvm import u64
from tests.playground import PAGE, Playground, pattern


def test_a_read_gives_what_the_target_has(process: procvm.Process, playground: Playground) -> None:
    """Bytes read are the bytes that the target sees itself."""
    base = playground.layout("rw rw")
    assert process.vm.read_bytes(base, 2 * PAGE) == pattern(base, 2 * PAGE)


def test_a_write_reaches_the_target(process: procvm.Process, playground: Playground) -> None:
    """The target sees a value that was written, and nothing else changed."""
    base = playground.layout("rw")
    process.vm.write_val(base + 8, u64, 0x1122334455667788)
    expected = bytearray(pattern(base, PAGE))
    expected[8:16] = (0x1122334455667788).to_bytes(8, "little")
    assert playground.peek(base, PAGE) == expected


def test_a_read_into_a_hole_tells_how_far_it_came(
    process: procvm.Process, playground: Playground
) -> None:
    """The bytes before the hole are delivered, and the error says how many and where."""
    base = playground.layout("rw hole")
    buffer = bytearray(b"\xee" * 32)
    with pytest.raises(procvm.PageFaultError) as caught:
        process.vm.read_into(base + PAGE - 12, buffer)
    assert caught.value.copied_len == 12
    assert caught.value.address == base + PAGE
    assert caught.value.pid == playground.pid
    assert buffer == pattern(base + PAGE - 12, 12) + b"\xee" * 20


def test_the_tool_itself_can_be_opened() -> None:
    """A process may open itself, and closing it leaves no descriptor behind."""
    before = set(os.listdir("/proc/self/fd"))
    segment = procvm.Segment.alloc(1)
    segment.write_val(16, u64, 99)
    with procvm.open(os.getpid()) as process:
        assert process.vm.read_val(segment.address + 16, u64) == 99
    # What others left may have been collected meanwhile.
    assert set(os.listdir("/proc/self/fd")) <= before
