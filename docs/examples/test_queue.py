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
    """The program that has the queue, what it says, and what its memory says."""

    def __init__(self, spawn: Spawner) -> None:
        self.process = spawn(Path(__file__).with_name("targets") / "queue.c")
        self.address = self.process.symbol("g_queue")

    def do(self, command: str) -> str:
        """Tells the program to do something; returns its answer."""
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        return str(self.process.stdout.readline(), "ascii").strip()

    def queue(self) -> Queue:
        """Returns the queue as it is in the memory of the program."""
        return self.process.vm.read_val(self.address, Queue)


@pytest.fixture
def program(procvm_spawn: Spawner) -> Program:
    """A program of its own for each test; the fixture that it uses ends it."""
    return Program(procvm_spawn)


def test_items_lie_in_the_slots_in_order(program: Program) -> None:
    """What was put is where the queue says that it is."""
    for item in (30, 40, 50):
        assert program.do(f"put {item}") == "ok"
    queue = program.queue()
    assert (queue.head, queue.tail) == (0, 3)
    assert list(queue.slots) == [30, 40, 50, 0, 0, 0, 0, 0]


def test_a_full_queue_is_left_as_it_is(program: Program) -> None:
    """The item that has no room is refused, and changes no byte of the queue."""
    for item in range(CAPACITY):
        assert program.do(f"put {item}") == "ok"
    here = (program.address, program.address + ctypes.sizeof(Queue))
    with assert_unchanged(program.process, here):
        assert program.do("put 99") == "full"


def test_nothing_is_written_behind_the_queue(program: Program) -> None:
    """What the program keeps there stays as it is, however often the queue goes round."""
    data = program.process.find_vma(program.address)
    assert data is not None
    with assert_unchanged(program.process, (program.address + ctypes.sizeof(Queue), data.end)):
        for item in range(3 * CAPACITY):
            assert program.do(f"put {item}") == "ok"
            program.do("take")


def test_the_counts_wrap(program: Program, procvm_patch: Patches) -> None:
    """After four thousand million items it works as after none; nobody waits for that."""
    almost = (2**32 - 2).to_bytes(4, "little")
    procvm_patch(program.process, program.address, almost + almost, expect=bytes(8))
    for item in range(4):
        assert program.do(f"put {item}") == "ok"
    assert program.queue().tail == 2
    assert [program.do("take") for _ in range(5)] == ["0", "1", "2", "3", "empty"]


def test_a_thread_drains_it(program: Program) -> None:
    """What is put is taken, sooner or later: when, nobody says."""
    assert program.do("drain") == "ok"
    for item in range(5):
        assert program.do(f"put {item}") == "ok"
    wait_until(program.process, program.address, procvm.u32, lambda head: head == 5)
    assert program.do("take") == "empty"


@pytest.mark.needs_ptrace
def test_it_never_holds_more_than_it_has_room_for(program: Program) -> None:
    """At any instant the counts fit together; all threads stand still for the look."""
    assert program.do("drain") == "ok"
    for item in range(50):
        program.do(f"put {item}")
        with program.process.stopped():
            queue = program.queue()
        assert 0 <= (queue.tail - queue.head) % 2**32 <= CAPACITY
