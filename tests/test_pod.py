"""Pods: which types a value in memory may have, and what their values are."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import procvm
from procvm import (
    Pod,
    PodAtomic,
    PodOnce,
    ProcvmError,
    VmReader,
    VmWriter,
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
from procvm._base.pods import PODS, atomic_pod, once_pod, pod_of
from procvm._terminal.kinds import KIND_NAMES, kind_of

WORD = ctypes.sizeof(ctypes.c_void_p)
UNSIGNED = {
    "u8": (u8, 1),
    "u16": (u16, 2),
    "u32": (u32, 4),
    "u64": (u64, 8),
    "usize": (usize, WORD),
}
SIGNED = {"i8": (i8, 1), "i16": (i16, 2), "i32": (i32, 4), "i64": (i64, 8), "isize": (isize, WORD)}
INTEGERS = UNSIGNED | SIGNED


def bounds(name: str) -> tuple[int, int]:
    bits = 8 * INTEGERS[name][1]
    return (0, 2**bits - 1) if name in UNSIGNED else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def written(pod: Any, value: Any) -> bytes:
    """What a writer of own memory makes of a value."""
    buffer = bytearray(pod_of(pod).size)
    VmWriter.from_buffer(buffer).write_val(pod, value)
    return bytes(buffer)


def read_back(pod: Any, value: Any) -> list[Any]:
    """The value after a write and a read, by each way there is."""
    buffer = bytearray(pod_of(pod).size)
    VmWriter.from_buffer(buffer).write_val(pod, value)
    reader = VmReader.from_buffer(buffer)
    segment = procvm.Segment.alloc(1)
    segment.write_slice(3, pod, [value, value])
    return [
        reader.clone().read_val(pod),
        reader.to_fallible().read_val(pod),
        *reader.read_slice(pod, 1),
        segment.read_val(3, pod),
        *segment.read_slice(3, pod, 2),
    ]


# The named pods


@pytest.mark.parametrize("name", INTEGERS)
def test_an_integer_pod_has_its_size_and_alignment(name: str) -> None:
    """The number in a pod's name is its size in bits, and it is aligned to its size."""
    pod, size = INTEGERS[name]
    assert (pod.name, pod.size, pod.align) == (name, size, size)
    assert repr(pod).endswith(f" {name}>")


@pytest.mark.parametrize("name", INTEGERS)
def test_an_integer_pod_holds_its_whole_range(name: str) -> None:
    """The least, the largest and some between come back, in native byte order."""
    pod, size = INTEGERS[name]
    least, most = bounds(name)
    for value in (least, least + 1, 0, 1, 0x55, most - 1, most):
        assert written(pod, value) == value.to_bytes(size, sys.byteorder, signed=name in SIGNED)
        assert read_back(pod, value) == [value] * 6
        assert all(type(back) is int for back in read_back(pod, value))


@pytest.mark.parametrize("name", INTEGERS)
def test_an_integer_out_of_range_is_refused_with_nothing_written(name: str) -> None:
    """One below the least and one above the largest are OverflowError, by each way to write."""
    pod, _ = INTEGERS[name]
    least, most = bounds(name)
    writes: list[Callable[[VmWriter[Any], int], None]] = [
        lambda writer, value: writer.write_val(pod, value),
        lambda writer, value: writer.write_slice(pod, [0, value]),
        lambda writer, value: writer.write_slice(pod, [value]),
    ]
    for value in (least - 1, most + 1, 2**64, -(2**64), 2**4000):
        buffer = bytearray(b"\x77" * 16)
        own = VmWriter.from_buffer(buffer)
        for writer in (own, own.to_fallible()):
            for write in writes:
                with pytest.raises(OverflowError) as caught:
                    write(writer, value)
                assert not isinstance(caught.value, ProcvmError)
            assert writer.avail() == 16
        assert buffer == b"\x77" * 16


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", ["1", b"1", None, 1.0, 1.5, [1], 1j, object()])
def test_what_is_no_integer_is_refused_with_nothing_written(name: str, value: Any) -> None:
    """A float, a string and None are a TypeError where an integer is written."""
    pod, _ = INTEGERS[name]
    buffer = bytearray(b"\x77" * 8)
    with pytest.raises(TypeError):
        VmWriter.from_buffer(buffer).write_val(pod, value)
    with pytest.raises(TypeError):
        VmWriter.from_buffer(buffer).write_slice(pod, [value])
    assert buffer == b"\x77" * 8


