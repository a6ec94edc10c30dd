"""Wrong arguments of the memory side: each is refused, and the message says what to write."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import procvm
from procvm import (
    Infallible,
    InvalidArgsError,
    Pod,
    Segment,
    VmReader,
    VmReaderArray,
    VmSpace,
    VmWriter,
    VmWriterArray,
    f32,
    f64,
    i8,
    u8,
    u32,
    u64,
)
from procvm._base.address import PAGE_SIZE
from procvm._mm.cursor import memory_of
from tests.support.fakes import BASE, Holed

SPACE: Any = VmSpace(Holed("rw rw"))
SEGMENT: Any = Segment.alloc(1)


def reader_of(n: int = 8) -> Any:
    """A reader of own memory."""
    return VmReader.from_buffer(bytes(n))


def writer_of(n: int = 8) -> Any:
    """A writer of own memory."""
    return VmWriter.from_buffer(bytearray(n))


NOT_CURSORS: list[tuple[str, str, Callable[[], object]]] = [
    ("vm.read(a, 16)", "read_bytes(address, n)", lambda: SPACE.read(BASE, 16)),
    ("vm.read(a, buffer)", "read_into(address, buffer)", lambda: SPACE.read(BASE, bytearray(4))),
    ("vm.read(a, reader)", "VmWriter.from_buffer", lambda: SPACE.read(BASE, reader_of())),
    ("vm.write(a, bytes)", "write_bytes(address, data)", lambda: SPACE.write(BASE, b"x")),
    ("vm.write(a, text)", "write_bytes(address, data)", lambda: SPACE.write(BASE, "x")),
    ("vm.write(a, writer)", "VmReader.from_buffer", lambda: SPACE.write(BASE, writer_of())),
    ("segment.read(0, 4)", "read_bytes(offset, n)", lambda: SEGMENT.read(0, 4)),
    ("segment.write(0, bytes)", "write_bytes(offset, data)", lambda: SEGMENT.write(0, b"x")),
    ("reader.read(4)", "read_bytes(n)", lambda: reader_of().read(4)),
    ("reader.read(reader)", "VmWriter.from_buffer", lambda: reader_of().read(reader_of())),
    ("reader.read_fallible(buffer)", "VmWriter.from_buffer(buffer)",
     lambda: SPACE.reader(BASE, 8).read_fallible(bytearray(4))),
    ("own.read_fallible(buffer)", "read_bytes(n)", lambda: reader_of().read_fallible(bytearray(4))),
    ("writer.write(bytes)", "write_bytes(data)", lambda: writer_of().write(b"x")),
    ("writer.write_fallible(None)", "write_bytes(data)",
     lambda: SPACE.writer(BASE, 8).write_fallible(None)),
    ("reader.copy_to(5)", "VmWriter.from_buffer", lambda: reader_of().copy_to(5)),
    ("exchange(address)", "VmReader", lambda: SPACE.writer(BASE, 8).atomic_compare_exchange(
        BASE, u32, 0, 1)),
    ("VmReaderArray([bytes])", "VmReader.from_buffer", lambda: VmReaderArray([b"abc"])),  # type: ignore[list-item]
    ("VmReaderArray([None])", "VmReader.from_buffer", lambda: VmReaderArray([None])),  # type: ignore[list-item]
    ("VmReaderArray([writer])", "VmReader.from_buffer", lambda: VmReaderArray([writer_of()])),
    ("VmWriterArray([-1])", "VmWriter.from_buffer", lambda: VmWriterArray([-1])),  # type: ignore[list-item]
    ("VmWriterArray([reader])", "VmWriter.from_buffer", lambda: VmWriterArray([reader_of()])),
    ("array.read(buffer)", "a VmWriterArray", lambda: VmReaderArray([reader_of()]).read(
        bytearray(4))),  # type: ignore[arg-type]
    ("array.write([bytes])", "a VmReaderArray", lambda: VmWriterArray([writer_of()]).write(
        [b"x"])),  # type: ignore[arg-type]
    ("VmReader(bytes)", "VmReader.from_buffer", lambda: VmReader(b"abc", 0, 3, Infallible)),  # type: ignore[arg-type]
    ("VmWriter(pid)", "vm.writer(address, n)", lambda: VmWriter(1, 0, 3, Infallible)),  # type: ignore[arg-type]
    ("VmSpace(pid)", "procvm.open(pid)", lambda: VmSpace(os.getpid())),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize(
    ("instead", "call"), [row[1:] for row in NOT_CURSORS], ids=[row[0] for row in NOT_CURSORS]
)
def test_cursor_wrong_type_is_a_type_error_that_names_another_call(
    instead: str, call: Callable[[], object]
) -> None:
    """Neither an AttributeError from the inside nor a later one: the message has the way out."""
    with pytest.raises(TypeError) as caught:
        call()
    assert instead in str(caught.value)


def test_process_of_a_pid_is_a_type_error_and_its_destructor_is_quiet() -> None:
    """Process(pid) names procvm.open, and the half-made object says nothing as it goes."""
    code = "import os, procvm\nprocvm.Process(os.getpid())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.count("Traceback") == 1
    assert "TypeError: cannot make a Process from a int; use procvm.open(pid)" in done.stderr


def cursors() -> list[Any]:
    """A cursor of every kind of memory, over 8 bytes."""
    with Segment.alloc(1) as segment:
        own = [segment.reader().limit(8), segment.writer().limit(8)]
    return [
        *(reader_of(), writer_of(), reader_of().to_fallible(), *own),
        *(SPACE.reader(BASE, 8), SPACE.writer(BASE, 8)),
    ]


def test_cursor_public_methods_never_leave_its_range() -> None:
    """Whatever number is given to whatever public method, 0 to 8 bytes are left of 8."""
    for number in (-(1 << 64), -9, -1, 0, 3, 8, 9, 100, 1 << 63, 1 << 64):
        for cursor in cursors():
            start = cursor.cursor()
            for name in dir(cursor):
                if name.startswith("_") or name in ("from_kernel_space", "from_user_space"):
                    continue
                for arguments in ((number,), ()):
                    try:
                        getattr(cursor, name)(*arguments)
                    except (TypeError, ValueError, procvm.ProcvmError):
                        continue
            assert start <= cursor.cursor() <= start + 8, number
            assert 0 <= cursor.left() <= start + 8 - cursor.cursor(), number


def test_cursor_made_over_own_memory_outside_of_it_is_refused() -> None:
    """A second cursor over the memory of a first cannot be made longer than it."""
    for kind, first in ((VmReader, reader_of()), (VmWriter, writer_of())):
        memory, at = memory_of(first), first.cursor()
        for address, n in ((at, 9), (at - 1, 4), (at + 8, 1), (0, 8), (at, -1), (at, 1 << 64)):
            with pytest.raises((InvalidArgsError, procvm.AddressOverflowError)):
                kind(memory, address, n, Infallible)
        assert kind(memory, at + 8, 0, Infallible).left() == 0


def test_pod_of_pointers_is_refused_however_it_is_made() -> None:
    """A Pod made by hand checks its type as u8 to f64 and read_val do."""
    for ctype in (ctypes.py_object, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)):
        with pytest.raises(TypeError, match="a pointer of this process"):
            Pod("made", ctype)
    with pytest.raises(ValueError, match="not as long as c_ubyte"):
        Pod("made", ctypes.c_uint8, "Q")


class Index:
    """A number that can be used as an index, and nothing else."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


