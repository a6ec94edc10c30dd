"""Work in threads that the viewer does not wait for: a page of memory may never come."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TypeVar

from procvm._base.address import PAGE_SIZE, page_end
from procvm._space.space import VmSpace
from procvm.tui.window import AWAITED, Window, read_window

__all__ = ["Reads", "Turns", "attempt", "begun", "in_thread"]

T = TypeVar("T")

_MOST_AWAITED = 64
"""With as many pages that have not come, no more of them are asked for."""

_LONGEST_TURN = 2.0


def begun(act: Callable[[], T]) -> Future[T]:
    """Runs work in a new thread; returns its future.

    The thread is a daemon: without this, Python waits at its end for a read that never ends.
    """
    future: Future[T] = Future()
    # A running future cannot be cancelled: without this, its thread could not set the result.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(act())
        except BaseException as error:  # noqa: BLE001 (the caller of result() gets it)
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


async def in_thread(act: Callable[[], T]) -> T:
    """Runs work in a new thread; returns its result."""
    return await asyncio.wrap_future(begun(act))


def attempt(act: Callable[[], T], done: Callable[[Future[T]], None], patience: float) -> None:
    """Runs work in a new thread, and passes its future to `done` in this one.

    Args:
        act: The work.
        done: Called before this returns if the work ends in time, else by the event loop.
        patience: Seconds to wait for the work.
    """
    future = begun(act)
    if _is_done(future, patience):
        done(future)
    else:
        _when_done(future, lambda: done(future))


def _is_done(future: Future[T], patience: float) -> bool:
    with suppress(TimeoutError):
        future.exception(patience)
    return future.done()


def _when_done(future: Future[T], call: Callable[[], None]) -> None:
    """Lets the event loop call when the work has ended; never if the loop has ended before."""
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()

    def tell(_future: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(call, context=context)

    future.add_done_callback(tell)


class Turns:
    """Lets one thread at a time do something, unless the other one takes long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Generator[None]:
        """Waits for the turn of this thread, at most two seconds."""
        is_mine = self._lock.acquire(timeout=_LONGEST_TURN)
        try:
            yield
        finally:
            if is_mine:
                self._lock.release()


class Reads:
    """Reads the bytes of the screen, and goes on without those that do not come in time."""

    def __init__(self, vm: VmSpace, patience: float, late: Callable[[], None]) -> None:
        """Makes it; nothing is read yet.

        Args:
            vm: The memory.
            patience: Seconds to wait for a read.
            late: Called by the event loop when a page has come after all.
        """
        self._vm = vm
        self._patience = patience
        self._late = late
        self._awaited: dict[int, Future[Window]] = {}

    def window(self, start: int, n: int) -> Window:
        """Reads a range; the bytes of pages that have not come are marked as such.

        Raises:
            ProcvmError: As `read_window`.
        """
        data, known = bytearray(n), bytearray(AWAITED * n)
        for part in self._read(start, start + n):
            at = max(part.start - start, 0)
            shown = slice(start + at - part.start, start + n - part.start)
            data[at : at + len(part.data[shown])] = part.data[shown]
            known[at : at + len(part.known[shown])] = part.known[shown]
        return Window(start, bytes(data), bytes(known))

    def _read(self, start: int, end: int) -> Iterator[Window]:
        """Yields what there is of a range; each awaited page splits it."""
        at = start
        while at < end:
            after = at
            while after < end and _page_of(after) not in self._awaited:
                after = min(page_end(after), end)
            if after > at:
                yield from self._read_now(at, after)
            at = after
            while at < end and (future := self._awaited.get(_page_of(at))) is not None:
                if future.done():
                    del self._awaited[_page_of(at)]
                    yield future.result()
                at = min(page_end(at), end)

    def _read_now(self, start: int, end: int) -> Iterator[Window]:
        """Yields a range at once, or page by page if one of them does not come."""
        if len(self._awaited) >= _MOST_AWAITED:
            return
        future = begun(lambda: read_window(self._vm, start, end - start))
        if _is_done(future, self._patience):
            yield future.result()
        elif page_end(start) >= end:
            # The whole page: another part of it may be shown when it comes.
            page = _page_of(start)
            whole = begun(lambda: read_window(self._vm, page, PAGE_SIZE))
            self._awaited[page] = whole
            _when_done(whole, self._come)
        else:
            while start < end:
                after = min(page_end(start), end)
                yield from self._read_now(start, after)
                start = after

    def _come(self) -> None:
        self._late()
        # Without this, rows that are shown later would show bytes of now.
        self._awaited = {at: future for at, future in self._awaited.items() if not future.done()}


def _page_of(address: int) -> int:
    return address - address % PAGE_SIZE
