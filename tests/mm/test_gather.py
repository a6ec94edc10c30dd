"""Gather and scatter on fakes, against plain Python on the same bytes; with and without numpy.

Every test here but those that need numpy is run again where numpy can not be imported.
"""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import procvm
from procvm import PageFaultError, VmSpace, f32, i8, i64, u8, u16, u32, u64
from procvm._base.optional import numpy_or_none
from procvm._base.perms import Perms
from procvm._mm.memory import Region
from tests.support.fakes import BASE, PID, Holed
from tests.test_model import NUMBERS, PODS, bytes_of, is_value, size_of

np: Any = numpy_or_none()
with_numpy = pytest.mark.skipif(np is None, reason="it is about numpy")
ROOT = Path(__file__).parents[2]
PAGE = 4096
END = 1 << 47
LAST = (1 << 64) - 1


class Big(ctypes.Structure):
    """Larger than a page."""

    _fields_: ClassVar = [("head", ctypes.c_uint8), ("tail", ctypes.c_uint16 * 2500)]


PLAIN_KINDS: list[Any] = [*PODS, Big, ctypes.c_uint8 * 3]
DTYPES: list[Any] = [
    ">u2",
    ">u8",
    "<i4",
    ">f8",
    "f2",
    "?",
    "S5",
    "V3",
    "U2",
    "c16",
    "V5000",
    "S4097",
    [("a", "u1"), ("b", ">u4"), ("c", "S3")],
    [("a", "i1"), ("b", [("x", "<f8"), ("y", "u2", (3,))])],
]
KINDS: list[Any] = PLAIN_KINDS + (DTYPES if np is not None else [])


def is_plain(kind: Any) -> bool:
    return any(kind is one for one in PLAIN_KINDS)


def ctype_of(kind: Any) -> Any:
    return kind.ctype if isinstance(kind, procvm.Pod) else kind


def len_of(kind: Any) -> int:
    """Returns the bytes of a value of a kind."""
    return size_of(kind) if is_plain(kind) else int(np.dtype(kind).itemsize)


class Fault(NamedTuple):
    """What the error of a gather or a scatter says."""

    which: int
    address: int
    copied_len: int


class Truth:
    """The bytes of a layout, and which of its pages may be accessed."""

    def __init__(self, base: int, kinds: Sequence[str], data: bytes, end: int = END) -> None:
        self.base = base
        self.kinds = kinds
        self.data = bytearray(data)
        self.end = end

    def good(self, address: int, n: int, allowed: Iterable[str]) -> int:
        """Returns how many of the `n` bytes at an address come before the first bad page."""
        done = 0
        while done < n:
            page = (address + done - self.base) // PAGE
            if not 0 <= page < len(self.kinds) or self.kinds[page] not in allowed:
                break
            done = self.base + (page + 1) * PAGE - address
        return min(done, n)

    def gathered(
        self, addresses: Sequence[int], size: int, allowed: Iterable[str]
    ) -> tuple[list[bytes], list[bool], Fault | None]:
        """Returns what a gather gives: bytes, zeros for bad ones; which are good; the fault."""
        found: list[bytes] = []
        ok: list[bool] = []
        fault = None
        for index, address in enumerate(addresses):
            good = self.good(address, size, allowed)
            at = address - self.base
            found.append(bytes(self.data[at : at + size]) if good == size else bytes(size))
            ok.append(good == size)
            if good < size and fault is None:
                fault = Fault(index, address + good, index * size + good)
        return found, ok, fault

    def scattered(
        self,
        addresses: Sequence[int],
        parts: Sequence[bytes],
        allowed: Iterable[str],
        *,
        mask: bool,
    ) -> tuple[list[bool], Fault | None]:
        """Writes into the bytes as a scatter does."""
        ok: list[bool] = []
        for index, (address, part) in enumerate(zip(addresses, parts, strict=True)):
            good = self.good(address, len(part), allowed)
            at = address - self.base
            if good:
                self.data[at : at + good] = part[:good]
            ok.append(good == len(part))
            if good < len(part) and not mask:
                return ok, Fault(index, address + good, index * len(part) + good)
        return ok, None


def assert_values(found: Any, parts: Sequence[bytes], kind: Any, shape: Any = None) -> None:
    """The values are those of these bytes, and of the type that they should be."""
    if np is not None and (not is_plain(kind) or kind in NUMBERS):
        dtype = np.dtype(kind.ctype if is_plain(kind) else kind)
        assert isinstance(found, np.ndarray)
        assert found.dtype == dtype
        assert found.shape == ((len(parts),) if shape is None else shape)
        assert found.tobytes() == b"".join(parts)
        if is_plain(kind):
            values = found.reshape(-1).tolist()
            assert all(map(is_value, [kind] * len(parts), values, parts))
        return
    assert type(found) is list
    assert len(found) == len(parts)
    assert all(map(is_value, [kind] * len(parts), found, parts))


def assert_ok(found: Any, ok: Sequence[bool], shape: Any = None) -> None:
    """The mask is this one: an array with numpy and a list without."""
    if np is None:
        assert found == ok
        return
    assert isinstance(found, np.ndarray)
    assert found.dtype == bool
    assert found.shape == ((len(ok),) if shape is None else shape)
    assert found.reshape(-1).tolist() == ok


