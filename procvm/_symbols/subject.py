"""`Subject`: what the search for names asks of a process, a snapshot or a core file."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from procvm._space.maps import Maps, Vma
    from procvm._space.space import VmSpace
    from procvm._symbols.mapped_file import MappedFile

__all__ = ["Subject"]


class Subject(ABC):
    """The mappings of a memory, and the files that are mapped there."""

    is_kept = False
    """Whether the memory is a copy that does not change any more."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """The pid of the process, or of the process that it is a copy of."""

    @property
    @abstractmethod
    def vm(self) -> VmSpace:
        """Its address space."""

    @abstractmethod
    def maps(self) -> Maps:
        """Returns its mappings, sorted and disjoint."""

    @abstractmethod
    def find_vma(self, address: int) -> Vma | None:
        """Returns the mapping that holds `address`, or None."""

    @abstractmethod
    def mapped_file(self, vma: Vma) -> MappedFile | None:
        """Opens the file of a mapping, or returns None if it cannot be opened."""

    @abstractmethod
    def program_address(self) -> int:
        """Returns an address in the executable; 0 if that is not known."""

    @abstractmethod
    def program_names(self) -> set[bytes]:
        """Returns the names that the program was started by: paths, file names, and its comm."""

    def listing(self, known: object) -> tuple[object, list[Vma] | None]:
        """Returns a token for the present mappings, and the mappings that have a name.

        Args:
            known: A token that an earlier call returned; if nothing has changed since,
                None is returned in place of the mappings.
        """
        maps = self.maps()
        return maps, None if maps is known else [vma for vma in maps if vma.name]

    def holds_page(self, vma: Vma, address: int) -> bool:
        """Returns whether a page of a file mapping may have other bytes than the file."""
        del vma, address
        return True

    def may_hang(self, vma: Vma) -> bool:
        """Returns whether a process serves the file of a mapping (FUSE), and may never answer."""
        del vma
        return False

    def is_link(self, name: bytes, vma: Vma) -> bool:
        """Returns whether a path, or a name in the folder of a mapping's file, leads to it."""
        path = vma.plain_name
        if not path.startswith(b"/") or self.may_hang(vma):
            return False
        other = os.path.join(os.path.dirname(path), name)
        return self._same_file(other, path)

    def _same_file(self, path: bytes, other: bytes, root: bytes = b"") -> bool:
        try:
            return os.path.samefile(root + path, root + other)
        except (OSError, ValueError):
            return False
