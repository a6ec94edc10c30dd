"""`VmSpace`: a target's address space."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from procvm._base.address import as_count, as_len, check_range, page_end
from procvm._base.markers import Fallible
from procvm._base.optional import required
from procvm._base.perms import Perms
from procvm._base.pods import C, Pod, PodAtomic, PodLike, atomic_pod, pod_of, require_aligned
from procvm._local.buffers import Buffer, address_of, refuse_pointers, writable_cell
from procvm._mm.cursor import require_reader, require_writer
from procvm._mm.io import VmIo, VmIoFill
from procvm._mm.local import OwnMemory
from procvm._mm.memory import UserMemory
from procvm._mm.reader import VmReader, bytes_by
from procvm._mm.writer import VmWriter
from procvm._space.element import element_of, new_array
from procvm._space.file import VmFile
from procvm._space.gather import gather, scatter
from procvm._space.patterns import NOTHING, needle_of
from procvm._space.pieces import CHUNK_LEN, nr_threads, tasks_of
from procvm._space.ranges import pairs_of, ranges_by_perms, ranges_of
from procvm._space.scan import Scan
from procvm._space.search import Search
from procvm._space.stream import copy_to, read_by_threads
from procvm._space.texts import Text, bytes_of_text, strings_in
from procvm._space.view import is_overlay, view_of_kind
from procvm.errors import (
    AccessDeniedError,
    Hint,
    InvalidArgsError,
    ProcvmError,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["VmSpace"]

T = TypeVar("T")


class _Accesses(threading.local):
    """Prepared accesses by pod; their scratch memory serves one thread only."""

    def __init__(self) -> None:
        self.loads: dict[Any, tuple[Callable[[int], Any], int]] = {}
        self.stores: dict[Any, tuple[Callable[[int, Any], None], int]] = {}


class VmSpace(VmIo, VmIoFill):
    """The address space of a process; an offset is an address of the target.

    An access faults exactly where the target's own access would; `forced` gives
    the space as a debugger sees it. The target runs meanwhile and may change
    bytes under an access: a copy is not atomic. Several threads may use one
    space.

    Source:
        OSTD ``VmSpace``.
    """

    def __init__(self, memory: UserMemory) -> None:
        if not isinstance(cast(object, memory), UserMemory):
            raise TypeError(
                f"a VmSpace is the vm of procvm.open(pid), not made of a {type(memory).__name__}"
            )
        self._memory = memory
        self._end = memory.end
        self._accesses = _Accesses()

    def __repr__(self) -> str:
        return f"<VmSpace of {self._memory!r}>"

    @property
    def memory(self) -> UserMemory:
        """The memory behind it."""
        return self._memory

    @property
    def end(self) -> int:
        """One past the last address that user space can have."""
        return self._end

    @property
    def address_size(self) -> int:
        """The bytes of the target's pointers: 4 for a 32-bit program, else 8."""
        return self._memory.address_size

    def forced(self) -> VmSpace:
        """Returns the same space with page protections ignored.

        What may not be read is read, and what may not be written is written: a
        private mapping by copy-on-write, so that a file on disk never changes.
        Shared read-only memory still faults.

        Source:
            proc_pid_mem(5).
        """
        return VmSpace(self._memory.forced())

    def _check(self, vaddr: object, n: object) -> tuple[int, int]:
        if type(vaddr) is int and type(n) is int and 0 <= vaddr <= vaddr + n <= self._end:
            return vaddr, n
        start, length = check_range(vaddr, n)
        # Nothing is read or written where there is nothing to: that is fine anywhere.
        return (start, length) if length == 0 else self._in_user_space(start, length)

    def _in_user_space(self, start: int, length: int) -> tuple[int, int]:
        if start + length > self._end:
            raise AccessDeniedError(
                f"[{start:#x}, {start + length:#x}) leaves user space, which ends at "
                f"{self._end:#x}; give a range below it",
                errno=14,
            )
        return start, length

    def reader(self, vaddr: int, n: int) -> VmReader[Fallible]:
        """Returns a reader of `n` bytes at `vaddr`; nothing is touched yet.

        Raises:
            AccessDeniedError: The range leaves user space.

        Source:
            OSTD ``VmSpace::reader``.
        """
        if not (type(vaddr) is int and type(n) is int and 0 <= vaddr <= vaddr + n <= self._end):
            vaddr, n = self._in_user_space(*check_range(vaddr, n))
        return VmReader(self._memory, vaddr, n, Fallible)

    def writer(self, vaddr: int, n: int) -> VmWriter[Fallible]:
        """Returns a writer of `n` bytes at `vaddr`; nothing is touched yet.

        Raises:
            AccessDeniedError: The range leaves user space.

        Source:
            OSTD ``VmSpace::writer``.
        """
        if not (type(vaddr) is int and type(n) is int and 0 <= vaddr <= vaddr + n <= self._end):
            vaddr, n = self._in_user_space(*check_range(vaddr, n))
        return VmWriter(self._memory, vaddr, n, Fallible)

    def reader_writer(self, vaddr: int, n: int) -> tuple[VmReader[Fallible], VmWriter[Fallible]]:
        """Returns a reader and a writer of the same range, as atomics take them.

        Raises:
            AccessDeniedError: The range leaves user space.

        Source:
            OSTD ``VmSpace::reader_writer``.
        """
        return self.reader(vaddr, n), self.writer(vaddr, n)

    def read(self, offset: int, writer: VmWriter[Any]) -> None:
        """Fills all of `writer` from the target; see `VmIo.read`."""
        require_writer(writer, "read", "read_bytes(address, n) or read_into(address, buffer)")
        self.reader(offset, writer.avail()).copy_to(writer)

    def write(self, offset: int, reader: VmReader[Any]) -> None:
        """Writes all of `reader` to the target; see `VmIo.write`."""
        require_reader(reader, "write", "write_bytes(address, data)")
        reader.copy_to(self.writer(offset, reader.remain()))

    def read_bytes(self, offset: int, n: int, *, threads: int = 1) -> bytes:
        """Returns the `n` bytes at an address; see `VmIo.read_bytes`.

        Args:
            offset: The address.
            n: Bytes.
            threads: Parts that are read at a time; more than one is of use for
                many megabytes and on several processors.
        """
        offset, n = self._check(offset, n)
        # SAFETY: bytes_by keeps the `n` bytes at `address` alive meanwhile.
        if threads == 1:
            return bytes_by(n, lambda address: self._memory.read_scratch(offset, address, n))
        return bytes_by(n, lambda address: self._read(offset, address, n, threads))

    def _read(self, offset: int, own_address: int, n: int, threads: int) -> None:
        read_by_threads(self._memory, offset, own_address, n, as_len(threads, "threads"))

    def read_into(self, offset: int, buf: Buffer, *, threads: int = 1) -> None:
        """Fills the caller's buffer from the target; see `VmIo.read_into`.

        Args:
            offset: The address.
            buf: A writable buffer; after a fault the first `copied_len` bytes of it
                are the target's, and with several threads others may be.
            threads: As in `read_bytes`.
        """
        if type(buf) is bytearray:
            n = len(buf)
        else:
            view = memoryview(buf)
            refuse_pointers(view)
            n = view.nbytes
        if type(offset) is not int or not 0 <= offset <= self._end - n:
            offset, n = self._check(offset, n)
        if n:
            # It holds the buffer in place, and refuses one that can not be written.
            cell = writable_cell(buf)
            # SAFETY: `cell` stands at the first of the buffer's `n` bytes and
            # keeps them alive until the read is done.
            if threads == 1:
                self._memory.read(offset, address_of(cell), n)
            else:
                self._read(offset, address_of(cell), n, threads)

    def write_bytes(self, offset: int, data: Buffer) -> None:
        """Writes all bytes of `data` to the target; see `VmIo.write_bytes`."""
        source = OwnMemory.of_buffer(data, writable=False)
        offset, n = self._check(offset, source.n)
        if n:
            self._memory.write(offset, source.address, n)

    @overload
    def read_val(self, offset: int, pod: Pod[T]) -> T: ...
    @overload
    def read_val(self, offset: int, pod: type[C]) -> C: ...
    def read_val(self, offset: int, pod: PodLike[Any]) -> Any:
        """Returns the value at an address; see `VmIo.read_val`."""
        loads = self._accesses.loads
        try:
            load, size = loads[pod]
        except (KeyError, TypeError):
            plain = pod_of(pod)
            load, size = loads[pod] = self._memory.loader(plain), plain.size
        if type(offset) is not int or not 0 <= offset <= self._end - size:
            offset, _ = self._check(offset, size)
        return load(offset)

    @overload
    def write_val(self, offset: int, pod: Pod[T], value: T) -> None: ...
    @overload
    def write_val(self, offset: int, pod: type[C], value: C) -> None: ...
    def write_val(self, offset: int, pod: PodLike[Any], value: Any) -> None:
        """Writes one value at an address; see `VmIo.write_val`."""
        stores = self._accesses.stores
        try:
            store, size = stores[pod]
        except (KeyError, TypeError):
            plain = pod_of(pod)
            store, size = stores[pod] = self._memory.storer(plain), plain.size
        if type(offset) is not int or not 0 <= offset <= self._end - size:
            offset, _ = self._check(offset, size)
        store(offset, value)

    def fill_zeros(self, offset: int, n: int) -> None:
        """Writes `n` zeros to the target.

        Raises:
            AccessDeniedError: The range leaves user space; nothing was touched.
            PageFaultError: `copied_len` zeros were written.
        """
        offset, n = self._check(offset, n)
        if n:
            self._memory.fill_zeros(offset, n)

    def read_array(self, vaddr: int, dtype: Any, shape: Any) -> Any:
        """Returns a new numpy array of what stands at `vaddr`, in C order.

        Args:
            vaddr: Where the first value stands.
            dtype: A pod, a ctypes type, or a numpy dtype, structured ones too.
            shape: A count, or a tuple of them.

        Raises:
            PageFaultError: `copied_len` bytes could be read; they are dropped.
            UnsupportedError: numpy is not installed.
        """
        np = required("numpy", "read_array")
        array = new_array(np, dtype, shape)
        vaddr, n = self._check(vaddr, array.nbytes)
        if n:
            # SAFETY: `array` is alive until the read is done.
            self._memory.read(vaddr, int(array.ctypes.data), n)
        return array

    def write_array(self, vaddr: int, array: Any) -> None:
        """Writes the values of a numpy array at `vaddr`, in C order.

        Raises:
            PageFaultError: `copied_len` bytes were written.
            UnsupportedError: numpy is not installed.
        """
        np = required("numpy", "write_array")
        plain = np.ascontiguousarray(array)
        element_of(plain.dtype)  # no pointers of ours leave for a target
        vaddr, n = self._check(vaddr, plain.nbytes)
        if n:
            # SAFETY: `plain` is alive until the write is done.
            self._memory.write(vaddr, int(plain.ctypes.data), n)

    def gather(self, addresses: Any, kind: Any, faults: Literal["raise", "mask"] = "raise") -> Any:
        """Returns the values at many addresses, in their order, with few system calls.

        Args:
            addresses: Any iterable of addresses, or an array of them; they may
                repeat and overlap, in any order.
            kind: A pod, a ctypes type, or a numpy dtype, structured ones too.
            faults: ``"raise"``, or ``"mask"`` to go on behind what can not be read.

        Returns:
            An array of that dtype and the addresses' shape; a list without numpy
            and for ctypes structures. With ``"mask"`` a pair: these, with zeros
            where `ok` is false, and `ok`, an array (or list) of truth values.

        Raises:
            PageFaultError: A value could not be read: `index` is the first such,
                `address` its first bad byte, and `copied_len` the bytes of all
                before it, which are dropped.
            AddressOverflowError: An address is not one of 64 bits.
        """
        return gather(self._memory, addresses, kind, faults)

    def scatter(
        self,
        addresses: Any,
        kind: Any,
        values: Any,
        faults: Literal["raise", "mask"] = "raise",
    ) -> Any:
        """Writes one value at each of many addresses, in their order.

        Args:
            addresses: As `gather` takes them. Where two overlap the later one wins.
            kind: As `gather` takes it.
            values: As many values; a number that does not fit is refused before
                anything is written.
            faults: ``"raise"``, or ``"mask"`` to go on behind what can not be written.

        Returns:
            None; with ``"mask"`` an array (or list) of truth values: where it is
            false the value was not written, or not beyond the edge of a page.

        Raises:
            PageFaultError: A value could not be written: `index` says which, and
                `copied_len` how many bytes of `values` were.
            InvalidArgsError: Not as many values as addresses.
        """
        return scatter(self._memory, addresses, kind, values, faults)

    def search(
        self,
        what: Any = NOTHING,
        *,
        value: Any = NOTHING,
        text: str | None = None,
        encoding: str | None = None,
        ranges: Iterable[Any] | None = None,
        perms: str | Perms = "r",
        align: int = 1,
        threads: int | None = None,
        executor: Executor | None = None,
        max_len: int = 4096,
        progress: Callable[[int, int], object] | None = None,
    ) -> Search:
        """Finds every place at which something stands, in order, as they are asked for.

        Overlapping hits are all found, but for those of an expression: they are `Hit`s with
        an `end`, and what `re.finditer` gives of each range, as long as no match is longer
        than `max_len`; one that is comes in parts. What can not be read is stepped over
        and kept in the result's `skipped`. The target runs meanwhile.

        Args:
            what: Bytes; a pattern such as ``"48 8B ?? ?F"``, of hexadecimal digits
                and ``?`` for any; a compiled expression of bytes; a pod or numpy
                dtype, with `value`; rules of yara_x; or a list of these, whose
                hits say by `needle` which one it was.
            value: A number; a range; a pair (lowest, highest); or a predicate that
                takes an array of values and returns which ones are meant.
            text: A text to look for, instead of `what`.
            encoding: How the target keeps the text: ``"utf-16-le"``; utf-8 if not given.
            ranges: Where to look: mappings, range objects, or pairs (start, end).
            perms: Without `ranges`: what a mapping must allow, as `Maps.filter`.
            align: Only multiples of it.
            threads: Pieces that are searched at a time; one for each processor.
            executor: Who runs the pieces, instead of threads of our own: any of
                concurrent.futures, processes of this machine too.
            max_len: The longest match of an expression or a rule.
            progress: Is called with (bytes done, bytes in all).

        Raises:
            TypeError: Nothing that can be looked for.
            ValueError: It stands everywhere; or a range ends before it starts.
            OverflowError: A value that the type can not hold.
            UnsupportedError: A package is not installed, which the message names.
        """
        align = as_count(align, "align")
        what = _what_of(what, value, text, encoding)
        needle = needle_of(what, value, align, as_count(max_len, "max_len"))
        where = self.ranges(ranges, perms)
        total = sum(end - start for start, end in where)
        return Search(
            tasks_of(self._memory, needle, where, CHUNK_LEN),
            total=total,
            threads=nr_threads(threads, executor, total),
            executor=executor,
            progress=progress,
        )

    def strings(
        self,
        *,
        ranges: Iterable[Any] | None = None,
        perms: str | Perms = "r",
        encoding: str = "ascii",
        min_len: int = 6,
        threads: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Iterator[Text]:
        """Finds the texts in memory, in order, as they are asked for.

        A text is a run of printable characters; one of more than 64 KiB comes in parts.
        In utf-16 and utf-32 these are the letters of Latin, Greek, Cyrillic, Hebrew and
        Arabic, digits and signs: with ideograms most of memory would be text. `search`
        with `text` finds a text of any characters.

        Args:
            ranges: As `search` takes them.
            perms: Without `ranges`: what a mapping must allow.
            encoding: ascii, utf-8, latin-1, utf-16-le, utf-16-be, utf-32-le or utf-32-be.
            min_len: Characters that a text has at least.
            threads: Pieces that are searched at a time; one for each processor.
            progress: Is called with (bytes done, bytes in all).

        Raises:
            ValueError: Another encoding.
        """

        def search(what: re.Pattern[bytes], max_len: int) -> Search:
            return self.search(
                what,
                ranges=ranges,
                perms=perms,
                max_len=max_len,
                threads=threads,
                progress=progress,
            )

        return strings_in(self, encoding, min_len, search)

    def scan(
        self,
        what: Any,
        *,
        value: Any = NOTHING,
        ranges: Iterable[Any] | None = None,
        perms: str | Perms = "rw",
        align: int | None = None,
        threads: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Scan:
        """Finds every place that may hold a value, to be narrowed down by `Scan.refine`.

        Args:
            what: A pod or a numpy dtype.
            value: As `search` takes it; without it every place is a candidate.
            ranges: As `search` takes them.
            perms: Without `ranges`: what a mapping must allow.
            align: Only multiples of it; the value's size if it is not given.
            threads: Pieces that are looked at at a time; one for each processor.
            progress: Is called with (bytes done, bytes in all).

        Raises:
            TypeError: Not a number.
            UnsupportedError: numpy is not installed.
        """
        element = element_of(what)
        step = element.size if align is None else as_count(align, "align")
        return Scan(
            self._memory,
            element,
            value,
            self.ranges(ranges, perms),
            align=step,
            threads=threads,
            progress=progress,
        )

    def copy_to(
        self,
        dest: Any,
        ranges: Iterable[Any],
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Streams ranges of the target to a file, one behind the other, in constant memory.

        Args:
            dest: A path, where a new file of mode 0600 is in place at the end, whole
                or not at all; or a binary file that is open for writing.
            ranges: As `search` takes them; in the order given.
            progress: Is called with (bytes done, bytes in all).

        Returns:
            Bytes written.

        Raises:
            PageFaultError: `copied_len` bytes were written, those before the page
                that could not be read; of a path nothing is left.
            OSError: The file's own.
        """
        pairs = pairs_of(ranges)
        for start, end in pairs:
            self._in_user_space(start, end - start)
        return copy_to(self._memory, dest, pairs, progress)

    def open(self, start: int, end: int) -> VmFile:
        """Returns a range as a binary file, for whatever reads and writes files.

        Raises:
            AccessDeniedError: The range leaves user space.
            ValueError: It ends before it starts.
        """
        ((start, end),) = pairs_of([(start, end)])
        self._in_user_space(start, end - start)
        return VmFile(self._memory, start, end)

    def view(self, vaddr: int, kind: Any) -> Any:
        """Returns a live view of a ctypes structure or array at `vaddr`; nothing is touched yet.

        An attribute of it is read, or written, when it is named, and nothing else is.

        Raises:
            AccessDeniedError: The range leaves user space.
            TypeError: Not a structure, union or array of plain data.
        """
        pod = pod_of(kind)
        if not is_overlay(pod.ctype):
            raise TypeError(f"{pod.name} has no fields; read_val reads it")
        vaddr, _ = self._check(vaddr, pod.size)
        return view_of_kind(self, vaddr, pod)

    def ranges(self, ranges: Iterable[Any] | None, perms: str | Perms) -> list[tuple[int, int]]:
        """Returns where to look, as sorted and disjoint (start, end) pairs.

        Args:
            ranges: As `search` takes them.
            perms: Without `ranges`: what a mapping must allow, as `Maps.filter`.

        Raises:
            AccessDeniedError: A range leaves user space.
            ValueError: One ends before it starts.
        """
        if ranges is None:
            return ranges_by_perms(self._memory, perms)
        found = ranges_of(ranges)
        for start, end in found[-1:]:
            self._in_user_space(start, end - start)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return VmSpace, (self._memory,)

    def read_cstring(self, vaddr: int, max_len: int) -> bytes:
        """Returns the bytes at `vaddr` up to the first NUL, without it.

        No page is read behind the one that holds the NUL, so a string that ends
        just before a hole is read whole.

        Args:
            vaddr: Where the string begins.
            max_len: Bytes to look at, the NUL included; 0 gives an empty string.

        Raises:
            InvalidArgsError: No NUL in the first `max_len` bytes.
            PageFaultError: No NUL before the first byte that can not be read,
                which is `address`; `copied_len` bytes before it could.

        Source:
            The seed's kernel: ``read_cstring``.
        """
        vaddr, max_len = check_range(vaddr, max_len)
        parts: list[bytes] = []
        done = 0
        while done < max_len:
            at = vaddr + done
            n = min(page_end(at) - at, max_len - done)
            try:
                part = self.read_bytes(at, n)
            except ProcvmError as error:
                # The segment of a core file may end within a page, after the NUL.
                part = self.read_bytes(at, error.copied_len)
                if b"\0" not in part:
                    error.copied_len += done
                    raise
            end = part.find(b"\0")
            if end >= 0:
                parts.append(part[:end])
                return b"".join(parts)
            parts.append(part)
            done += n
        if max_len == 0:
            return b""
        raise InvalidArgsError(f"no NUL in the {max_len} bytes at {vaddr:#x}", hint=Hint("max_len"))

    def _atomic_at(self, vaddr: int, pod: PodAtomic[T]) -> int:
        size = atomic_pod(pod).size
        vaddr, _ = self._check(vaddr, size)
        if vaddr % size:
            require_aligned(vaddr, pod)
        return vaddr

    def atomic_load(self, vaddr: int, pod: PodAtomic[T]) -> T:
        """Loads one aligned value of the target atomically.

        Raises:
            ValueError: `vaddr` is not aligned for the value.
            NotTracedError: The target was opened without tracing.
        """
        return self._memory.atomic_load(self._atomic_at(vaddr, pod), pod)

    def atomic_compare_exchange(
        self, vaddr: int, pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Stores `new` if `old` is there, as one atomic step.

        Returns:
            What was there, and whether `new` was stored.

        Raises:
            ValueError: `vaddr` is not aligned for the value.
            NotTracedError: The target was opened without tracing.
        """
        return self._memory.atomic_compare_exchange(self._atomic_at(vaddr, pod), pod, old, new)

    def atomic_fetch_update(self, vaddr: int, pod: PodAtomic[T], fn: Callable[[T], T]) -> T:
        """Replaces a value by `fn` of it, as one atomic step; returns the old one.

        `fn` may be called more than once.

        Raises:
            ValueError: `vaddr` is not aligned for the value.
            NotTracedError: The target was opened without tracing.
        """
        current = self.atomic_load(vaddr, pod)
        while True:
            found, stored = self.atomic_compare_exchange(vaddr, pod, current, fn(current))
            if stored:
                return found
            current = found


def _what_of(what: Any, value: Any, text: object, encoding: object) -> Any:
    """Returns what a search looks for: the bytes of a text, or what was given."""
    if text is None:
        if what is NOTHING:
            raise TypeError("a search looks for something: give what, or text=...")
        if encoding is not None:
            raise TypeError("encoding is that of text=..., which was not given")
        return what
    if what is not NOTHING or value is not NOTHING:
        raise TypeError("a search looks for one thing: give what, or text=..., not both")
    return bytes_of_text(text, "utf-8" if encoding is None else encoding)