def fault_of(access: Callable[..., Any], *args: Any) -> PageFaultError:
    """Returns the PageFaultError that an access raises."""
    with pytest.raises(PageFaultError) as caught:
        access(*args)
    assert type(caught.value) is PageFaultError
    return caught.value


def assert_fault(error: PageFaultError, fault: Fault | None, pid: int) -> None:
    assert fault is not None
    assert Fault(error.index or 0, error.address, error.copied_len) == fault
    assert error.index is not None
    assert error.pid == pid


def check_gather(
    vm: VmSpace,
    truth: Truth,
    addresses: Sequence[int],
    kind: Any,
    allowed: Iterable[str],
    pid: int,
    given_as: Callable[[Sequence[int]], Any] = list,
) -> None:
    """Gathers in both modes; all of it is as the model says."""
    parts, ok, fault = truth.gathered(addresses, len_of(kind), allowed)
    values, found_ok = vm.gather(given_as(addresses), kind, "mask")
    assert_values(values, parts, kind)
    assert_ok(found_ok, ok)
    if fault is None:
        assert_values(vm.gather(given_as(addresses), kind), parts, kind)
    else:
        assert_fault(fault_of(vm.gather, given_as(addresses), kind), fault, pid)


def values_of(data: bytes, kind: Any) -> tuple[Any, list[bytes]]:
    """Returns the values that stand in some bytes, and the bytes that each of them is."""
    size = len_of(kind)
    n = len(data) // size
    parts = [data[k * size : (k + 1) * size] for k in range(n)]
    if not is_plain(kind):
        return np.frombuffer(data, np.dtype(kind), n), parts
    if kind in NUMBERS:
        # By way of a float some patterns of NaN become others.
        values = [kind.from_bytes(part) for part in parts]
        return values, [bytes_of(kind, value) for value in values]
    return [kind.from_buffer_copy(part) for part in parts], parts


def check_scatter(
    vm: VmSpace,
    truth: Truth,
    addresses: Sequence[int],
    kind: Any,
    seed: int,
    allowed: Iterable[str],
    pid: int,
    peek: Callable[[], bytes],
    *,
    mask: bool,
) -> None:
    """Scatters made-up values; the outcome and all bytes of the layout are as the model says."""
    data = random.Random(seed).randbytes(len(addresses) * len_of(kind))
    values, parts = values_of(data, kind)
    ok, fault = truth.scattered(addresses, parts, allowed, mask=mask)
    if mask:
        assert_ok(vm.scatter(addresses, kind, values, "mask"), ok)
    elif fault is None:
        assert vm.scatter(addresses, kind, values) is None
    else:
        assert_fault(fault_of(vm.scatter, addresses, kind, values), fault, pid)
    assert peek() == truth.data


_MARK = 1 << 40
"""Stands for the base of a layout, so that what is made up does not depend on where it is."""


