"""`Maker`: makes pods of the types of debug information."""

from __future__ import annotations

import ctypes
from typing import Any, final

from procvm._base.pods import Pod, PodOnce, PodOnceAtomic
from procvm._types.values import ArrayPod, Member, StructPod, WordPod, enum_pod, pointer_pod
from procvm.errors import UnsupportedError

__all__ = ["Maker"]

_UNSIGNED = {
    1: (ctypes.c_uint8, "B"),
    2: (ctypes.c_uint16, "H"),
    4: (ctypes.c_uint32, "I"),
    8: (ctypes.c_uint64, "Q"),
}
_SIGNED = {
    1: (ctypes.c_int8, "b"),
    2: (ctypes.c_int16, "h"),
    4: (ctypes.c_int32, "i"),
    8: (ctypes.c_int64, "q"),
}
_FLOATS = {4: (ctypes.c_float, "f"), 8: (ctypes.c_double, "d")}
_LONGEST = 1 << 32
"""Bytes of the largest type: a description of a larger one is malformed."""


@final
class Maker:
    """Makes pods of the types of one drgn program; equal types give the same pod."""

    def __init__(self, drgn: Any) -> None:
        self._kind = drgn.TypeKind
        self._bad_data: type[Exception] = getattr(drgn, "BadDataError", ValueError)
        self._made: dict[int, tuple[Any, Pod[Any] | None]] = {}

    def pod(self, type_: Any) -> Pod[Any]:
        """Returns the pod of a type.

        Raises:
            UnsupportedError: The type has no values: void, a function, an incomplete type.
        """
        found = self.pod_or_none(type_)
        if found is None:
            raise UnsupportedError(
                f"{type_.type_name()} has no values of a known size: it is void, a function, or "
                "a type that the debug information only declares"
            )
        return found

    def pod_or_none(self, type_: Any) -> Pod[Any] | None:
        """Returns the pod of a type, or None if it has no values."""
        # drgn keeps one description for each type, as long as the Type lives.
        key: int = type_._ptr
        known = self._made.get(key)
        if known is None:
            known = self._made[key] = type_, self._pod(type_)
        return known[1]

    def _pod(self, type_: Any) -> Pod[Any] | None:
        plain = type_.unaliased()
        kind, kinds = plain.kind, self._kind
        name: str = type_.type_name()
        if kind == kinds.POINTER:
            return pointer_pod(name, plain.size, lambda: self.pod_or_none(plain.type))
        if kind == kinds.ARRAY:
            element = self.pod_or_none(plain.type)
            length = plain.length or 0  # a flexible array has no elements of its own
            if element is None or length * element.size > _LONGEST:
                return None
            return ArrayPod(name, element, length)
        if kind not in (kinds.INT, kinds.BOOL, kinds.FLOAT, kinds.ENUM) and plain is not type_:
            # A typedef of a structure is the same class as the structure.
            own = self._made.get(plain._ptr)
            if own is not None:
                return own[1]
        if kind in (kinds.STRUCT, kinds.UNION, kinds.CLASS):
            found = self._struct(plain, name)
            self._made[plain._ptr] = plain, found
            return found
        return self._number(plain, name)

    def _number(self, plain: Any, name: str) -> Pod[Any] | None:
        kind, kinds = plain.kind, self._kind
        if kind == kinds.BOOL and plain.size == 1:
            return PodOnce(name, ctypes.c_bool, "?")
        if kind == kinds.FLOAT:
            if plain.size in _FLOATS:
                return Pod(name, *_FLOATS[plain.size])
            if plain.size == ctypes.sizeof(ctypes.c_longdouble):
                return WordPod(name, ctypes.c_longdouble, float)
            return self._raw(name, plain.size)
        if kind == kinds.ENUM:
            if plain.enumerators is None or plain.type.unaliased().size not in _SIGNED:
                return None
            table = _SIGNED if plain.type.unaliased().is_signed else _UNSIGNED
            names: dict[int, str] = {}
            for one in plain.enumerators:
                names.setdefault(one.value, one.name)
            return enum_pod(name, table[plain.type.unaliased().size][0], names)
        if kind in (kinds.INT, kinds.BOOL):
            if kind == kinds.INT and plain.name == "char":
                return Pod(name, ctypes.c_char, "c")
            table = _SIGNED if kind == kinds.INT and plain.is_signed else _UNSIGNED
            if plain.size not in table:
                return self._raw(name, plain.size)
            if plain.size >= 4:
                return PodOnceAtomic(name, *table[plain.size])
            return PodOnce(name, *table[plain.size])
        return None

    def _raw(self, name: str, size: int) -> Pod[Any]:
        """Returns the pod of a number that ctypes has not, as its bytes."""
        return ArrayPod(name, PodOnce("unsigned char", *_UNSIGNED[1]), size)

    def _struct(self, plain: Any, name: str) -> Pod[Any] | None:
        if plain.members is None or plain.size > _LONGEST:
            return None
        members: dict[str, Member] = {}
        for one in plain.members:
            try:
                pod = self.pod_or_none(one.type)
            except self._bad_data:
                continue  # a kind of type that drgn does not know: a reference of C++
            if pod is None:
                continue
            if one.name is None:  # an anonymous structure or union, whose members are its own
                if isinstance(pod, StructPod):
                    for inner in pod.members.values():
                        members.setdefault(inner.name, inner.moved(one.bit_offset))
                continue
            number = one.type.unaliased()
            if number.kind == self._kind.ENUM:
                number = number.type.unaliased()
            signed = number.kind == self._kind.INT and number.is_signed
            nr_bits = one.bit_field_size
            members[one.name] = Member(one.name, pod, one.bit_offset, nr_bits, signed=signed)
        return StructPod(name, plain.size, members)
