# mypy: ignore-errors
"""Programs that mypy --strict and strict pyright accept; test_typecheck.py checks a copy."""

import array
import ctypes
import mmap
import re
from pathlib import Path
from typing import Any, TypeVar, assert_type

import procvm
from procvm import (
    AccessDeniedError,
    Fallible,
    HasVmReaderWriter,
    Hit,
    Infallible,
    InvalidArgsError,
    Io,
    IoMem,
    PageFaultError,
    ProcessError,
    ProcvmError,
    Scan,
    Search,
    Segment,
    VmIo,
    VmIoFill,
    VmIoOnce,
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

F = TypeVar("F", Fallible, Infallible, Io)


def header(reader: VmReader[F]) -> tuple[int, VmReader[F]]:
    return reader.read_val(u32), reader.clone().limit(16)


def trailer(writer: VmWriter[F], value: int) -> VmWriter[F]:
    writer.write_val(u32, value)
    writer.fill_zeros(4)
    return writer.clone_exclusive()


class Shelf(HasVmReaderWriter):
    def __init__(self) -> None:
        self.memory = bytearray(64)

    def reader(self) -> VmReader[Infallible]:
        return VmReader.from_buffer(self.memory)

    def writer(self) -> VmWriter[Infallible]:
        return VmWriter.from_buffer(self.memory)


def copy_header(thing: VmIo) -> int:
    thing.write_val(0, u32, thing.read_val(4, u32))
    return thing.read_val(0, u32)


def wipe(thing: VmIoFill) -> None:
    thing.fill_zeros(0, 64)


def ring(thing: VmIoOnce) -> None:
    thing.write_once(0, u32, thing.read_once(0, u32) + 1)


def length(thing: HasVmReaderWriter) -> int:
    return thing.reader().remain()


class Null(VmIo):
    def read(self, offset: int, writer: VmWriter[Any]) -> None:
        writer.fill_zeros(writer.avail())

    def write(self, offset: int, reader: VmReader[Any]) -> None:
        reader.skip(reader.remain())


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int32), ("y", ctypes.c_int32))


class Either(ctypes.Union):
    _fields_ = (("whole", ctypes.c_uint32), ("real", ctypes.c_float))


Row = ctypes.c_uint16 * 4


def a_device_gives_device_cursors() -> None:
    """An IoMem's cursors are Io, with values and single accesses."""
    with IoMem.open("/dev/uio0", 0, 4096) as device, IoMem.open(Path("/dev/mem"), 0, 64) as other:
        assert_type(device.reader(), VmReader[Io])
        assert_type(device.writer(), VmWriter[Io])
        device.writer().write_val(u32, device.reader().read_val(u32))
        other.write_once(0, u16, device.read_once(0, u16))


def a_function_over_any_memory(
    target: VmReader[Fallible], own: VmReader[Infallible], out: VmWriter[Io]
) -> None:
    """A function may be generic over the marker and keep it."""
    assert_type(header(target), tuple[int, VmReader[Fallible]])
    assert_type(header(own), tuple[int, VmReader[Infallible]])
    assert_type(trailer(out, 1), VmWriter[Io])


def a_process_is_opened_and_read(pid: int) -> int:
    """The main job needs no annotation."""
    with procvm.open(pid) as process:
        assert_type(process.vm, procvm.VmSpace)
        assert_type(process.pid, int)
        value = process.vm.read_val(0x1000, u64)
        process.vm.write_val(0x1008, u64, value + 1)
        return value


def a_reader_and_a_writer_are_enough() -> None:
    """A user's class with `reader` and `writer` inherits all the rest."""
    shelf = Shelf()
    shelf.write_val(0, u64, 1)
    shelf.write_once(8, u16, shelf.read_once(0, u16))
    shelf.fill_zeros(0, 8)
    assert_type(shelf.read_slice(0, u16, 4), list[int])
    assert_type(shelf.reader(), VmReader[Infallible])


