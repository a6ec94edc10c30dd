"""Numbers, addresses, bytes and strings."""

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

__all__ = ["Bytes", "Number", "Pointer", "Text", "number_as_json", "pod_in"]

_IN_32_BITS = {"usize": procvm.u32, "isize": procvm.i32, "ptr": procvm.u32}


def pod_in(name: str, address_size: int) -> Pod[Any]:
    """Returns the pod of a number or a pointer in a target with pointers of so many bytes."""
    if address_size == procvm.u32.size and name in _IN_32_BITS:
        return _IN_32_BITS[name]
    return PODS["usize" if name == "ptr" else name]


LONGEST_TEXT = 4096
"""Bytes within which a string has to end."""


def number_as_json(value: Any) -> Any:
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
        return Number(pod_in(self.name, address_size), self.name)

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
        return number_as_json(value)

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
        self._pod = pod_in("ptr", address_size)
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
