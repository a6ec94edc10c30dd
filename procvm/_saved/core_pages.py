"""Pages that a core file leaves out: read from the mapped file, or reported with a reason.

The kernel and gdb leave out pages of files that the program never changed. They are read from
the file itself where it is of the same build, as debuggers do.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast, final

from procvm._base.address import PAGE_SIZE
from procvm._base.fd import Fd
from procvm._base.text import printable
from procvm._linux.own_means import is_own_shortage
from procvm._saved.saved_memory import FilePart, Gap, Piece
from procvm._symbols.core_notes import FileNote
from procvm._symbols.elf_headers import Elf, Segment, build_id_of
from procvm.errors import MalformedError, UnsupportedError

__all__ = ["CorePages", "FileFinder"]

_MOST_FILES = 1 << 10
_WRITABLE, _RUNS = 2, 1  # PF_W, PF_X
_HEAD_LEN = 1 << 16
"""Bytes in which the headers and the build ID of a file are looked for."""


class FileFinder(NamedTuple):
    """The places of the files that a core file names.

    Attributes:
        program: The path of the program in the core file.
        exe: The path of the program's file on this machine, if the caller gave it.
        sysroot: The folder with the mapped files, if the caller gave it.
    """

    program: bytes
    exe: str | None
    sysroot: str | None

    def paths(self, name: bytes) -> Iterator[str]:
        """Yields the paths at which a mapped file may be, best first."""
        if self.exe is not None and name == self.program:
            yield self.exe
        path = os.fsdecode(name)
        if self.sysroot is not None:
            yield self.sysroot.rstrip("/") + path
        yield path


class _Found(NamedTuple):
    """A file of the same build, or why there is none."""

    file: Fd | None
    size: int
    why: str


@final
class CorePages:
    """The memory in a core file, with the pages of files that it leaves out.

    Attributes:
        pieces: The ranges that can be read, in order.
        gaps: The ranges that cannot, each with the reason, in order.
    """

    def __init__(
        self, core: Elf, file: Fd, loads: Sequence[Segment], files: Sequence[FileNote]
    ) -> None:
        self._core = core
        self._file = file
        self._loads = loads
        self._files = files
        self.pieces: list[Piece] = []
        self.gaps: list[Gap] = []
        for load in loads:
            # Without this, a file that was cut off faults in the middle of a piece.
            kept_len = min(load.filesz, core.size - load.offset)
            if kept_len > 0:
                part = FilePart(file, load.offset)
                self.pieces.append(Piece(load.vaddr, load.vaddr + kept_len, part))
            if kept_len < load.filesz:
                at = load.vaddr + max(kept_len, 0)
                why = (
                    f"the file is cut off: it has {core.size} bytes, and needs "
                    f"{load.offset + load.filesz} for this segment"
                )
                self.gaps.append(Gap(at, load.vaddr + load.filesz, why))

    def fill(self, finder: FileFinder, stack: int) -> None:
        """Adds pages of files that were left out.

        Args:
            finder: Where the files are.
            stack: The stack pointer of the first thread.
        """
        # Without private memory in the core file, a read-only page may have been changed and
        # left out all the same (relocated data).
        complete = any(piece.start <= stack < piece.end for piece in self.pieces)
        known: dict[bytes, _Found] = {}
        kept = {piece.start: piece for piece in self.pieces}
        pieces: list[Piece] = []
        for note, load, start, end in self._left_out():
            if note.name not in known:
                if len(known) >= _MOST_FILES:
                    return
                known[note.name] = self._find(note.name, finder, kept)
            found = known[note.name]
            why = found.why
            if load.flags & _WRITABLE or not (complete or load.flags & _RUNS):
                why = "it may have been changed, and the core file leaves it out"
            elif found.file is not None:
                offset = note.offset + start - note.start
                last = min(end, start + max(-(-found.size // PAGE_SIZE) * PAGE_SIZE - offset, 0))
                whole = min(last, start + max(found.size - offset, 0))
                if start < whole:
                    pieces.append(Piece(start, whole, FilePart(found.file, offset)))
                if max(whole, start) < last:
                    pieces.append(Piece(max(whole, start), last, None))
                if last < end:
                    self.gaps.append(Gap(last, end, f"{printable(note.name)} ends before it"))
                continue
            self.gaps.append(Gap(start, end, why))
        self.pieces = sorted([*self.pieces, *pieces], key=lambda piece: piece.start)
        self.gaps.sort()

    def _left_out(self) -> Iterator[tuple[FileNote, Segment, int, int]]:
        """Yields the parts of mapped files that are in a segment and not in the core file."""
        k = 0
        for load in self._loads:
            low, high = load.vaddr + load.filesz, load.vaddr + load.memsz
            while k < len(self._files) and self._files[k].end <= load.vaddr:
                k += 1
            j = k
            while low < high and j < len(self._files) and self._files[j].start < high:
                note = self._files[j]
                start, end = max(low, note.start), min(high, note.end)
                if start < end:
                    yield note, load, start, end
                j += 1

    def _find(self, name: bytes, finder: FileFinder, kept: dict[int, Piece]) -> _Found:
        head = self._head(name, kept)
        why = f"{printable(name)} is not here"
        for path in finder.paths(name):
            try:
                # Before it is opened, since opening a device can have effects.
                if not path.startswith("/") and path != finder.exe:
                    continue
                if not stat.S_ISREG(os.stat(path).st_mode):
                    continue
                file = Fd.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
                status = os.fstat(file.number)
                there = os.pread(file.number, _HEAD_LEN, 0)
            except OSError as error:
                if is_own_shortage(error):
                    why = f"{printable(name)} cannot be opened: {os.strerror(error.errno or 0)}"
                    break
                continue
            except ValueError:
                continue
            why = self._differs(path, head, there, status)
            if not why:
                return _Found(file, status.st_size, "")
        return _Found(None, 0, f"the core file leaves out unchanged pages of files, and {why}")

    def _head(self, name: bytes, kept: dict[int, Piece]) -> bytes:
        """Returns the first bytes of a mapped file in the core file; empty if it lacks them."""
        for note in self._files:
            piece = kept.get(note.start)
            if note.name == name and note.offset == 0 and piece is not None:
                n = min(piece.end - piece.start, _HEAD_LEN)
                part = cast("FilePart", piece.own)
                return os.pread(self._file.number, n, part.offset)
        return b""

    def _differs(self, path: str, head: bytes, there: bytes, status: os.stat_result) -> str:
        """Returns why a file is not the one that was mapped; empty if it is."""
        what = printable(os.fsencode(path))
        if not head.startswith(b"\x7fELF"):
            return f"nothing in it tells whether {what} is the same file"
        build, other = _build_of(head, what), _build_of(there, what)
        if build or other:
            return "" if build == other else f"{what} is another build"
        n = min(len(head), len(there), PAGE_SIZE)
        older = status.st_mtime_ns <= os.fstat(self._file.number).st_mtime_ns
        same = head[:n] == there[:n] and older
        return "" if same else f"{what} has no build ID and is not the same file"


def _build_of(head: bytes, what: str) -> bytes:
    try:
        return build_id_of(Elf(io.BytesIO(head), what))
    except (MalformedError, UnsupportedError):
        return b""