def test_numpy_numbers_are_values() -> None:
    """A numpy integer or float is written as the number it is, and refused if it does not fit."""
    assert written(u16, np.uint8(200)) == (200).to_bytes(2, sys.byteorder)
    assert written(i64, np.int64(-5)) == written(i64, -5)
    assert written(f32, np.float64(0.5)) == written(f32, 0.5)
    assert read_back(f32, np.float32(0.5)) == [0.5] * 6
    with pytest.raises(OverflowError):
        written(u8, np.uint16(256))
    with pytest.raises(OverflowError):
        written(u8, np.int8(-1))


def test_floats_have_the_precision_of_their_size() -> None:
    """f64 keeps every float, f32 rounds to the nearest it has; both keep the special ones."""
    assert (f32.size, f64.size) == (4, 8)
    for value in (0.0, 1.5, -2.25, math.inf, -math.inf, 2.0**-149, 2.0**127):
        assert read_back(f64, value) == [value] * 6
        assert read_back(f32, value) == [value] * 6
    assert read_back(f64, 0.1) == [0.1] * 6
    assert read_back(f32, 0.1) == [ctypes.c_float(0.1).value] * 6
    assert all(math.isnan(back) for pod in (f32, f64) for back in read_back(pod, math.nan))
    assert all(math.copysign(1, back) == -1 for back in read_back(f64, -0.0))
    assert read_back(f64, 3) == [3.0] * 6
    assert all(type(back) is float for back in read_back(f64, 3))


def test_a_float_out_of_range_is_refused_with_nothing_written() -> None:
    """What f32 or f64 can not hold is OverflowError, what is no number a TypeError."""
    buffer = bytearray(b"\x77" * 8)
    writer: Any = VmWriter.from_buffer(buffer)
    for pod, value in ((f32, 1e39), (f32, -1e39), (f64, 10**400)):
        with pytest.raises(OverflowError) as caught:
            writer.write_val(pod, value)
        assert not isinstance(caught.value, ProcvmError)
    for wrong in ("1.5", None, b"", 1j):
        with pytest.raises(TypeError):
            writer.write_val(f64, wrong)
    assert buffer == b"\x77" * 8


@given(st.binary(min_size=8, max_size=8))
def test_every_bit_pattern_is_a_value(data: bytes) -> None:
    """Any bytes can be read as any pod, and an integer written back gives the same bytes."""
    for name, (pod, size) in INTEGERS.items():
        value = VmReader.from_buffer(data).read_val(pod)
        least, most = bounds(name)
        assert least <= value <= most
        assert written(pod, value) == data[:size]
    assert isinstance(VmReader.from_buffer(data).read_val(f32), float)
    assert isinstance(VmReader.from_buffer(data).read_val(f64), float)


def test_which_pods_promise_what() -> None:
    """Integers are PodOnce, those of 4 and 8 bytes PodAtomic as well, floats are Pod only."""
    once = {
        name for name in (*INTEGERS, "f32", "f64") if isinstance(getattr(procvm, name), PodOnce)
    }
    atomic = {
        name for name in (*INTEGERS, "f32", "f64") if isinstance(getattr(procvm, name), PodAtomic)
    }
    assert once == set(INTEGERS)
    assert atomic == {"u32", "i32", "u64", "i64", "usize", "isize"}
    assert isinstance(f32, Pod)
    assert isinstance(f64, Pod)


def test_pods_table_has_every_public_pod() -> None:
    """The table that the command's types and completion come from has each, by its name."""
    public = {
        name: value for name in procvm.__all__ if isinstance(value := getattr(procvm, name), Pod)
    }
    assert public == PODS
    assert [pod.name for pod in PODS.values()] == list(PODS)
    for kind in ("u8", "f64"):
        assert kind_of(kind).name == kind
    assert set(PODS) < set(KIND_NAMES)


