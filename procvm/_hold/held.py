"""What a hold is good for beyond standing still: what was asked or read once stays true."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import weakref
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

from procvm._base import forks
from procvm._base.address import PAGE_SIZE
from procvm._base.perms import READ, SHARED
from procvm._base.pods import Pod, PodAtomic
from procvm._hold.server.protocol import Reliance
from procvm._linux.pagemap import is_copied
from procvm._linux.proc_maps import VmaEntry, entry_at
from procvm._live.atomics import Atomic, require_no_peer
from procvm._live.image import Image, ended
from procvm._live.memory import ProcessMemory
from procvm._live.page_cache import Page, PageCache
from procvm._local.buffers import copy
from procvm._mm.extent import Extent
from procvm._mm.memory import Region, UserMemory
from procvm._space.space import VmSpace
from procvm.errors import (
    Hint,
    NotStoppedError,
    NotTracedError,
    ProcvmError,
    SharedMemoryError,
)

__all__ = [
    "LAST_BREATH_MS",
    "Grip",
    "Held",
    "HeldMemory",
    "Standstill",
    "atomic_cut_short",
    "hold_is_over",
]

T = TypeVar("T")

_FEW = 4 * PAGE_SIZE
LAST_BREATH_MS = 2000
"""Milliseconds that the kernel may take to tell the end of a target that died in a hold."""


class Grip:
    """The tool's end of one hold: a socket whose shutdown the tracer sees, and lets go.

    Attributes:
        reliance: What says whether the hold lasts; None if it was over at once.
        closed: Whether the tool ended it.
    """

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self.reliance: Reliance | None = None
        self._line = line
        # Shutting down, unlike closing, also ends the hold where a child that C code of the
        # tool forked has a copy of the socket. C code calls it: see `Held.__exit__`.
        self.raw = SimpleNamespace(
            closed=False, writable=_yes, close=partial(line.shutdown, socket.SHUT_RDWR)
        )
        forks.register(self)

    @property
    def closed(self) -> bool:
        """Whether the tool ended it."""
        return bool(self.raw.closed)

    def close(self) -> None:
        """Ends the hold. Twice is fine."""
        with contextlib.suppress(OSError):
            self.raw.close()
        self.abandon()

    def abandon(self) -> None:
        """Closes the socket without ending the hold: it has ended, or is another process's."""
        self.raw.close = int  # does nothing
        self.raw.closed = True
        self._line.close()

    def after_fork_in_child(self) -> None:
        """Leaves the hold to the tool, in a child that it forked."""
        self.abandon()

    def leave(self, before: BaseException | None) -> None:
        """Closes what the end of the ``with`` left open.

        Args:
            before: The exception that was being handled as the ``with`` was entered.

        Raises:
            NotStoppedError: The target ran on within the ``with``, and no other error
                is under way.
        """
        was_over = not self.closed and (self.reliance is None or self.reliance.ended_by_itself)
        self.abandon()
        if was_over and sys.exception() is before:
            raise hold_is_over(self.pid)


@final
class Held:
    """A hold on a target until it is closed; `with tracee.stopped() as held` gives it.

    Ctrl-C at any moment in or around the ``with`` leaves the target running: leaving it calls
    a function of C first, and dropping the object lets the target go as well.
    """

    vm: VmSpace
    """The target's address space, whose pages are kept once read.

    Lists, trees and other memory read in pieces are read some ten times
    quicker than by `Tracee.vm`. Only private memory is kept: until the hold ends it
    can only be changed by the tool, whose writes are seen here from any space of
    the same `Tracee`. Shared memory is read anew each time, and so are
    pages of files and reads into a buffer of the caller's. After the
    end of the ``with`` every read is. A read after the longest time of the hold
    raises NotStoppedError.
    """

    def __init__(self, grip: Grip, vm: VmSpace) -> None:
        self._grip = grip
        self.vm = vm

    def __repr__(self) -> str:
        return f"<Held: process {self._grip.pid}{', over' if self.is_over() else ''}>"

    def is_over(self) -> bool:
        """Whether the target is not held by this any more."""
        return self._grip.closed or not self._grip.reliance

    def close(self) -> None:
        """Ends the hold; the target runs on if no other hold is left. Twice is fine."""
        self._grip.close()

    def __enter__(self) -> Held:
        return self

    if TYPE_CHECKING:

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None: ...

    else:
        __exit__ = property(lambda self: self._leaving())

    def _leaving(self) -> Callable[..., None]:
        """Returns the function of C that ends the hold, before which no Ctrl-C can come.

        ``with`` asks for it as it is entered. It closes the writer of the pair, which ends the
        hold, and then the reader, which is Python and raises if the hold was over before.
        """
        leaving = _Leaving(self._grip, sys.exception())
        pair: Any = io.BufferedRWPair(cast(Any, leaving), cast(Any, self._grip.raw), 1)
        return cast("Callable[..., None]", pair.__exit__)


