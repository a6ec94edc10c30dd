"""Views of structures: every field against the same ctypes structure over the same bytes."""

from __future__ import annotations

import copy
import ctypes
import enum
import math
import pickle
import random
import sys
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procvm
from procvm import PageFaultError, VmSpace, u8, u16, u32, u64, usize
from procvm._space.view import Address, ArrayView, View
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.fakes import BASE, PID, Holed
from tests.support.playground import PAGE, Playground

INTS: list[Any] = [
    *(ctypes.c_uint8, ctypes.c_int8, ctypes.c_uint16, ctypes.c_int16),
    *(ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64, ctypes.c_int64),
]
SCALARS: list[Any] = [*INTS, ctypes.c_float, ctypes.c_double, ctypes.c_bool, ctypes.c_char]
NATIVE_SCALARS: list[Any] = [*SCALARS, ctypes.c_size_t, ctypes.c_void_p]
SIZE_MOST = 8000
"""A structure that is made up is no larger: it fits the two pages of the fake."""


# Structures that are made up


def named(count: Iterator[int]) -> str:
    return f"f{next(count)}"


def plain_types(scalars: list[Any]) -> st.SearchStrategy[Any]:
    """Numbers, texts, and arrays of them, up to two dimensions."""
    single = st.sampled_from(scalars)
    array = st.builds(lambda kind, n: kind * n, single, st.integers(1, 5))
    return st.one_of(single, single, array, st.builds(lambda a, n: a * n, array, st.integers(1, 3)))


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2, count: Any = None, base: Any = None) -> Any:
    """A structure or union: packed, swapped, of bits, nested, anonymous, inherited."""
    count = iter(range(10_000)) if count is None else count
    if base is None:
        base = draw(
            st.sampled_from(
                [ctypes.Structure] * 3
                + [ctypes.Union, ctypes.BigEndianStructure, ctypes.LittleEndianStructure]
            )
        )
    swapped = issubclass(base, ctypes.BigEndianStructure)
    scalars = [k for k in SCALARS if k is not ctypes.c_bool] if swapped else NATIVE_SCALARS
    fields: list[tuple[Any, ...]] = []
    anonymous: list[str] = []
    bits_before = 0
    for _ in range(draw(st.integers(1, 5))):
        name = named(count)
        what = draw(st.sampled_from(["plain", "plain", "bits", "bits", "part", "array", "open"]))
        if what == "bits" and not (issubclass(base, ctypes.Union) and bits_before):
            # Not narrower ones beside them, and but once in a union: ctypes itself is wrong there.
            kind = draw(
                st.sampled_from([kind for kind in INTS if ctypes.sizeof(kind) >= bits_before])
            )
            bits_before = ctypes.sizeof(kind)
            fields.append((name, kind, draw(st.integers(1, 8 * ctypes.sizeof(kind)))))
            continue
        bits_before = bits_before if issubclass(base, ctypes.Union) else 0
        if what in ("plain", "bits") or not depth:
            fields.append((name, draw(plain_types(scalars))))
        else:
            # One that is swapped has but such parts: ctypes swaps no numbers within others.
            inner = base if swapped else None
            kind = draw(kinds(depth - 1, count, inner))
            if what == "array":
                kind *= draw(st.integers(0, 3))
            elif what == "open" and kind.__name__ == "Made":
                # What an anonymous part inherits ctypes does not give out.
                anonymous.append(name)
            fields.append((name, kind))
    body: dict[str, Any] = {"_fields_": fields}
    if anonymous:
        body["_anonymous_"] = tuple(anonymous)
    if draw(st.booleans()):
        body["_pack_"] = draw(st.sampled_from([1, 2, 4, 8]))
    made = type("Made", (base,), body)
    if not anonymous and base is not ctypes.Union and draw(st.integers(0, 4)) == 0:
        more = [(named(count), draw(plain_types(scalars)))]
        made = type("More", (made,), {"_fields_": more})
    return made


class Leaf(NamedTuple):
    """A field that holds a number or a text: how one comes to it, and what it is."""

    path: tuple[Any, ...]
    kind: Any
    bits: int


