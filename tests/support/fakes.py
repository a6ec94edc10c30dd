"""A user space made of pages that a test lays out, and faults exactly at its holes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence

from procvm import Fallible, PageFaultError, VmReader, VmSpace, VmWriter
from procvm._mm.extent import Content, Extent, joined
from procvm._mm.memory import Region, UserMemory

BASE = 0x10000
"""Where the first page of a layout is."""

PID = 4321
"""The process that the faults of a fake name."""

# Never 0, and no page begins as its neighbours do.
_WHEEL = bytes(range(1, 256)) * 18

_PERMS = {"rw": "rw", "r": "r", "wo": "w", "none": ""}


def laid_out(
    start: int,
    end: int,
    zeros: Iterable[tuple[int, int]],
    *,
    least: int = 1,
    regions: Sequence[Region] | None = None,
) -> Iterator[Extent]:
    """Yields a range as a layout: long runs of zeros, holes outside of regions, else data."""
    marks = [
        (max(low, start), min(high, end), Content.ZEROS)
        for low, high in zeros
        if min(high, end) - max(low, start) >= least
    ]
    at = 0
    for region in [*(regions or ()), Region(1 << 64, 1 << 64, 0)]:
        if regions is not None and max(at, start) < min(region.start, end):
            marks.append((max(at, start), min(region.start, end), Content.HOLE))
        at = region.end
    found: list[Extent] = []
    at = start
    for low, high, content in [*sorted(marks), (end, end, Content.DATA)]:
        if at < low:
            found.append(Extent(at, low, Content.DATA))
        if max(at, low) < high:
            found.append(Extent(max(at, low), high, content))
        at = max(at, high)
    return joined(found)


class Holed(UserMemory):
    """Pages of these kinds from `BASE` on: rw, r, wo, none or hole.

    `calls` lists each access that came in, as (name, address, length).
    """

    def __init__(self, kinds: str, *, page_len: int = 16, base: int = BASE) -> None:
        assert base % page_len == 0
        self.page_len = page_len
        self.calls: list[tuple[str, int, int]] = []
        self.perms: dict[int, str] = {}
        self.pages: dict[int, bytearray] = {}
        self._domain: object = self
        for number, kind in enumerate(kinds.split(), base // page_len):
            if kind != "hole":
                self.perms[number] = _PERMS[kind]
                start = number * 13 % 255
                self.pages[number] = bytearray(_WHEEL[start : start + page_len])

    @property
    def domain(self) -> object:
        return self._domain

    @property
    def end(self) -> int:
        return 1 << 47

    def forced(self) -> Holed:
        """The same pages, all of them readable and writable."""
        other = Holed("", page_len=self.page_len)
        other.pages = self.pages
        other.perms = dict.fromkeys(self.pages, "rw")
        other._domain = self._domain
        return other

    def read(self, address: int, own_address: int, n: int) -> None:
        self.calls.append(("read", address, n))
        self._move(address, own_address, n, "r")

    def write(self, address: int, own_address: int, n: int) -> None:
        self.calls.append(("write", address, n))
        self._move(address, own_address, n, "w")

    def _move(self, address: int, own_address: int, n: int, need: str) -> None:
        done = 0
        while done < n:
            at = address + done
            number, offset = divmod(at, self.page_len)
            if need not in self.perms.get(number, ""):
                raise PageFaultError(
                    f"the fake has no {need} at {at:#x}", address=at, pid=PID, copied_len=done
                )
            step = min(n - done, self.page_len - offset)
            here = ctypes.addressof(ctypes.c_char.from_buffer(self.pages[number], offset))
            pair = (own_address + done, here) if need == "r" else (here, own_address + done)
            ctypes.memmove(*pair, step)
            done += step

    def peek(self, address: int, n: int) -> bytes:
        """What is there, whatever the pages allow; 0 for what is not."""
        first, last = address // self.page_len, (address + n) // self.page_len
        nothing = bytes(self.page_len)
        run = b"".join([self.pages.get(k, nothing) for k in range(first, last + 1)])
        start = address - first * self.page_len
        return run[start : start + n]

    def poke(self, address: int, data: bytes) -> None:
        """Changes what is there, whatever the pages allow."""
        for k, byte in enumerate(data):
            number, offset = divmod(address + k, self.page_len)
            self.pages[number][offset] = byte

    def reader(self, address: int, n: int) -> VmReader[Fallible]:
        return VmSpace(self).reader(address, n)

    def writer(self, address: int, n: int) -> VmWriter[Fallible]:
        return VmSpace(self).writer(address, n)
