"""`assert_same`: the fields of variables, compared with a snapshot."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

import procvm
from procvm import f64, u32
from procvm.testing import Spawner, assert_same

SOURCE = """
#include <stdio.h>
struct { unsigned head; struct { double ratio; char name[4]; } inner[2]; } g_thing = {1};
unsigned g_count = 5;
int main(void) { puts("ready"); fflush(stdout); getchar(); }
"""


class Inner(ctypes.Structure):
    _fields_ = [("ratio", ctypes.c_double), ("name", ctypes.c_uint8 * 4)]


class Thing(ctypes.Structure):
    _fields_ = [("head", ctypes.c_uint32), ("inner", Inner * 2)]


@pytest.fixture
def program(procvm_spawn: Spawner) -> procvm.Process:
    process = procvm_spawn(SOURCE, traced=False)
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.fixture
def before(program: procvm.Process) -> Iterator[procvm.Snapshot]:
    with program.snapshot() as snapshot:
        yield snapshot


VARIABLES: dict[str, Any] = {"g_thing": Thing, "g_count": u32}


def test_same_values_pass(program: procvm.Process, before: procvm.Snapshot) -> None:
    assert_same(before, program, VARIABLES)
    program.vm.write_val(program.symbol("g_thing") + Thing.inner.offset, f64, float("nan"))
    with program.snapshot() as nan:
        assert_same(nan, program, VARIABLES)  # a NaN that stays is no change


def test_difference_names_each_field_and_both_values(
    program: procvm.Process, before: procvm.Snapshot
) -> None:
    at = program.symbol("g_thing")
    program.vm.write_val(at, u32, 3)
    program.vm.write_val(at + Thing.inner.offset + ctypes.sizeof(Inner), f64, 0.5)
    program.vm.write_bytes(at + Thing.inner.offset + Inner.name.offset + 2, b"x")
    with pytest.raises(AssertionError) as caught:
        assert_same(before, program, VARIABLES)
    assert str(caught.value).splitlines() == [
        f"3 values of process {program.pid} differ from the snapshot:",
        "  g_thing.head: 1 -> 3",
        "  g_thing.inner[0].name[2]: 0 -> 120",
        "  g_thing.inner[1].ratio: 0.0 -> 0.5",
    ]
    assert_same(before, program, VARIABLES, ignore=["g_thing.head", "g_thing.inner"])
    with pytest.raises(AssertionError, match=r"^2 values"):
        assert_same(before, program, VARIABLES, ignore=["g_thing.inner[1]"])


def test_ignored_name_that_is_not_a_field_is_refused(
    program: procvm.Process, before: procvm.Snapshot
) -> None:
    with pytest.raises(ValueError, match=r"ignore names no field of the variables: g_thing\.tail"):
        assert_same(before, program, VARIABLES, ignore=["g_thing.tail"])


def test_two_snapshots_and_a_core_file_are_compared_as_well(
    program: procvm.Process, before: procvm.Snapshot, tmp_path: Any
) -> None:
    before.save(tmp_path / "before.core")
    program.vm.write_val(program.symbol("g_count"), u32, 6)
    with (
        procvm.open_core(tmp_path / "before.core") as core,
        program.snapshot() as after,
        pytest.raises(AssertionError, match="g_count: 5 -> 6"),
    ):
        assert_same(core, after, VARIABLES)