def is_text(kind: Any) -> bool:
    return issubclass(kind, ctypes.Array) and kind._type_ is ctypes.c_char


def own_fields(kind: Any) -> list[tuple[Any, ...]]:
    return [field for base in reversed(kind.__mro__) for field in base.__dict__.get("_fields_", ())]


def leaves(kind: Any, path: tuple[Any, ...] = ()) -> Iterator[Leaf]:
    """Yields every number and text of a type, those of anonymous parts by both ways."""
    if issubclass(kind, ctypes.Structure | ctypes.Union):
        hidden = [name for base in kind.__mro__ for name in base.__dict__.get("_anonymous_", ())]
        for name, inner, *bits in own_fields(kind):
            if bits:
                yield Leaf((*path, name), inner, bits[0])
                continue
            yield from leaves(inner, (*path, name))
            if name in hidden:
                # Not the inner parts' own names: ctypes gives out but what is in them.
                yield from (
                    leaf for leaf in leaves(inner, path) if hasattr(kind, leaf.path[len(path)])
                )
    elif issubclass(kind, ctypes.Array) and not is_text(kind):
        for index in range(kind._length_):
            yield from leaves(kind._type_, (*path, index))
    else:
        yield Leaf(path, kind, 0)


def owner(whole: Any, path: tuple[Any, ...]) -> Any:
    """Returns what holds the last step of a path."""
    for step in path[:-1]:
        whole = whole[step] if isinstance(step, int) else getattr(whole, step)
    return whole


def get(whole: Any, path: tuple[Any, ...]) -> Any:
    holder, step = owner(whole, path), path[-1]
    return holder[step] if isinstance(step, int) else getattr(holder, step)


def put(whole: Any, path: tuple[Any, ...], value: Any) -> None:
    holder, step = owner(whole, path), path[-1]
    if isinstance(step, int):
        holder[step] = value
    else:
        setattr(holder, step, value)


def place(kind: Any, path: tuple[Any, ...]) -> int:
    """Returns the offset of a path in a type, by ctypes' own descriptors."""
    at = 0
    for step in path:
        if isinstance(step, int):
            kind = kind._type_
            at += step * ctypes.sizeof(kind)
            continue
        at += getattr(kind, step).offset
        kind = type_of(kind, step)
    return at


def type_of(kind: Any, name: str) -> Any:
    fields = {field[0]: field[1] for field in own_fields(kind)}
    if name in fields:
        return fields[name]
    hidden = [part for base in kind.__mro__ for part in base.__dict__.get("_anonymous_", ())]
    return next(type_of(fields[part], name) for part in hidden if hasattr(fields[part], name))


class Same:
    """A structure over a fake's bytes as a view, and over a copy of them by ctypes."""

    def __init__(self, kind: Any, data: bytes, offset: int = 0) -> None:
        self.kind, self.at = kind, BASE + offset
        self.fake = Holed("rw rw rw", page_len=PAGE)
        self.fake.poke(self.at, data)
        self.data = bytearray(self.fake.peek(BASE, 3 * PAGE))
        self.own = kind.from_buffer(self.data, offset) if data else kind()
        self.view = VmSpace(self.fake).view(self.at, kind)

    def assert_same(self) -> None:
        assert self.fake.peek(BASE, 3 * PAGE) == self.data


def same(found: Any, expected: Any) -> bool:
    """Whether two values are one: NaN is NaN, and an address of nothing is 0 here."""
    if expected is None:
        expected = 0
    if isinstance(expected, ctypes.Array):
        expected = expected.value
    if isinstance(expected, float) and math.isnan(expected):
        return isinstance(found, float) and math.isnan(found)
    return bool(found == expected) and isinstance(found, type(expected))


MADE = kinds().filter(lambda kind: ctypes.sizeof(kind) < SIZE_MOST)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MADE, st.integers(0, 40), st.randoms(use_true_random=False))
def test_each_field_is_read_as_ctypes_reads_it(kind: Any, offset: int, made: Any) -> None:
    """Each number and text of any structure; one read, of the field's own bytes."""
    whole = Same(kind, made.randbytes(ctypes.sizeof(kind)), offset)
    for leaf in leaves(kind):
        whole.fake.calls.clear()
        found = get(whole.view, leaf.path)
        assert same(found, get(whole.own, leaf.path)), leaf
        assert_one_read(whole, leaf)
    whole.assert_same()


