# mypy: ignore-errors
"""Misuses, each an error on its line marked `# rejected` in mypy --strict and strict pyright."""

import ctypes
import re
from typing import TypeVar

from procvm import (
    Fallible,
    HasVmReaderWriter,
    Infallible,
    Io,
    Scan,
    Segment,
    VmIo,
    VmIoOnce,
    VmReader,
    VmReaderArray,
    VmSpace,
    VmWriter,
    f32,
    f64,
    i16,
    u8,
    u16,
    u32,
    u64,
)


def takes_fallible_reader(reader: VmReader[Fallible]) -> None: ...


def takes_infallible_reader(reader: VmReader[Infallible]) -> None: ...


def takes_fallible_writer(writer: VmWriter[Fallible]) -> None: ...


def takes_infallible_writer(writer: VmWriter[Infallible]) -> None: ...


F = TypeVar("F", Fallible, Infallible)


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int32), ("y", ctypes.c_int32))


class Half(HasVmReaderWriter):
    def reader(self) -> VmReader[Infallible]:
        return VmReader.from_buffer(b"")


def takes_single_loads(thing: VmIoOnce) -> None: ...


def a_cursor_of_a_segment_taken_for_a_target(segment: Segment) -> None:
    """A segment gives infallible writers."""
    writer: VmWriter[Fallible] = segment.writer()  # rejected
    writer.clone_exclusive()


def a_cursor_of_a_target_taken_for_own_memory(space: VmSpace) -> None:
    """A space gives fallible readers."""
    reader: VmReader[Infallible] = space.reader(0x1000, 8)  # rejected
    reader.clone()


def a_device_reader_where_fallible_is_taken(reader: VmReader[Io]) -> None:
    """Io is not Fallible: the markers are unrelated."""
    takes_fallible_reader(reader)  # rejected


def a_device_reader_where_infallible_is_taken(reader: VmReader[Io]) -> None:
    """Io is not Infallible: the markers are unrelated."""
    takes_infallible_reader(reader)  # rejected


def a_device_writer_where_fallible_is_taken(writer: VmWriter[Io]) -> None:
    """Io is not Fallible: the markers are unrelated."""
    takes_fallible_writer(writer)  # rejected


def a_device_writer_where_infallible_is_taken(writer: VmWriter[Io]) -> None:
    """Io is not Infallible: the markers are unrelated."""
    takes_infallible_writer(writer)  # rejected


def a_fallible_reader_where_infallible_is_taken(reader: VmReader[Fallible]) -> None:
    """Fallible is not Infallible: the markers are unrelated."""
    takes_infallible_reader(reader)  # rejected


def a_fallible_writer_where_infallible_is_taken(writer: VmWriter[Fallible]) -> None:
    """Fallible is not Infallible: the markers are unrelated."""
    takes_infallible_writer(writer)  # rejected


def a_float_into_u64(writer: VmWriter[Fallible]) -> None:
    """A u64 is not written from a float."""
    writer.write_val(u64, 1.5)  # rejected


def a_generic_reader_atomically_loaded(reader: VmReader[F]) -> int:
    """What may be any memory is not known to be fallible."""
    return reader.atomic_load(u32)  # rejected


def a_marker_that_is_none(reader: VmReader[int]) -> None:  # rejected
    """A cursor is Fallible, Infallible or Io, and nothing else."""


def a_name_as_a_pod(reader: VmReader[Fallible]) -> None:
    """The name of a pod is none."""
    reader.read_val("u64")  # rejected


def a_python_type_as_a_pod(reader: VmReader[Fallible]) -> None:
    """`int` is no plain-old-data type."""
    reader.read_val(int)  # rejected


def a_reader_where_a_writer_is_taken(
    reader: VmReader[Infallible], writer: VmWriter[Infallible]
) -> None:
    """A reader is no destination."""
    reader.read(reader)  # rejected


def a_string_as_a_count(reader: VmReader[Infallible]) -> None:
    """A count is an int."""
    reader.skip("3")  # rejected


def a_string_into_u64(writer: VmWriter[Fallible]) -> None:
    """A u64 is written from an int."""
    writer.write_val(u64, "8")  # rejected


def a_structure_taken_for_an_int(reader: VmReader[Fallible]) -> int:
    """A structure is read as itself."""
    return reader.read_val(Point)  # rejected


class ASubclassOfACursor(VmReader[Fallible]):  # rejected
    """The cursors are final."""