class Float(float):
    """A float of another type."""


def test_search_value_of_any_number_type_is_the_number() -> None:
    """search, scan and refine find an object with __index__ as they find the int."""
    words = Segment.alloc(1)
    words.write_slice(0, u64, [5, 7654321, 5, 9])
    ranges = [(words.address, words.address + PAGE_SIZE)]
    found = [words.address + 8]
    with procvm.open(os.getpid()) as process:
        vm = process.vm
        for number in (7654321, Index(7654321), np.int32(7654321), np.uint64(7654321)):
            for kind in (u64, np.dtype("u8")):
                assert list(vm.search(kind, value=number, ranges=ranges, align=8)) == found
                assert list(vm.search(kind, value=number, ranges=ranges)) == found
                assert list(vm.scan(kind, value=number, ranges=ranges)) == found
                assert list(vm.scan(kind, ranges=ranges).refine(value=number)) == found
                bounds = (number, number)
                assert list(vm.search(kind, value=bounds, ranges=ranges, align=8)) == found
                assert list(vm.scan(kind, ranges=ranges).refine(value=bounds)) == found
        for half in (7654320.5, Fraction(15308641, 2), Float(7654320.5)):
            around = (half, 7654321.5)
            assert list(vm.search(u64, value=around, ranges=ranges, align=8)) == found
        with pytest.raises(TypeError):
            vm.search(u64, value="7654321", ranges=ranges)  # type: ignore[misc]
        with pytest.raises(TypeError):
            vm.search(u64, value=7654321.5, ranges=ranges)  # type: ignore[misc]
    words.close()