def assert_one_read(whole: Same, leaf: Leaf) -> None:
    at, n = whole.at + place(whole.kind, leaf.path), ctypes.sizeof(leaf.kind)
    if leaf.bits:
        # Of the unit that the bits are in; one at the end of a packed structure is cut there.
        ((name, address, length),) = whole.fake.calls
        assert (name, address) == ("read", at)
        assert 0 < length <= n
        assert address + length <= whole.at + ctypes.sizeof(whole.kind)
    elif n:
        assert whole.fake.calls == [("read", at, n)]


def value_for(leaf: Leaf, made: random.Random) -> Any:
    """Returns a value that a field can hold."""
    kind = leaf.kind
    if is_text(kind):
        return made.randbytes(made.randrange(kind._length_ + 1))
    if kind is ctypes.c_char:
        return made.randbytes(1)
    if kind is ctypes.c_bool:
        return made.random() < 0.5
    if kind in (ctypes.c_float, ctypes.c_double):
        return made.choice([0.0, -1.5, 2.0**100, math.inf, 7])
    low, high = limits(kind, leaf.bits)
    return made.choice([low, high, made.randint(low, high)])


def limits(kind: Any, bits: int = 0) -> tuple[int, int]:
    """Returns the lowest and the highest number of an integer type, or of some bits of it."""
    bits = bits or 8 * ctypes.sizeof(kind)
    signed = kind is not ctypes.c_void_p and kind(-1).value == -1
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MADE, st.integers(0, 40), st.randoms(use_true_random=False))
def test_each_field_is_written_as_ctypes_writes_it(kind: Any, offset: int, made: Any) -> None:
    """All bytes are as ctypes leaves them; one write, of the field's own bytes."""
    whole = Same(kind, made.randbytes(ctypes.sizeof(kind)), offset)
    for leaf in leaves(kind):
        value = value_for(leaf, made)
        whole.fake.calls.clear()
        put(whole.view, leaf.path, value)
        if is_text(leaf.kind):
            # ctypes stops at a NUL and leaves what stood behind; here the field is written whole.
            at = offset + place(kind, leaf.path)
            whole.data[at : at + leaf.kind._length_] = value.ljust(leaf.kind._length_, b"\0")
        else:
            put(whole.own, leaf.path, value)
        whole.assert_same()
        writes = [call for call in whole.fake.calls if call[0] == "write"]
        if leaf.bits:
            (read, write) = whole.fake.calls
            assert read == ("read", *write[1:])
            assert write[2] <= ctypes.sizeof(leaf.kind)
        else:
            n = ctypes.sizeof(leaf.kind)
            expected = [("write", whole.at + place(kind, leaf.path), n)] if n else []
            assert writes == whole.fake.calls == expected
        assert same(get(whole.view, leaf.path), get(whole.own, leaf.path))


@settings(max_examples=60, deadline=None)
@given(MADE, st.randoms(use_true_random=False))
def test_the_address_of_a_field_is_where_ctypes_has_it(kind: Any, made: Any) -> None:
    """Base plus the offset of the descriptor, for direct and for anonymous fields."""
    whole = Same(kind, made.randbytes(ctypes.sizeof(kind)))
    names = [name for name in dir(whole.view) if hasattr(kind, name)]
    for name in names:
        assert whole.view.address_of(name) == BASE + getattr(kind, name).offset
    assert set(names) >= {field[0] for field in own_fields(kind)}
    assert whole.fake.calls == []


