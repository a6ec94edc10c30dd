"""Buffers that hold pointers of our own process are no place for a target's bytes."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np
import pytest

import procvm


class Named(ctypes.Structure):
    """Plain data whose field names hold the letters of pointers."""

    _fields_ = (("OzZX", ctypes.c_uint32), ("Z", ctypes.c_double))


POINTERS: list[Any] = [
    np.array([None, "text"], dtype=object),
    (ctypes.c_char_p * 2)(b"a", b"b"),
    (ctypes.py_object * 1)(),
    (ctypes.POINTER(ctypes.c_int) * 1)(),
]
PLAIN: list[Any] = [
    bytearray(8),
    np.zeros(2, dtype=np.float64),
    np.zeros(2, dtype=[("O", "u4"), ("z", "f8")]),
    (ctypes.c_uint64 * 2)(),
    (ctypes.c_void_p * 1)(),
    Named(),
]


@pytest.mark.parametrize("buffer", POINTERS, ids=lambda buffer: type(buffer).__name__)
def test_a_buffer_of_pointers_is_refused(buffer: Any) -> None:
    """A writer over it, and a read of a target into it, are TypeErrors."""
    with pytest.raises(TypeError, match="pointers of this process"):
        procvm.VmWriter.from_buffer(buffer)
    with procvm.open(os.getpid()) as process, pytest.raises(TypeError, match="pointers"):
        process.vm.read_into(id(b"x"), buffer)


@pytest.mark.parametrize("buffer", PLAIN, ids=lambda buffer: type(buffer).__name__)
def test_a_buffer_of_plain_data_is_taken(buffer: Any) -> None:
    """Numbers, structures and void pointers are plain data, whatever their fields are called."""
    assert procvm.VmWriter.from_buffer(buffer).avail() == memoryview(buffer).nbytes
