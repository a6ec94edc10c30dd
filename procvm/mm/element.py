"""What the values of a gather, an array or a search are, for numpy and without it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple, cast

from procvm.address import as_len
from procvm.errors import InvalidArgsError
from procvm.extras import numpy_or_none
from procvm.pod import Pod, pod_of

__all__ = ["Element", "bytes_of_values", "element_of", "new_array"]


class Element(NamedTuple):
    """What one value is.

    Attributes:
        size: Its bytes.
        pod: How to make a value of its bytes; None for a dtype.
        dtype: What numpy calls it; None for a ctypes type that is not a number,
            and without numpy.
    """

    size: int
    pod: Pod[Any] | None
    dtype: Any


def element_of(kind: Any) -> Element:
    """Returns what `kind` is as an element: a pod, a ctypes type, or a numpy dtype.

    Raises:
        TypeError: None of these, or one that holds pointers or objects of our own.
    """
    np = numpy_or_none()
    try:
        pod = pod_of(kind)
    except TypeError:
        if np is None or _is_ctypes(kind):
            raise
        return _of_dtype(np, kind)
    dtype = np.dtype(pod.ctype) if np is not None and pod.code else None
    return Element(pod.size, pod, dtype)


def _is_ctypes(kind: Any) -> bool:
    # numpy would take a structure with pointers of ours for numbers.
    return isinstance(kind, type) and kind.__mro__[-2].__module__ == "_ctypes"


def _of_dtype(np: Any, kind: Any) -> Element:
    try:
        dtype = np.dtype(kind)
    except TypeError:
        raise TypeError(
            f"{kind!r} is not a plain-old-data type: give u8 to f64, a ctypes structure, union or "
            "array, or a numpy dtype"
        ) from None
    if dtype.hasobject:
        raise TypeError(
            f"{dtype} holds Python objects: bytes of a target in their place would crash the tool"
        )
    if dtype.itemsize == 0:
        raise TypeError(f"{dtype} has no size; give it one, as in 'S8'")
    return Element(dtype.itemsize, None, dtype)


def _bytes_of_array(np: Any, values: Any, dtype: Any) -> bytes:
    """Returns values as the bytes of an array of a dtype.

    Raises:
        OverflowError: A number that does not fit.
    """
    given = np.asarray(values)
    if given.dtype == dtype:
        return bytes(np.ascontiguousarray(given).tobytes())
    if given.dtype.kind in "iub" and dtype.kind in "iu":
        info = np.iinfo(dtype)
        for edge in (given.min(), given.max()) if given.size else ():
            if not info.min <= int(edge) <= info.max:
                raise OverflowError(f"{int(edge)} does not fit {dtype}")
    elif not np.can_cast(given.dtype, dtype, "same_kind") and not (
        isinstance(values, Sequence) and dtype.kind == "V"
    ):
        raise TypeError(f"values of {given.dtype} are not {dtype}")
    source = cast(Any, values) if dtype.kind == "V" else given
    return bytes(np.ascontiguousarray(np.asarray(source, dtype=dtype)).tobytes())


def bytes_of_values(values: Any, element: Element) -> bytes:
    """Returns the bytes of values, one after the other.

    Raises:
        OverflowError: A number that does not fit.
        TypeError: Not values of that element.
    """
    np = numpy_or_none()
    if np is not None and isinstance(values, np.ndarray) and element.dtype is not None:
        return _bytes_of_array(np, values, element.dtype)
    if element.pod is not None:
        return element.pod.slice_to_bytes(list(values))
    return _bytes_of_array(np, values, element.dtype)


def new_array(np: Any, kind: Any, shape: Any) -> Any:
    """Returns an array of zeros of a pod, a ctypes type or a dtype.

    Raises:
        InvalidArgsError: There is no memory for it.
        ValueError: The shape has a negative length.
    """
    element = element_of(kind)
    dtype = np.dtype(kind if element.pod is None else element.pod.ctype)
    lens = [as_len(n, "a length of the shape") for n in ([shape] if _is_int(shape) else shape)]
    try:
        # Not more than a machine can have, which numpy would take for a negative length.
        if prod(lens) * dtype.itemsize > sys.maxsize:
            raise MemoryError
        return np.zeros(lens, dtype)
    except MemoryError:
        raise InvalidArgsError(
            f"{prod(lens)} values of {dtype.itemsize} bytes do not fit this process's memory; "
            "read them in parts"
        ) from None


def _is_int(value: object) -> bool:
    return hasattr(value, "__index__")
