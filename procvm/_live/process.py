"""`Process`: a live process, opened without tracing."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Literal, NoReturn, cast

from procvm._base.address import PAGE_SIZE, as_address, as_timeout
from procvm._base.atomic_file import new_file
from procvm._base.closing import Closing
from procvm._base.pods import PodLike, pod_of
from procvm._linux import pidfd as _pidfd
from procvm._linux import procfs
from procvm._linux.pagemap import is_own
from procvm._linux.pidfd import ended
from procvm._linux.procfs import AT_ENTRY, has_memory, parse_auxv
from procvm._live.accesses import AccessTrace, trace
from procvm._live.atomics import Holder
from procvm._live.image import Image
from procvm._live.memory import Holding, ProcessMemory
from procvm._live.naming import open_target
from procvm._live.patch import Patch, Unchanged
from procvm._live.threads import threads_of
from procvm._local.buffers import Buffer
from procvm._saved.facts import Facts, Thread, names_of_program
from procvm._saved.snapshot import Snapshot, take_snapshot, write_core
from procvm._space.maps import Maps, Vma, vma_of
from procvm._space.ranges import ranges_of
from procvm._space.space import VmSpace
from procvm._symbols.mapped import Mapped
from procvm._symbols.mapped_file import MappedFile, SlowFiles, open_mapped
from procvm.errors import NoSuchProcessError, NotStoppedError, ProcvmError, WaitTimeoutError

__all__ = ["Process", "open"]


_DYING_MS = 2000
"""How long the end of a process is waited for that has begun to end."""

_LOOK_MS = 50
"""The same, where its hold may have ended for another reason."""


def _hold_of(ref: weakref.ref[Process]) -> Holding:
    """Returns a function that gives what holds a process, or None once it was dropped.

    Not a WeakMethod: its callback is Python that runs in a deallocation, where a Ctrl-C is
    swallowed.
    """

    def hold() -> Callable[[], AbstractContextManager[object]] | None:
        process = ref()
        if process is None:
            return None
        return process._hold  # pyright: ignore[reportPrivateUsage]  # this module's own

    return hold


class Process(Mapped, Closing):
    """A live process whose memory can be read and written; it is never stopped.

    What was opened is one program in one process: after an exec or the end of
    the process every access raises, whatever has the pid then.
    """

    def __init__(self, image: Image, holder: Holder | None = None) -> None:
        if not isinstance(cast(object, image), Image):
            raise TypeError(
                f"a {type(self).__name__} is not made of a {type(image).__name__}; "
                "procvm.open(pid) opens a process, procvm.attach(pid) one that can be held"
            )
        self._image = image
        self._memory = ProcessMemory(image, holder)
        self._memory.holding = _hold_of(weakref.ref(self))
        self._vm = VmSpace(self._memory)
        self._slow = SlowFiles(image.pid)
        self._patches: list[weakref.ref[Patch]] = []
        # Not by __del__: a Ctrl-C that lands in there is swallowed.
        image.warn_if_dropped(repr(self))

    def __repr__(self) -> str:
        state = "closed" if self._image.closed else "open"
        return f"<{type(self).__name__} {self._image.pid}, {state}>"

    @property
    def pid(self) -> int:
        """The pid it was opened by."""
        return self._image.pid

    @property
    def vm(self) -> VmSpace:
        """Its address space."""
        return self._vm

    def maps(self) -> Maps:
        """Returns its mappings, sorted and disjoint, as they are now.

        Raises:
            ProcessExitedError: It has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        return Maps([vma_of(entry) for entry in self._image.entries()])

    def find_vma(self, address: int) -> Vma | None:
        """Returns the mapping that holds `address` now, or None, at the price of one call.

        The whole listing is parsed only if the kernel can not be asked for one
        mapping (before Linux 6.11).

        Raises:
            ProcessExitedError: It has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        address = as_address(address)
        found = self._image.entry_at(address)
        return None if found is None else vma_of(found)

    def threads(self) -> list[Thread]:
        """Returns its threads as they are now, sorted by tid, each with its stack if known.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.
            ClosedError: The process was closed.
        """
        return threads_of(self._image)

    def snapshot(
        self,
        ranges: Iterable[Any] | None = None,
        *,
        exclude: Iterable[Any] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Snapshot:
        """Returns its memory as it is now, kept in our own.

        Memory that nobody ever touched is not read and costs nothing. A process
        that runs meanwhile may change what is not copied yet; a `Tracee` is held.

        Args:
            ranges: What to keep, as `VmSpace.search` takes them; without it all
                that can be read.
            exclude: What to leave out of that, in the same form: mappings of a file
                system that may never answer.
            progress: Is called with (bytes done, bytes in all).

        Raises:
            ProcessExitedError: It has ended.
            ProcessExecedError: It runs another program.
            NotStoppedError: A `Tracee` ran on before all was copied: its longest hold was over.
        """
        with self._whole_look(), self._at_one_instant():
            return take_snapshot(
                self._vm,
                self.maps(),
                self._facts(),
                ranges,
                exclude=exclude,
                undumped=self._image.undumped(),
                progress=progress,
            )

    def save(
        self,
        path: Any,
        ranges: Iterable[Any] | None = None,
        *,
        exclude: Iterable[Any] | None = None,
        dontdump: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Writes its memory as it is now to an ELF core file, in constant memory of ours.

        As `snapshot` and `Snapshot.save` together; the file has registers if the
        process is a `Tracee`, which is held meanwhile.

        Args:
            path: Where to; a file or link that is there is replaced.
            ranges: What to keep, as `snapshot` takes it.
            exclude: What to leave out of that, as `snapshot` takes it.
            dontdump: Whether memory that the process marked MADV_DONTDUMP is written too.
                The kernel and gdb leave it out of a core file: it may hold secrets.
            progress: Is called with (bytes done, bytes in all).

        Returns:
            Bytes of memory in it.

        Raises:
            OSError: The file's own: no room, no such folder.
            ProcessExitedError: It has ended.
            ProcessExecedError: It runs another program.
            NotStoppedError: As of `snapshot`; no file is left then.
        """
        with new_file(path) as fd, self._whole_look(), self._at_one_instant():
            out = ranges_of([] if exclude is None else exclude)
            return write_core(
                fd,
                self._vm,
                self.maps(),
                self._facts(),
                ranges,
                exclude=out if dontdump else [*out, *self._image.undumped()],
                progress=progress,
            )

    @contextmanager
    def _whole_look(self) -> Generator[None]:
        """Tells a process that ended while it was looked at as one that has ended."""
        try:
            yield
        except (NoSuchProcessError, NotStoppedError) as error:
            # A killed process loses its threads and its hold before its pidfd tells its end.
            # A thread of a held one ends for no other reason; a hold may.
            image = self._image
            lost_thread = isinstance(error, NoSuchProcessError) or not has_memory(image.pid)
            wait_ms = _DYING_MS if lost_thread else _LOOK_MS
            if image.pidfd is not None and ended(image.pidfd.number, wait_ms):
                raise image.gone() from None
            raise

    def mapped_file(self, vma: Vma) -> MappedFile | None:
        """Opens the file that a mapping is of: also one that was deleted, or is elsewhere now."""
        self._image.open_files()
        is_slow = self.may_hang(vma)
        best: MappedFile | None = None
        for path in (
            # Of any user, if we may do that; of the others by their names.
            f"/proc/{self.pid}/map_files/{vma.start:x}-{vma.end:x}",
            f"/proc/{self.pid}/root{os.fsdecode(vma.plain_name)}",
            f"/proc/{self.pid}/exe",
        ):
            found = self._slow.copy(path, vma) if is_slow else open_mapped(path, vma)
            if found is None:
                continue
            # On some file systems no number of a device or file is what maps says.
            if best is None or found.exact:
                best, found = found, best
            if found is not None:
                found.stream.close()
            if best.exact:
                break
        return best

    def program_address(self) -> int:
        """Returns where the program began to run; 0 if that is not known."""
        return parse_auxv(self._image.facts().auxv).get(AT_ENTRY, 0)

    def program_names(self) -> set[bytes]:
        """Returns what the program was started as: paths, their last parts, and its comm."""
        facts = self._image.facts()
        line = procfs.read_bytes(f"/proc/{self.pid}/cmdline") or b""
        return names_of_program(facts, line.partition(b"\0")[0], self._vm)

    def listing(self, known: object) -> tuple[object, list[Vma] | None]:
        """Returns the mappings that have a name, and the text of maps as the token."""
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
        """Returns whether a process serves the file of a mapping (FUSE)."""
        return self._slow.is_slow(vma)

    def _same_file(self, path: bytes, other: bytes, root: bytes = b"") -> bool:
        root = os.fsencode(f"/proc/{self.pid}/root")
        return not self._slow.is_slow_path(path) and super()._same_file(path, other, root)

    def patch(self, address: int, data: Buffer, *, expect: Buffer | None = None) -> Patch:
        """Returns a change of its memory that is undone: ``with process.patch(...):``.

        Protections are ignored, as by `VmSpace.forced`, so that code can be patched
        as well. See `Patch`.

        Args:
            address: Where to write.
            data: What to write.
            expect: What has to be there before, as many bytes; without it anything.
        """
        patch = Patch(self._vm, self._hold, self.pid).also(address, data, expect=expect)
        self._patches[:] = [found for found in self._patches if found() is not None]
        self._patches.append(weakref.ref(patch))
        return patch

    def unchanged(self, ranges: Iterable[Any]) -> Unchanged:
        """Returns a watch over ranges: ``with process.unchanged(ranges) as kept:``.

        At the end of the ``with`` its `runs` are what is other than it was.

        Args:
            ranges: What to look at, as `VmSpace.search` takes them.
        """
        return Unchanged(self, ranges)

    def trace_accesses(
        self,
        address: int,
        pod: PodLike[Any],
        on: Literal["write", "access"] = "write",
        *,
        registers: bool = False,
        stack_len: int = 0,
    ) -> AccessTrace:
        """Returns a running trace of who writes or accesses an address; nothing is stopped.

        All threads are traced, those included that are born later. A debug register does the
        work: each hit costs the target about a microsecond, and a value that nobody touches
        costs nothing. An access by the kernel, as in read(2), is not seen.

        Args:
            address: A multiple of the size of `pod`.
            pod: A type of 1, 2, 4 or 8 bytes. An access that overlaps these bytes is a hit.
            on: ``"write"``, or ``"access"`` for reads and writes.
            registers: Whether each hit has the general registers.
            stack_len: Bytes of the stack that each hit has, from the stack pointer upwards; a
                multiple of 8, at most 65,528.

        Raises:
            ValueError: The address or size cannot be watched.
            AccessDeniedError: The kernel refuses perf events to this user.
            UnsupportedError: The debug registers of a thread are in use, or there are none.
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.

        Source:
            perf_event_open(2), PERF_TYPE_BREAKPOINT.
        """
        return trace(
            self._image,
            address,
            pod_of(pod).size,
            on=on,
            registers=registers,
            stack_len=stack_len,
        )

    def trace_calls(
        self, function: int | str, *, registers: bool = True, stack_len: int = 0
    ) -> AccessTrace:
        """Returns a running trace of the calls of a function; nothing is stopped.

        As `trace_accesses`, for the execution of the instruction at an address.

        Args:
            function: Its address, or what `address` takes, such as ``"libc.so.6!malloc"``.
            registers: Whether each hit has the general registers, and so `Access.arguments`.
            stack_len: As for `trace_accesses`.

        Raises:
            NoSuchSymbolError: No file has that symbol.
            AccessDeniedError: The kernel refuses perf events to this user.
            UnsupportedError: The debug registers of a thread are in use, or there are none.
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.
        """
        return trace(
            self._image,
            self.address(function),
            1,
            on="call",
            registers=registers,
            stack_len=stack_len,
        )

    def _hold(self) -> AbstractContextManager[object]:
        """Returns what holds the process while several things are done to it: nothing does."""
        return nullcontext()

    def _at_one_instant(self) -> AbstractContextManager[object]:
        """Returns what makes a copy one of an instant: nothing does, of a process that runs."""
        return nullcontext()

    def _facts(self) -> Facts:
        """Returns what is known of it beside its memory."""
        return self._image.facts()

    def is_alive(self) -> bool:
        """Returns whether the process that was opened has not ended; a zombie has.

        It may run another program by now.

        Raises:
            ClosedError: It was closed.
        """
        return not self._image.has_ended()

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the process has ended.

        It is not reaped: the ``wait`` of whoever started it still works.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Returns:
            Its exit status as subprocess gives it: the code, or minus the
            number of the signal that ended it. None if it is not a child of
            ours and the kernel does not tell others (before Linux 6.15).

        Raises:
            WaitTimeoutError: It has not ended in time.
            ValueError: `timeout` is negative, infinite or nan.
            ClosedError: It was closed.
        """
        timeout = as_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._image.open_pidfd().use() as pidfd:
            while not ended(pidfd, None if deadline is None else _ms_until(deadline)):
                if deadline is not None and time.monotonic() >= deadline:
                    raise WaitTimeoutError(
                        f"process {self.pid} has not ended within {timeout} s", pid=self.pid
                    )
            self._image.open_pidfd()  # closed by another thread before, it tells nothing
            return _pidfd.exit_status(pidfd, self.pid)

    def close(self) -> None:
        """Lets go of the process, which runs on. Twice is fine.

        Every later use of it, of its `vm` and of cursors over it raises
        ClosedError. Patches that are still in place are undone.
        """
        self._undo_patches()
        self._image.close()

    def _undo_patches(self) -> None:
        """Undoes what a Ctrl-C left in place, just before the first line of a patch's end."""
        for found in self._patches:
            patch = found()
            if patch is not None:
                with suppress(ProcvmError):
                    patch.close()
        self._patches.clear()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be pickled: it has to be closed where it was opened; pickle its vm, "
            "which opens the process again where it is used"
        )


