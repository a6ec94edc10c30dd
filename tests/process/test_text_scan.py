"""`Scan.without` and `TextScan`, on the memory of a child."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import procvm
from procvm import MalformedError, MismatchError, TextScan, f32, u8, u32
from tests.support.playground import PAGE, Playground


@pytest.fixture
def vm(playground: Playground) -> Iterator[procvm.VmSpace]:
    with procvm.open(playground.pid) as process:
        yield process.vm


def test_scan_without_leaves_out_addresses_and_ranges(
    playground: Playground, vm: procvm.VmSpace
) -> None:
    """As plain Python does, for few candidates and for one at each place."""
    base = playground.layout("rw")
    here = [(base, base + PAGE)]
    for scan in (vm.scan(u8, ranges=here), vm.scan(u32, ranges=here, value=(0, 1 << 31))):
        size = PAGE // len(scan) if len(scan) > PAGE // 4 else 4
        every = list(scan)
        gone = [every[5], range(base + 100, base + 130), (base + 1002, base + 1003)]
        spans = [(every[5], every[5] + 1), (base + 100, base + 130), (base + 1002, base + 1003)]
        left = scan.without(gone)  # type: ignore[arg-type]
        expected = [
            at for at in every if not any(at < high and low < at + size for low, high in spans)
        ]
        assert list(left) == expected
        assert left.values().tolist() == [vm.read_val(at, u8 if size == 1 else u32) for at in left]
        assert list(scan) == every
        assert list(scan.without([])) == every
        assert len(scan.without([(0, vm.end)])) == 0
        assert len(left.refine("unchanged")) == len(left)
    with pytest.raises(TypeError):
        scan.without(["x"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="ends"):
        scan.without([(5, 4)])


def test_scan_about_passes_over_signalling_nans_in_silence(
    playground: Playground, vm: procvm.VmSpace
) -> None:
    base = playground.layout("rw")
    playground.poke(base, u32.to_bytes(0x7F9A1234) + f32.to_bytes(1.349))
    found = vm.scan(f32, about=1.35, ranges=[(base, base + PAGE)])
    assert list(found) == [base + 4]


def test_text_scan_finds_each_encoding_and_narrows(
    playground: Playground, vm: procvm.VmSpace
) -> None:
    base = playground.layout("rw none")
    playground.poke(base, "Müller".encode())
    playground.poke(base + 64, "Müller".encode("utf-16-le"))
    playground.poke(base + PAGE - 7, "Müller".encode())
    here = [(base, base + PAGE)]
    scan = vm.scan_text("Müller", ranges=here)
    assert [(place.address - base, place.kind, place.value) for place in scan.places()] == [
        (0, "utf-8", "Müller"),
        (64, "utf-16-le", "Müller"),
        (PAGE - 7, "utf-8", "Müller"),
    ]
    assert list(scan.refine("unchanged")) == list(scan)
    playground.poke(base, b"Maier")
    playground.poke(base + PAGE - 7, b"Max")
    changed = scan.refine("changed")
    assert [at - base for at in changed] == [0, PAGE - 7]
    assert [at - base for at in scan.refine(text="Maier")] == [0]
    assert [at - base for at in scan.refine("changed", text="Max")] == [PAGE - 7]
    # At the end of the page there is no room for a longer text.
    longer = scan.refine(text="Maximilian")
    assert list(longer) == []
    assert longer.skipped == [(base + PAGE - 7, base + PAGE + 3)]
    assert [at - base for at in scan.without([base, (base + 70, base + 71)])] == [PAGE - 7]
    assert len(scan) == 3


def test_text_scan_is_saved_and_goes_on(
    playground: Playground, vm: procvm.VmSpace, tmp_path: Path
) -> None:
    base = playground.layout("rw")
    playground.poke(base + 8, b"saved text")
    scan = vm.scan_text("saved text", ranges=[(base, base + PAGE)])
    scan.save(tmp_path / "scan")
    again = TextScan.load(tmp_path / "scan", vm)
    assert list(again.places()) == list(scan.places())
    assert (tmp_path / "scan").stat().st_mode & 0o777 == 0o600
    playground.poke(base + 8, b"other text")
    assert list(again.refine(text="other")) == [base + 8]
    own = procvm.open(__import__("os").getpid())
    with own, pytest.raises(MismatchError, match="same address"):
        TextScan.load(tmp_path / "scan", own.vm)
    for damage in (
        b"",
        b"{}",
        b"[1]",
        (tmp_path / "scan").read_bytes().replace(b"utf-8", b"utf8x"),
    ):
        (tmp_path / "bad").write_bytes(damage)
        with pytest.raises(MalformedError, match="not a saved scan"):
            TextScan.load(tmp_path / "bad", vm)


def test_text_scan_refuses_what_makes_no_sense(vm: procvm.VmSpace) -> None:
    with pytest.raises(ValueError, match="empty"):
        vm.scan_text("")
    with pytest.raises(ValueError, match="no encoding"):
        vm.scan_text("text", encodings=())
    with pytest.raises(TypeError, match="several names"):
        vm.scan_text("text", encodings="utf-8")
    scan = vm.scan_text("text", ranges=[])
    assert len(scan) == 0
    with pytest.raises(ValueError, match="no condition"):
        scan.refine()
    with pytest.raises(ValueError, match="'changed' or 'unchanged'"):
        scan.refine("increased")  # type: ignore[arg-type]
