"""`View`: a ctypes structure that lies over memory, field by field."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, cast, final

from procvm._base.pods import Pod, pod_of
from procvm._space.access import Access

__all__ = ["Address", "ArrayView", "Enumerator", "View", "is_overlay", "view_of_kind"]


class Address(int):
    """A number from memory that may be an address: it is an int that can be followed."""

    _space: Access | None
    _target: Callable[[], Pod[Any] | None]

    def __new__(
        cls,
        value: int,
        space: Access | None = None,
        target: Callable[[], Pod[Any] | None] = lambda: None,
    ) -> Self:
        """Makes one."""
        address = super().__new__(cls, value)
        address._space = space
        address._target = target
        return address

    @property
    def target(self) -> Pod[Any] | None:
        """The pod of what it points to, from debug information; None if that is not known."""
        return self._target()

    def within(self, space: Access) -> Address:
        """Returns the same pointer, to be followed in a space."""
        return Address(self, space, self._target)

    def deref(self, kind: Any = None) -> Any:
        """Returns a view of the structure or array at this address, or the value of a number.

        Args:
            kind: The pod of it; `target` if it is not given.

        Raises:
            PageFaultError: A number could not be read there; a view reads nothing yet.
            TypeError: No pod is given, and `target` is None; or the address came with a copy,
                which knows no memory: ``vm.view(pointer, pointer.target)``.
        """
        kind = self.target if kind is None else kind
        if kind is None:
            raise TypeError(f"it is not known what {int(self):#x} points to: give a pod")
        if self._space is None:
            raise TypeError(
                f"the pointer {int(self):#x} is of a copy, which knows no memory: use "
                "vm.view(pointer, pointer.target), or vm.read_val"
            )
        return view_of_kind(self._space, int(self), kind)

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


class Enumerator(int):
    """A value of an enumeration: an int with the name that its debug information has for it.

    Attributes:
        name: The name; None if the value has none.
    """

    name: str | None

    def __new__(cls, value: int, name: str | None) -> Self:
        """Makes one."""
        made = super().__new__(cls, value)
        made.name = name
        return made

    def __repr__(self) -> str:
        return int.__repr__(self) if self.name is None else self.name

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return Enumerator, (int(self), self.name)


def view_of_kind(space: Access, address: int, kind: Any) -> Any:
    """Returns a view of a structure, union or array, or the value of a number."""
    pod = pod_of(kind)
    ctype = pod.ctype
    if issubclass(ctype, ctypes.Structure | ctypes.Union):
        return View(space, address, ctype)
    if issubclass(ctype, ctypes.Array) and not _is_text(ctype):
        return ArrayView(space, address, ctype)
    _refuse_wide_pointer(space, ctype)
    return _value(space, space.read_val(address, pod), ctype)


def is_overlay(ctype: Any) -> bool:
    """Returns whether a type has fields or elements, each to be read by itself."""
    whole: Any = (ctypes.Structure, ctypes.Union, ctypes.Array)
    return issubclass(ctype, whole) and not _is_text(ctype)


def _is_text(ctype: Any) -> bool:
    """Returns whether a type is an array of characters, whose value is bytes."""
    return hasattr(ctype, "_length_") and getattr(ctype, "_type_", None) is ctypes.c_char


def _value(space: Access, value: Any, ctype: Any) -> Any:
    """Returns a value, followable if it is as wide as an address and unsigned."""
    if isinstance(value, Address):
        return value.within(space)
    value = getattr(value, "value", value)
    if value is None:
        value = 0
    if type(value) is int and ctype in _WORDS and ctypes.sizeof(ctype) == space.address_size:
        return Address(value, space)
    return value


_WORDS = (ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p)
"""The types that a pointer may be declared as; c_size_t and the like are names of these."""


def _refuse_wide_pointer(space: Access, ctype: Any) -> None:
    """Raises TypeError for a pointer of the tool's width where the target's are 4 bytes."""
    if ctype is ctypes.c_void_p and ctypes.sizeof(ctype) != space.address_size:
        raise TypeError(
            f"c_void_p is {ctypes.sizeof(ctype)} bytes, and a pointer of this target is "
            f"{space.address_size}; declare it as c_uint{8 * space.address_size}"
        )


def _write(space: Access, address: int, ctype: Any, value: Any) -> None:
    _refuse_wide_pointer(space, ctype)
    own: Pod[Any] | None = ctype.__dict__.get("_procvm_pod_")
    if own is not None:
        space.write_bytes(address, own.to_bytes(value))
        return
    if is_overlay(ctype):
        if not isinstance(value, ctype):
            raise TypeError(f"takes a {ctype.__name__}, not {type(value).__name__}")
        space.write_val(address, ctype, value)
        return
    cell: Any = ctype()
    cell.value = value
    found = 0 if cell.value is None else cell.value
    if isinstance(value, int) and isinstance(found, int) and found != value:
        raise OverflowError(f"{int(value)} does not fit {ctype.__name__}")
    if isinstance(found, float) and math.isinf(found) and not math.isinf(value):
        raise OverflowError(f"{value} does not fit {ctype.__name__}")
    space.write_val(address, ctype, cell)


def _members(ctype: Any) -> Mapping[str, Any]:
    """Returns the members of a type that was made of debug information; none for any other."""
    found: Mapping[str, Any] = getattr(ctype, "_procvm_members_", {})
    return found


def _fields(ctype: Any) -> dict[str, Any]:
    """Returns the types of a structure's fields by name, those it inherits too."""
    found: dict[str, Any] = {}
    for base in reversed(ctype.__mro__):
        for field in base.__dict__.get("_fields_", ()):
            found[field[0]] = field[1]
        for name in base.__dict__.get("_anonymous_", ()):
            found.update((inner, None) for inner in _fields(found[name]) if inner not in found)
    return found


