"""`held.vm` keeps pages of a target that stands still, and nobody can tell but by the time."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import mmap
import os
import platform
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

import procvm
from procvm import VmReader, VmReaderArray, VmSpace, VmWriter, VmWriterArray, u8, u32, u64
from procvm._hold.held_memory import HeldMemory
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import assert_free, has_ended, is_free, own_fds, tracer_of
from tests.test_model import PODS, SIZE, Mixed, Model, Triple, is_value, size_of
from tests.tracee.witness import Tool, hold_that_ends_early

with contextlib.suppress(ImportError):
    import numpy  # noqa: F401 (for `scatter`; its threads begin before any are counted)

Use = Callable[[], object]


class Target(Child):
    """tests/support/targets/held.c: a target that changes its memory when told to."""

    def __init__(self, beside: str = "none") -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            super().__init__(
                [compiled("held"), beside, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self.private, self.shared, self.head, self._beside = self.hexes()
        self._is_ours = beside == "sibling"

    def look(self, address: int) -> int:
        """Returns the word at an address as the target reads it."""
        return int(self.ask(f"look {address:x}"), 16)

    def put(self, address: int, value: int) -> None:
        """Has the target write a word."""
        assert self.ask(f"put {address:x} {value:x}") == "ok"

    def count(self, tracee: procvm.Tracee, address: int) -> None:
        """Has the target count a word up from now on; it answers no more."""
        assert self.ask(f"count {address:x}") == "ok"
        assert eventually(lambda: tracee.vm.read_val(address, u64) > 0)

    def put_from_beside(self, address: int, value: int) -> None:
        """Has the process beside the target, which nobody holds, write a word."""
        self._line.sendall(struct.pack("=QQ", address, value))
        assert self._line.recv(8) == struct.pack("=Q", value)

    def close(self) -> None:
        self._line.close()  # which ends the process beside it
        super().close()
        if self._is_ours:
            os.waitpid(self._beside, 0x40000000)  # __WALL


@pytest.fixture
def tracee(playground: Playground) -> Iterator[procvm.Tracee]:
    """The playground, attached, and free again afterwards."""
    with procvm.attach(playground.pid, longest_hold=None) as tracee:
        yield tracee
        if playground.popen.poll() is None and not repr(tracee).endswith("closed>"):
            assert_free(playground.pid)


def fork() -> int:
    """Forks, as os.fork; that numpy may have threads is no harm to a child that leaves it alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def kept(vm: VmSpace) -> int:
    """Returns how many pages are kept."""
    memory = vm.memory
    assert isinstance(memory, HeldMemory)
    return len(memory._still.pages.pages)  # noqa: SLF001 (a cache)