def a_u64_taken_for_a_string(reader: VmReader[Fallible]) -> str:
    """A u64 is read as an int."""
    return reader.read_val(u64)  # rejected


def a_writer_given_to_write(thing: VmIo, writer: VmWriter[Infallible]) -> None:
    """`VmIo.write` takes a reader."""
    thing.write(0, writer)  # rejected


def a_writer_where_a_reader_is_taken(
    reader: VmReader[Fallible], writer: VmWriter[Fallible]
) -> None:
    """A writer is no source."""
    writer.write_fallible(writer)  # rejected


def an_array_of_readers_written_to(
    source: VmReader[Fallible], readers: VmReaderArray[Fallible]
) -> None:
    """An array of readers has no `write`."""
    readers.write(source)  # rejected


def an_array_of_two_kinds_of_memory(own: VmReader[Infallible], target: VmReader[Fallible]) -> None:
    """An array stands in one kind of memory."""
    VmReaderArray([own, target])  # rejected


def an_infallible_reader_where_fallible_is_taken(reader: VmReader[Infallible]) -> None:
    """Infallible is not Fallible: the markers are unrelated."""
    takes_fallible_reader(reader)  # rejected


def an_infallible_writer_where_fallible_is_taken(writer: VmWriter[Infallible]) -> None:
    """Infallible is not Fallible: the markers are unrelated."""
    takes_fallible_writer(writer)  # rejected


def an_instance_as_a_pod(reader: VmReader[Fallible]) -> None:
    """A value is no type."""
    reader.read_val(5)  # rejected


def an_int_where_a_structure_is_written(writer: VmWriter[Fallible]) -> None:
    """A structure is written from its own instances."""
    writer.write_val(Point, 5)  # rejected


def an_object_without_a_writer() -> None:
    """A class that lacks `writer` can not be instantiated."""
    Half()  # rejected


def an_update_that_gives_another_type(space: VmSpace) -> None:
    """`atomic_fetch_update` takes a function of int to int."""
    space.atomic_fetch_update(0x1000, u64, str)  # rejected


def atomic_load_of_a_structure(reader: VmReader[Fallible]) -> None:
    """A structure has no atomics."""
    reader.atomic_load(Point)  # rejected


def atomic_load_of_f32(reader: VmReader[Fallible]) -> None:
    """f32 has no atomics."""
    reader.atomic_load(f32)  # rejected


def atomic_load_of_i16(reader: VmReader[Fallible]) -> None:
    """i16 has no atomics."""
    reader.atomic_load(i16)  # rejected


def atomic_load_of_u8(reader: VmReader[Fallible]) -> None:
    """u8 has no atomics."""
    reader.atomic_load(u8)  # rejected


def atomic_load_on_a_device(reader: VmReader[Io]) -> None:
    """A device has no atomics."""
    reader.atomic_load(u32)  # rejected


def atomic_load_on_an_infallible_reader(reader: VmReader[Infallible]) -> None:
    """Own memory needs `to_fallible` first."""
    reader.atomic_load(u32)  # rejected


def atomics_of_u8_in_a_space(space: VmSpace) -> None:
    """u8 has no atomics in a space either."""
    space.atomic_load(0x1000, u8)  # rejected


