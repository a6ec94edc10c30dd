"""Reads from a live process: process_vm_readv where it can be believed, else /proc/PID/mem."""

from __future__ import annotations

import errno
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

from procvm._base.perms import READ
from procvm._base.pods import Pod
from procvm._linux.libc import REFUSALS, TRANSIENT
from procvm._linux.outcome import Outcome
from procvm._linux.process_vm import NR_RANGES, VmCalls
from procvm._linux.procfs import user_space_end
from procvm._live.extents import layout_of
from procvm._live.faults import failed_transfer, own_fault, page_fault, unseen_page
from procvm._live.forced import QUICK_LEN, Asked, forced_loader
from procvm._live.image import Image
from procvm._local.buffers import Buffer, fill_zeros
from procvm._mm.extent import Extent
from procvm._mm.memory import Region, UserMemory
from procvm.errors import PageFaultError, ProcvmError

__all__ = ["Readable"]

T = TypeVar("T")

_TRIES = 1000

_EXPECTED = frozenset({0, errno.EFAULT, errno.ESRCH})
"""The errnos of process_vm_readv that say something about the target."""


class Readable(UserMemory):
    """The reading half of a live process's memory.

    A read uses process_vm_readv with the token in the same call while `Image.by_calls` is True.
    It uses /proc/PID/mem where the kernel refuses that call, where the token proves nothing, and
    where page protections are ignored and the call faults.

    Attributes:
        image: The program.
    """

    image: Image
    _calls: VmCalls
    _forced: bool
    _last_asked: Asked | None = None

    @property
    def domain(self) -> object:
        """The image, since protections do not change which byte an address means."""
        return self.image

    @property
    def end(self) -> int:
        """One past the last address of user space on this machine."""
        return user_space_end()

    @property
    def address_size(self) -> int:
        """The bytes of the program's pointers."""
        return self.image.address_size

    @property
    @abstractmethod
    def pid(self) -> int:
        """The pid of the process."""

    @property
    def is_forced(self) -> bool:
        """Whether page protections are ignored."""
        return self._forced

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes of the target to the tool's own memory; see `Memory.read`."""
        done = self._calls.read(address, own_address, n) if self.image.by_calls else 0
        if done != n:
            self._read_on(address, own_address, n, max(done, 0))

    def _read_on(self, address: int, own_address: int, n: int, done: int) -> None:
        """Continues after a call that moved fewer bytes, or raises the error that stopped it."""
        image = self.image
        tries = 0
        while done < n:
            at, to = address + done, own_address + done
            if not image.by_calls:
                return self._read_by_mem(address, own_address, n, done)
            got = self._calls.read(at, to, n - done)
            if got > 0:
                done += got
                tries = 0
                continue
            tries += 1
            _, code = self._calls.peek(at, 1)
            if got == 0 and code == 0:
                # The target's byte can be read, so the tool's own buffer faults; or the target
                # made the byte readable just now.
                if self._calls.own_faults(to):
                    raise own_fault(to, done)
            elif got == 0 and code == errno.EFAULT:
                if self._forced:
                    return self._read_by_mem(address, own_address, n, done)
                raise page_fault(image, at, "read", done, forced=False)
            elif code in REFUSALS or code in TRANSIENT or code in _EXPECTED:
                image.verify(done, refused=code in REFUSALS)
            else:
                raise image.failure(code, f"cannot read process {image.pid} at {at:#x}", done)
            if tries > _TRIES:
                what = f"cannot read process {image.pid} at {at:#x} in {tries} attempts"
                raise image.failure(code or errno.EAGAIN, what, done)
        return None

    def _read_by_mem(self, address: int, own_address: int, n: int, done: int) -> None:
        image = self.image
        image.prove_if_due(done)
        got, outcome, code = image.open_files(done).read(
            address + done, own_address + done, n - done, 0 if self._forced else READ
        )
        if image.shared:
            try:
                image.prove(done)
            except BaseException:
                # The bytes may be another process's, so the caller must not see them.
                fill_zeros(own_address + done, got)
                raise
        if outcome is not Outcome.DONE:
            moved = done + got, outcome, code
            raise failed_transfer(image, moved, "read", address, own_address, forced=self._forced)

    def readv(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Reads ranges of the target into consecutive bytes of the tool; see `Memory.readv`."""
        done = 0
        first = 0
        try:
            while first < len(ranges):
                got, begun = 0, first
                if self.image.by_calls:
                    got = max(self._calls.readv(ranges, first, own_address + done), 0)
                some = ranges[first : first + NR_RANGES]
                if got == sum([n for _, n in some]):
                    done += got
                    first += len(some)
                    continue
                while first < len(ranges) and got >= ranges[first][1]:
                    got -= ranges[first][1]
                    done += ranges[first][1]
                    first += 1
                if first < len(ranges) and (got or first == begun):
                    # The call stopped in this range. Reading the rest of it alone finds out why.
                    address, n = ranges[first]
                    done += got
                    self.read(address + got, own_address + done, n - got)
                    done += n - got
                    first += 1
        except ProcvmError as error:
            error.copied_len += done
            raise

    def readv_packed(self, words: memoryview, count: int, own_address: int) -> int:
        """Reads ranges up to the first fault; see `Memory.readv_packed`."""
        if not self.image.by_calls:
            return super().readv_packed(words, count, own_address)
        lens = words[3 : 3 + 2 * count : 2].tolist()
        total = sum(lens)
        got = self._calls.readv_packed(words, count, own_address, total)
        if got == total:
            return got
        # The call stopped in one of the ranges. Reading the rest of it alone finds out why.
        got = max(got, 0)
        ends = list(accumulate(lens))
        while got < total:
            k = bisect_right(ends, got)
            left = ends[k] - got
            address = words[2 + 2 * k] + lens[k] - left
            try:
                self.read(address, own_address + got, left)
            except PageFaultError as error:
                return got + error.copied_len
            got += left
        return got

    def loader(self, pod: Pod[T]) -> Callable[[int], T]:
        """Returns a function that reads one value with a prepared call."""
        if not pod.code:
            return super().loader(pod)
        if self._forced:
            return forced_loader(self.image, self._asked(), pod, super().loader(pod))
        if not self.image.by_calls:
            return super().loader(pod)
        return self._calls.loader(pod, super().loader(pod))

    def read_buffer(self, address: int, buf: Buffer, n: int) -> int:
        """Begins a forced read of a few KiB by one call; see `UserMemory.read_buffer`."""
        return self._asked().read_into(address, buf, n) if n <= QUICK_LEN and self._forced else 0

    def _asked(self) -> Asked:
        """Returns the mapping that forced accesses last asked for."""
        asked = self._last_asked
        if asked is None:
            asked = self._last_asked = Asked(self.image)
        return asked

    def regions(self) -> list[Region]:
        """Returns the mappings; see `UserMemory.regions`."""
        return [Region(*entry[:3]) for entry in self.image.entries()]

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        """Yields what a range holds, without reading it; see `UserMemory.layout`."""
        return layout_of(self.image, start, end, 0 if self._forced else READ)

    def hole(self, address: int, copied_len: int) -> ProcvmError:
        """Returns the error for a byte that the layout leaves out."""
        return unseen_page(self.image, address, copied_len, forced=self._forced)
