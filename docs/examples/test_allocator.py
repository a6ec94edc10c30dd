"""Tests of the memory of an allocator that is written in C.

pytest docs/examples/test_allocator.py (with the extras pytest and symbols, and a C compiler)
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from procvm.testing import Spawner, assert_same, assert_unchanged

BLOCKS, BLOCK_LEN = 8, 32
GUARD = 0xFEEDFACE


class Block(ctypes.Structure):
    """`struct block` of allocator.c."""

    _fields_ = [("next", ctypes.c_uint64), ("rest", ctypes.c_uint8 * (BLOCK_LEN - 8))]


class Pool(ctypes.Structure):
    """`struct pool` of allocator.c."""

    _fields_ = [
        ("free_count", ctypes.c_uint32),
        ("guard", ctypes.c_uint32),
        ("free", ctypes.c_uint64),
        ("blocks", Block * BLOCKS),
        ("used", ctypes.c_uint8 * BLOCKS),
    ]


class Program:
    """The program with the pool: its answers and its memory."""

    def __init__(self, spawn: Spawner) -> None:
        self.process = spawn(Path(__file__).with_name("targets") / "allocator.c")
        self.address = self.process.symbol("g_pool")
        self.do("put 0")  # the program has made its free list when it answers

    def do(self, command: str) -> str:
        """Tells the program to do something; returns its answer."""
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        return str(self.process.stdout.readline(), "ascii").strip()

    def pool(self) -> Pool:
        """Returns a copy of the pool in the memory of the program."""
        return self.process.vm.read_val(self.address, Pool)

    def free_blocks(self) -> list[int]:
        """Returns the numbers of the blocks in the free list, in order."""
        pool, found = self.pool(), []
        first, at = self.address + Pool.blocks.offset, pool.free
        while at:
            number, rest = divmod(at - first, BLOCK_LEN)
            assert rest == 0, f"{at:#x} in the free list is not the start of a block"
            assert 0 <= number < BLOCKS, f"{at:#x} in the free list is outside of the pool"
            assert number not in found, f"block {number} is in the free list twice"
            found.append(number)
            at = pool.blocks[number].next
        return found


@pytest.fixture
def program(procvm_spawn: Spawner) -> Program:
    """A new program for each test; `procvm_spawn` ends it."""
    return Program(procvm_spawn)


def test_each_block_is_given_once(program: Program) -> None:
    """Blocks do not overlap, and an empty pool gives none."""
    given = [int(program.do("get")) for _ in range(BLOCKS)]
    assert sorted(given) == list(range(BLOCKS))
    assert program.free_blocks() == []
    assert program.do("get") == "-1"


def test_the_free_list_has_each_free_block_once(program: Program) -> None:
    """After any order of calls, each block is either used or in the list."""
    for command in ("get", "get", "get", "put 1", "get", "put 0", "put 2"):
        program.do(command)
    pool = program.pool()
    used = [k for k in range(BLOCKS) if pool.used[k]]
    assert sorted([*used, *program.free_blocks()]) == list(range(BLOCKS))
    assert pool.free_count == len(program.free_blocks())


def test_a_double_free_changes_nothing(program: Program) -> None:
    """A block that is not used is refused, and no byte of the pool changes."""
    program.do("get")
    program.do("put 0")
    with assert_unchanged(
        program.process, (program.address, program.address + ctypes.sizeof(Pool))
    ):
        assert program.do("put 0") == "refused"
        assert program.do("put 99") == "refused"


def test_get_and_put_leave_the_pool_as_it_was(program: Program) -> None:
    """The message of a failure would name the field, as in `g_pool.free_count: 8 -> 7`."""
    with program.process.snapshot() as before:
        program.do("put " + program.do("get"))
        assert_same(before, program.process, {"g_pool": Pool})


def test_a_write_inside_a_block_leaves_its_neighbours(program: Program) -> None:
    """All bytes of a block may be written; a byte more destroys the list, which the test sees."""
    assert [program.do("get"), program.do("get")] == ["0", "1"]
    free = program.free_blocks()
    program.do(f"fill 1 {BLOCK_LEN}")
    assert program.free_blocks() == free
    assert program.pool().guard == GUARD
    program.do(f"fill 1 {BLOCK_LEN + 1}")
    with pytest.raises(AssertionError, match="in the free list"):
        program.free_blocks()
