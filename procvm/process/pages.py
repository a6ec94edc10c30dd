"""`PageCache`: pages of a target that stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from procvm.address import PAGE_SIZE
from procvm.own.buffers import address_of_bytes

__all__ = ["Page", "PageCache"]


class Page(dict[str, memoryview]):
    """A page that was read: by format, its views as numbers that were asked for so far.

    Views and bytes are one object, so that a page is forgotten in one step.

    Attributes:
        own_address: Where its bytes stand in our own memory.
    """

    __slots__ = ("_data", "own_address")

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self.own_address = address_of_bytes(data)

    def view(self, code: str) -> memoryview:
        """Returns it as numbers of one format."""
        found = self.get(code)
        if found is None:
            found = self[code] = cast("memoryview", memoryview(self._data).cast(cast(Any, code)))
        return found


class PageCache:
    """Whole pages that were read, the oldest forgotten first.

    Several threads may use one: each step on its dictionaries is a single one
    of the interpreter's.

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

    def add(self, number: int, data: bytes, generation: object) -> None:
        """Keeps a page, unless something changed while it was read.

        Args:
            number: Its number.
            data: All of its bytes.
            generation: What `generation` was before they were read.
        """
        pages = self.pages
        page = Page(data)
        while len(pages) >= self.limit:
            try:
                oldest = next(iter(pages))
            except StopIteration:
                return  # nothing may be kept
            except RuntimeError:
                continue  # another thread kept or forgot one just now
            pages.pop(oldest, None)
        # No call stands between the look and the keeping: nothing else runs there.
        if self.generation is generation and not self._changing:
            pages[number] = page

    def begin_change(self, address: int = 0, n: int = 0) -> object:
        """Says that a range is about to be written, all memory without one.

        Returns:
            What `end_change` takes; nothing new is kept until then.
        """
        self.generation = change = object()
        self._changing.add(change)
        first = address // PAGE_SIZE
        if n and (address + n - 1) // PAGE_SIZE == first:
            self.pages.pop(first, None)
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
            self.pages.clear()
            return
        for number in range(first, last + 1):
            self.pages.pop(number, None)

    def clear(self) -> None:
        """Forgets everything."""
        self.generation = object()
        self.pages.clear()
