"""The memory of a live process: which system call serves an access, and what its failure means."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, final

from procvm._base.perms import READ, SHARED, WRITE
from procvm._base.pods import Pod, PodAtomic
from procvm._linux.libc import REFUSALS, TRANSIENT, errno_error
from procvm._linux.proc_maps import QUERY, prepared_query, vma_at
from procvm._linux.process_vm import NR_RANGES
from procvm._linux.procfs import user_space_end
from procvm._live.again import Pickled, open_again
from procvm._live.atomics import Atomic, Holder, on_shared, vma_of_atomic
from procvm._live.extents import layout_of
from procvm._live.image import Image
from procvm._local.buffers import address_of_bytes, fill_zeros
from procvm._mm.extent import Extent
from procvm._mm.memory import Region, UserMemory
from procvm.errors import (
    AccessDeniedError,
    Hint,
    NotTracedError,
    PageFaultError,
    ProcvmError,
    VmError,
)

__all__ = ["Holding", "ProcessMemory"]

Holding: TypeAlias = Callable[[], Callable[[], AbstractContextManager[object]] | None]
"""Gives the function that holds a process; None once the process was dropped."""

T = TypeVar("T")

_TRIES = 1000
_ADDRESS, _END = 2, 4  # words of a question; see `prepared_query`
_OF_OPEN = ("image", "_calls")


@final
class ProcessMemory(UserMemory):
    """An image's memory, as its own accesses see it or with protections ignored.

    Reads go by process_vm_readv with the token in the same call, and by
    /proc/PID/mem where that is refused. Writes go by /proc/PID/mem, whose
    descriptor can not reach another image, unless the image is pinned.
    """

    def __init__(
        self, image: Image, holder: Holder | None = None, *, ignore_protections: bool = False
    ) -> None:
        self.image = image
        self._calls = image.calls
        self._prepare(holder, forced=ignore_protections, pickled=None)

    def _prepare(self, holder: Holder | None, *, forced: bool, pickled: Pickled | None) -> None:
        self._holder = holder
        self._forced = forced
        self._pickled = pickled
        self._to_read = 0 if forced else READ
        self._to_write = 0 if forced else WRITE
        # Weak: a process and its memory in a cycle would keep descriptors open.
        self.holding: Holding | None = None

    @classmethod
    def of_pickled(cls, pickled: Pickled, *, forced: bool) -> ProcessMemory:
        """Returns the memory of a process that is opened at the first access."""
        memory = cls.__new__(cls)
        memory._prepare(None, forced=forced, pickled=pickled)
        return memory

    def __repr__(self) -> str:
        return f"process {self.pid}" + (", forced" if self._forced else "")

    @property
    def domain(self) -> object:
        """The image: protections do not change what an address means."""
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
    def pid(self) -> int:
        """The process."""
        return self.image.pid if self._pickled is None else self._pickled.identity.pid

    @property
    def is_forced(self) -> bool:
        """Whether page protections are ignored."""
        return self._forced

    def __reduce__(self) -> tuple[Any, ...]:
        pickled = self._pickled
        if pickled is None:
            image = self.image
            pickled = Pickled(image.identity(), image.current_token(), image.by_calls)
        return _unpickled, (pickled, self._forced)

    if not TYPE_CHECKING:  # to a checker every memory has its image

        def __getattr__(self, name: str) -> Any:
            # Of one that was unpickled, at its first access: a pickle that opened the
            # process would break the pool of workers that it is sent to.
            if name not in _OF_OPEN or self._pickled is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self.image = open_again(self._pickled)
            self._calls = self.image.calls
            return getattr(self, name)

    def forced(self) -> ProcessMemory:
        """Returns the same memory with page protections ignored."""
        if self._pickled is not None:
            return _unpickled(self._pickled, forced=True)
        other = ProcessMemory(self.image, self._holder, ignore_protections=True)
        other.holding = self.holding
        return other

    @contextmanager
    def held(self) -> Generator[Callable[[], bool] | None]:
        """Holds the target still, if it was attached to; see `UserMemory.held`."""
        hold = None if self.holding is None else self.holding()
        if hold is None or self._holder is None:
            yield self.lasting()
            return
        with hold():
            # A hold that was over at once is one that does not last, not none.
            yield self.lasting() or (lambda: False)

    def lasting(self) -> Callable[[], bool] | None:
        """Returns a function that says whether the hold of now lasts; None if there is none."""
        pages = self.image.pages
        return pages.lasts if pages is not None and pages.lasts() else None

    # Reading

    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes of the target to our own memory; see `Memory.read`."""
        done = self._calls.read(address, own_address, n) if self.image.by_calls else 0
        if done != n:
            self._read_on(address, own_address, n, max(done, 0))

    def _read_on(self, address: int, own_address: int, n: int, done: int) -> None:
        """Goes on after a call that moved less than all, or raises what stopped it."""
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
                # That byte can be read, so it is our own buffer, or the target
                # has just made it readable.
                if self._calls.own_faults(to):
                    raise self._own_fault(to, done)
            elif got == 0 and code == errno.EFAULT:
                if self._forced:
                    return self._read_by_mem(address, own_address, n, done)
                raise self.fault(at, "read", done)
            elif code not in REFUSALS and code not in TRANSIENT and code not in _EXPECTED:
                raise errno_error(
                    code, f"reading process {image.pid}", pid=image.pid, copied_len=done
                )
            else:
                image.verify(done, refused=code in REFUSALS)
            if tries > _TRIES:
                raise errno_error(
                    code or errno.EAGAIN,
                    f"reading process {image.pid}, {tries} times",
                    pid=image.pid,
                    copied_len=done,
                )
        return None

    def _read_by_mem(self, address: int, own_address: int, n: int, done: int) -> None:
        image = self.image
        image.prove_if_due(done)
        got, code = image.open_files(done).read(
            address + done, own_address + done, n - done, self._to_read
        )
        if image.shared:
            try:
                image.prove(done)
            except BaseException:
                # Not known to be of the process that was opened, so not the caller's to have.
                fill_zeros(own_address + done, got)
                raise
        self._settle(code, "read", address, own_address, done + got)

    def readv(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Reads ranges of the target into one run of our own bytes; see `Memory.readv`."""
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
                    # The call stopped here: a read of its own finds out why.
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
        # The call stopped somewhere: a read of its own finds out why.
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

    def regions(self) -> list[Region]:
        """Returns what is mapped; see `UserMemory.regions`."""
        return [Region(*entry[:3]) for entry in self.image.entries()]

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        """Yields what a range holds, without reading it; see `UserMemory.layout`."""
        return layout_of(self.image, start, end, self._to_read)

    def hole(self, address: int, copied_len: int) -> ProcvmError:
        """Returns the error of a byte that the layout leaves out."""
        try:
            vma = vma_at(self.image.open_files().maps.number, address)
        except OSError:
            vma = None
        if vma is None or vma.flags & self._to_read != self._to_read:
            return self.fault(address, "read", copied_len)
        self.image.verify(copied_len)
        return PageFaultError(
            f"process {self.image.pid} has shared memory at {address:#x} of which it never used "
            "this page, and whether another process did cannot be seen without "
            "CAP_CHECKPOINT_RESTORE",
            address=address,
            pid=self.image.pid,
            copied_len=copied_len,
            hint=Hint("read_bytes"),
        )

    def loader(self, pod: Pod[T]) -> Callable[[int], T]:
        """Returns a reader of one value with its call prepared."""
        if not pod.code or not self.image.by_calls:
            return super().loader(pod)
        return self._calls.loader(pod, super().loader(pod))

    # Writing

    def write(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` own bytes to the target; see `Memory.write`."""
        image = self.image
        pages, change = image.pages, None
        if pages is not None and not pages.lasts():
            # Of a hold that is over: what is written does not concern it any more.
            if image.pages is pages:
                image.pages = None
            pages = None
        try:
            if pages is not None:
                change = pages.begin_change(address, n)
            done, code = self._write(address, own_address, n)
        finally:
            if pages is not None and change is not None:
                pages.end_change(change)
        if image.pages is not None and image.pages is not pages:
            image.pages.drop(address, n)
        self._settle(code, "write", address, own_address, done)

    def _write(self, address: int, own_address: int, n: int) -> tuple[int, int]:
        image = self.image
        files = image.open_files()
        # Before, as what is written cannot be taken back.
        image.prove_if_due()
        if image.pinned and not self._forced:
            return self._write_by_calls(address, own_address, n)
        if files.writable:
            return files.write(address, own_address, n, self._to_write)
        raise AccessDeniedError(
            f"/proc is mounted read-only, so process {image.pid} can not be written: by its "
            "number alone a write could reach a program that it has just become; mount a "
            "writable /proc",
            pid=image.pid,
            errno=errno.EROFS,
        )

    def _write_by_calls(self, address: int, own_address: int, n: int) -> tuple[int, int]:
        done = tries = 0
        while done < n:
            got, code = self._calls.write(address + done, own_address + done, n - done)
            if code == errno.EFAULT:
                # As procmem has it: EFAULT is our own buffer, EIO the target's.
                own = self._calls.own_faults(own_address + done)
                return done, errno.EFAULT if own else errno.EIO
            if code in TRANSIENT and tries < _TRIES:
                tries += 1
                continue
            if code:
                return done, code
            done += got
        return done, 0

    def storer(self, pod: Pod[T]) -> Callable[[int, T], None]:
        """Returns a writer of one value, short where all goes well."""
        image = self.image
        size = pod.size
        to_bytes = pod.to_bytes
        slow = self.write
        files = image.open_files()
        mem, maps = files.mem.number, files.maps.number
        prepared = prepared_query(maps, self._to_write)
        if prepared is None:
            return super().storer(pod)
        words, query = prepared
        now, ioctl, pwrite = time.monotonic, fcntl.ioctl, os.pwrite

        def store(address: int, value: T) -> None:
            data = to_bytes(value)
            held = image.in_use  # the descriptors stay ours meanwhile
            if image.proof_due > now() and image.pages is None and held is not None:
                words[_ADDRESS] = address
                try:
                    ioctl(maps, QUERY, query)
                    if (
                        # A signal handler that used this meanwhile left its own address.
                        words[_ADDRESS] == address
                        and words[_END] - address >= size
                        and pwrite(mem, data, address) == size
                        # What is kept of a hold that began meanwhile may be older.
                        and image.pages is None
                    ):
                        return
                except OSError:
                    pass  # the complete write finds out why
            held = None  # the frames of an error that is kept would keep them open
            # `data` is alive until the write is done.
            slow(address, address_of_bytes(data), size)

        return store

    # What a failure means

    def _settle(self, code: int, verb: str, address: int, own_address: int, done: int) -> None:
        """Raises what an errno of `procmem` means; 0 means that all went well."""
        if code == 0:
            return
        image = self.image
        if code == errno.EIO:
            raise self.fault(address + done, verb, done)
        if code == errno.EFAULT:
            raise self._own_fault(own_address + done, done)
        if code == errno.EBADF:
            image.open_files(done)  # closed by another thread meanwhile
        if code == errno.ESRCH:
            image.verify(done)
            raise VmError(
                f"{verb} of process {image.pid}: {os.strerror(code)} [ESRCH], though it lives",
                copied_len=done,
            )
        raise errno_error(code, f"{verb} of process {image.pid}", pid=image.pid, copied_len=done)

    def fault(self, address: int, verb: str, done: int = 0) -> ProcvmError:
        """Returns the error of a page that can not be accessed, if the program is still there."""
        # A page that faults and an address space that has just gone look alike.
        self.image.verify(done)
        self.image.prove(done)
        if self._forced:
            why, hint = "the address is not mapped, or not even a debugger may access it", None
        elif not self._is_mapped(address):
            why, hint = "the address is not mapped", Hint("maps", {"pid": self.image.pid})
        else:
            why = f"the process itself cannot {verb} there"
            hint = Hint("forced", {"pid": self.image.pid})
        return PageFaultError(
            f"cannot {verb} process {self.image.pid} at {address:#x}: {why}",
            address=address,
            pid=self.image.pid,
            copied_len=done,
            hint=hint,
        )

    def _is_mapped(self, address: int) -> bool:
        try:
            with self.image.open_files().maps.use() as maps:
                return vma_at(maps, address) is not None
        except OSError:
            return True  # not known; the mappings will tell

    def _own_fault(self, own_address: int, done: int) -> ProcvmError:
        return PageFaultError(
            f"the tool's own buffer faults at {own_address:#x}: is it a mapping of a file "
            "that was made shorter?",
            address=own_address,
            pid=os.getpid(),
            copied_len=done,
        )

    # Atomics

    def atomic_load(self, address: int, pod: PodAtomic[T]) -> T:
        """Loads by the processor where the memory is shared, under a hold where it is private."""
        return pod.from_bytes(self._atomic(Atomic(address, pod.size)))

    def atomic_compare_exchange(
        self, address: int, pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Exchanges by the processor where the memory is shared, else under a hold."""
        expected = pod.to_bytes(old)
        found = self._atomic(Atomic(address, pod.size, expected, pod.to_bytes(new)))
        return pod.from_bytes(found), found == expected

    def _atomic(self, what: Atomic) -> bytes:
        if self._holder is not None:
            found = self._holder.quick_atomic(what, forced=self._forced)
            if found is not None:
                return found
        if vma_of_atomic(self, what, vma_at).flags & SHARED:
            return on_shared(self, what)
        if self._holder is None:
            raise NotTracedError(
                f"process {self.image.pid} was opened without tracing, and an atomic on private "
                "memory needs its threads stopped",
                pid=self.image.pid,
                hint=Hint("attach"),
            )
        return self._holder.atomic(self, what)


def _unpickled(pickled: Pickled, forced: bool) -> ProcessMemory:
    return ProcessMemory.of_pickled(pickled, forced=forced)


_EXPECTED = frozenset({0, errno.EFAULT, errno.ESRCH})
