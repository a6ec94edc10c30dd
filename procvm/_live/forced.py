"""Forced accesses by the descriptor of /proc/PID/mem, which cost one system call.

The kernel ignores page protections there, so nothing has to be asked about them. Two things have
to be: a read below a stack would make the stack grow, and the descriptor outlives the program
where another process shares its address space. So these functions serve only addresses inside the
mapping that was last asked for, and for a millisecond; then the mapping is asked for again, and
the program is proved to be the one that was opened. Everything else goes the complete way.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from procvm._base.pods import Pod
from procvm._linux.proc_maps import vma_at
from procvm._live.image import Image
from procvm._local.buffers import address_of_bytes
from procvm.errors import ProcvmError

__all__ = ["QUICK_LEN", "Asked", "forced_loader", "forced_storer"]

T = TypeVar("T")

QUICK_LEN = 1 << 16
"""Bytes up to which a read by the descriptor takes less time than process_vm_readv."""

_ASKED_LASTS = 0.001
"""Seconds for which the answer about a mapping is used."""

_RUNS = 16
"""Short runs between two looks at the hold: they take the time of one write of some KiB."""

_NOTHING = 1, 0, 0.0


class _Write(Protocol):
    def __call__(self, address: int, own_address: int, n: int, /) -> None: ...


class Asked:
    """The mapping that was last asked for; any thread may use it.

    Attributes:
        bounds: Its first address, its last, and the time on time.monotonic from which it has to
            be asked for again; one object, so that no thread sees half of it.
    """

    __slots__ = ("_image", "bounds")

    def __init__(self, image: Image) -> None:
        self._image = image
        self.bounds: tuple[int, int, float] = _NOTHING

    def ask(self, address: int) -> int:
        """Asks for the mapping at `address`; returns its last address if a descriptor may be used.

        The result is -1 otherwise.
        """
        image = self._image
        self.bounds = _NOTHING
        # The complete way raises the error, with the count of bytes in it.
        with suppress(ProcvmError, OSError):
            image.prove_if_due()
            with image.open_files().maps.use() as maps:
                found = vma_at(maps, address)
            now = time.monotonic()
            # Where another process shares the address space, each access needs a proof.
            if found is not None and image.proof_due > now:
                due = min(image.proof_due, now + _ASKED_LASTS)
                self.bounds = found.start, found.end - 1, due
                return found.end - 1
        return -1

    def read_into(self, address: int, buf: Any, n: int) -> int:
        """Fills a buffer as far as one call goes; returns the number of bytes that arrived."""
        image = self._image
        low, last, due = self.bounds
        if not (low <= address <= last and due > time.monotonic()):
            last = self.ask(address)
        if address + n > last + 1:
            return 0
        # Without this reference `close` could free the descriptor's number meanwhile.
        held, files = image.in_use, image.files
        if held is None or files is None:
            return 0
        try:
            return os.preadv(files.mem.number, (buf,), address)
        except (OSError, TypeError, ValueError, BufferError):
            return 0  # the complete way finds out why
        finally:
            held = None  # else the traceback of an error would keep the descriptors open

    def write_runs(
        self,
        address: int,
        data: memoryview,
        runs: Sequence[tuple[int, int]],
        lasts: Callable[[], bool] | None,
    ) -> int:
        """Writes runs of bytes, a call for each; returns how many were written whole.

        Pages of a hold that have any of the bytes are dropped first.
        """
        image = self._image
        pages = image.pages
        begin, n = address + runs[0][0], runs[-1][1] - runs[0][0]
        change = None if pages is None else pages.begin_change(begin, n)
        try:
            return self._write_runs(address, data, runs, lasts)
        finally:
            if pages is not None and change is not None:
                pages.end_change(change)
            now = image.pages
            if now is not None and now is not pages:
                # Another thread began a hold meanwhile, and may have read the old bytes.
                now.drop(begin, n)

    def _write_runs(
        self,
        address: int,
        data: memoryview,
        runs: Sequence[tuple[int, int]],
        lasts: Callable[[], bool] | None,
    ) -> int:
        image = self._image
        # Without this reference `close` could free the descriptor's number meanwhile.
        held, files = image.in_use, image.files
        if held is None or files is None:
            return 0
        mem, pwrite = files.mem.number, os.pwrite
        done = 0
        try:
            for at in range(0, len(runs), _RUNS):
                some = runs[at : at + _RUNS]
                start, end = address + some[0][0], address + some[-1][1]
                low, last, due = self.bounds
                if not (low <= start <= last and due > time.monotonic()):
                    last = self.ask(start)
                    if last < 0:
                        # The proof that was not due yet may have run out since.
                        last = self.ask(start)
                if end > last + 1 or (lasts is not None and not lasts()):
                    break
                for first, stop in some:
                    if pwrite(mem, data[first:stop], address + first) != stop - first:
                        return done
                    done += 1
        except OSError:
            pass  # the complete way finds out why
        finally:
            held = None  # else the traceback of an error would keep the descriptors open
        return done


def forced_loader(
    image: Image, asked: Asked, pod: Pod[T], slow: Callable[[int], T]
) -> Callable[[int], T]:
    """Returns a function that reads one number by one pread.

    Args:
        image: The program.
        asked: The mapping last asked for, shared by all functions of one memory.
        pod: The type of the number.
        slow: The complete read, which serves where the quick one does not.
    """
    size = pod.size
    packer = pod.packer
    if packer is None:
        return slow
    unpack = packer.unpack
    mem = image.open_files().mem.number
    now, pread, misread = time.monotonic, os.pread, struct.error
    before_end = size - 1

    def load(address: int) -> T:
        low, last, due = asked.bounds
        # Without this reference `close` could free the descriptor's number meanwhile.
        held = image.in_use
        if held is not None and (
            (low <= address and address + before_end <= last and due > now())
            or address + before_end <= asked.ask(address)
        ):
            try:
                found: T = unpack(pread(mem, size, address))[0]
            except (OSError, misread):
                pass  # `slow` finds out why
            else:
                return found
        held = None  # else the traceback of an error would keep the descriptors open
        return slow(address)

    return load


def forced_storer(
    image: Image, asked: Asked, pod: Pod[T], slow: _Write
) -> Callable[[int, T], None]:
    """Returns a function that writes one value by one pwrite; see `forced_loader`."""
    size, to_bytes = pod.size, pod.to_bytes
    mem = image.open_files().mem.number
    now, pwrite = time.monotonic, os.pwrite
    before_end = size - 1

    def store(address: int, value: T) -> None:
        data = to_bytes(value)
        low, last, due = asked.bounds
        held = image.in_use
        if (
            held is not None
            and image.pages is None
            and (
                (low <= address and address + before_end <= last and due > now())
                or address + before_end <= asked.ask(address)
            )
        ):
            try:
                # The pages of a hold that began meanwhile may have the old bytes.
                if pwrite(mem, data, address) == size and image.pages is None:
                    return
            except OSError:
                pass  # `slow` finds out why
        held = None
        # `data` is alive until the write is done.
        slow(address, address_of_bytes(data), size)

    return store
