"""The value types that are not structures: numbers, addresses, bytes and strings."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

import click

import procvm
from procvm._base.pods import PODS, Pod
from procvm._base.text import printable
from procvm._terminal.kind import Kind
from procvm.errors import InvalidArgsError, PageFaultError

__all__ = ["AnyNumber", "Bytes", "Number", "Pointer", "Text", "number_as_json", "pod_in"]

_IN_32_BITS = {"usize": procvm.u32, "isize": procvm.i32, "ptr": procvm.u32}


def pod_in(name: str, address_size: int) -> Pod[Any]:
    """Returns the pod of a number or a pointer in a target with pointers of `address_size`."""
    if address_size == procvm.u32.size and name in _IN_32_BITS:
        return _IN_32_BITS[name]
    return PODS["usize" if name == "ptr" else name]


LONGEST_TEXT = 4096
"""The longest string in bytes, the NUL included."""


def number_as_json(value: Any) -> Any:
    """Returns a number as JSON can hold it: infinities and NaN become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class Number(Kind):
    """Integers and floats."""

    def __init__(self, pod: Pod[Any], name: str = "") -> None:
        self.pod = pod
        self.name = name or pod.name
        self.size = pod.size
        self.is_float = pod.code in ("f", "d")

    def of_target(self, address_size: int) -> Number:
        """Returns usize and isize in the width of the target's pointers."""
        return Number(pod_in(self.name, address_size), self.name)

    def decode(self, data: bytes) -> list[Any]:
        """Returns ints or floats."""
        return self.pod.slice_from_bytes(data, len(data) // self.size)

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns the shortest text that reads back as the same float."""
        if self.pod.code == "f":
            return _shortest_f32(value)
        if self.is_float or not as_hex:
            return str(value)
        return hex(value % (1 << 8 * self.size))

    def as_json(self, value: Any) -> Any:
        """Returns the number; infinities and NaN as text."""
        return number_as_json(value)

    def number(self, text: str) -> int | float:
        """Returns the number that a user typed.

        Raises:
            ValueError: The text is not a number of this type.
            OverflowError: The text is a number that does not fit.
        """
        text = text.strip()
        if self.is_float:
            try:
                value = float.fromhex(text) if "0x" in text.lower() else float(text)
            except (ValueError, OverflowError):
                raise ValueError(f"{text!r} is not a number") from None
            if math.isinf(value) and "inf" not in text.lower():
                raise OverflowError(f"{text} does not fit {self.name}")
            return value
        try:
            return int(text, 0)
        except ValueError:
            pass
        try:
            return int(text)  # 007, which int(text, 0) refuses
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number, as {self.name} needs") from None

    def rounded(self, number: float) -> int | float:
        """Returns a number as this type holds it.

        Raises:
            OverflowError: It does not fit.
        """
        found: int | float = self.pod.from_bytes(self.pod.to_bytes(number))
        return found

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Returns the bytes of a number in decimal, 0x, 0o or 0b."""
        return self.pod.to_bytes(self.number(text))


class AnyNumber(Number):
    """Integers of 1 to 8 bytes, f32 and f64, whichever fits: for conditions only."""

    def __init__(self) -> None:
        super().__init__(procvm.f64, "number")

    def of_target(self, address_size: int) -> Number:
        """Returns itself."""
        return self

    def number(self, text: str) -> int | float:
        """Returns a whole number as an int, since a float does not hold every one."""
        try:
            return _WHOLE.number(text)
        except ValueError:
            return super().number(text)

    def rounded(self, number: float) -> int | float:
        """Returns the number; each type rounds it in its own way."""
        return number


def _shortest_f32(value: float) -> str:
    """Returns the shortest text that reads back as the same f32: 0.1, not 0.10000000149."""
    if math.isfinite(value):
        for digits in range(6, 9):
            text = f"{value:.{digits}g}"
            try:
                if struct.pack("f", float(text)) == struct.pack("f", value):
                    return str(float(text))
            except OverflowError:
                continue
    return str(value)


_WHOLE = Number(procvm.i64)


class Pointer(Kind):
    """Addresses of the target."""

    name = "ptr"

    def __init__(self, address_size: int = procvm.usize.size) -> None:
        self._pod = pod_in("ptr", address_size)
        self.size = address_size

    def of_target(self, address_size: int) -> Pointer:
        """Returns this type in the width of the target's pointers."""
        return Pointer(address_size)

    def decode(self, data: bytes) -> list[Any]:
        """Returns the addresses as ints."""
        return self._pod.slice_from_bytes(data, len(data) // self.size)

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns the address in hexadecimal."""
        return hex(value)

    def as_json(self, value: Any) -> Any:
        """Returns the address in hexadecimal, as every address in JSON."""
        return hex(value)

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Returns the bytes of an address expression."""
        return self._pod.to_bytes(address_of(text))


class Bytes(Kind):
    """Raw bytes."""

    name = "bytes"
    size = 1

    def decode(self, data: bytes) -> list[Any]:
        """Returns each byte."""
        return [data[k : k + 1] for k in range(len(data))]

    def decode_one(self, data: bytes) -> Any:
        """Returns all bytes as one value."""
        return data

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns two hexadecimal digits per byte."""
        return bytes(value).hex()

    def as_json(self, value: Any) -> Any:
        """Returns two hexadecimal digits per byte."""
        return bytes(value).hex()

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Returns the bytes of hexadecimal digits, with or without blanks."""
        try:
            data = bytes.fromhex(text)
        except ValueError:
            raise ValueError(f"{text!r} is not hexadecimal bytes such as 'de ad be ef'") from None
        if not data:
            raise ValueError("the value has no bytes; give at least one, such as '90'")
        return data


class Text(Kind):
    """Strings that end with a NUL."""

    name = "cstr"
    size = 1

    def decode(self, data: bytes) -> list[Any]:
        """Returns the bytes before the first NUL."""
        return [data.partition(b"\0")[0]]

    def text(self, value: Any, *, as_hex: bool = False) -> str:
        """Returns the string as printable text."""
        return printable(value)

    def as_json(self, value: Any) -> Any:
        """Returns the string as printable text."""
        return printable(value)

    def encode(self, text: str, address_of: Callable[[str], int]) -> bytes:
        """Returns the text in UTF-8, with a NUL at its end."""
        return text.encode("utf-8", "surrogateescape") + b"\0"

    def read(self, vm: procvm.VmSpace, address: int, count: int) -> Iterator[tuple[int, Any]]:
        """Yields consecutive strings; for one that a fault cuts off, the bytes before it."""
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
                    f"there is no string at {at:#x}: the first {LONGEST_TEXT} bytes hold no NUL; "
                    "give -t bytes"
                ) from None
            yield at, text
            at += len(text) + 1