def test_every_width_of_bits_of_every_type() -> None:
    """Bits of each width are read and written as ctypes does, and their neighbours stay."""
    for kind in INTS:
        for width in range(1, 8 * ctypes.sizeof(kind) + 1):
            rest = 8 * ctypes.sizeof(kind) - width
            fields = [("bits", kind, width)] + ([("rest", kind, rest)] if rest else [])
            made: Any = type("Bits", (ctypes.Structure,), {"_fields_": fields})
            for data in (b"\0", b"\xff", b"\xa5"):
                whole = Same(made, data * ctypes.sizeof(made), 3)
                for value in {*limits(kind, width), 0}:
                    whole.view.bits = value
                    whole.own.bits = value
                    whole.assert_same()
                    assert whole.view.bits == value
                    if rest:
                        assert whole.view.rest == whole.own.rest
                for value in (limits(kind, width)[0] - 1, limits(kind, width)[1] + 1):
                    with pytest.raises(OverflowError):
                        whole.view.bits = value
                    whole.assert_same()


class Flags(ctypes.Union):
    _fields_: ClassVar = [("low", ctypes.c_uint8, 3), ("other", ctypes.c_uint8, 4)]


@pytest.mark.skipif(Flags.other.offset >= 0, reason="this ctypes places them right")
def test_bits_that_ctypes_places_outside_are_not_touched() -> None:
    """TypeError, and no access beside the union; believed, a write corrupts the tool's heap."""
    whole = Same(ctypes.c_uint8 * 4, bytes(4), 16)
    view = VmSpace(whole.fake).view(BASE + 16, Flags)
    with pytest.raises(TypeError):
        view.other
    assert whole.fake.calls == []


# One structure with everything


class Point(ctypes.Structure):
    _fields_: ClassVar = [("x", ctypes.c_int16), ("y", ctypes.c_int32)]


class Either(ctypes.Union):
    _fields_: ClassVar = [("weight", ctypes.c_double), ("halves", ctypes.c_uint32 * 2)]


class All(ctypes.Structure):
    _anonymous_ = ("either",)
    _fields_: ClassVar = [
        ("small", ctypes.c_uint8),
        ("next", ctypes.c_size_t),
        ("colour", ctypes.c_uint32, 3),
        ("level", ctypes.c_int32, 7),
        ("name", ctypes.c_char * 8),
        ("where", Point),
        ("points", Point * 3),
        ("grid", (ctypes.c_int16 * 3) * 2),
        ("either", Either),
        ("ratio", ctypes.c_float),
        ("void", ctypes.c_void_p),
        ("flag", ctypes.c_bool),
        ("letter", ctypes.c_char),
        ("signed", ctypes.c_int64),
        ("wide", ctypes.c_wchar * 2),
    ]


def everything() -> Same:
    whole = Same(All, random.Random(5).randbytes(ctypes.sizeof(All)), 16)
    whole.view.void = 0x1234
    whole.own.void = 0x1234
    whole.fake.calls.clear()
    return whole


def test_nothing_is_touched_before_a_field_is_named() -> None:
    """Making a view, going into parts and arrays, and following an address read nothing."""
    whole = everything()
    view = whole.view
    assert isinstance(view, View)
    assert isinstance(view.where, View)
    assert isinstance(view.points, ArrayView)
    assert isinstance(view.points[2], View)
    assert isinstance(view.grid[1], ArrayView)
    assert (len(view.points), len(view.grid), len(view.grid[0])) == (3, 2, 3)
    view.address_of("where")
    assert (repr(view), repr(view.points)) == (
        f"<View of All at {BASE + 16:#x}>",
        f"<ArrayView of Point_Array_3 at {BASE + 16 + All.points.offset:#x}>",
    )
    assert {"small", "either", "weight", "wide"} <= set(dir(view))
    assert dir(view.where) == ["x", "y"]
    assert VmSpace(Holed("hole")).view(BASE, All) is not None
    assert whole.fake.calls == []


def test_a_view_follows_what_the_target_does() -> None:
    """What changes in memory is what the next look gives."""
    whole = everything()
    for value in (1, 2, 255):
        whole.fake.poke(BASE + 16, bytes([value]))
        assert whole.view.small == value


