"""A live child against a plain model of its pages: every outcome of every access, exact.

The model knows nothing of system calls: it is an array of bytes and, for each
page, what it allows. Hypothesis makes up programs of accesses and of changes
to the child's address space; after each step the child is asked for its bytes.
"""

from __future__ import annotations

import ctypes
import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import procvm
from procvm import (
    VmReader,
    VmReaderArray,
    VmSpace,
    VmWriter,
    VmWriterArray,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    isize,
    u8,
    u16,
    u32,
    u64,
    usize,
)
from tests.support.playground import PAGE, Playground, pattern

PAGES = 6
SIZE = PAGES * PAGE

KINDS = ["rw", "r", "none", "wo", "xo", "rwx", "hole", "eof", "guard", "srw", "sr", "file", "fro"]
READ = {"rw", "r", "rwx", "srw", "sr", "file", "fro", "eof", "guard"}
WRITE = {"rw", "wo", "rwx", "srw", "file", "eof", "guard"}


class Page(NamedTuple):
    """What a page allows, and what stands behind it."""

    read: bool
    write: bool
    behind: Literal["private", "shared", "nothing", "hole"]

    @classmethod
    def of(cls, kind: str) -> Page:
        if kind == "hole":
            return cls(False, False, "hole")
        if kind in ("eof", "guard"):
            return cls(True, True, "nothing")
        return cls(kind in READ, kind in WRITE, "shared" if kind in ("srw", "sr") else "private")

    @property
    def there(self) -> bool:
        return self.behind in ("private", "shared")


class Mixed(ctypes.Structure):
    _fields_: ClassVar = [("a", ctypes.c_uint8), ("b", ctypes.c_uint32), ("c", ctypes.c_int16)]


class Either(ctypes.Union):
    _fields_: ClassVar = [("whole", ctypes.c_uint64), ("bytes", ctypes.c_uint8 * 8)]


Triple = ctypes.c_uint16 * 3

NUMBERS = {
    u8: "B",
    u16: "H",
    u32: "I",
    u64: "Q",
    usize: "Q",
    i8: "b",
    i16: "h",
    i32: "i",
    i64: "q",
    isize: "q",
    f32: "f",
    f64: "d",
}
COMPOUNDS: list[type[Any]] = [Mixed, Either, Triple, ctypes.c_uint32]
PODS: list[Any] = [*NUMBERS, *COMPOUNDS]


def size_of(pod: Any) -> int:
    return struct.calcsize(NUMBERS[pod]) if pod in NUMBERS else ctypes.sizeof(pod)


def bytes_of(pod: Any, value: Any) -> bytes:
    return struct.pack(NUMBERS[pod], value) if pod in NUMBERS else bytes(value)


def is_value(pod: Any, value: Any, data: bytes) -> bool:
    """Returns whether `value` is what `data` holds, as a value of `pod`."""
    if pod not in NUMBERS:
        return isinstance(value, pod) and bytes(value) == data
    (expected,) = struct.unpack(NUMBERS[pod], data)
    if isinstance(expected, float) and math.isnan(expected):
        return math.isnan(value)
    return type(value) is type(expected) and bool(value == expected)


# Page edges are where it happens: most places are near one, most lengths small. A page of
# nothing is on both sides of the layout; what is behind that is not the model's.
PLACES = st.one_of(
    st.builds(lambda page, d: page * PAGE + d, st.integers(0, PAGES), st.integers(-20, 20)),
    st.integers(-PAGE, SIZE + PAGE - 1),
)
LENS = st.one_of(st.integers(0, 24), st.integers(PAGE - 20, PAGE + 20), st.integers(0, SIZE + PAGE))
SMALL = st.integers(0, 40)
SEEDS = st.integers(0, 2**16)


def make_data(seed: int, n: int) -> bytes:
    """Returns bytes made up from a seed; a NUL among them now and then."""
    return random.Random(seed).randbytes(n)


