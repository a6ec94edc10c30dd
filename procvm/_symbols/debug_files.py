"""`module_sources`: the loaded files, as the search for debug information takes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from procvm._base.address import page_end
from procvm._base.fd import Fd
from procvm._base.optional import required
from procvm._space.maps import Kind
from procvm._symbols.elf_headers import PT_LOAD
from procvm._symbols.layout import LoadedFile
from procvm._symbols.loaded import LIBRARY
from procvm._symbols.module_files import UNREADABLE
from procvm._types.sources import ModuleSource
from procvm.errors import VmError

if TYPE_CHECKING:
    from procvm._symbols.names import Names
    from procvm._symbols.subject import Subject

__all__ = ["module_sources"]


def module_sources(subject: Subject, names: Names) -> list[ModuleSource]:
    """Returns the loaded files, the program first.

    Raises:
        UnsupportedError: pyelftools is not installed.
    """
    required(LIBRARY, "reading debug information")
    now = names.refresh()
    found: list[ModuleSource] = []
    for file in now.files():
        ends = [file.bias + one.vaddr + one.memsz for one in file.segments if one.type == PT_LOAD]
        is_file = file.first.kind is Kind.FILE
        found.append(
            ModuleSource(
                name=os.fsdecode(now.label(file)),
                path=os.fsdecode(file.first.plain_name) if is_file else "",
                start=file.first.start,
                end=page_end(max(ends, default=file.end) - 1),
                build_id=names.reader.build_id_of(file),
                # Another content of the same file is another object.
                key=file,
                open=_Opener(subject, names, file),
            )
        )
    return found


class _Opener:
    """Opens one loaded file."""

    def __init__(self, subject: Subject, names: Names, file: LoadedFile) -> None:
        self._subject = subject
        self._names = names
        self._file = file

    def __call__(self) -> tuple[int, str]:
        file = self._file
        if file.first.kind is Kind.VDSO:
            return self._copied()
        try:
            with self._names.reader.file_of(file) as found:
                if found is None:
                    return -1, file.why
                return os.dup(found[1].stream.fileno()), ""
        except (*UNREADABLE, VmError, OSError) as error:
            return -1, getattr(error, "message", str(error))

    def _copied(self) -> tuple[int, str]:
        """Returns a descriptor of a copy of the vdso, which is in no file; or -1 and why not."""
        first = self._file.first
        try:
            data = self._subject.vm.forced().read_bytes(first.start, first.end - first.start)
            with Fd.of(os.memfd_create, "procvm-vdso", os.MFD_CLOEXEC) as copy:
                os.write(copy.number, data)
                return os.dup(copy.number), ""
        except (*UNREADABLE, VmError, OSError) as error:
            return -1, getattr(error, "message", str(error))
