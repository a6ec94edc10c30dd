"""Pointers to a place, and paths of pointers that lead there in each run of a program."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import procvm
from procvm import PointerPath, PointerPaths, u64
from procvm._base import optional
from procvm._space import pointers
from tests.support.build import compiled

FLAGS = ("-pie", "-fPIE")


class Chased(NamedTuple):
    """A run of chased.c, and the address that it printed."""

    popen: subprocess.Popen[str]
    address: int
    process: procvm.Process

    def value(self) -> int:
        """Returns the value as the program prints it."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        return int(self.popen.stdout.readline())


@contextmanager
def chased(noise: int = 0, program: str = "") -> Generator[Chased]:
    popen = subprocess.Popen(
        [program or compiled("chased", *FLAGS), str(noise)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with popen:
        try:
            assert popen.stdout is not None
            address = int(popen.stdout.readline(), 16)
            with procvm.open(popen.pid) as process:
                run = Chased(popen, address, process)
                run.value()  # the first line that it reads allocates the buffer of stdin
                yield run
        finally:
            popen.kill()


@pytest.fixture(scope="module")
def first() -> PointerPaths:
    """The paths of one run."""
    with chased() as run:
        return run.process.pointer_paths(run.address)


@pytest.fixture(scope="module")
def found(first: PointerPaths) -> PointerPaths:
    """The paths of one run that lead to the value in a second and a third one too."""
    kept = first
    for noise in (501, 1002):
        with chased(noise) as run:
            kept = kept.rescan(run.process, run.address)
    return kept


def test_pointer_paths_rescan_narrows_them_down(first: PointerPaths, found: PointerPaths) -> None:
    assert 0 < len(found) < len(first)
    assert [path for path in first if path in found] == found


def test_pointer_path_leads_to_the_value_in_twenty_further_runs(
    found: PointerPaths, tmp_path: Path
) -> None:
    found[0].save(tmp_path / "path.json")
    path = PointerPath.load(tmp_path / "path.json")
    addresses = set()
    for noise in range(1, 21):
        with chased(noise * 37) as run:
            assert path.resolve(run.process) == run.address
            assert run.process.address(str(path)) == run.address
            run.process.vm.write_val(path.resolve(run.process), u64, noise)
            assert run.value() == noise
            addresses.add(run.address)
    assert len(addresses) > 10  # the addresses did differ


def test_pointer_paths_begins_with_the_path_of_the_source(found: PointerPaths) -> None:
    # &g_player -> player.bag -> bag.items -> items[3].value
    assert (0x38, 8, 3 * 32 + 24) in [path.offsets for path in found]
    with chased() as run:
        (path,) = (one for one in found if one.offsets == (0x38, 8, 3 * 32 + 24))
        base = run.process.modules()[path.module].base
        assert base + path.offset == run.process.symbol("g_player")
        assert str(path) == f"*(*(*({path.module}+{path.offset:#x})+0x38)+0x8)+0x78"


def test_pointer_paths_respects_depth_offset_and_limit() -> None:
    with chased() as run:
        assert not run.process.pointer_paths(run.address, depth=1, max_offset=16)
        few = run.process.pointer_paths(run.address, max_offset=0x78, limit=1)
        assert len(few) == 1
        for path in run.process.pointer_paths(run.address, max_offset=0x78):
            assert len(path.offsets) <= 4
            assert max(path.offsets) <= 0x78


def test_pointer_paths_of_a_variable_is_its_place_in_the_file() -> None:
    with chased() as run:
        variable = run.process.symbol("g_player")
        path = run.process.pointer_paths(variable, depth=1)[0]
        assert path.offsets == ()
        assert path.resolve(run.process) == variable == run.process.address(str(path))


def test_pointer_paths_of_a_snapshot_are_those_of_the_process() -> None:
    with chased() as run, run.process.snapshot() as kept:
        assert kept.pointer_paths(run.address) == run.process.pointer_paths(run.address)


def test_pointer_paths_rescan_keeps_what_still_leads_there(found: PointerPaths) -> None:
    wrong = found[0]._replace(offsets=(*found[0].offsets[:-1], 1))
    absent = found[0]._replace(module="absent.so")
    with chased(5) as run:
        kept = PointerPaths([wrong, absent, found[0]]).rescan(run.process, run.address)
        assert kept == [found[0]]
        resolved = dict(PointerPaths([wrong, absent]).resolved(run.process))
        assert resolved[absent] is None
        assert resolved[wrong] not in (None, run.address)


def test_pointer_path_of_another_build_is_refused_with_both_build_ids(
    found: PointerPaths,
) -> None:
    other = compiled("chased", *FLAGS, "-DOTHER", "-O2")
    with chased(0, other) as run:
        module = next(iter(run.process.modules().values()))
        path = found[0]._replace(module=module.name)
        assert path.build_id
        assert module.build_id
        with pytest.raises(procvm.MismatchError) as caught:
            path.resolve(run.process)
        assert path.build_id in str(caught.value)
        assert module.build_id in str(caught.value)


def test_pointer_paths_keeps_the_nearest_where_too_many_lead_there(
    found: PointerPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found.is_complete
    monkeypatch.setattr(pointers, "_MOST_EDGES", 1)
    with chased() as run:
        few = run.process.pointer_paths(run.address)
        assert not few.is_complete
        monkeypatch.setattr(pointers, "_MOST_POINTERS", 10)
        with pytest.raises(procvm.UnsupportedError, match="at most 10 can be searched"):
            run.process.pointer_paths(run.address)


def test_pointer_paths_can_be_interrupted_and_tells_its_progress() -> None:
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        raise KeyboardInterrupt

    with chased() as run:
        with pytest.raises(KeyboardInterrupt):
            run.process.pointer_paths(run.address, progress=stop)
        assert len(told) == 1
        assert run.value() == 1000
        run.process.pointer_paths(run.address, progress=lambda *pair: told.append(pair))
        assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "x"}',
        '{"format": "procvm pointer paths 1", "complete": true, "paths": [1]}',
        '{"format": "procvm pointer paths 1", "complete": true, "paths": [{"module": "a", '
        '"offset": -1, "offsets": [], "build_id": null}]}',
        "[" * 100_000,
    ],
)
def test_pointer_paths_load_of_another_file_is_malformed(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(procvm.MalformedError, match="does not hold pointer paths"):
        PointerPaths.load(tmp_path / "file")


def test_pointer_path_load_of_several_is_malformed(tmp_path: Path) -> None:
    path = PointerPath("game", 16, (8, -8))
    PointerPaths([path, path]).save(tmp_path / "two.json")
    assert PointerPaths.load(tmp_path / "two.json") == [path, path]
    assert json.loads((tmp_path / "two.json").read_text())["paths"][0]["offsets"] == [8, -8]
    with pytest.raises(procvm.MalformedError, match="2 pointer paths"):
        PointerPath.load(tmp_path / "two.json")
    assert str(path) == "*(*(game+0x10)+0x8)-0x8"


@pytest.mark.parametrize("has_numpy", [True, False])
def test_pointers_to_finds_each_pointer(has_numpy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with chased() as run:
        vm = run.process.vm
        variable = run.process.symbol("g_player")
        if not has_numpy:
            monkeypatch.setattr(optional, "_module", lambda _: None)
        player = vm.read_val(variable, u64)
        assert variable in list(vm.pointers_to(player))
        assert variable not in list(vm.pointers_to(player + 8))
        hits = list(vm.pointers_to((player - 8, player + 1)))
        assert variable in hits
        assert all(player - 8 <= u64.from_bytes(hit.match) <= player for hit in hits)
        assert variable not in list(vm.pointers_to(range(player - 8, player)))
        heap = next(vma for vma in run.process.maps() if vma.start <= player < vma.end)
        assert variable in list(vm.pointers_to(heap, ranges=[(variable, variable + 8)]))


def test_pointers_to_refuses_what_is_not_a_place() -> None:
    with chased() as run:
        vm = run.process.vm
        with pytest.raises(ValueError, match="empty"):
            vm.pointers_to((8, 8))
        with pytest.raises(TypeError):
            vm.pointers_to("g_player")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="align"):
            vm.pointers_to(8, align=0)
