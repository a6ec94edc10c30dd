# mypy: ignore-errors
"""`read_val` gives int, float or the ctypes class that was asked for."""

import ctypes
from typing import Any, assert_type

from procvm import Fallible, VmReader, VmSpace, f32, f64, i8, u64


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int32), ("y", ctypes.c_int32))


class Either(ctypes.Union):
    _fields_ = (("whole", ctypes.c_uint32), ("real", ctypes.c_float))


Row = ctypes.c_uint16 * 4


def use(reader: VmReader[Fallible], space: VmSpace) -> None:
    assert_type(reader.read_val(u64), int)
    assert_type(reader.read_val(i8), int)
    assert_type(reader.read_val(f32), float)
    assert_type(reader.read_val(f64), float)
    assert_type(reader.read_val(Point), Point)
    assert_type(reader.read_val(Either), Either)
    row: ctypes.Array[Any] = reader.read_val(Row)
    assert_type(space.read_val(0x1000, Point), Point)
    assert_type(space.read_slice(0x1000, Point, len(row)), list[Point])
    assert_type(reader.read_slice(f64, 3), list[float])
    assert_type(reader.read_bytes(3), bytes)
