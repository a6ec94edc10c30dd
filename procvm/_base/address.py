"""Addresses, lengths, timeouts and the page size: checked in Python before any call.

ctypes cuts an address to its low 64 bits without an error, and passes a bare int as 32 bits.
So every address and length is checked here before it reaches ctypes.
"""

from __future__ import annotations

import math
import mmap
import operator
from numbers import Real

from procvm.errors import AddressOverflowError, InvalidArgsError

__all__ = [
    "ADDRESS_END",
    "PAGE_SIZE",
    "as_address",
    "as_count",
    "as_int",
    "as_len",
    "as_timeout",
    "check_range",
    "page_end",
]

PAGE_SIZE = mmap.PAGESIZE
"""Bytes in a page of this machine."""

ADDRESS_END = 1 << 64
"""One past the last address that a pointer can name."""


def as_int(value: object, what: str) -> int:
    """Returns `value` as an int.

    Raises:
        TypeError: Not an integer (bool is refused; numpy integers are fine).
    """
    # bool is a subclass of int, but True as an address is always a mistake.
    if isinstance(value, bool):
        raise TypeError(f"{what} must be an int, not bool")
    try:
        return operator.index(value)  # type: ignore[arg-type]  # the TypeError is the check
    except TypeError:
        raise TypeError(f"{what} must be an int, not {type(value).__name__}") from None


def as_address(value: object, what: str = "address") -> int:
    """Returns `value` as an address or offset below 2^64.

    Raises:
        TypeError: Not an integer (bool is refused; numpy integers are fine).
        InvalidArgsError: Negative.
        AddressOverflowError: 2^64 or more.
    """
    address = as_int(value, what)
    if address < 0:
        raise InvalidArgsError(f"{what} {address} is negative; give an unsigned 64-bit number")
    if address >= ADDRESS_END:
        raise AddressOverflowError(f"{what} {address:#x} does not fit 64 bits")
    return address


def as_len(value: object, what: str = "length") -> int:
    """Returns `value` as a count of bytes or elements, 0 or more.

    Raises:
        TypeError: Not an integer.
        InvalidArgsError: Negative.
    """
    length = as_int(value, what)
    if length < 0:
        raise InvalidArgsError(f"{what} {length} is negative; give 0 or more")
    return length


def as_count(value: object, what: str) -> int:
    """Returns `value` as a number of things, 1 or more.

    Raises:
        TypeError: Not an integer.
        InvalidArgsError: 0 or negative.
    """
    count = as_int(value, what)
    if count < 1:
        raise InvalidArgsError(f"{what} is {count}; give 1 or more")
    return count


def as_timeout(value: object, what: str = "timeout") -> float | None:
    """Returns `value` as seconds, a finite number of 0 or more, or None for no limit.

    Raises:
        TypeError: Not a number (bool is refused; numpy's numbers are fine).
        ValueError: Negative, infinite or not a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number of seconds or None, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:  # an int beyond what a float holds
        seconds = math.inf
    # A nan compares false with every deadline, so that the wait would never end.
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{what} is {value}; give seconds, 0 or more, or None for no limit")
    return seconds


def check_range(address: object, n: object, what: str = "address") -> tuple[int, int]:
    """Returns (address, n) as ints of a range that ends at 2^64 or before.

    Raises:
        TypeError: Not integers.
        InvalidArgsError: One is negative.
        AddressOverflowError: `address + n` passes 2^64.
    """
    start = as_address(address, what)
    length = as_len(n)
    if start + length > ADDRESS_END:
        raise AddressOverflowError(
            f"{what} {start:#x} plus length {length:#x} passes 2^64; make the range smaller"
        )
    return start, length


def page_end(address: int) -> int:
    """Returns the first address after the page that holds `address`."""
    return (address | (PAGE_SIZE - 1)) + 1
