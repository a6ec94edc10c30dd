"""Buffers of our own process: their addresses, and copies between them.

Unsafe: a function that takes an address does not check it.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, cast

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    from typing import TypeAlias

    Buffer: TypeAlias = "bytes | bytearray | memoryview | Any"

__all__ = [
    "Buffer",
    "Pin",
    "Scratch",
    "address_of",
    "address_of_bytes",
    "copy",
    "fill_zeros",
    "load",
    "new_bytes",
    "pin",
    "refuse_pointers",
    "store",
    "view_of",
    "writable_cell",
]

address_of: Callable[[Any], int] = ctypes.addressof
"""Address of a ctypes object, valid while the object lives."""

writable_cell: Callable[[Any], Any] = ctypes.c_char.from_buffer
"""A cell at the first byte of a writable buffer of 1 byte or more, which it holds in place.

A third of the price of `pin`, for the hot path. TypeError: read-only or not C-contiguous.
"""

copy = ctypes.memmove
"""Copies `n` bytes from one own address to another; they may overlap."""

_PyBUF_READ = 0x100
_PyBUF_WRITE = 0x200
_PyBUF_SIMPLE = 0


class _PyBuffer(ctypes.Structure):
    """The interpreter's ``Py_buffer``."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


# `pythonapi["name"]` gives function objects of our own: prototypes set on the
# shared attribute would change what every other user of ctypes sees.
_get_buffer = ctypes.pythonapi["PyObject_GetBuffer"]
_get_buffer.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi["PyBuffer_Release"]
_release_buffer.argtypes = (ctypes.c_void_p,)
_release_buffer.restype = None
_view_from_memory = ctypes.pythonapi["PyMemoryView_FromMemory"]
_view_from_memory.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_view_from_memory.restype = ctypes.py_object
_bytes_of_size = ctypes.pythonapi["PyBytes_FromStringAndSize"]
_bytes_of_size.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
_bytes_of_size.restype = ctypes.py_object
_address_of_bytes = ctypes.pythonapi["PyBytes_AsString"]
_address_of_bytes.argtypes = (ctypes.py_object,)
_address_of_bytes.restype = ctypes.c_void_p


class Pin(NamedTuple):
    """A buffer held in place: its address and length, and what holds it."""

    address: int
    n: int
    view: memoryview


def pin(buf: Buffer, *, writable: bool) -> Pin:
    """Holds a C-contiguous buffer in place for as long as the result lives.

    Raises:
        TypeError: Not a buffer, not C-contiguous, or read-only where a
            writable one is needed.
    """
    view = memoryview(buf)
    if not view.c_contiguous:
        raise TypeError("the buffer is not C-contiguous; copy it into one that is")
    if writable and view.readonly:
        raise TypeError(f"the {type(buf).__name__} is read-only; give a writable buffer")
    if not view.nbytes:
        return Pin(0, 0, view)
    raw = _PyBuffer()
    where = ctypes.addressof(raw)
    try:
        # SAFETY: `raw` outlives both calls; `view` keeps the exporter's memory in
        # place after the second export is released.
        _get_buffer(view, where, _PyBUF_SIMPLE)
        address = int(raw.buf)
    finally:
        # A Ctrl-C is raised after a call returns: with another call before this one the
        # buffer, and the descriptor of a mapping, would never be let go of.
        # SAFETY: a `raw` that was not filled is zeros, whose release does nothing.
        _release_buffer(where)
    return Pin(address, view.nbytes, view)


# Field names, between colons, may hold any letter.
_FIELD_NAME = re.compile(":[^:]*:")


def refuse_pointers(view: memoryview) -> None:
    """Raises TypeError for a buffer of objects or pointers of this process.

    Bytes of a target put there would be followed by the interpreter.
    """
    if not set(_FIELD_NAME.sub("", view.format)).isdisjoint("OzZX&"):
        raise TypeError(
            f"the buffer holds pointers of this process (format {view.format!r}): bytes of a "
            "target in their place would crash the tool; use an array of plain numbers"
        )


class Scratch:
    """A run of zeroed bytes of our own, at a fixed address while it or its view lives.

    Attributes:
        address: Where it is.
        view: All of it, writable. Views and cells made from it keep it alive.
    """

    __slots__ = ("address", "view")

    def __init__(self, n: int) -> None:
        held = pin(bytearray(n), writable=True)
        self.address = held.address
        self.view = held.view


def view_of(address: int, n: int, *, writable: bool) -> memoryview:
    """Returns a view of `n` own bytes at `address`; the caller keeps them alive."""
    # A view of nothing still needs a pointer that is not NULL.
    flags = _PyBUF_WRITE if writable else _PyBUF_READ
    # SAFETY: the caller vouches for the range and keeps it alive.
    return cast("memoryview", _view_from_memory(address or 1, n, flags))


def new_bytes(n: int) -> tuple[bytes, int]:
    """Returns a new bytes object of `n` bytes not filled yet, and their address.

    The caller must fill it before other code sees it. For n = 0 the object is the
    shared empty one, and there is nothing to fill.

    Raises:
        MemoryError: It cannot be allocated.
    """
    # SAFETY: with a NULL source the interpreter makes an object of its own size.
    data = cast("bytes", _bytes_of_size(None, n))
    return data, address_of_bytes(data)


def address_of_bytes(data: bytes) -> int:
    """Returns the address of a bytes object's bytes, valid while it lives."""
    # SAFETY: `data` is a live bytes object; the pointer goes into it.
    return int(_address_of_bytes(data))


def fill_zeros(address: int, n: int) -> None:
    """Sets `n` own bytes to zero."""
    # SAFETY: the caller vouches for the range.
    ctypes.memset(address, 0, n)


def load(ctype: type[Any], address: int) -> Any:
    """Loads one number of a ctypes simple type with a single machine load."""
    # ctypes moves a simple value by a memcpy of constant size, which is one
    # instruction on every machine where the size is that of a register.
    # SAFETY: the caller vouches for the range; the cell does not outlive this line.
    return ctype.from_address(address).value


def store(ctype: type[Any], address: int, value: Any) -> None:
    """Stores one number of a ctypes simple type with a single machine store."""
    # struct.pack_into would clear the bytes before it sets them.
    # SAFETY: the caller vouches for the range; the cell does not outlive this line.
    ctype.from_address(address).value = value
