"""The type of the values of a gather, an array or a search, with numpy and without it."""

from __future__ import annotations

import sys
from math import prod
from operator import index
from typing import Any, NamedTuple

from procvm._base.address import as_len
from procvm._base.optional import numpy_or_none
from procvm._base.pods import Pod, pod_of
from procvm.errors import InvalidArgsError

__all__ = ["Element", "bytes_of_values", "element_of", "new_array"]


class Element(NamedTuple):
    """The type of one value.

    Attributes:
        size: Bytes of one value.
        pod: Makes a value of its bytes; None for a dtype.
        dtype: The numpy dtype; None for a ctypes type that is not a number, and without
            numpy.
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
    return _sized(Element(pod.size, pod, dtype), kind)


def _sized(element: Element, kind: Any) -> Element:
    if element.size == 0:
        raise TypeError(f"{kind!r} has no bytes; give a type that has some, as 'S8'")
    return element


def _is_ctypes(kind: Any) -> bool:
    # numpy would take a structure with pointers of ours for numbers.
    return isinstance(kind, type) and any(
        base.__module__ == "_ctypes" for base in kind.__mro__[-2:-1]
    )


def _of_dtype(np: Any, kind: Any) -> Element:
    try:
        if kind is None or isinstance(kind, bool):
            raise TypeError  # numpy takes None for float64
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
    return _sized(Element(dtype.itemsize, None, dtype), kind)


def _bytes_of_array(np: Any, values: Any, dtype: Any) -> bytes:
    """Returns values as the bytes of an array of a dtype.

    Raises:
        OverflowError: A value that does not fit.
        TypeError: Values of another kind.
    """
    if not isinstance(values, np.ndarray):
        values = list(values)
        if dtype.kind in "iu":
            return _bytes_of_ints(np, values, dtype)  # numpy makes floats of 1 and 2**63
        return _whole(np, values, np.asarray(values), dtype) if values else b""
    if values.dtype == dtype:
        return bytes(np.ascontiguousarray(values).tobytes())
    if dtype.kind in "iu":
        if values.dtype.kind not in "iub":
            raise TypeError(f"values of {values.dtype} are not {dtype}")
        info = np.iinfo(dtype)
        for edge in (values.min(), values.max()) if values.size else ():
            if not info.min <= int(edge) <= info.max:
                raise OverflowError(f"{int(edge)} does not fit {dtype}")
        return bytes(values.astype(dtype).tobytes())
    return _whole(np, values, values, dtype)


def _bytes_of_ints(np: Any, values: list[Any], dtype: Any) -> bytes:
    info = np.iinfo(dtype)
    ints: list[int] = []
    for value in values:
        try:
            ints.append(index(value))
        except TypeError:
            raise TypeError(f"{dtype} takes a number, not {type(value).__name__}") from None
        if not info.min <= ints[-1] <= info.max:
            raise OverflowError(f"{value} does not fit {dtype}")
    return bytes(np.array(ints, dtype=dtype).tobytes())


def _whole(np: Any, values: Any, given: Any, dtype: Any) -> bytes:
    """Converts values that are not integers, and refuses values that numpy would cut."""
    if dtype.kind in "fc" and given.dtype.kind in "iubfc":
        if given.dtype.kind == "c" and dtype.kind == "f":
            raise TypeError(f"values of {given.dtype} are not {dtype}")
        with np.errstate(over="ignore"):
            made = given.astype(dtype)
        if (np.isinf(made) & ~np.isinf(given)).any():
            raise OverflowError(f"a value does not fit {dtype}")
    elif given is not values and dtype.names is not None:
        made = np.asarray(values, dtype=dtype)  # a number out of range raises
    elif given.dtype.kind == "S" and dtype.kind in "SV" and dtype.names is None:
        if given.dtype.itemsize > dtype.itemsize:
            raise OverflowError(f"{given.dtype} does not fit {dtype}")
        made = np.asarray(values, dtype=dtype)
    elif given.dtype.kind == dtype.kind and np.can_cast(given.dtype, dtype, "safe"):
        made = given.astype(dtype)
    else:
        raise TypeError(f"values of {given.dtype} are not {dtype}")
    return bytes(np.ascontiguousarray(made).tobytes())


def bytes_of_values(values: Any, element: Element) -> bytes:
    """Returns the bytes of values, one after the other.

    Raises:
        OverflowError: A number that does not fit.
        TypeError: Not values of that element.
    """
    np = numpy_or_none()
    is_array = np is not None and isinstance(values, np.ndarray)
    if element.pod is not None and not (is_array and element.dtype is not None):
        return element.pod.slice_to_bytes(list(values))
    dtype: Any = element.dtype
    return _bytes_of_array(np, values, dtype.base)


def new_array(np: Any, kind: Any, shape: Any) -> Any:
    """Returns an array of zeros of a pod, a ctypes type or a dtype.

    Raises:
        InvalidArgsError: There is no memory for it.
        ValueError: The shape has a negative length.
    """
    element = element_of(kind)
    dtype = np.dtype(kind) if element.pod is None else element.pod.dtype(np)
    lens = [as_len(n, "a length of the shape") for n in ([shape] if _is_int(shape) else shape)]
    try:
        # numpy would take more bytes than a machine can have for a negative length.
        if prod(lens) * dtype.itemsize > sys.maxsize:
            raise MemoryError
        return np.zeros(lens, dtype)
    except (MemoryError, ValueError):
        raise InvalidArgsError(
            f"{prod(lens)} values of {dtype.itemsize} bytes do not fit this process's memory; "
            "read them in parts"
        ) from None


def _is_int(value: object) -> bool:
    return hasattr(value, "__index__")
