"""The mappings of a process."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, final, overload

from procvm._base.address import as_address
from procvm._base.perms import Perms, needed
from procvm._base.text import printable
from procvm._linux.proc_maps import VmaEntry

__all__ = ["Kind", "Maps", "Vma"]

_DELETED = b" (deleted)"


class Kind(StrEnum):
    """The kind of a mapping; a text such as ``"heap"`` is taken wherever a kind is."""

    FILE = "file"
    ANONYMOUS = "anonymous"
    HEAP = "heap"
    STACK = "stack"
    VDSO = "vdso"
    """The kernel's own: [vdso], [vvar] and [vsyscall]."""


class Vma(NamedTuple):
    """One mapping.

    Attributes:
        start: First address.
        end: One past the last.
        perms: What it allows.
        offset: Where in the file it begins, in bytes.
        dev: Major and minor number of the file's device.
        inode: The file's; 0 for none.
        name: What /proc/PID/maps calls it: a path, ``[heap]``, or empty. Any
            byte but NUL may be in it. A file that was deleted ends in
            `` (deleted)``, as may a file that was not.
    """

    start: int
    end: int
    perms: Perms
    offset: int
    dev: tuple[int, int]
    inode: int
    name: bytes

    @property
    def kind(self) -> Kind:
        """The kind of the mapping, told by its name."""
        name = self.name
        if name.startswith(b"/"):
            return Kind.FILE
        if name == b"[heap]":
            return Kind.HEAP
        if name.startswith(b"[stack"):
            return Kind.STACK
        if name in (b"[vdso]", b"[vvar]", b"[vvar_vclock]", b"[vsyscall]"):
            return Kind.VDSO
        if self.inode:
            return Kind.FILE
        return Kind.ANONYMOUS

    @property
    def size(self) -> int:
        """Bytes of it."""
        return self.end - self.start

    @property
    def deleted(self) -> bool:
        """Whether the name says that the file was deleted (a name may lie)."""
        return self.name.endswith(_DELETED)

    @property
    def plain_name(self) -> bytes:
        """The name without what says that the file was deleted."""
        return self.name.removesuffix(_DELETED)

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.start <= address < self.end

    def __str__(self) -> str:
        """Returns its line as /proc/PID/maps writes it, printable, and each address with its 0x."""
        return (
            f"{self.start:#010x}-{self.end:#010x} {self.perms} {self.offset:08x} "
            f"{self.dev[0]:02x}:{self.dev[1]:02x} {self.inode} {printable(self.name)}"
        ).rstrip()


def vma_of(entry: VmaEntry) -> Vma:
    """Returns a line of maps as a mapping."""
    return Vma(entry.start, entry.end, Perms(entry.flags), *entry[3:])


@final
class Maps(Sequence[Vma]):
    """The mappings of a process at one time, sorted and disjoint.

    A sequence of `Vma`; the target may have changed since.
    """

    def __init__(self, vmas: Sequence[Vma]) -> None:
        self._vmas = list(vmas)
        self._starts = [vma.start for vma in self._vmas]

    @overload
    def __getitem__(self, index: int) -> Vma: ...
    @overload
    def __getitem__(self, index: slice) -> Maps: ...
    def __getitem__(self, index: int | slice) -> Vma | Maps:
        if isinstance(index, slice):
            return Maps(self._vmas[index])
        return self._vmas[index]

    def __len__(self) -> int:
        return len(self._vmas)

    def __iter__(self) -> Iterator[Vma]:
        return iter(self._vmas)

    def __repr__(self) -> str:
        return f"<Maps of {len(self._vmas)} mappings>"

    def __str__(self) -> str:
        """Returns the listing, a line a mapping, printable."""
        return "\n".join(map(str, self._vmas))

    def find(self, address: int) -> Vma | None:
        """Returns the mapping that holds `address`, or None."""
        address = as_address(address)
        at = bisect_right(self._starts, address) - 1
        return self._vmas[at] if at >= 0 and address < self._vmas[at].end else None

    def filter(
        self,
        *,
        perms: str | Perms | None = None,
        name: str | bytes | None = None,
        kind: Kind | str | None = None,
    ) -> Maps:
        """Returns the mappings that match all that is given.

        Args:
            perms: What a mapping must allow at least: ``"rw"``, ``"x"``, ``"rs"``
                (``s`` shared), or flags. ``p`` asks for a private one.
            name: What a mapping is called: its whole name, or the last part of
                its path.
            kind: The kind of mapping: a `Kind`, or its text.

        Raises:
            TypeError: A name, a kind or permissions of the wrong type.
            ValueError: A text that is not a kind, or a letter that is not a permission.
        """
        need, private = needed(perms)
        wanted = None if name is None else _name_of(name)
        of_kind = None if kind is None else _kind_of(kind)
        return Maps(
            [
                vma
                for vma in self._vmas
                if vma.perms & need == need
                and not (private and vma.perms & Perms.SHARED)
                and (wanted is None or _called(vma, wanted))
                and (of_kind is None or vma.kind is of_kind)
            ]
        )


def _name_of(name: object) -> bytes:
    if isinstance(name, str | bytes):
        return os.fsencode(name)
    raise TypeError(
        f"name is what a mapping is called, as str or bytes, not {type(name).__name__}; "
        "find(address) gives the mapping that holds an address"
    )


def _kind_of(kind: object) -> Kind:
    if not isinstance(kind, str):
        raise TypeError(f"kind is a Kind or its text, not {type(kind).__name__}")
    try:
        return Kind(kind)
    except ValueError:
        raise ValueError(
            f"{kind!r} is not a kind of mapping; give one of {', '.join(Kind)}"
        ) from None


def _called(vma: Vma, wanted: bytes) -> bool:
    name = vma.plain_name
    return wanted in (vma.name, name, name.rpartition(b"/")[2])