def a_space_gives_fallible_cursors(space: VmSpace) -> None:
    """A target's cursors are fallible, and a space has values, strings and atomics."""
    assert_type(space.reader(0x1000, 8), VmReader[Fallible])
    assert_type(space.writer(0x1000, 8), VmWriter[Fallible])
    assert_type(space.reader_writer(0, 8), tuple[VmReader[Fallible], VmWriter[Fallible]])
    assert_type(VmReader.from_user_space(space, 0x1000, 8), VmReader[Fallible])
    assert_type(VmWriter.from_user_space(space, 0x1000, 8), VmWriter[Fallible])
    assert_type(space.read_cstring(0x1000, 64), bytes)
    assert_type(space.atomic_load(0x1000, u64), int)
    assert_type(space.atomic_compare_exchange(0x1000, u32, 0, 1), tuple[int, bool])
    assert_type(space.atomic_fetch_update(0x1000, i64, lambda old: old + 1), int)
    assert_type(space.forced().read_val(0x1000, u64), int)


def arrays_stream_to_each_other(
    space: VmSpace, out: VmWriter[Infallible], source: VmReader[Infallible]
) -> None:
    """Arrays of readers and writers stream to cursors and to arrays."""
    readers = VmReaderArray([space.reader(0x1000, 8), space.reader(0x2000, 8)])
    writers = VmWriterArray(space.writer(at, 8) for at in (0x3000, 0x4000))
    assert_type(readers, VmReaderArray[Fallible])
    assert_type(writers, VmWriterArray[Fallible])
    assert_type(readers.read(out), int)
    assert_type(readers.read(writers), int)
    assert_type(writers.write(source), int)
    assert_type(writers.write(readers), int)
    readers.skip_some(3)
    assert_type(readers.sum_lens(), int)
    assert_type(readers.is_empty(), bool)


