"""Plain-old-data types: what a value in memory may be.

A *pod* is one of the names `u8` to `usize`, `i8` to `isize`, `f32`, `f64`, or any
ctypes structure, union, array or simple type made of plain data. Every
function that takes a pod takes either.
"""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from _ctypes import _SimpleCData  # pyright: ignore[reportPrivateUsage]  # c_int has no other base

__all__ = [
    "PODS",
    "C",
    "Pod",
    "PodAtomic",
    "PodLike",
    "PodOnce",
    "PodOnceAtomic",
    "atomic_pod",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "isize",
    "once_pod",
    "pod_of",
    "require_aligned",
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
]

T = TypeVar("T")

_INFINITIES = (struct.pack("@f", math.inf), struct.pack("@f", -math.inf))


_SIMPLE: type[Any] = ctypes.c_int.__mro__[1]
_POINTER: type[Any] = ctypes.POINTER(ctypes.c_int).__mro__[1]
_FUNCTION: type[Any] = ctypes.CFUNCTYPE(None).__mro__[1]
_POINTER_CODES = frozenset("zZOX")  # c_char_p, c_wchar_p, py_object, BSTR


def _check_plain(ctype: type[Any], path: str) -> None:
    """Refuses a type that holds an address of our own process, at any depth."""
    if issubclass(ctype, _SIMPLE):
        plain = getattr(ctype, "_type_", "") not in _POINTER_CODES
    elif issubclass(ctype, ctypes.Array):
        _check_plain(cast("type[Any]", ctype._type_), f"{path}[]")
        return
    elif issubclass(ctype, ctypes.Structure | ctypes.Union):
        for base in ctype.__mro__:
            for field in base.__dict__.get("_fields_", ()):
                _check_plain(field[1], f"{path}.{field[0]}")
        return
    else:
        plain = False
    if not plain:
        raise TypeError(
            f"{path} is a {ctype.__name__}, a pointer of this process: reading it from another "
            "one and following it would crash the tool; use usize (or c_size_t in a structure)"
        )


class Pod(Generic[T]):
    """A type of value: every bit pattern is valid, and it holds no pointer of this process.

    Attributes:
        name: The name of the type: ``u32``, or that of the ctypes class.
        ctype: The ctypes type with the same layout.
        size: Bytes of a value.
        align: Alignment of a value in bytes.
        code: The native `struct` code of a number; empty for a ctypes type.

    Source:
        OSTD ``Pod``.
    """

    __slots__ = ("align", "code", "ctype", "name", "packer", "size")

    def __init__(self, name: str, ctype: type[Any], code: str = "") -> None:
        _check_plain(ctype, name)
        if code and struct.calcsize("@" + code) != ctypes.sizeof(ctype):
            raise ValueError(f"{name}: the struct code {code!r} is not as long as {ctype.__name__}")
        self.name = name
        self.ctype = ctype
        self.size = ctypes.sizeof(ctype)
        self.align = ctypes.alignment(ctype)
        self.code = code
        # The native mode ("@"): the standard one moves a number byte by byte.
        self.packer = struct.Struct("@" + code) if code else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def from_bytes(self, data: bytes | bytearray | memoryview, offset: int = 0) -> T:
        """Returns the value at `offset` of `data`, copied."""
        if self.packer is not None:
            return cast("T", self.packer.unpack_from(data, offset)[0])
        return cast("T", self.ctype.from_buffer_copy(data, offset))

    def from_cell(self, cell: Any) -> T:
        """Returns the value of a new object of `ctype`, which is not used for anything else."""
        return cast("T", cell.value if self.code else cell)

    def dtype(self, np: Any) -> Any:
        """Returns the numpy dtype with the same layout."""
        return np.dtype(self.ctype)

    def to_bytes(self, value: T) -> bytes:
        """Returns the bytes of `value`, `size` of them.

        Raises:
            OverflowError: A number that does not fit.
            TypeError: Not a value of this pod.
        """
        if self.packer is None:
            # A subclass with fields of its own would overwrite the bytes after the value.
            if not isinstance(value, self.ctype) or ctypes.sizeof(cast("Any", value)) != self.size:
                raise TypeError(f"{self.name} takes a {self.name}, not {type(value).__name__}")
            return bytes(cast("Any", value))
        try:
            data = self.packer.pack(value)
        except (struct.error, OverflowError):
            raise self._misfit(value) from None
        if self.code == "f" and data in _INFINITIES and not math.isinf(cast("float", value)):
            # The native mode packs a number that is too large as infinity.
            raise self._misfit(value)
        return data

    def _misfit(self, value: object) -> Exception:
        if hasattr(value, "__index__") or (self.code in "fd" and hasattr(value, "__float__")):
            return OverflowError(f"{value} does not fit {self.name}")
        return TypeError(f"{self.name} takes a number, not {type(value).__name__}")

    def slice_from_bytes(self, data: bytes, n: int) -> list[T]:
        """Returns the `n` consecutive values in `data`."""
        if self.code:
            view = cast("Any", memoryview(data))
            return cast("list[T]", view.cast(self.code).tolist())
        return [self.from_bytes(data, k * self.size) for k in range(n)]

    def slice_to_bytes(self, values: list[T]) -> bytes:
        """Returns the bytes of `values`, joined.

        Raises:
            OverflowError: A number that does not fit; the message names which.
            TypeError: Not values of this pod.
        """
        if self.code and self.code != "f":
            try:
                return struct.pack(f"@{len(values)}{self.code}", *values)
            except (struct.error, OverflowError):
                pass  # the loop below finds the number that does not fit
        return b"".join([self.to_bytes(value) for value in values])


