# mypy: ignore-errors
"""Atomics take u32 to isize and give the pod's value."""

from typing import assert_type

from procvm import Fallible, VmReader, VmWriter, i32, i64, isize, u32, u64, usize


def use(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    for pod in (u32, i32, u64, i64, usize, isize):
        assert_type(reader.atomic_load(pod), int)
        assert_type(writer.atomic_compare_exchange(reader, pod, 0, 1), tuple[int, bool])
    assert_type(reader.atomic_load(u64), int)
