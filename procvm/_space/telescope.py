"""`Telescope`: words of memory, and where each leads when it is followed as a pointer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, final, overload

from procvm._base.address import as_count
from procvm._base.perms import EXEC, READ, Perms
from procvm._base.pods import PodOnceAtomic, u32, u64
from procvm._base.text import printable
from procvm._mm.memory import Region
from procvm._space.access import Access
from procvm._space.chunks import read_chunks
from procvm._space.texts import is_text, read_some
from procvm.errors import PageFaultError

__all__ = ["ChainEnd", "Link", "Telescope", "Word", "words_at"]

_TEXT_LEN = 64
"""Bytes of a text that are shown at most."""


class ChainEnd(StrEnum):
    """Why a chain of pointers ends."""

    NUMBER = "number"
    """The last value is not the address of a mapping."""
    TEXT = "text"
    """The last value is the address of a text; or a word that is not a pointer holds one."""
    CODE = "code"
    """The last value is an address in an executable mapping."""
    LOOP = "loop"
    """The last value was in the chain before."""
    DEEPER = "deeper"
    """The last value may be followed on; the chain is as long as was asked for."""
    UNREADABLE = "unreadable"
    """The last value is the address of a mapping that cannot be read."""


class Link(NamedTuple):
    """One value of a chain.

    Attributes:
        value: The number.
        perms: The permissions of the mapping that it is an address of; None if nothing is
            mapped there.
    """

    value: int
    perms: Perms | None


class Word(NamedTuple):
    """One word of memory.

    Attributes:
        address: Its address.
        value: The number there.
        chain: The value, the value that it points at, and so on.
        end: Why the chain ends.
        text: The text at the end of the chain, else None.
    """

    address: int
    value: int
    chain: tuple[Link, ...]
    end: ChainEnd
    text: str | None

    def __str__(self) -> str:
        """Returns the row: address, the values of the chain, and its text or its end."""
        parts = [
            f"{link.value:#x}" if link.perms is None else f"{link.value:#x} ({link.perms})"
            for link in self.chain
        ]
        if self.text is not None:
            parts.append('"' + printable(self.text).replace('"', '\\"') + '"')
        elif self.end not in (ChainEnd.NUMBER, ChainEnd.CODE):
            parts.append(f"({self.end})")
        return f"{self.address:#x}  " + " -> ".join(parts)


class _Mapped:
    """The mappings as they were when the telescope began."""

    def __init__(self, vm: Access) -> None:
        self._vm = vm
        self._regions: list[Region] | None = vm.memory.regions()
        self._starts = [region.start for region in self._regions or ()]

    def perms(self, address: int) -> Perms | None:
        """Returns the permissions of the mapping at an address, or None."""
        if self._regions is None:
            # A memory that does not tell what is mapped: an address is one that can be read.
            return Perms(READ) if read_some(self._vm, address, bytearray(1)) else None
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._regions[at].end:
            return None
        return Perms(self._regions[at].flags)


def words_at(vm: Access, address: int, n: int, depth: int) -> Iterator[Word]:
    """Yields `n` words and where they lead to, read as they are asked for.

    Raises:
        PageFaultError: Raised after the words that could be read.
    """
    word = u32 if vm.address_size == u32.size else u64
    mapped = _Mapped(vm)
    at = address
    for data in read_chunks(vm, address, n * word.size, word.size):
        for value in word.slice_from_bytes(data, len(data) // word.size):
            chain, end, text = _followed(vm, mapped, word, value, depth)
            if end is ChainEnd.NUMBER and len(chain) == 1:
                # The word is not a pointer, but its own bytes may be those of a text.
                text = _text_at(vm, at)
                end = ChainEnd.NUMBER if text is None else ChainEnd.TEXT
            yield Word(at, value, chain, end, text)
            at += word.size


def _followed(
    vm: Access, mapped: _Mapped, word: PodOnceAtomic[int], value: int, depth: int
) -> tuple[tuple[Link, ...], ChainEnd, str | None]:
    """Follows a word as long as it is an address; returns the chain, its end and its text."""
    chain: list[Link] = []
    seen: set[int] = set()
    text: str | None = None
    most = vm.end - word.size
    while True:
        perms = mapped.perms(value) if 0 < value <= most else None
        chain.append(Link(value, perms))
        if perms is None:
            end = ChainEnd.NUMBER
            break
        if perms & EXEC:
            end = ChainEnd.CODE
            break
        text = _text_at(vm, value)
        if text is not None:
            end = ChainEnd.TEXT
            break
        if value in seen:
            end = ChainEnd.LOOP
            break
        if len(chain) > depth:
            end = ChainEnd.DEEPER
            break
        seen.add(value)
        try:
            value = vm.read_val(value, word)
        except PageFaultError:
            end = ChainEnd.UNREADABLE
            break
    return tuple(chain), end, text


def _text_at(vm: Access, at: int) -> str | None:
    """Returns the text that bytes at an address begin with, if they look like one."""
    found = is_text(read_some(vm, at, bytearray(min(_TEXT_LEN, vm.end - at))))
    return None if found is None else found.decode("utf-8")


@final
class Telescope(Sequence[Word]):
    """Words that were read, and where each leads to; `print` shows a row for each."""

    def __init__(self, vm: Access, address: int, n: int, depth: int) -> None:
        """Reads the words.

        Raises:
            PageFaultError: A word could not be read.
        """
        self._words = list(words_at(vm, address, as_count(n, "n"), as_count(depth, "depth")))

    @overload
    def __getitem__(self, index: int) -> Word: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Word]: ...
    def __getitem__(self, index: int | slice) -> Word | Sequence[Word]:
        return self._words[index]

    def __len__(self) -> int:
        """Returns the number of words."""
        return len(self._words)

    def __str__(self) -> str:
        """Returns the rows as lines."""
        return "\n".join(map(str, self._words))

    __repr__ = __str__
