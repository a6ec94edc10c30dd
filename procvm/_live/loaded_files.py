"""`LoadedFiles`: how the names of a live process find its mappings and its mapped files."""

from __future__ import annotations

import os
from contextlib import suppress

from procvm._base.address import PAGE_SIZE, as_address
from procvm._linux import procfs
from procvm._linux.pagemap import is_own
from procvm._linux.procfs import AT_ENTRY, parse_auxv
from procvm._live.image import Image
from procvm._live.memory import ProcessMemory
from procvm._saved.facts import names_of_program
from procvm._space.maps import Maps, Vma, vma_of
from procvm._space.space import VmSpace
from procvm._symbols.mapped import Mapped
from procvm._symbols.mapped_file import MappedFile, SlowFiles, open_mapped
from procvm._symbols.subject import Subject
from procvm._types.sources import ThreadState
from procvm.errors import Hint, NotTracedError

__all__ = ["LoadedFiles"]


class _LiveFiles(Subject):
    """The files that a live process maps."""

    def __init__(self, image: Image, vm: VmSpace) -> None:
        self._image = image
        self._vm = vm
        self._slow = SlowFiles(image.pid)

    @property
    def pid(self) -> int:
        """The pid that the process had when it was opened."""
        return self._image.pid

    @property
    def vm(self) -> VmSpace:
        """The address space of the process."""
        return self._vm

    def maps(self) -> Maps:
        """Returns the mappings as they are now."""
        return Maps([vma_of(entry) for entry in self._image.entries()])

    def find_vma(self, address: int) -> Vma | None:
        """Returns the mapping that holds `address` now, or None."""
        found = self._image.entry_at(as_address(address))
        return None if found is None else vma_of(found)

    def mapped_file(self, vma: Vma) -> MappedFile | None:
        """Opens the file of a mapping, also one that was deleted or renamed; None if it cannot."""
        self._image.open_files()
        is_slow = self.may_hang(vma)
        best: MappedFile | None = None
        for path in (
            # The first needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, the others do not.
            f"/proc/{self.pid}/map_files/{vma.start:x}-{vma.end:x}",
            f"/proc/{self.pid}/root{os.fsdecode(vma.plain_name)}",
            f"/proc/{self.pid}/exe",
        ):
            found = self._slow.copy(path, vma) if is_slow else open_mapped(path, vma)
            if found is None:
                continue
            # On some file systems stat gives another device or inode than maps, for every path.
            if best is None or found.exact:
                best, found = found, best
            if found is not None:
                found.stream.close()
            if best.exact:
                break
        return best

    def program_address(self) -> int:
        """Returns the entry point of the program; 0 if it is not known."""
        return parse_auxv(self._image.facts().auxv).get(AT_ENTRY, 0)

    def program_names(self) -> set[bytes]:
        """Returns the names that the program was started by: paths, file names, and its comm."""
        facts = self._image.facts()
        line = procfs.read_bytes(f"/proc/{self.pid}/cmdline") or b""
        return names_of_program(facts, line.partition(b"\0")[0], self._vm)

    def listing(self, known: object) -> tuple[object, list[Vma] | None]:
        """Returns the text of maps as the token, and the mappings that have a name."""
        text, entries = self._image.named_entries(known if isinstance(known, bytes) else b"")
        return text, None if text == known else [vma_of(entry) for entry in entries]

    def holds_page(self, vma: Vma, address: int) -> bool:
        """Returns whether a page of a private file mapping was written."""
        pagemap = self._image.open_pagemap()
        if pagemap is not None:
            with suppress(OSError):
                return is_own(pagemap.number, address // PAGE_SIZE)
        return not self.may_hang(vma)

    def may_hang(self, vma: Vma) -> bool:
        """Returns whether a process serves the file of a mapping (FUSE), and may never answer."""
        return self._slow.is_slow(vma)

    def _same_file(self, path: bytes, other: bytes, root: bytes = b"") -> bool:
        root = os.fsencode(f"/proc/{self.pid}/root")
        return not self._slow.is_slow_path(path) and super()._same_file(path, other, root)


class LoadedFiles(Mapped):
    """The part of a live process that `Mapped` asks: its memory and its mappings."""

    def __init__(self, image: Image, memory: ProcessMemory) -> None:
        self._image = image
        self._vm = VmSpace(memory)
        self._subject = _LiveFiles(image, self._vm)

    @property
    def pid(self) -> int:
        """The pid that the process had when it was opened."""
        return self._image.pid

    @property
    def vm(self) -> VmSpace:
        """The address space of the process."""
        return self._vm

    def maps(self) -> Maps:
        """Returns the mappings as they are now, sorted and disjoint.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.
            ClosedError: The process was closed.
        """
        return self._subject.maps()

    def find_vma(self, address: int) -> Vma | None:
        """Returns the mapping that holds `address` now, or None, with one system call.

        Before Linux 6.11 the kernel cannot be asked for one mapping, and all are parsed.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.
            ClosedError: The process was closed.
        """
        return self._subject.find_vma(address)

    def _thread_states(
        self, tid: int | None, *, every: bool = False
    ) -> tuple[dict[int, ThreadState], float]:
        raise NotTracedError(
            f"process {self.pid} runs, and the registers of running threads cannot be read",
            pid=self.pid,
            hint=Hint("attach"),
        )
