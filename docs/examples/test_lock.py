"""Tests of the memory of a lock that is written in C.

pytest docs/examples/test_lock.py (with the extras pytest and symbols, and a C compiler)
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from procvm import u32
from procvm.testing import Spawner, wait_until

THREADS = 3


class Lock(ctypes.Structure):
    """`struct lock` of lock.c."""

    _fields_ = [("owner", ctypes.c_uint32), ("takes", ctypes.c_uint32)]


class Program:
    """The program with the lock: its answers and its memory."""

    def __init__(self, spawn: Spawner) -> None:
        self.process = spawn(Path(__file__).with_name("targets") / "lock.c")
        self.address = self.process.symbol("g_lock")
        self.inside = self.process.symbol("g_inside")

    def do(self, command: str) -> None:
        """Tells the program to do something, and waits until it is done."""
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"ok\n"

    def lock(self) -> Lock:
        """Returns a copy of the lock in the memory of the program."""
        return self.process.vm.read_val(self.address, Lock)


@pytest.fixture
def program(procvm_spawn: Spawner) -> Program:
    """A new program for each test; `procvm_spawn` ends it."""
    return Program(procvm_spawn)


def test_the_lock_names_the_thread_that_has_it(program: Program) -> None:
    """A lock that hangs can be asked from outside which thread has it."""
    program.do("take")
    assert program.lock().owner == program.process.pid  # the first thread
    program.do("give")
    assert program.lock().owner == 0


def test_a_taken_lock_keeps_the_others_out(program: Program) -> None:
    """No thread takes it as long as the first one has it; all do after that."""
    program.do("take")
    for _ in range(THREADS):
        program.do("work")
    taken = program.lock().takes
    for _ in range(100):
        assert program.lock().takes == taken
    program.do("give")
    wait_until(program.process, program.address + Lock.takes.offset, u32, lambda n: n > taken + 10)


@pytest.mark.needs_ptrace
def test_never_are_two_threads_inside(program: Program) -> None:
    """All threads are stopped for each look, so that the words belong together."""
    for _ in range(THREADS):
        program.do("work")
    for _ in range(50):
        with program.process.stopped() as held:
            inside = held.vm.read_val(program.inside, u32)
            owner = held.vm.read_val(program.address, u32)
        assert inside <= 1
        assert inside == 0 or owner in {thread.tid for thread in program.process.threads()}


def test_a_lock_whose_owner_died_can_be_given_back_from_outside(program: Program) -> None:
    """An atomic of procvm is one with those of the program: either it or a thread succeeds."""
    vm = program.process.vm
    program.do("take")
    owner, done = vm.atomic_compare_exchange(program.address, u32, program.process.pid, 0)
    assert (owner, done) == (program.process.pid, True)
    program.do("take")
    assert program.lock().owner == program.process.pid