def test_arrays_are_sequences() -> None:
    """Indices count from either end, a walk gives every element, and others are IndexError."""
    whole = everything()
    row = whole.view.grid[1]
    assert list(row) == list(whole.own.grid[1])
    assert (row[-1], row[-3]) == (whole.own.grid[1][2], whole.own.grid[1][0])
    for index in (3, -4, 1 << 70):
        with pytest.raises(IndexError):
            row[index]
        with pytest.raises(IndexError):
            row[index] = 1
    for bad in ("0", None, 1.0, slice(0, 2)):
        with pytest.raises(TypeError):
            row[bad]
        with pytest.raises(TypeError):
            row[bad] = 1
    row[-1] = -77
    whole.own.grid[1][2] = -77
    whole.assert_same()
    assert [(p.x, p.y) for p in whole.view.points] == [(p.x, p.y) for p in whole.own.points]


def test_parts_are_assigned_whole() -> None:
    """A structure, array or union of the same type is written at once; another is TypeError."""
    whole = everything()
    whole.view.where = whole.own.where = Point(-3, 70_000)
    whole.assert_same()
    whole.view.points[1] = whole.own.points[1] = Point(5, 6)
    whole.view.grid[0] = (ctypes.c_int16 * 3)(7, 8, 9)
    whole.own.grid[0] = (ctypes.c_int16 * 3)(7, 8, 9)
    whole.view.either = whole.own.either = Either(weight=2.5)
    whole.assert_same()

    class More(Point):
        _fields_: ClassVar = [("z", ctypes.c_int32)]

    for bad in ((1, 2), whole.view.where, Either(), More(), None, 5, b"12345678"):
        whole.fake.calls.clear()
        with pytest.raises(TypeError):
            whole.view.where = bad
        assert whole.fake.calls == []
    with pytest.raises(TypeError):
        whole.view.grid = [[1, 2, 3], [4, 5, 6]]
    whole.assert_same()


def test_text_is_bytes_up_to_the_first_nul() -> None:
    """It is read as ctypes does, written whole with zeros behind it, and refused if too long."""
    whole = everything()
    whole.view.name = b"abc"
    at = BASE + 16 + All.name.offset
    assert whole.fake.peek(at, 8) == b"abc\0\0\0\0\0"
    assert whole.view.name == b"abc"
    whole.view.name = b"12345678"
    assert whole.view.name == b"12345678"
    whole.view.name = b"a\0b"
    assert whole.fake.peek(at, 8) == b"a\0b\0\0\0\0\0"
    assert whole.view.name == b"a"
    whole.fake.calls.clear()
    for bad, error in ((b"123456789", ValueError), ("text", TypeError), (5, TypeError)):
        with pytest.raises(error):
            whole.view.name = bad
    assert whole.fake.calls == []


def test_wide_characters_are_an_array() -> None:
    """Each element is one character."""
    whole = everything()
    whole.view.wide[0], whole.view.wide[1] = "ä", "\U0001f600"
    whole.own.wide = "ä\U0001f600"
    whole.assert_same()
    assert list(whole.view.wide) == ["ä", "\U0001f600"]


# What is refused


@pytest.mark.parametrize("kind", INTS, ids=lambda kind: kind.__name__)
def test_a_number_that_does_not_fit_is_refused(kind: Any) -> None:
    """OverflowError one beyond each end, and far beyond; nothing is read or written."""
    made: Any = type("One", (ctypes.Structure,), {"_fields_": [("a", kind), ("b", kind * 2)]})
    whole = Same(made, bytes(range(ctypes.sizeof(made))))
    low, high = limits(kind)
    for value in (low - 1, high + 1, 1 << 64, -(1 << 64), 1 << 200):
        with pytest.raises(OverflowError):
            whole.view.a = value
        with pytest.raises(OverflowError):
            whole.view.b[1] = value
    for bad in (1.0, "1", b"1", None, [1], 1j):
        with pytest.raises(TypeError):
            whole.view.a = bad
    assert whole.fake.calls == []
    whole.assert_same()