def ways_to_read(vm: VmSpace, address: int, n: int) -> dict[str, Callable[[], bytes]]:
    """Returns every way to get the `n` bytes at an address, a multiple of 8; all give the same."""

    def into() -> bytes:
        buffer = bytearray(n)
        vm.read_into(address, buffer)
        return bytes(buffer)

    def by_writer() -> bytes:
        buffer = bytearray(n)
        vm.read(address, VmWriter.from_buffer(buffer))
        return bytes(buffer)

    def by_cursor() -> bytes:
        reader = vm.reader(address, n)
        return struct.pack(f"={n // 8}Q", *(reader.read_val(u64) for _ in range(n // 8)))

    def by_array() -> bytes:
        buffer = bytearray(n)
        parts = [vm.reader(address, 3), vm.reader(address + 3, n - 3)]
        VmReaderArray(parts).read(VmWriter.from_buffer(buffer))
        return bytes(buffer)

    def by_slice() -> bytes:
        values = vm.read_slice(address, u8, n)
        return bytes(values)

    def by_string() -> bytes:
        text = b""
        while len(text) < n:
            with contextlib.suppress(procvm.InvalidArgsError):
                text += vm.read_cstring(address + len(text), n - len(text)) + b"\0"
                continue
            text += vm.read_bytes(address + len(text), n - len(text))
        return text

    return {
        "bytes": lambda: vm.read_bytes(address, n),
        "into": into,
        "writer": by_writer,
        "words": lambda: struct.pack(
            f"={n // 8}Q", *(vm.read_val(address + k, u64) for k in range(0, n, 8))
        ),
        "halves": lambda: struct.pack(
            f"={n // 4}I", *(vm.read_val(address + k, u32) for k in range(0, n, 4))
        ),
        "single bytes": lambda: bytes(vm.read_val(address + k, u8) for k in range(n)),
        "cursor": by_cursor,
        "slice": by_slice,
        "structure": lambda: bytes(vm.read_val(address, u8_array(n))),
        "array of readers": by_array,
        "string": by_string,
    }


def u8_array(n: int) -> type[ctypes.Array[ctypes.c_uint8]]:
    """Returns the ctypes type of `n` bytes."""
    return ctypes.c_uint8 * n


def assert_all_read(vm: VmSpace, address: int, expected: bytes) -> None:
    """Every way to read gives these bytes, when they are kept by then as well."""
    for _ in range(2):
        found = {way: read() for way, read in ways_to_read(vm, address, len(expected)).items()}
        assert found == dict.fromkeys(found, expected)


def outcome(use: Callable[[], Any]) -> Any:
    """Returns what a use gives, or all that its error says."""
    try:
        return use()
    except procvm.ProcvmError as error:
        fields = {name: getattr(error, name) for name in error._fields}
        return type(error), error.message, fields


# Values


def test_a_value_of_every_kind_is_the_one_that_stands_there(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """Each pod and ctypes type, aligned or not, over the border of two pages too, read twice."""
    base = playground.layout("rw r rw")
    playground.poke(base, os.urandom(3 * PAGE))
    there = playground.peek(base, 3 * PAGE)
    offsets = [*range(17), 100, *range(PAGE - 17, PAGE + 17), 2 * PAGE - 8, 3 * PAGE - 40]
    with tracee.stopped() as held:
        for _ in range(2):
            for pod in PODS:
                n = size_of(pod)
                reader = held.vm.reader(base, 3 * PAGE)
                for offset in offsets:
                    expected = there[offset : offset + n]
                    assert is_value(pod, held.vm.read_val(base + offset, pod), expected)
                    reader.skip(max(base + offset - reader.cursor(), 0))
                    at = reader.cursor() - base
                    assert is_value(pod, reader.read_val(pod), there[at : at + n])
                    assert reader.cursor() == base + at + n
        assert kept(held.vm) == 3


def test_ranges_of_every_length_are_the_bytes_that_stand_there(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """Lengths about those of a page and of all that is kept at once, at every kind of offset."""
    base = playground.layout(" ".join(["rw"] * 8))
    lens = [0, 1, 2, 7, PAGE - 1, PAGE, PAGE + 1, 4 * PAGE - 1, 4 * PAGE, 4 * PAGE + 1, 6 * PAGE]
    with tracee.stopped() as held:
        for offset in (0, 1, 8, PAGE - 1, PAGE, PAGE + 5):
            for n in lens:
                expected = pattern(base + offset, n)
                assert held.vm.read_bytes(base + offset, n) == expected
                buffer = bytearray(b"\xee" * (n + 2))
                held.vm.read_into(base + offset, memoryview(buffer)[1 : n + 1])
                assert buffer == b"\xee" + expected + b"\xee"
        assert_all_read(held.vm, base + 8, pattern(base + 8, 2 * PAGE))


def test_arrays_of_structures_are_read_whole(playground: Playground, tracee: procvm.Tracee) -> None:
    """A slice of structures and one of arrays over three pages, as by the tracee's own space."""
    base = playground.layout("rw rw rw")
    with tracee.stopped() as held:
        for pod in (Mixed, Triple):
            count = 2 * PAGE // ctypes.sizeof(pod)
            for offset in (0, 3, PAGE - 5):
                found = held.vm.read_slice(base + offset, pod, count)
                expected = pattern(base + offset, count * ctypes.sizeof(pod))
                assert b"".join(map(bytes, found)) == expected


# Faults

COMPOUND = (ctypes.Structure, ctypes.Union, ctypes.Array)
LAYOUT = ["rw", "hole", "rw", "none", "r", "wo", "rw", "eof", "fro", "guard", "srw", "xo", "file"]
READABLE = {"rw", "r", "fro", "srw", "file"}


def first_bad(base: int, address: int, n: int) -> int | None:
    """Returns the first address of a range of the layout that cannot be read."""
    for at in range(address, address + n):
        number = (at - base) // PAGE
        if not 0 <= number < len(LAYOUT) or LAYOUT[number] not in READABLE:
            return at
    return None


def test_a_fault_is_the_one_that_the_plain_space_gives(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """Error, address, copied_len, the bytes before it and all cursors, at each border of a page."""
    base = playground.layout(" ".join(LAYOUT))
    with tracee.stopped() as held:
        for border in range(1, len(LAYOUT) + 1):
            for before, n in ((0, 1), (0, 8), (1, 1), (1, 8), (3, 8), (8, 8), (8, 16), (24, 24)):
                address = base + border * PAGE - before
                bad = first_bad(base, address, n)
                good = n if bad is None else bad - address
                for vm in (held.vm, tracee.vm, held.vm):
                    _assert_faults(vm, address, n, bad, good, playground.pid)
                for pod in PODS:
                    found = [
                        outcome(partial(_value, vm, address, pod))
                        for vm in (held.vm, tracee.vm, held.vm)
                    ]
                    assert found == found[1:2] * 3, (LAYOUT[border - 1 : border + 1], before, pod)


def _value(vm: VmSpace, address: int, pod: Any) -> Any:
    """Returns a value as something that equals its like: a NaN, a structure."""
    value = vm.read_val(address, pod)
    return bytes(value) if isinstance(value, COMPOUND) else repr(value)


def _assert_faults(vm: VmSpace, address: int, n: int, bad: int | None, good: int, pid: int) -> None:
    buffer = bytearray(b"\xee" * n)
    reader = vm.reader(address, n)
    writer = VmWriter.from_buffer(buffer)
    if bad is None:
        assert reader.read_fallible(writer) == n
    else:
        with pytest.raises(procvm.PageFaultError) as caught:
            reader.read_fallible(writer)
        error = caught.value
        assert (error.address, error.copied_len, error.pid) == (bad, good, pid)
    assert (reader.cursor(), writer.avail()) == (address + good, n - good)
    assert buffer == pattern(address, good) + b"\xee" * (n - good)
    if bad is None:
        return
    again = vm.reader(address, n)
    for read in (
        lambda: vm.read_bytes(address, n),
        lambda: vm.read_val(address, u8_array(n)),
        lambda: vm.read_cstring(address, n),
        lambda: again.read_bytes(n),
        lambda: again.read_val(u8_array(n)),
        lambda: VmReaderArray([vm.reader(address, n)]).read(VmWriter.from_buffer(bytearray(n))),
    ):
        with pytest.raises(procvm.PageFaultError) as caught:
            read()
        error = caught.value
        assert (error.address, error.copied_len, error.pid) == (bad, good, pid)
    assert again.cursor() == address


def test_addresses_that_no_target_has_are_refused_as_ever(tracee: procvm.Tracee) -> None:
    """Beyond user space, negative, past 2^64, of the wrong type: as by the tracee's own space."""
    end = tracee.vm.end
    with tracee.stopped() as held:
        uses: list[Callable[[VmSpace], object]] = [
            lambda vm: vm.read_val(end, u64),
            lambda vm: vm.read_val(end - 8, u64),
            lambda vm: vm.read_val(end - 4, u64),
            lambda vm: vm.read_bytes(end - 4, 8),
            lambda vm: vm.read_val(-8, u64),
            lambda vm: vm.read_val((1 << 64) - 4, u64),
            lambda vm: vm.read_bytes(0, 8),
            lambda vm: vm.read_bytes(end, 0),
        ]
        for use in uses:
            assert outcome(partial(use, held.vm)) == outcome(partial(use, tracee.vm))
        for wrong in (True, 1.0, "1", None):
            with pytest.raises(TypeError):
                held.vm.read_val(cast("Any", wrong), u64)
        assert held.vm.end == end


def test_forced_reads_and_writes_where_protections_forbid(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """held.vm.forced() reads what held.vm may not, and is seen by it where that may."""
    base = playground.layout("none r")
    with tracee.stopped() as held:
        forced = held.vm.forced()
        assert forced.read_bytes(base, 2 * PAGE) == pattern(base, 2 * PAGE)
        with pytest.raises(procvm.PageFaultError):
            held.vm.read_val(base, u64)
        for number in range(3):
            forced.write_val(base, u64, number)
            forced.write_val(base + PAGE, u64, number)
            assert forced.read_val(base, u64) == held.vm.read_val(base + PAGE, u64) == number
            with pytest.raises(procvm.PageFaultError):
                held.vm.read_val(base, u64)
            with pytest.raises(procvm.PageFaultError):
                held.vm.write_val(base + PAGE, u64, 7)
    assert playground.peek(base, 8) == playground.peek(base + PAGE, 8) == struct.pack("=Q", 2)


# No system call for what is kept

_ALLOWED = {  # write, exit_group, and what the interpreter needs for memory, locks and time
    "x86_64": (1, 231, 9, 10, 11, 12, 25, 28, 15, 202, 228),
    "aarch64": (64, 94, 222, 226, 215, 214, 216, 233, 139, 98, 113),
}
_libc = ctypes.CDLL(None, use_errno=True)


def _allow_no_calls() -> None:
    """Has the kernel kill this process at any system call that could read a target."""
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]  # load the number
    for number in _ALLOWED[platform.machine()]:
        code.append(struct.pack("HBBI", 0x15, 0, 1, number))  # another one: skip a step
        code.append(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))  # allow
    code.append(struct.pack("HBBI", 0x06, 0, 0, 0x80000000))  # kill the process
    text = ctypes.create_string_buffer(b"".join(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(text)))
    zero, one, two = (ctypes.c_ulong(n) for n in range(3))
    for call in ((38, one, zero, zero, zero), (22, two, ctypes.byref(program), zero, zero)):
        if _libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "prctl")


def in_a_fork_without_calls(
    pid: int, use: Callable[[procvm.Tracee, Callable[[str], None]], None]
) -> tuple[str, int]:
    """Runs `use` in a child; returns the last that it said, and how the child ended.

    From "begin" on it may make no call any more; ended by SIGSYS, it made one. It ends by "end".
    """
    end, theirs = os.pipe()
    child = fork()
    if child == 0:
        status = 1
        try:
            gc.disable()
            faulthandler.disable()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(240)

            def say(line: str) -> None:
                if line == "begin":
                    _allow_no_calls()
                os.write(theirs, line.encode() + b"\n")
                if line == "end":
                    os._exit(0)

            # It is not closed: that would make calls. The end of this process ends the hold.
            use(procvm.attach(pid, longest_hold=None), say)
        finally:
            os._exit(status)
    os.close(theirs)
    with open(end, "rb") as pipe:
        said = pipe.read().decode().split()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return (said[-1] if said else ""), ended


def test_what_is_kept_is_read_without_any_system_call(playground: Playground) -> None:
    """A tool that the kernel kills at its next call reads kept pages in every way, and lives."""
    base = playground.layout("rw r rw")
    playground.poke(base + 100, b"\0")
    expected = playground.peek(base, 3 * PAGE)

    def use(tracee: procvm.Tracee, say: Callable[[str], None]) -> None:
        held = tracee.stopped()
        vm, reader = held.vm, held.vm.reader(base, 3 * PAGE)
        ways = ways_to_read(vm, base + PAGE - 64, 128)
        # A vectored read is one call, and keeps nothing; nor does a buffer of the caller's get
        # what is kept.
        for way in ("array of readers", "into", "writer"):
            del ways[way]

        def read_all() -> bool:
            good = all(read() == expected[PAGE - 64 : PAGE + 64] for read in ways.values())
            good &= vm.read_bytes(base, 3 * PAGE) == expected
            good &= vm.read_cstring(base, PAGE) == expected[:100]
            for pod in PODS:
                for offset in (0, 8, 3, PAGE - 1, 2 * PAGE):
                    found = vm.read_val(base + offset, pod)
                    good &= is_value(pod, found, expected[offset : offset + size_of(pod)])
                good &= is_value(pod, reader.clone().read_val(pod), expected[: size_of(pod)])
            return good

        assert read_all()
        say("begin")
        for _ in range(20):
            assert read_all()
        say("end")

    assert in_a_fork_without_calls(playground.pid, use) == ("end", 0)
    assert_free(playground.pid)


@pytest.mark.parametrize("what", ["plain space", "shared page", "new page", "nothing kept"])
def test_what_is_not_kept_takes_a_system_call(playground: Playground, what: str) -> None:
    """The tracee's own space, shared memory, a page not read yet, cache_len=0: the tool is killed.

    This is what the test before would see if nothing were kept.
    """
    base = playground.layout("rw srw rw")

    def use(tracee: procvm.Tracee, say: Callable[[str], None]) -> None:
        held = tracee.stopped(cache_len=0 if what == "nothing kept" else PAGE)
        vm = tracee.vm if what == "plain space" else held.vm
        address = base + PAGE if what == "shared page" else base
        for _ in range(3):
            vm.read_val(address, u64)
        say("begin")
        vm.read_val(base + 2 * PAGE if what == "new page" else address, u64)
        say("end")

    assert in_a_fork_without_calls(playground.pid, use) == ("begin", -signal.SIGSYS)
    assert_free(playground.pid)


# How much is kept


@pytest.mark.parametrize(
    ("cache_len", "most"),
    [(0, 0), (1, 0), (PAGE - 1, 0), (PAGE, 1), (2 * PAGE - 1, 1), (5 * PAGE, 5), (None, 256)],
)
def test_no_more_is_kept_than_was_asked_for(
    playground: Playground, tracee: procvm.Tracee, cache_len: int | None, most: int
) -> None:
    """Over 300 pages, there, back and at random, the values are right and the cache is bounded."""
    pages = 300
    base = playground.reserve(pages * PAGE)
    for k in range(pages):
        tracee.vm.write_val(base + k * PAGE + 8, u64, k)
    order = [*range(pages), *reversed(range(pages)), *random.Random(1).choices(range(pages), k=300)]
    holding = tracee.stopped() if cache_len is None else tracee.stopped(cache_len=cache_len)
    with holding as held:
        for seen, k in enumerate(order):
            assert held.vm.read_val(base + k * PAGE + 8, u64) == k
            assert held.vm.read_bytes(base + k * PAGE + 8, 8) == struct.pack("=Q", k)
            assert kept(held.vm) == min(most, max(min(seen + 1, pages), 1))
        # What is longer than a few pages is neither kept nor throws out what is.
        before = kept(held.vm)
        assert len(held.vm.read_bytes(base, pages * PAGE)) == pages * PAGE
        assert kept(held.vm) == before


def test_only_private_readable_pages_are_kept(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """Shared pages, pages that cannot be read and pages that are not there are never kept."""
    kinds = ["rw", "r", "rwx", "srw", "sr", "none", "wo", "xo", "hole", "eof", "guard"]
    base = playground.layout(" ".join(kinds))
    with tracee.stopped() as held:
        for k, kind in enumerate(kinds):
            before = kept(held.vm)
            for _ in range(2):
                outcome(partial(held.vm.read_val, base + k * PAGE, u64))
                outcome(partial(held.vm.read_bytes, base + k * PAGE + 1, 9))
            assert kept(held.vm) - before == (kind in {"rw", "r", "rwx"}), kind


@pytest.mark.parametrize("wrong", [True, 1.5, "4096", None, -1])
def test_a_wrong_cache_len_is_refused_and_the_target_is_not_held(
    playground: Playground, tracee: procvm.Tracee, wrong: Any
) -> None:
    """Not an int: TypeError; negative: InvalidArgsError; nobody was stopped."""
    before = own_fds()
    kind = procvm.InvalidArgsError if wrong == -1 else TypeError
    with pytest.raises(kind):
        tracee.stopped(cache_len=wrong)
    for fd, _ in set(own_fds()) - set(before):
        os.close(fd)  # see the next test
    assert is_free(playground.pid)
    assert not tracee.is_stopped()


def test_a_wrong_cache_len_leaves_no_descriptor(tracee: procvm.Tracee) -> None:
    """A refused hold has closed both ends of its pipe."""
    before = own_fds()
    with pytest.raises(procvm.InvalidArgsError):
        tracee.stopped(cache_len=-1)
    left = set(own_fds()) - set(before)
    for fd, _ in left:
        os.close(fd)
    assert left == set()


def test_of_holds_within_each_other_the_largest_cache_counts(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """stop() and an atomic keep nothing; of two holds each keeps what the larger one asked for."""
    base = playground.layout("rw rw rw")
    tracee.stop()
    tracee.vm.atomic_load(base, u64)
    with tracee.stopped(cache_len=0) as held:
        held.vm.read_val(base, u64)
        assert kept(held.vm) == 0
        with tracee.stopped(cache_len=2 * PAGE) as inner:
            for k in range(3):
                held.vm.read_val(base + k * PAGE, u64)
            assert kept(held.vm) == kept(inner.vm) == 2
    tracee.resume()


# Coherence with the tool's own writes

WORD = struct.Struct("=Q")


def ways_to_write(
    tracee: procvm.Tracee, held: procvm.Held, address: int, old: int, new: int
) -> dict[str, Use]:
    """Returns every way to make the word at an address, which is `old`, be `new`."""
    spaces = {
        "held": held.vm,
        "plain": tracee.vm,
        "held forced": held.vm.forced(),
        "forced": tracee.vm.forced(),
    }
    ways: dict[str, Use] = {}
    for name, vm in spaces.items():
        some = _ways_to_write(vm, address, old, new)
        ways |= {f"{name} {way}": use for way, use in some.items()}
    return ways


def _ways_to_write(vm: VmSpace, address: int, old: int, new: int) -> dict[str, Use]:
    data = WORD.pack(new)

    def by_array() -> int:
        parts = [vm.writer(address, 3), vm.writer(address + 3, 5)]
        return VmWriterArray(parts).write(VmReader.from_buffer(data))

    def filled() -> None:
        vm.fill_zeros(address, 8)
        vm.write_val(address + 1, u8_array(7), u8_array(7).from_buffer_copy(data[1:]))
        vm.write_val(address, u8, data[0])

    return {
        "write_val": lambda: vm.write_val(address, u64, new),
        "halves": lambda: vm.write_slice(address, u32, struct.unpack("=II", data)),
        "write_bytes": lambda: vm.write_bytes(address, data),
        "write": lambda: vm.write(address, VmReader.from_buffer(data)),
        "cursor": lambda: vm.writer(address, 8).write_val(u64, new),
        "cursor bytes": lambda: vm.writer(address, 8).write_bytes(data),
        "structure": lambda: vm.write_val(address, u8_array(8), u8_array(8).from_buffer_copy(data)),
        "array": by_array,
        "zeros": filled,
        "exchange": lambda: vm.atomic_compare_exchange(address, u64, old, new),
        "update": lambda: vm.atomic_fetch_update(address, u64, lambda _: new),
        "scatter": lambda: vm.scatter([address], u64, [new]),
    }


@pytest.mark.parametrize("kind", ["rw", "file", "srw"])
def test_every_write_is_seen_at_once(
    playground: Playground, tracee: procvm.Tracee, kind: str
) -> None:
    """By each space and each way to write, all ways to read see it, and so does the target."""
    base = playground.layout(f"{kind} {kind}")
    address = base + PAGE - 8
    playground.poke(address, WORD.pack(0))
    with tracee.stopped() as held:
        old = 0
        for number, way in enumerate(ways_to_write(tracee, held, address, 0, 0), 1):
            around = held.vm.read_bytes(address - 8, 24)
            assert around[8:16] == WORD.pack(old), way
            new = number * 0x0101_0101_0101_0101
            try:
                ways_to_write(tracee, held, address, old, new)[way]()
            except procvm.SharedMemoryError:
                assert kind == "srw"  # there an atomic may be refused
                continue
            found = {how: read() for how, read in ways_to_read(held.vm, address - 8, 24).items()}
            expected = around[:8] + WORD.pack(new) + around[16:]
            assert found == dict.fromkeys(found, expected), way
            old = new
    assert playground.peek(address, 8) == WORD.pack(old)


def test_a_write_over_many_pages_is_seen_in_each(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """Ranges over pages kept and not, more of them than are kept, and up to a fault."""
    base = playground.layout(" ".join(["rw"] * 12) + " r rw")
    expected = bytearray(pattern(base, 14 * PAGE))
    with tracee.stopped() as held:
        for first, n in ((1, 2 * PAGE), (PAGE - 1, 2), (5, 11 * PAGE), (10 * PAGE, 4 * PAGE)):
            for k in (0, 1, 2, 3, 10, 11, 12, 13):
                held.vm.read_val(base + k * PAGE, u64)
            data = random.Random(n).randbytes(n)
            good = max(min(12 * PAGE - first, n), 0)
            found = outcome(lambda: tracee.vm.write_bytes(base + first, data))  # noqa: B023
            assert found is None if good == n else found[2]["copied_len"] == good
            expected[first : first + good] = data[:good]
            for k in range(14):
                assert held.vm.read_bytes(base + k * PAGE, PAGE) == expected[k * PAGE :][:PAGE]
                assert (
                    held.vm.read_val(base + k * PAGE, u64)
                    == WORD.unpack_from(expected, k * PAGE)[0]
                )
    assert playground.peek(base, 14 * PAGE) == expected


def test_a_copy_within_the_target_is_seen_at_once(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """From held.vm to the plain space and back, over borders and over itself."""
    base = playground.layout("rw rw rw")
    expected = bytearray(pattern(base, 3 * PAGE))
    with tracee.stopped() as held:
        for source, dest, n in ((0, PAGE, PAGE), (8, 16, 2 * PAGE), (PAGE - 8, 3, PAGE + 9)):
            for reading, writing in ((held.vm, tracee.vm), (tracee.vm, held.vm)):
                assert held.vm.read_bytes(base, 3 * PAGE) == expected
                reader, writer = reading.reader(base + source, n), writing.writer(base + dest, n)
                assert reader.read_fallible(writer) == n
                expected[dest : dest + n] = bytes(expected[source : source + n])
                assert_all_read(held.vm, base + dest, bytes(expected[dest : dest + 64]))
    assert playground.peek(base, 3 * PAGE) == expected


def test_threads_of_the_tool_see_each_others_writes(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """While a thread counts up, no other reads it go down; in the end all see it.

    The writer sees each of its own writes; pages come and go meanwhile.
    """
    base = playground.layout("rw rw rw rw")
    playground.poke(base + 8, WORD.pack(0))
    wrong: list[object] = []
    last = 1500

    def read() -> None:
        try:
            before = 0
            reader = held.vm.reader(base + 8, 8)
            while before < last and not wrong:
                held.vm.read_val(base + PAGE * (1 + before % 3), u64)
                for now in (
                    held.vm.read_val(base + 8, u64),
                    WORD.unpack(held.vm.read_bytes(base + 8, 8))[0],
                    reader.clone().read_val(u64),
                ):
                    if now < before:
                        wrong.append(("it went down", before, now))
                    before = now
        except BaseException as error:  # noqa: BLE001 (shown by the test's thread)
            wrong.append(error)

    with tracee.stopped(cache_len=2 * PAGE) as held:
        spaces = [tracee.vm, held.vm, tracee.vm.forced()]
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, last + 1):
            spaces[number % 3].write_val(base + 8, u64, number)
            found = held.vm.read_val(base + 8, u64)
            if found != number:
                wrong.append(("the writer's own", number, found))
        for thread in threads:
            thread.join()
        assert wrong == []
        assert held.vm.read_val(base + 8, u64) == last
    assert playground.peek(base + 8, 8) == WORD.pack(last)


def test_threads_that_read_through_one_space_read_right(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """Four threads over 24 pages of which 3 can be kept read each value right."""
    pages = 24
    base = playground.layout(" ".join(["rw"] * pages))
    there = pattern(base, pages * PAGE)
    wrong: list[object] = []

    def read(seed: int) -> None:
        try:
            chance = random.Random(seed)
            for _ in range(600):
                offset = chance.randrange(pages * PAGE - 64)
                pod = chance.choice(PODS)
                if not is_value(
                    pod, held.vm.read_val(base + offset, pod), there[offset:][: size_of(pod)]
                ):
                    wrong.append((offset, pod))
                if held.vm.read_bytes(base + offset, 64) != there[offset : offset + 64]:
                    wrong.append((offset, 64))
        except BaseException as error:  # noqa: BLE001 (shown by the test's thread)
            wrong.append(error)

    with tracee.stopped(cache_len=3 * PAGE) as held:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        held.vm.read_val(base, u64)
        assert kept(held.vm) <= 3


# What happens at every point of a call: another thread gets its turn, or a signal handler does


def at_each_point(act: Use, meanwhile: Use, after: Callable[[int], None]) -> int:
    """Runs `act` again and again, with `meanwhile` at another one of its points each time.

    The points are those at which the interpreter lets another thread or a signal
    handler run: where a function begins, and where one of C has returned. `after`
    looks at what has become of it. Returns how many points there were.
    """
    point = 0
    while True:
        passed = 0

        def at_a_point(_frame: object, event: str, _arg: object) -> None:
            nonlocal passed
            if event in ("call", "c_return"):
                passed += 1
                if passed == point + 1:  # noqa: B023
                    sys.setprofile(None)
                    meanwhile()

        sys.setprofile(at_a_point)
        try:
            act()
        except Interrupted:
            pass
        finally:
            sys.setprofile(None)
        after(point)
        if passed <= point:
            return point
        point += 1


class Interrupted(BaseException):
    """What a signal handler raises, as KeyboardInterrupt is."""


class Words:
    """A word that the tool counts up, and what all ways to read see of it."""

    def __init__(self, tracee: procvm.Tracee, vm: VmSpace, address: int) -> None:
        self.tracee, self.vm, self.address = tracee, vm, address
        self.number = 0
        self.stale: list[tuple[int, int, int]] = []

    def write(self) -> None:
        self.number += 1
        self.tracee.vm.write_val(self.address, u64, self.number)

    def look(self, point: int = -1) -> None:
        """Notes what is not as the target has it."""
        there = self.tracee.vm.read_val(self.address, u64)
        for found in (
            self.vm.read_val(self.address, u64),
            WORD.unpack(self.vm.read_bytes(self.address, 8))[0],
            self.vm.read_val(self.address, u64),
        ):
            if found != there:
                self.stale.append((point, there, found))


@pytest.mark.parametrize("how", ["value", "bytes", "structure", "cursor"])
@pytest.mark.parametrize("first", ["forget", "keep"])
def test_a_write_at_any_point_of_a_read_is_seen_afterwards(
    playground: Playground, tracee: procvm.Tracee, how: str, first: str, request: Any
) -> None:
    """Another thread writes and reads in the middle of a read: no later read gives what was."""
    base = playground.layout("rw rw")
    with tracee.stopped() as held:
        words = Words(tracee, held.vm, base + 8)
        reader = held.vm.reader(base + 8, 8)
        ways: dict[str, Use] = {
            "value": lambda: held.vm.read_val(base + 8, u64),
            "bytes": lambda: held.vm.read_bytes(base + 8, 8),
            "structure": lambda: held.vm.read_val(base + 8, u8_array(8)),
            "cursor": lambda: reader.clone().read_val(u64),
        }

        def act() -> None:
            if first == "forget":
                words.write()
            ways[how]()

        def meanwhile() -> None:
            words.write()
            words.look()

        assert at_each_point(act, meanwhile, words.look) > 3
        assert words.stale == []


@pytest.mark.parametrize("how", ["value", "bytes", "forced", "exchange", "zeros", "vector"])
def test_a_read_at_any_point_of_a_write_keeps_nothing_old(
    playground: Playground, tracee: procvm.Tracee, how: str
) -> None:
    """Another thread reads in the middle of a write: once it is done, all read what was written."""
    base = playground.layout("rw rw")
    with tracee.stopped() as held:
        words = Words(tracee, held.vm, base + 8)
        words.write()

        def act() -> None:
            words.number += 1
            vm, data = tracee.vm, WORD.pack(words.number)
            if how == "value":
                vm.write_val(base + 8, u64, words.number)
            elif how == "bytes":
                vm.write_bytes(base + 8, data)
            elif how == "forced":
                vm.forced().write_bytes(base + 8, data)
            elif how == "exchange":
                vm.atomic_fetch_update(base + 8, u64, lambda old: old + 1)
            elif how == "zeros":
                vm.fill_zeros(base + 8, 8)
            else:
                VmWriterArray([vm.writer(base + 8, 8)]).write(VmReader.from_buffer(data))

        def meanwhile() -> None:
            held.vm.read_val(base + 8, u64)
            held.vm.read_bytes(base + 8, 8)

        assert at_each_point(act, meanwhile, words.look) > 3
        assert words.stale == []


@pytest.mark.parametrize("how", ["value", "bytes"])
def test_no_thread_reads_back_in_time_while_another_one_writes(
    playground: Playground, tracee: procvm.Tracee, how: str
) -> None:
    """In the middle of a write: what the plain space has given held.vm gives as well, or newer."""
    base = playground.layout("rw rw")
    back: list[tuple[int, int]] = []
    with tracee.stopped() as held:
        words = Words(tracee, held.vm, base + 8)
        words.write()

        def act() -> None:
            held.vm.read_val(base + 8, u64)  # it is kept now
            words.number += 1
            if how == "value":
                tracee.vm.write_val(base + 8, u64, words.number)
            else:
                tracee.vm.write_bytes(base + 8, WORD.pack(words.number))

        def meanwhile() -> None:
            held.vm.read_val(base + 8, u64)  # also where it was forgotten just now
            first = tracee.vm.read_val(base + 8, u64)
            then = held.vm.read_val(base + 8, u64)
            if then < first:
                back.append((first, then))

        at_each_point(act, meanwhile, words.look)
        assert words.stale == []
        assert back == []


@pytest.mark.parametrize("how", ["value", "bytes"])
def test_an_interrupted_write_is_seen_as_far_as_it_came(
    playground: Playground, tracee: procvm.Tracee, how: str
) -> None:
    """A signal handler raises at any point of a write: held.vm reads what the target has then."""
    base = playground.layout("rw rw")
    with tracee.stopped() as held:
        words = Words(tracee, held.vm, base + 8)

        def act() -> None:
            held.vm.read_val(base + 8, u64)  # it is kept now
            words.number += 1
            if how == "value":
                tracee.vm.write_val(base + 8, u64, words.number)
            else:
                tracee.vm.write_bytes(base + 8, WORD.pack(words.number))

        def meanwhile() -> None:
            raise Interrupted

        at_each_point(act, meanwhile, words.look)
        assert words.stale == []


def test_an_interrupted_exchange_is_seen_as_far_as_it_came(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """A signal handler raises at any point of an atomic: held.vm is right, and atomics go on."""
    base = playground.layout("rw rw")
    with tracee.stopped() as held:
        words = Words(tracee, held.vm, base + 8)
        refused: list[str] = []

        def act() -> None:
            held.vm.read_val(base + 8, u64)
            try:
                tracee.vm.atomic_fetch_update(base + 8, u64, lambda old: old + 1)
            except procvm.VmError as error:
                refused.append(str(error))

        def meanwhile() -> None:
            raise Interrupted

        at_each_point(act, meanwhile, words.look)
        assert words.stale == []
        assert refused == []


def test_pages_are_kept_at_any_point_of_the_keeping_of_another(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """Another thread reads or writes pages while one is thrown out: all get their values."""
    pages = 8
    base = playground.layout(" ".join(["rw"] * pages))
    wrong: list[object] = []
    with tracee.stopped(cache_len=2 * PAGE) as held:
        turn = 0

        def read() -> None:
            nonlocal turn
            turn += 1
            address = base + turn % pages * PAGE
            try:
                if held.vm.read_val(address, u64) != WORD.unpack(pattern(address, 8))[0]:
                    wrong.append(turn)
            except RuntimeError as error:
                wrong.append(error)

        def read_some() -> None:
            for _ in range(3):
                read()

        def after(_: int) -> None:
            read()
            assert kept(held.vm) <= 2

        at_each_point(read, read_some, after)
        everything = pattern(base, pages * PAGE)
        at_each_point(read, lambda: tracee.vm.write_bytes(base, everything), after)
    assert wrong == []


def test_a_hold_at_any_point_of_a_hold_sees_the_same_writes(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """Two threads hold at a time: what one of them writes both read."""
    base = playground.layout("rw rw")
    holds: list[procvm.Held] = []
    stale: list[tuple[int, list[int]]] = []
    number = 0

    def hold() -> None:
        holds.append(tracee.stopped())

    def after(point: int) -> None:
        nonlocal number
        for held in holds:
            held.vm.read_val(base, u64)
        number += 1
        tracee.vm.write_val(base, u64, number)
        found = [held.vm.read_val(base, u64) for held in holds]
        if found != [number] * len(holds):
            stale.append((point, found))
        for held in holds:
            held.close()
        holds.clear()

    at_each_point(hold, hold, after)
    assert stale == []


# Memory that others write


def test_shared_memory_is_read_anew_each_time() -> None:
    """Another process writes a shared page in the hold: every read gives what it just wrote."""
    with Target("fork") as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        with tracee.stopped() as held:
            for number in range(1, 20):
                target.put_from_beside(target.shared + 8, number)
                expected = bytes(8) + WORD.pack(number)
                assert_all_read(held.vm, target.shared, expected)
            # A forked child has a copy of what is private.
            assert held.vm.read_val(target.private, u64) == 0
            target.put_from_beside(target.private, 5)
            assert_all_read(held.vm, target.private, bytes(16))
        assert target.look(target.shared + 8) == 19
        assert target.look(target.private) == 0


@pytest.mark.parametrize("beside", ["refork", "lost", "sibling"])
def test_memory_that_another_process_shares_whole_is_read_anew(beside: str) -> None:
    """A CLONE_VM process writes in the hold, whatever its relation is: no read gives what was."""
    with Target(beside) as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        with tracee.stopped() as held:
            for number in range(1, 20):
                target.put_from_beside(target.private + 8, number)
                assert_all_read(held.vm, target.private, bytes(8) + WORD.pack(number))
                assert kept(held.vm) == 0
        assert target.look(target.private + 8) == 19


@pytest.mark.parametrize("writer", ["another process", "the target's shared mapping"])
def test_a_private_mapping_of_a_file_follows_the_file(
    playground: Playground, tracee: procvm.Tracee, tmp_path: Path, writer: str
) -> None:
    """The file is written in the hold: held.vm reads what the target reads right after it."""
    path = tmp_path / "file"
    path.write_bytes(b"A" * PAGE)
    private = playground.map_file(bytes(path), PAGE, "rw")
    shared = playground.map_file(bytes(path), PAGE, "srw")
    with tracee.stopped() as held:
        assert held.vm.read_bytes(private, 8) == b"A" * 8
        if writer == "another process":
            with path.open("r+b") as file:
                file.write(b"B" * 8)
        else:
            held.vm.write_bytes(shared, b"B" * 8)
        found = held.vm.read_bytes(private, 8)
    assert playground.peek(private, 8) == b"B" * 8
    assert found == b"B" * 8


# The target runs


def test_every_step_is_seen() -> None:
    """After each instruction of a thread that counts, held.vm reads the count that there is."""
    with Target() as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        word = target.private + 8
        target.count(tracee, word)
        with tracee.stopped() as held:
            seen = set()
            for _ in range(40):
                tracee.step()
                there = tracee.vm.read_val(word, u64)
                assert_all_read(held.vm, word - 8, bytes(8) + WORD.pack(there))
                seen.add(there)
            assert len(seen) >= 3
            assert seen == set(range(min(seen), max(seen) + 1))
        assert_free(target.pid)


@pytest.mark.parametrize("moving", ["step", "cont"])
def test_no_thread_reads_back_in_time_while_another_one_steps(moving: str) -> None:
    """At any point of a step or cont: what the plain space has given held.vm gives, or newer."""
    back: list[tuple[int, int]] = []
    with Target() as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        word = target.private + 8
        number = 0
        if moving == "step":
            target.count(tracee, word)
        with tracee.stopped() as held:

            def move() -> None:
                nonlocal number
                number += 1
                if moving == "step":
                    tracee.step()
                else:
                    tracee.cont()

            def meanwhile() -> None:
                first = tracee.vm.read_val(word, u64)
                then = outcome(lambda: held.vm.read_val(word, u64))
                if isinstance(then, int) and then < first:
                    back.append((first, then))

            def after(_: int) -> None:
                assert held.vm.read_val(word, u64) == tracee.vm.read_val(word, u64)
                if moving == "cont":
                    target.send(f"event {word:x} {number + 1:x}")

            after(0)
            for _ in range(8 if moving == "step" else 1):
                at_each_point(move, meanwhile, after)
    assert back == []


def test_what_happens_in_a_cont_is_seen() -> None:
    """The target goes on to an event and is held again: held.vm reads what it has written."""
    with Target() as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        word = target.private + 8
        with tracee.stopped() as held:
            for number in range(1, 8):
                assert held.vm.read_val(word, u64) == number - 1
                target.send(f"event {word:x} {number:x}")
                event = tracee.cont()
                assert event is not None
                assert (event.kind, event.tid, event.signo) == ("signal", target.pid, 10)
                assert_all_read(held.vm, word - 8, bytes(8) + WORD.pack(number))
                assert kept(held.vm) == 1
        assert [target.line() for _ in range(7)] == ["ok"] * 7
        assert target.look(word) == 7


def test_an_exec_in_a_cont_ends_what_was_kept() -> None:
    """The target runs another program: ProcessExecedError, never a byte of the old one."""
    with (
        Child(["/bin/sh", "-c", "read line; exec sleep 1000"]) as child,
        procvm.attach(child.pid, longest_hold=None) as tracee,
    ):
        stack = tracee.maps().filter(kind=procvm.Kind.STACK)[0].end - 64
        with tracee.stopped() as held:
            held.vm.read_bytes(stack, 64)
            child.send("go")
            event = tracee.cont()
            assert event is not None
            assert event.kind == "exec"
            for read in (
                lambda: held.vm.read_bytes(stack, 64),
                lambda: held.vm.read_val(stack, u64),
                lambda: held.vm.read_val(stack, Mixed),
            ):
                with pytest.raises(procvm.ProcessExecedError) as caught:
                    read()
                assert caught.value.pid == child.pid


def test_holds_that_nest_read_and_see_the_same(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """Each of three nested spaces sees what another one writes, also when the inner one is over."""
    base = playground.layout("rw")
    with tracee.stopped() as outer, tracee.stopped() as middle:
        with tracee.stopped() as inner:
            spaces = [outer.vm, middle.vm, inner.vm]
            for number, writing in enumerate([*spaces, tracee.vm] * 2):
                writing.write_val(base, u64, number)
                for vm in spaces:
                    assert vm.read_val(base, u64) == number
        assert tracee.is_stopped()
        for number, writing in enumerate(spaces, 100):
            writing.write_val(base, u64, number)
            for vm in spaces:
                assert_all_read(vm, base, WORD.pack(number))
    playground.poke(base, WORD.pack(7))
    for vm in spaces:
        assert_all_read(vm, base, WORD.pack(7))


def test_a_plain_stop_around_a_hold_keeps_the_space_right(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """stop() outlasts the with: the space is right until the resume and after it."""
    base = playground.layout("rw")
    tracee.stop()
    with tracee.stopped() as held:
        assert held.vm.read_val(base, u64) == WORD.unpack(pattern(base, 8))[0]
    tracee.vm.write_val(base, u64, 3)
    assert held.vm.read_val(base, u64) == 3
    tracee.resume()
    playground.poke(base, WORD.pack(4))
    assert_all_read(held.vm, base, WORD.pack(4))


# After the hold


def test_after_the_with_every_read_goes_to_the_target() -> None:
    """The target writes a word again and again: the old space and its cursors read each value."""
    with Target() as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        with tracee.stopped() as held:
            reader = held.vm.reader(target.private, 8)
            assert_all_read(held.vm, target.private, bytes(8))
            assert reader.clone().read_val(u64) == 0
        for number in range(1, 10):
            target.put(target.private, number)
            assert_all_read(held.vm, target.private, WORD.pack(number))
            assert reader.clone().read_val(u64) == number
            if number % 3 == 0:
                # Another hold is none of the old space's.
                with tracee.stopped() as again:
                    assert_all_read(again.vm, target.private, WORD.pack(number))
                    assert_all_read(held.vm, target.private, WORD.pack(number))
        assert_free(target.pid)


def test_a_dropped_hold_leaves_a_space_that_reads_the_target(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """The space does not keep the hold: dropping the object of the with lets the target run."""
    base = playground.layout("rw")
    held = tracee.stopped()
    vm = held.vm
    assert vm.read_val(base, u64) == WORD.unpack(pattern(base, 8))[0]
    held.close()
    del held
    assert_free(playground.pid)
    playground.poke(base, WORD.pack(8))
    assert_all_read(vm, base, WORD.pack(8))


def test_a_new_hold_sees_new_mappings(playground: Playground, tracee: procvm.Tracee) -> None:
    """Pages unmapped, protected, made shared or mapped anew between two holds are what they are."""
    base = playground.layout("rw rw rw rw")
    with tracee.stopped() as held:
        assert held.vm.read_bytes(base, 4 * PAGE) == pattern(base, 4 * PAGE)
        assert kept(held.vm) == 4
    old = held.vm
    playground.unmap(base, PAGE)
    playground.protect(base + PAGE, PAGE, "none")
    playground.map(base + 2 * PAGE, PAGE)
    with tracee.stopped() as held:
        for vm in (held.vm, old):
            for page in (0, 1):
                with pytest.raises(procvm.PageFaultError) as caught:
                    vm.read_val(base + page * PAGE, u64)
                assert (caught.value.address, caught.value.copied_len) == (base + page * PAGE, 0)
            assert vm.read_bytes(base + 2 * PAGE, PAGE) == bytes(PAGE)
            assert vm.read_bytes(base + 3 * PAGE, PAGE) == pattern(base + 3 * PAGE, PAGE)
        assert kept(held.vm) == 2
    playground.map(base, 2 * PAGE)
    playground.poke(base, b"x" * 2 * PAGE)
    with tracee.stopped() as held:
        assert held.vm.read_bytes(base, 3 * PAGE) == b"x" * 2 * PAGE + bytes(PAGE)


def _expired(playground: Playground, tracee: procvm.Tracee) -> None:
    assert eventually(lambda: is_free(playground.pid))
    assert not tracee.is_stopped()


def test_a_hold_whose_longest_time_was_over_is_told(playground: Playground) -> None:
    """NotStoppedError by every way to read, kept or not, and no cursor moves; then all is well."""
    base = playground.layout(" ".join(["rw"] * 8))
    with procvm.attach(playground.pid, longest_hold=0.05) as tracee:
        with hold_that_ends_early(tracee) as held:
            reader = held.vm.reader(base, PAGE)
            assert reader.read_val(u64) == held.vm.read_val(base, u64)
            _expired(playground, tracee)
            playground.poke(base, WORD.pack(1))
            for address in (base, base + PAGE, base - PAGE):
                for way, read in ways_to_read(held.vm, address, 16).items():
                    with pytest.raises(procvm.NotStoppedError) as caught:
                        read()
                    assert (caught.value.pid, caught.value.copied_len) == (playground.pid, 0), way
            with pytest.raises(procvm.NotStoppedError):
                held.vm.read_bytes(base, 8 * PAGE)
            buffer = bytearray(b"\xee" * 16)
            writer = VmWriter.from_buffer(buffer)
            for use in (
                lambda: reader.read_val(u64),
                lambda: reader.read_bytes(16),
                lambda: reader.read_fallible(writer),
            ):
                with pytest.raises(procvm.NotStoppedError):
                    use()
                assert (reader.cursor(), writer.avail()) == (base + 8, 16)
            assert buffer == b"\xee" * 16
            # Others go on, and another hold is not the one that was lost.
            assert tracee.vm.read_val(base, u64) == 1
            with tracee.stopped() as again:
                assert again.vm.read_val(base, u64) == 1
                with pytest.raises(procvm.NotStoppedError):
                    held.vm.read_val(base, u64)
        assert_all_read(held.vm, base, WORD.pack(1))
        assert reader.cursor() == base + 8


@pytest.mark.parametrize(
    "how",
    [
        "kept",
        "not kept",
    ],
)
def test_the_tracer_is_killed_in_the_hold(playground: Playground, how: str) -> None:
    """No read gives what was before: NotStoppedError, or what the target has."""
    base = playground.layout("rw rw")
    with procvm.attach(playground.pid, longest_hold=None) as tracee:
        with hold_that_ends_early(tracee) as held:
            if how == "kept":
                held.vm.read_bytes(base, 2 * PAGE)
                held.vm.read_val(base, u64)
            tracer = tracer_of(playground.pid)
            os.kill(tracer, signal.SIGKILL)
            assert eventually(lambda: has_ended(tracer))
            assert_free(playground.pid)
            for number in range(3):
                playground.poke(base, WORD.pack(number) * 2)
                for way, read in ways_to_read(held.vm, base, 16).items():
                    found = outcome(read)
                    if found != WORD.pack(number) * 2:
                        assert found[0] is procvm.NotStoppedError, (way, found)
        playground.poke(base, WORD.pack(9))
        with contextlib.suppress(procvm.NotTracedError):
            tracee.is_stopped()  # the first to hear of it
        with tracee.stopped() as held:
            assert_all_read(held.vm, base, WORD.pack(9))
        assert_free(playground.pid)


def test_the_target_is_killed_in_the_hold(playground: Playground) -> None:
    """Never a byte that is not the target's; after the hold, that it ended."""
    base = playground.layout("rw rw")
    with procvm.attach(playground.pid, longest_hold=None) as tracee:
        with tracee.stopped() as held:
            held.vm.read_val(base, u64)
            playground.popen.kill()
            assert playground.popen.wait() == -signal.SIGKILL
            for address in (base, base + PAGE):
                for way, read in ways_to_read(held.vm, address, 16).items():
                    found = outcome(read)
                    if found != pattern(address, 16):
                        assert found[0] in _ENDED, (way, found)
            assert eventually(lambda: not tracee.is_stopped())
            for read in ways_to_read(held.vm, base, 16).values():
                assert outcome(read)[0] in _ENDED
        for read in ways_to_read(held.vm, base, 16).values():
            with pytest.raises(procvm.ProcessExitedError) as caught:
                read()
            assert caught.value.pid == playground.pid


_ENDED = (procvm.ProcessExitedError, procvm.NotStoppedError)


def test_a_target_that_ended_in_the_hold_is_not_told_to_be_held_again(
    playground: Playground,
) -> None:
    """Once the hold ended with the target, the error is ProcessExitedError."""
    base = playground.layout("rw rw")
    with procvm.attach(playground.pid, longest_hold=None) as tracee, tracee.stopped() as held:
        held.vm.read_val(base, u64)
        playground.popen.kill()
        playground.popen.wait()
        assert eventually(lambda: not tracee.is_stopped())
        found = outcome(lambda: held.vm.read_val(base, u64))
        assert found[0] is procvm.ProcessExitedError


def test_after_close_nothing_that_was_kept_is_read(playground: Playground) -> None:
    """After close() in the hold no read gives a value; after the with: ClosedError."""
    base = playground.layout("rw rw")
    tracee = procvm.attach(playground.pid, longest_hold=None)
    with tracee.stopped() as held:
        reader = held.vm.reader(base, 16)
        assert reader.clone().read_val(u64) == held.vm.read_val(base, u64)
        tracee.close()
        assert_free(playground.pid)
        for read in ways_to_read(held.vm, base, 16).values():
            with pytest.raises((procvm.ClosedError, procvm.NotStoppedError)):
                read()
        with pytest.raises(procvm.ClosedError):
            held.vm.write_val(base, u64, 1)
    uses: list[Use] = [*ways_to_read(held.vm, base, 16).values(), lambda: reader.read_val(u64)]
    for use in uses:
        with pytest.raises(procvm.ClosedError):
            use()
    assert reader.cursor() == base
    assert playground.peek(base, 16) == pattern(base, 16)


def test_a_closed_tracee_is_told_to_be_closed(playground: Playground) -> None:
    """Tracee.close() in the hold: every read raises ClosedError at once."""
    base = playground.layout("rw rw")
    tracee = procvm.attach(playground.pid, longest_hold=None)
    with tracee.stopped() as held:
        held.vm.read_val(base, u64)
        tracee.close()
        for read in ways_to_read(held.vm, base, 16).values():
            assert outcome(read)[0] is procvm.ClosedError


def test_a_forked_child_of_the_tool_reads_nothing_that_was_kept(
    playground: Playground, tracee: procvm.Tracee
) -> None:
    """In a forked child of the tool a kept page is ClosedError; the tool reads on."""
    base = playground.layout("rw rw")
    with tracee.stopped() as held:
        expected = held.vm.read_val(base, u64)
        child = fork()
        if child == 0:
            status = 1
            try:
                held.vm.read_val(base, u64)
            except procvm.ClosedError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert held.vm.read_val(base, u64) == expected
        assert tracee.is_stopped()


def test_another_tool_can_not_make_the_space_stale(playground: Playground) -> None:
    """What another tool wrote between two holds of ours is read."""
    base = playground.layout("rw")
    with procvm.attach(playground.pid, longest_hold=None) as tracee:
        with tracee.stopped() as held:
            before = held.vm.read_val(base, u64)
        with Tool("hold", playground.pid) as tool:
            tool.line()
            with procvm.open(playground.pid) as process:
                process.vm.write_val(base, u64, before ^ 1)
            assert held.vm.read_val(base, u64) == before ^ 1
            with pytest.raises(procvm.AlreadyTracedError):
                tracee.stopped()
            assert held.vm.read_val(base, u64) == before ^ 1
            tool.send("plain")
            assert tool.popen.wait() == 0
        assert_free(playground.pid)  # its tracer lets go a moment after its end
        with tracee.stopped() as held:
            assert held.vm.read_val(base, u64) == before ^ 1


# The tool's own buffer


def test_an_own_buffer_that_faults_is_told_as_ours(playground: Playground) -> None:
    """A read into a mapping of a file that was made shorter: PageFaultError, as without a hold."""
    base = playground.layout("rw rw")
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * PAGE)
        pages = mmap.mmap(file.fileno(), 2 * PAGE)
        file.truncate(PAGE)
    view = memoryview(pages)[PAGE - 8 : PAGE + 8]
    own = VmWriter.from_buffer(pages).cursor()

    def read_into(vm: VmSpace) -> bool:
        try:
            vm.read_into(base, view)
        except procvm.PageFaultError as error:
            return (error.address, error.copied_len) == (own + PAGE, 8)
        return False

    def use(tracee: procvm.Tracee, say: Callable[[str], None]) -> None:
        held = tracee.stopped()
        held.vm.read_val(base, u64)
        if not (read_into(tracee.vm) and read_into(held.vm)):
            raise AssertionError("another outcome")
        say("end")

    # In a child, which may end by it.
    assert in_a_fork_without_calls(playground.pid, use) == ("end", 0)
    assert_free(playground.pid)


# At length


def test_a_list_of_10000_nodes_is_walked_as_by_the_plain_space() -> None:
    """All nodes in order, by value and by structure: as tracee.vm gives them and the target has."""

    class Node(ctypes.Structure):
        _fields_ = (("next", ctypes.c_size_t), ("value", ctypes.c_uint64))

    def walk(vm: VmSpace) -> list[tuple[int, int]]:
        found = []
        at = target.head
        while at:
            found.append((at, vm.read_val(at + 8, u64)))
            at = vm.read_val(at, procvm.usize)
        return found

    def walk_whole(vm: VmSpace) -> list[tuple[int, int]]:
        found = []
        at = target.head
        while at:
            node = vm.read_val(at, Node)
            found.append((at, node.value))
            at = node.next
        return found

    with Target() as target, procvm.attach(target.pid, longest_hold=None) as tracee:
        for cache_len in (1 << 20, 64 * PAGE):
            with tracee.stopped(cache_len=cache_len) as held:
                by_held = walk(held.vm)
                assert by_held == walk_whole(held.vm)
                assert kept(held.vm) <= cache_len // PAGE
        assert by_held == walk(tracee.vm)
        assert [value for _, value in by_held] == [k * k + 1 for k in range(10000)]
        total = sum(value for _, value in by_held)
        assert target.ask("walk") == f"{len(by_held)} {total}"


class Released(Playground):
    """A playground whose hold ends before it is asked anything: it could not answer."""

    def __init__(self) -> None:
        self.let_go: Use = lambda: None
        super().__init__()

    def ask(self, line: str) -> str:
        self.let_go()
        return super().ask(line)


class HeldModel(Model):
    """The model of tests/test_model.py over held.vm, the plain space and their forced() in turn.

    A hold lasts over many rules, until the child has to be asked or to change.
    """

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        self.child = Released()
        self.child.let_go = self.let_go
        self.tracee = procvm.attach(self.child.pid, longest_hold=None)
        self.process = self.tracee
        self.base = 0
        self.pages = []
        self.data = bytearray(SIZE)
        self.held: list[procvm.Held] = []
        self.cache_len = 3 * PAGE
        self.which = "held"

    def teardown(self) -> None:
        self.all_is_as_the_model_has_it()
        self.let_go()
        super().teardown()

    @property
    def vm(self) -> VmSpace:  # type: ignore[override]
        """The space whose turn it is."""
        if self.which == "plain":
            return self.tracee.vm
        if not self.held:
            self.held.append(self.tracee.stopped(cache_len=self.cache_len))
        return self.held[-1].vm

    def let_go(self) -> None:
        for held in self.held:
            held.close()
        self.held.clear()

    def the_child_has_what_the_model_has(self) -> None:
        """Is asked when a hold ends, not after each rule, which would end each hold."""

    def all_is_as_the_model_has_it(self) -> None:
        Model.the_child_has_what_the_model_has(self)

    @rule(
        which=st.sampled_from(["held", "held", "plain"]),
        cache_len=st.sampled_from([0, PAGE, 3 * PAGE, 1 << 20]),
    )
    def take_turns(self, which: str, cache_len: int) -> None:
        self.which, self.cache_len = which, cache_len

    @rule()
    def nest(self) -> None:
        if self.held:
            self.held.append(self.tracee.stopped())

    @rule()
    def end_the_hold(self) -> None:
        self.all_is_as_the_model_has_it()

    @rule(word=st.integers(0, SIZE // 8 - 1), seed=st.integers(0, 2**64 - 1), good=st.booleans())
    def exchange(self, word: int, seed: int, good: bool) -> None:
        offset = word * 8
        page = self.pages[offset // PAGE]
        if page.behind != "private" or not (page.read and page.write):
            return
        old = WORD.unpack_from(self.data, offset)[0]
        expected = old if good else old ^ 1
        found = self.vm.atomic_compare_exchange(self.base + offset, u64, expected, seed)
        assert found == (old, good)
        if good:
            self.put(offset, WORD.pack(seed))


TestHeldModel = HeldModel.TestCase
TestHeldModel.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
