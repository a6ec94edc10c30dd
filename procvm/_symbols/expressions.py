"""`address_of`: parses an address expression such as ``*(g_list+8)``."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from procvm._base.text import printable
from procvm._symbols.names import Names, encoded
from procvm.errors import InvalidArgsError, NoSuchSymbolError

__all__ = ["address_of", "is_path"]

_HEX = re.compile(r"0[xX][0-9a-fA-F]+")
_DECIMAL = re.compile(r"[0-9]+")
_REGISTER = re.compile(r"\$[a-z][a-z0-9_]*")
_BARE_HEX = re.compile(r"(?!0[bB][01]+$)[0-9a-fA-F]+")  # without Python's binary numbers
_LOWEST = 0x10000
"""No process maps memory below: shorter hexadecimal digits are not a pasted address."""
_UNNAMED = "(anonymous namespace)::"
"""Begins the name of what only one part of a C++ program sees."""
_DEEPEST = 64
_LONGEST = 4000  # characters; Python converts at most 4300 digits to a number
_OFFSETS = re.compile(r"\s*([+-])\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*$")


_PATH = re.compile(r"->|^\s*&|\w\s*\[|\w\)?\s*\.\s*[A-Za-z_]|\(\s*[A-Za-z_][\w\s]*\*+\s*\)")


def is_path(expression: str) -> bool:
    """Returns whether an expression may be a C path, which only debug information explains."""
    return bool(_PATH.search(expression))


def address_of(
    expression: str,
    names: Names,
    end: int,
    read_pointer: Callable[[int], int],
    register: Callable[[str], int],
) -> int:
    """Returns the address that an expression means; see `Mapped.address`.

    Args:
        expression: The text.
        names: The names of the target.
        end: One past the last address of its user space.
        read_pointer: Returns the pointer at an address of the target.
        register: Returns the value of a register, by its name without the $.
    """
    if len(expression) > _LONGEST:
        raise InvalidArgsError(
            f"an expression of {len(expression)} characters is too long; give at most {_LONGEST}"
        )
    parser = _Parser(expression, names, end, read_pointer, register)
    address = parser.parsed(expression.strip(), _DEEPEST)
    if not 0 <= address < 1 << 64:
        raise InvalidArgsError(
            f"{printable(expression)!r} is {address:#x}, which is not an address of 64 bits"
        )
    return address


class _Parser:
    """Parses one expression."""

    def __init__(
        self,
        whole: str,
        names: Names,
        end: int,
        read_pointer: Callable[[int], int],
        register: Callable[[str], int],
    ) -> None:
        self._whole = whole
        self._names = names
        self._end = end
        self._read_pointer = read_pointer
        self._register = register

    def parsed(self, text: str, depth: int) -> int:
        """Returns the value of a part; `depth` is how much deeper parts may nest."""
        if not text or not depth:
            why = "is not an address" if depth else f"is nested deeper than {_DEEPEST}"
            raise InvalidArgsError(
                f"{printable(self._whole[:80])!r} {why}: give 0x.., [heap]+8, libc.so.6+0x10, "
                "a symbol, module!symbol, or *EXPRESSION"
            )
        if _HEX.fullmatch(text):
            return int(text, 16)
        if _DECIMAL.fullmatch(text):
            return self._decimal(text)
        if _REGISTER.fullmatch(text):
            return self._register(text[1:])
        is_name = text[0] not in "*(" or text.startswith(_UNNAMED)
        area = self._names.area(encoded(text)) if is_name and "!" not in text else None
        if area is not None:
            return area
        if text[0].isdigit() and _is_bare_hex(text):
            return int(text, 16)  # no symbol begins with a digit
        offset = _OFFSETS.search(text)
        if offset is not None and offset.start():
            return self._with_offset(text, offset, depth, is_name=is_name)
        if text[0] == "*":
            return self._read_pointer(self.parsed(text[1:].strip(), depth - 1))
        if text[0] == "(" and not is_name:
            if text[-1] != ")":
                raise InvalidArgsError(f"{printable(self._whole)!r} has a ( without its )")
            return self.parsed(text[1:-1].strip(), depth - 1)
        return self._symbol(text)

    def _with_offset(self, text: str, offset: re.Match[str], depth: int, *, is_name: bool) -> int:
        amount = int(offset[2], 16 if _HEX.fullmatch(offset[2]) else 10)
        try:
            base = self.parsed(text[: offset.start()], depth - 1)
        except NoSuchSymbolError as error:
            # A name may end like an offset: without this, "operator+8" is never found.
            with suppress(NoSuchSymbolError):
                if is_name:
                    return self._names.address_of(text)
            raise error from None
        return base + (amount if offset[1] == "+" else -amount)

    def _decimal(self, text: str) -> int:
        """Returns a decimal number, unless it may be a hexadecimal one."""
        number, pasted = int(text), int(text, 16)
        if _LOWEST <= pasted < self._end:
            raise InvalidArgsError(
                f"{text} may be {pasted:#x}, pasted without its 0x, or the decimal number "
                f"{number:#x}; give the one that you mean with 0x"
            )
        return number

    def _symbol(self, name: str) -> int:
        try:
            return self._names.address_of(name)
        except NoSuchSymbolError as error:
            if "!" in name:
                raise
            vmas = self._names.mappings_of(encoded(name))
            if vmas:
                return vmas[0].start
            if _is_bare_hex(name):
                return int(name, 16)
            if error.reason:
                raise
            raise NoSuchSymbolError(
                f"nothing is called {printable(name)!r}: no mapping and no symbol; a number is "
                "written 0x..",
                name=name,
            ) from error


def _is_bare_hex(text: str) -> bool:
    return bool(_BARE_HEX.fullmatch(text)) and int(text, 16) >= _LOWEST
