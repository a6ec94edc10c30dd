"""The mappings of a process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import procvm
from procvm import Kind, Perms
from tests.support.playground import PAGE, Playground


def test_maps_equal_the_text_of_proc(playground: Playground) -> None:
    """Every line of /proc/PID/maps is a mapping with the same start, end, perms and name."""
    text = Path(f"/proc/{playground.pid}/maps").read_bytes()
    with procvm.open(playground.pid) as process:
        vmas = process.maps()
    lines = [line.split(None, 5) for line in text.splitlines()]
    assert [f"{vma.start:08x}-{vma.end:08x}".encode() for vma in vmas] == [f[0] for f in lines]
    assert [str(vma.perms).encode() for vma in vmas] == [f[1] for f in lines]
    assert [vma.name for vma in vmas] == [f[5] if len(f) == 6 else b"" for f in lines]


def test_find_tells_the_mapping_of_an_address(playground: Playground) -> None:
    """`find` and `find_vma` agree on first, last and missing bytes of a mapping."""
    base = playground.layout("hole r rw hole")
    with procvm.open(playground.pid) as process:
        maps = process.maps()
        for address, start in [
            (base, None),
            (base + PAGE, base + PAGE),
            (base + 2 * PAGE - 1, base + PAGE),
            (base + 2 * PAGE, base + 2 * PAGE),
            (base + 3 * PAGE, None),
            (0, None),
        ]:
            found = maps.find(address)
            assert (found.start if found else None) == start
            assert process.find_vma(address) == found


def test_filters_by_perms_name_and_kind(playground: Playground) -> None:
    """A filter gives exactly the mappings that match all of it."""
    base = playground.layout("r rw none srw")
    with procvm.open(playground.pid) as process:
        maps = process.maps()
    ours = [vma for vma in maps if base <= vma.start < base + 4 * PAGE]
    assert [vma.perms for vma in ours] == [
        Perms.READ,
        Perms.READ | Perms.WRITE,
        Perms(0),
        Perms.READ | Perms.WRITE | Perms.SHARED,
    ]
    writable = maps.filter(perms="rw")
    assert ours[1] in writable
    assert ours[3] in writable
    assert ours[0] not in writable
    assert ours[3] not in maps.filter(perms="rwp")
    assert list(maps.filter(perms="rws")) == [ours[3]]
    assert {vma.kind for vma in maps.filter(name="[stack]")} == {Kind.STACK}
    assert maps.filter(name="libc.so.6", perms="x")[0].kind is Kind.FILE
    assert maps.filter(kind=Kind.HEAP)[0].name == b"[heap]"
    with pytest.raises(ValueError, match="perms 'q'"):
        maps.filter(perms="q")


def test_maps_of_an_ended_process_are_an_error() -> None:
    """An ended process has no empty list of mappings, but an error."""
    with subprocess.Popen(["sleep", "60"]) as popen, procvm.open(popen.pid) as process:
        popen.kill()
        popen.wait()
        with pytest.raises(procvm.ProcessExitedError):
            process.maps()
        with pytest.raises(procvm.ProcessExitedError):
            process.find_vma(os.getpid())


def test_maps_filter_kind_as_text_is_that_kind(process: procvm.Process) -> None:
    """Every kind is found by its text as by itself, and compares as the text."""
    maps = process.maps()
    for kind in Kind:
        assert list(maps.filter(kind=str(kind))) == list(maps.filter(kind=kind))
        assert [vma.kind == str(kind) for vma in maps] == [vma.kind is kind for vma in maps]
    assert len(maps.filter(kind="stack")) == 1


@pytest.mark.parametrize("kind", ["haep", "", "HEAP", "[heap]"])
def test_maps_filter_unknown_kind_is_a_value_error_that_lists_them(
    process: procvm.Process, kind: str
) -> None:
    """No empty list: the message has every kind."""
    with pytest.raises(ValueError, match="file, anonymous, heap, stack, vdso"):
        process.maps().filter(kind=kind)


@pytest.mark.parametrize(
    "arguments",
    [{"name": 0xFF}, {"name": bytearray(b"[heap]")}, {"kind": 3}, {"kind": b"heap"}, {"perms": 5},
     {"perms": b"rw"}],
)  # fmt: skip
def test_maps_filter_wrong_type_is_a_type_error(
    process: procvm.Process, arguments: dict[str, Any]
) -> None:
    """The message begins with the argument's name."""
    (name,) = arguments
    with pytest.raises(TypeError, match=f"^{name} is "):
        process.maps().filter(**arguments)
