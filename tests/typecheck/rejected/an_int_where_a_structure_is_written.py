# mypy: ignore-errors
"""A structure is written from its own instances."""

import ctypes

from procvm import Fallible, VmWriter


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int32), ("y", ctypes.c_int32))


def misuse(writer: VmWriter[Fallible]) -> None:
    writer.write_val(Point, 5)  # rejected
