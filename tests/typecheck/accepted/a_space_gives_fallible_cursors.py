# mypy: ignore-errors
"""A target's cursors are fallible, and a space has values, strings and atomics."""

from typing import assert_type

from procvm import Fallible, VmReader, VmSpace, VmWriter, i64, u32, u64


def use(space: VmSpace) -> None:
    assert_type(space.reader(0x1000, 8), VmReader[Fallible])
    assert_type(space.writer(0x1000, 8), VmWriter[Fallible])
    assert_type(space.reader_writer(0, 8), tuple[VmReader[Fallible], VmWriter[Fallible]])
    assert_type(VmReader.from_user_space(space, 0x1000, 8), VmReader[Fallible])
    assert_type(VmWriter.from_user_space(space, 0x1000, 8), VmWriter[Fallible])
    assert_type(space.read_cstring(0x1000, 64), bytes)
    assert_type(space.atomic_load(0x1000, u64), int)
    assert_type(space.atomic_compare_exchange(0x1000, u32, 0, 1), tuple[int, bool])
    assert_type(space.atomic_fetch_update(0x1000, i64, lambda old: old + 1), int)
    assert_type(space.forced().read_val(0x1000, u64), int)