def test_a_value_of_another_type_is_refused() -> None:
    """TypeError for bits, floats, letters and addresses alike; nothing is written."""
    whole = everything()
    for name in ("colour", "level", "ratio", "weight", "next", "void", "signed"):
        bad: Any
        for bad in ("1", b"12", [1], 1j):
            with pytest.raises(TypeError):
                setattr(whole.view, name, bad)
    for bad in (b"ab", b"", "a", 256, None):
        with pytest.raises(TypeError):
            whole.view.letter = bad
    for name in ("next", "void", "small"):
        with pytest.raises(OverflowError):
            setattr(whole.view, name, -1)
    assert [call for call in whole.fake.calls if call[0] == "write"] == []
    whole.assert_same()


class Colour(enum.IntEnum):
    FAR = 0x1_0007


@pytest.mark.parametrize("which", ["enum", "address"])
def test_an_int_of_another_class_that_does_not_fit_is_refused(which: str) -> None:
    """OverflowError for an IntEnum and for what a view itself gave, as for an int."""
    whole = everything()
    value = Colour.FAR if which == "enum" else whole.view.next
    assert value > 255
    whole.fake.calls.clear()
    with pytest.raises(OverflowError):
        whole.view.small = value
    assert whole.fake.calls == []


def test_a_number_too_large_for_a_float_is_refused() -> None:
    """OverflowError, as f32 raises it; nothing is written."""
    whole = everything()
    with pytest.raises(OverflowError):
        whole.view.ratio = 1e300
    whole.assert_same()


def test_a_number_that_wraps_to_no_address_is_refused() -> None:
    """OverflowError for 2^64 in a c_void_p; nothing is written."""
    whole = everything()
    with pytest.raises(OverflowError):
        whole.view.void = 1 << 64
    whole.assert_same()


def test_a_name_that_is_none_is_refused() -> None:
    """AttributeError to read, to write and to ask for, which names type and field."""
    whole = everything()
    for name in ("nothing", "x", "__len__", "value"):
        with pytest.raises(AttributeError, match="All has no field"):
            getattr(whole.view, name)
        with pytest.raises(AttributeError, match=name):
            setattr(whole.view, name, 1)
        with pytest.raises(AttributeError):
            whole.view.address_of(name)
    assert not hasattr(whole.view, "colours")
    with pytest.raises(AttributeError):
        whole.view.points.x
    with pytest.raises(AttributeError):
        del whole.view.small
    assert whole.fake.calls == []


@pytest.mark.parametrize("name", ["_address", "_space", "_ctype", "_field", "_unit"])
def test_a_field_may_have_any_name(name: str) -> None:
    """A field is read where it stands, also if it is called as something of the view's own."""
    made: Any = type("Odd", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_uint16)]})
    whole = Same(made, b"\x12\x34")
    assert getattr(whole.view, name) == getattr(whole.own, name)


@pytest.mark.parametrize("n", [1 << 16, 1 << 17, 70_001])
def test_a_long_array_is_an_array(n: int) -> None:
    """A field of 64 KiB and more is a view like any other: one element is read at a time."""

    class Long(ctypes.Structure):
        _fields_: ClassVar = [("n", ctypes.c_uint32), ("data", ctypes.c_uint8 * n)]

    fake = Holed("rw " * 40, page_len=PAGE)
    view = VmSpace(fake).view(BASE, Long)
    assert view.data[n - 1] == fake.peek(BASE + 4 + n - 1, 1)[0]
    assert fake.calls == [("read", BASE + 4 + n - 1, 1)]


class WithPointer(ctypes.Structure):
    _fields_: ClassVar = [("a", ctypes.c_uint8), ("text", ctypes.c_char_p)]


class WithInner(ctypes.Structure):
    _fields_: ClassVar = [("a", ctypes.POINTER(ctypes.c_int) * 2)]


@pytest.mark.parametrize(
    "kind",
    [
        *(WithPointer, WithInner, WithPointer * 2, ctypes.c_char_p, ctypes.py_object * 2),
        *(ctypes.POINTER(Point), ctypes.CFUNCTYPE(None)),
        *(int, "u8", None, Point(), u64, ctypes.c_uint32),
    ],
)
def test_what_has_no_fields_of_plain_data_is_refused(kind: Any) -> None:
    """TypeError for pointers of ours at any depth, for numbers, and for what is no type."""
    vm = VmSpace(Holed("rw"))
    with pytest.raises(TypeError):
        vm.view(BASE, kind)
    if kind not in (u64, ctypes.c_uint32):
        with pytest.raises(TypeError):
            Address(BASE, vm).deref(kind)


