"""Registers of a held thread, whose values the target's own instructions loaded."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

import procvm
from procvm import u64
from procvm._hold.float_registers import float_registers
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="registers of x86-64")

LOW = 0x99AABBCCDDEEFF00_1122334455667788
WIDE = 0xFEDCBA9876543210_0000000000000003_0000000000000002_0000000000000001
PI = 0x4000C90FDAA22168C235  # as fldpi loads it


class Vectors(Child):
    """tests/support/targets/vectors.c, when it waits with its registers loaded."""

    def __init__(self) -> None:
        super().__init__([compiled("vectors")])
        self.word, self.has_avx = self.hexes()
        assert eventually(self._pauses)

    def _pauses(self) -> bool:
        with open(f"/proc/{self.pid}/syscall") as file:
            return file.read().startswith("34 ")


@pytest.fixture
def child() -> Iterator[Vectors]:
    with Vectors() as child:
        yield child


def test_registers_float_has_what_the_target_loaded(child: Vectors) -> None:
    """xmm, ymm, st, mm and the control words are those that the instructions put there."""
    with procvm.attach(child.pid) as tracee, tracee.stopped():
        found = tracee.registers(kind="float")
        assert found["xmm3"] == LOW
        assert found["st0"] == PI
        assert found["fstat"] >> 11 & 7 == 7
        assert found["mm7"] == PI & (1 << 64) - 1
        assert found["fctrl"] == 0x37F
        assert found["mxcsr"] == 0x1F80
        if child.has_avx:
            assert found["ymm4"] == WIDE
            assert found["xmm4"] == WIDE & (1 << 128) - 1
        assert "rip" not in found


def test_registers_all_joins_both_kinds(child: Vectors) -> None:
    """The kind "all" is general and float together; a kind that does not exist is refused."""
    with procvm.attach(child.pid) as tracee, tracee.stopped():
        everything = tracee.registers(child.pid, "all")
        assert everything == tracee.registers(kind="general") | tracee.registers(kind="float")
        with pytest.raises(ValueError, match="general, float, all"):
            tracee.registers(kind="vector")  # type: ignore[arg-type]
    with procvm.attach(child.pid) as tracee, pytest.raises(procvm.NotStoppedError):
        tracee.registers(kind="float")


def test_address_with_a_register_is_the_threads(child: Vectors) -> None:
    """The target pushed the address of its word: `*$rsp` is that address, in a hold only."""
    with procvm.attach(child.pid) as tracee:
        with tracee.stopped():
            assert tracee.address("*$rsp") == child.word
            assert tracee.address("$rsp+8") == tracee.registers()["rsp"] + 8
            assert tracee.vm.read_val(tracee.address("$rbx", tid=child.pid), u64) == 0x5EED
            with pytest.raises(procvm.InvalidArgsError, match="'rbp2'"):
                tracee.address("$rbp2")
            with pytest.raises(procvm.NoSuchProcessError):
                tracee.address("$rbx", tid=1)
        with pytest.raises(procvm.NotStoppedError):
            tracee.address("$rsp")
    with procvm.open(child.pid) as process, pytest.raises(procvm.InvalidArgsError, match="held"):
        process.address("$rsp")


def test_float_registers_of_aarch64_are_those_of_the_kernels_structure() -> None:
    """32 vectors of 16 bytes, then the status and the control word; fewer bytes are none."""
    data = b"".join(struct.pack("<QQ", i, 1) for i in range(32)) + struct.pack("<II8x", 5, 6)
    found = float_registers("aarch64", data, has_xstate=False)
    assert found is not None
    assert found["v31"] == 1 << 64 | 31
    assert (found["fpsr"], found["fpcr"]) == (5, 6)
    assert float_registers("aarch64", data[:100], has_xstate=False) is None
    assert float_registers("riscv64", data, has_xstate=False) is None
