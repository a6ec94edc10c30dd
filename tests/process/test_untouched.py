"""Looking allocates nothing in a target: shared memory, memfds and files that it never touched."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

import procvm
from procvm import PageFaultError, VmSpace, u32
from procvm._linux import pagemap
from procvm._linux.objects import Objects
from tests.support.build import compiled
from tests.support.playground import PAGE
from tests.support.procfs import status_field

SIZE = 32 << 20
PRIVATE_WRITTEN, OTHER_WRITTEN = 5 * PAGE + 7, 9 * PAGE + 100
FILE_WRITTEN = 3 * PAGE
Range = tuple[int, int]


class Target:
    """The program of ``targets/objects.c``."""

    def __init__(self, file: Path) -> None:
        with file.open("wb") as disk:
            disk.truncate(SIZE)
            disk.seek(FILE_WRITTEN)
            disk.write(b"on-the-disk")
        argv = [compiled("objects"), str(file)]
        self.popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.at: dict[str, int] = {}
        while (words := self._line().split()) != ["up"]:
            self.at[words[0]] = int(words[1], 16)

    def _line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().decode()

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def ranges(self) -> list[Range]:
        return sorted((at, at + SIZE) for at in self.at.values())

    def counts(self) -> list[str]:
        """Returns, for each object, its pages that the target maps and its blocks."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(b"x")
        self.popen.stdin.flush()
        return self._line().split()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with Target(tmp_path / "sparse") as running:
        yield running


def _diff(process: procvm.Process, ranges: list[Range], _: Path) -> None:
    with process.snapshot(ranges) as before, process.snapshot(ranges) as after:
        before.diff(process.vm)
        before.diff(after)


def _restore(process: procvm.Process, ranges: list[Range], _: Path) -> None:
    with process.snapshot(ranges) as before:
        assert before.restore() == 0


def _search(process: procvm.Process, ranges: list[Range], _: Path) -> None:
    for what in (b"nowhere", b"\0\0\0nowhere"):
        assert not list(process.vm.search(what, ranges=ranges))


def _search_forced(process: procvm.Process, ranges: list[Range], _: Path) -> None:
    assert not list(process.vm.forced().search(b"nowhere", ranges=ranges))


def _scan(process: procvm.Process, ranges: list[Range], _: Path) -> None:
    scan = process.vm.scan(u32, ranges=ranges[:2], align=4 * PAGE)
    scan = scan.refine(value=0)
    scan = scan.refine("unchanged")
    assert len(scan) == 2 * SIZE // (4 * PAGE)


def _copy_to(process: procvm.Process, ranges: list[Range], path: Path) -> None:
    assert process.vm.copy_to(path, ranges) == sum(end - start for start, end in ranges)


OPERATIONS: dict[str, Callable[[procvm.Process, list[Range], Path], object]] = {
    "search": _search,
    "forced search": _search_forced,
    "scan": _scan,
    "snapshot": lambda process, ranges, _: process.snapshot(ranges).close(),
    "save": lambda process, ranges, path: process.save(path, ranges),
    "copy_to": _copy_to,
    "diff": _diff,
    "restore": _restore,
    "unchanged": lambda process, ranges, _: process.unchanged(ranges).__enter__(),
}


map_files = pytest.mark.root("opens files of /proc/PID/map_files")

WITH_MAP_FILES = [
    pytest.param(name, marks=[map_files] if name == "copy_to" else []) for name in OPERATIONS
]
"""`copy_to` refuses a page that it cannot read without allocating it, as it must without
/proc/PID/map_files; the others leave it out."""


@pytest.mark.parametrize("operation", WITH_MAP_FILES)
@pytest.mark.parametrize("backend", ["auto", "mem"])
def test_looking_at_untouched_objects_allocates_no_page(
    target: Target, tmp_path: Path, operation: str, backend: str
) -> None:
    before = target.counts()
    with procvm.open(target.pid, backend=backend) as process:  # type: ignore[arg-type]
        OPERATIONS[operation](process, target.ranges, tmp_path / "out")
    assert target.counts() == before


