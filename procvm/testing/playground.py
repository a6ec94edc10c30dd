"""`Playground`: a child with pages of chosen kinds, which reads and writes them itself."""

from __future__ import annotations

import errno
import os
import re
import select
import time
from pathlib import Path
from typing import NamedTuple, NoReturn, final

from procvm._base.address import PAGE_SIZE, as_address, as_len
from procvm._hold.tracee import Tracee
from procvm._space.space import VmSpace
from procvm.errors import (
    NotTracedError,
    PageFaultError,
    ProcessExitedError,
    UnsupportedError,
    WaitTimeoutError,
)
from procvm.testing.spawned import Spawned
from procvm.testing.spawner import Spawner

__all__ = ["Page", "Playground", "Playgrounds", "pattern"]

_KIND = re.compile(r"(r?w?x?|none|hole|wo|shared|file|guard)(?:\*([1-9]\d{0,3}))?")
_KINDS = "r, w, x and their combinations, none, hole, wo, shared, file, guard, and KIND*N"
_MOST_AT_ONCE = 1 << 16
_SOURCE = Path(__file__).with_name("playground.c")
_A_MOMENT = 0.2
_PATIENCE = 10.0


def pattern(address: int, n: int) -> bytes:
    """Returns the `n` bytes that new pages of a playground hold at `address`; none is 0.

    They differ between bytes and between pages, so that a read from the wrong place is noticed.
    """
    return bytes(1 + (a * 7 + (a >> 12) * 13) % 255 for a in range(address, address + n))


class Page(NamedTuple):
    """A page of a playground.

    Attributes:
        kind: The kind as in the layout: ``"rw"``, ``"none"``.
        start: The address of its first byte, also for a hole.
    """

    kind: str
    start: int

    @property
    def end(self) -> int:
        """The address after its last byte."""
        return self.start + PAGE_SIZE


