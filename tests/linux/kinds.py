"""The model of pages: what each kind of the playground allows, and what an access must do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import procvm
from tests.support.playground import PAGE, Playground

KINDS = ("rw", "r", "none", "wo", "xo", "hole", "eof", "guard", "srw", "sr", "file", "fro")

READABLE = frozenset({"rw", "r", "srw", "sr", "file", "fro"})
WRITABLE = frozenset({"rw", "wo", "srw", "file"})
# What a debugger may: all but what has no page, and shared memory only as it is mapped.
FORCED_READABLE = frozenset(KINDS) - {"hole", "eof", "guard"}
FORCED_WRITABLE = FORCED_READABLE - {"sr"}
THERE = FORCED_READABLE


class Allowed(NamedTuple):
    """Which kinds of pages a view of the target can access."""

    readable: frozenset[str]
    writable: frozenset[str]


DEFAULT = Allowed(READABLE, WRITABLE)
FORCED = Allowed(FORCED_READABLE, FORCED_WRITABLE)


def every_pair() -> list[str]:
    """Returns kinds in an order where each kind has each kind, itself too, for a right neighbour.

    A closed walk over the complete graph with loops (Hierholzer).
    """
    left = {kind: list(KINDS) for kind in KINDS}
    walk: list[str] = []
    stack = [KINDS[0]]
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            walk.append(stack.pop())
    return walk[::-1]


def good_len(kinds: Sequence[str], offset: int, n: int, allowed: frozenset[str]) -> int:
    """Returns how many of the `n` bytes at `offset` come before the first page not allowed."""
    done = 0
    while done < n:
        page = (offset + done) // PAGE
        if not 0 <= page < len(kinds) or kinds[page] not in allowed:
            break
        done = (page + 1) * PAGE - offset
    return min(done, n)


class Outcome(NamedTuple):
    """All that an access tells, for a comparison of two backends."""

    value: object
    error: str
    text: str
    fields: tuple[object, ...]


def outcome(access: Callable[..., object], *args: object) -> Outcome:
    """Runs an access; returns its value or everything its error says."""
    try:
        return Outcome(access(*args), "", "", ())
    except procvm.PageFaultError as error:
        fields = (error.address, error.copied_len, error.errno, error.pid, error.args)
        return Outcome(None, type(error).__name__, str(error), fields)
    except procvm.ProcvmError as error:
        return Outcome(None, type(error).__name__, str(error), (error.copied_len,))


class Oracle:
    """The kernel's own view of a child's bytes, without procvm: for what is asked 100,000 times."""

    def __init__(self, pid: int) -> None:
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, n: int) -> bytes:
        return os.pread(self._fd, n, address)

    def write(self, address: int, data: bytes) -> None:
        assert os.pwrite(self._fd, data, address) == len(data)

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def oracle(pid: int) -> Iterator[Oracle]:
    """Opens the oracle for a child and closes it."""
    opened = Oracle(pid)
    try:
        yield opened
    finally:
        opened.close()


def contents(playground: Playground, base: int, kinds: Sequence[str]) -> bytes:
    """Returns what the target itself has in a layout; pages that are not there as zeros."""
    pages = [
        playground.peek(base + k * PAGE, PAGE) if kind in THERE else bytes(PAGE)
        for k, kind in enumerate(kinds)
    ]
    return b"".join(pages)
