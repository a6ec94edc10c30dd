"""What a person can ask for with ``-t``: how its bytes are read, shown and written."""

from __future__ import annotations

import ctypes
import math
import os
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import click

import procvm
from procvm._base.pods import Pod
from procvm._base.text import printable
from procvm.errors import InvalidArgsError, PageFaultError, ProcvmError

__all__ = ["KIND_NAMES", "Kind", "Number", "Pointer", "Text", "kind_of", "read_chunks"]

_PODS: dict[str, Pod[Any]] = {
    pod.name: pod
    for pod in (
        procvm.u8,
        procvm.u16,
        procvm.u32,
        procvm.u64,
        procvm.usize,
        procvm.i8,
        procvm.i16,
        procvm.i32,
        procvm.i64,
        procvm.isize,
        procvm.f32,
        procvm.f64,
    )
}

KIND_NAMES = (*_PODS, "ptr", "cstr", "bytes", "struct:")
"""What the names of kinds are, or begin with."""

_IN_32_BITS = {"usize": procvm.u32, "isize": procvm.i32, "ptr": procvm.u32}


def _pod_in(name: str, address_size: int) -> Pod[Any]:
    """Returns the pod of a number or a pointer in a target with pointers of so many bytes."""
    if address_size == procvm.u32.size and name in _IN_32_BITS:
        return _IN_32_BITS[name]
    return _PODS["usize" if name == "ptr" else name]


CHUNK_LEN = 1 << 20
"""Bytes that are read at a time."""

LONGEST_TEXT = 4096
"""Bytes within which a string has to end."""

Describe = Callable[[int], str]


class Kind(ABC):
    """A type of values.

    Attributes:
        name: As it was asked for.
        size: Bytes of one value.
    """

    name: str
    size: int

    @abstractmethod
    def decode(self, data: bytes) -> list[Any]:
        """Returns the values that stand one behind the other in bytes."""

    @abstractmethod
    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns a value as a person reads it, printable."""

    @abstractmethod
    def as_json(self, value: Any) -> Any:
        """Returns a value as JSON has it."""

    @abstractmethod
    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Returns the bytes to write for what a person typed.

        Raises:
            ValueError: It is no such value.
            OverflowError: It does not fit.
        """

    def of_target(self, address_size: int) -> Kind:
        """Returns the kind as it is in a target whose pointers have so many bytes."""
        return self

    def decode_one(self, data: bytes) -> Any:
        """Returns the one value that bytes are, as `encode` made them."""
        return self.decode(data)[0]

    def read(self, vm: procvm.VmSpace, address: int, count: int) -> Iterator[tuple[int, Any]]:
        """Yields (address, value) of values one behind the other, up to where they can be read.

        Raises:
            PageFaultError: `copied_len` bytes could be read; their whole values were yielded.
        """
        at = address
        for data in read_chunks(vm, address, count * self.size, self.size):
            for value in self.decode(data):
                yield at, value
                at += self.size