def exchange_of_strings(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    """An exchange takes values of its pod."""
    writer.atomic_compare_exchange(reader, u32, "0", "1")  # rejected


def exchange_of_u16(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    """u16 has no atomics."""
    writer.atomic_compare_exchange(reader, u16, 0, 1)  # rejected


def exchange_with_an_infallible_reader(
    reader: VmReader[Infallible], writer: VmWriter[Fallible]
) -> None:
    """`atomic_compare_exchange` takes no infallible reader."""
    writer.atomic_compare_exchange(reader, u32, 0, 1)  # rejected


def exchange_with_an_infallible_writer(
    reader: VmReader[Fallible], writer: VmWriter[Infallible]
) -> None:
    """`atomic_compare_exchange` takes no infallible writer."""
    writer.atomic_compare_exchange(reader, u32, 0, 1)  # rejected


def none_into_f64(writer: VmWriter[Infallible]) -> None:
    """An f64 is not written from None."""
    writer.write_val(f64, None)  # rejected


def read_between_fallible_cursors(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    """`read` takes no two fallible sides."""
    reader.read(writer)  # rejected


def read_fallible_between_own_memories(
    reader: VmReader[Infallible], writer: VmWriter[Infallible]
) -> None:
    """`read_fallible` needs one fallible side."""
    reader.read_fallible(writer)  # rejected


def read_fallible_from_a_device_to_own_memory(
    reader: VmReader[Io], writer: VmWriter[Infallible]
) -> None:
    """`read_fallible` needs one fallible side, and a device is none."""
    reader.read_fallible(writer)  # rejected


def read_from_a_device(reader: VmReader[Io], writer: VmWriter[Infallible]) -> None:
    """`read` takes no device: its accesses have a width."""
    reader.read(writer)  # rejected


def read_from_a_fallible_reader(reader: VmReader[Fallible], writer: VmWriter[Infallible]) -> None:
    """`read` takes no fallible reader."""
    reader.read(writer)  # rejected


def read_into_a_fallible_writer(reader: VmReader[Infallible], writer: VmWriter[Fallible]) -> None:
    """`read` takes no fallible writer."""
    reader.read(writer)  # rejected


def read_once_of_a_structure(reader: VmReader[Infallible]) -> None:
    """A structure is not moved by one load."""
    reader.read_once(Point)  # rejected


def read_once_of_f32(reader: VmReader[Infallible]) -> None:
    """f32 is no PodOnce."""
    reader.read_once(f32)  # rejected


def read_once_of_f64_on_an_object(segment: Segment) -> None:
    """f64 is no PodOnce for an object either."""
    segment.read_once(0, f64)  # rejected


def read_once_on_a_fallible_reader(reader: VmReader[Fallible]) -> None:
    """A target's memory has no single loads of ours."""
    reader.read_once(u32)  # rejected


def single_loads_of_a_space(space: VmSpace) -> None:
    """A space is no VmIoOnce."""
    takes_single_loads(space)  # rejected


def strings_into_a_slice_of_u16(writer: VmWriter[Fallible]) -> None:
    """A slice takes values of its pod."""
    writer.write_slice(u16, ["1", "2"])  # rejected


def to_fallible_on_a_fallible_reader(reader: VmReader[Fallible]) -> None:
    """A fallible reader is fallible already."""
    reader.to_fallible()  # rejected


def to_fallible_on_a_fallible_writer(writer: VmWriter[Fallible]) -> None:
    """A fallible writer is fallible already."""
    writer.to_fallible()  # rejected


def write_between_fallible_cursors(reader: VmReader[Fallible], writer: VmWriter[Fallible]) -> None:
    """`write` takes no two fallible sides."""
    writer.write(reader)  # rejected


def write_fallible_between_own_memories(
    reader: VmReader[Infallible], writer: VmWriter[Infallible]
) -> None:
    """`write_fallible` needs one fallible side."""
    writer.write_fallible(reader)  # rejected


def write_from_a_fallible_reader(reader: VmReader[Fallible], writer: VmWriter[Infallible]) -> None:
    """`write` takes no fallible reader."""
    writer.write(reader)  # rejected


def write_once_of_a_string(writer: VmWriter[Infallible]) -> None:
    """A u32 is stored from an int."""
    writer.write_once(u32, "1")  # rejected


def write_once_of_f64(writer: VmWriter[Infallible]) -> None:
    """f64 is no PodOnce."""
    writer.write_once(f64, 1.0)  # rejected


def write_once_on_a_fallible_writer(writer: VmWriter[Fallible]) -> None:
    """A target's memory has no single stores of ours."""
    writer.write_once(u32, 1)  # rejected


def write_to_a_fallible_writer(reader: VmReader[Infallible], writer: VmWriter[Fallible]) -> None:
    """`write` takes no fallible writer."""
    writer.write(reader)  # rejected


def search_of_a_string_as_a_value(space: VmSpace) -> None:
    """A u32 is looked for by a number."""
    space.search(u32, value="7")  # rejected


def search_of_nothing(space: VmSpace) -> None:
    """A search needs something to look for."""
    space.search()  # rejected


def search_of_a_number_alone(space: VmSpace) -> None:
    """A number has a type in memory, which is given with it."""
    space.search(7)  # rejected


def search_of_a_text_and_bytes(space: VmSpace) -> None:
    """A search looks for one thing."""
    space.search(b"x", text="x")  # rejected


def search_by_an_expression_of_text(space: VmSpace) -> None:
    """Memory holds bytes."""
    space.search(re.compile("x"))  # rejected


def refine_by_another_word(scan: Scan) -> None:
    """The words are four."""
    scan.refine("bigger")  # rejected


def follow_by_a_float(space: VmSpace) -> None:
    """An offset is a whole number."""
    space.follow(0x1000, 1.5)  # rejected
