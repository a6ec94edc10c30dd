"""The C library that the interpreter has loaded: the one place that opens it with ctypes.

A function is called without prototypes: with `argtypes` a small read takes twice as long. So the
caller wraps every argument that is wider than a C int (`c_void_p`, `c_size_t`, `byref`); a bare
int would be passed as 32 bits.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Protocol

__all__ = ["Function", "c_function", "system_call"]


class Function(Protocol):
    """A C function."""

    restype: Any

    def __call__(self, *args: Any) -> int: ...


@functools.cache
def _library(*, keeps_errno: bool) -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=keeps_errno)


def c_function(name: str, result: Any, *, keeps_errno: bool = False) -> Function:
    """Returns a function of the C library, as an object that no other caller has.

    Args:
        name: Its name.
        result: The ctypes type of its result.
        keeps_errno: Whether `ctypes.get_errno` gives the errno of a call. It takes a tenth of
            a microsecond per call.

    Raises:
        AttributeError: The C library lacks it.
    """
    # By index, since an attribute would be shared, and its result type with it.
    found: Function = _library(keeps_errno=keeps_errno)[name]
    found.restype = result
    return found


def system_call(*, keeps_errno: bool = False) -> Function:
    """Returns syscall(2), for a call that the C library has no function for."""
    return c_function("syscall", ctypes.c_long, keeps_errno=keeps_errno)