def test_pod_that_promises_too_little_is_refused_with_those_that_do() -> None:
    """The message lists the pods that the call takes."""
    wrong: Any = f32
    refusals: list[tuple[Callable[[Any], object], Any, Iterable[str]]] = [
        (once_pod, wrong, INTEGERS),
        (atomic_pod, wrong, ("u32", "u64", "usize", "i32", "i64", "isize")),
        (pod_of, wrong.name, PODS),
    ]
    for call, argument, names in refusals:
        with pytest.raises(TypeError) as caught:
            call(argument)
        assert all(name in str(caught.value) for name in names)


# ctypes types


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int32), ("y", ctypes.c_int32))


class Packed(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("tag", ctypes.c_uint8), ("value", ctypes.c_uint64))


class Number(ctypes.Union):
    _fields_ = (("whole", ctypes.c_uint32), ("real", ctypes.c_float), ("raw", ctypes.c_uint8 * 4))


class Bits(ctypes.Structure):
    _fields_ = (
        ("low", ctypes.c_uint32, 4),
        ("mid", ctypes.c_uint32, 12),
        ("high", ctypes.c_uint32, 16),
    )


class Header(ctypes.BigEndianStructure):
    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("size", ctypes.c_uint16),
        ("flags", ctypes.c_uint8 * 2),
    )


class Point3(Point):
    _fields_ = (("z", ctypes.c_int32),)  # type: ignore[assignment]  # ctypes adds to the base's


