"""The names of C++ and Rust as their sources have them, and the mangled names that they mean."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from procvm._base.optional import optional

__all__ = [
    "Spelling",
    "file_and_symbol",
    "is_mangled",
    "plain",
    "spelling_of",
    "without_templates",
    "words_of",
]

_BLANKS = re.compile(r"\s+(?!\w)|(?<!\w)\s+")
_WORDS = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TAG = re.compile(r"\[abi:\w+\]")
_BANG = re.compile(r"(?<!operator)!")
# Mangled names abbreviate these, so that the words themselves do not occur in them.
_ABBREVIATED = frozenset(
    _WORDS.findall("""
    std allocator string basic_string basic_istream basic_ostream basic_iostream istream ostream
    iostream char_traits operator new delete co_await anonymous namespace abi const volatile
    restrict noexcept decltype auto true false nullptr_t void bool char wchar_t char8_t char16_t
    char32_t __int128 __float80 __float128 _Float16 _Float32 _Float64
    _Float128 short int long signed unsigned float double half lambda unnamed enum vtable VTT
    typeinfo name for guard variable construction in virtual non thunk to covariant return
    reference temporary transaction clone closure shim impl as dyn mut fn str usize isize
    u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f16 f32 f64 f128 extern unsafe
    """)
)


class Spelling(NamedTuple):
    """A mangled name as people write it.

    Attributes:
        whole: With the types of its arguments, as a demangler prints it.
        qualified: Without them: ``game::Score::hit``. The same as `whole` for what the compiler
            made of something else: a vtable, a thunk, a part of a function.
    """

    whole: str
    qualified: str

    def rank(self, wanted: str) -> int | None:
        """Returns how well a text, as `plain` returns it, means this name; None if it does not.

        0 if it is whole, 1 without arguments, 2 also without tags such as ``[abi:cxx11]``, 3
        also without the arguments of templates.
        """
        if wanted == plain(self.whole):
            return 0
        short = plain(self.qualified)
        for rank, one in enumerate((short, _TAG.sub("", short), without_templates(short)), 1):
            if wanted == one:
                return rank
        return None


def is_mangled(name: bytes) -> bool:
    """Returns whether a name may be a mangled one, of C++ or Rust."""
    return name.startswith((b"_Z", b"_R"))


def spelling_of(name: bytes) -> Spelling | None:
    """Returns a mangled name as people write it.

    None if it is not mangled, or if the package `demangle` is not installed.
    """
    return _spelling_of(name) if is_mangled(name) else None


@lru_cache(1 << 14)
def _spelling_of(name: bytes) -> Spelling | None:
    package: Any = optional("demangle")
    if package is None:
        return None
    try:
        found = package.signature(name.decode("ascii"), language=("itanium", "rust"))
    except (UnicodeDecodeError, package.DemanglingError):
        return None  # it only looks like a mangled name
    if found is None or not found.qualified_name:
        return None
    whole: str = found.demangled
    is_made = found.special or found.decoration
    return Spelling(whole, whole if is_made else found.qualified_name)


def plain(text: str) -> str:
    """Returns a name without the blanks that mean nothing: ``f(int, char *)``, ``f(int,char*)``."""
    return _BLANKS.sub("", text.strip())


def without_templates(text: str) -> str:
    """Returns a name without what is in angle brackets, except the signs of operators."""
    text = _TAG.sub("", text)
    if "operator" in text:
        return text
    parts: list[str] = []
    depth = 0
    for k, one in enumerate(text):
        if one == "<":
            depth += 1
        elif one == ">" and text[k - 1] != "-":
            depth -= 1
        elif depth <= 0:
            parts.append(one)
    return "".join(parts)


def words_of(text: str, *, is_part: bool = False) -> set[bytes]:
    """Returns the words of a name that occur in its mangled form as they are.

    Args:
        text: The name.
        is_part: Whether a word may be a part of a longer one.
    """
    found = set(_WORDS.findall(text))
    if is_part:
        return {one.encode() for one in found if not any(one in other for other in _ABBREVIATED)}
    return {one.encode() for one in found - _ABBREVIATED}


def file_and_symbol(name: str) -> tuple[str, bool, str]:
    """Returns the file of ``FILE!SYMBOL``, whether there is one, and the symbol."""
    signs = [one.start() for one in _BANG.finditer(name)]
    if not signs:
        return "", False, name
    return name[: signs[-1]], True, name[signs[-1] + 1 :]
