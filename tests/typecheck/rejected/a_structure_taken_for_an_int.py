# mypy: ignore-errors
"""A structure is read as itself."""

import ctypes

from procvm import Fallible, VmReader


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int32), ("y", ctypes.c_int32))


def misuse(reader: VmReader[Fallible]) -> int:
    return reader.read_val(Point)  # rejected
