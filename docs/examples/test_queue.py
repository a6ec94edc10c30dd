"""Tests of the memory of a queue that is written in C.

pytest docs/examples/test_queue.py (with the extras pytest and symbols, and a C compiler)
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

import procvm
from procvm.testing import Patches, Spawner, assert_unchanged, wait_until

CAPACITY = 8


class Queue(ctypes.Structure):
    """`struct queue` of queue.c."""

    _fields_ = [
        ("head", ctypes.c_uint32),
        ("tail", ctypes.c_uint32),
        ("slots", ctypes.c_uint64 * CAPACITY),
    ]


class Program:
    """The program with the queue: its answers and its memory."""

    def __init__(self, spawn: Spawner) -> None:
        self.process = spawn(Path(__file__).with_name("targets") / "queue.c")
        self.address = self.process.symbol("g_queue")

    def do(self, command: str) -> str:
        """Tells the program to do something; returns its answer."""
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        return str(self.process.stdout.readline(), "ascii").strip()

    def queue(self) -> Queue:
        """Returns a copy of the queue in the memory of the program."""
        return self.process.vm.read_val(self.address, Queue)


@pytest.fixture
def program(procvm_spawn: Spawner) -> Program:
    """A new program for each test; `procvm_spawn` ends it."""
    return Program(procvm_spawn)


def test_items_lie_in_the_slots_in_order(program: Program) -> None:
    """Items are in the slots that head and tail refer to."""
    for item in (30, 40, 50):
        assert program.do(f"put {item}") == "ok"
    queue = program.queue()
    assert (queue.head, queue.tail) == (0, 3)
    assert list(queue.slots) == [30, 40, 50, 0, 0, 0, 0, 0]


def test_a_full_queue_is_left_as_it_is(program: Program) -> None:
    """An item without room is refused, and no byte of the queue changes."""
    for item in range(CAPACITY):
        assert program.do(f"put {item}") == "ok"
    here = (program.address, program.address + ctypes.sizeof(Queue))
    with assert_unchanged(program.process, here):
        assert program.do("put 99") == "full"


def test_nothing_is_written_after_the_queue(program: Program) -> None:
    """The variables after the queue do not change when the queue wraps."""
    data = program.process.find_vma(program.address)
    assert data is not None
    with assert_unchanged(program.process, (program.address + ctypes.sizeof(Queue), data.end)):
        for item in range(3 * CAPACITY):
            assert program.do(f"put {item}") == "ok"
            program.do("take")


def test_the_counts_wrap(program: Program, procvm_patch: Patches) -> None:
    """The queue works after four thousand million items; the patch skips the wait."""
    almost = (2**32 - 2).to_bytes(4, "little")
    procvm_patch(program.process, program.address, almost + almost, expect=bytes(8))
    for item in range(4):
        assert program.do(f"put {item}") == "ok"
    assert program.queue().tail == 2
    assert [program.do("take") for _ in range(5)] == ["0", "1", "2", "3", "empty"]


def test_a_thread_drains_it(program: Program) -> None:
    """A thread takes each item that is put, at some later time."""
    assert program.do("drain") == "ok"
    for item in range(5):
        assert program.do(f"put {item}") == "ok"
    wait_until(program.process, program.address, procvm.u32, lambda head: head == 5)
    assert program.do("take") == "empty"


@pytest.mark.needs_ptrace
def test_it_never_holds_more_than_it_has_room_for(program: Program) -> None:
    """The counts are consistent at every instant; all threads are stopped for the check."""
    assert program.do("drain") == "ok"
    for item in range(50):
        program.do(f"put {item}")
        with program.process.stopped():
            queue = program.queue()
        assert 0 <= (queue.tail - queue.head) % 2**32 <= CAPACITY