def _is_of_bits(ctype: Any, name: str) -> bool:
    """Returns whether a field is one of some bits."""
    for base in ctype.__mro__:
        for field in base.__dict__.get("_fields_", ()):
            if field[0] == name:
                return len(field) > 2
        for part in base.__dict__.get("_anonymous_", ()):
            inner = _fields(ctype)[part]
            if name in _fields(inner):
                return _is_of_bits(inner, name)
    return False


@final
class View:
    """A structure that lies over a target's memory: each attribute is read and written there.

    Only the field that is named is touched, at the moment it is named. A field
    that is a structure or an array is a view again; one that is as wide as an
    address of the target and unsigned is an int with `deref`.
    """

    __slots__ = ("_procvm_address", "_procvm_ctype", "_procvm_space")

    def __init__(self, space: Access, address: int, ctype: Any) -> None:
        object.__setattr__(self, "_procvm_space", space)
        object.__setattr__(self, "_procvm_address", address)
        object.__setattr__(self, "_procvm_ctype", ctype)

    def __repr__(self) -> str:
        return f"<View of {self._procvm_ctype.__name__} at {self._procvm_address:#x}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return View, (self._procvm_space, self._procvm_address, self._procvm_ctype)

    def __dir__(self) -> list[str]:
        return [*(_members(self._procvm_ctype) or _fields(self._procvm_ctype))]

    def _procvm_field(self, name: str) -> tuple[int, Any, Any]:
        """Returns (address, type, descriptor) of a field; no type for one of a few bits."""
        fields = {} if _members(self._procvm_ctype) else _fields(self._procvm_ctype)
        if name not in fields:
            raise AttributeError(f"{self._procvm_ctype.__name__} has no field {name!r}")
        descriptor = getattr(self._procvm_ctype, name)
        if descriptor.offset < 0:
            # Some versions of ctypes do so with the second field of bits of a union.
            raise TypeError(
                f"ctypes places {name} outside {self._procvm_ctype.__name__}; read_val reads it"
            )
        if _is_of_bits(self._procvm_ctype, name):
            return self._procvm_address + descriptor.offset, None, descriptor
        ctype = fields[name] or _anonymous_type(self._procvm_ctype, name)
        return self._procvm_address + descriptor.offset, ctype, descriptor

    def __getattr__(self, name: str) -> Any:
        member = _members(self._procvm_ctype).get(name)
        if member is not None:
            return member.read(self._procvm_space, self._procvm_address)
        address, ctype, descriptor = self._procvm_field(name)
        if ctype is None:
            return getattr(self._procvm_unit(name, address, descriptor)[1], name)
        return view_of_kind(self._procvm_space, address, ctype)

    def __setattr__(self, name: str, value: Any) -> None:
        member = _members(self._procvm_ctype).get(name)
        if member is not None:
            member.write(self._procvm_space, self._procvm_address, value)
            return
        address, ctype, descriptor = self._procvm_field(name)
        if ctype is not None:
            _write(self._procvm_space, address, ctype, value)
            return
        # Bits share their bytes with others, which are written back as they were.
        n, whole = self._procvm_unit(name, address, descriptor)
        setattr(whole, name, value)
        if getattr(whole, name) != value:
            raise OverflowError(f"{value} does not fit the bits of {name}")
        start = descriptor.offset
        self._procvm_space.write_bytes(address, bytes(whole)[start : start + n])

    def _procvm_unit(self, name: str, address: int, descriptor: Any) -> tuple[int, Any]:
        """Returns the bytes that a field of bits is in, and a structure that holds just these."""
        ctype = _fields(self._procvm_ctype)[name] or _anonymous_type(self._procvm_ctype, name)
        n = ctypes.sizeof(ctype)
        data = bytearray(ctypes.sizeof(self._procvm_ctype))
        start = descriptor.offset
        n = min(n, len(data) - start)
        data[start : start + n] = self._procvm_space.read_bytes(address, n)
        return n, cast("Any", self._procvm_ctype.from_buffer_copy(data))

    def address_of(self, name: str) -> int:
        """Returns the address of a field; of a bit field, that of its first byte."""
        member = _members(self._procvm_ctype).get(name)
        if member is not None:
            return int(self._procvm_address + member.offset)
        return self._procvm_field(name)[0]