class PodOnce(Pod[T]):
    """A pod that one load or store of this machine moves whole.

    Source:
        OSTD ``PodOnce``.
    """

    __slots__ = ()


class PodAtomic(Pod[T]):
    """A pod that can be loaded and compared-and-exchanged atomically.

    Source:
        OSTD ``PodAtomic``.
    """

    __slots__ = ()


class PodOnceAtomic(PodOnce[T], PodAtomic[T]):
    """A pod that is both `PodOnce` and `PodAtomic`."""

    __slots__ = ()


C = TypeVar(
    "C",
    bound="ctypes.Structure | ctypes.Union | ctypes.Array[Any] | _SimpleCData[Any]",
)

PodLike: TypeAlias = Pod[T] | type[T]

u8: PodOnce[int] = PodOnce("u8", ctypes.c_uint8, "B")
u16: PodOnce[int] = PodOnce("u16", ctypes.c_uint16, "H")
u32: PodOnceAtomic[int] = PodOnceAtomic("u32", ctypes.c_uint32, "I")
u64: PodOnceAtomic[int] = PodOnceAtomic("u64", ctypes.c_uint64, "Q")
usize: PodOnceAtomic[int] = PodOnceAtomic("usize", ctypes.c_size_t, "N")
i8: PodOnce[int] = PodOnce("i8", ctypes.c_int8, "b")
i16: PodOnce[int] = PodOnce("i16", ctypes.c_int16, "h")
i32: PodOnceAtomic[int] = PodOnceAtomic("i32", ctypes.c_int32, "i")
i64: PodOnceAtomic[int] = PodOnceAtomic("i64", ctypes.c_int64, "q")
isize: PodOnceAtomic[int] = PodOnceAtomic("isize", ctypes.c_ssize_t, "n")
f32: Pod[float] = Pod("f32", ctypes.c_float, "f")
f64: Pod[float] = Pod("f64", ctypes.c_double, "d")

PODS: dict[str, Pod[Any]] = {
    name: pod for name, pod in tuple(globals().items()) if isinstance(pod, Pod)
}
"""The pods defined above, by name. The types of the command and its completion come from it."""


@functools.lru_cache(maxsize=1024)
def _pod_of_ctype(ctype: Any) -> Pod[Any]:
    own: Pod[Any] | None = ctype.__dict__.get("_procvm_pod_")
    return Pod(ctype.__name__, ctype) if own is None else own


def pod_of(kind: PodLike[T]) -> Pod[T]:
    """Returns `kind` if it is a pod, or the pod of a ctypes type.

    Raises:
        TypeError: Neither a pod nor a ctypes type of plain data; or a ctypes
            type that holds a pointer of our own process.
    """
    if isinstance(kind, Pod):
        return kind
    if isinstance(cast("object", kind), type) and issubclass(
        kind, _SIMPLE | _POINTER | _FUNCTION | ctypes.Structure | ctypes.Union | ctypes.Array
    ):
        pod = _pod_of_ctype(cast("Any", kind))
        if pod.size != ctypes.sizeof(cast("Any", kind)):
            # It had no fields yet when it was first seen.
            _pod_of_ctype.cache_clear()
            pod = _pod_of_ctype(cast("Any", kind))
        return pod
    raise TypeError(
        f"{kind!r} is not a plain-old-data type: give {_names(Pod)}, or a ctypes structure, "
        "union or array"
    )


def _names(promise: type[Pod[Any]]) -> str:
    *names, last = [name for name, pod in PODS.items() if isinstance(pod, promise)]
    return f"{', '.join(names)} or {last}"


def once_pod(kind: PodOnce[T]) -> PodOnce[T]:
    """Returns `kind`, checked at run time to be a `PodOnce`."""
    if not isinstance(cast("object", kind), PodOnce):
        raise TypeError(f"{kind!r} cannot be moved by one load or store; use {_names(PodOnce)}")
    return kind


def atomic_pod(kind: PodAtomic[T]) -> PodAtomic[T]:
    """Returns `kind`, checked at run time to be a `PodAtomic`."""
    if not isinstance(cast("object", kind), PodAtomic):
        raise TypeError(f"{kind!r} has no atomics; use {_names(PodAtomic)}")
    return kind


def require_aligned(address: int, pod: Pod[Any]) -> None:
    """Raises ValueError if a value at `address` is not moved whole by the processor."""
    if address % pod.size:
        raise ValueError(
            f"{address:#x} is not aligned for {pod.name}: it must be a multiple of {pod.size}"
        )
