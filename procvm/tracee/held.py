"""What a hold is good for beyond standing still: what was asked or read once stays true."""

from __future__ import annotations

import io
import os
import weakref
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast, final

from procvm.address import PAGE_SIZE
from procvm.errors import NotStoppedError, NotTracedError, ProcvmError, SharedMemoryError
from procvm.linux.procmap import VmaRange, vma_at
from procvm.mm.memory import Region, UserMemory
from procvm.mm.space import VmSpace
from procvm.own.buffers import copy
from procvm.perms import Perms
from procvm.pod import Pod, PodAtomic
from procvm.process.atomic import TO_EXCHANGE, TO_LOAD, Atomic, require_no_peer
from procvm.process.image import Image
from procvm.process.memory import ProcessMemory
from procvm.process.pages import PageCache
from procvm.tracee.tracer import Channel

__all__ = ["Held", "HeldMemory", "Standstill"]

T = TypeVar("T")

_FEW = 4 * PAGE_SIZE


class Held(io.FileIO):
    """A hold on a target, for as long as it is open; what `with stopped()` gives.

    It is the end of a pipe, whose closing the tracer sees and lets go. That is
    why it is a file: leaving the ``with`` then runs no bytecode of ours, at any
    of which Ctrl-C could come first and leave the target stopped; and should it
    come before the ``with`` is entered, dropping the object closes it as well.
    """

    vm: VmSpace
    """The target's address space, pages of which are kept once read.

    What is read in pieces, such as a list or a tree, is read some ten times
    quicker than by `Tracee.vm`. Private memory alone is kept: it can not change
    until the hold ends but by the tool, which is seen here by whichever space of
    the same `Tracee` it writes. Shared memory is read anew each time. After the
    end of the ``with`` every read is. One of a hold whose longest time was over
    raises NotStoppedError.
    """


class Standstill:
    """One hold for as long as it lasts: what can not change in it is asked for once.

    Attributes:
        image: The program.
        number: The hold's number; no other has it.
        pages: What was read of private memory.
    """

    def __init__(self, image: Image, channel: Channel, number: int, cache_len: int) -> None:
        self.number = number
        self.pages = PageCache(cache_len)
        image.pages = self.pages
        self.reliance = channel.flags.reliance(number)
        self._alive = channel.alive
        self._alive_to_one = channel.prepare_alive()
        self.image = image
        self._files = image.open_files()  # its descriptors stay open as long
        self._vmas: list[VmaRange] = []
        self._alone: bool | None = None
        self._ended = False

    @property
    def lasts(self) -> bool:
        """Whether the target still stands still, as far as the tracer says."""
        return bool(self.reliance) and not self._ended

    def require_alive(self) -> None:
        """Raises NotTracedError if the tracer has ended."""
        if not self._alive():
            raise self._tracer_ended()

    def _tracer_ended(self) -> NotTracedError:
        return NotTracedError(
            "the tracer process has ended, and so has the hold, perhaps before the atomic was done",
            pid=self.image.pid,
        )

    def forget(self) -> None:
        """Forgets what was read and asked: the target has run."""
        self.pages.clear()
        self._vmas.clear()
        self._alone = None

    def end(self) -> None:
        """Keeps nothing any more, whatever the tracer's last word was."""
        self._ended = True
        self.image.pages = None
        self.pages.limit = 0
        self.forget()

    def require_alone(self) -> None:
        """Raises SharedMemoryError if another process runs in the same address space."""
        if not self._alone:
            self._alone = False
            require_no_peer(self.image.pid, everyone=True)
            self._alone = True

    def is_alone(self) -> bool:
        """Returns whether no other process runs in the same address space."""
        if self._alone is None:
            try:
                self.require_alone()
            except SharedMemoryError:
                return False
        return bool(self._alone)

    def vma(self, address: int) -> VmaRange | None:
        """Returns the mapping that holds `address`, or None.

        Raises:
            OSError: As `vma_at`.
        """
        vmas = self._vmas
        at = bisect_right(vmas, (address, _LAST)) - 1
        if at >= 0 and address < vmas[at].end:
            return vmas[at]
        found = vma_at(self._files.maps.number, address)
        if found is not None:
            # Twice if two threads ask for it at once, which does no harm.
            insort(vmas, found)
        return found

    def fetch(self, number: int) -> bool:
        """Keeps a page, if it may be kept; returns whether it does now."""
        generation = self.pages.generation
        address = number * PAGE_SIZE
        try:
            vma = self.vma(address)
            if vma is None or vma.flags & (_READ | _SHARED) != _READ or not self.is_alone():
                return False
            data = os.pread(self._files.mem.number, PAGE_SIZE, address)
        except OSError:
            return False  # a read of its own finds out why
        if len(data) != PAGE_SIZE or not self.lasts or not self._alive():
            return False
        self.pages.add(number, data, generation)
        return True

    def atomic(self, what: Atomic, *, forced: bool) -> bytes | None:
        """Performs an atomic on private memory; one at a time.

        Returns:
            What was there; None if it has to be done the long way.

        Raises:
            NotTracedError: The tracer ended meanwhile.
        """
        address, size, expected, desired = what
        needs = _TO_LOAD if expected is None else _TO_EXCHANGE
        mem = self._files.mem.number
        alive = self._alive_to_one
        try:
            if not self.reliance.begin() or not self._alone or self._ended or not alive():
                return None
            vma = self.vma(address)
            if vma is None or vma.flags & _SHARED:
                return None
            if not forced and vma.flags & needs != needs:
                return None
            found = os.pread(mem, size, address)
            if len(found) != size:
                return None
            if found == expected and os.pwrite(mem, desired, address) != size:
                return None
            if alive():
                return found
        except OSError:
            return None
        finally:
            self.reliance.end()
            self.pages.drop(address, size)
        raise self._tracer_ended()