def _anonymous_type(ctype: Any, name: str) -> Any:
    """Returns the type of a field of an anonymous part."""
    fields = _fields(ctype)
    for base in ctype.__mro__:
        for part in base.__dict__.get("_anonymous_", ()):
            inner = _fields(fields[part])
            if name in inner:
                return inner[name] or _anonymous_type(fields[part], name)
    raise AttributeError(f"{ctype.__name__} has no field {name!r}")


@final
class ArrayView:
    """An array that lies over a target's memory: each element is read and written there."""

    __slots__ = ("_address", "_ctype", "_space")

    def __init__(self, space: Access, address: int, ctype: Any) -> None:
        self._space = space
        self._address = address
        self._ctype = ctype

    def __repr__(self) -> str:
        return f"<ArrayView of {self._ctype.__name__} at {self._address:#x}>"

    def __len__(self) -> int:
        """Returns the number of elements."""
        return int(self._ctype._length_)

    def _place(self, index: int) -> int:
        n = len(self)
        at = index + n if index < 0 else index
        if not 0 <= at < n:
            raise IndexError(f"index {index} of an array of {n}")
        return self._address + at * ctypes.sizeof(self._ctype._type_)

    def __getitem__(self, index: int) -> Any:
        """Returns an element."""
        return view_of_kind(self._space, self._place(index), self._ctype._type_)

    def __setitem__(self, index: int, value: Any) -> None:
        """Writes an element."""
        _write(self._space, self._place(index), self._ctype._type_, value)

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(len(self)))
