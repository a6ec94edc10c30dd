"""Bytes of a read that could not be proved to be the target's are wiped."""

from __future__ import annotations

import ctypes
import os
from typing import cast

import pytest

import procvm
from procvm._linux.outcome import Outcome
from procvm._linux.process_vm import TOKEN_LEN, Guard, VmCalls
from procvm._live.image import Image
from procvm._live.memory import ProcessMemory
from tests.support.playground import Playground, pattern

LEN = 300


@pytest.fixture
def room() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(b"\xee" * LEN, LEN)


def test_call_with_another_token_wipes_what_it_read(
    playground: Playground, room: ctypes.Array[ctypes.c_char]
) -> None:
    """A call by pid that reached another program returns no byte of it, only failure."""
    base = playground.layout("rw")
    at = playground.random_at()
    pidfd = os.pidfd_open(playground.pid)
    try:
        right, wrong = playground.peek(at, TOKEN_LEN), os.urandom(TOKEN_LEN)
        calls = VmCalls(Guard(playground.pid, pidfd, at, right, pinned=False))
        assert calls.read(base, ctypes.addressof(room), LEN) == LEN
        assert room.raw == pattern(base, LEN)
        calls = VmCalls(Guard(playground.pid, pidfd, at, wrong, pinned=False))
        assert calls.read(base, ctypes.addressof(room), LEN) == -1
        assert room.raw == bytes(LEN)
    finally:
        os.close(pidfd)


class _Files:
    """An address space that the process left between the read and the proof."""

    def read(self, address: int, own_address: int, n: int, need: int) -> tuple[int, Outcome, int]:
        assert address
        assert not need & ~procvm.Perms.READ
        ctypes.memset(own_address, 0x55, n)
        return n, Outcome.DONE, 0


class _Image:
    """An image whose process shared its address space, and runs another program now."""

    calls = None
    by_calls = False
    shared = True

    def prove_if_due(self, copied_len: int) -> None:
        """Raises nothing: the process was the right one before the read."""

    def open_files(self, copied_len: int) -> _Files:
        return _Files()

    def prove(self, copied_len: int) -> None:
        raise procvm.ProcessExecedError("it runs another program", pid=1)


def test_read_by_mem_of_a_shared_address_space_unproved_is_wiped(
    room: ctypes.Array[ctypes.c_char],
) -> None:
    """The child of a vfork execs during a read: the bytes are its parent's, and are wiped."""
    memory = ProcessMemory(cast("Image", _Image()), None)
    with pytest.raises(procvm.ProcessExecedError):
        memory.read(0x1000, ctypes.addressof(room), LEN)
    assert room.raw == bytes(LEN)