# Plain numbers: the operators of an IntFlag take longer than the accesses they decide on.
_READ, _SHARED = int(Perms.READ), int(Perms.SHARED)
_TO_LOAD, _TO_EXCHANGE = int(TO_LOAD), int(TO_EXCHANGE)
_LAST = 1 << 64


@final
class HeldMemory(UserMemory):
    """A target's memory in a hold, of which what was read is kept."""

    def __init__(self, memory: ProcessMemory, still: Standstill, held: Held) -> None:
        self._memory = memory
        self._still = still
        # Not the hold itself: dropping it is what ends it.
        self._held = weakref.ref(held)
        # Unlike those of a process, they keep no scratch memory: one serves all threads.
        self._loaders: dict[Pod[Any], Callable[[int], Any]] = {}

    def __repr__(self) -> str:
        return f"{self._memory!r}, held"

    @property
    def domain(self) -> object:
        """The same as without a hold."""
        return self._memory.domain

    @property
    def end(self) -> int:
        """One past the last address of user space on this machine."""
        return self._memory.end

    @property
    def pid(self) -> int:
        """The process."""
        return self._memory.pid

    def forced(self) -> ProcessMemory:
        """Returns the memory with page protections ignored, of which nothing is kept."""
        return self._memory.forced()

    def _lasts(self) -> bool:
        """Returns whether the hold lasts.

        Raises:
            NotStoppedError: It does not, and nobody ended it on purpose.
        """
        if self._still.lasts:
            return True
        held = self._held()
        if held is None or held.closed:
            return False
        raise NotStoppedError(
            f"the hold on process {self._still.image.pid} is over: its longest time was, or the "
            "tracer ended; hold it again, or give attach a longest_hold that is long enough",
            pid=self._still.image.pid,
        )

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes of the target to our own memory; see `Memory.read`."""
        if not self._lasts() or n > _FEW:
            self._memory.read(address, own_address, n)
            return
        pages = self._still.pages.pages
        done = 0
        while done < n:
            number, offset = divmod(address + done, PAGE_SIZE)
            step = min(PAGE_SIZE - offset, n - done)
            page = pages.get(number)
            if page is None and self._still.fetch(number):
                page = pages.get(number)
            if page is None:
                try:
                    self._memory.read(address + done, own_address + done, step)
                except ProcvmError as error:
                    error.copied_len += done
                    raise
            else:
                # SAFETY: `page` is alive, and the caller keeps `n` bytes alive.
                copy(own_address + done, page.own_address + offset, step)
            done += step

    def readv(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Reads ranges by vectored calls, none of which is kept; see `Memory.readv`."""
        self._lasts()
        self._memory.readv(ranges, own_address)

    def readv_packed(self, words: memoryview, count: int, own_address: int) -> int:
        """Reads ranges up to the first fault, none of which is kept."""
        self._lasts()
        return self._memory.readv_packed(words, count, own_address)

    def regions(self) -> list[Region]:
        """Returns what is mapped; see `UserMemory.regions`."""
        return self._memory.regions()

    def untouched(self, start: int, end: int) -> list[tuple[int, int]]:
        """Returns runs that were never written; see `UserMemory.untouched`."""
        return self._memory.untouched(start, end)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._memory.__reduce__()

    def loader(self, pod: Pod[T]) -> Callable[[int], T]:
        """Returns a reader of one value that finds an aligned number in a kept page."""
        found = self._loaders.get(pod)
        if found is None:
            found = self._loaders[pod] = self._loader(pod)
        return found

    def _loader(self, pod: Pod[T]) -> Callable[[int], T]:
        anyhow = super().loader(pod)
        code, size = pod.code, pod.size
        if not code:
            return anyhow
        still = self._still
        word, held = still.reliance.word, still.reliance.held
        cache = still.pages
        find = cache.views(code).get
        unaligned = size - 1

        def load(address: int) -> T:
            view = find(address // PAGE_SIZE)
            if view is None or address & unaligned or word[0] != held:
                return missed(address)
            return cast(T, view[address % PAGE_SIZE // size])

        def missed(address: int) -> T:
            number = address // PAGE_SIZE
            if self._lasts() and not address & unaligned:
                view = cache.view(code, number)
                if view is None and still.fetch(number):
                    view = cache.view(code, number)
                if view is not None:
                    return cast(T, view[address % PAGE_SIZE // size])
            return anyhow(address)

        return load

    def write(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` own bytes to the target, where they are seen at once; see `Memory.write`."""
        self._memory.write(address, own_address, n)

    def writev(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Writes ranges; see `Memory.writev`."""
        self._memory.writev(ranges, own_address)

    def storer(self, pod: Pod[T]) -> Callable[[int, T], None]:
        """Returns a writer of one value."""
        return self._memory.storer(pod)

    def atomic_load(self, address: int, pod: PodAtomic[T]) -> T:
        """Loads as without the cache."""
        return self._memory.atomic_load(address, pod)

    def atomic_compare_exchange(
        self, address: int, pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Exchanges as without the cache, and is seen at once."""
        return self._memory.atomic_compare_exchange(address, pod, old, new)