class Model(RuleBasedStateMachine):
    """The child, its model, and the rules that act on both."""

    backend: ClassVar[Literal["auto", "mem"]]

    def __init__(self) -> None:
        super().__init__()
        self.child = Playground()
        self.process = procvm.open(self.child.pid, backend=self.backend)
        self.vm = self.process.vm
        self.base = 0
        self.pages: list[Page] = []
        self.data = bytearray(SIZE)

    def teardown(self) -> None:
        self.process.close()
        self.child.close()

    @initialize(kinds=st.lists(st.sampled_from(KINDS), min_size=PAGES, max_size=PAGES))
    def lay_out(self, kinds: list[str]) -> None:
        self.base = self.child.layout(" ".join(kinds))
        self.pages = [Page.of(kind) for kind in kinds]
        self.data[:] = pattern(self.base, SIZE)
        self.reader = self.vm.reader(self.base, SIZE)
        self.writer = self.vm.writer(self.base, SIZE)
        self.reader_at, self.reader_end = 0, SIZE
        self.writer_at, self.writer_end = 0, SIZE

    # The model

    def allows(self, offset: int, *, write: bool, forced: bool) -> bool:
        if not 0 <= offset < SIZE:
            return False
        page = self.pages[offset // PAGE]
        if not page.there:
            return False
        if forced:
            return not write or page.write or page.behind == "private"
        return page.write if write else page.read

    def good(self, offset: int, n: int, *, write: bool = False, forced: bool = False) -> int:
        """Returns how many bytes come before the first that is not allowed."""
        done = 0
        while done < n and self.allows(offset + done, write=write, forced=forced):
            done = ((offset + done) // PAGE + 1) * PAGE - offset
        return min(done, n)

    def space(self, forced: bool) -> VmSpace:
        return self.vm.forced() if forced else self.vm

    def faults(self, access: Callable[[], object], offset: int, copied_len: int) -> None:
        """The access raises PageFaultError for the byte at `offset`, after `copied_len` bytes."""
        with pytest.raises(procvm.PageFaultError) as caught:
            access()
        error = caught.value
        assert type(error) is procvm.PageFaultError
        found = (error.address - self.base, error.copied_len, error.pid)
        assert found == (offset, copied_len, self.child.pid)

    def outcome(self, access: Callable[[], Any], offset: int, n: int, good: int) -> Any:
        """Runs an access of `n` bytes of which `good` can be moved; returns its value if all."""
        if good == n:
            return access()
        self.faults(access, offset + good, good)
        return None

    def put(self, offset: int, data: bytes) -> None:
        """Changes the model."""
        if data:
            self.data[offset : offset + len(data)] = data

    def at(self, offset: int, n: int) -> bytes:
        return bytes(self.data[max(offset, 0) : max(offset, 0) + n]) if n else b""

    @invariant()
    def the_child_has_what_the_model_has(self) -> None:
        start = 0
        while start < len(self.pages):
            end = start
            while end < PAGES and self.pages[end].there:
                end += 1
            if end > start:
                n = (end - start) * PAGE
                found = self.child.peek(self.base + start * PAGE, n)
                assert found == self.data[start * PAGE : end * PAGE]
            start = end + 1

    # Whole ranges

    @rule(
        offset=PLACES,
        n=LENS,
        forced=st.booleans(),
        how=st.sampled_from(["read_bytes", "read_into", "read", "read_fallible", "cursor bytes"]),
    )
    def read(self, offset: int, n: int, forced: bool, how: str) -> None:
        vm, address = self.space(forced), self.base + offset
        good = self.good(offset, n, forced=forced)
        buffer = bytearray(b"\xee" * (n + 3))
        kept = good
        if how == "read_bytes":
            found = self.outcome(lambda: vm.read_bytes(address, n), offset, n, good)
            assert found is None if good < n else found == self.at(offset, n)
            return
        if how == "cursor bytes":
            reader = vm.reader(address, n)
            found = self.outcome(lambda: reader.read_bytes(n), offset, n, good)
            assert found is None if good < n else found == self.at(offset, n)
            assert reader.cursor() == address + (n if good == n else 0)
            return
        if how == "read_into":
            self.outcome(lambda: vm.read_into(address, memoryview(buffer)[:n]), offset, n, good)
        elif how == "read":
            writer = VmWriter.from_buffer(buffer).limit(n)
            self.outcome(lambda: vm.read(address, writer), offset, n, good)
            assert writer.avail() == n - good
        else:
            reader = vm.reader(address, n)
            writer = VmWriter.from_buffer(buffer)
            moved = self.outcome(lambda: reader.read_fallible(writer), offset, n, good)
            assert moved == (n if good == n else None)
            assert (reader.cursor(), reader.remain()) == (address + good, n - good)
            assert writer.avail() == n + 3 - good
        assert buffer == self.at(offset, kept) + b"\xee" * (n + 3 - kept)

    @rule(
        offset=PLACES,
        n=LENS,
        seed=SEEDS,
        forced=st.booleans(),
        how=st.sampled_from(["write_bytes", "write", "write_fallible", "cursor bytes", "slice"]),
    )
    def write(self, offset: int, n: int, seed: int, forced: bool, how: str) -> None:
        vm, address = self.space(forced), self.base + offset
        data = make_data(seed, n)
        good = self.good(offset, n, write=True, forced=forced)
        if how == "write_bytes":
            self.outcome(lambda: vm.write_bytes(address, data), offset, n, good)
        elif how == "slice":
            self.outcome(lambda: vm.write_slice(address, u8, list(data)), offset, n, good)
        elif how == "write":
            reader = VmReader.from_buffer(data)
            self.outcome(lambda: vm.write(address, reader), offset, n, good)
            assert reader.remain() == n - good
        elif how == "cursor bytes":
            writer = vm.writer(address, n)
            self.outcome(lambda: writer.write_bytes(data), offset, n, good)
            assert writer.cursor() == address + (n if good == n else 0)
        else:
            writer = vm.writer(address, n)
            reader = VmReader.from_buffer(data + b"more")
            moved = self.outcome(lambda: writer.write_fallible(reader), offset, n, good)
            assert moved == (n if good == n else None)
            assert (writer.cursor(), writer.avail()) == (address + good, n - good)
            assert reader.remain() == n + 4 - good
        self.put(offset, data[:good])

    @rule(offset=PLACES, n=LENS, room=LENS, forced=st.booleans(), by_cursor=st.booleans())
    def fill_zeros(self, offset: int, n: int, room: int, forced: bool, by_cursor: bool) -> None:
        vm, address = self.space(forced), self.base + offset
        if not by_cursor:
            good = self.good(offset, n, write=True, forced=forced)
            self.outcome(lambda: vm.fill_zeros(address, n), offset, n, good)
        else:
            writer = vm.writer(address, room)
            most = min(n, room)
            good = self.good(offset, most, write=True, forced=forced)
            filled = self.outcome(lambda: writer.fill_zeros(n), offset, most, good)
            assert filled == (most if good == most else None)
            assert (writer.cursor(), writer.avail()) == (address + good, room - good)
        self.put(offset, bytes(good))

    @rule(offset=PLACES, max_len=LENS, forced=st.booleans())
    def read_cstring(self, offset: int, max_len: int, forced: bool) -> None:
        vm, address = self.space(forced), self.base + offset
        good = self.good(offset, max_len, forced=forced)
        text = self.at(offset, good)
        nul = text.find(b"\0")
        if nul >= 0 or max_len == 0:
            assert vm.read_cstring(address, max_len) == text[: max(nul, 0)]
        elif good < max_len:
            self.faults(lambda: vm.read_cstring(address, max_len), offset + good, good)
        else:
            with pytest.raises(procvm.InvalidArgsError):
                vm.read_cstring(address, max_len)

    # Values

    @rule(offset=PLACES, pod=st.sampled_from(PODS), forced=st.booleans(), by_cursor=st.booleans())
    def read_val(self, offset: int, pod: Any, forced: bool, by_cursor: bool) -> None:
        vm, address, n = self.space(forced), self.base + offset, size_of(pod)
        good = self.good(offset, n, forced=forced)
        if by_cursor:
            reader = vm.reader(address, n + 1)
            found = self.outcome(lambda: reader.read_val(pod), offset, n, good)
            assert reader.cursor() == address + (n if good == n else 0)
        else:
            found = self.outcome(lambda: vm.read_val(address, pod), offset, n, good)
        assert good < n or is_value(pod, found, self.at(offset, n))

    @rule(
        offset=PLACES,
        pod=st.sampled_from(PODS),
        seed=SEEDS,
        forced=st.booleans(),
        by_cursor=st.booleans(),
    )
    def write_val(self, offset: int, pod: Any, seed: int, forced: bool, by_cursor: bool) -> None:
        vm, address, n = self.space(forced), self.base + offset, size_of(pod)
        data = make_data(seed, n)
        if pod in NUMBERS:
            value = struct.unpack(NUMBERS[pod], data)[0]
            data = bytes_of(pod, value)  # a NaN may be another one when it is packed again
        else:
            value = pod.from_buffer_copy(data)
        good = self.good(offset, n, write=True, forced=forced)
        if by_cursor:
            writer = vm.writer(address, n + 1)
            self.outcome(lambda: writer.write_val(pod, value), offset, n, good)
            assert writer.cursor() == address + (n if good == n else 0)
        else:
            self.outcome(lambda: vm.write_val(address, pod, value), offset, n, good)
        self.put(offset, data[:good])

    @rule(
        offset=PLACES,
        pod=st.sampled_from([u8, i8, u16, i16, u32, i32, u64, i64, usize, isize]),
        above=st.booleans(),
        forced=st.booleans(),
    )
    def write_a_number_that_does_not_fit(
        self, offset: int, pod: Any, above: bool, forced: bool
    ) -> None:
        vm, address, bits = self.space(forced), self.base + offset, 8 * size_of(pod)
        signed = NUMBERS[pod].islower()
        top = 1 << (bits - 1 if signed else bits)
        value = top if above else (-top - 1 if signed else -1)
        writer = vm.writer(address, 8)
        accesses: list[Callable[[], object]] = [
            lambda: vm.write_val(address, pod, value),
            lambda: writer.write_val(pod, value),
            lambda: vm.write_slice(address, pod, [0, value]),
        ]
        for access in accesses:
            with pytest.raises((OverflowError, ValueError)) as caught:
                access()
            assert not isinstance(caught.value, procvm.ProcvmError)
        assert writer.cursor() == address

    @rule(offset=PLACES, n=SMALL, pod=st.sampled_from([u8, u16, u32, u64, i64, f64]))
    def read_slice(self, offset: int, n: int, pod: Any) -> None:
        size = n * size_of(pod)
        good = self.good(offset, size)
        found = self.outcome(
            lambda: self.vm.read_slice(self.base + offset, pod, n), offset, size, good
        )
        if good == size:
            step = size_of(pod)
            data = self.at(offset, size)
            assert len(found) == n
            assert all(is_value(pod, v, data[k * step :][:step]) for k, v in enumerate(found))

    # Many ranges

    def stream_good(
        self, ranges: Sequence[tuple[int, int]], total: int, *, write: bool, forced: bool
    ) -> tuple[int, int]:
        """Returns (bytes before the first bad one of a stream, offset of the bad one)."""
        done = 0
        for offset, length in ranges:
            n = min(length, total - done)
            good = self.good(offset, n, write=write, forced=forced)
            done += good
            if good < n:
                return done, offset + good
        return done, 0

    RANGES: ClassVar[Any] = st.lists(
        st.tuples(PLACES, st.one_of(SMALL, st.integers(0, PAGE + 20))), max_size=12
    )

    @staticmethod
    def cursors_stand(ranges: Sequence[tuple[int, int]], left: Sequence[int], done: int) -> None:
        """Of `done` bytes of the stream each cursor has had its part."""
        for (_, n), remaining in zip(ranges, left, strict=True):
            step = min(n, done)
            assert remaining == n - step
            done -= step

    @rule(ranges=RANGES, room=st.one_of(st.none(), LENS), forced=st.booleans())
    def read_ranges(self, ranges: list[tuple[int, int]], room: int | None, forced: bool) -> None:
        vm = self.space(forced)
        total = sum(n for _, n in ranges)
        room = total if room is None else room
        n = min(total, room)
        good, bad = self.stream_good(ranges, n, write=False, forced=forced)
        buffer = bytearray(b"\xee" * room)
        writer = VmWriter.from_buffer(buffer)
        readers = [vm.reader(self.base + at, length) for at, length in ranges]
        if good == n:
            assert VmReaderArray(readers).read(writer) == n
        else:
            self.faults(lambda: VmReaderArray(readers).read(writer), bad, good)
        self.cursors_stand(ranges, [reader.remain() for reader in readers], good)
        assert writer.avail() == room - good
        stream = b"".join([self.at(at, self.good(at, k, forced=forced)) for at, k in ranges])
        assert buffer == stream[:good] + b"\xee" * (room - good)

    @rule(ranges=RANGES, seed=SEEDS, size=st.one_of(st.none(), LENS), forced=st.booleans())
    def write_ranges(
        self, ranges: list[tuple[int, int]], seed: int, size: int | None, forced: bool
    ) -> None:
        vm = self.space(forced)
        total = sum(n for _, n in ranges)
        size = total if size is None else size
        n = min(total, size)
        data = make_data(seed, size)
        good, bad = self.stream_good(ranges, n, write=True, forced=forced)
        reader = VmReader.from_buffer(data)
        writers = [vm.writer(self.base + at, length) for at, length in ranges]
        if good == n:
            assert VmWriterArray(writers).write(reader) == n
        else:
            self.faults(lambda: VmWriterArray(writers).write(reader), bad, good)
        self.cursors_stand(ranges, [writer.avail() for writer in writers], good)
        assert reader.remain() == size - good
        done = 0
        for at, length in ranges:
            step = min(length, good - done)
            self.put(at, data[done : done + step])
            done += step

    HALF = SIZE // 2
    LOW: ClassVar[Any] = st.lists(st.tuples(st.integers(0, HALF - PAGE), LENS), max_size=6)

    @rule(sources=LOW, dests=LOW, forced=st.booleans())
    def copy_ranges(
        self, sources: list[tuple[int, int]], dests: list[tuple[int, int]], forced: bool
    ) -> None:
        # From the lower half to the upper: what is read is not what is written.
        sources = [(at, min(n, PAGE)) for at, n in sources]
        dests = [(at + self.HALF, min(n, PAGE)) for at, n in dests]
        vm = self.space(forced)
        n = min(sum(k for _, k in sources), sum(k for _, k in dests))
        read, bad_read = self.stream_good(sources, n, write=False, forced=forced)
        written, bad_write = self.stream_good(dests, n, write=True, forced=forced)
        good = min(read, written)
        readers = [vm.reader(self.base + at, k) for at, k in sources]
        writers = [vm.writer(self.base + at, k) for at, k in dests]
        if good == n:
            assert VmReaderArray(readers).read(VmWriterArray(writers)) == n
        else:
            bad = bad_read if read <= written else bad_write
            self.faults(lambda: VmReaderArray(readers).read(VmWriterArray(writers)), bad, good)
        self.cursors_stand(sources, [reader.remain() for reader in readers], good)
        self.cursors_stand(dests, [writer.avail() for writer in writers], good)
        stream = b"".join([self.at(at, self.good(at, k, forced=forced)) for at, k in sources])
        done = 0
        for at, k in dests:
            step = min(k, good - done)
            self.put(at, stream[done : done + step])
            done += step

    # Within the target

    @rule(
        source=PLACES,
        dest=PLACES,
        n=LENS,
        room=LENS,
        read_forced=st.booleans(),
        write_forced=st.booleans(),
        by_writer=st.booleans(),
    )
    def copy_within(
        self,
        *,
        source: int,
        dest: int,
        n: int,
        room: int,
        read_forced: bool,
        write_forced: bool,
        by_writer: bool,
    ) -> None:
        reader = self.space(read_forced).reader(self.base + source, n)
        writer = self.space(write_forced).writer(self.base + dest, room)
        access: Callable[[], int] = (
            (lambda: writer.write_fallible(reader))
            if by_writer
            else (lambda: reader.read_fallible(writer))
        )
        both = min(n, room)
        read = self.good(source, both, forced=read_forced)
        written = self.good(dest, both, write=True, forced=write_forced)
        good = min(read, written)
        if good == both:
            assert access() == both
        else:
            self.faults(access, source + read if read <= written else dest + written, good)
        assert (reader.cursor() - self.base, reader.remain()) == (source + good, n - good)
        assert (writer.cursor() - self.base, writer.avail()) == (dest + good, room - good)
        # As memmove does: the bytes that were there before.
        self.put(dest, self.at(source, good))

    # Cursors that outlive the changes

    @rule(n=LENS)
    def skip_reading(self, n: int) -> None:
        if n > self.reader_end - self.reader_at:
            with pytest.raises(ValueError, match="skip") as caught:
                self.reader.skip(n)
            assert not isinstance(caught.value, procvm.ProcvmError)
        else:
            assert self.reader.skip(n) is self.reader
            self.reader_at += n

    @rule(n=LENS)
    def limit_reading(self, n: int) -> None:
        assert self.reader.limit(n) is self.reader
        self.reader_end = min(self.reader_end, self.reader_at + n)

    @rule()
    def clone_reader(self) -> None:
        clone = self.reader.clone()
        if self.reader.has_remain():
            self.reader.skip(1)
        assert clone.cursor() == self.base + self.reader_at
        self.reader = clone

    @rule()
    def begin_again(self) -> None:
        self.reader = self.vm.reader(self.base, SIZE)
        self.writer = self.vm.writer(self.base, SIZE)
        self.reader_at, self.reader_end = 0, SIZE
        self.writer_at, self.writer_end = 0, SIZE

    @rule(pod=st.sampled_from(PODS))
    def read_next_value(self, pod: Any) -> None:
        n = size_of(pod)
        if n > self.reader_end - self.reader_at:
            with pytest.raises(procvm.InvalidArgsError):
                self.reader.read_val(pod)
            return
        good = self.good(self.reader_at, n)
        found = self.outcome(lambda: self.reader.read_val(pod), self.reader_at, n, good)
        if good == n:
            assert is_value(pod, found, self.at(self.reader_at, n))
            self.reader_at += n

    @rule(n=LENS)
    def read_next_bytes(self, n: int) -> None:
        most = min(n, self.reader_end - self.reader_at)
        good = self.good(self.reader_at, most)
        buffer = bytearray(b"\xee" * n)
        self.outcome(
            lambda: self.reader.read_fallible(VmWriter.from_buffer(buffer)),
            self.reader_at,
            most,
            good,
        )
        assert buffer == self.at(self.reader_at, good) + b"\xee" * (n - good)
        self.reader_at += good

    @rule(pod=st.sampled_from([u8, u16, u32, u64, i64, usize]), seed=SEEDS)
    def write_next_value(self, pod: Any, seed: int) -> None:
        n = size_of(pod)
        data = make_data(seed, n)
        (value,) = struct.unpack(NUMBERS[pod], data)
        if n > self.writer_end - self.writer_at:
            with pytest.raises(procvm.InvalidArgsError):
                self.writer.write_val(pod, value)
            return
        good = self.good(self.writer_at, n, write=True)
        self.outcome(lambda: self.writer.write_val(pod, value), self.writer_at, n, good)
        self.put(self.writer_at, data[:good])
        if good == n:
            self.writer_at += n

    @rule(n=LENS, zeros=st.booleans(), seed=SEEDS)
    def write_next_bytes(self, n: int, zeros: bool, seed: int) -> None:
        most = min(n, self.writer_end - self.writer_at)
        good = self.good(self.writer_at, most, write=True)
        data = bytes(n) if zeros else make_data(seed, n)
        access: Callable[[], int] = (
            (lambda: self.writer.fill_zeros(n))
            if zeros
            else (lambda: self.writer.write_fallible(VmReader.from_buffer(data)))
        )
        self.outcome(access, self.writer_at, most, good)
        self.put(self.writer_at, data[:good])
        self.writer_at += good

    @rule(n=LENS)
    def skip_writing(self, n: int) -> None:
        if n > self.writer_end - self.writer_at:
            with pytest.raises(ValueError, match="skip"):
                self.writer.skip(n)
        else:
            self.writer.skip(n)
            self.writer_at += n

    @invariant()
    def the_cursors_stand_where_the_model_has_them(self) -> None:
        if self.pages:
            assert self.reader.cursor() == self.base + self.reader_at
            assert self.reader.remain() == self.reader_end - self.reader_at
            assert self.writer.cursor() == self.base + self.writer_at
            assert self.writer.avail() == self.writer_end - self.writer_at

    # Changes of the address space

    SPANS: ClassVar[Any] = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 3)).map(
        lambda span: range(span[0], min(span[0] + span[1], PAGES))
    )

    @rule(span=SPANS, kind=st.sampled_from(["rw", "r", "none", "wo"]))
    def protect(self, span: range, kind: str) -> None:
        for k in span:
            page = self.pages[k]
            if page.behind != "hole":
                self.child.protect(self.base + k * PAGE, PAGE, kind)
                self.pages[k] = Page(kind in READ, kind in WRITE, page.behind)

    @precondition(lambda self: any(page.behind != "hole" for page in self.pages))
    @rule(span=SPANS)
    def unmap(self, span: range) -> None:
        self.child.unmap(self.base + span.start * PAGE, len(span) * PAGE)
        for k in span:
            self.pages[k] = Page.of("hole")

    @rule(span=SPANS, kind=st.sampled_from(["rw", "rw", "r", "none", "wo", "xo", "rwx"]))
    def map(self, span: range, kind: str) -> None:
        self.child.map(self.base + span.start * PAGE, len(span) * PAGE, kind)
        for k in span:
            self.pages[k] = Page.of(kind)
            self.put(k * PAGE, bytes(PAGE))

    @rule(offset=st.integers(0, SIZE - 16), seed=SEEDS)
    def the_child_writes_itself(self, offset: int, seed: int) -> None:
        data = make_data(seed, 16)
        if self.good(offset, 16, write=True, forced=True) == 16:
            self.child.poke(self.base + offset, data)
            self.put(offset, data)