def test_search_value_index_in_floats_is_the_number() -> None:
    """An f32 and an f64 are found by an object that has __index__ alone."""
    page = Segment.alloc(1)
    page.write_val(16, f32, 3.0)
    page.write_val(32, f64, 3.0)
    ranges = [(page.address, page.address + PAGE_SIZE)]
    with procvm.open(os.getpid()) as process:
        for kind, at in ((f32, 16), (f64, 32)):
            found = process.vm.search(kind, value=Index(3), ranges=ranges, align=4)
            assert [hit - page.address for hit in found] == [at]
            found = process.vm.search(kind, value=(Index(3), Index(3)), ranges=ranges, align=4)
            assert [hit - page.address for hit in found] == [at]
    page.close()


@pytest.mark.parametrize("value", [(9, 7), (1.5, -1.5), range(9, 7), (Index(9), 7)])
def test_search_bounds_the_wrong_way_round_are_a_value_error(value: Any) -> None:
    """No number is within: search, scan and refine say so before anything is read."""
    memory = Holed("rw")
    vm = VmSpace(memory)
    ranges = [(BASE, BASE + 16)]
    for kind in (u8, u64, f64):
        with pytest.raises(ValueError, match=r"no number is .*lowest, highest"):
            vm.search(kind, value=value, ranges=ranges)
        with pytest.raises(ValueError, match=r"no number is .*lowest, highest"):
            vm.scan(kind, value=value, ranges=ranges)
    scan = vm.scan(u8, ranges=ranges)
    nr_calls = len(memory.calls)
    with pytest.raises(ValueError, match=r"no number is .*lowest, highest"):
        scan.refine(value=value)
    assert len(memory.calls) == nr_calls


def test_search_bounds_of_64_bits_are_compared_exactly() -> None:
    """A float bound beside 2^63 does not turn the numbers into floats, which would be equal."""
    page = Segment.alloc(1)
    page.write_slice(0, u64, [(1 << 63) - 1, 1 << 63, (1 << 63) + 1])
    ranges = [(page.address, page.address + 24)]
    with procvm.open(os.getpid()) as process:
        found = process.vm.search(u64, value=(2.0**63, 1e300), ranges=ranges, align=8)
        assert [hit - page.address for hit in found] == [8, 16]
        found = process.vm.search(i8, value=(-1.5, 0.5), ranges=[(page.address, page.address + 2)])
        assert [hit - page.address for hit in found] == [0, 1]
    page.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"align": 0}, "align is 0; give 1 or more"),
        ({"align": -1}, "align is -1; give 1 or more"),
        ({"max_len": 0}, "max_len is 0; give 1 or more"),
        ({"align": 1.5}, "align must be an int, not float"),
        ({"align": True}, "align must be an int, not bool"),
        ({"ranges": (BASE, BASE + 16)}, r"give mappings|in a list: \[\(start, end\)\]"),
        ({"ranges": BASE}, r"in a list: \[\(start, end\)\]"),
        ({"ranges": [BASE]}, r"in a list: \[\(start, end\)\]"),
        ({"ranges": "[heap]"}, r"in a list: \[\(start, end\)\]"),
        ({"ranges": [(BASE, BASE, BASE)]}, r"in a list: \[\(start, end\)\]"),
        ({"perms": 4}, "perms is letters such as 'rw', or Perms, not int"),
        ({"perms": "rq"}, "give letters of r, w, x, s and p"),
    ],
)
def test_search_wrong_option_is_refused_by_its_name(arguments: Any, message: str) -> None:
    """A TypeError or ValueError with the option's name, and nothing is read."""
    memory = Holed("rw")
    if "perms" not in arguments:
        arguments = {"ranges": [(BASE, BASE + 16)], **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        VmSpace(memory).search(b"x", **arguments)
    if "max_len" not in arguments:
        with pytest.raises((TypeError, ValueError), match=message):
            VmSpace(memory).scan(u8, **arguments)
    assert not memory.calls


def test_search_ranges_of_one_mapping_are_a_type_error() -> None:
    """A mapping is a tuple of numbers and bytes: it is not taken for a list of ranges."""
    with procvm.open(os.getpid()) as process:
        vma = process.maps()[0]
        with pytest.raises(TypeError, match=r"in a list: \[\(start, end\)\]"):
            process.vm.search(b"x", ranges=vma)  # type: ignore[arg-type]
