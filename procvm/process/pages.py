"""`PageCache`: pages of a target that stands still."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from procvm.address import PAGE_SIZE
from procvm.own.buffers import address_of_bytes

__all__ = ["PageCache"]


class _Page(NamedTuple):
    data: bytes
    own_address: int


class PageCache:
    """Whole pages that were read, the oldest forgotten first.

    Several threads may use one: each step on its dictionaries is a single one
    of the interpreter's.

    Attributes:
        pages: By number (address / page size): the bytes, and where they stand
            in our own memory while the page is kept.
        generation: Another object whenever something was forgotten.
        limit: Pages that may be kept.
    """

    def __init__(self, limit: int) -> None:
        """Makes an empty one.

        Args:
            limit: Bytes that it may keep.
        """
        self.pages: dict[int, _Page] = {}
        self.generation = object()
        self.limit = limit // PAGE_SIZE
        self._views: dict[str, dict[int, memoryview]] = {}

    def views(self, code: str) -> dict[int, memoryview]:
        """Returns views of kept pages as numbers of one format, by the page's number.

        Whoever finds a page missing there adds it by `view`.
        """
        return self._views.setdefault(code, {})

    def view(self, code: str, number: int) -> memoryview | None:
        """Returns a page as numbers of one format, or None if it is not kept."""
        page = self.pages.get(number)
        if page is None:
            return None
        found = cast("memoryview", memoryview(page.data).cast(cast(Any, code)))
        self.views(code)[number] = found
        # Forgotten by another thread just now: then it must not come back by this view.
        if number not in self.pages:
            self._views[code].pop(number, None)
        return found

    def add(self, number: int, data: bytes, generation: object) -> None:
        """Keeps a page.

        Args:
            number: Its number.
            data: All of its bytes.
            generation: What `generation` was before they were read.
        """
        pages = self.pages
        while len(pages) >= self.limit:
            oldest = next(iter(pages), None)
            if oldest is None:
                return  # nothing may be kept
            self._forget(oldest)
        pages[number] = _Page(data, address_of_bytes(data))
        if self.generation is not generation:
            # Written to while it was read.
            self._forget(number)

    def _forget(self, number: int) -> None:
        self.pages.pop(number, None)
        for views in list(self._views.values()):
            views.pop(number, None)

    def drop(self, address: int, n: int) -> None:
        """Forgets the pages of a range that was written."""
        self.generation = object()
        first, last = address // PAGE_SIZE, (address + n - 1) // PAGE_SIZE
        if first == last and first not in self.pages:
            return
        if last - first > len(self.pages):
            self.clear()
            return
        for number in range(first, last + 1):
            self._forget(number)

    def clear(self) -> None:
        """Forgets everything."""
        self.generation = object()
        self.pages.clear()
        for views in list(self._views.values()):
            views.clear()
