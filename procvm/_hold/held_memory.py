"""`HeldMemory`: the memory of a held target, with the pages that were read kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast, final

from procvm._base.address import PAGE_SIZE
from procvm._base.pods import Pod, PodAtomic
from procvm._hold.held import LAST_BREATH_MS, Grip, hold_is_over
from procvm._hold.standstill import Standstill
from procvm._linux.pidfd import ended
from procvm._live.memory import ProcessMemory
from procvm._local.buffers import copy
from procvm._mm.extent import Extent
from procvm._mm.memory import Region, UserMemory
from procvm.errors import ProcvmError

__all__ = ["HeldMemory"]

T = TypeVar("T")

_FEW = 4 * PAGE_SIZE
"""Bytes up to which a read is served from kept pages; a longer one is one system call."""


@final
class HeldMemory(UserMemory):
    """The memory of a held target, which keeps the pages of private memory that were read."""

    def __init__(self, memory: ProcessMemory, still: Standstill, grip: Grip) -> None:
        self._memory = memory
        self._still = still
        # A strong reference would keep a dropped hold from ending.
        self._grip = weakref.ref(grip)
        # Unlike the loaders of a process, these use no scratch memory: all threads share them.
        self._loaders: dict[Pod[Any], Callable[[int], Any]] = {}

    def __repr__(self) -> str:
        return f"{self._memory!r}, held"

    @property
    def domain(self) -> object:
        """The domain of the memory without a hold."""
        return self._memory.domain

    @property
    def end(self) -> int:
        """One past the last address of user space on this machine."""
        return self._memory.end

    @property
    def pid(self) -> int:
        """The process's pid."""
        return self._memory.pid

    @property
    def address_size(self) -> int:
        """Bytes of a pointer of the target."""
        return self._memory.address_size

    def forced(self) -> ProcessMemory:
        """Returns the memory with page protections ignored; it keeps no pages."""
        return self._memory.forced()

    def _lasts(self) -> bool:
        """Returns whether the hold lasts.

        Raises:
            NotStoppedError: The hold ended, and not by the tool.
            ProcessExitedError: The target has ended.
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
        # Only the end of the target is left as a cause. The kernel reports it once the tracer
        # has reaped the last thread.
        with still.image.open_pidfd().use() as pidfd:
            has_ended = ended(pidfd, LAST_BREATH_MS)
        if has_ended:
            raise still.image.gone()
        raise hold_is_over(still.image.pid)

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes of the target to local memory; see `Memory.read`.

        Kept pages are not used: local memory may map a file that was truncated, where a copy
        by the processor would kill the tool with SIGBUS.
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
                # SAFETY: `page` is alive, and scratch memory of `n` bytes does not fault.
                copy(own_address + done, page.own_address + offset, step)
            done += step

    def readv(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Reads ranges by vectored calls, without the kept pages; see `Memory.readv`."""
        self._lasts()
        self._memory.readv(ranges, own_address)

    def readv_packed(self, words: memoryview, count: int, own_address: int) -> int:
        """Reads ranges up to the first fault, without the kept pages."""
        self._lasts()
        return self._memory.readv_packed(words, count, own_address)

    def regions(self) -> list[Region]:
        """Returns the mapped regions; see `UserMemory.regions`."""
        return self._memory.regions()

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        """Yields the extents of a range; see `UserMemory.layout`."""
        return self._memory.layout(start, end)

    def hole(self, address: int, copied_len: int) -> ProcvmError:
        """Returns the error of a byte that is in no extent of the layout."""
        return self._memory.hole(address, copied_len)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._memory.__reduce__()

    def loader(self, pod: Pod[T]) -> Callable[[int], T]:
        """Returns a reader of one value; an aligned number is read from a kept page."""
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
            return cast("T", view[address % PAGE_SIZE // size])

        def missed(address: int) -> T:
            if self._lasts() and not address & unaligned:
                number = address // PAGE_SIZE
                view = cache.view(code, number)
                if view is None and still.fetch(number) is not None:
                    view = cache.view(code, number)
                if view is not None:
                    return cast("T", view[address % PAGE_SIZE // size])
            return anyhow(address)

        return load

    def write(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` local bytes to the target; see `Memory.write`."""
        self._memory.write(address, own_address, n)

    def writev(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Writes ranges; see `Memory.writev`."""
        self._memory.writev(ranges, own_address)

    def storer(self, pod: Pod[T]) -> Callable[[int, T], None]:
        """Returns a writer of one value."""
        return self._memory.storer(pod)

    def atomic_load(self, address: int, pod: PodAtomic[T]) -> T:
        """Loads without the kept pages; see `UserMemory.atomic_load`."""
        return self._memory.atomic_load(address, pod)

    def atomic_compare_exchange(
        self, address: int, pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Exchanges without the kept pages; see `UserMemory.atomic_compare_exchange`."""
        return self._memory.atomic_compare_exchange(address, pod, old, new)
