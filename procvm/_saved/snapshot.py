"""`Snapshot`: a copy of the memory of a process, which is read as the process is."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn, final

from procvm._base.address import as_address, as_int
from procvm._base.atomic_file import new_file
from procvm._base.closing import Closing
from procvm._local.buffers import Scratch, pin
from procvm._mm.extent import Content
from procvm._mm.memory import Region, UserMemory
from procvm._saved.core_pages import FileFinder
from procvm._saved.core_writer import CoreWriter
from procvm._saved.diff import Run, differences, part_of, without
from procvm._saved.facts import Facts, Thread
from procvm._saved.kept_files import KeptFiles
from procvm._saved.restore import restore
from procvm._saved.saved_memory import KeptMemory, Piece
from procvm._space.maps import Maps, Vma
from procvm._space.ranges import add_range, ranges_of
from procvm._space.space import VmSpace
from procvm._space.walk import Part, parts, read_extents
from procvm._symbols.core_notes import fault_address_of, native_registers
from procvm._symbols.mapped import Mapped
from procvm._types.sources import ThreadState
from procvm.errors import Hint, NotStoppedError, NotTracedError

__all__ = ["Run", "Snapshot", "take_snapshot", "write_core"]

_STREAM_LEN = 1 << 22
_PART_LEN = 1 << 26


@final
class Snapshot(Mapped, Closing):
    """A copy of the memory of a process at one time.

    Its `vm` is read as the `vm` of a process is, and it has the same `maps`, `find_vma`,
    `modules` and `symbol`: a script that reads a process reads a snapshot or a core file too.
    The bytes are in the tool's memory, or in the core file that was opened, until it is closed.
    """

    def __init__(
        self,
        memory: KeptMemory,
        maps: Maps,
        facts: Facts,
        origin: VmSpace | None,
        finder: FileFinder | None = None,
        undumped: Iterable[tuple[int, int]] = (),
    ) -> None:
        self._kept = memory
        self._vm = VmSpace(memory)
        self._facts = facts
        self._origin = origin
        self._subject = KeptFiles(
            memory, self._vm, maps, facts, finder or FileFinder(b"", None, None)
        )
        self._undumped = list(undumped)

    def __repr__(self) -> str:
        what = "closed" if self._kept.closed else f"{self.kept_len} bytes kept"
        return f"<Snapshot of process {self.pid}, {what}>"

    @property
    def pid(self) -> int:
        """The pid of the process that it is a copy of."""
        return self._facts.pid

    @property
    def vm(self) -> VmSpace:
        """The address space as it was: everything that was copied can be read."""
        return self._vm

    @property
    def facts(self) -> Facts:
        """The ids, threads and registers of the process."""
        return self._facts

    @property
    def kept_len(self) -> int:
        """The bytes that the copy takes; zeros are not counted."""
        return sum(piece.end - piece.start for piece in self._kept.pieces() if piece.own)

    def kept_ranges(self) -> list[tuple[int, int]]:
        """Returns the ranges that can be read, as sorted and disjoint (start, end) pairs."""
        return ranges_of((piece.start, piece.end) for piece in self._kept.pieces())

    def maps(self) -> Maps:
        """Returns the mappings as they were.

        Raises:
            ClosedError: It was closed.
        """
        return self._subject.maps()

    def find_vma(self, address: int) -> Vma | None:
        """Returns the mapping that held `address`, or None."""
        return self.maps().find(as_address(address))

    @property
    def signal(self) -> int | None:
        """The signal that a core file was written for; None if there was none."""
        return self._facts.signo or None

    @property
    def fault_address(self) -> int | None:
        """The address whose access raised `signal`; None if the kernel did not tell one.

        It tells none for a signal that a process sent, and none on x86-64 for an address
        that is not canonical.
        """
        return fault_address_of(self._facts.siginfo, bits=8 * self.address_size)

    def threads(self) -> list[Thread]:
        """Returns the threads whose registers are known: of a `Tracee`, and of a core file."""
        self._kept.pieces()
        return list(self._facts.threads)

    def registers(self, tid: int | None = None) -> dict[str, int]:
        """Returns the general registers that a thread had, by the kernel's names.

        Args:
            tid: The thread; the first if it is not given.

        Raises:
            NotStoppedError: They are not known: the process was not held during the copy.
        """
        self._kept.pieces()
        known = self._facts.registers
        if tid is None:
            tid = self._facts.threads[0].tid if self._facts.threads else self.pid
        if as_int(tid, "tid") not in known:
            raise NotStoppedError(
                f"the snapshot of process {self.pid} has no registers of thread {tid}",
                pid=self.pid,
                hint=Hint("held_snapshot"),
            )
        return dict(known[tid])

    def _thread_states(
        self, tid: int | None, *, every: bool = False
    ) -> tuple[dict[int, ThreadState], float]:
        first = self._facts.threads[0].tid if self._facts.threads else self.pid
        tids = [one.tid for one in self._facts.threads] if every else []
        tids = tids or [first if tid is None else as_int(tid, "tid")]
        return {one: ThreadState(self.registers(one)) for one in tids}, 0.0

    def diff(self, other: Mapped | VmSpace, ranges: Iterable[Any] | None = None) -> list[Run]:
        """Returns where other memory differs from this, in order.

        Bytes that only one of the two contains are ignored.

        Args:
            other: A later snapshot, or the process or its `vm`.
            ranges: The ranges to compare, as `VmSpace.search` takes them; all if not given.
        """
        where = None if ranges is None else ranges_of(ranges)
        return list(differences(self._kept, _space_of(other, "diff").memory, where))

    def restore(self, to: Mapped | VmSpace | None = None) -> int:
        """Writes back the bytes of the process that have changed; returns how many had.

        Page protections are ignored, as by `VmSpace.forced`. A `Tracee` is held meanwhile; then
        ranges of private memory are written, in which equal bytes are written again. Without
        a hold, and in shared memory, only bytes that differ are written, run by run.

        Args:
            to: The process, or its `vm`; the one that the snapshot was taken of if not given.

        Raises:
            PageFaultError: A page cannot be written (shared, and read-only); or something
                that was kept is not mapped any more, and all the rest was restored.
                `copied_len` bytes were restored.
            NotStoppedError: The hold ended before all was restored; `copied_len` bytes were.
            ProcessExitedError: It has ended.
            NotTracedError: It is a core file, and of no process that is known.
        """
        space = self._origin if to is None else _space_of(to, "restore")
        if space is None:
            raise NotTracedError(
                f"the core file of process {self.pid} does not know a live process to write to",
                pid=self.pid,
                hint=Hint("restore_to"),
            )
        return restore(self._kept, space.forced().memory)

    def save(
        self,
        path: Any,
        *,
        dontdump: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Writes an ELF core file, which debuggers open, and `procvm.open_core`.

        It appears whole or not at all, with mode 0600. Memory that the process never touched
        takes no room in it.

        Args:
            path: The path of the new file; a file or link with that name is replaced.
            dontdump: Whether memory that the process marked MADV_DONTDUMP is written too.
            progress: A function that is called with (bytes done, bytes in all).

        Returns:
            The bytes of memory in it.

        Raises:
            OSError: The file cannot be written: no room, no such folder.
            ClosedError: It was closed.
        """
        kept = list(without(self.kept_ranges(), [] if dontdump else self._undumped))
        with new_file(path) as fd:
            return write_core(fd, self._vm, self.maps(), self._facts, kept, progress=progress)

    def close(self) -> None:
        """Frees the copy; every later use raises ClosedError. A second close does nothing."""
        self._kept.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a snapshot of process {self.pid} cannot be pickled: it is as large as the memory "
            "that it copies; save it to a core file"
        )