def _yes() -> bool:
    return True


class _Leaving:
    """The reader of the pair that leaves a hold; see `Held.__exit__`."""

    def __init__(self, grip: Grip, before: BaseException | None) -> None:
        self.closed = False
        self._grip = grip
        self._before = before

    readable = staticmethod(_yes)

    def flush(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        """Ends the leaving, after the hold has ended."""
        self.closed = True
        self._grip.leave(self._before)


def hold_is_over(pid: int) -> NotStoppedError:
    """Returns the error of a hold that ended by itself."""
    return NotStoppedError(
        f"the hold on process {pid} is over, and the process ran on: its longest time was over, "
        "or the tracer ended",
        pid=pid,
        hint=Hint("longest_hold"),
    )


class Standstill:
    """One hold for as long as it lasts: what can not change in it is asked for once.

    Attributes:
        image: The program.
        reliance: What says that the hold lasts.
        pages: What was read of private memory.
    """

    def __init__(
        self, image: Image, reliance: Reliance, look_for_peers: Callable[[], None]
    ) -> None:
        self.image = image
        self._look_for_peers = look_for_peers
        self.reliance = reliance
        # Not of this object, which it would keep, and its descriptors, in a cycle.
        self.pages = PageCache(lambda: bool(reliance))
        self._files = image.open_files()  # its descriptors stay open as long
        self._vmas: list[VmaEntry] = []
        self._alone: bool | None = None
        self._ended = False

    @property
    def lasts(self) -> bool:
        """Whether the target still stands still."""
        return bool(self.reliance) and not self._ended

    def forget(self) -> None:
        """Forgets what was read and asked: the target runs, or has run."""
        self.pages.clear()
        # Another list: who asks for a mapping just now adds it to the old one.
        self._vmas = []
        self._alone = None

    def end(self) -> None:
        """Keeps nothing any more, whatever the tracer's last word was."""
        self._ended = True
        self.pages.limit = 0
        if self.image.pages is self.pages:
            self.image.pages = None
        self.forget()

    def require_alone(self) -> None:
        """Raises SharedMemoryError if another process runs in the same address space."""
        if not self._alone:
            self._alone = False
            self._look_for_peers()
            require_no_peer(self.image.pid)
            self._alone = True

    def is_alone(self) -> bool:
        """Returns whether no other process runs in the same address space."""
        if self._alone is None:
            try:
                self.require_alone()
            except SharedMemoryError:
                return False
        return bool(self._alone)

    def _vma(self, address: int) -> VmaEntry | None:
        """Returns the mapping that holds `address`, or None.

        Raises:
            OSError: As `entry_at`.
        """
        vmas = self._vmas
        at = bisect_right(vmas, (address, _LAST)) - 1
        if at >= 0 and address < vmas[at].end:
            return vmas[at]
        with self._files.maps.use() as maps:
            found = entry_at(maps, address)
        if found is not None:
            # Twice if two threads ask for it at once, which does no harm.
            insort(vmas, found)
        return found

    def fetch(self, number: int) -> Page | None:
        """Reads a page, and keeps it if it may be kept; None if it may not."""
        generation = self.pages.generation
        address = number * PAGE_SIZE
        try:
            vma = self._vma(address)
            if vma is None or vma.flags & (READ | SHARED) != READ or not self.is_alone():
                return None
            if (vma.inode or vma.dev != (0, 0)) and not self._is_copied(number):
                return None
            with self._files.mem.use() as mem:
                data = os.pread(mem, PAGE_SIZE, address)
        except OSError:
            return None  # a read of its own finds out why
        if len(data) != PAGE_SIZE or not self.lasts:
            return None
        return self.pages.add(number, data, generation)

    def _is_copied(self, number: int) -> bool:
        """Returns whether a page of a file is the target's own by now: others write the file."""
        pagemap = self.image.open_pagemap()
        return pagemap is not None and is_copied(pagemap.number, number)

    def atomic(self, what: Atomic, *, forced: bool) -> bytes | None:
        """Performs an atomic on private memory; one at a time.

        Returns:
            What was there; None if it has to be done the long way.

        Raises:
            NotTracedError: The tracer ended meanwhile.
            NotStoppedError: The hold's longest time was over long before the atomic was done.
        """
        address, size, expected, desired = what
        needs = what.needs
        # The owner first: while it lives here, `close` by another thread leaves the number be.
        owner, mem = self._files.mem.owner, self._files.mem.number
        found: bytes | None = None
        lived = True
        try:
            if self.reliance.begin() and self._alone and not self._ended:
                vma = self._vma(address)
                if (
                    vma is not None
                    and not vma.flags & SHARED
                    and (forced or vma.flags & needs == needs)
                ):
                    found = os.pread(mem, size, address)
                    if found == expected:
                        found = self._store(mem, desired, address, found)
        except OSError:
            return None
        finally:
            lived = self.reliance.end()
            del owner
        if found is not None and not lived:
            raise atomic_cut_short(self.image.pid, self.reliance)
        return found if found is not None and len(found) == size else None

    def _store(self, mem: int, desired: bytes, address: int, found: bytes) -> bytes | None:
        change = self.pages.begin_change(address, len(desired))
        try:
            return found if os.pwrite(mem, desired, address) == len(desired) else None
        finally:
            self.pages.end_change(change)


def atomic_cut_short(pid: int, reliance: Reliance) -> ProcvmError:
    """Returns the error of an atomic whose hold ended before it did."""
    if reliance.given_up:
        return NotStoppedError(
            f"the longest time of the hold on process {pid} was over in the middle of an atomic, "
            "which took so long that the process ran on, perhaps before it was done",
            pid=pid,
            hint=Hint("longest_hold"),
        )
    return NotTracedError(
        "the tracer process has ended, and so has the hold, perhaps before the atomic was done",
        pid=pid,
    )


_LAST = 1 << 64


@final
class HeldMemory(UserMemory):
    """A target's memory in a hold, of which what was read is kept."""

    def __init__(self, memory: ProcessMemory, still: Standstill, grip: Grip) -> None:
        self._memory = memory
        self._still = still
        # A strong reference would keep a dropped hold from ending.
        self._grip = weakref.ref(grip)
        # Unlike those of a process, they keep no scratch memory: one serves all threads.
        self._loaders: dict[Pod[Any], Callable[[int], Any]] = {}

    def __repr__(self) -> str:
        return f"{self._memory!r}, held"

    @property
    def domain(self) -> object:
        """The same as without a hold."""
        return self._memory.domain

    @property
    def end(self) -> int:
        """One past the last address of user space on this machine."""
        return self._memory.end

    @property
    def pid(self) -> int:
        """The process."""
        return self._memory.pid

    @property
    def address_size(self) -> int:
        """Bytes of a pointer of the target."""
        return self._memory.address_size

    def forced(self) -> ProcessMemory:
        """Returns the memory with page protections ignored, of which nothing is kept."""
        return self._memory.forced()

    def _lasts(self) -> bool:
        """Returns whether the hold lasts.

        Raises:
            NotStoppedError: It does not, and nobody ended it on purpose.
            ProcessExitedError: It does not, since the target ended.
            ClosedError: The tracee was closed.
        """
        still = self._still
        if still.lasts:
            return True
        grip = self._grip()
        if grip is None or grip.closed:
            return False
        still.image.open_files()
        if still.reliance.ended_by_itself:
            raise hold_is_over(still.image.pid)
        # Nothing but the end of the target ends it otherwise; the kernel tells that end
        # once the tracer has reaped the last thread.
        with still.image.open_pidfd().use() as pidfd:
            has_ended = ended(pidfd, LAST_BREATH_MS)
        if has_ended:
            raise still.image.gone()
        raise hold_is_over(still.image.pid)

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes of the target to our own memory, anew; see `Memory.read`.

        Not from what is kept: our own memory may be a file's that was made
        shorter, where a copy by the processor would end the tool.
        """
        self._lasts()
        self._memory.read(address, own_address, n)

    def read_scratch(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes from kept pages; see `Memory.read_scratch`."""
        if not self._lasts() or n > _FEW:
            self._memory.read(address, own_address, n)
            return
        pages = self._still.pages.pages
        done = 0
        while done < n:
            number, offset = divmod(address + done, PAGE_SIZE)
            step = min(PAGE_SIZE - offset, n - done)
            page = pages.get(number)
            if page is None:
                page = self._still.fetch(number)
            if page is None:
                try:
                    self._memory.read(address + done, own_address + done, step)
                except ProcvmError as error:
                    error.copied_len += done
                    raise
            else:
                # SAFETY: `page` is alive, and `n` bytes are alive that do not fault.
                copy(own_address + done, page.own_address + offset, step)
            done += step

    def readv(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Reads ranges by vectored calls, none of which is kept; see `Memory.readv`."""
        self._lasts()
        self._memory.readv(ranges, own_address)

    def readv_packed(self, words: memoryview, count: int, own_address: int) -> int:
        """Reads ranges up to the first fault, none of which is kept."""
        self._lasts()
        return self._memory.readv_packed(words, count, own_address)

    def regions(self) -> list[Region]:
        """Returns what is mapped; see `UserMemory.regions`."""
        return self._memory.regions()

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        """Yields what a range holds; see `UserMemory.layout`."""
        return self._memory.layout(start, end)

    def hole(self, address: int, copied_len: int) -> ProcvmError:
        """Returns the error of a byte that the layout leaves out."""
        return self._memory.hole(address, copied_len)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._memory.__reduce__()

    def loader(self, pod: Pod[T]) -> Callable[[int], T]:
        """Returns a reader of one value that finds an aligned number in a kept page."""
        found = self._loaders.get(pod)
        if found is None:
            found = self._loaders[pod] = self._loader(pod)
        return found

    def _loader(self, pod: Pod[T]) -> Callable[[int], T]:
        anyhow = super().loader(pod)
        code, size = pod.code, pod.size
        if not code:
            return anyhow
        still = self._still
        word, held = still.reliance.word, still.reliance.held
        cache = still.pages
        find = cache.views(code).get
        unaligned = size - 1

        def load(address: int) -> T:
            view = find(address // PAGE_SIZE)
            if view is None or address & unaligned or word[0] != held:
                return missed(address)
            return cast(T, view[address % PAGE_SIZE // size])

        def missed(address: int) -> T:
            if self._lasts() and not address & unaligned:
                number = address // PAGE_SIZE
                view = cache.view(code, number)
                if view is None and still.fetch(number) is not None:
                    view = cache.view(code, number)
                if view is not None:
                    return cast(T, view[address % PAGE_SIZE // size])
            return anyhow(address)

        return load

    def write(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` own bytes to the target, where they are seen at once; see `Memory.write`."""
        self._memory.write(address, own_address, n)

    def writev(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Writes ranges; see `Memory.writev`."""
        self._memory.writev(ranges, own_address)

    def storer(self, pod: Pod[T]) -> Callable[[int, T], None]:
        """Returns a writer of one value."""
        return self._memory.storer(pod)

    def atomic_load(self, address: int, pod: PodAtomic[T]) -> T:
        """Loads as without the cache."""
        return self._memory.atomic_load(address, pod)

    def atomic_compare_exchange(
        self, address: int, pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Exchanges as without the cache, and is seen at once."""
        return self._memory.atomic_compare_exchange(address, pod, old, new)
