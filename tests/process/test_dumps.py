"""Hexdump, telescope and follow over a live process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

import procvm
from procvm import PageFaultError, Segment, VmSpace, u64
from procvm._space.telescope import ChainEnd
from tests.support.playground import PAGE, Playground

UNMAPPED = 0x10


@pytest.fixture
def words() -> Iterator[Segment]:
    with Segment.alloc(2) as segment:
        yield segment


@pytest.fixture
def vm() -> Iterator[VmSpace]:
    with procvm.open(os.getpid()) as process:
        yield process.vm


def test_hexdump_iterated_gives_rows_of_sixteen_bytes(vm: VmSpace, words: Segment) -> None:
    words.write_bytes(0, bytes(range(40)))
    dump = vm.hexdump(words.address, 40)
    assert [(row.address - words.address, len(row.data)) for row in dump] == [
        (0, 16),
        (16, 16),
        (32, 8),
    ]
    assert b"".join(row.data for row in dump) == dump.data == bytes(range(40))
    assert dump[-1].text == "".join(map(chr, range(32, 40)))


def test_hexdump_printed_shows_address_digits_and_text(vm: VmSpace, words: Segment) -> None:
    words.write_bytes(0, b"Hello, world\0\1\2\3")
    digits = "48 65 6c 6c 6f 2c 20 77  6f 72 6c 64 00 01 02 03"
    assert str(vm.hexdump(words.address, 16)) == f"{words.address:#x} {digits} Hello, world...."


def test_hexdump_rows_that_repeat_are_one_star(vm: VmSpace, words: Segment) -> None:
    lines = str(vm.hexdump(words.address, 64)).splitlines()
    assert (len(lines), lines[1], lines[2]) == (3, "*", f"{words.address + 64:#x}")
    words.write_bytes(48, b"x")
    lines = str(vm.hexdump(words.address, 64)).splitlines()
    assert [line.split()[0] for line in lines] == [
        f"{words.address:#x}",
        "*",
        f"{words.address + 48:#x}",
    ]
    assert len(vm.hexdump(words.address, 64)) == 4


def test_hexdump_over_a_hole_raises_the_fault(playground: Playground) -> None:
    start = playground.layout("rw none")
    with procvm.open(playground.pid) as process:
        with pytest.raises(PageFaultError) as caught:
            process.vm.hexdump(start + PAGE - 20, 40)
        assert (caught.value.address, caught.value.copied_len) == (start + PAGE, 20)
        assert len(process.vm.hexdump(start, PAGE)) == PAGE // 16


def test_hexdump_of_nothing_has_no_rows(vm: VmSpace, words: Segment) -> None:
    dump = vm.hexdump(words.address, 0)
    assert (len(dump), str(dump)) == (0, "")


def test_telescope_follows_pointers_to_a_text(vm: VmSpace, words: Segment) -> None:
    base = words.address
    words.write_slice(0, u64, [base + 16, 5, base + 32, 0])
    words.write_bytes(32, b"the text\0")
    first, second = vm.telescope(base, 2)
    assert (first.address, first.value) == (base, base + 16)
    assert [link.value for link in first.chain] == [base + 16, base + 32]
    assert all(link.perms is not None and link.perms.writable for link in first.chain)
    assert (first.end, first.text) == (ChainEnd.TEXT, "the text")
    assert (second.value, second.end, second.text) == (5, ChainEnd.NUMBER, None)
    assert second.chain[0].perms is None
    line = str(vm.telescope(base, 2)).splitlines()[0]
    assert line.endswith(f'-> {base + 32:#x} (rw-p) -> "the text"')


def test_telescope_names_a_loop_and_a_limit(vm: VmSpace, words: Segment) -> None:
    base = words.address
    words.write_slice(0, u64, [base + 8, base])
    assert vm.telescope(base, 1)[0].end == "loop"
    assert vm.telescope(base, 1, depth=1)[0].end == "deeper"


def test_telescope_over_a_hole_raises_the_fault(playground: Playground) -> None:
    start = playground.layout("rw none")
    with procvm.open(playground.pid) as process, pytest.raises(PageFaultError) as caught:
        process.vm.telescope(start + PAGE - 16, 3)
    assert caught.value.address == start + PAGE


def test_telescope_of_no_words_is_refused(vm: VmSpace, words: Segment) -> None:
    with pytest.raises(procvm.InvalidArgsError):
        vm.telescope(words.address, 0)


def test_follow_adds_each_offset_after_a_read(vm: VmSpace, words: Segment) -> None:
    base = words.address
    words.write_slice(0, u64, [base + 0x100])
    words.write_val(0x110, u64, base + 0x200)
    assert vm.follow(base) == base
    assert vm.follow(base, 0x10) == base + 0x110
    assert vm.follow(base, 0x10, -8) == base + 0x1F8


def test_follow_of_a_bad_pointer_says_which_one(vm: VmSpace, words: Segment) -> None:
    words.write_val(0, u64, UNMAPPED)
    with pytest.raises(PageFaultError, match=r"pointer 2 of 3, at 0x18") as caught:
        vm.follow(words.address, 8, 0, 0)
    assert (caught.value.address, caught.value.copied_len) == (0x18, 0)
    with pytest.raises(procvm.AddressOverflowError, match="pointer 1 of 1"):
        vm.follow(words.address, -0x11)
    with pytest.raises(TypeError):
        vm.follow(words.address, 1.5)  # type: ignore[arg-type]


def test_read_cstring_without_a_limit_reads_up_to_4096_bytes(vm: VmSpace, words: Segment) -> None:
    words.write_bytes(0, b"x" * 4095 + b"\0")
    assert len(vm.read_cstring(words.address)) == 4095
    words.write_bytes(0, b"x" * 4097)
    with pytest.raises(procvm.InvalidArgsError, match="no NUL in the 4096 bytes"):
        vm.read_cstring(words.address)


def test_search_hit_carries_its_bytes(vm: VmSpace, words: Segment) -> None:
    base = words.address
    words.write_bytes(8, b"id=1234;id=56;")
    here = [(base, base + PAGE)]
    hits = list(vm.search(re.compile(rb"id=\d+"), ranges=here))
    assert [(hit - base, hit.match, hit.end - base) for hit in hits] == [
        (8, b"id=1234", 15),
        (16, b"id=56", 21),
    ]
    (hit,) = vm.search("69 64 3D 3? 3? 3B", ranges=here)
    assert (hit - base, hit.match, hit.needle) == (16, b"id=56;", 0)
    (hit,) = vm.search(text="56;", encoding="ascii", ranges=here)
    assert (hit - base, hit.match) == (19, b"56;")
    found = list(vm.search([b"id=5", re.compile(rb"\d{4}"), (procvm.u8, ord("6"))], ranges=here))
    assert [(hit - base, hit.needle, hit.match) for hit in found] == [
        (11, 1, b"1234"),
        (16, 0, b"id=5"),
        (20, 2, b"6"),
    ]
    words.write_val(512, procvm.f32, 2.5)
    (hit,) = vm.search(procvm.f32, value=(2.0, 3.0), align=4, ranges=here)
    assert (hit - base, hit.match) == (512, bytes(procvm.f32.to_bytes(2.5)))


def test_search_near_an_address_gives_the_places_around_it(vm: VmSpace, words: Segment) -> None:
    base = words.address
    for at in (96, 200, 304, 400):
        words.write_val(at, u64, 77)
    found = vm.search(u64, value=77, near=(base + 252, 52))
    assert [hit - base for hit in found] == [200, 304]
    assert [hit - base for hit in vm.search(u64, value=77, near=(base + 252, 51))] == []
    both = vm.search(u64, value=77, near=(base + 252, 52), ranges=[(base + 250, base + PAGE)])
    assert [hit - base for hit in both] == [304]
    assert list(vm.scan(u64, value=77, near=(base + 252, 52))) == [base + 200, base + 304]
    wrong: list[object] = [5, (1,), (1, -1), (1.0, 2)]
    for near in wrong:
        with pytest.raises((TypeError, ValueError)):
            vm.search(b"x", near=near)  # type: ignore[call-overload]
