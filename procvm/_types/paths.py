"""`evaluated`: what a C path such as ``g_list->next->at.x`` means, as an object of drgn."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any, final

from procvm._base.text import printable
from procvm.errors import InvalidArgsError, NoSuchSymbolError

__all__ = ["evaluated"]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|[0-9]+)"
    r"|(?P<name>(?:[^\s*&()\[\]!<>,]+!)?[A-Za-z_$][\w$]*(?:@0x[0-9a-fA-F]+)?(?:::~?\w+)*)"
    r"|(?P<sign>->|[.*&()\[\]+-]))"
)
_MEMBER = re.compile(r"\s*([A-Za-z_$][\w$]*)")
_TYPE = re.compile(r"\(\s*((?:[A-Za-z_]\w*(?:::)?\s*)+\**)\s*\)\s*(?=[A-Za-z_0-9(*&])")
_DEEPEST = 64
_LONGEST = 4000


def evaluated(drgn: Any, program: Any, text: str, named: Callable[[str], Any]) -> Any:
    """Returns the object that a C path means.

    Args:
        drgn: The package.
        program: A drgn program.
        text: Names, numbers, ``->``, ``.``, ``[]``, ``*``, ``&``, ``+``, ``-``, parentheses,
            and casts to a type in parentheses.
        named: Returns the object of a name.

    Raises:
        InvalidArgsError: It cannot be parsed, or asks what a type does not have.
        NoSuchSymbolError: There is no such name or member.
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # not every caller is checked
        raise TypeError(f"a path must be a str, not {type(text).__name__}")
    if len(text) > _LONGEST:
        raise InvalidArgsError(f"a path of {len(text)} characters is too long; at most {_LONGEST}")
    return _Parser(drgn, program, text, named).whole()


@final
class _Parser:
    """Parses one path."""

    def __init__(self, drgn: Any, program: Any, text: str, named: Callable[[str], Any]) -> None:
        self._drgn = drgn
        self._program = program
        self._text = text
        self._named = named
        self._at = 0

    def whole(self) -> Any:
        try:
            found = self._sum(_DEEPEST)
        except (TypeError, ValueError, SyntaxError) as error:
            if isinstance(error, InvalidArgsError):
                raise
            # drgn: no pointer, no structure, no address
            raise self._wrong(printable(str(error))) from None
        if self._text[self._at :].strip():
            raise self._wrong(f"{printable(self._text[self._at :].strip())!r} is left over")
        return found

    def _wrong(self, why: str) -> InvalidArgsError:
        return InvalidArgsError(
            f"cannot evaluate {printable(self._text[:80])!r}: {why}; a path is made of names, "
            "->, ., [], * and &"
        )

    def _next(self) -> tuple[str, str]:
        """Returns the kind and the text of the next token, which stays the next."""
        found = _TOKEN.match(self._text, self._at)
        return ("", "") if found is None else (found.lastgroup or "", found[0].strip())

    def _take(self) -> tuple[str, str]:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            rest = printable(self._text[self._at :].strip()[:20])
            raise self._wrong(f"{rest!r} is not a name" if rest else "it ends too early")
        self._at = found.end()
        return found.lastgroup or "", found[0].strip()

    def _sum(self, depth: int) -> Any:
        value = self._unary(depth)
        while self._next()[1] in ("+", "-"):
            sign = self._take()[1]
            other = self._unary(depth)
            value = value + other if sign == "+" else value - other
        return value

    def _unary(self, depth: int) -> Any:
        if not depth:
            raise self._wrong(f"it is nested deeper than {_DEEPEST}")
        cast = self._cast_type()
        if cast is not None:
            return self._drgn.cast(cast, self._unary(depth - 1))
        kind, text = self._next()
        if kind == "sign" and text in ("*", "&", "-"):
            self._take()
            value = self._unary(depth - 1)
            if text == "*":
                return value[0]
            return value.address_of_() if text == "&" else -value
        return self._postfix(depth)

    def _cast_type(self) -> Any:
        """Returns the type of a cast that comes next, or None."""
        found = _TYPE.match(self._text, self._at + self._blanks())
        if found is None:
            return None
        try:
            type_ = self._program.type(found[1].strip())
        except (LookupError, SyntaxError):
            return None
        self._at = found.end()
        return type_

    def _blanks(self) -> int:
        return len(self._text) - self._at - len(self._text[self._at :].lstrip())

    def _postfix(self, depth: int) -> Any:
        value = self._primary(depth)
        while True:
            sign = self._next()[1]
            if sign in ("->", "."):
                self._take()
                name = _MEMBER.match(self._text, self._at)
                if name is None:
                    raise self._wrong(f"no member follows {sign}")
                self._at = name.end()
                value = self._member(value, name[1])
            elif sign == "[":
                self._take()
                index = self._sum(depth - 1)
                self._expect("]")
                value = value[int(index)]
            else:
                return value

    def _member(self, value: Any, name: str) -> Any:
        try:
            return value.member_(name)
        except LookupError:
            type_ = value.type_.unaliased()
            if type_.kind.name == "POINTER":
                type_ = type_.type.unaliased()
            names = [one.name for one in type_.members or () if one.name]
            near = tuple(difflib.get_close_matches(name, names, 3))
            more = f"; did you mean {' or '.join(near)}?" if near else ""
            raise NoSuchSymbolError(
                f"{printable(type_.type_name())} has no member {printable(name)!r}{more}",
                name=name,
                reason="",
                near=near,
            ) from None

    def _expect(self, sign: str) -> None:
        if self._take()[1] != sign:
            raise self._wrong(f"{sign!r} is missing")

    def _primary(self, depth: int) -> Any:
        kind, text = self._take()
        if kind == "name":
            return self._named(text)
        if kind == "number":
            number = int(text, 16 if text[:2] in ("0x", "0X") else 10)
            if number >> 64:
                raise self._wrong(f"{text} does not fit 64 bits")
            type_ = self._program.int_type("unsigned long", 8, False)
            return self._drgn.Object(self._program, type_, value=number)
        if text == "(":
            value = self._sum(depth - 1)
            self._expect(")")
            return value
        raise self._wrong(f"{text!r} is out of place")