def read_chunks(vm: procvm.VmSpace, address: int, n: int, unit: int = 1) -> Iterator[bytes]:
    """Yields `n` bytes at an address, piece by piece, each of whole units.

    Raises:
        PageFaultError: Behind all the bytes that could be read, which were yielded.
    """
    vm.reader(address, n)  # a range that leaves user space is refused before anything is read
    step = max(CHUNK_LEN // unit, 1) * unit
    done = 0
    while done < n:
        room = bytearray(min(step, n - done))
        try:
            vm.read_into(address + done, room)
        except ProcvmError as error:
            whole = error.copied_len // unit * unit
            if whole:
                yield bytes(room[:whole])
            error.copied_len += done
            raise
        yield bytes(room)
        done += len(room)


def _number_as_json(value: Any) -> Any:
    # JSON has no such numbers.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class Number(Kind):
    """A number."""

    def __init__(self, pod: Pod[Any], name: str = "") -> None:
        self.pod = pod
        self.name = name or pod.name
        self.size = pod.size
        self.is_float = pod.code in ("f", "d")

    def of_target(self, address_size: int) -> Number:
        """Returns usize and isize as wide as the target's pointers."""
        return Number(_pod_in(self.name, address_size), self.name)

    def decode(self, data: bytes) -> list[Any]:
        """Returns ints or floats."""
        return self.pod.slice_from_bytes(data, len(data) // self.size)

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns a float as short as it can be read back."""
        if self.pod.code == "f":
            return _shortest_f32(value)
        if self.is_float or not as_hex:
            return str(value)
        return hex(value % (1 << 8 * self.size))

    def as_json(self, value: Any) -> Any:
        """Returns the number; the names of those that JSON has not."""
        return _number_as_json(value)

    def number(self, text: str) -> int | float:
        """Returns the number that a person typed.

        Raises:
            ValueError: It is none.
        """
        text = text.strip()
        if self.is_float:
            try:
                value = float.fromhex(text) if "0x" in text.lower() else float(text)
            except (ValueError, OverflowError):
                raise ValueError(f"{text!r} is no number") from None
            if math.isinf(value) and "inf" not in text.lower():
                raise OverflowError(f"{text} does not fit {self.name}")
            return value
        try:
            return int(text, 0)
        except ValueError:
            pass
        try:
            return int(text)  # 007, which Python would not have
        except ValueError:
            raise ValueError(f"{text!r} is no whole number, as {self.name} takes them") from None

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Takes decimal, 0x, 0o and 0b."""
        return self.pod.to_bytes(self.number(text))


def _shortest_f32(value: float) -> str:
    """Returns the fewest digits that read back as the same f32: 0.1, not 0.10000000149."""
    if math.isfinite(value):
        for digits in range(6, 9):
            text = f"{value:.{digits}g}"
            try:
                if struct.pack("f", float(text)) == struct.pack("f", value):
                    return str(float(text))
            except OverflowError:
                continue
    return str(value)


class Pointer(Kind):
    """An address, with what is there."""

    name = "ptr"

    def __init__(self, address_size: int = procvm.usize.size) -> None:
        self._pod = _pod_in("ptr", address_size)
        self.size = address_size

    def of_target(self, address_size: int) -> Pointer:
        """Returns the kind of an address as wide as the target's."""
        return Pointer(address_size)

    def decode(self, data: bytes) -> list[Any]:
        """Returns addresses."""
        return self._pod.slice_from_bytes(data, len(data) // self.size)

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns it in hexadecimal."""
        return hex(value)

    def as_json(self, value: Any) -> Any:
        """Returns it in hexadecimal, as addresses are everywhere."""
        return hex(value)

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Takes an address as a person writes it."""
        return self._pod.to_bytes(address_of(text))


class Bytes(Kind):
    """Bytes as they are."""

    name = "bytes"
    size = 1

    def decode(self, data: bytes) -> list[Any]:
        """Returns them one by one."""
        return [data[k : k + 1] for k in range(len(data))]

    def decode_one(self, data: bytes) -> Any:
        """Returns all of them."""
        return data

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns two digits for each."""
        return bytes(value).hex()

    def as_json(self, value: Any) -> Any:
        """Returns two digits for each."""
        return bytes(value).hex()

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Takes hexadecimal digits, with or without blanks."""
        try:
            data = bytes.fromhex(text)
        except ValueError:
            raise ValueError(f"{text!r} is no row of bytes such as 'de ad be ef'") from None
        if not data:
            raise ValueError("no bytes were given")
        return data


class Text(Kind):
    """A string that ends with a NUL."""

    name = "cstr"
    size = 1

    def decode(self, data: bytes) -> list[Any]:
        """Returns what stands before the first NUL."""
        return [data.partition(b"\0")[0]]

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns it printable."""
        return printable(value)

    def as_json(self, value: Any) -> Any:
        """Returns it printable."""
        return printable(value)

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Takes any text; the NUL is added."""
        return text.encode("utf-8", "surrogateescape") + b"\0"

    def read(self, vm: procvm.VmSpace, address: int, count: int) -> Iterator[tuple[int, Any]]:
        """Yields strings one behind the other, and of one that breaks off what there is."""
        at = address
        for _ in range(count):
            try:
                text = vm.read_cstring(at, LONGEST_TEXT)
            except PageFaultError as error:
                if error.copied_len:
                    yield at, vm.read_bytes(at, error.copied_len)
                error.copied_len += at - address
                raise
            except InvalidArgsError:
                raise click.UsageError(
                    f"the {LONGEST_TEXT} bytes at {at:#x} hold no string: none of them is NUL; "
                    "give -t bytes"
                ) from None
            yield at, text
            at += len(text) + 1


class Structure(Kind):
    """Fields as a C compiler lays them out."""

    def __init__(self, name: str, fields: list[tuple[str, str, Any]], pack: int = 0) -> None:
        self.name = name
        self._kinds = {field: kind for field, kind, _ in fields}
        # A class that nobody but this one sees: its attributes are the fields.
        layout: dict[str, Any] = {"_fields_": [(field, ctype) for field, _, ctype in fields]}
        if pack:
            layout = {"_pack_": pack, "_layout_": "ms", **layout}
        self._type: Any = type("Fields", (ctypes.Structure,), layout)
        self.size = ctypes.sizeof(self._type)

    def of_target(self, address_size: int) -> Structure:
        """Returns the structure as the target's compiler lays it out."""
        return _structure(self.name, address_size)

    def decode(self, data: bytes) -> list[Any]:
        """Returns a dictionary of each."""
        return [
            self._values(self._type.from_buffer_copy(data, at))
            for at in range(0, len(data), self.size)
        ]

    def _values(self, found: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for field, kind in self._kinds.items():
            value = getattr(found, field)
            if kind == "char":
                value = bytes(value)  # up to the first NUL, as ctypes gives it
            elif isinstance(value, ctypes.Array):
                value = _parts(value)
            values[field] = value
        return values

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns ``x=1 y=2.5``."""
        return " ".join(
            f"{field}={self._field(field, one, as_hex=as_hex)}" for field, one in value.items()
        )

    def _field(self, field: str, value: Any, *, as_hex: bool) -> str:
        kind = self._kinds[field]
        if isinstance(value, bytes):
            return '"' + printable(value).replace('"', '\\"') + '"'
        if isinstance(value, list):
            parts = [self._field(field, one, as_hex=as_hex) for one in _parts(value)]
            return "[" + ",".join(parts) + "]"
        return kind_of(kind).text(value, as_hex=as_hex)

    def as_json(self, value: Any) -> Any:
        """Returns an object of the fields."""
        return {field: self._json_of(field, one) for field, one in value.items()}

    def _json_of(self, field: str, value: Any) -> Any:
        if isinstance(value, bytes):
            return printable(value)
        if isinstance(value, list):
            return [self._json_of(field, one) for one in _parts(value)]
        return kind_of(self._kinds[field]).as_json(value)

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Takes none: fields are written one by one."""
        raise ValueError("a structure is not written as a whole; write its fields")


class Packed(Kind):
    """Values as the struct module lays them out."""

    def __init__(self, name: str, layout: str) -> None:
        self.name = name
        try:
            self._struct = struct.Struct(layout)
            if self._struct.size > _LONGEST_STRUCT:
                raise struct.error(f"{self._struct.size} bytes, more than {_LONGEST_STRUCT}")
        except struct.error as error:
            raise ValueError(f"{layout!r} is no format of the struct module: {error}") from None
        self.size = self._struct.size

    def decode(self, data: bytes) -> list[Any]:
        """Returns a list of each."""
        return [list(one) for one in self._struct.iter_unpack(data)]

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns them with blanks between."""
        return " ".join(_packed_text(one, as_hex=as_hex) for one in value)

    def as_json(self, value: Any) -> Any:
        """Returns a list; bytes in hexadecimal."""
        return [bytes(one).hex() if isinstance(one, bytes) else _number_as_json(one)
                for one in value]  # fmt: skip

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Takes none: fields are written one by one."""
        raise ValueError("a structure is not written as a whole; write its fields")


def _packed_text(value: Any, *, as_hex: bool) -> str:
    if isinstance(value, bytes):
        return '"' + printable(value).replace('"', '\\"') + '"'
    if as_hex and isinstance(value, int) and not isinstance(value, bool):
        return hex(value)
    return str(value)


def _parts(value: Any) -> list[Any]:
    return list(value)


_STRUCT = "struct:"
_LONGEST_STRUCT = 1 << 24

# No name of a field begins with what Python itself means something by.
_FIELD = re.compile(r"([A-Za-z]\w*)=([a-z]\w*)(?:\[(\d{1,6})\])?", re.ASCII)
_FIELDS_LIKE = re.compile(r"\w+=")


def _structure(name: str, address_size: int = procvm.usize.size) -> Structure:
    fields: list[tuple[str, str, Any]] = []
    for part in name.removeprefix(_STRUCT).split(","):
        found = _FIELD.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"{part!r} is no field such as x=u32, name=char[16] or v=f64[3]")
        field, kind, count = found.groups()
        ctype: Any
        if kind == "char":
            ctype = ctypes.c_char
        elif kind in _PODS or kind == "ptr":
            ctype = _pod_in(kind, address_size).ctype
        else:
            raise ValueError(f"{part!r}: no field is a {kind}; give u8 to f64, ptr or char[16]")
        if field in (known for known, _, _ in fields):
            raise ValueError(f"the field {field} is there twice")
        if count is not None:
            ctype = ctype * int(count)
        fields.append((field, kind, ctype))
    # On i386 a number of 8 bytes begins at any multiple of 4.
    is_i386 = address_size == 4 and os.uname().machine == "x86_64"
    return Structure(name, fields, 4 if is_i386 else 0)


def kind_of(name: str) -> Kind:
    """Returns the kind of this name.

    Raises:
        ValueError: There is none.
    """
    if name in _PODS:
        return Number(_PODS[name])
    if name.startswith(_STRUCT):
        layout = name.removeprefix(_STRUCT)
        found = _structure(name) if _FIELDS_LIKE.match(layout) else Packed(name, layout)
        if found.size == 0:
            raise ValueError(f"{name!r} has no bytes")
        return found
    for kind in (Pointer, Bytes, Text):
        if kind.name == name:
            return kind()
    raise ValueError(
        f"{name!r} is no type; give u8 to u64, i8 to i64, usize, isize, f32, f64, ptr, cstr, "
        "bytes, or struct:x=u32,y=f64"
    )