class Nested(ctypes.Structure):
    _anonymous_ = ("number",)
    _fields_ = (
        ("points", Point * 2),
        ("number", Number),
        ("address", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
        ("wide", ctypes.c_wchar * 2),
        ("truth", ctypes.c_bool),
    )


def as_bytes(value: Any) -> bytes:
    return bytes(memoryview(value).cast("B"))


def test_a_structure_is_a_pod() -> None:
    """A structure goes in and comes out as an instance of its own class, field by field."""
    for back in read_back(Point, Point(-1, 2)):
        assert type(back) is Point
        assert (back.x, back.y) == (-1, 2)
    assert written(Packed, Packed(1, 2**64 - 1)) == b"\1" + b"\xff" * 8


def test_a_union_is_a_pod() -> None:
    """A union comes back with all its faces on the same bytes."""
    value = Number(real=1.0)
    for back in read_back(Number, value):
        assert type(back) is Number
        assert (back.whole, back.real) == (0x3F800000, 1.0)


def test_an_array_is_a_pod() -> None:
    """An array class, of numbers or of structures, is one value of all its elements."""
    numbers = ctypes.c_uint16 * 3
    for back in read_back(numbers, numbers(1, 2, 65535)):
        assert list(back) == [1, 2, 65535]
    points = Point * 2
    for back in read_back(points, points(Point(1, 2), Point(3, 4))):
        assert [(point.x, point.y) for point in back] == [(1, 2), (3, 4)]
    row = ctypes.c_uint8 * 2
    grid = row * 2
    assert written(grid, grid(row(1, 2), row(3, 4))) == b"\1\2\3\4"


def test_bitfields_keep_to_their_bits() -> None:
    """Bitfields come back as they were, and lie in the bytes as the C compiler lays them."""
    for back in read_back(Bits, Bits(0xA, 0xBCD, 0x1234)):
        assert (back.low, back.mid, back.high) == (0xA, 0xBCD, 0x1234)
    assert written(Bits, Bits(0xA, 0xBCD, 0x1234)) == bytes(Bits(0xA, 0xBCD, 0x1234))


def test_a_big_endian_structure_is_big_endian_in_memory() -> None:
    """Its fields are numbers of ours, its bytes are in network order."""
    value = Header(0x7F454C46, 0x0102, (ctypes.c_uint8 * 2)(3, 4))
    assert written(Header, value) == b"\x7fELF\1\2\3\4"
    for back in read_back(Header, value):
        assert (back.magic, back.size, list(back.flags)) == (0x7F454C46, 0x0102, [3, 4])


def test_a_nested_structure_is_a_pod_with_everything_in_it() -> None:
    """Arrays of structures, a union, a c_void_p and character arrays all come back."""
    value = Nested(address=0xFFFF_FFFF_FFFF_F000, name=b"nested", wide="hi", truth=True)
    value.points[1] = Point(5, 6)
    value.whole = 7
    for back in read_back(Nested, value):
        assert type(back) is Nested
        assert (back.points[1].x, back.points[1].y, back.whole) == (5, 6, 7)
        assert (back.address, back.name, back.wide, back.truth) == (
            0xFFFF_FFFF_FFFF_F000,
            b"nested",
            "hi",
            True,
        )


def test_a_structure_has_the_fields_of_its_bases() -> None:
    """A structure that extends another is as long as both, the base's fields first."""
    for back in read_back(Point3, Point3(1, 2, 3)):
        assert (back.x, back.y, back.z) == (1, 2, 3)
    assert written(Point3, Point3(1, 2, 3))[:8] == written(Point, Point(1, 2))


class Tape(procvm.VmIo):
    """A user's object with `read` and `write` alone."""

    def __init__(self) -> None:
        self.memory = bytearray(b"\x77" * 32)

    def read(self, offset: int, writer: VmWriter[Any]) -> None:
        raise NotImplementedError

    def write(self, offset: int, reader: VmReader[Any]) -> None:
        n = reader.remain()
        self.memory[offset : offset + n] = reader.read_bytes(n)


@pytest.mark.parametrize("way", ["own", "fallible", "slice", "object"])
def test_a_longer_subclass_never_spills_over_its_place(way: str) -> None:
    """Where a Point belongs a longer subclass of it is a TypeError or is cut to a Point."""
    tape = Tape()
    writer = VmWriter.from_buffer(tape.memory)
    long, short = Point3(1, 2, 3), Point(4, 5)
    two = way == "slice"
    with contextlib.suppress(TypeError):
        if way == "own":
            writer.write_val(Point, long)
        elif way == "fallible":
            writer.to_fallible().write_val(Point, long)
        elif two:
            writer.write_slice(Point, [long, short])
        else:
            tape.write_val(0, Point, long)
        written_len = 16 if two else 8
        expected = (written(Point, Point(1, 2)) + written(Point, short))[:written_len]
        assert tape.memory == expected + b"\x77" * (32 - written_len)
        return
    assert tape.memory == b"\x77" * 32


@pytest.mark.parametrize("value", [1, None, (1, 2), b"12345678", Number(), Point])
def test_a_structure_takes_only_its_own_instances(value: Any) -> None:
    """Another type, even of the same size, is a TypeError with nothing written."""
    buffer = bytearray(b"\x77" * 16)
    with pytest.raises(TypeError):
        VmWriter.from_buffer(buffer).write_val(Point, value)
    with pytest.raises(TypeError):
        VmWriter.from_buffer(buffer).write_slice(Point, [Point(), value])
    assert buffer == b"\x77" * 16


def test_a_void_pointer_is_a_plain_number() -> None:
    """`c_void_p` is fine alone, in a structure and in an array."""

    class Link(ctypes.Structure):
        _fields_ = (("next", ctypes.c_void_p), ("value", ctypes.c_uint64))

    for back in read_back(Link, Link(0x1000, 5)):
        assert (back.next, back.value) == (0x1000, 5)
    pair = ctypes.c_void_p * 2
    assert [list(back) for back in read_back(pair, pair(1, 0))] == [[1, None]] * 6
    assert pod_of(ctypes.c_void_p).size == WORD


# Pointers of ours


def _pointers() -> dict[str, Any]:
    class Node(ctypes.Structure):
        pass

    Node._fields_ = (("next", ctypes.POINTER(Node)), ("value", ctypes.c_int))

    class Deep(ctypes.Structure):
        _fields_ = (("first", ctypes.c_int), ("nodes", (Node * 2) * 3))

    class Choice(ctypes.Union):
        _fields_ = (("number", ctypes.c_uint64), ("text", ctypes.c_char_p))

    class Child(Node):
        _fields_ = (("more", ctypes.c_int),)

    class Hidden(ctypes.Structure):
        _anonymous_ = ("choice",)
        _fields_ = (("choice", Choice),)

    class Text(ctypes.c_char_p):
        pass

    class Grown(ctypes.Structure):
        _fields_ = (("text", Text),)

    return {
        "POINTER": ctypes.POINTER(ctypes.c_int),
        "POINTER to a structure": ctypes.POINTER(Node),
        "POINTER to void": ctypes.POINTER(ctypes.c_void_p),
        "c_char_p": ctypes.c_char_p,
        "c_wchar_p": ctypes.c_wchar_p,
        "py_object": ctypes.py_object,
        "CFUNCTYPE": ctypes.CFUNCTYPE(ctypes.c_int),
        "PYFUNCTYPE": ctypes.PYFUNCTYPE(None),
        "array of c_char_p": ctypes.c_char_p * 3,
        "array of arrays of POINTER": (ctypes.POINTER(ctypes.c_int) * 2) * 2,
        "array of functions": ctypes.CFUNCTYPE(None) * 2,
        "structure that points to itself": Node,
        "structure in arrays in a structure": Deep,
        "union": Choice,
        "anonymous field": Hidden,
        "field of a base class": Child,
        "subclass of c_char_p": Text,
        "field that is a subclass of c_char_p": Grown,
        "empty array of pointers": ctypes.c_char_p * 0,
    }


POINTERS = _pointers()


@pytest.mark.parametrize("case", POINTERS)
def test_a_pointer_of_ours_is_refused_at_any_depth(case: str) -> None:
    """A TypeError that says to use usize, from every way to name the type; nothing is read."""
    kind = POINTERS[case]
    segment = procvm.Segment.alloc(1)
    reader: Any = segment.reader()
    writer: Any = segment.writer()
    untyped: Any = segment
    calls: list[Callable[[], object]] = [
        lambda: reader.read_val(kind),
        lambda: reader.read_slice(kind, 1),
        lambda: reader.to_fallible().read_val(kind),
        lambda: writer.write_val(kind, None),
        lambda: writer.write_slice(kind, []),
        lambda: untyped.read_val(0, kind),
        lambda: untyped.read_slice(0, kind, 1),
        lambda: untyped.write_val(0, kind, None),
        lambda: untyped.write_slice(0, kind, []),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="usize") as caught:
            call()
        assert not isinstance(caught.value, ProcvmError)
    assert reader.remain() == writer.avail() == len(segment)


def test_a_refusal_names_the_field() -> None:
    """The message of a refused structure says which field it is, from the outside in."""
    with pytest.raises(TypeError, match=r"Deep\.nodes.*\.next"):
        pod_of(POINTERS["structure in arrays in a structure"])


def test_a_refused_type_stays_refused() -> None:
    """The second look at a refused type is refused as the first was."""
    for _ in range(2):
        with pytest.raises(TypeError, match="usize"):
            pod_of(POINTERS["union"])


def test_a_structure_that_gets_its_fields_later_is_looked_at_again() -> None:
    """What was seen without fields is not taken for empty once it has a pointer or a number."""

    class Later(ctypes.Structure):
        pass

    class Pointing(ctypes.Structure):
        pass

    for kind in (Later, Pointing):
        with contextlib.suppress(TypeError):  # a type without fields may be refused too
            assert VmReader.from_buffer(b"").read_slice(kind, 0) == []
    Later._fields_ = (("number", ctypes.c_uint64),)
    Pointing._fields_ = (("pointer", ctypes.POINTER(ctypes.c_int)),)
    reader = VmReader.from_buffer(b"\1" * 8).to_fallible()
    assert reader.read_val(Later).number == 0x0101010101010101
    assert reader.remain() == 0
    with pytest.raises(TypeError, match="usize"):
        VmReader.from_buffer(bytes(8)).read_val(Pointing)


@pytest.mark.parametrize(
    "kind", [int, float, str, bytes, list, object, type, "u32", "I", 4, None, 1.5, [], np.uint32]
)
def test_what_is_no_type_of_plain_data_is_refused(kind: Any) -> None:
    """A Python type, a name, a format or a number is no pod: TypeError."""
    with pytest.raises(TypeError) as caught:
        pod_of(kind)
    assert not isinstance(caught.value, ProcvmError)
    with pytest.raises(TypeError):
        VmReader.from_buffer(bytes(16)).read_val(kind)


def test_an_instance_is_no_type() -> None:
    """A structure's instance where its class belongs is a TypeError."""
    untyped: Any = VmReader.from_buffer(bytes(16))
    for wrong in (Point(), ctypes.c_uint32(5), (ctypes.c_uint8 * 2)()):
        with pytest.raises(TypeError):
            untyped.read_val(wrong)
