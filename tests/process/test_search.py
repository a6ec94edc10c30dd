"""Search in live processes: both backends, holes, sparse memory, ends, other processes."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

import procvm
from procvm import VmSpace, u32, u64
from procvm._space.pieces import CHUNK_LEN
from tests.support.build import compiled
from tests.support.playground import PAGE, Playground

ROOT = Path(__file__).parent.parent.parent
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

Pair = tuple[int, int]


def kib_of(pid: int, field: str) -> int:
    """Returns a field of /proc/PID/status in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(field + ":")[2].split()[0])


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "procvm" in thread.name]


def search(vm: VmSpace, what: Any, start: int, end: int, **arguments: Any) -> list[int]:
    """Returns the hits, counted from the start of the range."""
    found = vm.search(what, ranges=[(start, end)], **arguments)
    return [hit - start for hit in found]


def every_kind(data: bytes) -> list[tuple[Any, dict[str, Any], list[int]]]:
    """Returns needles that stand in bytes, and where plain Python finds them."""

    def by(source: bytes) -> list[int]:
        return [m.start() for m in re.finditer(b"(?s)(?=" + source + b")", data)]

    word = data[1000:1004]
    (number,) = struct.unpack("I", word)
    text = word.hex(" ")
    wild = f"{text[:3]}?? {text[6]}?"
    wild_source = (
        re.escape(word[:1])
        + b"."
        + b"[%b-%b]"
        % (
            re.escape(bytes([word[2] & 0xF0])),
            re.escape(bytes([word[2] | 0x0F])),
        )
    )
    aligned = [at for at in by(re.escape(word)) if at % 4 == 0]
    long = [
        at for at in range(0, len(data) - 7, 8) if struct.unpack_from("Q", data, at)[0] < 1 << 58
    ]
    return [
        (word, {}, by(re.escape(word))),
        (wild, {}, by(wild_source)),
        (re.compile(rb"[\x10-\x20].\x33"), {}, by(rb"[\x10-\x20][^\n]\x33")),
        (u32, {"value": number}, by(re.escape(word))),
        (u32, {"value": number, "align": 4}, aligned),
        (u64, {"value": (0, (1 << 58) - 1), "align": 8}, long),
        ((u32, number), {}, by(re.escape(word))),
    ]