@final
class Playground:
    """A child with a layout of pages, which reads and writes them on request.

    Its answers come from its own loads and stores, not from procvm. A tool should see the same.

    Attributes:
        process: The child.
        pages: Its adjacent pages; nothing is mapped before the first and after the last.
        counters: The addresses of the words that its threads increment.
    """

    def __init__(
        self, spawn: Spawner, layout: str = "rw", *, counters: int = 0, traced: bool = True
    ) -> None:
        """Starts a child and maps its pages.

        Args:
            spawn: The spawner that starts and ends the child.
            layout: The kinds of pages, as for `Playgrounds`.
            counters: The number of threads that each increment a word for ever.
            traced: Whether the child is a `Tracee`.
        """
        self.process: Tracee | Spawned = spawn(_SOURCE, traced=traced)
        self._spawn = spawn
        self._owed = 0
        self._said = b""
        self.pages = self.map(layout)
        self.counters: tuple[int, ...] = ()
        if counters:
            # One page for each: words in one cache line would slow the threads down.
            self.counters = tuple(page.start for page in self.map(f"rw*{counters}"))
            for address in self.counters:
                self.poke(address, bytes(8))
                self.count(address)

    def __repr__(self) -> str:
        return f"<Playground {self.pid}: {' '.join(page.kind for page in self.pages)}>"

    @property
    def pid(self) -> int:
        """The pid of the child."""
        return self.process.pid

    @property
    def tracee(self) -> Tracee:
        """The child as a `Tracee`.

        Raises:
            NotTracedError: The playground was made with ``traced=False``.
        """
        if not isinstance(self.process, Tracee):
            raise NotTracedError(
                f"the playground {self.pid} is not traced; make it with traced=True", pid=self.pid
            )
        return self.process

    @property
    def vm(self) -> VmSpace:
        """The address space of the child."""
        return self.process.vm

    @property
    def base(self) -> int:
        """The address of the first page."""
        return self.pages[0].start

    def __getitem__(self, which: int | str) -> int:
        """Returns the address of the n-th page (from 0), or of the first page of a kind."""
        if isinstance(which, int):
            return self.pages[which].start
        for page in self.pages:
            if page.kind == which:
                return page.start
        raise KeyError(which)

    def map(self, layout: str) -> tuple[Page, ...]:
        """Maps more adjacent pages elsewhere, and returns them; see `Playgrounds` for the kinds."""
        kinds = _kinds(layout)
        try:
            base = int(self._ask(f"layout {' '.join(kinds)}"), 16)
        except OSError as error:
            if error.errno == errno.EINVAL and "guard" in kinds:
                self._spawn.lack(
                    UnsupportedError(
                        "this kernel has no guard pages (MADV_GUARD_INSTALL, Linux 6.13)"
                    )
                )
            raise
        return tuple(Page(kind, base + k * PAGE_SIZE) for k, kind in enumerate(kinds))

    def protect(self, address: int, n: int, perms: str) -> None:
        """Sets the permissions of pages to letters of ``rwx`` or to ``none``; their bytes stay."""
        if not re.fullmatch("r?w?x?|none", perms) or not perms:
            raise ValueError(f"{perms!r} is not a permission; give letters of rwx, or none")
        self._ask(f"protect {as_address(address):x} {as_len(n)} {perms}")

    def unmap(self, address: int, n: int) -> None:
        """Unmaps pages."""
        self._ask(f"unmap {as_address(address):x} {as_len(n)}")

    def peek(self, address: int, n: int, *, forced: bool = False) -> bytes:
        """Returns the bytes that the child reads with its own loads.

        Args:
            address: The address of the first byte.
            n: The number of bytes.
            forced: Whether the child reads /proc/self/mem, which ignores permissions.

        Raises:
            PageFaultError: The child faults there.
        """
        address, n = as_address(address), as_len(n)
        found = b""
        while len(found) < n:
            at, most = address + len(found), min(n - len(found), _MOST_AT_ONCE)
            text, _, fault = self._ask(f"{'f' * forced}peek {at:x} {most}").partition(" ")
            found += bytes.fromhex(text)
            if fault:
                raise self._fault(address, len(found), "read")
        return found

    def poke(self, address: int, data: bytes, *, forced: bool = False) -> None:
        """Makes the child write bytes with its own stores.

        Args:
            address: The address of the first byte.
            data: The bytes.
            forced: Whether the child writes /proc/self/mem, which ignores permissions.

        Raises:
            PageFaultError: The child faults there; the bytes before it are stored.
        """
        address = as_address(address)
        for at in range(0, len(data), _MOST_AT_ONCE):
            part = data[at : at + _MOST_AT_ONCE]
            answer = self._ask(f"{'f' * forced}poke {address + at:x} {part.hex()}")
            done, _, fault = answer.partition(" ")
            if fault:
                raise self._fault(address, at + int(done), "write")

    def _fault(self, address: int, done: int, verb: str) -> PageFaultError:
        return PageFaultError(
            f"process {self.pid} itself cannot {verb} {address + done:#x}",
            address=address + done,
            pid=self.pid,
            copied_len=done,
        )

    def contents(self, address: int) -> bytes:
        """Returns the bytes of the file of a ``file`` page, without writes to the private page.

        Raises:
            OSError: The page at `address` is not of that kind.
        """
        return bytes.fromhex(self._ask(f"contents {as_address(address):x}"))

    def count(self, address: int) -> None:
        """Starts a thread of the child that increments the 8-byte word at `address` for ever."""
        self._ask(f"count {as_address(address):x}")

    def _ask(self, line: str) -> str:
        process = self.process
        self._owed += 1
        try:
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
            answer = self._line()
            while self._owed > 1:
                # The answer to an earlier request whose caller was interrupted.
                self._owed -= 1
                answer = self._line()
            self._owed = 0
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise ProcessExitedError(f"the playground {self.pid} has ended", pid=self.pid)
        if answer.startswith("error"):
            code = int(answer.split()[1])
            raise OSError(code, f"the playground cannot {line[:60]}: {os.strerror(code)}")
        return answer.removesuffix("\n")

    def _line(self) -> str:
        # The child answers at once, so a late answer means that it is stopped. With readline, two
        # lines could be buffered, and poll would wait for a line that has been read.
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        deadline = time.monotonic() + _PATIENCE
        while b"\n" not in self._said:
            if poll.poll(_A_MOMENT * 1000):
                part = os.read(self.process.stdout.fileno(), 1 << 16)
                if not part:
                    return ""
                self._said += part
            elif time.monotonic() > deadline or self._is_held():
                self._refuse()
        line, _, self._said = self._said.partition(b"\n")
        return line.decode() + "\n"

    def _is_held(self) -> bool:
        return isinstance(self.process, Tracee) and self.process.is_stopped()

    def _refuse(self) -> NoReturn:
        raise WaitTimeoutError(
            f"the playground {self.pid} does not answer: it is held, or a signal has stopped it; "
            "ask it when it runs",
            pid=self.pid,
        )


@final
class Playgrounds:
    """Makes a playground when it is called; a spawner ends the child."""

    def __init__(self, spawn: Spawner) -> None:
        self._spawn = spawn

    def __call__(self, layout: str = "rw", *, counters: int = 0, traced: bool = True) -> Playground:
        """Starts a child, maps its pages, and returns the playground.

        Args:
            layout: Kinds of pages, separated by spaces: a combination of ``r``, ``w`` and ``x``
                (private, anonymous), ``none`` (no permission), ``hole`` (not mapped), ``wo``
                (the same as ``w``), ``shared`` (rw), ``file`` (private, rw, of a file), ``guard``
                (rw in /proc/PID/maps, but no access), and ``rw*3`` for three of a kind.
            counters: The number of threads that each increment a word for ever.
            traced: Whether the child is a `Tracee`.
        """
        return Playground(self._spawn, layout, counters=counters, traced=traced)


def _kinds(layout: str) -> list[str]:
    kinds: list[str] = []
    for word in layout.split():
        found = _KIND.fullmatch(word)
        if found is None or not found[1]:
            raise ValueError(f"{word!r} is not a kind of page; the kinds are {_KINDS}")
        kinds += [found[1]] * int(found[2] or 1)
    if not kinds:
        raise ValueError(f"a layout needs at least one page; the kinds are {_KINDS}")
    return kinds