class AutoModel(Model):
    backend = "auto"


class MemModel(Model):
    backend = "mem"


_SETTINGS = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TestAutoModel = AutoModel.TestCase
TestAutoModel.settings = _SETTINGS
TestMemModel = MemModel.TestCase
TestMemModel.settings = _SETTINGS


# Strings


def _string(process: procvm.Process, child: Playground, kinds: str, text: bytes) -> int:
    """Puts text so that it ends with the first page; returns where it begins."""
    at = child.layout(kinds) + PAGE - len(text)
    child.poke(at, text)
    return at


def test_a_string_that_ends_at_the_last_byte_before_a_hole_is_whole(
    process: procvm.Process, playground: Playground
) -> None:
    """With its NUL in the last byte of a page nothing behind the page is needed."""
    for n in (1, 2, 9, 1000):
        for kind in ("hole", "none", "wo", "eof", "guard"):
            text = b"s" * (n - 1)
            at = _string(process, playground, f"rw {kind}", text + b"\0")
            for max_len in (n, n + 1, n + PAGE, 10 * PAGE, 1 << 40):
                assert process.vm.read_cstring(at, max_len) == text


def test_a_string_that_runs_into_a_hole_is_a_fault(
    process: procvm.Process, playground: Playground
) -> None:
    """Without a NUL before the hole the error names the hole and the bytes before it."""
    for kind in ("hole", "none", "wo", "eof", "guard"):
        at = _string(process, playground, f"rw {kind}", b"no end")
        for max_len in (7, 100, 2 * PAGE):
            with pytest.raises(procvm.PageFaultError) as caught:
                process.vm.read_cstring(at, max_len)
            assert (caught.value.copied_len, caught.value.address) == (6, at + 6)
            assert caught.value.pid == playground.pid


