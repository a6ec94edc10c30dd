"""`KeptFiles`: how the names of a snapshot or a core file find its mapped files."""

from __future__ import annotations

from typing import final

from procvm._base.address import as_address
from procvm._linux.procfs import AT_ENTRY, parse_auxv
from procvm._saved.core_pages import FileFinder
from procvm._saved.facts import Facts, names_of_program
from procvm._saved.saved_memory import KeptMemory
from procvm._space.maps import Maps, Vma
from procvm._space.space import VmSpace
from procvm._symbols.mapped_file import MappedFile, SlowFiles, open_mapped
from procvm._symbols.subject import Subject

__all__ = ["KeptFiles"]


@final
class KeptFiles(Subject):
    """The files that a process mapped when it was copied."""

    is_kept = True

    def __init__(
        self, kept: KeptMemory, vm: VmSpace, maps: Maps, facts: Facts, finder: FileFinder
    ) -> None:
        self._kept = kept
        self._vm = vm
        self._maps = maps
        self._facts = facts
        self._finder = finder
        self._slow = SlowFiles()

    @property
    def pid(self) -> int:
        """The pid of the process that was copied."""
        return self._facts.pid

    @property
    def vm(self) -> VmSpace:
        """The address space as it was."""
        return self._vm

    def maps(self) -> Maps:
        """Returns the mappings as they were; raises ClosedError if the copy was closed."""
        self._kept.pieces()
        return self._maps

    def find_vma(self, address: int) -> Vma | None:
        """Returns the mapping that held `address`, or None."""
        return self.maps().find(as_address(address))

    def mapped_file(self, vma: Vma) -> MappedFile | None:
        """Opens the file at the path of a mapping; the caller compares the builds."""
        open_file = self._slow.copy if self.may_hang(vma) else open_mapped
        opened = (open_file(path, vma) for path in self._finder.paths(vma.plain_name))
        return next((file for file in opened if file is not None), None)

    def may_hang(self, vma: Vma) -> bool:
        """Returns whether a process serves the file of a mapping (FUSE)."""
        return self._slow.is_slow(vma)

    def program_names(self) -> set[bytes]:
        """Returns the names that the program was started by: paths, file names, its comm."""
        self.maps()  # raises if it was closed
        return names_of_program(self._facts, self._facts.args.partition(b" ")[0], self._vm)

    def program_address(self) -> int:
        """Returns where the program began to run; 0 if that is not known."""
        return parse_auxv(self._facts.auxv).get(AT_ENTRY, 0)
