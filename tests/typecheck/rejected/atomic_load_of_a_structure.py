# mypy: ignore-errors
"""A structure has no atomics."""

import ctypes

from procvm import Fallible, VmReader


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int32), ("y", ctypes.c_int32))


def misuse(reader: VmReader[Fallible]) -> None:
    reader.atomic_load(Point)  # rejected