def test_a_string_longer_than_max_len_is_refused(
    process: procvm.Process, playground: Playground
) -> None:
    """Exactly max_len bytes are looked at: one less than the NUL needs is too few."""
    at = _string(process, playground, "rw rw", b"four\0")
    assert process.vm.read_cstring(at, 5) == b"four"
    for max_len in (1, 3, 4):
        with pytest.raises(procvm.InvalidArgsError):
            process.vm.read_cstring(at, max_len)


def test_a_string_that_needs_no_byte_of_a_hole_does_not_touch_it(
    process: procvm.Process, playground: Playground
) -> None:
    """max_len bytes that end with the page are looked at, and the hole behind them is not."""
    at = _string(process, playground, "rw hole", b"no end")
    with pytest.raises(procvm.InvalidArgsError):
        process.vm.read_cstring(at, 6)


def test_an_empty_string_is_empty(process: procvm.Process, playground: Playground) -> None:
    """A NUL at once is the empty string, as is a max_len of 0."""
    at = _string(process, playground, "rw hole", b"\0")
    assert process.vm.read_cstring(at, 1) == b""
    assert process.vm.read_cstring(at, 1 << 20) == b""
    assert process.vm.read_cstring(at, 0) == b""


def test_a_string_is_bytes_and_need_not_be_utf_8(
    process: procvm.Process, playground: Playground
) -> None:
    """Every byte but NUL comes back as it is."""
    text = bytes(range(1, 256)) + b"\xff\xfe\xc3\x28\xed\xa0\x80"
    at = _string(process, playground, "rw hole", text + b"\0")
    assert process.vm.read_cstring(at, 1000) == text