def test_a_place_that_is_none_is_refused() -> None:
    """Beyond user space AccessDeniedError, beyond 2^64 AddressOverflowError, else TypeError."""
    vm = VmSpace(Holed("rw"))
    with pytest.raises(procvm.AccessDeniedError):
        vm.view(vm.end - 1, All)
    with pytest.raises(procvm.AddressOverflowError):
        vm.view((1 << 64) - 1, All)
    with pytest.raises(procvm.InvalidArgsError):
        vm.view(-1, All)
    bad: Any
    for bad in ("a", 1.5, None):
        with pytest.raises(TypeError):
            vm.view(bad, All)


def test_text_is_no_view() -> None:
    """An array of characters has no fields, and nothing is read to say so."""
    fake = Holed("none")
    with pytest.raises(TypeError):
        VmSpace(fake).view(BASE, ctypes.c_char * 8)
    assert fake.calls == []


def test_a_view_is_copied() -> None:
    """copy.copy gives a view of the same place."""
    whole = everything()
    assert copy.copy(whole.view).small == whole.own.small


def test_a_view_of_a_process_is_pickled(playground: Playground) -> None:
    """It comes back as a view of the same place of the same process, as its space does."""
    base = playground.layout("rw")
    with procvm.open(playground.pid) as process:
        view = pickle.loads(pickle.dumps(process.vm.view(base, Point)))
        assert view.x == process.vm.read_val(base, procvm.i16)


# Addresses


def test_an_unsigned_number_as_wide_as_an_address_is_followed() -> None:
    """It is an int with deref; a structure or array gives a view, a number its value."""
    whole = everything()
    found: Any
    for name in ("next", "void"):
        setattr(whole.view, name, BASE + PAGE)
        found = getattr(whole.view, name)
        assert isinstance(found, Address)
        assert found == BASE + PAGE
        whole.fake.calls.clear()
        assert isinstance(found.deref(Point), View)
        assert isinstance(found.deref(Point * 2), ArrayView)
        assert whole.fake.calls == []
        y = int.from_bytes(whole.fake.peek(BASE + PAGE + 4, 4), "little", signed=True)
        assert found.deref(Point).y == y
        assert found.deref(u16) == int.from_bytes(whole.fake.peek(BASE + PAGE, 2), "little")
        assert found.deref(ctypes.c_uint16) == found.deref(u16)
        assert found.deref(ctypes.c_char * 3) == whole.fake.peek(BASE + PAGE, 3)
    for name in ("small", "signed", "colour", "level"):
        assert not hasattr(getattr(whole.view, name), "deref")


def test_addresses_in_arrays_are_followed_in_a_chain() -> None:
    """An element of an array of words, and a number that was followed to, are followed again."""
    fake = Holed("rw rw", page_len=PAGE)
    vm = VmSpace(fake)
    vm.write_slice(BASE, usize, [0, BASE + 64, BASE + 128])
    vm.write_val(BASE + 64, usize, BASE + 128)
    vm.write_val(BASE + 128, usize, BASE + 192)
    vm.write_bytes(BASE + 192, bytes(Point(-5, 99)))
    words: Any = vm.view(BASE, usize.ctype * 3)
    assert words[1].deref(usize).deref(u64).deref(Point).y == 99
    assert words[2].deref(usize).deref(Point).x == -5
    assert words[1].deref(ctypes.c_size_t * 1)[0] == BASE + 128