def _space_of(memory: Mapped | VmSpace, what: str) -> VmSpace:
    if isinstance(memory, Mapped):
        return memory.vm
    if not isinstance(memory, VmSpace):  # pyright: ignore[reportUnnecessaryIsInstance]  # not every caller is checked
        raise TypeError(f"{what} takes a process or its vm, not {type(memory).__name__}")
    return memory


def take_snapshot(
    vm: VmSpace,
    maps: Maps,
    facts: Facts,
    ranges: Iterable[Any] | None,
    *,
    exclude: Iterable[Any] | None = None,
    undumped: Iterable[tuple[int, int]] = (),
    progress: Callable[[int, int], object] | None = None,
) -> Snapshot:
    """Copies the readable memory of a space; see `Process.snapshot`."""
    memory = vm.memory
    pieces: list[Piece] = []
    for part in parts(memory, _wanted(vm, ranges, exclude), _PART_LEN, progress):
        if part.content is Content.ZEROS:
            pieces.append(Piece(part.start, part.end, None))
        elif part.extents:
            pieces.extend(_kept(memory, part))
    kept = KeptMemory(
        pieces, regions_of(maps), memory.end, facts.pid, address_size=facts.address_size
    )
    return Snapshot(kept, maps, _native(facts), vm, undumped=undumped)


def write_core(
    fd: int,
    vm: VmSpace,
    maps: Maps,
    facts: Facts,
    ranges: Iterable[Any] | None,
    *,
    exclude: Iterable[Any] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> int:
    """Streams the readable memory of a space to an open file; see `Process.save`."""
    memory = vm.memory
    done = 0
    writer = CoreWriter(fd)
    room = Scratch(_STREAM_LEN)
    for part in parts(memory, _wanted(vm, ranges, exclude), _STREAM_LEN, progress):
        if part.content is Content.ZEROS:
            writer.zeros(part.start, part.end)
        for start, end, content, _ in read_extents(memory, part.extents, part.start, room.address):
            if content is Content.DATA:
                writer.data(start, room.view[start - part.start : end - part.start])
                done += end - start
    writer.finish(_native(facts), maps, memory.end)
    return done


def _wanted(
    vm: VmSpace, ranges: Iterable[Any] | None, exclude: Iterable[Any] | None
) -> list[tuple[int, int]]:
    wanted = vm.ranges(ranges, "r")
    return wanted if exclude is None else list(without(wanted, ranges_of(exclude)))


def _native(facts: Facts) -> Facts:
    """Returns facts whose registers are named as the machine of the program names them."""
    named = {tid: native_registers(facts.machine, one) for tid, one in facts.registers.items()}
    return facts._replace(registers=named)


def regions_of(maps: Maps) -> list[Region]:
    """Returns mappings as the regions of a memory."""
    return [Region(vma.start, vma.end, int(vma.perms)) for vma in maps]


def _kept(memory: UserMemory, part: Part) -> list[Piece]:
    """Copies the readable bytes of a part of a walk to the tool's memory."""
    start, n = part.start, part.end - part.start
    # Without a mapping of its own, the memory of a closed snapshot stays in the heap.
    room = mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if n >= 1 << 21:
        with suppress(OSError):  # a kernel without huge pages
            room.madvise(mmap.MADV_HUGEPAGE)
    held = pin(room, writable=True)
    runs: list[tuple[int, int]] = []
    for first, last, content, _ in read_extents(memory, part.extents, start, held.address):
        if content is Content.DATA:
            add_range(runs, first, last)
    return [Piece(low, high, part_of(held, low - start, high - low)) for low, high in runs]
