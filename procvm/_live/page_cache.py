"""`PageCache`: copies of pages of a target that is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from procvm._base.address import PAGE_SIZE
from procvm._local.buffers import address_of_bytes

__all__ = ["Page", "PageCache"]


class Page(NamedTuple):
    """A copy of a page.

    Attributes:
        data: The bytes.
        own_address: Their address in the tool's memory.
    """

    data: bytes
    own_address: int


class PageCache:
    """Copies of whole pages; the oldest is dropped first.

    Several threads may use one cache without a lock: each step on a dictionary is one operation
    of the interpreter. A page is dropped before it is written, and none is added until the write
    is done. So it does no harm that dropping takes several steps.

    Attributes:
        pages: The copies by page number (address / page size).
        generation: An object that is replaced whenever a page is dropped.
        limit: The most pages to keep.
        lasts: Returns whether the target is still held.
    """

    def __init__(self, lasts: Callable[[], bool]) -> None:
        """Makes an empty cache.

        Args:
            lasts: Returns whether the target is still held.
        """
        self.lasts = lasts
        self.pages: dict[int, Page] = {}
        self.generation = object()
        self.limit = 0
        self._changing: set[object] = set()
        self._views: dict[str, dict[int, memoryview]] = {}
        # Every dictionary that has pages; replaced as a whole when there is one more.
        self._dicts: tuple[dict[int, Any], ...] = (self.pages,)

    def views(self, code: str) -> dict[int, memoryview]:
        """Returns the pages that `view` has made so far as numbers of one format."""
        found = self._views.setdefault(code, {})
        self._dicts = (self.pages, *self._views.values())
        return found

    def add(self, number: int, data: bytes, generation: object) -> Page | None:
        """Adds a page; returns None if a page was dropped or written while it was read.

        Args:
            number: The page number.
            data: All bytes of the page.
            generation: The value of `generation` before they were read.
        """
        pages = self.pages
        page = Page(data, address_of_bytes(data))
        while len(pages) >= self.limit:
            try:
                oldest = next(iter(pages))
            except StopIteration:
                return None  # the limit is 0
            except RuntimeError:
                continue  # another thread added or dropped a page just now
            self._forget(oldest)
        # The interpreter switches threads at calls only, and none lies between the check and
        # the assignment.
        if self.generation is generation and not self._changing:
            pages[number] = page
            return page
        return None

    def view(self, code: str, number: int) -> memoryview | None:
        """Returns a page as numbers of one format, or None if it is not in the cache."""
        generation = self.generation
        page = self.pages.get(number)
        if page is None:
            return None
        views = self._views[code]
        found = cast("memoryview", memoryview(page.data).cast(cast("Any", code)))
        # As in `add`.
        if self.generation is generation and not self._changing:
            views[number] = found
        return found

    def _forget(self, number: int) -> None:
        for kept in self._dicts:
            kept.pop(number, None)

    def begin_change(self, address: int = 0, n: int = 0) -> object:
        """Drops the pages of a range that is about to be written; all pages if `n` is 0.

        Returns:
            The argument for `end_change`. No page is added until that was called.
        """
        self.generation = change = object()
        self._changing.add(change)
        first = address // PAGE_SIZE
        if n and (address + n - 1) // PAGE_SIZE == first:
            self._forget(first)
        elif n:
            self.drop(address, n)
        else:
            self.clear()
        return change

    def begin_changes(self, ranges: Sequence[tuple[int, int]]) -> object:
        """Drops the pages of ranges that are about to be written; see `begin_change`."""
        self.generation = change = object()
        self._changing.add(change)
        if any(self._dicts):
            for address, n in ranges:
                if n:
                    self.drop(address, n)
        return change

    def end_change(self, change: object) -> None:
        """Allows new pages again, after the write that `begin_change` announced."""
        self.generation = object()
        self._changing.discard(change)

    def drop(self, address: int, n: int) -> None:
        """Drops the pages of a range."""
        self.generation = object()
        first, last = address // PAGE_SIZE, (address + n - 1) // PAGE_SIZE
        if last - first > len(self.pages):
            self.clear()
            return
        for number in range(first, last + 1):
            self._forget(number)

    def clear(self) -> None:
        """Drops all pages."""
        self.generation = object()
        for kept in self._dicts:
            kept.clear()
