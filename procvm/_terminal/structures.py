"""Structures, given by their fields or by a format of the struct module."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import procvm
from procvm._base.pods import PODS
from procvm._base.text import printable
from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Number, Pointer, number_as_json, pod_in

__all__ = ["STRUCT", "Packed", "Structure", "structure_of"]


class Structure(Kind):
    """Named fields, laid out as a C compiler does."""

    def __init__(
        self, name: str, fields: list[tuple[str, str, Any]], *, address_size: int, pack: int = 0
    ) -> None:
        self.name = name
        self._address_size = address_size
        self._kinds = {field: kind for field, kind, _ in fields}
        layout: dict[str, Any] = {"_fields_": [(field, ctype) for field, _, ctype in fields]}
        if pack:
            layout = {"_pack_": pack, "_layout_": "ms", **layout}
        self._type: Any = type("Fields", (ctypes.Structure,), layout)
        self.size = ctypes.sizeof(self._type)

    def of_target(self, address_size: int) -> Structure:
        """Returns the structure as the target's compiler lays it out."""
        return _fields(self.name, address_size)

    def decode(self, data: bytes) -> list[Any]:
        """Returns a dictionary for each structure."""
        return [
            self._values(self._type.from_buffer_copy(data, at))
            for at in range(0, len(data), self.size)
        ]

    def _values(self, found: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for field, kind in self._kinds.items():
            value = getattr(found, field)
            if kind == "char":
                value = bytes(value)  # ctypes ends it at the first NUL
            elif isinstance(value, ctypes.Array):
                value = _parts(value)
            values[field] = value
        return values

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns text such as ``x=1 y=2.5``, which `encode` takes back."""
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
        """Returns a dictionary of the fields."""
        return {field: self._json_of(field, one) for field, one in value.items()}

    def _json_of(self, field: str, value: Any) -> Any:
        if isinstance(value, bytes):
            return printable(value)
        if isinstance(value, list):
            return [self._json_of(field, one) for one in _parts(value)]
        return _part_kind(self._kinds[field]).as_json(value)

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Returns the bytes of ``x=1 y=2.5``: every field once, in any order."""
        given = dict(_assignments(text))
        unknown = [field for field in given if field not in self._kinds]
        missing = [field for field in self._kinds if field not in given]
        if unknown:
            raise ValueError(f"the structure has no field {unknown[0]!r}")
        if missing:
            raise ValueError(f"{' and '.join(missing)} must be given too: {self.name}")
        made = self._type()
        for field, ctype in self._type._fields_:
            setattr(made, field, self._field_value(field, ctype, given[field], address_of))
        return bytes(made)

    def _field_value(
        self, field: str, ctype: Any, text: str, address_of: Callable[[str], int]
    ) -> Any:
        kind = self._kinds[field]
        size = ctypes.sizeof(ctype)
        if kind == "char":
            data = _unquoted(text)
            if len(data) > size:
                raise OverflowError(f"{field}: {len(data)} bytes do not fit char[{size}]")
            return data
        scalar = _part_kind(kind).of_target(self._address_size)
        if not hasattr(ctype, "_length_"):
            return ctype.from_buffer_copy(scalar.encode(text, address_of)).value
        words = text.removeprefix("[").removesuffix("]").replace(",", " ").split()
        if len(words) != ctype._length_:
            raise ValueError(f"{field} takes {ctype._length_} values, not {len(words)}")
        return ctype.from_buffer_copy(b"".join(scalar.encode(word, address_of) for word in words))


class Packed(Kind):
    """Values laid out by a format of the struct module."""

    def __init__(self, name: str, layout: str) -> None:
        self.name = name
        try:
            self._struct = struct.Struct(layout)
            if self._struct.size > _LONGEST_STRUCT:
                raise struct.error(f"{self._struct.size} bytes, more than {_LONGEST_STRUCT}")
        except struct.error as error:
            raise ValueError(f"{layout!r} is not a format of the struct module: {error}") from None
        self.size = self._struct.size

    def decode(self, data: bytes) -> list[Any]:
        """Returns a list of values for each structure."""
        return [list(one) for one in self._struct.iter_unpack(data)]

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns the values with blanks between them, which `encode` takes back."""
        return " ".join(_packed_text(one, as_hex=as_hex) for one in value)

    def as_json(self, value: Any) -> Any:
        """Returns a list of the values; bytes in hexadecimal."""
        return [bytes(one).hex() if isinstance(one, bytes) else number_as_json(one)
                for one in value]  # fmt: skip

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Returns the bytes of values with blanks between them."""
        words = _WORD.findall(text)
        samples = self._struct.unpack(bytes(self.size))
        if len(words) != len(samples):
            raise ValueError(f"{self.name} takes {len(samples)} values, not {len(words)}")
        values = [_value_like(one, word) for one, word in zip(samples, words, strict=True)]
        try:
            return self._struct.pack(*values)
        except struct.error as error:
            raise OverflowError(f"{text!r} does not fit {self.name}: {error}") from None


# A text in quotes, a list in brackets, or a word.
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[^\s,]+')
_ASSIGNMENT = re.compile(rf"([A-Za-z]\w*)=({_WORD.pattern})(?:[\s,]+|$)", re.ASCII)
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.IGNORECASE)


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Yields (field, value) of ``x=1 y=2.5``."""
    text = text.strip()
    at = 0
    seen: set[str] = set()
    while at < len(text):
        found = _ASSIGNMENT.match(text, at)
        if found is None:
            raise ValueError(f"{text[at:]!r} is not a field and its value, such as x=1")
        if found[1] in seen:
            raise ValueError(f"the field {found[1]} is given twice")
        seen.add(found[1])
        yield found[1], found[2]
        at = found.end()


def _unquoted(text: str) -> bytes:
    r"""Returns the bytes of a text, in quotes or not, with escapes such as ``\x1b``."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    data = bytearray()
    at = 0
    for found in _ESCAPE.finditer(text):
        data += os.fsencode(text[at : found.start()])
        byte, short, long, other = found.groups()
        if byte is not None:
            data.append(int(byte, 16))
        elif other is not None:
            data += os.fsencode(other)
        else:
            data += chr(int(short or long, 16)).encode()
        at = found.end()
    return bytes(data + os.fsencode(text[at:]))