def test_a_string_over_many_pages_is_whole(process: procvm.Process, playground: Playground) -> None:
    """It may begin and end anywhere and cross as many pages as it likes."""
    base = playground.layout(" ".join(["rw", "r", "srw", "sr", "file", "fro"] * 8) + " rw hole")
    end = base + 49 * PAGE
    for nul in (end - 1, end - PAGE, end - PAGE + 1):
        playground.clear(end - PAGE, PAGE)
        playground.poke(nul, b"\0")
        for start in (base, base + 1, base + PAGE - 1, base + PAGE, nul - 1, nul):
            found = process.vm.read_cstring(start, 64 * PAGE)
            assert found == playground.peek(start, nul - start)


def test_a_forced_string_ignores_protections(
    process: procvm.Process, playground: Playground
) -> None:
    """A string in a page that may not be read is read by force, and faults without."""
    base = playground.layout("none wo")
    playground.poke(base + PAGE - 4, b"hidden\0")
    assert process.vm.forced().read_cstring(base + PAGE - 4, 100) == b"hidden"
    with pytest.raises(procvm.PageFaultError) as caught:
        process.vm.read_cstring(base + PAGE - 4, 100)
    assert (caught.value.copied_len, caught.value.address) == (0, base + PAGE - 4)


# Copies that overlap, larger than any buffer in between


