"""`PageCache`: pages of a target that stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from procvm._base.address import PAGE_SIZE
from procvm._local.buffers import address_of_bytes

__all__ = ["Page", "PageCache"]


class Page(NamedTuple):
    """A page that was read.

    Attributes:
        data: Its bytes.
        own_address: Where they stand in our own memory.
    """

    data: bytes
    own_address: int


class PageCache:
    """Whole pages that were read, the oldest forgotten first.

    Several threads may use one: each step on its dictionaries is a single one
    of the interpreter's. A page is forgotten before what it holds is written,
    and nothing is added until that is done; so the steps of forgetting need not
    be one.

    Attributes:
        pages: By number (address / page size).
        generation: Another object whenever something was forgotten.
        limit: Pages that may be kept.
        lasts: Returns whether the target still stands still.
    """

    def __init__(self, lasts: Callable[[], bool]) -> None:
        """Makes an empty one.

        Args:
            lasts: Returns whether the target still stands still.
        """
        self.lasts = lasts
        self.pages: dict[int, Page] = {}
        self.generation = object()
        self.limit = 0
        self._changing: set[object] = set()
        self._views: dict[str, dict[int, memoryview]] = {}
        # All that a page is in: replaced whole when there is one more.
        self._dicts: tuple[dict[int, Any], ...] = (self.pages,)

    def views(self, code: str) -> dict[int, memoryview]:
        """Returns the kept pages as numbers of one format, those that `view` made so far."""
        found = self._views.setdefault(code, {})
        self._dicts = (self.pages, *self._views.values())
        return found

    def add(self, number: int, data: bytes, generation: object) -> Page | None:
        """Keeps a page, unless something changed while it was read.

        Args:
            number: Its number.
            data: All of its bytes.
            generation: What `generation` was before they were read.
        """
        pages = self.pages
        page = Page(data, address_of_bytes(data))
        while len(pages) >= self.limit:
            try:
                oldest = next(iter(pages))
            except StopIteration:
                return None  # nothing may be kept
            except RuntimeError:
                continue  # another thread kept or forgot one just now
            self._forget(oldest)
        # No call stands between the look and the keeping: nothing else runs there.
        if self.generation is generation and not self._changing:
            pages[number] = page
            return page
        return None

    def view(self, code: str, number: int) -> memoryview | None:
        """Returns a kept page as numbers of one format, or None if it is not kept."""
        generation = self.generation
        page = self.pages.get(number)
        if page is None:
            return None
        views = self._views[code]
        found = cast("memoryview", memoryview(page.data).cast(cast(Any, code)))
        # As in `add`.
        if self.generation is generation and not self._changing:
            views[number] = found
        return found

    def _forget(self, number: int) -> None:
        for kept in self._dicts:
            kept.pop(number, None)

    def begin_change(self, address: int = 0, n: int = 0) -> object:
        """Says that a range is about to be written, all memory without one.

        Returns:
            What `end_change` takes; nothing new is kept until then.
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

    def end_change(self, change: object) -> None:
        """It was written, or was not."""
        self.generation = object()
        self._changing.discard(change)

    def drop(self, address: int, n: int) -> None:
        """Forgets the pages of a range."""
        self.generation = object()
        first, last = address // PAGE_SIZE, (address + n - 1) // PAGE_SIZE
        if last - first > len(self.pages):
            self.clear()
            return
        for number in range(first, last + 1):
            self._forget(number)

    def clear(self) -> None:
        """Forgets everything."""
        self.generation = object()
        for kept in self._dicts:
            kept.clear()
