"""Structures, by the names of their fields or as the struct module writes them."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Callable
from typing import Any

import procvm
from procvm._base.pods import PODS
from procvm._base.text import printable
from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Number, Pointer, number_as_json, pod_in

__all__ = ["STRUCT", "Packed", "Structure", "structure_of"]


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
        return _fields(self.name, address_size)

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
        return _part_kind(kind).text(value, as_hex=as_hex)

    def as_json(self, value: Any) -> Any:
        """Returns an object of the fields."""
        return {field: self._json_of(field, one) for field, one in value.items()}

    def _json_of(self, field: str, value: Any) -> Any:
        if isinstance(value, bytes):
            return printable(value)
        if isinstance(value, list):
            return [self._json_of(field, one) for one in _parts(value)]
        return _part_kind(self._kinds[field]).as_json(value)

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
        return [bytes(one).hex() if isinstance(one, bytes) else number_as_json(one)
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


def _part_kind(name: str) -> Kind:
    return Pointer() if name == Pointer.name else Number(PODS[name])


def _parts(value: Any) -> list[Any]:
    return list(value)


STRUCT = "struct:"
_LONGEST_STRUCT = 1 << 24

# No name of a field begins with what Python itself means something by.
_FIELD = re.compile(r"([A-Za-z]\w*)=([a-z]\w*)(?:\[(\d{1,6})\])?", re.ASCII)
_FIELDS_LIKE = re.compile(r"\w+=")


def _fields(name: str, address_size: int = procvm.usize.size) -> Structure:
    fields: list[tuple[str, str, Any]] = []
    for part in name.removeprefix(STRUCT).split(","):
        found = _FIELD.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"{part!r} is no field such as x=u32, name=char[16] or v=f64[3]")
        field, kind, count = found.groups()
        ctype: Any
        if kind == "char":
            ctype = ctypes.c_char
        elif kind in PODS or kind == "ptr":
            ctype = pod_in(kind, address_size).ctype
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


def structure_of(name: str) -> Kind:
    """Returns the kind of a name that begins with ``struct:``.

    Raises:
        ValueError: It is not understood, or has no bytes.
    """
    layout = name.removeprefix(STRUCT)
    found = _fields(name) if _FIELDS_LIKE.match(layout) else Packed(name, layout)
    if found.size == 0:
        raise ValueError(f"{name!r} has no bytes")
    return found