def atomics_on_fallible_memory(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    """Atomics take u32 to isize and give the pod's value."""
    for pod in (u32, i32, u64, i64, usize, isize):
        assert_type(reader.atomic_load(pod), int)
        assert_type(writer.atomic_compare_exchange(reader, pod, 0, 1), tuple[int, bool])
    assert_type(reader.atomic_load(u64), int)


def errors_are_caught_as_python_users_expect(space: VmSpace) -> int:
    """Errors are caught by their own names and by the built-in ones."""
    try:
        return space.read_val(0x1000, u64)
    except PageFaultError as fault:
        assert_type(fault.address, int)
        assert_type(fault.copied_len, int)
        assert_type(fault.pid, int)
        error: OSError = fault
        return error.errno or 0
    except (AccessDeniedError, InvalidArgsError) as refused:
        return refused.copied_len
    except ProcessError as gone:
        return gone.pid
    except ProcvmError as other:
        return len(str(other))


def moving_keeps_the_marker(
    reader: VmReader[Fallible], writer: VmWriter[Infallible], device: VmReader[Io]
) -> None:
    """`skip`, `limit`, `clone` and `clone_exclusive` give a cursor of the same memory."""
    assert_type(reader.skip(2).limit(4), VmReader[Fallible])
    assert_type(writer.skip(2).limit(4), VmWriter[Infallible])
    assert_type(reader.clone(), VmReader[Fallible])
    assert_type(writer.clone_exclusive(), VmWriter[Infallible])
    assert_type(device.limit(1).clone(), VmReader[Io])
    assert_type(reader.cursor() + reader.remain() + writer.avail(), int)
    assert_type(reader.has_remain() and writer.has_avail(), bool)


def objects_are_what_they_can_do(segment: Segment, device: IoMem, space: VmSpace) -> None:
    """A segment and a device are VmIo, VmIoFill and VmIoOnce; a space is the first two."""
    for thing in (segment, device):
        copy_header(thing)
        wipe(thing)
        ring(thing)
        length(thing)
    copy_header(space)
    wipe(space)


def once_on_own_memory_and_devices(
    reader: VmReader[Infallible], writer: VmWriter[Infallible]
) -> None:
    """`read_once` and `write_once` take every integer pod, on Infallible and Io."""
    for pod in (u8, u16, u32, u64, usize, i8, i16, i32, i64, isize):
        writer.write_once(pod, reader.read_once(pod) + 1)
    assert_type(reader.read_once(u8), int)


def once_on_devices_alone(reader: VmReader[Io], writer: VmWriter[Io]) -> None:
    writer.write_once(u32, reader.read_once(u32))


def own_cursors_from_every_buffer(pages: mmap.mmap, cell: ctypes.c_uint64) -> None:
    """`from_buffer` and `from_kernel_space` give infallible cursors."""
    assert_type(VmReader.from_buffer(b"abc"), VmReader[Infallible])
    assert_type(VmWriter.from_buffer(bytearray(3)), VmWriter[Infallible])
    VmReader.from_buffer(memoryview(b"abc"))
    VmWriter.from_buffer(array.array("I", [1]))
    VmWriter.from_buffer(pages)
    VmWriter.from_buffer(cell)
    address = ctypes.addressof(cell)
    assert_type(VmReader.from_kernel_space(address, 8), VmReader[Infallible])
    assert_type(VmWriter.from_kernel_space(address, 8), VmWriter[Infallible])
    with Segment.alloc(2, zeroed=False, shared=True) as segment:
        assert_type(segment.reader(), VmReader[Infallible])
        assert_type(segment.writer(), VmWriter[Infallible])
        assert_type(segment.fd, int)


def own_memory_becomes_fallible(reader: VmReader[Infallible], writer: VmWriter[Infallible]) -> None:
    """`to_fallible` makes a fallible cursor of an infallible or a device one."""
    assert_type(reader.to_fallible(), VmReader[Fallible])
    assert_type(writer.to_fallible(), VmWriter[Fallible])
    reader.to_fallible().atomic_load(u32)
    reader.to_fallible().read_fallible(writer)


def device_memory_becomes_fallible(reader: VmReader[Io], writer: VmWriter[Io]) -> None:
    assert_type(reader.to_fallible(), VmReader[Fallible])
    assert_type(writer.to_fallible(), VmWriter[Fallible])


def read_and_write_are_enough() -> None:
    """A user's class with `read` and `write` inherits the rest of VmIo."""
    null = Null()
    null.write_bytes(0, b"abc")
    assert_type(null.read_val(0, u64), int)


def read_between_own_memories(reader: VmReader[Infallible], writer: VmWriter[Infallible]) -> None:
    """`read` and `write` take two infallible sides."""
    assert_type(reader.read(writer), int)
    assert_type(writer.write(reader), int)


def read_fallible_from_a_target_to_a_target(
    reader: VmReader[Fallible], writer: VmWriter[Fallible]
) -> None:
    """`read_fallible` takes a Fallible reader and a Fallible writer."""
    assert_type(reader.read_fallible(writer), int)


def read_fallible_from_a_target_to_own_memory(
    reader: VmReader[Fallible], writer: VmWriter[Infallible]
) -> None:
    """`read_fallible` takes a Fallible reader and a Infallible writer."""
    assert_type(reader.read_fallible(writer), int)


def read_fallible_from_own_memory_to_a_target(
    reader: VmReader[Infallible], writer: VmWriter[Fallible]
) -> None:
    """`read_fallible` takes a Infallible reader and a Fallible writer."""
    assert_type(reader.read_fallible(writer), int)


def values_are_written_as_their_pod(writer: VmWriter[Fallible], space: VmSpace) -> None:
    """Writing takes the pod's own values, a whole number for a float too."""
    writer.write_val(u64, 5)
    writer.write_val(f64, 0.5)
    writer.write_val(f64, 5)
    writer.write_val(Point, Point(1, 2))
    writer.write_slice(u16, (k for k in range(3)))
    writer.write_slice(Point, [Point(), Point()])
    writer.write_bytes(b"abc")
    space.write_val(0x1000, u8, 1)
    space.write_slice(0x1000, f64, [0.5])
    space.write_val(0x1000, Point, Point())


def values_have_the_type_of_their_pod(reader: VmReader[Fallible], space: VmSpace) -> None:
    """`read_val` gives int, float or the ctypes class that was asked for."""
    assert_type(reader.read_val(u64), int)
    assert_type(reader.read_val(i8), int)
    assert_type(reader.read_val(f32), float)
    assert_type(reader.read_val(f64), float)
    assert_type(reader.read_val(Point), Point)
    assert_type(reader.read_val(Either), Either)
    row: ctypes.Array[Any] = reader.read_val(Row)
    assert_type(space.read_val(0x1000, Point), Point)
    assert_type(space.read_slice(0x1000, Point, len(row)), list[Point])
    assert_type(reader.read_slice(f64, 3), list[float])
    assert_type(reader.read_bytes(3), bytes)


def write_fallible_from_a_target_to_a_target(
    reader: VmReader[Fallible], writer: VmWriter[Fallible]
) -> None:
    """`write_fallible` takes a Fallible reader and a Fallible writer."""
    assert_type(writer.write_fallible(reader), int)


def write_fallible_from_a_target_to_own_memory(
    reader: VmReader[Fallible], writer: VmWriter[Infallible]
) -> None:
    """`write_fallible` takes a Fallible reader and a Infallible writer."""
    assert_type(writer.write_fallible(reader), int)


def write_fallible_from_own_memory_to_a_target(
    reader: VmReader[Infallible], writer: VmWriter[Fallible]
) -> None:
    """`write_fallible` takes a Infallible reader and a Fallible writer."""
    assert_type(writer.write_fallible(reader), int)


def search_takes_one_kind_of_need_each(space: VmSpace) -> None:
    """Bytes, patterns, expressions, values, texts and lists all give hits."""
    searches = [
        space.search(b"\x7fELF", near=(0x1000, 64)),
        space.search("48 8B ?? ?F", ranges=[(0x1000, 0x2000), range(5)]),
        space.search(re.compile(rb"a+"), max_len=10, threads=2),
        space.search(u32, value=7, align=4),
        space.search(u32, value=(1, 5)),
        space.search(f64, value=1.5),
        space.search("u4", value=7),
        space.search(text="hello", encoding="utf-16-le"),
        space.search([b"a", "0? 11", (u32, 7)]),
    ]
    assert_type(searches, list[Search])
    for hit in searches[0]:
        assert_type(hit, Hit)
        assert_type(hit.match, bytes)
        assert_type(hit.end, int)
        assert_type(hit + 1, int)


def scan_narrows_into_new_scans(space: VmSpace) -> None:
    """A pod, a dtype or every width; by value, by text, by change."""
    scan = space.scan(u32, value=7)
    assert_type(scan.refine("increased"), Scan)
    assert_type(scan.refine(value=(1, 2)), Scan)
    assert_type(space.scan("number", about=1.35).refine(about="1.350"), Scan)
    assert_type(list(scan), list[int])


def dumps_are_rows(space: VmSpace) -> None:
    """A dump is iterated by rows; a path is an address."""
    assert_type([row.data for row in space.hexdump(0x1000, 64)], list[bytes])
    assert_type([word.value for word in space.telescope(0x1000, 4)], list[int])
    assert_type(space.follow(0x1000, 8, -8), int)
    assert_type(space.read_cstring(0x1000), bytes)


def gather_of_structures_is_a_list(space: VmSpace) -> None:
    """A structure has its class, with the mask too."""
    assert_type(space.gather([0x1000], Point), list[Point])
    assert_type(space.gather([0x1000], Point, "mask")[0], list[Point])