def _ms_until(deadline: float) -> int:
    # Rounded up, and within what poll takes.
    return min(max(0, int((deadline - time.monotonic()) * 1000) + 1), 1 << 30)


def open(  # noqa: A001 (as users of files know it)
    target: int | str, *, backend: Literal["auto", "mem"] = "auto"
) -> Process:
    """Opens a live process without tracing it: the process is never stopped.

    Args:
        target: The process's pid; or its name, which is its comm, or the base name of its
            executable or of its argv[0]. A name never means the tool itself.
        backend: The system call that serves reads. ``"auto"`` is process_vm_readv, with
            /proc/PID/mem where that is refused. ``"mem"`` is /proc/PID/mem alone, which fails
            with a page fault at a page that may never be filled (userfaultfd); process_vm_readv
            would block there. Both give the same results.

    Raises:
        NoSuchProcessError: No process has the pid or the name.
        AmbiguousNameError: Several processes have the name.
        ProcessExitedError: The process is a zombie.
        AccessDeniedError: The kernel or a security policy denies the access; the message says
            which.
        UnsupportedError: /proc is not mounted, or belongs to another pid namespace.
        TypeError: `target` is neither an int nor a str.
        ValueError: `target` is empty, or `backend` is neither ``"auto"`` nor ``"mem"``.
    """
    if backend not in ("auto", "mem"):
        raise ValueError(f"backend {backend!r}: give 'auto' or 'mem'")
    return Process(open_target(target, by_calls=backend != "mem"))
