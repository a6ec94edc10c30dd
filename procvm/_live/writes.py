"""Writes to a live process, by /proc/PID/mem; each drops the cached pages that it changes.

Many small ranges of a target that is held are written by its tracer, with one call for a thousand;
see `_hold.server.writing`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

from procvm._base.perms import WRITE
from procvm._base.pods import Pod
from procvm._linux.libc import TRANSIENT
from procvm._linux.outcome import Moved, Outcome
from procvm._linux.proc_maps import QUERY, prepared_query
from procvm._live.atomics import Holder
from procvm._live.faults import failed_transfer
from procvm._live.forced import forced_storer
from procvm._live.page_cache import PageCache
from procvm._live.reads import Readable
from procvm._local.buffers import address_of_bytes
from procvm.errors import AccessDeniedError, ProcvmError

__all__ = ["Writable"]

T = TypeVar("T")

_TRIES = 1000
_IOV_MAX = 1024
_WORTH_A_CALL = 12
"""Ranges from which on a request to the tracer takes less time than a write for each."""

_ONE_CALL_LEN = 5 << 14
_ADDRESS, _END = 2, 4  # words of a question; see `prepared_query`


class Writable(Readable):
    """The writing half of a live process's memory.

    A write uses /proc/PID/mem, whose descriptor cannot reach another program. A process_vm_writev
    could, since its answer comes after the bytes were written. So it is used only where the
    number cannot change: for the tool itself, and by the tracer for a target that it holds.
    """

    _holder: Holder | None

    def write(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes of the tool to the target; see `Memory.write`.

        Cached pages of a hold are dropped before the write, and none is added until it is done.
        """
        image = self.image
        pages, change = self._kept_pages(), None
        try:
            if pages is not None:
                change = pages.begin_change(address, n)
            moved = self._write(address, own_address, n)
        finally:
            if pages is not None and change is not None:
                pages.end_change(change)
        if image.pages is not None and image.pages is not pages:
            # Another thread began a hold during the write, and may have read the old bytes.
            image.pages.drop(address, n)
        if moved[1] is not Outcome.DONE:
            raise failed_transfer(image, moved, "write", address, own_address, forced=self._forced)

    def _kept_pages(self) -> PageCache | None:
        """Returns the cached pages if the hold lasts."""
        image = self.image
        pages = image.pages
        if pages is None or pages.lasts():
            return pages
        # The hold is over, and with it the use of its pages.
        if image.pages is pages:
            image.pages = None
        return None

    def writev(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Writes many small ranges of a held target by few calls; see `Memory.writev`."""
        begin = done = 0
        try:
            while begin < len(ranges):
                some, total = _for_one_call(ranges, begin)
                begin += len(some)
                moved = max(self._write_held(some, own_address + done, total), 0)
                if moved == total:
                    done += total
                    continue
                for address, n in some:
                    part = min(moved, n)
                    moved -= part
                    done += part
                    if part < n:
                        # By itself: the complete write finds out what stopped the call.
                        self.write(address + part, own_address + done, n - part)
                        done += n - part
        except ProcvmError as error:
            error.copied_len += done
            raise

    def _write_held(self, ranges: Sequence[tuple[int, int]], own_address: int, total: int) -> int:
        """Writes ranges as `Holder.write_ranges` does, with its result."""
        holder = self._holder
        if holder is None or len(ranges) < _WORTH_A_CALL:
            return -1
        data = self._calls.own_bytes(own_address, total)
        if data is None:
            return -1
        image = self.image
        pages, change = self._kept_pages(), None
        words = array("Q", chain.from_iterable(ranges))
        try:
            if pages is not None:
                change = pages.begin_changes(ranges)
            return holder.write_ranges(words, data)
        finally:
            if pages is not None and change is not None:
                pages.end_change(change)
            if image.pages is not None and image.pages is not pages:
                image.pages.clear()  # as in `write`

    def _write(self, address: int, own_address: int, n: int) -> Moved:
        image = self.image
        files = image.open_files()
        # Before the write, since it cannot be taken back.
        image.prove_if_due()
        if image.pinned and not self._forced:
            return self._write_by_calls(address, own_address, n)
        if files.writable:
            return files.write(address, own_address, n, 0 if self._forced else WRITE)
        raise AccessDeniedError(
            f"cannot write process {image.pid} at {address:#x}: /proc is mounted read-only, and "
            "a write by pid alone could reach a program that the process has become; mount a "
            "writable /proc",
            pid=image.pid,
            errno=errno.EROFS,
        )

    def _write_by_calls(self, address: int, own_address: int, n: int) -> Moved:
        done = tries = 0
        while done < n:
            got, code = self._calls.write(address + done, own_address + done, n - done)
            if code == errno.EFAULT:
                is_own = self._calls.own_faults(own_address + done)
                return done, Outcome.OWN_FAULT if is_own else Outcome.TARGET_FAULT, 0
            if code in TRANSIENT and tries < _TRIES:
                tries += 1
                continue
            if code:
                return done, Outcome.FAILED, code
            done += got
        return done, Outcome.DONE, 0

    def write_runs(
        self,
        address: int,
        data: memoryview,
        runs: Sequence[tuple[int, int]],
        lasts: Callable[[], bool] | None,
    ) -> int:
        """Begins a forced write of short runs, a call for each; see `UserMemory.write_runs`."""
        if self._forced and self.image.open_files().writable:
            return self._asked().write_runs(address, data, runs, lasts)
        return 0

    def storer(self, pod: Pod[T]) -> Callable[[int, T], None]:
        """Returns a function that writes one value by two system calls where nothing fails."""
        image = self.image
        size = pod.size
        if self._forced and image.open_files().writable:
            return forced_storer(image, self._asked(), pod, self.write)
        to_bytes = pod.to_bytes
        slow = self.write
        files = image.open_files()
        mem, maps = files.mem.number, files.maps.number
        prepared = prepared_query(maps, WRITE)
        if prepared is None:
            return super().storer(pod)
        words, query = prepared
        now, ioctl, pwrite = time.monotonic, fcntl.ioctl, os.pwrite

        def store(address: int, value: T) -> None:
            data = to_bytes(value)
            # Without this reference `close` could free the descriptors' numbers meanwhile.
            held = image.in_use
            if image.proof_due > now() and image.pages is None and held is not None:
                words[_ADDRESS] = address
                try:
                    ioctl(maps, QUERY, query)
                    if (
                        # A signal handler that used the question meanwhile left its own address.
                        words[_ADDRESS] == address
                        and words[_END] - address >= size
                        and pwrite(mem, data, address) == size
                        # The pages of a hold that began meanwhile may have the old bytes.
                        and image.pages is None
                    ):
                        return
                except OSError:
                    pass  # `slow` finds out why
            held = None  # else the traceback of an error would keep the descriptors open
            # `data` is alive until the write is done.
            slow(address, address_of_bytes(data), size)

        return store


def _for_one_call(
    ranges: Sequence[tuple[int, int]], begin: int
) -> tuple[Sequence[tuple[int, int]], int]:
    """Returns the ranges from index `begin` on that one call takes, at least one; their bytes."""
    some = ranges[begin : begin + _IOV_MAX]
    total = sum([n for _, n in some])
    while total > _ONE_CALL_LEN and len(some) > 1:
        some = some[: len(some) // 2]
        total = sum([n for _, n in some])
    return some, total
