"""Core files: ours for gdb, drgn and readelf, theirs for us, and a core as a whole replacement."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procvm
from procvm import AccessDeniedError, PageFaultError, Run, Snapshot, u8, u32, u64, usize
from procvm._base.optional import numpy_or_none
from procvm._saved import diff
from procvm._saved.snapshot import write_core
from tests.elf.cores import GDB, gcore, gdb
from tests.elf.facets import Facets, program
from tests.faults.subjects import Subject
from tests.linux.kinds import KINDS, READABLE, contents
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import status_field

ROOT = Path(__file__).parents[2]
MIB, GIB = 1 << 20, 1 << 30
needs_gdb = pytest.mark.skipif(GDB is None, reason="not installed: gdb")
Pair = tuple[int, int]


@pytest.fixture
def facets() -> Iterator[Facets]:
    with Facets(2) as child:
        yield child


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Facets, Path, dict[int, Any]]]:
    """A child with threads, its core, and the registers that each thread had in the same hold."""
    path = tmp_path_factory.mktemp("held") / "core"
    with Facets(3) as child, procvm.attach(child.pid) as tracee:
        with tracee.stopped():
            registers = {thread.tid: tracee.registers(thread.tid) for thread in tracee.threads()}
            tracee.save(path)
        yield child, path, registers


def loads_of(path: Path) -> Iterator[tuple[int, int, int, int]]:
    """Yields (vaddr, offset, filesz, memsz) of each PT_LOAD, by pyelftools."""
    with path.open("rb") as file:
        elf: Any = ELFFile(file)
        assert elf["e_type"] == "ET_CORE"
        for segment in elf.iter_segments("PT_LOAD"):
            head = segment.header
            yield head["p_vaddr"], head["p_offset"], head["p_filesz"], head["p_memsz"]


def kept_ranges(vm: procvm.VmSpace) -> list[Pair]:
    """Returns the ranges that a snapshot or a core has bytes of, joined."""
    found: list[Pair] = []
    for region in vm.memory.regions() or []:
        if found and found[-1][1] == region.start:
            found[-1] = found[-1][0], region.end
        else:
            found.append((region.start, region.end))
    return found


def some_ranges(vm: procvm.VmSpace, count: int, seed: int) -> list[Pair]:
    """Returns random ranges of what is kept, over borders of pages and mappings also."""
    pick = random.Random(seed)
    kept = kept_ranges(vm)
    found: list[Pair] = []
    for start, end in pick.choices(kept, k=count):
        at = pick.randrange(start, end)
        found.append((at, min(end, at + pick.choice((1, 2, 7, 8, 100, 4096, 9000)))))
    return found


# By gdb and drgn


@needs_gdb
def test_bytes_are_those_that_gdb_dumps(facets: Facets, tmp_path: Path) -> None:
    """A snapshot, a core and gdb at the process itself: the same bytes of 1,000 random ranges."""
    with procvm.open(facets.pid) as process:
        snapshot = process.snapshot()
        process.save(tmp_path / "core")
    ranges = some_ranges(snapshot.vm, 1000, 1)
    (tmp_path / "out").mkdir()
    lines = [f"attach {facets.pid}"]
    lines += [
        f"dump binary memory {tmp_path}/out/{k} {start:#x} {end:#x}"
        for k, (start, end) in enumerate(ranges)
    ]
    (tmp_path / "script").write_text("\n".join(lines))
    said = gdb(f"source {tmp_path}/script")
    assert len(os.listdir(tmp_path / "out")) == 1000, said[-500:]
    with snapshot, procvm.open_core(tmp_path / "core") as core:
        for k, (start, end) in enumerate(ranges):
            data = (tmp_path / "out" / str(k)).read_bytes()
            assert len(data) == end - start
            assert snapshot.vm.read_bytes(start, end - start) == data, hex(start)
            assert core.vm.read_bytes(start, end - start) == data, hex(start)


def drgn_reads(path: Path, ranges: list[Pair]) -> list[bytes]:
    """Reads ranges by drgn, in a process of its own."""
    code = (
        "import drgn, sys\n"
        "prog = drgn.Program(); prog.set_core_dump(sys.argv[1])\n"
        "for pair in sys.argv[2].split():\n"
        "    a, b = (int(x, 16) for x in pair.split('-'))\n"
        "    print(prog.read(a, b - a).hex())\n"
    )
    pairs = " ".join(f"{a:x}-{b:x}" for a, b in ranges)
    done = subprocess.run(
        [sys.executable, "-c", code, path, pairs], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [bytes.fromhex(line) for line in done.stdout.splitlines()]


def test_drgn_reads_the_same_bytes(held: tuple[Facets, Path, Any]) -> None:
    """300 random ranges of our core, by drgn and by us."""
    pytest.importorskip("drgn")
    _, path, _ = held
    with procvm.open_core(path) as core:
        ranges = some_ranges(core.vm, 300, 2)
        assert drgn_reads(path, ranges) == [core.vm.read_bytes(a, b - a) for a, b in ranges]


def test_drgn_sees_the_threads(held: tuple[Facets, Path, dict[int, Any]]) -> None:
    """Their ids, and where each of them stands."""
    pytest.importorskip("drgn")
    _, path, registers = held
    code = (
        "import drgn, sys\n"
        "prog = drgn.Program(); prog.set_core_dump(sys.argv[1])\n"
        "for thread in prog.threads():\n"
        "    print(thread.tid, prog.stack_trace(thread.tid)[0].register('rip'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    said = {int(a): int(b) for a, b in (line.split() for line in done.stdout.splitlines())}
    assert said == {tid: one["rip"] for tid, one in registers.items()}


def gdb_registers(said: str) -> list[dict[str, int]]:
    """Returns what `info registers` said, a dictionary for each time."""
    found: list[dict[str, int]] = []
    for line in said.splitlines():
        match = re.match(r"([a-z_0-9]+) +(0x[0-9a-f]+) ", line)
        if match is None:
            continue
        if match[1] == "rax":
            found.append({})
        found[-1][match[1]] = int(match[2], 16)
    return found


@needs_gdb
def test_gdb_opens_the_core_of_a_held_program(
    held: tuple[Facets, Path, dict[int, dict[str, int]]],
) -> None:
    """Mappings, words, threads, their registers and their stacks: each as the target had it."""
    child, path, registers = held
    said = gdb(
        "info proc mappings",
        "x/4gx &g_words",
        f"x/1gx {child.at['g_counter']:#x}",
        f"x/s {child.at['g_text']:#x}",
        "info threads",
        "echo \\n== registers\\n",
        "thread apply all -q info registers",
        "echo \\n== stacks\\n",
        "thread apply all bt",
        program=program(),
        core=path,
    )
    head, _, rest = said.partition("== registers")
    middle, _, stacks = rest.partition("== stacks")
    assert re.search(r"<g_words>:\s+0x0{15}1\s+0x0{15}2\n.*:\s+0x0{15}3\s+0x0{15}5\n", head), head
    assert re.search(r"<g_counter>:\s+0x1122334455667788", head)
    assert "a text that nobody writes" in head
    with procvm.open_core(path) as core:
        for vma in core.maps():
            if vma.kind is procvm.Kind.FILE:
                line = rf"{vma.start:#x} +{vma.end:#x} +{vma.size:#x} +{vma.offset:#x} +"
                assert re.search(line + re.escape(vma.name.decode()), head), vma
        lwps = {int(tid) for tid in re.findall(r"LWP (\d+)", head)}
        assert lwps == {*registers} == {thread.tid for thread in core.threads()}
        assert re.search(rf"\* 1 .*LWP {child.pid}\)", head)
        # gdb shows the bases of segments only where a core has vector registers also.
        hidden = ("orig_rax", "fs_base", "gs_base")
        general = [name for name in next(iter(registers.values())) if name not in hidden]
        by_rsp = {one["rsp"]: one for one in gdb_registers(middle)}
        assert len(by_rsp) == len(registers) == 4
        for tid, own in registers.items():
            assert core.registers(tid) == own
            theirs = by_rsp[own["rsp"]]
            assert {name: theirs[name] for name in general} == {name: own[name] for name in general}
    assert stacks.count("wait_here") == 3
    assert re.search(r"in main \(argc=.*, argv=.*\) at ", stacks)
    assert "warning" not in head.lower().replace("warning: section `.reg-xstate", ""), head[:600]


@needs_gdb
def test_gdb_opens_the_core_of_a_python(tmp_path: Path) -> None:
    """A process that was not held: its mappings and its bytes; one that was: its stack too."""
    code = "import sys; text = b'a text of ' + b'python'; print(id(text), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        try:
            at = int(child.stdout.readline())
            with procvm.open(child.pid) as process:
                n = process.save(tmp_path / "plain")
                words = process.vm.read_slice(at, u64, 6)
            assert n > MIB
            with procvm.attach(child.pid) as tracee:
                tracee.save(tmp_path / "held")
                rip = tracee_register(tracee, "rip")
        finally:
            child.kill()
    exe = os.path.realpath(sys.executable)
    for name in ("plain", "held"):
        said = gdb(
            "info proc mappings", f"x/6gx {at:#x}", "bt 60", program=exe, core=tmp_path / name
        )
        found = [int(word, 16) for word in re.findall(r"\t(0x[0-9a-f]{16})", said)]
        assert found[:6] == words, said
        assert exe in said
        if name == "held":
            assert re.search(rf"#0 .*{rip:#x}|#0 .*read", said), said[-800:]
            assert len(re.findall(r"^#\d+", said, re.MULTILINE)) > 5, said[-800:]
        with procvm.open_core(tmp_path / name) as core:
            assert b"a text of python" in core.vm.read_bytes(at, 64)


def tracee_register(tracee: procvm.Tracee, name: str) -> int:
    with tracee.stopped():
        return tracee.registers()[name]


# Cores of others


def assert_every_byte(path: Path, core: Snapshot) -> int:
    """Each byte of each segment that the file has is the core's.

    What it has not is the mapped file's, or a fault.
    """
    total = 0
    with path.open("rb") as file:
        for vaddr, offset, filesz, memsz in loads_of(path):
            if vaddr >= core.vm.end:
                continue
            file.seek(offset)
            data = file.read(filesz)
            assert core.vm.read_bytes(vaddr, filesz) == data, hex(vaddr)
            total += filesz
            if memsz > filesz:
                vma = core.find_vma(vaddr + filesz)
                assert vma is not None
                bad = -1
                try:
                    data = core.vm.read_bytes(vaddr + filesz, PAGE)
                except PageFaultError as error:
                    bad = error.address
                if bad >= 0:
                    assert bad == vaddr + filesz
                    continue
                with open(vma.name, "rb") as mapped:
                    mapped.seek(vma.offset + vaddr + filesz - vma.start)
                    assert data == mapped.read(PAGE).ljust(PAGE, b"\0")
    return total


@needs_gdb
def test_a_core_of_gdb_is_read_whole(facets: Facets, tmp_path: Path) -> None:
    """Every byte by pyelftools; mappings, threads, registers and symbols as of the process."""
    path = gcore(facets.pid, tmp_path / "core")
    with procvm.open(facets.pid) as process, procvm.open_core(path) as core:
        assert assert_every_byte(path, core) > 100_000
        assert core.pid == facets.pid
        tids = facets.tids()
        assert {thread.tid for thread in core.threads()} == {*tids}
        with procvm.attach(facets.pid) as tracee, tracee.stopped():
            for tid in tids:
                # Those that a system call may leave otherwise were saved at another time.
                same = ("rip", "rsp", "rbp", "rbx", "r12", "r13", "r14", "r15", "fs_base", "cs")
                own = tracee.registers(tid)
                theirs = core.registers(tid)
                assert {name: theirs[name] for name in same} == {name: own[name] for name in same}
        for vma in process.maps():
            if vma.kind in (procvm.Kind.FILE, procvm.Kind.STACK) and vma.name != b"[vvar]":
                found = core.find_vma(vma.start)
                assert found is not None, vma
                assert (found.name, found.offset) == (vma.name, vma.offset), vma
        for name in ("g_counter", "g_words", "answer_of", "hidden"):
            assert core.symbol(name) == facets.at[name]
        assert core.address("*g_list") == facets.at["g_words"] + 8
        assert core.describe(facets.at["main"]).endswith("!main")
        assert core.vm.read_slice(core.symbol("g_words"), u64, 4) == [1, 2, 3, 5]


def test_a_core_of_the_kernel_is_read_whole(tmp_path: Path) -> None:
    """A program that ended by SIGSEGV: every byte, and the thread that did it first."""
    scheme = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if scheme.startswith("|") or "/" in scheme:
        pytest.skip(f"core files go elsewhere: {scheme}")
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("core files are not allowed")
    before = ("prlimit", f"--core={'unlimited' if hard < 0 else hard}", "--")
    with Facets(2, before=before, cwd=tmp_path) as child:
        tids, at = child.tids(), child.at
        child.send("fault")
        assert child.popen.wait() == -signal.SIGSEGV
    (path,) = tmp_path.glob("core*")
    with procvm.open_core(path) as core:
        assert assert_every_byte(path, core) > 100_000
        assert core.threads()[0].tid == child.pid == core.pid
        assert {thread.tid for thread in core.threads()} == {*tids}
        assert core.describe(core.registers()["rip"]).partition("+")[0].endswith("!main")
        assert core.vm.read_val(at["g_counter"], u64) == 0x1122334455667788
        assert core.symbol("g_list") == at["g_list"]
        assert core.save(tmp_path / "again") > 100_000
        with procvm.open_core(tmp_path / "again") as again:
            assert again.registers() == core.registers()
            assert again.diff(core) == [] == core.diff(again)
            assert kept_ranges(again.vm) == kept_ranges(core.vm)


# The format


def said_by_readelf(path: Path) -> str:
    done = subprocess.run(
        ["readelf", "-W", "-h", "-l", "-n", path], capture_output=True, text=True, check=True
    )
    assert not re.search("warning|error", done.stderr, re.IGNORECASE), done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("readelf") is None, reason="not installed: readelf")
def test_readelf_finds_nothing_wrong(held: tuple[Facets, Path, dict[int, Any]]) -> None:
    """No warning; a NT_PRSTATUS for each thread, one of each other note, files by their names."""
    _, path, registers = held
    said = said_by_readelf(path)
    assert "CORE (Core file)" in said
    for kind, count in (("PRSTATUS", len(registers)), ("PRPSINFO", 1), ("AUXV", 1), ("FILE", 1)):
        assert len(re.findall(rf"NT_{kind}\b", said)) == count
    with procvm.open_core(path) as core, path.open("rb") as file:
        files = [vma for vma in core.maps() if vma.kind is procvm.Kind.FILE]
        elf: Any = ELFFile(file)
        (notes,) = elf.iter_segments("PT_NOTE")
        (desc,) = (note["n_desc"] for note in notes.iter_notes() if note["n_type"] == "NT_FILE")
        assert [bytes(name) for name in desc["filename"]] == [vma.name for vma in files]
        rows = [(row["vm_start"], row["vm_end"], row["page_offset"]) for row in
                desc["Elf_Nt_File_Entry"]]  # fmt: skip
        assert rows == [(vma.start, vma.end, vma.offset // PAGE) for vma in files]
    for vaddr, offset, filesz, memsz in loads_of(path):
        assert filesz <= memsz
        assert filesz == 0 or (vaddr - offset) % PAGE == 0
    ends = [vaddr + memsz for vaddr, _, _, memsz in loads_of(path)]
    starts = [vaddr for vaddr, *_ in loads_of(path)]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")


@contextlib.contextmanager
def many_mappings_allowed(count: int) -> Iterator[int]:
    """Lets processes have that many if we may, and puts back what was; gives what they may."""
    before = MAX_MAP_COUNT.read_text()
    with contextlib.suppress(OSError):
        MAX_MAP_COUNT.write_text(str(count))
    try:
        yield int(MAX_MAP_COUNT.read_text())
    finally:
        if MAX_MAP_COUNT.read_text() != before:
            MAX_MAP_COUNT.write_text(before)


def test_more_segments_than_the_header_can_count(tmp_path: Path) -> None:
    """70,000 mappings: counted by a section, as readelf, pyelftools and drgn have it, and we."""
    path = tmp_path / "core"
    with many_mappings_allowed(80_000) as allowed, Facets() as child:
        count = 70_000 if allowed >= 80_000 else allowed - 200
        base = child.number(f"stripes {count}")
        with procvm.open(child.pid) as process:
            process.save(path)
            maps = process.maps()
    assert len(maps) > count - 10
    with procvm.open_core(path) as core:
        assert list(core.maps()) == list(maps)
        assert core.vm.read_val(base + PAGE, u8) == 99
        assert core.vm.read_bytes(base + PAGE * (count - 1), PAGE) == bytes(PAGE)
        assert core.vm.read_bytes(base + PAGE + 1, 10 * PAGE) == bytes(10 * PAGE)
    head = path.read_bytes()[:64]
    assert (int.from_bytes(head[56:58], "little") == 0xFFFF) == (count > 65_530)
    with path.open("rb") as file:
        elf: Any = ELFFile(file)
        nr_segments = elf.num_segments()
    assert nr_segments > count - 10
    if shutil.which("readelf") is not None:
        done = subprocess.run(["readelf", "-h", path], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert str(nr_segments) in done.stdout
    with contextlib.suppress(ImportError):
        __import__("drgn")
        assert drgn_reads(path, [(base + PAGE, base + PAGE + 2)]) == [b"\x63\0"]


def test_a_sparse_process_makes_a_small_file(tmp_path: Path) -> None:
    """64 GiB reserved and 3 MiB used: a file of that, and page tables that do not grow."""
    path = tmp_path / "core"
    with Playground() as child, procvm.open(child.pid) as process:
        base = child.reserve(64 * GIB)
        places = [base, base + 5 * GIB - PAGE, base + 64 * GIB - MIB]
        for place in places:
            child.clear(place, MIB - (MIB if place == places[1] else 0) or PAGE)
        before = int(status_field(child.pid, "VmPTE").split()[0])
        n = process.save(path)
        grown = int(status_field(child.pid, "VmPTE").split()[0]) - before
        used = 2 * MIB + PAGE
        assert grown <= 1024
        assert used < n < used + 4 * MIB
        facts = path.stat()
        assert facts.st_blocks * 512 <= n + 256 * 1024
        assert facts.st_size <= n + GIB + 256 * 1024
        with procvm.open_core(path) as core:
            for place in places:
                assert core.vm.read_bytes(place, PAGE) == pattern(place, PAGE)
            assert core.vm.read_bytes(base + MIB, 3 * PAGE) == bytes(3 * PAGE)
            assert core.vm.read_bytes(base + GIB - 5, 10) == bytes(10)
            assert core.vm.read_bytes(base + 5 * GIB - 2 * PAGE, 2 * PAGE) == bytes(PAGE) + pattern(
                base + 5 * GIB - PAGE, PAGE
            )
            begun = time.thread_time()
            again = tmp_path / "again"
            assert core.save(again) == n
            assert core.diff(process.vm, [(base, base + 64 * GIB)]) == []
            assert time.thread_time() - begun < 2
            assert again.stat().st_blocks * 512 <= n + 256 * 1024
        assert int(status_field(child.pid, "VmPTE").split()[0]) - before <= 1024
        if GDB is not None:
            said = gdb(f"x/1gx {base + 40 * GIB:#x}", f"x/8bx {places[1]:#x}", core=path)
            assert re.search(rf"{base + 40 * GIB:#x}:\s+0x0{{16}}", said), said
            found = [int(byte, 16) for byte in re.findall(r"\t(0x[0-9a-f]{2})\b", said)]
            assert bytes(found) == pattern(places[1], 8)


@pytest.fixture(params=["snapshot", "core", "core of a snapshot", "core of a core"])
def taken(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Snapshot]]:
    """Returns what keeps a process, in each of the ways that there are."""
    with contextlib.ExitStack() as stack:
        names = (tmp_path / f"core{k}" for k in itertools.count())

        def take(process: procvm.Process, ranges: Any = None) -> Snapshot:
            if request.param == "snapshot":
                return stack.enter_context(process.snapshot(ranges))
            path = next(names)
            if request.param == "core of a snapshot":
                with process.snapshot(ranges) as snapshot:
                    snapshot.save(path)
            else:
                process.save(path, ranges)
            if request.param == "core of a core":
                with procvm.open_core(path) as first:
                    path = next(names)
                    first.save(path)
            return stack.enter_context(procvm.open_core(path))

        yield take


def test_every_kind_of_page(playground: Playground, taken: Callable[..., Snapshot]) -> None:
    """What could be read is there; the rest faults with the address and the bytes before it."""
    kinds = [kind for bad in KINDS for kind in ("rw", bad)] + ["rw"]
    base = playground.layout(" ".join(kinds))
    data = contents(playground, base, kinds)
    with procvm.open(playground.pid) as process:
        past = taken(process)
        playground.close()
        for k, kind in enumerate(kinds):
            at = base + k * PAGE
            if kind in READABLE:
                assert past.vm.read_bytes(at, PAGE) == data[k * PAGE : (k + 1) * PAGE], kind
                continue
            with pytest.raises(PageFaultError) as caught:
                past.vm.read_bytes(at - 9, PAGE)
            error = caught.value
            assert (error.address, error.copied_len, error.pid) == (at, 9, playground.pid), kind
            with pytest.raises(PageFaultError) as caught:
                past.vm.read_val(at, u8)
            assert caught.value.address == at
            vma = past.find_vma(at)
            assert (vma is None) == (kind == "hole"), kind


def test_a_guard_page_is_a_hole(facets: Facets, taken: Callable[..., Snapshot]) -> None:
    """The mapping goes on over it, and its bytes do not."""
    at = facets.number("guarded 5")
    with procvm.open(facets.pid) as process:
        past = taken(process)
    assert past.vm.read_bytes(at, 4 * PAGE) == b"\x07" * 4 * PAGE
    with pytest.raises(PageFaultError) as caught:
        past.vm.read_bytes(at, 5 * PAGE)
    assert (caught.value.address, caught.value.copied_len) == (at + 4 * PAGE, 4 * PAGE)


def test_parts_of_pages_and_nothing(playground: Playground, taken: Callable[..., Snapshot]) -> None:
    """Just the ranges that were asked for, to the byte; of none no byte, and all mappings."""
    base = playground.layout("rw rw rw r")
    ranges = [
        (base + 100, base + 300),
        (base + 301, base + 302),
        (base + PAGE - 1, base + 3 * PAGE + 9),
    ]
    with procvm.open(playground.pid) as process:
        past = taken(process, ranges)
        empty = taken(process, [])
        assert list(past.maps()) == list(empty.maps()) == list(process.maps())
    assert past.kept_len == sum(end - start for start, end in ranges)
    for start, end in ranges:
        assert past.vm.read_bytes(start, end - start) == pattern(start, end - start)
        for bad, n in ((start - 1, 0), (end, 0), (start, end - start)):
            with pytest.raises(PageFaultError) as caught:
                past.vm.read_bytes(bad, n + 1)
            assert (caught.value.address, caught.value.copied_len) == (bad + n, n)
    assert empty.kept_len == 0
    with pytest.raises(PageFaultError):
        empty.vm.read_bytes(base, 1)
    assert list(empty.vm.search(b"\x01")) == []


NAMES = [b"plain", b"new\nline", b"\x1b[31mred", b"\xff\xfe\x01", b"a (deleted)", b"a\\012b", b" "]


def test_names_come_back_as_they_were(
    playground: Playground, tmp_path: Path, taken: Callable[..., Snapshot]
) -> None:
    """Files of any names, deleted ones, memfds, shared ones: all of maps is equal."""
    for k, name in enumerate(NAMES):
        path = os.path.join(os.fsencode(tmp_path), name)
        Path(os.fsdecode(path)).write_bytes(bytes([k + 1]) * PAGE * 2)
        playground.map_file(path, PAGE * 2, ("r", "rw", "sr", "srw")[k % 4])
        playground.map_memfd(name, PAGE)
    os.unlink(tmp_path / "plain")
    playground.set_comm(b"\x1b] R 1\n")
    with procvm.open(playground.pid) as process:
        past = taken(process)
        maps = process.maps()
    assert list(past.maps()) == list(maps)
    assert str(past.maps()) == str(maps)
    assert past.facts.name == b"\x1b] R 1\n"
    for k, name in enumerate(NAMES):
        ends = (name, name + b" (deleted)")
        (vma,) = (
            one for one in maps if one.name.startswith(os.fsencode(tmp_path)) and
            os.path.basename(one.name) in ends and past.vm.read_val(one.start, u8) == k + 1
        )  # fmt: skip
        assert past.find_vma(vma.start) == vma
        assert past.vm.read_bytes(vma.start, 2 * PAGE) == bytes([k + 1]) * 2 * PAGE
        assert past.describe(vma.start).isprintable()


# A whole replacement


class Pair64(ctypes.Structure):
    _fields_ = (("key", ctypes.c_uint64), ("value", ctypes.c_uint64))


class Node(ctypes.Structure):
    _fields_ = (("next", ctypes.c_size_t), ("itself", ctypes.c_size_t))


def answers(subject: Any, at: dict[str, int]) -> Iterator[tuple[str, object]]:
    """Yields what a process, a snapshot or a core answers to all that they have in common."""
    vm = subject.vm
    words, text = at["g_words"], at["g_text"]
    own = subject.find_vma(words)
    yield "pid", subject.pid
    yield "maps", list(subject.maps())
    yield "filter", list(subject.maps().filter(kind=procvm.Kind.STACK))
    yield "find_vma", [subject.find_vma(words), subject.find_vma(8), subject.find_vma(1 << 62)]
    yield "read_val", vm.read_val(at["g_counter"], u64)
    yield "unaligned", vm.read_val(words + 3, u32)
    yield "structure", bytes(vm.read_val(words, Pair64))
    yield "read_slice", vm.read_slice(words, u64, 8)
    yield "read_bytes", vm.read_bytes(words - 5, 5000)
    yield "read_cstring", vm.read_cstring(text, 100)
    buffer = bytearray(64)
    vm.read_into(words, buffer)
    yield "read_into", bytes(buffer)
    reader = vm.reader(words, 64)
    reader.skip(8)
    yield "reader", (reader.read_val(u64), reader.read_val(u64), reader.remain())
    yield "gather", [list(map(int, vm.gather([words + 8 * k for k in (3, 1, 1, 7)], u64)))]
    values, ok = vm.gather([words, 8, text], u8, faults="mask")
    yield "mask", ([*map(int, values)], [*map(bool, ok)])
    where = [(own.start, own.end)]
    needle = bytes.fromhex("8877665544332211")
    yield "search", list(vm.search(needle, ranges=where))
    yield "search all", next(iter(vm.search("88 77 66 55 44 33 22 11")))
    yield "search value", list(vm.search(u64, value=34, ranges=where))
    yield "view", (vm.view(words, Pair64).value, vm.view(at["g_list"], Pair64).key)
    node = vm.view(at["g_list"] + 8, Node)
    yield "deref", int(vm.view(at["g_list"], Node).itself) == at["g_list"] and int(node.next)
    with vm.open(words, words + 32) as file:
        file.seek(8)
        yield "open", (file.read(8), file.read(100), file.read(1))
    if numpy_or_none() is not None:
        yield "read_array", vm.read_array(words, u64, (2, 4)).tolist()
        yield "scan", [int(one) for one in vm.scan(u64, value=21, ranges=where).addresses()]
    for name in ("g_words", "libc.so.6!environ", "hidden", "libc.so.6!malloc"):
        yield f"symbol {name}", subject.symbol(name)
    for address in (words, at["main"] + 5, subject.symbol("libc.so.6!malloc") + 1, 8):
        yield f"describe {address:#x}", subject.describe(address)
    for expression in ("*g_list", "[heap]+8", "libc.so.6+0x10", "*(g_list+8)-8", "[stack]"):
        yield f"address {expression}", subject.address(expression)
    calls: list[Callable[[], object]] = [
        lambda: vm.read_bytes(8, 1),
        lambda: vm.read_bytes(own.end - 4, 1 << 40),
        lambda: vm.read_val(1 << 63, u64),
        lambda: subject.symbol("no_such"),
        lambda: subject.address("no_such+8"),
        lambda: subject.address(""),
    ]
    for call in calls:
        try:
            call()
        except procvm.ProcvmError as error:
            yield "error", (type(error), error.copied_len, getattr(error, "address", None))


def test_the_past_answers_as_the_process_does(taken: Callable[..., Snapshot]) -> None:
    """All that they have in common, name by name, faults too; and after the process has gone."""
    with Facets(1) as child:
        with procvm.open(child.pid) as process:
            past = taken(process)
            live = list(answers(process, child.at))
        at = child.at
    assert len(live) > 35
    for (what, expected), (name, found) in zip(live, answers(past, at), strict=True):
        assert what == name
        assert found == expected, what


def test_the_past_is_not_written(facets: Facets, taken: Callable[..., Snapshot]) -> None:
    """Every way to write is AccessDeniedError, and nothing is other than it was."""
    with procvm.open(facets.pid) as process:
        past = taken(process)
    at = facets.at["g_words"]
    before = past.vm.read_bytes(at, 64)
    calls: list[Callable[[], object]] = [
        lambda: past.vm.write_bytes(at, b"x"),
        lambda: past.vm.write_val(at, u64, 1),
        lambda: past.vm.write_slice(at, u64, [1, 2]),
        lambda: past.vm.fill_zeros(at, 8),
        lambda: past.vm.writer(at, 8).write_val(u64, 1),
        lambda: past.vm.scatter([at], u64, [1]),
        lambda: past.vm.forced().write_bytes(at, b"x"),
        lambda: setattr(past.vm.view(at, Pair64), "key", 5),
        lambda: past.vm.open(at, at + 8).write(b"x"),
    ]
    for call in calls:
        with pytest.raises(AccessDeniedError):
            call()
    assert past.vm.read_bytes(at, 64) == before


def test_registers_are_those_of_the_hold(
    playground: Playground, taken: Callable[..., Snapshot]
) -> None:
    """Threads that count, each stopped somewhere: the same registers as in that hold, of all."""
    base = playground.layout("rw")
    for k in range(4):
        playground.spin(base + 8 * k)
    with procvm.attach(playground.pid) as tracee:
        with tracee.stopped():
            threads = tracee.threads()
            registers = {thread.tid: tracee.registers(thread.tid) for thread in threads}
            past = taken(tracee)
        assert len(registers) == 5
        assert past.threads()[0].tid == playground.pid
        assert {thread.tid: past.registers(thread.tid) for thread in past.threads()} == registers
        assert past.registers() == registers[playground.pid]
        found = past.registers()
        found["rip"] = 0
        assert past.registers() == registers[playground.pid]
        with pytest.raises(procvm.NotStoppedError):
            past.registers(1)
        with pytest.raises(TypeError):
            past.registers("1")  # type: ignore[arg-type]


def test_a_process_that_runs_has_no_registers(
    facets: Facets, taken: Callable[..., Snapshot]
) -> None:
    """They are not made up: NotStoppedError, and no threads."""
    with procvm.open(facets.pid) as process:
        past = taken(process)
    assert past.threads() == []
    with pytest.raises(procvm.NotStoppedError, match=f"thread {facets.pid}"):
        past.registers()


def test_what_is_known_beside_memory(facets: Facets, taken: Callable[..., Snapshot]) -> None:
    """Numbers, names, arguments and what the kernel told the program at its start."""
    with procvm.open(facets.pid) as process:
        past = taken(process)
    facts = past.facts
    assert (facts.pid, facts.ppid) == (facets.pid, os.getpid())
    assert (facts.pgrp, facts.sid) == (os.getpgid(facets.pid), os.getsid(facets.pid))
    assert (facts.uid, facts.gid, facts.nice) == (os.getuid(), os.getgid(), os.getpriority(0, 0))
    assert facts.name == os.path.basename(program()).encode()[:15]
    assert facts.args == f"{program()} 2".encode()[: len(facts.args)]
    assert len(facts.args) >= 79 or facts.args == f"{program()} 2".encode()
    assert facts.auxv == Path(f"/proc/{facets.pid}/auxv").read_bytes()


def test_a_core_that_is_saved_again_is_the_same(
    held: tuple[Facets, Path, dict[int, Any]], tmp_path: Path
) -> None:
    """Bytes, mappings, registers and facts, and its length on disk to the byte."""
    _, path, registers = held
    with procvm.open_core(path) as core:
        n = core.save(tmp_path / "again")
        with procvm.open_core(tmp_path / "again") as again:
            assert list(again.maps()) == list(core.maps())
            assert again.facts == core.facts
            assert {tid: again.registers(tid) for tid in registers} == registers
            assert again.diff(core) == [] == core.diff(again)
            assert kept_ranges(again.vm) == kept_ranges(core.vm)
            assert again.save(tmp_path / "third") == n
    assert (tmp_path / "third").read_bytes() == (tmp_path / "again").read_bytes()


# Differences


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    writes=st.lists(
        st.tuples(st.integers(0, 6 * PAGE - 1), st.binary(min_size=1, max_size=50)), max_size=8
    ),
    cut=st.tuples(st.integers(0, 3 * PAGE), st.integers(1, 3 * PAGE)),
    other=st.sampled_from(["live", "core", "snapshot"]),
)
def test_a_diff_of_cores_is_as_plain_python(
    playground: Playground,
    tmp_path: Path,
    writes: list[tuple[int, bytes]],
    cut: Pair,
    other: str,
) -> None:
    """Any changes, pages of zeros among them, against a process, a snapshot and another core."""
    base = playground.layout("rw rw rw rw")
    reserved = playground.reserve(2 * PAGE)
    here = [(base, base + 4 * PAGE), (reserved, reserved + 2 * PAGE)]
    low, n = cut
    where = [(base + low, base + low + n), here[1]]

    def address(offset: int) -> int:
        return base + offset if offset < 4 * PAGE else reserved + offset - 4 * PAGE

    with procvm.open(playground.pid) as process:
        process.save(tmp_path / "before", here)
        old = b"".join(process.vm.read_bytes(a, b - a) for a, b in here)
        for offset, data in writes:
            end = 4 * PAGE if offset < 4 * PAGE else 6 * PAGE
            process.vm.write_bytes(address(offset), data[: end - offset])
        new = b"".join(process.vm.read_bytes(a, b - a) for a, b in here)
        process.save(tmp_path / "after", here)
        expected: list[Run] = []
        for offset in range(6 * PAGE):
            at = address(offset)
            if old[offset] == new[offset] or not any(a <= at < b for a, b in where):
                continue
            if expected and expected[-1].address + len(expected[-1].old) == at:
                last = expected.pop()
                run = Run(
                    last.address,
                    last.old + old[offset : offset + 1],
                    last.new + new[offset : offset + 1],
                )
            else:
                run = Run(at, old[offset : offset + 1], new[offset : offset + 1])
            expected.append(run)
        with (
            procvm.open_core(tmp_path / "before") as before,
            procvm.open_core(tmp_path / "after") as after,
            process.snapshot(here) as snapshot,
        ):
            others: dict[str, procvm.Mapped] = {
                "live": process,
                "core": after,
                "snapshot": snapshot,
            }
            against = others[other]
            assert before.diff(against, where) == sorted(expected)
            back = [Run(run.address, run.new, run.old) for run in sorted(expected)]
            assert after.diff(before, where) == back
            assert snapshot.diff(before, where) == back
            changed = sum(len(run.old) for run in before.diff(process.vm))
            assert before.restore(process.vm) == changed
            assert b"".join(process.vm.read_bytes(a, b - a) for a, b in here) == old
            assert before.restore(process.vm) == 0


def test_a_core_is_of_no_process_that_it_could_restore(facets: Facets, tmp_path: Path) -> None:
    """Without a space to write to it is NotTracedError; with that of the process it is done."""
    with procvm.open(facets.pid) as process:
        process.save(tmp_path / "core")
        process.vm.write_val(facets.at["g_counter"], u64, 5)
        with procvm.open_core(tmp_path / "core") as core:
            with pytest.raises(procvm.NotTracedError, match=str(facets.pid)):
                core.restore()
            assert core.diff(process.vm, [process.find_vma(facets.at["g_counter"])])
            only = [(facets.at["g_words"], facets.at["g_counter"] + 8)]
            process.save(tmp_path / "part", only)
            with procvm.open_core(tmp_path / "part") as part:
                process.vm.write_val(facets.at["g_counter"], u64, 6)
                assert part.restore(process.vm) == 1
            assert process.vm.read_val(facets.at["g_counter"], u64) == 5


def test_a_closed_core_says_so_and_keeps_no_descriptor(facets: Facets, tmp_path: Path) -> None:
    """Every use is ClosedError; twice is fine; the file is let go of."""
    with procvm.open(facets.pid) as process:
        process.save(tmp_path / "core")

    def open_files() -> int:
        return sum("core" in os.readlink(f"/proc/self/fd/{fd}") for fd in own())

    def own() -> list[str]:
        return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]

    before = open_files()
    core = procvm.open_core(tmp_path / "core")
    assert open_files() == before + 1
    assert core.vm.read_val(facets.at["g_counter"], u64) > 0
    core.close()
    core.close()
    assert open_files() == before
    for call in (
        lambda: core.vm.read_bytes(facets.at["g_counter"], 8),
        lambda: core.vm.read_val(facets.at["g_counter"], usize),
        lambda: core.save(tmp_path / "again"),
        lambda: core.diff(core),
    ):
        with pytest.raises(procvm.ClosedError):
            call()
    assert not (tmp_path / "again").exists()
    assert "closed" in repr(core)


def test_progress_and_the_number_of_bytes(facets: Facets, tmp_path: Path) -> None:
    """Progress goes up to all of it; what save returns is what the file has."""
    with procvm.open(facets.pid) as process:
        seen: list[Pair] = []
        n = process.save(tmp_path / "core", progress=lambda *pair: seen.append(pair))
        with process.snapshot() as snapshot:
            assert snapshot.kept_len == n
    assert seen == sorted(seen)
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1] >= n
    with procvm.open_core(tmp_path / "core") as core:
        assert assert_every_byte(tmp_path / "core", core) >= n


def test_a_hold_that_ends_too_early_leaves_no_core(facets: Facets, tmp_path: Path) -> None:
    """What is not of one instant is NotStoppedError, and what was at the path is as it was."""
    path = tmp_path / "core"
    path.write_bytes(b"old")
    with procvm.attach(facets.pid, longest_hold=0.05) as tracee:

        def wait(done: int, total: int) -> None:
            assert eventually(lambda: not tracee.is_stopped())

        with pytest.raises(procvm.NotStoppedError):
            tracee.save(path, progress=wait)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["core"]


@pytest.mark.parametrize("numpy", [True, False])
def test_a_core_that_is_cut_off_while_it_is_open(
    playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, numpy: bool
) -> None:
    """What the file has lost is no difference and is not put back, with numpy and without it."""
    if not numpy:
        monkeypatch.setattr(diff, "numpy_or_none", lambda: None)
    base = playground.layout("rw rw")
    data = pattern(base, 2 * PAGE)
    changed = bytes(byte ^ 1 for byte in data)
    there = PAGE + 100
    path = tmp_path / "core"
    with procvm.open(playground.pid) as process:
        process.save(path, [(base, base + 2 * PAGE)])
        with procvm.open_core(path) as kept:
            os.truncate(path, path.read_bytes().index(data[:PAGE]) + there)
            process.vm.write_bytes(base, changed)
            assert kept.diff(process.vm) == [Run(base, data[:there], changed[:there])]
            with pytest.raises(PageFaultError, match="the file of the core file") as caught:
                kept.restore(process.vm)
            assert caught.value.copied_len == there
            assert caught.value.address == base + there
        assert process.vm.read_bytes(base, 2 * PAGE) == data[:there] + changed[there:]


def test_the_first_thread_stays_the_first(
    held: tuple[Facets, Path, dict[int, Any]], tmp_path: Path
) -> None:
    """The thread that a core begins with, as the one that crashed, is the first of a copy too."""
    child, path, _ = held
    with procvm.open_core(path) as kept:
        assert kept.threads()[0].tid == child.pid
        facts = kept.facts
        turned = facts._replace(registers=dict(reversed(list(facts.registers.items()))))
        with open(tmp_path / "turned", "w+b") as file:
            write_core(file.fileno(), kept.vm, kept.maps(), turned, None)
    with procvm.open_core(tmp_path / "turned") as kept:
        order = [thread.tid for thread in kept.threads()]
        assert order == list(turned.registers)
        assert kept.registers() == turned.registers[order[0]]
        kept.save(tmp_path / "copy")
    with procvm.open_core(tmp_path / "copy") as copy:
        assert [thread.tid for thread in copy.threads()] == order


def test_a_process_whose_leader_has_ended() -> None:
    """What the kernel told the program, and its command line, are had of the threads that live."""
    with Subject() as target, procvm.open(target.pid) as process:
        with process.snapshot([]) as before:
            told = before.facts.auxv, before.facts.args
        target.send("leader")
        assert target.line() == "ok"
        assert eventually(lambda: status_field(target.pid, "State").startswith("Z"))
        with process.snapshot([]) as kept:
            assert (kept.facts.auxv, kept.facts.args) == told
        assert all(told)
