"""What the cursors know of memory: read into ours, write from ours, or fail exactly.

A live process, the tool's own buffers, a device, and a test's fake with holes
are the same to a cursor. Whoever adds a kind of memory implements `read` and
`write`; the rest follows, and may be replaced by something faster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, NamedTuple, TypeVar

from procvm._base.pods import Pod, PodAtomic, PodOnce, usize
from procvm._local.buffers import address_of, address_of_bytes
from procvm._mm.extent import Content, Extent
from procvm.errors import PageFaultError, ProcvmError, UnsupportedError

__all__ = ["Memory", "Region", "UserMemory"]

T = TypeVar("T")

_ZEROS_LEN = 1 << 18


class Region(NamedTuple):
    """A range of a user space and what it allows, as numbers of `Perms`."""

    start: int
    end: int
    flags: int


class Memory(ABC):
    """Bytes at addresses, which the tool's own memory can be filled from.

    An access either completes or raises an error whose `copied_len` says how
    many bytes, counted from `address`, did take effect.
    """

    is_own: ClassVar[bool] = False
    """Whether an address here is an address of the tool's own process."""

    bounds: tuple[int, int] | None = None
    """The address and length outside of which an access would crash the tool, or None."""

    @property
    @abstractmethod
    def domain(self) -> object:
        """What two memories share when the same address means the same byte."""

    @abstractmethod
    def read(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes at `address` to the tool's own memory.

        Raises:
            PageFaultError: `copied_len` bytes did arrive.
        """

    def read_scratch(self, address: int, own_address: int, n: int) -> None:
        """Copies as `read` does, to memory of our own making, which does not fault."""
        self.read(address, own_address, n)

    @abstractmethod
    def write(self, address: int, own_address: int, n: int) -> None:
        """Copies `n` bytes of the tool's own memory to `address`.

        Raises:
            PageFaultError: `copied_len` bytes were written.
        """

    def readv(self, ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        """Reads (address, length) ranges one after the other into one run of our own bytes.

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
        """Writes one run of our own bytes to (address, length) ranges one after the other.

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
        # A number is unwrapped; a value of a ctypes type is given out as it is.
        bare = bool(pod.code)

        def load(address: int) -> T:
            cell = ctype()
            self.read_scratch(address, address_of(cell), size)
            value: T = cell.value if bare else cell
            return value

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
        """Stores `new` if `old` is there, atomically; returns what was there and whether it did."""
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
    """The memory of a whole user space: that of a live process, or an image of one."""

    @property
    @abstractmethod
    def end(self) -> int:
        """One past the last address that user space can have."""

    @property
    def address_size(self) -> int:
        """The bytes of a pointer there, 4 or 8."""
        return usize.size

    @property
    def pid(self) -> int:
        """The process it is of; 0 if that does not live."""
        return 0

    @property
    def is_forced(self) -> bool:
        """Whether page protections are ignored."""
        return False

    @abstractmethod
    def forced(self) -> UserMemory:
        """Returns the same memory with page protections ignored."""

    def regions(self) -> list[Region] | None:
        """Returns what is mapped, sorted and disjoint; None if that is not known."""
        return None

    def layout(self, start: int, end: int) -> Iterator[Extent]:
        """Yields what a range holds, without reading it: extents that cover it, in order.

        Whoever reads much goes by it (`procvm._space.walk`): a read of a page that exists
        nowhere would allocate it in the target, which in a small memory cgroup is killed
        for that. The default is that all of it is data.
        """
        if start < end:
            yield Extent(start, end, Content.DATA)

    def hole(self, address: int, copied_len: int) -> ProcvmError:
        """Returns the error of a byte that the layout leaves out."""
        return PageFaultError(
            f"nothing can be read at {address:#x}",
            address=address,
            pid=self.pid,
            copied_len=copied_len,
        )

    def lasting(self) -> Callable[[], bool] | None:
        """Returns a function that says whether the hold of now lasts; None if there is none."""
        return None

    @contextmanager
    def held(self) -> Generator[Callable[[], bool] | None]:
        """Holds the target still while the ``with`` lasts, where its owner can.

        Gives a function that says whether the hold lasts, or None where nothing is held.
        """
        yield None
