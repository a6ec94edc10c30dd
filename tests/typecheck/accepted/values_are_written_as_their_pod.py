# mypy: ignore-errors
"""Writing takes the pod's own values, a whole number for a float too."""

import ctypes

from procvm import Fallible, VmSpace, VmWriter, f64, u8, u16, u64


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int32), ("y", ctypes.c_int32))


def use(writer: VmWriter[Fallible], space: VmSpace) -> None:
    writer.write_val(u64, 5)
    writer.write_val(f64, 0.5)
    writer.write_val(f64, 5)
    writer.write_val(Point, Point(1, 2))
    writer.write_slice(u16, (k for k in range(3)))
    writer.write_slice(Point, [Point(), Point()])
    writer.write_bytes(b"abc")
    space.write_val(0x1000, u8, 1)
    space.write_slice(0x1000, f64, [0.5])
    space.write_val(0x1000, Point, Point())
