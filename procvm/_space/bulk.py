"""`Bulk`: arrays, many addresses at once, streams and files over a target's memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from procvm._base.optional import required
from procvm._base.pods import Pod
from procvm._space.access import Access
from procvm._space.element import element_of, new_array
from procvm._space.file import VmFile
from procvm._space.gather import gather
from procvm._space.ranges import Range, pairs_of
from procvm._space.scatter import scatter
from procvm._space.stream import copy_to

if TYPE_CHECKING:
    import ctypes

    from procvm._space.arrays import Addresses, Array, ArrayLike, DTypeLike, Truths

__all__ = ["BinaryFile", "Bulk"]

S = TypeVar("S", bound="ctypes.Structure | ctypes.Union")


class BinaryFile(Protocol):
    """A binary file that is open for writing."""

    def write(self, data: memoryview, /) -> int | None:
        """Writes bytes; returns how many were taken, None for all of them."""
        raise NotImplementedError


class Bulk(Access):
    """Moves many values or many bytes with few system calls."""

    def read_array(
        self, vaddr: int, dtype: Pod[Any] | type[S] | DTypeLike, shape: int | Iterable[int]
    ) -> Array:
        """Returns a new numpy array of the values at `vaddr`, in C order.

        Args:
            vaddr: The address of the first value.
            dtype: A pod, a ctypes type, or a numpy dtype, structured ones too.
            shape: A count, or a tuple of counts.

        Raises:
            PageFaultError: Only `copied_len` bytes could be read; they are dropped.
            UnsupportedError: numpy is not installed.
        """
        np = required("numpy", "read_array")
        array: Array = new_array(np, dtype, shape)
        vaddr, n = self._check(vaddr, array.nbytes)
        if n:
            # SAFETY: `array` is alive until the read is done.
            self._memory.read(vaddr, int(array.ctypes.data), n)
        return array

    def write_array(self, vaddr: int, array: ArrayLike) -> None:
        """Writes the values of a numpy array at `vaddr`, in C order.

        Raises:
            PageFaultError: `copied_len` bytes were written.
            UnsupportedError: numpy is not installed.
        """
        np = required("numpy", "write_array")
        plain = np.ascontiguousarray(array)
        element_of(plain.dtype)  # refuses pointers of this process
        vaddr, n = self._check(vaddr, plain.nbytes)
        if n:
            # SAFETY: `plain` is alive until the write is done.
            self._memory.write(vaddr, int(plain.ctypes.data), n)

    @overload
    def gather(
        self, addresses: Addresses, kind: type[S], faults: Literal["raise"] = "raise"
    ) -> list[S]: ...
    @overload
    def gather(
        self, addresses: Addresses, kind: type[S], faults: Literal["mask"]
    ) -> tuple[list[S], Truths]: ...
    @overload
    def gather(
        self,
        addresses: Addresses,
        kind: Pod[Any] | DTypeLike,
        faults: Literal["raise"] = "raise",
    ) -> Array: ...
    @overload
    def gather(
        self, addresses: Addresses, kind: Pod[Any] | DTypeLike, faults: Literal["mask"]
    ) -> tuple[Array, Truths]: ...
    def gather(self, addresses: Any, kind: Any, faults: Literal["raise", "mask"] = "raise") -> Any:
        """Returns the values at many addresses, in their order, with few system calls.

        Args:
            addresses: An iterable or an array of addresses; they may repeat and overlap, in
                any order.
            kind: A pod, a ctypes type, or a numpy dtype, structured ones too.
            faults: ``"raise"``, or ``"mask"`` to go on after values that cannot be read.

        Returns:
            An array of that dtype and the addresses' shape; a list without numpy and for
            ctypes structures. With ``"mask"`` a pair: the values, with zeros where `ok` is
            false, and `ok`, an array (or list) of truth values.

        Raises:
            PageFaultError: A value could not be read: `index` is the first such value,
                `address` its first bad byte, and `copied_len` counts the bytes of all values
                before it, which are dropped.
            AddressOverflowError: An address does not fit 64 bits.
        """
        return gather(self._memory, addresses, kind, faults)

    @overload
    def scatter(
        self,
        addresses: Addresses,
        kind: Pod[Any] | type[S] | DTypeLike,
        values: Iterable[object],
        faults: Literal["raise"] = "raise",
    ) -> None: ...
    @overload
    def scatter(
        self,
        addresses: Addresses,
        kind: Pod[Any] | type[S] | DTypeLike,
        values: Iterable[object],
        faults: Literal["mask"],
    ) -> Truths: ...
    def scatter(
        self,
        addresses: Any,
        kind: Any,
        values: Any,
        faults: Literal["raise", "mask"] = "raise",
    ) -> Any:
        """Writes one value at each of many addresses, in their order.

        Args:
            addresses: As `gather` takes them. Where two values overlap the later one wins.
            kind: As `gather` takes it.
            values: One value for each address; a number that does not fit is refused before
                anything is written.
            faults: ``"raise"``, or ``"mask"`` to go on after values that cannot be written.

        Returns:
            None; with ``"mask"`` an array (or list) of truth values: false where the value was
            not written, or only up to the edge of a page.

        Raises:
            PageFaultError: A value could not be written: `index` says which one, and
                `copied_len` how many bytes of `values` were written.
            InvalidArgsError: There are more values than addresses, or fewer.
        """
        return scatter(self._memory, addresses, kind, values, faults)

    def copy_to(
        self,
        dest: str | bytes | os.PathLike[str] | os.PathLike[bytes] | BinaryFile,
        ranges: Iterable[Range],
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Streams ranges of the target to a file, one after the other, in constant memory.

        Args:
            dest: A path, where a new file of mode 0600 appears at the end, whole or not at
                all; or a binary file that is open for writing.
            ranges: As `search` takes them; they are written in the order given.
            progress: Called with (bytes done, bytes in all).

        Returns:
            The number of bytes written.

        Raises:
            PageFaultError: `copied_len` bytes were written, those before the page that could
                not be read; a path is left as it was.
            OSError: The file could not be written.
        """
        pairs = pairs_of(ranges)
        for start, end in pairs:
            self._in_user_space(start, end - start)
        return copy_to(self._memory, dest, pairs, progress)

    def open(self, start: int, end: int) -> VmFile:
        """Returns the range from `start` up to `end`, exclusive, as a binary file.

        Raises:
            AccessDeniedError: The range leaves user space.
            ValueError: The range ends before it starts.
        """
        ((start, end),) = pairs_of([(start, end)])
        self._in_user_space(start, end - start)
        return VmFile(self._memory, start, end)
