"""`Standstill`: facts and pages of a target that stay true during one hold."""

from __future__ import annotations

import os
from bisect import bisect_right, insort
from collections.abc import Callable

from procvm._base.address import PAGE_SIZE
from procvm._base.perms import READ, SHARED
from procvm._hold.server.protocol import Reliance
from procvm._linux.pagemap import is_copied
from procvm._linux.peers import require_no_peer
from procvm._linux.proc_maps import VmaEntry, entry_at
from procvm._live.atomics import Atomic
from procvm._live.image import Image
from procvm._live.page_cache import Page, PageCache
from procvm.errors import Hint, NotStoppedError, NotTracedError, ProcvmError, SharedMemoryError

__all__ = ["Standstill", "atomic_cut_short"]

_LAST = 1 << 64  # sorts after every end of a mapping


class Standstill:
    """One hold: keeps the mappings and pages that cannot change while it lasts.

    Attributes:
        image: The program.
        reliance: Tells whether the hold lasts.
        pages: The kept pages of private memory.
    """

    def __init__(
        self, image: Image, reliance: Reliance, look_for_peers: Callable[[], None]
    ) -> None:
        self.image = image
        self._look_for_peers = look_for_peers
        self.reliance = reliance
        # A method of this object would make a cycle, which keeps descriptors open until the
        # cyclic collector runs.
        self.pages = PageCache(lambda: bool(reliance))
        self._files = image.open_files()  # keeps its descriptors open
        self._vmas: list[VmaEntry] = []
        self._alone: bool | None = None
        self._ended = False

    @property
    def lasts(self) -> bool:
        """Whether the target is still held."""
        return bool(self.reliance) and not self._ended

    def forget(self) -> None:
        """Forgets pages and mappings: the target runs, or has run."""
        self.pages.clear()
        # A new list: a thread that asks for a mapping just now adds it to the old one.
        self._vmas = []
        self._alone = None

    def end(self) -> None:
        """Stops keeping pages, whether or not the tracer reported the end of the hold."""
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
        """Returns the mapping that contains `address`, or None.

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
            # Two threads may add it at once; a duplicate does no harm.
            insort(vmas, found)
        return found

    def fetch(self, number: int) -> Page | None:
        """Reads and keeps a page; returns None if the page cannot be kept."""
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
            return None  # the caller reads without the cache, and gets the true error
        if len(data) != PAGE_SIZE or not self.lasts:
            return None
        return self.pages.add(number, data, generation)

    def _is_copied(self, number: int) -> bool:
        """Returns whether a page of a private file mapping is a copy, which the target wrote.

        Without a copy the page is the file's, which other processes can write.
        """
        pagemap = self.image.open_pagemap()
        return pagemap is not None and is_copied(pagemap.number, number)

    def atomic(self, what: Atomic, *, forced: bool) -> bytes | None:
        """Performs an atomic on private memory; the caller serializes the calls.

        Returns:
            The bytes that were there; None if the caller has to ask the tracer.

        Raises:
            NotTracedError: The tracer ended during the atomic.
            NotStoppedError: The hold's longest time was over long before the atomic was done.
        """
        address, size, expected, desired = what
        needs = what.needs
        # While this frame has the owner, a `close` by another thread cannot free the number.
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
    """Returns the error of an atomic during which the hold ended."""
    if reliance.given_up:
        return NotStoppedError(
            f"the longest time of the hold on process {pid} was over during an atomic, and the "
            "process ran on, perhaps before the atomic was done",
            pid=pid,
            hint=Hint("longest_hold"),
        )
    return NotTracedError(
        f"the tracer process has ended, and with it the hold on process {pid}, perhaps before the "
        "atomic was done; look at the value again",
        pid=pid,
    )