@st.composite
def address_lists(draw: st.DrawFn, pages: int, end: int, size: int, most: int = 30) -> list[int]:
    """Addresses in every order: near page edges, anywhere, side by side, wild ones."""
    near = st.builds(
        lambda page, d: _MARK + page * PAGE + d,
        st.integers(0, pages),
        st.integers(-size - 2, 2) | st.integers(-20, 20),
    )
    inside = st.integers(_MARK - 10, _MARK + pages * PAGE + 10)
    # Not such as have bytes on both sides of the end: a test of their own is about those.
    wild = st.sampled_from([0, 1, PAGE, end - size, end, end + 1, 1 << 63, LAST - 7, LAST])
    single = st.lists(near | inside | wild, max_size=most)
    row = st.builds(
        lambda start, step, n: [start + step * k for k in range(n)],
        near | inside,
        st.sampled_from([0, 1, size, size + 1, 511, 512, 513, 1 + size // 2]),
        st.integers(0, most),
    )
    found = [*draw(single), *draw(row), *draw(row)]
    order = draw(st.sampled_from(["as it is", "sorted", "falling", "mixed", "twice"]))
    if order in ("sorted", "falling"):
        found.sort(reverse=order == "falling")
    elif order == "mixed":
        random.Random(len(found)).shuffle(found)
    elif order == "twice":
        found += found
    return found


def placed(addresses: Sequence[int], base: int) -> list[int]:
    """Returns made-up addresses for a layout at `base`."""
    return [a - _MARK + base if abs(a - _MARK) < 1 << 30 else a for a in addresses]


# Fakes


class Told(Holed):
    """Pages of the machine's size, whose kinds are told; counts what came in."""

    def __init__(self, kinds: str, *, base: int = BASE, tells: bool = True) -> None:
        super().__init__(kinds, page_len=PAGE, base=base)
        self.truth = Truth(base, kinds.split(), self.all_bytes(base, len(kinds.split())))
        self.tells = tells
        self.packed: list[int] = []

    @property
    def pid(self) -> int:
        return PID

    def all_bytes(self, base: int, pages: int) -> bytes:
        return self.peek(base, pages * PAGE)

    def now(self) -> bytes:
        return self.all_bytes(self.truth.base, len(self.truth.kinds))

    def regions(self) -> list[Region] | None:
        if not self.tells:
            return None
        flags = {"r": int(Perms.READ), "w": int(Perms.WRITE)}
        return [
            Region(k * PAGE, (k + 1) * PAGE, sum(flags[letter] for letter in perms))
            for k, perms in sorted(self.perms.items())
        ]

    def readv_packed(self, words: memoryview, count: int, own_address: int) -> int:
        assert 1 <= count <= 1023
        self.packed.append(count)
        return super().readv_packed(words, count, own_address)


def space(kinds: str, *, base: int = BASE, tells: bool = True) -> tuple[VmSpace, Told]:
    fake = Told(kinds, base=base, tells=tells)
    return VmSpace(fake), fake


READ, WRITE = ("rw", "r"), ("rw", "wo")
LAYOUTS = st.lists(st.sampled_from(["rw", "r", "wo", "none", "hole"]), min_size=1, max_size=6)


# Against plain Python


@settings(max_examples=80 if np is not None else 30, deadline=None)
@given(st.data(), LAYOUTS, st.sampled_from(KINDS), st.booleans())
def test_gather_is_as_plain_python(data: Any, layout: list[str], kind: Any, tells: bool) -> None:
    """Values, mask, and the fault's index, address and count, for any layout, order and kind."""
    vm, fake = space(" ".join(layout), tells=tells)
    addresses = placed(data.draw(address_lists(len(layout), END, len_of(kind))), BASE)
    check_gather(vm, fake.truth, addresses, kind, READ, PID)


@settings(max_examples=80 if np is not None else 30, deadline=None)
@given(st.data(), LAYOUTS, st.sampled_from(KINDS), st.booleans(), st.integers(0, 999))
def test_scatter_is_as_plain_python(
    data: Any, layout: list[str], kind: Any, mask: bool, seed: int
) -> None:
    """Outcome and every byte of the pages, for any layout, order, overlap and kind."""
    vm, fake = space(" ".join(layout))
    addresses = placed(data.draw(address_lists(len(layout), END, len_of(kind), 12)), BASE)
    check_scatter(vm, fake.truth, addresses, kind, seed, WRITE, PID, fake.now, mask=mask)


@pytest.mark.parametrize("tells", [True, False])
def test_a_bad_pointer_hides_no_good_one(tells: bool) -> None:
    """Of words at every 8 bytes of good and bad pages, each good one comes with its value."""
    layout = "rw none rw hole hole r wo rw"
    vm, fake = space(layout, tells=tells)
    addresses = list(range(BASE - PAGE, BASE + 9 * PAGE, 8))
    check_gather(vm, fake.truth, addresses, u64, READ, PID)
    random.Random(1).shuffle(addresses)
    check_gather(vm, fake.truth, addresses, u64, READ, PID)
    straddling = [address + 4 for address in addresses]
    check_gather(vm, fake.truth, straddling, u64, READ, PID)


@pytest.mark.parametrize("bad", [0, 1, 511, 512, 1022, 1023, 1024])
@pytest.mark.parametrize("tells", [True, False])
def test_one_bad_address_among_good_ones_is_the_only_one(bad: int, tells: bool) -> None:
    """Wherever it stands among 1,025 ranges, each other range has its own result."""
    vm, fake = space("rw " * 200, tells=tells)
    addresses = [BASE + 700 * k for k in range(1025)]
    addresses[bad] = BASE - PAGE
    check_gather(vm, fake.truth, addresses, u32, READ, PID)


@pytest.mark.parametrize("n", [0, 1, 2, 1022, 1023, 1024, 1025, 2047, 5000])
@pytest.mark.parametrize("step", [0, 3, 8, 700])
def test_any_number_of_addresses(n: int, step: int) -> None:
    """From none to more than one call takes; repeated, overlapping, adjacent and sparse."""
    vm, fake = space("rw " * (1 + (n * step + 8) // PAGE))
    check_gather(vm, fake.truth, [BASE + step * k for k in range(n)], u64, READ, PID)


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025])
def test_a_scatter_of_any_number_of_values(n: int) -> None:
    """Each value is written, and a bad one in the middle is the only one that is not."""
    vm, fake = space("rw " * 20 + "hole")
    addresses = [BASE + 64 * k for k in range(n)]
    if n > 2:
        addresses[n // 2] = BASE + 20 * PAGE
    check_scatter(vm, fake.truth, addresses, u32, 1, WRITE, PID, fake.now, mask=True)
    check_scatter(vm, fake.truth, addresses, u32, 2, WRITE, PID, fake.now, mask=False)


def test_a_million_addresses() -> None:
    """A million values come in the order of their addresses, with a bad one in the middle."""
    vm, fake = space("rw " * 250 + "hole rw")
    n = 1_000_000 if np is not None else 100_000
    bad = n // 5 * 3
    addresses = [BASE + 997 * k % (250 * PAGE - 8) for k in range(n)]
    addresses[bad] = BASE + 250 * PAGE - 3
    values, ok = vm.gather(addresses, u64, "mask")
    data = fake.truth.data
    for k in (0, 1, 1022, 1023, bad - 1, bad + 1, n - 1, *range(7, n, 9_973)):
        at = addresses[k] - BASE
        assert int(values[k]) == int.from_bytes(data[at : at + 8], "little")
    assert sum(map(int, ok)) == n - 1
    assert not ok[bad]
    assert values[bad] == 0
    error = fault_of(vm.gather, addresses, u64)
    assert_fault(error, Fault(bad, BASE + 250 * PAGE, 8 * bad + 3), PID)


def test_nothing_is_read_that_shares_no_page_with_a_value() -> None:
    """A page between two values that nobody asked for is not touched."""
    vm, fake = space("rw rw rw")
    vm.gather([BASE + PAGE - 8, BASE + 2 * PAGE], u64)
    touched = {at // PAGE for _, first, n in fake.calls for at in (first, first + n - 1)}
    assert touched == {BASE // PAGE, BASE // PAGE + 2}


@with_numpy
@pytest.mark.parametrize("step", [8, 16, 100, 500])
def test_ten_thousand_near_addresses_take_a_few_calls(step: int) -> None:
    """What stands near each other is read as one range: two calls for each 8,192 values at most."""
    vm, fake = space("rw " * (1 + 10_000 * step // PAGE))
    addresses = np.arange(BASE, BASE + 10_000 * step, step, np.uint64)
    vm.gather(addresses, u64)
    assert len(fake.packed) <= 2
    fake.packed.clear()
    np.random.default_rng(1).shuffle(addresses)
    vm.gather(addresses, u64)
    assert len(fake.packed) <= 2


def test_far_addresses_take_a_call_for_each_thousand() -> None:
    """Where nothing can be read together, 1,023 ranges are one call."""
    vm, fake = space("rw " * 2500, tells=False)
    calls: list[int] = []

    def readv(ranges: Sequence[tuple[int, int]], own_address: int) -> None:
        calls.append(len(ranges))

    fake.readv = readv  # type: ignore[method-assign]
    vm.gather([BASE + PAGE * k for k in range(2500)], u64)
    assert sum(calls) == 2500
    assert max(calls) <= 1023
    assert len(calls) <= 4


# What addresses may be


def forms() -> list[Callable[[Sequence[int]], Any]]:
    def by_generator(addresses: Sequence[int]) -> Any:
        return (address for address in addresses)

    plain: list[Callable[[Sequence[int]], Any]] = [list, tuple, iter, by_generator]
    if np is None:
        return plain
    return [
        *plain,
        lambda addresses: np.array(addresses, np.uint64),
        lambda addresses: np.array(addresses, np.int64),
        lambda addresses: np.array(addresses, np.int32),
        lambda addresses: np.array(addresses, ">u8"),
        lambda addresses: np.repeat(np.array(addresses, np.uint64), 2)[::2],
        lambda addresses: [np.uint64(address) for address in addresses],
    ]


@pytest.mark.parametrize("form", range(len(forms())))
def test_addresses_in_any_form(form: int) -> None:
    """A list, a tuple, an iterator, a generator, and arrays of any width and order are the same."""
    vm, fake = space("rw hole rw")
    addresses = [BASE + 8, BASE, BASE + PAGE - 4, 0, BASE + 2 * PAGE, BASE + 8]
    check_gather(vm, fake.truth, addresses, u64, READ, PID, forms()[form])
    values, parts = values_of(b"0123456789" * 20, u64)
    ok, _ = fake.truth.scattered(addresses, parts[:6], WRITE, mask=True)
    assert_ok(vm.scatter(forms()[form](addresses), u64, values[:6], "mask"), ok)
    assert fake.now() == fake.truth.data


def test_addresses_as_a_range() -> None:
    """A range is as good as a list, a falling one too."""
    vm, fake = space("rw rw hole")
    for addresses in (range(BASE, BASE + 200, 8), range(BASE + 9000, BASE, -701), range(0)):
        check_gather(vm, fake.truth, addresses, u16, READ, PID, lambda a: a)


@with_numpy
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_result_has_the_shape_of_its_addresses(order: str) -> None:
    """Values and mask of a matrix of addresses stand where their addresses do."""
    vm, fake = space("rw hole rw")
    rows = [[BASE, 0, BASE + 6], [BASE + PAGE, BASE + 2 * PAGE, BASE + 8]]
    flat = rows[0] + rows[1]
    parts, ok, fault = fake.truth.gathered(flat, 4, READ)
    matrix = np.array(rows, np.uint64, order=order)
    values, found_ok = vm.gather(matrix, u32, "mask")
    assert_values(values, parts, u32, (2, 3))
    assert_ok(found_ok, ok, (2, 3))
    assert_fault(fault_of(vm.gather, matrix, u32), fault, PID)
    good = np.array([[[BASE]], [[BASE + 4]]], np.uint64)
    parts, _, _ = fake.truth.gathered([BASE, BASE + 4], 4, READ)
    assert_values(vm.gather(good, u32), parts, u32, (2, 1, 1))
    assert_values(vm.gather(np.uint64([BASE])[0:1].reshape(()), u32), parts[:1], u32, ())


@with_numpy
def test_a_mask_of_a_scatter_has_the_shape_of_its_addresses() -> None:
    """The mask of a scatter to a matrix of addresses stands as that of a gather does."""
    vm, _ = space("rw")
    matrix = np.array([[BASE, 0], [1, BASE + 1]], np.uint64)
    assert_ok(vm.scatter(matrix, u8, [1, 2, 3, 4], "mask"), [True, False, False, True], (2, 2))


def bad_addresses() -> list[tuple[Any, type[Exception]]]:
    found: list[tuple[Any, type[Exception]]] = [
        ("12", TypeError),
        (["12"], TypeError),
        (None, TypeError),
        (5, TypeError),
        ([None], TypeError),
        ([1.0], TypeError),
        ([True], TypeError),
        ([[1, 2]], TypeError),
        ([-1], procvm.InvalidArgsError),
        ([1 << 64], procvm.AddressOverflowError),
    ]
    if np is not None:
        found += [
            (np.array([1.0]), TypeError),
            (np.array([], float), TypeError),
            (np.array([True]), TypeError),
            (np.array(["12"]), TypeError),
            (np.array([None]), TypeError),
            (np.array([5, -1, 7]), procvm.InvalidArgsError),
            (np.array([-(2**31)], np.int32), procvm.InvalidArgsError),
        ]
    return found


@pytest.mark.parametrize("k", range(len(bad_addresses())))
@pytest.mark.parametrize("faults", ["raise", "mask"])
def test_what_is_no_address_is_refused_at_once(k: int, faults: Any) -> None:
    """Text, floats, truth values, nothing, negative and too large numbers: nothing is touched."""
    addresses, error = bad_addresses()[k]
    vm, fake = space("rw")
    with pytest.raises(error):
        vm.gather(addresses, u8, faults)
    with pytest.raises(error):
        vm.scatter(addresses, u8, [1], faults)
    assert fake.calls == []


def test_a_bad_address_at_the_end_is_refused_before_anything_is_written() -> None:
    """All addresses are looked at before the first value is written."""
    vm, fake = space("rw")
    with pytest.raises(procvm.InvalidArgsError):
        vm.scatter([BASE, -5], u8, [1, 2])
    assert fake.calls == []


@pytest.mark.parametrize("faults", ["ignore", "", None, True])
def test_another_way_to_take_faults_is_refused(faults: Any) -> None:
    """Only "raise" and "mask" are ways to take faults."""
    vm, fake = space("rw")
    with pytest.raises(ValueError, match="faults"):
        vm.gather([BASE], u8, faults)
    with pytest.raises(ValueError, match="faults"):
        vm.scatter([BASE], u8, [1], faults)
    assert fake.calls == []


@pytest.mark.parametrize("at", [0, 1, END, END + 1, 1 << 63, LAST - 1, LAST])
def test_wild_addresses_are_faults_and_nothing_else(at: int) -> None:
    """NULL, beyond user space, the last byte of all: a fault at that very address."""
    vm, fake = space("rw")
    for kind in (u8, u64):
        check_gather(vm, fake.truth, [BASE, at, BASE + 1], kind, READ, PID)
        check_scatter(
            vm, fake.truth, [BASE, at, BASE + 9], kind, 3, WRITE, PID, fake.now, mask=True
        )
        check_scatter(
            vm, fake.truth, [BASE, at, BASE + 9], kind, 4, WRITE, PID, fake.now, mask=False
        )


def test_the_last_value_of_user_space_is_read() -> None:
    """A value that ends with user space is good; one that begins there is not."""
    vm, fake = space("rw", base=END - PAGE)
    check_gather(vm, fake.truth, [END - 8, END, END - 16], u64, READ, PID)


def test_a_value_over_the_end_of_user_space_is_refused_whole() -> None:
    """It faults at its own first byte, also where the page below the end is good."""
    vm, _ = space("rw", base=END - PAGE)
    with pytest.raises(PageFaultError) as caught:
        vm.gather([END - 8, END - 4], u64)
    found = caught.value
    assert (found.index, found.address, found.copied_len) == (1, END - 4, 8)


def test_a_value_over_the_end_of_user_space_behind_a_hole_faults_at_its_begin() -> None:
    """Where the page below the end is a hole the fault is at the value's first byte."""
    vm, fake = space("rw")
    check_gather(vm, fake.truth, [BASE, END - 4], u64, READ, PID)


# What a kind may be


class Pointing(ctypes.Structure):
    _fields_: ClassVar = [("n", ctypes.c_int), ("to", ctypes.POINTER(ctypes.c_int))]


class Naming(ctypes.Union):
    _fields_: ClassVar = [("n", ctypes.c_uint64), ("name", ctypes.c_char_p)]


def bad_kinds() -> list[Any]:
    found: list[Any] = [
        Pointing,
        Naming,
        Pointing * 2,
        ctypes.py_object,
        ctypes.POINTER(ctypes.c_int),
        ctypes.CFUNCTYPE(None),
        "no such type",
        5,
    ]
    if np is not None:
        found += ["O", [("a", "u1"), ("b", "O")], np.dtype(object), "S", "V", "U"]
    return found


@pytest.mark.parametrize("k", range(len(bad_kinds())))
def test_a_kind_of_pointers_or_objects_of_ours_is_refused(k: int) -> None:
    """Whatever would let the tool follow a target's bytes, or has no size, is a TypeError."""
    kind = bad_kinds()[k]
    vm, fake = space("rw")
    with pytest.raises(TypeError):
        vm.gather([BASE], kind)
    with pytest.raises(TypeError):
        vm.gather([], kind, "mask")
    with pytest.raises(TypeError):
        vm.scatter([BASE], kind, [0])
    if np is not None:
        with pytest.raises(TypeError):
            vm.read_array(BASE, kind, 1)
    assert fake.calls == []


@with_numpy
def test_the_class_object_is_no_kind() -> None:
    """The root of all classes is refused as any other class is."""
    vm, _ = space("rw")
    with pytest.raises(TypeError):
        vm.gather([BASE], object)  # type: ignore[type-var]


@with_numpy
def test_a_dtype_of_many_numbers_adds_its_shape() -> None:
    """A dtype with a shape of its own gives an array with that shape behind the addresses'."""
    vm, fake = space("rw")
    values = vm.gather([BASE + 1, BASE + 9], np.dtype(("u2", (3,))))
    assert values.shape == (2, 3)
    assert values.tobytes() == fake.now()[1:7] + fake.now()[9:15]


@with_numpy
def test_a_kind_larger_than_numpy_knows_is_a_fault_or_too_much() -> None:
    """A ctypes array of 8 GiB is read to its fault, or refused for want of memory."""
    vm, _ = space("rw")
    with pytest.raises((PageFaultError, procvm.InvalidArgsError)):
        vm.gather([BASE], ctypes.c_uint8 * (1 << 33))


def test_far_more_values_than_memory_are_refused() -> None:
    """What can not fit is an InvalidArgsError, and nothing is touched."""
    vm, fake = space("rw")
    kind = ctypes.c_uint8 * ((1 << 31) - 1)
    with pytest.raises(procvm.InvalidArgsError, match="do not fit"):
        vm.gather([BASE] * 1_000_000, kind)
    assert fake.calls == []


def test_nothing_at_no_address() -> None:
    """No addresses is success, empty, and touches nothing, for every kind."""
    vm, fake = space("hole")
    for kind in KINDS:
        assert_values(vm.gather([], kind), [], kind)
        values, ok = vm.gather((), kind, "mask")
        assert_values(values, [], kind)
        assert_ok(ok, [])
        assert vm.scatter([], kind, values_of(b"", kind)[0]) is None
        assert_ok(vm.scatter([], kind, values_of(b"", kind)[0], "mask"), [])
    assert fake.calls == []


class Nothing(ctypes.Structure):
    _fields_: ClassVar = []


def test_values_of_no_bytes_are_refused() -> None:
    """A structure without fields is no value: TypeError, by gather and by scatter."""
    vm, _ = space("rw")
    with pytest.raises(TypeError):
        vm.gather([BASE], Nothing)
    with pytest.raises(TypeError):
        vm.scatter([BASE], Nothing, [Nothing()])


@with_numpy
@pytest.mark.parametrize("kind", [">u4", "i1", "u8"])
def test_an_empty_list_of_values_suits_every_dtype(kind: str) -> None:
    """No values at no addresses is success."""
    vm, _ = space("hole")
    assert vm.scatter([], kind, []) is None


# Values of a scatter


def misfits() -> list[tuple[Any, Any, type[Exception]]]:
    found: list[tuple[Any, Any, type[Exception]]] = [
        (u8, [1, 256], OverflowError),
        (u8, [1, -1], OverflowError),
        (i8, [1, 128], OverflowError),
        (u64, [1, 1 << 64], OverflowError),
        (f32, [1.0, 1e300], OverflowError),
        (u32, [1, "2"], TypeError),
        (u32, [1, 2.5], TypeError),
        (u32, [1, None], TypeError),
        (u32, None, TypeError),
        (u32, 7, TypeError),
        (ctypes.c_uint8 * 3, [1, 2], TypeError),
        (u32, [1], procvm.InvalidArgsError),
        (u32, [], procvm.InvalidArgsError),
        (u32, [1, 2, 3], procvm.InvalidArgsError),
    ]
    if np is not None:
        found += [
            (u8, np.array([1, 256]), OverflowError),
            (i8, np.array([1, 200], np.uint8), OverflowError),
            (u64, np.array([1, -1]), OverflowError),
            (">u2", [1, 65536], OverflowError),
            (">u2", np.array([1, -1]), OverflowError),
            (u32, np.array([1.0, 2.0]), TypeError),
            (">u4", [1.0, 2.5], TypeError),
            (">u4", ["a", "b"], TypeError),
            ([("a", "i1"), ("b", ">u4")], [(1, 1), (300, 1)], OverflowError),
            (u32, np.arange(3), procvm.InvalidArgsError),
            (">u4", np.arange(1), procvm.InvalidArgsError),
        ]
    return found


@pytest.mark.parametrize("k", range(len(misfits())))
@pytest.mark.parametrize("faults", ["raise", "mask"])
def test_values_that_do_not_fit_are_refused_before_anything_is_written(k: int, faults: Any) -> None:
    """A number out of range, no number, or not as many as addresses: no byte is written."""
    kind, values, error = misfits()[k]
    vm, fake = space("rw")
    with pytest.raises(error):
        vm.scatter([BASE, BASE + 64], kind, values, faults)
    assert fake.calls == []


def silent_losses() -> list[tuple[Any, Any]]:
    if np is None:
        return []
    return [
        (f32, np.array([1.0, 1e300])),
        ("f2", [1.0, 1e6]),
        ("f2", [1, 100_000]),
        ("S5", [b"good", b"too long"]),
        ("S5", [1, 1_234_567]),
        ("V3", [b"abc", b"too long"]),
        ([("a", "i1"), ("b", ">u4")], np.array([(1, 1), (300, 1)], [("a", "i8"), ("b", "u4")])),
        ([("a", "i1"), ("b", ">u4")], np.array([(1, 1), (1, 2**40)], [("a", "i1"), ("b", "u8")])),
    ]


@with_numpy
@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("k", range(len(silent_losses())))
def test_values_that_would_be_cut_are_refused_before_anything_is_written(k: int) -> None:
    """A float, a text or a field of a record that the dtype can not hold is never cut to fit."""
    kind, values = silent_losses()[k]
    vm, fake = space("rw")
    with pytest.raises((OverflowError, TypeError)):
        vm.scatter([BASE, BASE + 64], kind, values)
    assert fake.calls == []


@with_numpy
@pytest.mark.parametrize("kind", ["u8", ">u8"])
def test_small_and_large_numbers_fit_the_same_dtype(kind: str) -> None:
    """A list of numbers on both sides of 2^63 is written as it is."""
    vm, fake = space("rw")
    vm.scatter([BASE, BASE + 8], kind, [1, 1 << 63])
    order: Any = "big" if kind[0] == ">" else "little"
    assert fake.now()[:16] == (1).to_bytes(8, order) + (1 << 63).to_bytes(8, order)


@with_numpy
def test_a_number_beyond_all_widths_is_an_overflow_for_a_dtype_too() -> None:
    """Which error it is does not depend on how the kind was named."""
    vm, _ = space("rw")
    with pytest.raises(OverflowError):
        vm.scatter([BASE], ">u8", [1 << 70])


@with_numpy
def test_values_as_arrays_of_any_layout() -> None:
    """Values that are narrower, in the other byte order, strided or in rows are the same values."""
    vm, fake = space("rw")
    addresses = [BASE + 24, BASE, BASE + 8, BASE + 16]
    expected = b"".join(k.to_bytes(8, "little") for k in (2, 3, 4, 1))
    for values in (
        [1, 2, 3, 4],
        np.array([1, 2, 3, 4], np.uint8),
        np.array([1, 2, 3, 4], ">i4"),
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 3], [2, 4]]).T,
        np.array([1, 0, 2, 0, 3, 0, 4, 0], np.uint64)[::2],
        (k for k in (1, 2, 3, 4)),
    ):
        vm.fill_zeros(BASE, 32)
        vm.scatter(addresses, u64, values)
        assert fake.now()[:32] == expected


def test_where_values_overlap_the_later_one_wins() -> None:
    """Values are written in the order of their addresses, whichever stands first in memory."""
    vm, fake = space("rw")
    vm.scatter([BASE, BASE + 2, BASE + 1, BASE], u32, [0x11111111, 0x22222222, 0x33333333, 0x44])
    assert fake.now()[:6] == b"\x44\0\0\0\x33\x22"
    vm.scatter([BASE] * 2000, u64, list(range(2000)))
    assert vm.read_val(BASE, u64) == 1999


def test_a_read_only_page_is_not_written_and_a_forced_one_is() -> None:
    """Protections hold for a scatter unless they are forced, and forced() gathers hidden pages."""
    vm, fake = space("rw r none hole")
    addresses = [BASE + PAGE - 2, BASE + PAGE + 8, BASE + 2 * PAGE, BASE + 3 * PAGE, BASE]
    check_scatter(vm, fake.truth, addresses, u32, 1, WRITE, PID, fake.now, mask=True)
    check_scatter(vm, fake.truth, addresses, u32, 2, WRITE, PID, fake.now, mask=False)
    forced, allowed = vm.forced(), ("rw", "r", "none")
    check_gather(forced, fake.truth, addresses, u32, allowed, PID)
    check_scatter(forced, fake.truth, addresses, u32, 3, allowed, PID, fake.now, mask=True)
    check_scatter(forced, fake.truth, addresses, u32, 4, allowed, PID, fake.now, mask=False)


def test_values_side_by_side_are_one_write() -> None:
    """A run of neighbours is written at once, and a fault in it leaves the rest to be tried."""
    vm, fake = space("rw hole rw")
    vm.scatter(range(BASE, BASE + PAGE, 4), u32, [7] * 1024)
    assert fake.calls == [("write", BASE, PAGE)]
    addresses = range(BASE, BASE + 3 * PAGE, 4)
    check_scatter(vm, fake.truth, addresses, u32, 5, WRITE, PID, fake.now, mask=True)


# Arrays


@with_numpy
@pytest.mark.parametrize("shape", [5, (5,), (2, 3), (), (0,), 0, (3, 0, 2), [2, 2]])
@pytest.mark.parametrize("kind", [u8, u64, ">u4", "S5", "V3", [("a", "u1"), ("b", ">u4")]])
def test_an_array_is_the_bytes_that_stand_there(kind: Any, shape: Any) -> None:
    """Every shape and dtype, in C order; a shape without elements touches nothing."""
    vm, fake = space("hole rw")
    dtype = np.dtype(kind.ctype if is_plain(kind) else kind)
    expected = np.zeros(shape, dtype)
    n = expected.nbytes
    found = vm.read_array(BASE + PAGE + 3, kind, shape)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == fake.now()[PAGE + 3 : PAGE + 3 + n]
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert fake.calls == ([("read", BASE + PAGE + 3, n)] if n else [])
    if n == 0:
        assert vm.read_array(LAST, kind, shape).size == 0


@with_numpy
def test_an_array_of_a_ctypes_type_has_its_fields() -> None:
    """A structure, a union and an array of ctypes are read as numpy sees them."""
    vm, fake = space("rw " * 4)
    for kind in (*PODS, Big):
        found = vm.read_array(BASE, kind, 3)
        assert (found.itemsize, found.shape[0]) == (np.dtype(ctype_of(kind)).base.itemsize, 3)
        assert found.nbytes == 3 * len_of(kind)
        assert found.view(np.uint8).tobytes() == fake.now()[: found.nbytes]
    point = vm.read_array(BASE, Big, 2)[1]
    at = len_of(Big)
    assert point["head"] == fake.now()[at]
    assert point["tail"].tobytes() == fake.now()[at + 2 : at + 5002]


@with_numpy
def test_an_array_that_runs_into_a_hole_is_a_fault() -> None:
    """The fault says its first bad byte and how many bytes came before it; index is None."""
    vm, _ = space("rw hole")
    error = fault_of(vm.read_array, BASE + PAGE - 10, u32, 5)
    assert (error.address, error.copied_len, error.index) == (BASE + PAGE, 10, None)
    error = fault_of(vm.write_array, BASE + PAGE - 10, np.zeros(5, np.uint32))
    assert (error.address, error.copied_len, error.index) == (BASE + PAGE, 10, None)
    assert vm.read_bytes(BASE + PAGE - 10, 10) == bytes(10)


@with_numpy
@pytest.mark.parametrize(
    ("shape", "error"),
    [
        (-1, procvm.InvalidArgsError),
        ((2, -3), procvm.InvalidArgsError),
        (1 << 70, procvm.InvalidArgsError),
        ((1 << 40, 1 << 40), procvm.InvalidArgsError),
        (1 << 60, procvm.InvalidArgsError),
        (1 << 43, procvm.InvalidArgsError),
        (None, TypeError),
        (1.5, TypeError),
        (True, TypeError),
        ("2", TypeError),
    ],
)
def test_a_shape_that_can_not_be_is_refused(shape: Any, error: type[Exception]) -> None:
    """A negative one, no number, and far more than memory: nothing is touched."""
    vm, fake = space("rw")
    with pytest.raises(error):
        vm.read_array(BASE, u64, shape)
    assert fake.calls == []


@with_numpy
@pytest.mark.parametrize("shape", [(0, 1 << 62), (0, 1 << 70)])
def test_a_shape_of_nothing_times_far_too_much(shape: Any) -> None:
    """A shape without elements is empty or an InvalidArgsError, however long its other sides."""
    vm, _ = space("rw")
    with suppress(procvm.InvalidArgsError):
        assert vm.read_array(BASE, u64, shape).size == 0


@with_numpy
def test_an_array_is_written_in_c_order() -> None:
    """Strided, transposed, byte-swapped, structured, empty and plain lists, as their bytes."""
    vm, fake = space("rw")
    record = np.array([(1, 2), (3, 4)], [("a", "u1"), ("b", ">u4")])
    for array in (
        np.arange(6, dtype=np.uint16).reshape(2, 3).T,
        np.arange(20, dtype=">u4")[::3],
        record,
        np.array(b"abc", "S5"),
        np.zeros((3, 0)),
        [1, 2, 3],
    ):
        data = np.asarray(array).tobytes()
        vm.fill_zeros(BASE, 64)
        vm.write_array(BASE + 1, array)
        assert fake.now()[:64] == (b"\0" + data).ljust(64, b"\0")


@with_numpy
@pytest.mark.parametrize("array", [[None], [object()], ["a", object()]])
def test_an_array_of_objects_is_never_written(array: Any) -> None:
    """No address of an object of ours leaves for a target."""
    vm, fake = space("rw")
    with pytest.raises(TypeError):
        vm.write_array(BASE, np.array(array, object))
    with pytest.raises(TypeError):
        vm.write_array(BASE, np.zeros(1, [("a", "u1"), ("b", "O")]))
    assert fake.calls == []


@with_numpy
def test_an_array_outside_user_space_is_refused() -> None:
    """As with every other access: AccessDeniedError, and nothing is touched."""
    vm, fake = space("rw")
    with pytest.raises(procvm.AccessDeniedError):
        vm.read_array(END - 4, u64, 1)
    with pytest.raises(procvm.AccessDeniedError):
        vm.write_array(END, np.zeros(1))
    with pytest.raises(procvm.AddressOverflowError):
        vm.read_array(LAST, u64, 1)
    assert fake.calls == []


# Without numpy


WITHOUT_NUMPY = """
import sys


class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "numpy":
            raise ImportError(name)


sys.meta_path.insert(0, Blocked())

import pytest

said = pytest.main(sys.argv[1:])
assert "numpy" not in sys.modules
sys.exit(said)
"""


def run_without_numpy(*arguments: str) -> str:
    """Runs a file of tests where numpy can not be imported; returns what pytest said."""
    command = [sys.executable, "-c", WITHOUT_NUMPY, "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@with_numpy
def test_all_of_it_without_numpy() -> None:
    """Each test of this file that is not about numpy passes where numpy can not be imported."""
    said = run_without_numpy("tests/mm/test_gather.py")
    assert "passed" in said


@pytest.mark.skipif(np is not None, reason="it is about an installation without numpy")
def test_without_numpy_the_results_are_lists_and_arrays_are_refused() -> None:
    """A gather gives lists; read_array and write_array say which package is missing."""
    vm, fake = space("rw")
    assert vm.gather([BASE], u8) == [fake.now()[0]]
    assert vm.gather([BASE, 0], i64, "mask")[1] == [True, False]
    assert vm.scatter([BASE, 0], i64, [1, 2], "mask") == [True, False]
    for access in (lambda: vm.read_array(BASE, u8, 1), lambda: vm.write_array(BASE, [1])):
        with pytest.raises(procvm.UnsupportedError) as caught:
            access()
        assert "pip install 'procvm[numpy]'" in str(caught.value)
    with pytest.raises(TypeError):
        vm.gather([BASE], ">u4")
