"""Pointers are as wide as the target's: those of a 32-bit program take 4 bytes, everywhere."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

import procvm
from procvm import u32, u64, usize
from procvm._linux import procfs
from tests.support.places import Places


@pytest.fixture(scope="module", params=[4, 8], ids=["32 bits", "64 bits"])
def places(request: pytest.FixtureRequest) -> Iterator[Places]:
    """The program of places.c, made for either width."""
    with Places(request.param) as places:
        yield places


@pytest.fixture
def process(places: Places) -> Iterator[procvm.Process]:
    with procvm.open(places.pid) as process:
        yield process


def test_address_size_is_that_of_the_program(places: Places, process: procvm.Process) -> None:
    """Of the process, its space, the forced one, and the pod that goes with it."""
    assert process.address_size == places.width
    assert process.vm.address_size == process.vm.forced().address_size == places.width
    assert process.usize is (u32 if places.width == 4 else usize)
    assert usize.size == 8


def test_address_size_of_an_ended_process_is_known_or_an_error_of_ours() -> None:
    """Once asked for it stays; asked for too late it is ProcessExitedError."""
    with Places() as places, procvm.open(places.pid) as asked, procvm.open(places.pid) as late:
        assert asked.address_size == 8
        places.__exit__()
        assert asked.address_size == 8
        with pytest.raises(procvm.ProcessExitedError):
            _ = late.address_size


def test_image_of_a_32_bit_program_has_its_token(places: Places) -> None:
    """AT_RANDOM, AT_ENTRY and AT_PHENT are read from a vector of either width."""
    raw = procfs.read_bytes(f"/proc/{places.pid}/auxv")
    assert raw is not None
    auxv = procfs.parse_auxv(raw)
    assert procfs.auxv_word(raw) == places.width
    assert auxv[4] == (32 if places.width == 4 else 56)
    with procvm.open(places.pid) as process:
        assert len(process.vm.read_bytes(auxv[25], 16)) == 16
        entry = process.maps().find(auxv[procfs.AT_ENTRY])
        assert entry is not None
        assert entry.name.decode().endswith(places.program)
        assert str(entry.perms) == "r-xp"


def test_auxv_word_of_what_makes_no_sense_is_that_of_the_machine() -> None:
    """Nothing, a cut vector and other bytes."""
    for raw in (b"", b"\1", bytes(64), b"\xff" * 320):
        assert procfs.auxv_word(raw) == 8


def test_address_star_follows_a_pointer_of_the_targets_width(
    places: Places, process: procvm.Process
) -> None:
    """Two pointers lie side by side: eight bytes would be both."""
    at = places.at
    assert process.address("*g_list") == at["one"]
    assert process.address(f"*(g_list+{places.width})") == at["two"]
    assert process.address("**g_list") == at["two"]
    assert process.address("***g_list") == 0
    assert process.address("*g_nameless") == at["nameless"]


def test_view_pointer_of_the_targets_width_is_followed(
    places: Places, process: procvm.Process
) -> None:
    """A field as wide as the target's pointers has `deref`, and another one has not."""
    word = ctypes.c_uint32 if places.width == 4 else ctypes.c_uint64

    class Node(ctypes.Structure):
        _fields_ = (("next", word), ("id", ctypes.c_int32))

    class Wide(ctypes.Structure):
        _fields_ = (("other", ctypes.c_uint64 if places.width == 4 else ctypes.c_uint32),)

    view = process.vm.view(places.at["one"], Node)
    assert view.next == places.at["two"]
    assert view.next.deref(Node).id == 2
    assert not hasattr(process.vm.view(places.at["one"], Wide).other, "deref")
    listed = process.vm.view(places.at["g_list"], word * 2)
    assert [one.deref(Node).id for one in listed] == [1, 2]


def test_view_void_pointer_of_another_width_is_refused(places: Places) -> None:
    """c_void_p would be two pointers of a 32-bit target; nothing is read or written."""

    class Node(ctypes.Structure):
        _fields_ = (("next", ctypes.c_void_p),)

    with procvm.open(places.pid) as process:
        view = process.vm.view(places.at["g_list"], Node)
        if places.width == 8:
            assert view.next == places.at["one"]
            return
        with pytest.raises(TypeError, match="declare it as c_uint32"):
            _ = view.next
        with pytest.raises(TypeError, match="declare it as c_uint32"):
            view.next = 0
        assert process.vm.read_val(places.at["g_list"], u64) & 0xFFFFFFFF == places.at["one"]


def test_address_size_of_the_tool_itself_is_its_own() -> None:
    """8 by procvm.open(os.getpid()), also after an exec of another program by a child."""
    with procvm.open(os.getpid()) as process:
        assert process.address_size == ctypes.sizeof(ctypes.c_void_p)
    popen = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with popen, procvm.open(popen.pid) as process:
        assert process.address_size == 8
        popen.kill()
