# mypy: ignore-errors
"""A structure is not moved by one load."""

import ctypes

from procvm import Infallible, VmReader


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int32), ("y", ctypes.c_int32))


def misuse(reader: VmReader[Infallible]) -> None:
    reader.read_once(Point)  # rejected