def _value_like(sample: Any, word: str) -> Any:
    """Returns a word as a value of the type that the struct module gives."""
    if isinstance(sample, bytes):
        return _unquoted(word)
    if isinstance(sample, bool):
        if word not in ("True", "False", "1", "0"):
            raise ValueError(f"{word!r} is not True or False")
        return word in ("True", "1")
    try:
        return float(word) if isinstance(sample, float) else int(word, 0)
    except ValueError:
        raise ValueError(f"{word!r} is not a number") from None


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

# A name cannot begin with _: attributes such as __class__ have a meaning in Python.
_FIELD = re.compile(r"([A-Za-z]\w*)=([a-z]\w*)(?:\[(\d{1,6})\])?", re.ASCII)
_FIELDS_LIKE = re.compile(r"\w+=")


def _fields(name: str, address_size: int = procvm.usize.size) -> Structure:
    fields: list[tuple[str, str, Any]] = []
    for part in name.removeprefix(STRUCT).split(","):
        found = _FIELD.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"{part!r} is not a field such as x=u32, name=char[16] or v=f64[3]")
        field, kind, count = found.groups()
        ctype: Any
        if kind == "char":
            ctype = ctypes.c_char
        elif kind in PODS or kind == "ptr":
            ctype = pod_in(kind, address_size).ctype
        else:
            raise ValueError(
                f"{part!r}: {kind} is not a type of fields; give u8 to f64, ptr or char[16]"
            )
        if field in (known for known, _, _ in fields):
            raise ValueError(f"the field {field} is given twice")
        if count is not None:
            ctype = ctype * int(count)
        fields.append((field, kind, ctype))
    # On i386 a number of 8 bytes is aligned to 4: without this, later fields are misread.
    is_i386 = address_size == 4 and os.uname().machine == "x86_64"
    return Structure(name, fields, address_size=address_size, pack=4 if is_i386 else 0)


def structure_of(name: str) -> Kind:
    """Returns the type of a name that begins with ``struct:``.

    Raises:
        ValueError: The fields or the format are wrong, or have no bytes.
    """
    layout = name.removeprefix(STRUCT)
    found = _fields(name) if _FIELDS_LIKE.match(layout) else Packed(name, layout)
    if found.size == 0:
        raise ValueError(f"{name!r} has no bytes")
    return found
