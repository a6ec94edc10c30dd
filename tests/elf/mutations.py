"""Files that are not as they should be, the same ones for the same seed, and what one costs."""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

STORM = os.environ.get("PROCVM_STORM") == "1"
"""Whether all mutations are run, and not the everyday share of them."""

MOST_CPU_S = 0.05
"""Processor time that a malformed file may cost, where `_yardstick` takes `_YARDSTICK_S`."""

MOST_MEMORY = 64 << 20

_YARDSTICK_S = 0.004
_TRIES = 5

# What a length, a count, an offset or an address is compared with somewhere.
BOUNDARIES = [
    *(0, 1, 2, 3, 7, 8, 0x3F, 0x40, 0x41, 0xFF, 0x1000, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 47) - 4096, 1 << 47, 1 << 48),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 8, (1 << 64) - 1),
]


class File:
    """A file without a name whose bytes are changed, looked at, and put back."""

    def __init__(self, data: bytes, seed: int, hot: list[tuple[int, int]]) -> None:
        """Takes the bytes, and the parts of them that say what the others are."""
        self.data = data
        self._random = random.Random(seed)
        self._hot = [(a, b) for a, b in hot if a < b] or [(0, len(data))]
        self.fd = os.memfd_create("mutated", os.MFD_CLOEXEC)
        os.write(self.fd, data)

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.fd}"

    def _place(self) -> int:
        part = (
            self._random.choice(self._hot) if self._random.random() < 0.8 else (0, len(self.data))
        )
        return self._random.randrange(*part)

    def mutate(self) -> tuple[bytes, str]:
        """Returns other bytes, and what was done to them."""
        pick = self._random
        data = bytearray(self.data)
        kinds = ("flip", "field", "field", "splice", "cut")
        done: list[str] = []
        for _ in range(pick.choice((1, 1, 2, 4))):
            if not data:
                break
            kind = pick.choice(kinds)
            at = min(self._place(), len(data) - 1)
            if kind == "flip":
                data[at] ^= 1 << pick.randrange(8)
            elif kind == "field":
                width = pick.choice((1, 2, 4, 8))
                at = at // width * width
                value = pick.choice(BOUNDARIES) % (1 << 8 * width)
                data[at : at + width] = value.to_bytes(width, "little")
            elif kind == "splice":
                n, source = pick.choice((4, 8, 56, 64, 512)), self._place()
                data[at : at + n] = data[source : source + n]
            else:
                del data[max(at, 1) :]
            done.append(f"{kind} at {at:#x}")
        return bytes(data), ", ".join(done)

    def put(self, data: bytes) -> None:
        """Makes the file these bytes."""
        os.ftruncate(self.fd, len(data))
        os.pwrite(self.fd, data, 0)

    def close(self) -> None:
        os.close(self.fd)


@contextmanager
def mutations(
    data: bytes, count: int, seed: int, hot: list[tuple[int, int]]
) -> Iterator[Iterator[tuple[File, str]]]:
    """Gives a file that is another mutation at each step."""
    file = File(data, seed, hot)

    def steps() -> Iterator[tuple[File, str]]:
        for k in range(count):
            changed, what = file.mutate()
            file.put(changed)
            yield file, f"mutation {k} of seed {seed}: {what}"

    try:
        yield steps()
    finally:
        file.close()


class Cost(NamedTuple):
    """What a call took."""

    seconds: float
    memory: int


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise AssertionError(field)


def cost_of(call: Callable[[], object]) -> Cost:
    """Returns the processor time and the most memory that a call took."""
    fd = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"5")  # the highest mark becomes what is in use now
    finally:
        os.close(fd)
    before = _status("VmHWM")
    begun = time.thread_time()
    call()
    return Cost(time.thread_time() - begun, _status("VmHWM") - before)


def _yardstick() -> float:
    """Returns the processor time that the same work takes now as ever: it tells the machine's."""
    data = bytes(range(256)) * 64
    begun = time.thread_time()
    for _ in range(15):
        for at in range(0, len(data), 8):
            struct.unpack_from("<II", data, at)
    return time.thread_time() - begun


def assert_cheap(what: str, call: Callable[[], object]) -> None:
    """The call stays within the time and the memory that a malformed file may cost.

    Processor time too is longer where the processor is shared, or slow: as much longer as that of
    the yardstick, and the best of some tries counts.
    """
    told = []
    for _ in range(_TRIES):
        before = _yardstick()
        cost = cost_of(call)
        slowness = max(1.0, before / _YARDSTICK_S, _yardstick() / _YARDSTICK_S)
        if cost.seconds <= MOST_CPU_S * slowness and cost.memory <= MOST_MEMORY:
            return
        told.append(f"{cost.seconds / slowness * 1000:.0f} ms, {cost.memory >> 20} MiB")
    raise AssertionError(f"{what}: {'; '.join(told)}")
