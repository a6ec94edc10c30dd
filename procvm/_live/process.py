"""`Process`: a live process, opened without tracing."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Literal, NoReturn, cast

from procvm._base.address import as_timeout
from procvm._base.atomic_file import new_file
from procvm._base.closing import Closing
from procvm._base.pods import PodLike, pod_of
from procvm._linux import pidfd as _pidfd
from procvm._linux.pidfd import ended
from procvm._linux.procfs import has_memory
from procvm._live.accesses import AccessTrace, trace
from procvm._live.atomics import Holder
from procvm._live.image import Image
from procvm._live.loaded_files import LoadedFiles
from procvm._live.memory import Holding, ProcessMemory
from procvm._live.naming import open_target
from procvm._live.patch import Patch
from procvm._live.threads import threads_of
from procvm._local.buffers import Buffer
from procvm._saved.facts import Facts, Thread
from procvm._saved.snapshot import Snapshot, take_snapshot, write_core
from procvm._saved.unchanged import Unchanged
from procvm._space.ranges import ranges_of
from procvm.errors import NoSuchProcessError, NotStoppedError, ProcvmError, WaitTimeoutError

__all__ = ["Process", "open"]


_DYING_MS = 2000
"""Milliseconds to wait for the end of a process that has lost its threads or its memory."""

_LOOK_MS = 50
"""Milliseconds to wait for it where only the hold has ended, perhaps for another reason."""


def _hold_of(ref: weakref.ref[Process]) -> Holding:
    """Returns a function that returns a process's `_hold`, or None once the process was dropped.

    A WeakMethod would not do: its callback runs Python in a deallocation, where the interpreter
    swallows a Ctrl-C.
    """

    def hold() -> Callable[[], AbstractContextManager[object]] | None:
        process = ref()
        if process is None:
            return None
        return process._hold  # pyright: ignore[reportPrivateUsage]  # this module's own

    return hold


class Process(LoadedFiles, Closing):
    """A live process whose memory can be read and written; it is never stopped.

    It is one program in one process: after an exec or the end of the process every access raises,
    even if another process has the pid by then.
    """

    def __init__(self, image: Image, holder: Holder | None = None) -> None:
        if not isinstance(cast("object", image), Image):
            raise TypeError(
                f"cannot make a {type(self).__name__} from a {type(image).__name__}; use "
                "procvm.open(pid), or procvm.attach(pid) for a process that can be held"
            )
        self._memory = ProcessMemory(image, holder)
        self._memory.holding = _hold_of(weakref.ref(self))
        super().__init__(image, self._memory)
        self._patches: list[weakref.ref[Patch]] = []
        # By the descriptor and not by __del__, where the interpreter swallows a Ctrl-C.
        image.warn_if_dropped(repr(self))

    def __repr__(self) -> str:
        state = "closed" if self._image.closed else "open"
        return f"<{type(self).__name__} {self._image.pid}, {state}>"

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
        """Returns a copy of the memory as it is now, in the tool's own memory.

        Untouched pages cost no memory in the tool or the target. A process that runs meanwhile
        may change bytes that are not copied yet; a `Tracee` is held.

        Args:
            ranges: The ranges to copy, as `VmSpace.search` takes them; all readable memory by
                default.
            exclude: The ranges to leave out, in the same form: for mappings of a file system
                that may never answer.
            progress: A function that is called with (bytes done, bytes in total).

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.
            NotStoppedError: The hold of a `Tracee` ended before all was copied.
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
        """Writes the memory as it is now to an ELF core file; returns the bytes of memory in it.

        It does the same as `snapshot` and `Snapshot.save` together, with a constant amount of
        the tool's memory. The file has registers if the process is a `Tracee`, which is held
        meanwhile.

        Args:
            path: The path of the file; a file or a link that has the path is replaced.
            ranges: The ranges to write, as `snapshot` takes them.
            exclude: The ranges to leave out, as `snapshot` takes them.
            dontdump: Whether memory that the process marked MADV_DONTDUMP is written too.
                The kernel and gdb leave it out of a core file, since it may hold secrets.
            progress: A function that is called with (bytes done, bytes in total).

        Raises:
            OSError: The file cannot be written: no space is left, or its folder does not exist.
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.
            NotStoppedError: The hold of a `Tracee` ended before all was written. No file is left.
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
        """Turns the errors of a process that ends during a copy into ProcessExitedError."""
        try:
            yield
        except (NoSuchProcessError, NotStoppedError) as error:
            # A killed process loses its threads and its hold before its pidfd tells its end. A
            # thread of a held process ends for no other reason; a hold may.
            image = self._image
            lost_thread = isinstance(error, NoSuchProcessError) or not has_memory(image.pid)
            wait_ms = _DYING_MS if lost_thread else _LOOK_MS
            if image.pidfd is not None and ended(image.pidfd.number, wait_ms):
                raise image.gone() from None
            raise

    def patch(self, address: int, data: Buffer, *, expect: Buffer | None = None) -> Patch:
        """Returns a temporary change of memory: ``with process.patch(...):``; see `Patch`.

        Page protections are ignored, as by `VmSpace.forced`, so that code can be patched too.

        Args:
            address: The address of the first byte.
            data: The bytes to write.
            expect: The bytes that must be there before, as many as `data` has; None for any.
        """
        patch = Patch(self._vm, self._hold, self.pid).also(address, data, expect=expect)
        self._patches[:] = [found for found in self._patches if found() is not None]
        self._patches.append(weakref.ref(patch))
        return patch

    def unchanged(self, ranges: Iterable[Any]) -> Unchanged:
        """Returns a comparison of ranges: ``with process.unchanged(ranges) as kept:``.

        After the ``with`` its `runs` are the bytes that differ from those before it.

        Args:
            ranges: The ranges to compare, as `VmSpace.search` takes them.
        """
        return Unchanged(ranges, take=self.snapshot)

    def trace_accesses(
        self,
        address: int,
        pod: PodLike[Any],
        on: Literal["write", "access"] = "write",
        *,
        registers: bool = False,
        stack_len: int = 0,
    ) -> AccessTrace:
        """Returns a running trace of the writes or accesses of an address; nothing is stopped.

        All threads are traced, those included that are born later. A debug register does the
        work: each hit costs the target about a microsecond, and a value that is not accessed
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
            unwind=self._unwound,
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
            unwind=self._unwound,
        )

    def _hold(self) -> AbstractContextManager[object]:
        """Context manager that holds a `Tracee` during several accesses; a no-op for a Process."""
        return nullcontext()

    def _at_one_instant(self) -> AbstractContextManager[object]:
        """Context manager that stops the target while copying; a no-op for a Process."""
        return nullcontext()

    def _facts(self) -> Facts:
        """Returns what the kernel tells of the process beside its memory."""
        return self._image.facts()

    def is_alive(self) -> bool:
        """Returns whether the process has not ended, also if it runs another program now.

        A zombie has ended.

        Raises:
            ClosedError: The process was closed.
        """
        return not self._image.has_ended()

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the process has ended; returns its exit status if it is known.

        The process is not reaped, so that a ``wait`` of its parent still works.

        Args:
            timeout: The most seconds to wait; None for no limit.

        Returns:
            The exit code, or minus the number of the signal that ended the process, as subprocess
            gives it. None if the process is not a child of the tool and the kernel does not tell
            (before Linux 6.15).

        Raises:
            WaitTimeoutError: The process had not ended in time.
            ValueError: `timeout` is negative, infinite or nan.
            ClosedError: The process was closed.
        """
        timeout = as_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._image.open_pidfd().use() as pidfd:
            while not ended(pidfd, None if deadline is None else _ms_until(deadline)):
                if deadline is not None and time.monotonic() >= deadline:
                    raise WaitTimeoutError(
                        f"process {self.pid} has not ended within {timeout} s", pid=self.pid
                    )
            self._image.open_pidfd()  # raises if another thread closed it meanwhile
            return _pidfd.exit_status(pidfd, self.pid)

    def close(self) -> None:
        """Closes the process's descriptors; the process runs on. A second call does nothing.

        Patches that are still in place are undone. Every later use of the process, its `vm` and
        its cursors raises ClosedError.
        """
        self._undo_patches()
        self._image.close()

    def _undo_patches(self) -> None:
        """Undoes the patches that a Ctrl-C left in place, by coming just before their end."""
        for found in self._patches:
            patch = found()
            if patch is not None:
                with suppress(ProcvmError):
                    patch.close()
        self._patches.clear()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"cannot pickle {self!r}: it must be closed in the process that opened it; pickle its "
            "vm, which opens the process again where it is used"
        )


def _ms_until(deadline: float) -> int:
    # Rounded up, so that a wait never ends too early, and at most the C int that poll takes.
    return min(max(0, int((deadline - time.monotonic()) * 1000) + 1), 1 << 30)


def open(  # noqa: A001 (as users of files know it)
    target: int | str, *, backend: Literal["auto", "mem"] = "auto"
) -> Process:
    """Opens a live process without tracing it: the process is never stopped.

    Args:
        target: The process's pid; or its name, which is its comm, or the base name of its
            executable or of its argv[0]. A name never means the tool itself, and
            the interpreter's name never means procvm's own helper processes.
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
