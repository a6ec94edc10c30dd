"""Pods made of debug information, and the values that they give."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast, final

from procvm._base.pods import Pod
from procvm._space.view import Address, Enumerator, view_of_kind

__all__ = [
    "ArrayPod",
    "Composite",
    "Member",
    "StructPod",
    "WordPod",
    "enum_pod",
    "listed",
    "members_of",
    "pointer_pod",
]


def _class(name: str, base: Any, body: dict[str, Any]) -> type[Any]:
    """Returns a new ctypes class."""
    made: type[Any] = type(base)(name, (base,), body)
    return made


class Bytes(Protocol):
    """Memory that a bit field is read from and written to."""

    def read_bytes(self, vaddr: int, n: int, /) -> bytes: ...
    def write_bytes(self, vaddr: int, data: Any, /) -> None: ...


class Composite(ctypes.Structure):
    """A structure, union or class of the target, as its debug information lays it out.

    It holds the bytes; each member is an attribute. Members that are structures or arrays of
    numbers share the bytes.
    """

    _procvm_members_: Mapping[str, Member] = {}

    def __repr__(self) -> str:
        members = ", ".join(f"{name}={value!r}" for name, value in members_of(self).items())
        return f"{type(self).__name__}({members})"

    def __dir__(self) -> list[str]:
        return [*self._procvm_members_]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bytes(self) == bytes(cast("Any", other))

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __setattr__(self, name: str, value: Any) -> None:
        # Without this, a name that is spelled wrong would be stored and never written.
        if name not in self._procvm_members_:
            raise AttributeError(f"{type(self).__name__} has no member {name!r}")
        super().__setattr__(name, value)


@final
class Member:
    """A member of a structure: a descriptor of a `Composite`, and of a view of one.

    Attributes:
        pod: The pod of its type.
        bit_offset: Where it begins, in bits.
        nr_bits: The bits of a bit field; None if it is not one.
    """

    __slots__ = ("bit_offset", "name", "nr_bits", "pod", "signed")

    def __init__(
        self, name: str, pod: Pod[Any], bit_offset: int, nr_bits: int | None, *, signed: bool
    ) -> None:
        self.name = name
        self.pod = pod
        self.bit_offset = bit_offset
        self.nr_bits = nr_bits
        self.signed = signed

    @property
    def offset(self) -> int:
        """The byte that it begins in."""
        return self.bit_offset // 8

    def moved(self, bits: int) -> Member:
        """Returns the same member, as a member of what holds its structure."""
        at = self.bit_offset + bits
        return Member(self.name, self.pod, at, self.nr_bits, signed=self.signed)

    # In a copy

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        if owner is None:
            return self
        if self.nr_bits is not None:
            start, n = self._span()
            return self._bits(bytes(memoryview(owner).cast("B")[start : start + n]))
        if isinstance(self.pod, StructPod) or (
            isinstance(self.pod, ArrayPod) and self.pod.is_shared
        ):
            return self.pod.ctype.from_buffer(owner, self.offset)
        return self.pod.from_bytes(memoryview(owner).cast("B"), self.offset)

    def __set__(self, owner: Any, value: Any) -> None:
        data = memoryview(owner).cast("B")
        if self.nr_bits is not None:
            start, n = self._span()
            data[start : start + n] = self._with_bits(bytes(data[start : start + n]), value)
        else:
            data[self.offset : self.offset + self.pod.size] = self.pod.to_bytes(value)

    # In memory

    def read(self, space: Any, address: int) -> Any:
        """Returns a view of it, or its value, in the structure at an address."""
        if self.nr_bits is None:
            return view_of_kind(space, address + self.offset, self.pod)
        start, n = self._span()
        return self._bits(cast("Bytes", space).read_bytes(address + start, n))

    def write(self, space: Any, address: int, value: Any) -> None:
        """Writes it in the structure at an address; the other bits of its bytes stay."""
        if self.nr_bits is None:
            space.write_bytes(address + self.offset, self.pod.to_bytes(value))
            return
        start, n = self._span()
        data = cast("Bytes", space).read_bytes(address + start, n)
        cast("Bytes", space).write_bytes(address + start, self._with_bits(data, value))

    def _span(self) -> tuple[int, int]:
        """Returns the offset and the number of the bytes that a bit field is in."""
        end = self.bit_offset + (self.nr_bits or 0)
        return self.offset, (end + 7) // 8 - self.offset

    def _bits(self, data: bytes) -> Any:
        nr_bits = self.nr_bits or 0
        value = int.from_bytes(data, "little") >> self.bit_offset % 8 & (1 << nr_bits) - 1
        if self.signed and value >> (nr_bits - 1):
            value -= 1 << nr_bits
        if isinstance(self.pod, WordPod):
            return self.pod.convert(value)
        return bool(value) if self.pod.code == "?" else value

    def _with_bits(self, data: bytes, value: Any) -> bytes:
        nr_bits = self.nr_bits or 0
        low = -(1 << (nr_bits - 1)) if self.signed else 0
        if not low <= int(value) < low + (1 << nr_bits):
            raise OverflowError(f"{value} does not fit the {nr_bits} bits of {self.name}")
        shift = self.bit_offset % 8
        mask = (1 << nr_bits) - 1 << shift
        whole = int.from_bytes(data, "little") & ~mask | int(value) << shift & mask
        return whole.to_bytes(len(data), "little")


@final
class StructPod(Pod[Any]):
    """The pod of a structure, union or class; a call makes a value: ``Node(id=3)``."""

    __slots__ = ()

    def __init__(self, name: str, size: int, members: Mapping[str, Member]) -> None:
        # The bytes have an index for a name: no member can be called so.
        body: dict[str, Any] = {
            "_fields_": [("0", ctypes.c_uint8 * size)],
            "_procvm_members_": members,
            "__module__": __name__,
            **members,
        }
        super().__init__(name, _class(name, Composite, body))
        self.ctype._procvm_pod_ = self

    def dtype(self, np: Any) -> Any:
        """Returns a structured dtype; it leaves bit fields out."""
        whole = {name: one for name, one in self.members.items() if one.nr_bits is None}
        return np.dtype(
            {
                "names": list(whole),
                "formats": [one.pod.dtype(np) for one in whole.values()],
                "offsets": [one.offset for one in whole.values()],
                "itemsize": self.size,
            }
        )

    def __call__(self, **members: Any) -> Any:
        """Returns a value whose other bytes are 0."""
        made = self.ctype()
        for name, value in members.items():
            setattr(made, name, value)
        return made

    @property
    def members(self) -> Mapping[str, Member]:
        """Its members by name, in their order."""
        return cast("Mapping[str, Member]", self.ctype._procvm_members_)


class WordPod(Pod[Any]):
    """The pod of one value whose Python value is not that of ctypes: a pointer, an enum."""

    __slots__ = ("convert",)

    def __init__(self, name: str, base: type[Any], convert: Callable[[Any], Any]) -> None:
        super().__init__(name, _class(name, base, {"__module__": __name__}))
        self.convert = convert
        self.ctype._procvm_pod_ = self

    def from_cell(self, cell: Any) -> Any:
        """Returns the value of a cell."""
        return self.convert(cell.value)

    def dtype(self, np: Any) -> Any:
        """Returns the dtype of the number."""
        return np.dtype(self.ctype.__mro__[1])

    def from_bytes(self, data: bytes | bytearray | memoryview, offset: int = 0) -> Any:
        """Returns the value at `offset` of `data`."""
        return self.convert(self.ctype.from_buffer_copy(data, offset).value)

    def to_bytes(self, value: Any) -> bytes:
        """Returns the bytes of a number.

        Raises:
            OverflowError: It does not fit.
            TypeError: It is not a number.
        """
        if isinstance(value, self.ctype):
            return bytes(value)
        cell: Any = self.ctype(value)
        if isinstance(value, int) and isinstance(cell.value, int) and cell.value != value:
            raise OverflowError(f"{int(value)} does not fit {self.name}")
        return bytes(cell)


def pointer_pod(name: str, size: int, target: Callable[[], Pod[Any] | None]) -> WordPod:
    """Returns the pod of a pointer.

    Args:
        name: The name of its type.
        size: Its bytes, 4 or 8.
        target: Returns the pod of what it points to; None if that has no values.
    """
    base = ctypes.c_uint64 if size == 8 else ctypes.c_uint32
    return WordPod(name, base, lambda value: Address(value, None, target))


def enum_pod(name: str, base: type[Any], names: Mapping[int, str]) -> WordPod:
    """Returns the pod of an enumeration with the names of its values."""
    return WordPod(name, base, lambda value: Enumerator(value, names.get(value)))


@final
class ArrayPod(Pod[Any]):
    """The pod of an array.

    A value of characters is bytes, up to the first NUL; one of numbers, structures or arrays
    is a ctypes array; one of pointers or enumerators is a tuple.
    """

    __slots__ = ("element", "length")

    def __init__(self, name: str, element: Pod[Any], length: int) -> None:
        ctype: Any = element.ctype
        super().__init__(name, ctype * length)
        self.element = element
        self.length = length

    @property
    def is_shared(self) -> bool:
        """Whether a value in a structure shares the bytes of the structure."""
        inner = self.element
        while isinstance(inner, ArrayPod):
            inner = inner.element
        return not isinstance(inner, WordPod) and inner.ctype is not ctypes.c_char

    def from_cell(self, cell: Any) -> Any:
        """Returns the value of an array that was filled."""
        return cell if self.is_shared else self.from_bytes(bytes(cell))

    def dtype(self, np: Any) -> Any:
        """Returns a dtype with a shape, or one of bytes."""
        if self.element.ctype is ctypes.c_char:
            return np.dtype((np.bytes_, self.length))
        return np.dtype((self.element.dtype(np), (self.length,)))

    def from_bytes(self, data: bytes | bytearray | memoryview, offset: int = 0) -> Any:
        """Returns the value at `offset` of `data`, copied."""
        if self.element.ctype is ctypes.c_char:
            return bytes(memoryview(data)[offset : offset + self.size]).partition(b"\0")[0]
        if self.is_shared:
            return self.ctype.from_buffer_copy(data, offset)
        size = self.element.size
        return tuple(self.element.from_bytes(data, offset + k * size) for k in range(self.length))

    def to_bytes(self, value: Any) -> bytes:
        """Returns the bytes of an array or a sequence of as many values.

        Raises:
            OverflowError: A number does not fit.
            ValueError: There are not as many values.
            TypeError: It is not a sequence of values.
        """
        if isinstance(value, self.ctype):
            return bytes(value)
        if self.element.ctype is ctypes.c_char:
            data = bytes(value)
            if len(data) > self.length:
                raise ValueError(f"{len(data)} bytes do not fit {self.name}")
            return data.ljust(self.length, b"\0")
        values = cast("Sequence[Any]", value)
        if len(values) != self.length:
            raise ValueError(f"{self.name} takes {self.length} values, not {len(values)}")
        return b"".join([self.element.to_bytes(one) for one in values])


def listed(pod: Pod[Any], value: Any) -> Any:
    """Returns an array of values as a list, which needs no memory of its own."""
    if isinstance(pod, ArrayPod) and not isinstance(value, bytes):
        return [listed(pod.element, one) for one in value]
    return value


def members_of(value: Composite) -> dict[str, Any]:
    """Returns the members of a value by name, in their order; arrays as lists."""
    members: Mapping[str, Member] = value._procvm_members_  # pyright: ignore[reportPrivateUsage]  # this module's own
    return {name: listed(one.pod, one.__get__(value)) for name, one in members.items()}
