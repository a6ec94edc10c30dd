"""`Memory`: the interface through which cursors read and write memory of any kind.

A live process, the tool's own buffers, a device, and a test's fake with holes
are the same to a cursor. A new kind of memory implements `read` and `write`; it may
override the other methods with faster ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, NamedTuple, TypeVar

from procvm._base.pods import Pod, PodAtomic, PodOnce, usize
from procvm._local.buffers import Buffer, address_of, address_of_bytes
from procvm._mm.extent import Content, Extent
from procvm.errors import PageFaultError, ProcvmError, UnsupportedError

__all__ = ["Memory", "Region", "UserMemory"]

T = TypeVar("T")

_ZEROS_LEN = 1 << 18


class Region(NamedTuple):
    """A mapped range of a user space, with its permissions as in `Perms`."""

    start: int
    end: int
    flags: int


class Memory(ABC):
    """Bytes at addresses, which can be copied to and from local memory.

    An access either completes or raises an error whose `copied_len` says how
    many bytes, counted from `address`, did take effect.
    """

    is_own: ClassVar[bool] = False
    """Whether an address here is an address of the tool's own process."""

    bounds: tuple[int, int] | None = None
    """The range (address, length) outside which an access would crash the tool, or None."""

    @property
    @abstractmethod
    def domain(self) -> object:
        """An object that two memories share if the same address is the same byte in both."""

    @abstractmethod
    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes at `address` to the tool's own memory.

        Raises:
            PageFaultError: `copied_len` bytes did arrive.
        """

    def read_scratch(self, address: int, own_address: int, n: int) -> None:
        """Copies as `read` does, to local memory that cannot fault."""
        self.read(address, own_address, n)

    @abstractmethod
    def write(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes of the tool's own memory to `address`.

        Raises:
            PageFaultError: `copied_len` bytes were written.
        """

    def readv(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Reads (address, length) ranges in order into consecutive local bytes.

        Raises:
            PageFaultError: `copied_len` bytes of the whole did arrive.
        """
        _one_by_one(self.read, ranges, own_address)

    def readv_packed(self, words: memoryview, count: int, own_address: int) -> int:
        """Reads as `readv` does, up to the first fault, which raises no error here.

        Args:
            words: Unsigned words of 64 bits: two of room, which may be
                overwritten, and then (address, length) of each range.
            count: Ranges, at most 1,023 and 2 GiB together.
            own_address: Where their bytes go, one range after the other.

        Returns:
            Bytes that did arrive.
        """
        pairs = words[2 : 2 + 2 * count].tolist()
        try:
            self.readv(list(zip(pairs[::2], pairs[1::2], strict=True)), own_address)
        except PageFaultError as error:
            return error.copied_len
        return sum(pairs[1::2])

    def writev(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Writes consecutive local bytes to (address, length) ranges in order.

        Raises:
            PageFaultError: `copied_len` bytes of the whole were written.
        """
        _one_by_one(self.write, ranges, own_address)

    def fill_zeros(self, address: int, n: int) -> None:
        """Writes `n` zeros.

        Raises:
            PageFaultError: `copied_len` zeros were written.
        """
        zeros = bytes(min(n, _ZEROS_LEN))
        source = address_of_bytes(zeros)  # alive until this function returns
        done = 0
        while done < n:
            step = min(n - done, _ZEROS_LEN)
            try:
                self.write(address + done, source, step)
            except ProcvmError as error:
                error.copied_len += done
                raise
            done += step

    def loader(self, pod: Pod[T]) -> Callable[[int], T]:
        """Returns a function of an address that reads one value of `pod`.

        The function may keep scratch memory of its own: one thread at a time.
        """
        ctype = pod.ctype
        size = pod.size
        from_cell = pod.from_cell

        def load(address: int) -> T:
            cell = ctype()
            self.read_scratch(address, address_of(cell), size)
            return from_cell(cell)

        return load

    def storer(self, pod: Pod[T]) -> Callable[[int, T], None]:
        """Returns a function of an address and a value that writes the value."""
        to_bytes = pod.to_bytes
        size = pod.size

        def store(address: int, value: T) -> None:
            data = to_bytes(value)
            self.write(address, address_of_bytes(data), size)

        return store

    def load_once(self, address: int, pod: PodOnce[T]) -> T:
        """Loads one aligned value with a single load of its width."""
        raise UnsupportedError(f"{type(self).__name__} has no single loads")

    def store_once(self, address: int, pod: PodOnce[T], value: T) -> None:
        """Stores one aligned value with a single store of its width."""
        raise UnsupportedError(f"{type(self).__name__} has no single stores")

    def atomic_load(self, address: int, pod: PodAtomic[T]) -> T:
        """Loads one aligned value atomically."""
        raise UnsupportedError(f"{type(self).__name__} has no atomics")

    def atomic_compare_exchange(
        self, address: int, pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Stores `new` atomically if the value is `old`; returns (value before, stored or not)."""
        raise UnsupportedError(f"{type(self).__name__} has no atomics")


def _one_by_one(
    access: Callable[[int, int, int], None], ranges: Sequence[tuple[int, int]], own_address: int
) -> None:
    done = 0
    for address, n in ranges:
        try:
            access(address, own_address + done, n)
        except ProcvmError as error:
            error.copied_len += done
            raise
        done += n


class UserMemory(Memory):
    """The memory of a whole user space: of a live process, or of a saved one."""

    @property
    @abstractmethod
    def end(self) -> int:
        """One past the last address that user space can have."""

    @property
    def address_size(self) -> int:
        """The size of a pointer of the target, 4 or 8 bytes."""
        return usize.size

    @property
    def pid(self) -> int:
        """The pid of the process; 0 for a process that does not live."""
        return 0

    @property
    def is_forced(self) -> bool:
        """Whether page protections are ignored."""
        return False

    def read_buffer(self, address: int, buf: Buffer, n: int) -> int:
        """Begins to fill a writable buffer of `n` bytes the quick way, if the memory has one.

        Returns:
            Bytes that did arrive. The caller reads the rest with `read`, which raises what
            stopped this.
        """
        return 0

    def write_runs(
        self,
        address: int,
        data: memoryview,
        runs: Sequence[tuple[int, int]],
        lasts: Callable[[], bool] | None,
    ) -> int:
        """Begins to write many short runs the quick way; returns how many were written whole.

        The caller writes the rest by `write`, which raises the errors.

        Args:
            address: Where the first byte of `data` belongs.
            data: The bytes.
            runs: The parts of it to write, as (first, end), in order; at least one.
            lasts: Returns whether the hold lasts, after which nothing is written; None for none.
        """
        return 0

    @abstractmethod
    def forced(self) -> UserMemory:
        """Returns the same memory with page protections ignored."""

    def regions(self) -> list[Region] | None:
        """Returns the mapped ranges, sorted and disjoint; None if they are not known."""
        return None

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        """Yields extents that cover a range in order, without reading the memory.

        `procvm._space.walk` reads by it. Without the layout, a walk would read pages that were
        never touched, the kernel would allocate them in the target, and a target in a small
        memory cgroup would be killed. By default the whole range is data.
        """
        if start < end:
            yield Extent(start, end, Content.DATA)

    def hole(self, address: int, copied_len: int) -> ProcvmError:
        """Returns the error of a byte that the layout leaves out."""
        return PageFaultError(
            f"cannot read at {address:#x}: the address is not mapped",
            address=address,
            pid=self.pid,
            copied_len=copied_len,
        )

    def lasting(self) -> Callable[[], bool] | None:
        """Returns a function that tells whether the present hold lasts; None without a hold."""
        return None

    @contextmanager
    def held(self) -> Generator[Callable[[], bool] | None]:
        """Context manager that stops the target if its owner can; a no-op otherwise.

        Gives a function that says whether the hold lasts, or None where nothing is held.
        """
        yield None