@pytest.mark.parametrize("threads", [1, 3])
def test_every_kind_of_needle_is_found_as_python_finds_it(
    process: procvm.Process, playground: Playground, threads: int
) -> None:
    """Over a border of two pieces and of all mappings in between, the same as in a copy."""
    kinds = ["rw", "r", "srw", "file", "fro"]
    nr_pages = CHUNK_LEN // PAGE + 20
    start = playground.layout(" ".join(kinds[k // 7 % 5] for k in range(nr_pages)))
    end = start + nr_pages * PAGE
    data = process.vm.read_bytes(start, nr_pages * PAGE)
    for what, arguments, expected in every_kind(data):
        assert search(process.vm, what, start, end, threads=threads, **arguments) == expected
        assert expected
        odd = search(process.vm, what, start + 1, end - 1, threads=threads, **arguments)
        assert [at + 1 for at in odd] == [at for at in expected if at >= 1][: len(odd)]
        assert len(expected) - 2 <= len(odd) <= len(expected)


def test_a_hit_over_the_border_of_two_mappings_is_found(
    process: procvm.Process, playground: Playground
) -> None:
    """Neighbours are searched as one, also when they come from maps()."""
    start = playground.layout("rw r srw hole rw")
    for page in (1, 2):
        playground.poke(start + page * PAGE - 3, b"needle")
    playground.poke(start + 3 * PAGE - 3, b"nee")
    playground.poke(start + 4 * PAGE, b"dle")
    found = process.vm.search(b"needle")
    assert [hit for hit in found if start <= hit < start + 5 * PAGE] == [
        start + PAGE - 3,
        start + 2 * PAGE - 3,
    ]
    mappings = [vma for vma in process.maps() if start <= vma.start < start + 5 * PAGE]
    assert list(process.vm.search(b"needle", ranges=mappings)) == [
        start + PAGE - 3,
        start + 2 * PAGE - 3,
    ]


def test_perms_choose_the_mappings(process: procvm.Process, playground: Playground) -> None:
    """Without ranges every mapping that allows all of it is searched, and no other."""
    start = playground.layout("r none rw none srw none rwx none fro")
    for k in range(0, 9, 2):
        playground.poke(start + k * PAGE + 5, b"a rare needle")
    for perms, pages in (("r", [0, 2, 4, 6, 8]), ("rw", [2, 4, 6]), ("rwp", [2, 6]), ("x", [6])):
        hits = process.vm.search(b"a rare needle", perms=perms)
        assert [(hit - start) // PAGE for hit in hits if start <= hit < start + 9 * PAGE] == pages


@pytest.mark.parametrize("bad", ["hole", "none", "wo", "guard", "eof"])
def test_a_bad_page_is_stepped_over_and_told(
    process: procvm.Process, playground: Playground, bad: str
) -> None:
    """Hits on both sides are found and none over it; `skipped` is exactly the bad pages."""
    start = playground.layout(f"rw {bad} rw {bad} {bad} r")
    for at in (PAGE - 6, 2 * PAGE, 3 * PAGE - 6, 5 * PAGE):
        playground.poke(start + at, b"needle")
    for low, high in ((0, 6 * PAGE), (7, 6 * PAGE - 7)):
        found = process.vm.search(b"needle", ranges=[(start + low, start + high)])
        assert [hit - start for hit in found] == [PAGE - 6, 2 * PAGE, 3 * PAGE - 6, 5 * PAGE]
        assert [(a - start, b - start) for a, b in found.skipped] == [
            (PAGE, 2 * PAGE),
            (3 * PAGE, 5 * PAGE),
        ]
    middle = process.vm.search(b"x", ranges=[(start + PAGE + 5, start + 2 * PAGE - 5)])
    assert list(middle) == []
    assert middle.skipped == [(start + PAGE + 5, start + 2 * PAGE - 5)]


def test_a_forced_search_sees_what_may_not_be_read(
    process: procvm.Process, playground: Playground
) -> None:
    """Protections are ignored; what has no page is skipped as ever."""
    start = playground.layout("none wo xo guard none")
    for k in (0, 1, 2, 4):
        playground.poke(start + k * PAGE + 100, b"needle")
    ranges = [(start, start + 5 * PAGE)]
    found = process.vm.forced().search(b"needle", ranges=ranges)
    assert [hit - start for hit in found] == [100 + k * PAGE for k in (0, 1, 2, 4)]
    assert found.skipped == [(start + 3 * PAGE, start + 4 * PAGE)]
    plain = process.vm.search(b"needle", ranges=ranges)
    assert (list(plain), plain.skipped) == ([], ranges)


def test_a_forced_search_finds_an_unreadable_page_behind_a_long_hole(
    process: procvm.Process, playground: Playground
) -> None:
    """A page that only force can read is not passed over with the hole before it."""
    start = playground.layout("rw " + "hole " * 20 + "none")
    playground.poke(start + 21 * PAGE + 8, b"needle")
    found = process.vm.forced().search(b"needle", ranges=[(start, start + 22 * PAGE)])
    assert [hit - start for hit in found] == [21 * PAGE + 8]
    assert found.skipped == [(start + PAGE, start + 21 * PAGE)]


def test_pages_that_go_meanwhile_are_skipped(
    process: procvm.Process, playground: Playground
) -> None:
    """What the target unmaps before the search is there is told; what is behind it is found."""
    n = 2 * CHUNK_LEN + MIB
    start = playground.reserve(n)
    playground.clear(start, n)
    playground.poke(start + 9, b"needle")
    playground.poke(start + n - 9, b"needle")
    found = process.vm.search(b"needle", ranges=[(start, start + n)], threads=1)
    assert next(found) == start + 9
    playground.unmap(start + CHUNK_LEN + MIB, MIB)
    assert list(found) == [start + n - 9]
    assert found.skipped == [(start + CHUNK_LEN + MIB, start + CHUNK_LEN + 2 * MIB)]


# The end of a target, and of a search


@pytest.mark.parametrize("threads", [1, 3])
def test_a_target_that_exits_ends_the_search(
    process: procvm.Process, playground: Playground, threads: int
) -> None:
    """The error says so, no thread is left, and nothing more is given."""
    n = 24 * MIB
    start = playground.reserve(n)
    playground.clear(start, n)
    playground.poke(start, b"needle")
    found = process.vm.search(b"needle", ranges=[(start, start + n)], threads=threads)
    assert next(found) == start
    playground.popen.kill()
    playground.popen.wait()
    with pytest.raises(procvm.ProcessExitedError) as caught:
        list(found)
    assert caught.value.pid == playground.pid
    assert own_threads() == []
    assert list(found) == []


@pytest.mark.parametrize("backend", ["auto", "mem"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_target_that_execs_ends_the_search(backend: Any, threads: int) -> None:
    """Not a byte of the new program is searched; the error says what happened."""
    code = (
        "import ctypes, os, sys\n"
        "block = ctypes.create_string_buffer(b'needle' * 10, 24 << 20)\n"
        "ctypes.memset(ctypes.addressof(block) + 60, 1, (24 << 20) - 60)\n"
        "print(ctypes.addressof(block), flush=True)\n"
        "sys.stdin.readline()\n"
        "os.execv(sys.argv[1], ['playground'])\n"
    )
    argv = [sys.executable, "-c", code, compiled("playground")]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, bufsize=0) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        start = int(child.stdout.readline())
        with procvm.open(child.pid, backend=backend) as process:
            ranges = [(start, start + 24 * MIB)]
            found = process.vm.search(b"needle", ranges=ranges, threads=threads)
            assert next(found) == start
            child.stdin.write(b"\n")
            assert child.stdout.readline() == b"ready\n"
            with pytest.raises(procvm.ProcessExecedError):
                list(found)
        assert own_threads() == []
        child.kill()


DROPPED = "drop"


@pytest.mark.parametrize("end", ["close", DROPPED, "all"])
def test_a_search_that_ends_leaves_no_thread(playground: Playground, end: str) -> None:
    """Closed early, dropped or at its end, its threads are gone when that returns."""
    n = 16 * MIB
    start = playground.reserve(n)
    playground.clear(start, n)
    with procvm.open(playground.pid) as process:
        found = process.vm.search(b"\x07", ranges=[(start, start + n)], threads=3)
        assert own_threads() == []
        next(found)
        assert own_threads() != []
        if end == "close":
            found.close()
        elif end == "drop":
            del found
        else:
            for _ in found:
                pass
        assert own_threads() == []


def test_the_first_hit_comes_early_and_progress_counts_it_all(
    process: procvm.Process, playground: Playground
) -> None:
    """A hit in the first piece is given while the rest is still to come."""
    n = 16 * MIB + 100
    start = playground.reserve(n + PAGE)
    playground.clear(start, n)
    playground.poke(start + 50, b"needle")
    seen: list[Pair] = []
    found = process.vm.search(
        b"needle",
        ranges=[(start, start + n)],
        threads=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert next(found) == start + 50
    assert seen == []
    assert list(found) == []
    assert seen == [(k * CHUNK_LEN, n) for k in range(1, n // CHUNK_LEN + 1)] + [(n, n)]


def test_a_closed_process_is_not_searched(playground: Playground) -> None:
    """The search says that it was closed, and its threads are gone."""
    start = playground.layout("rw rw")
    with procvm.open(playground.pid) as process:
        found = process.vm.search(b"a", ranges=[(start, start + PAGE)])
    with pytest.raises(procvm.ClosedError):
        list(found)


# Sparse memory


NEEDLES = [b"needle", "6E 65 65 ?4", (u32, int.from_bytes(b"need", "little")), b"\0\0\0need"]


def test_search_of_a_sparse_mapping_costs_what_was_touched(
    process: procvm.Process, playground: Playground
) -> None:
    """64 GiB, some pages of them touched: all is found in few CPU seconds; no page tables grow."""
    n = 64 * GIB
    start = playground.reserve(n)
    places = [5, 3 * GIB + PAGE - 3, 40 * GIB, n - 6]
    for at in places:
        playground.poke(start + at, b"needle")
    before = kib_of(playground.pid, "VmPTE")
    begun = time.process_time()
    for what in NEEDLES:
        hits = search(process.vm, what, start, start + n)
        if what == b"\0\0\0need":
            assert [at + 3 for at in hits] == places
        else:
            assert hits == places, what
    assert time.process_time() - begun < 3
    found = process.vm.search(b"\0" * 16, ranges=[(start + GIB, start + n)], threads=1)
    assert [next(found) for _ in range(5)] == [start + GIB + k for k in range(5)]
    found.close()
    assert kib_of(playground.pid, "VmPTE") - before <= 1024


def test_thousands_of_touched_pages_are_all_searched(
    process: procvm.Process, playground: Playground
) -> None:
    """More runs than one question to the kernel answers, each with a hit."""
    start = playground.reserve(1200 * 20 * PAGE)
    expected = [k * 20 * PAGE + PAGE - 3 for k in range(1199)]
    for at in expected:
        playground.poke(start + at, b"needle")
    assert search(process.vm, b"needle", start, start + 1200 * 20 * PAGE) == expected


def test_touched_pages_are_found_from_a_start_inside_a_page(
    process: procvm.Process, playground: Playground
) -> None:
    """Wherever a range begins, every touched byte behind it is searched."""
    start = playground.reserve(4 * MIB)
    playground.poke(start + 2 * MIB + 10, b"needle")
    assert search(process.vm, b"needle", start + 100, start + 4 * MIB) == [2 * MIB + 10 - 100]


def test_an_expression_that_zeros_hold_finds_touched_pages_too(
    process: procvm.Process, playground: Playground
) -> None:
    """From the second piece on as in the first."""
    start = playground.reserve(4 * MIB)
    playground.poke(start + 2 * MIB + MIB // 2, b"needle")
    what = re.compile(rb"needle|(?<!\x00)\x00")
    hits = search(process.vm, what, start, start + 4 * MIB)
    assert hits == [0, 2 * MIB + MIB // 2, 2 * MIB + MIB // 2 + 6]


@pytest.mark.parametrize("what", [b"needle", b"\0" * 16])
@pytest.mark.parametrize("kind", ["none", "wo"])
def test_untouched_memory_that_may_not_be_read_is_skipped(
    process: procvm.Process, playground: Playground, what: bytes, kind: str
) -> None:
    """An access would fault there, whether or not it holds zeros."""
    start = playground.reserve(3 * MIB)
    playground.protect(start + MIB, MIB, kind)
    playground.poke(start + 2 * MIB, b"needle")
    found = process.vm.search(what, ranges=[(start, start + 2 * MIB + 6)])
    hits = list(found)
    assert not [hit for hit in hits if start + MIB <= hit < start + 2 * MIB]
    assert found.skipped == [(start + MIB, start + 2 * MIB)]


MEMORY = """
import sys
import numpy
import procvm

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1])

pid, start, n = map(int, sys.argv[1:])
with procvm.open(pid) as process:
    list(process.vm.search(b"x" * 9, ranges=[(start, start + 65536)]))
    before = peak()
    assert list(process.vm.search(b"needle", ranges=[(start, start + n)])) == [start + n - 6]
    print(peak() - before)
"""


def test_a_search_needs_little_memory_of_the_tool(playground: Playground) -> None:
    """64 MiB of a target add less than 32 MiB to the tool."""
    n = 64 * MIB
    start = playground.reserve(n)
    playground.clear(start, n)
    playground.poke(start + n - 6, b"needle")
    argv = [sys.executable, "-c", MEMORY, *map(str, (playground.pid, start, n))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 32 * KIB


# A target that is held


def test_a_held_target_is_searched(playground: Playground) -> None:
    """`held.vm` gives what the target has, with and without protections."""
    start = playground.layout("rw none rw hole r")
    playground.poke(start + PAGE + 5, b"needle")
    playground.poke(start + 5 * PAGE - 6, b"needle")
    with procvm.attach(playground.pid) as tracee, tracee.stopped() as held:
        ranges = [(start, start + 5 * PAGE)]
        for vm, hits in ((held.vm, [5 * PAGE - 6]), (held.vm.forced(), [PAGE + 5, 5 * PAGE - 6])):
            found = vm.search(b"needle", ranges=ranges)
            assert [hit - start for hit in found] == hits
        assert list(held.vm.search(b"needle")) == list(tracee.vm.search(b"needle"))


# In other processes


def test_a_space_pickles(process: procvm.Process, playground: Playground) -> None:
    """The copy reads the same process, with or without protections, also when this one closes."""
    start = playground.layout("rw none")
    vm = cast("VmSpace", pickle.loads(pickle.dumps(process.vm)))
    forced = cast("VmSpace", pickle.loads(pickle.dumps(process.vm.forced())))
    process.close()
    expected = playground.peek(start, 2 * PAGE)
    assert vm.read_bytes(start, PAGE) == expected[:PAGE]
    assert forced.read_bytes(start, 2 * PAGE) == expected
    with pytest.raises(procvm.PageFaultError):
        vm.read_bytes(start, 2 * PAGE)


def test_a_space_of_a_closed_process_says_so(playground: Playground) -> None:
    """As every other use of it; the target still runs the same program."""
    with procvm.open(playground.pid) as process:
        vm = process.vm
    with pytest.raises(procvm.ClosedError):
        pickle.loads(pickle.dumps(vm))


def test_a_space_unpickles_in_a_child_that_was_forked(playground: Playground) -> None:
    """Also if the parent had unpickled the same one before."""
    start = playground.layout("rw")
    with procvm.open(playground.pid) as process:
        data = pickle.dumps(process.vm)
    kept = pickle.loads(data)
    assert kept.read_bytes(start, 9) == playground.peek(start, 9)
    code = (
        "import os, pickle, sys\n"
        "data, start = bytes.fromhex(sys.argv[1]), int(sys.argv[2])\n"
        "kept = pickle.loads(data)\n"
        "if os.fork() == 0:\n"
        "    pickle.loads(data).read_bytes(start, 9)\n"
        "    os._exit(0)\n"
        "sys.exit(os.wait()[1] != 0)\n"
    )
    argv = [sys.executable, "-c", code, data.hex(), str(start)]
    assert subprocess.run(argv, cwd=ROOT, capture_output=True, check=False).returncode == 0


def assert_executor_finds_the_same(
    process: procvm.Process, playground: Playground, executor: Executor
) -> None:
    """Searches some MiB in other processes and here."""
    n = 4 * MIB
    start = playground.reserve(n)
    playground.clear(start, n)
    for k in (1, 2, 3):
        playground.poke(start + k * MIB - 3, b"needle")
    playground.protect(start + 2 * MIB + PAGE, PAGE, "none")
    needles: Sequence[Any] = (b"needle", re.compile(rb"ne+dle"), [b"needle", "6E 65 ?5"])
    for what in needles:
        here = process.vm.search(what, ranges=[(start, start + n)], threads=1)
        there = process.vm.search(what, ranges=[(start, start + n)], executor=executor)
        hits = list(here)
        assert list(there) == hits
        assert len(hits) == (6 if isinstance(what, list) else 3)
        bad = start + 2 * MIB + PAGE
        assert there.skipped == here.skipped == [(bad, bad + PAGE)]


def test_other_processes_find_the_same(process: procvm.Process, playground: Playground) -> None:
    """With a ProcessPoolExecutor whose processes start anew."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert_executor_finds_the_same(process, playground, executor)


CLUSTER = """
import sys
from tests.process.test_search import on_a_cluster

if __name__ == "__main__":
    on_a_cluster(int(sys.argv[1]))
"""


def on_a_cluster(pid: int) -> None:
    """Searches a target with two workers of dask.distributed; prints what was found."""
    dask: Any = importlib.import_module("dask.distributed")  # slow to import, and half typed
    start, n = int(sys.argv[2]), int(sys.argv[3])
    with (
        dask.LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        dask.Client(cluster) as client,
        procvm.open(pid) as process,
    ):
        executor = client.get_executor()
        for what in (b"needle", re.compile(rb"ne+dle")):
            ranges = [(start, start + n)]
            here = process.vm.search(what, ranges=ranges, threads=1)
            there = process.vm.search(what, ranges=ranges, executor=executor)
            print([hit - start for hit in there], there.skipped == here.skipped)
            assert list(here)


def test_workers_of_dask_find_the_same(playground: Playground, tmp_path: Path) -> None:
    """With two processes of a LocalCluster, by the executor of its client."""
    n = 4 * MIB
    start = playground.reserve(n)
    playground.clear(start, n)
    for k in (1, 2, 3):
        playground.poke(start + k * MIB - 3, b"needle")
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    argv = [sys.executable, str(script), *map(str, (playground.pid, start, n))]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    hits = [MIB - 3, 2 * MIB - 3, 3 * MIB - 3]
    assert done.stdout == f"{hits} True\n" * 2, done.stderr


# Rules


def test_the_patterns_of_rules_are_found(process: procvm.Process, playground: Playground) -> None:
    """Each place at which a pattern of a rule that matches stands, over borders too."""
    yara_x: Any = importlib.import_module("yara_x")
    start = playground.reserve(3 * MIB)
    for k in (1, 2):
        playground.poke(start + k * MIB - 3, b"needle")
    rules = yara_x.compile('rule a { strings: $a = "needle" condition: $a }')
    for threads in (1, 3):
        assert search(process.vm, rules, start, start + 3 * MIB, threads=threads) == [
            MIB - 3,
            2 * MIB - 3,
        ]