@pytest.mark.parametrize("operation", WITH_MAP_FILES)
def test_looking_without_pagemap_scan_allocates_no_page(
    target: Target, tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel before 6.7 does not know the request, and answers ENOTTY."""
    monkeypatch.setattr(pagemap, "_SCAN", 0xC0606611)
    before = target.counts()
    with procvm.open(target.pid) as process:
        OPERATIONS[operation](process, target.ranges, tmp_path / "out")
    assert target.counts() == before


def _found(space: VmSpace, what: bytes, ranges: list[Range]) -> list[int]:
    return [int(hit) for hit in space.search(what, ranges=ranges)]


def _expected(target: Target) -> dict[bytes, list[int]]:
    at = target.at
    return {
        b"other-wrote": sorted(
            at[name] + OTHER_WRITTEN for name in ("written", "private", "closed")
        ),
        b"target-wrote": sorted(
            at[name] + PRIVATE_WRITTEN for name in ("private", "closed", "filecopy")
        ),
        b"on-the-disk": sorted(at[name] + FILE_WRITTEN for name in ("file", "filecopy")),
    }


@map_files
def test_search_finds_what_others_wrote_to_pages_the_target_never_touched(
    target: Target, tmp_path: Path
) -> None:
    """Live, in a snapshot, in a core file and in a stream."""
    expected = _expected(target)
    with procvm.open(target.pid) as process:
        for what, places in expected.items():
            assert _found(process.vm, what, target.ranges) == places
        with process.snapshot(target.ranges) as kept:
            for what, places in expected.items():
                assert _found(kept.vm, what, target.ranges) == places
            assert not kept.diff(process.vm)
        process.save(tmp_path / "core", target.ranges)
        with procvm.open_core(tmp_path / "core") as core:
            for what, places in expected.items():
                assert _found(core.vm, what, target.ranges) == places
        stream = io.BytesIO()
        process.vm.copy_to(stream, [(target.at["private"], target.at["private"] + SIZE)])
    data = stream.getvalue()
    assert data[OTHER_WRITTEN : OTHER_WRITTEN + 11] == b"other-wrote"
    assert data[PRIVATE_WRITTEN : PRIVATE_WRITTEN + 12] == b"target-wrote"
    assert len(data) == SIZE
    assert data.count(0) == SIZE - 23


@map_files
def test_snapshot_of_untouched_objects_restores_what_is_written_later(target: Target) -> None:
    with procvm.open(target.pid) as process:
        for name in ("anonymous", "memfd", "filecopy"):
            at = target.at[name]
            with process.snapshot([(at, at + SIZE)]) as kept:
                process.vm.write_bytes(at + 3 * PAGE + 5, b"later")
                assert kept.restore() == 5
                wanted = b"on-th" if name == "filecopy" else b""
                assert process.vm.read_bytes(at + 3 * PAGE, 11) == (
                    b"on-the-disk" if wanted else bytes(11)
                )


def test_a_file_that_ends_within_a_mapping_is_a_hole_after_its_last_page(
    target: Target, tmp_path: Path
) -> None:
    os.truncate(tmp_path / "sparse", FILE_WRITTEN + 4)
    at = target.at["file"]
    with procvm.open(target.pid) as process:
        search = process.vm.search(b"on-t", ranges=[(at, at + SIZE)])
        assert list(search) == [at + FILE_WRITTEN]
        assert search.skipped == [(at + 4 * PAGE, at + SIZE)]
        with process.snapshot([(at, at + SIZE)]) as kept:
            assert kept.kept_ranges() == [(at, at + 4 * PAGE)]
            assert kept.vm.read_bytes(at + FILE_WRITTEN, 6) == b"on-t\0\0"
        with pytest.raises(PageFaultError) as caught:
            process.vm.copy_to(io.BytesIO(), [(at, at + SIZE)])
        assert (caught.value.copied_len, caught.value.address) == (4 * PAGE, at + 4 * PAGE)


WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]

TOOL = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import procvm
from tests.process.test_untouched import SIZE, Target, _expected, _found
with Target(Path(sys.argv[1])) as target:
    before = target.counts()
    with procvm.open(target.pid) as process:
        at = target.at["closed"]
        with process.snapshot(target.ranges) as kept:
            ranges = kept.kept_ranges()
        search = process.vm.search(b"other-wrote", ranges=target.ranges)
        hits = list(search)
        try:
            process.vm.copy_to(sys.argv[1] + ".out", [(at, at + SIZE)])
            said = ""
        except procvm.PageFaultError as error:
            said = str(error)
        expected = _expected(target)
        for what in (b"target-wrote", b"on-the-disk"):
            assert _found(process.vm, what, target.ranges) == expected[what]
    assert target.counts() == before
    unknown = [place for place in expected[b"other-wrote"] if place not in hits]
    assert unknown == [at + 9 * 4096 + 100], unknown
    for place in unknown:
        assert any(low <= place < high for low, high in search.skipped)
        assert not any(low <= place < high for low, high in ranges)
    assert "CAP_CHECKPOINT_RESTORE" in said, said
print("done")
"""


def test_looking_without_capabilities_reads_by_path_and_descriptor_and_tells_the_rest(
    tmp_path: Path,
) -> None:
    """What only /proc/PID/map_files leads to is left out, and is told as skipped."""
    script = textwrap.dedent(TOOL).format(root=str(Path(__file__).parents[2]))
    done = subprocess.run(
        [*WITHOUT_CAPABILITIES, sys.executable, "-c", script, str(tmp_path / "sparse")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr


MEMORY = Path("/sys/fs/cgroup/memory")


@contextlib.contextmanager
def _small_cgroup(limit: int) -> Iterator[Path]:
    """Makes a memory cgroup; version 1 and version 2 name the limit differently."""
    for folder, name in ((MEMORY, "memory.limit_in_bytes"), (MEMORY.parent, "memory.max")):
        group = folder / f"procvm-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / name).exists():
                (group / name).write_text(str(limit))
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip("no memory cgroup can be made here")


OPTIONS = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
HOG = """
import mmap, sys
shared = mmap.mmap(-1, 200 << 20)
import ctypes
print(ctypes.addressof(ctypes.c_char.from_buffer(shared)), flush=True)
sys.stdin.read(1)
shared[0] = 7
print(shared[0], flush=True)
sys.stdin.read(1)
"""


@pytest.mark.parametrize("operation", ["search", "snapshot", "save", "copy_to", "diff"])
def test_looking_at_a_target_in_a_small_cgroup_does_not_kill_it(
    tmp_path: Path, operation: str
) -> None:
    """200 MiB of shared memory that nobody touched, in a group that has 60 MiB."""
    with (
        _small_cgroup(60 << 20) as group,
        subprocess.Popen([sys.executable, "-c", HOG], text=True, **OPTIONS) as child,  # type: ignore[call-overload]
    ):
        try:
            (group / "cgroup.procs").write_text(str(child.pid))
            at = int(child.stdout.readline())
            with procvm.open(child.pid) as process:
                OPERATIONS[operation](process, [(at, at + (200 << 20))], tmp_path / "out")
            child.stdin.write("x")
            child.stdin.flush()
            assert child.stdout.readline() == "7\n"
            assert status_field(child.pid, "State")[0] in "SR"
        finally:
            child.kill()
            child.wait()


def test_objects_opens_a_mapping_of_a_file_that_took_its_name_as_none(tmp_path: Path) -> None:
    """A path leads to another file by now: it is not the object, whatever its name."""
    file = tmp_path / "named"
    with Target(file) as target, procvm.open(target.pid) as process:
        vma = process.find_vma(target.at["file"])
        assert vma is not None
        entry = process._image.entries()[0]._replace(  # noqa: SLF001 (an entry to change)
            start=1, end=2, dev=vma.dev, inode=vma.inode + 1, name=os.fsencode(file)
        )
        assert Objects(target.pid).open(entry) is None