def test_following_to_nothing_is_a_fault() -> None:
    """A number is PageFaultError at once, a view when a field is named; 0 is an int like others."""
    fake = Holed("rw none", page_len=PAGE)
    vm = VmSpace(fake)
    vm.write_slice(BASE, usize, [0, BASE + PAGE - 2, vm.end, (1 << 64) - 1])
    words: Any = vm.view(BASE, usize.ctype * 4)
    assert not words[0]
    node = words[0].deref(Point)
    accesses: list[Any] = [lambda: node.x, lambda: words[0].deref(u32)]
    for access in accesses:
        with pytest.raises(PageFaultError) as caught:
            access()
        assert (caught.value.address, caught.value.pid) == (0, PID)
    with pytest.raises(PageFaultError) as caught:
        words[1].deref(u32)
    assert (caught.value.address, caught.value.copied_len) == (BASE + PAGE, 2)
    edge: Any = words[1].deref(Point)
    assert isinstance(edge.x, int)
    with pytest.raises(PageFaultError):
        edge.y = 5
    with pytest.raises(procvm.AccessDeniedError):
        words[2].deref(u8)
    with pytest.raises(procvm.AddressOverflowError):
        words[3].deref(u16)
    with pytest.raises(procvm.VmError):
        words[3].deref(Point).y


def test_a_void_pointer_to_nothing_can_be_followed_as_well() -> None:
    """It is the same kind of number as a usize of 0."""
    whole = everything()
    whole.view.void = 0
    assert hasattr(whole.view.void, "deref")


# A live target


class Node(ctypes.Structure):
    """A node of tests/support/targets/list.c."""

    _anonymous_ = ("either",)
    _fields_: ClassVar = [
        ("number", ctypes.c_uint32),
        ("next", ctypes.c_size_t),
        ("colour", ctypes.c_uint, 3),
        ("level", ctypes.c_int, 7),
        ("rest", ctypes.c_uint, 22),
        ("name", ctypes.c_char * 12),
        ("point", Point),
        ("either", Either),
    ]


def walk(vm: VmSpace, head: int) -> Iterator[Any]:
    at = Address(head, vm)
    while at:
        node = at.deref(Node)
        yield node
        at = node.next


def told(node: Any) -> str:
    """Returns what the target would say of a node."""
    name = node.name.decode()
    point = node.point
    return f"{node.number} {node.colour} {node.level} {name} {point.x} {point.y} {node.weight:g}"


def test_a_list_of_a_target_is_walked_and_changed() -> None:
    """Every field of every node is as the target tells; what is written the target has."""
    with Child([compiled("list"), "300"]) as child:
        (head,) = child.hexes()
        with procvm.open(child.pid) as process:
            nodes = list(walk(process.vm, head))
            assert len(nodes) == 300
            assert sum(node.number for node in nodes) == int(child.ask("sum"))
            for k in (0, 1, 7, 130, 299):
                assert told(nodes[k]) == child.ask(f"node {k}")
            before = child.ask("node 6"), child.ask("node 8")
            node = nodes[7]
            node.number, node.colour, node.level = 5, 2, -64
            node.name, node.point.y, node.weight = b"changed", -1, 0.5
            assert child.ask("node 7") == f"5 2 -64 changed {node.point.x} -1 0.5"
            assert (child.ask("node 6"), child.ask("node 8")) == before
            nodes[9].next = int(nodes[299].next)
            assert child.ask("node 10") == "none"
            assert len(list(walk(process.vm, head))) == 10
            with process.snapshot() as snapshot:
                child.popen.kill()
                child.popen.wait()
                kept = list(walk(snapshot.vm, head))
                assert [node.number for node in kept][7] == 5
                with pytest.raises(procvm.AccessDeniedError):
                    kept[0].number = 1
            with pytest.raises(procvm.ProcessExitedError):
                nodes[0].number


def test_a_read_only_field_is_a_fault_and_forced_writes_it(
    process: procvm.Process, playground: Playground
) -> None:
    """A field over an edge faults where the target would; forced, protections are ignored."""
    base = playground.layout("rw r")
    at = base + PAGE - 6
    view = process.vm.view(at, Point)
    view.x = -2
    assert playground.peek(at, 2) == b"\xfe\xff"
    with pytest.raises(PageFaultError) as caught:
        view.y = 0x01020304
    assert (caught.value.address, caught.value.copied_len) == (base + PAGE, 2)
    assert playground.peek(at + 4, 2) == b"\x04\x03"
    process.vm.forced().view(at, Point).y = 0x05060708
    assert playground.peek(at + 4, 4) == (0x05060708).to_bytes(4, sys.byteorder)