@pytest.mark.parametrize("distance", [1, -1, 8, -8, PAGE, -PAGE, 100_003, -100_003, 0])
def test_a_large_copy_that_overlaps_is_as_memmove(
    process: procvm.Process, playground: Playground, distance: int
) -> None:
    """The destination gets the bytes that were there before, in either direction."""
    n = 1 << 20
    size = n + 2 * 102_400
    base = playground.layout(" ".join(["rw"] * (size // PAGE)))
    expected = bytearray(playground.peek(base, size))
    source = 102_400
    expected[source + distance : source + distance + n] = expected[source : source + n]
    reader = process.vm.reader(base + source, n)
    writer = process.vm.writer(base + source + distance, n)
    assert reader.read_fallible(writer) == n
    assert playground.peek(base, size) == expected


@pytest.mark.parametrize("distance", [1, -1, 8, PAGE, -PAGE])
@pytest.mark.parametrize("kind", ["hole", "r", "wo"])
def test_a_large_copy_that_overlaps_and_faults_is_exact(
    process: procvm.Process, playground: Playground, distance: int, kind: str
) -> None:
    """Up to the first byte that one side can not move it is as memmove; beyond it nothing moved."""
    pages = 200
    size = pages * PAGE
    base = playground.layout(" ".join(["rw"] * pages) + f" {kind}")
    before = playground.peek(base, size)
    source = 2 * PAGE
    target = source + distance
    reader = process.vm.reader(base + source, size)
    writer = process.vm.writer(base + target, size)
    read = size - source if kind != "r" else size - source + PAGE
    written = size - target if kind != "wo" else size - target + PAGE
    good = min(read, written)
    with pytest.raises(procvm.PageFaultError) as caught:
        reader.read_fallible(writer)
    bad = base + source + read if read <= written else base + target + written
    assert (caught.value.copied_len, caught.value.address) == (good, bad)
    assert (reader.cursor(), writer.cursor()) == (base + source + good, base + target + good)
    if kind == "hole":
        expected = bytearray(before)
        expected[target : target + good] = before[source : source + good]
        assert playground.peek(base, size) == expected
