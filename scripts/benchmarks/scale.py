"""What large jobs take: a million values, a list of a million nodes, a GiB read or searched."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
from children import Peer, Rival, Target
from clock import Contender, Run, Times
from groups import Goal, Group, Scene, Table, at_most, verdict
from peers_at_scale import SEARCHERS

import procvm
from procvm import u32, u64

__all__ = ["SCALE"]

_HERE = Path(__file__).parent
_SCRIPT = "peers_at_scale.py"
_MIB = 1 << 20
_GIB = 1 << 30
_PAGE = 4096
_MILLION = 1_000_000
_PART = 100_000
"""Values and nodes for those that would take too long over a million."""

_PEER_LEN = 256 * _MIB
"""Bytes that the slower peers search."""

_C, _DRGN = "C", "drgn"
_GATHER, _BAD = "vm.gather", "the same, 1 % bad pointers"
_HELD, _NOT_HELD = "held.vm.read_val, twice a node", "tracee.vm.read_val, twice a node"
_READ_INTO, _TWO, _TWO_C = "vm.read_into", "vm.read_into, threads=2", "C, two threads"
_READ, _SEARCH, _SEARCH_2 = "only read, by one thread", "vm.search, threads=1", "threads=2"
_GDB, _SCANMEM = "gdb", "scanmem"
_PEERS = (_GDB, _SCANMEM, *SEARCHERS)

# A tool of its own each time: what one job takes of memory is not seen where another has been.
_PEAK = """
import sys, numpy, procvm
sys.path.insert(0, sys.argv[1])
from groups import peak_growth
process = procvm.open(int(sys.argv[2]))
vm = process.vm
"""
_PEAK_GATHER = """
addresses = numpy.fromfile(sys.argv[3], numpy.uint64)
vm.gather(addresses[:1], procvm.u64)
print(peak_growth(lambda: vm.gather(addresses, procvm.u64)))
"""
_PEAK_SEARCH = """
where, what = [tuple(map(int, sys.argv[3:5]))], bytes.fromhex(sys.argv[5])
print(peak_growth(lambda: list(vm.search(what, ranges=where))))
"""


def _peak(scene: Scene, target: Target, code: str, *arguments: object) -> int:
    """Returns the bytes that a job adds to a fresh process, on all processors."""
    command = [sys.executable, "-c", _PEAK + code, str(_HERE), str(target.pid)]
    cpus, ours = scene.cpus, os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        return int(subprocess.check_output([*command, *map(str, arguments)]))
    finally:
        os.sched_setaffinity(0, ours)


def _target(scene: Scene, n: int, *how: str) -> tuple[Target, procvm.Process]:
    target = scene.stack.enter_context(Target(scene.program, n, *how))
    return target, scene.stack.enter_context(procvm.open(target.pid))


def _rival(scene: Scene, target: Target) -> Rival:
    return Rival(scene.library, target.pid)


def _use_all_cpus(scene: Scene) -> None:
    """Lets this process, and what it starts, run where the kernel wants, for this group."""
    scene.stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
    os.sched_setaffinity(0, scene.cpus)


def _folder(scene: Scene) -> Path:
    return Path(scene.stack.enter_context(tempfile.TemporaryDirectory(prefix="procvm-bench-")))


def _timed(work: Callable[[], object], expected: object = None, part: float = 1.0) -> Run:
    """Returns a run that compares what came of the work, and scales what is a part of the job."""

    def run(n: int) -> float:
        took = 0.0
        for _ in range(n):
            start = time.perf_counter_ns()
            found = work()
            took += time.perf_counter_ns() - start
            if expected is not None and found != expected:
                raise RuntimeError(f"{found} came of it, not {expected}")
        return took / part

    return run


def _asked(peer: Peer, line: str, expected: object, part: float = 1.0) -> Run:
    """Returns a run of a peer, which says itself how long it took."""

    def run(n: int) -> float:
        took = 0.0
        for _ in range(n):
            answer = peer.ask(line).split()
            if len(answer) != 2 or int(answer[1]) != expected:
                raise RuntimeError(f"a peer answered {answer} to {line!r}, not {expected}")
            took += float(answer[0])
        return took / part

    return run


def _peer(scene: Scene, name: str, target: Target, job: str) -> Peer | None:
    peer = Peer(name, target, job, _SCRIPT)
    scene.stack.callback(peer.close)
    if peer.refusal:
        print(f"{name} does not {job} here: {peer.refusal}")
        return None
    return peer


def _times_faster(name: str, base: str, times: float) -> Goal:
    return Goal(
        f">= {times:g} x faster than {base}",
        lambda found: found.ratio(name, base) <= 1 / times if base in found else None,
    )


def _rate_at_least(name: str, base: str, times: float) -> Goal:
    return Goal(f">= {times:g} x {base}", lambda found: 1 / found.ratio(name, base) >= times)


def _rate_of_two(name: str, base: str, times: float, c: str) -> Goal:
    """Returns a goal of two threads, which is not measured where C's two do not reach it either."""

    def met(found: Times) -> bool | None:
        if 1 / found.ratio(name, base) >= times:
            return True
        return None if 1 / found.ratio(c, base) < times else False

    return Goal(f">= {times:g} x {base} on 2 free processors", met)


def _faster_than(name: str, others: tuple[str, ...]) -> Goal:
    def met(found: Times) -> bool | None:
        here = [other for other in others if other in found]
        return all(found.ratio(name, other) < 1 for other in here) if here else None

    return Goal("faster than every peer", met)


# Gather


def _at_random(address: int, n: int, size: int = _GIB) -> Any:
    return np.random.default_rng(7).integers(0, size // 8, n, np.uint64) * 8 + np.uint64(address)


def _with_bad(addresses: Any) -> Any:
    """Returns a copy in which one of a hundred is no pointer: null, a small number, any number."""
    rng = np.random.default_rng(8)
    where = rng.choice(len(addresses), len(addresses) // 100, replace=False)
    changed = addresses.copy()
    changed[where] = rng.integers(0, 1 << 64, len(where), np.uint64) >> rng.choice(
        np.array([0, 17, 32, 52, 64 - 1], np.uint64), len(where)
    )
    return changed


def _by_c(rival: Rival, addresses: Any) -> Run:
    own = np.zeros(len(addresses), np.uint64)
    return lambda n: sum(rival.gather(addresses, own, 8) for _ in range(n))


def _masked(vm: procvm.VmSpace, addresses: Any) -> Run:
    return _timed(lambda: vm.gather(addresses, u64, faults="mask"))


def _same_as_c(rival: Rival, vm: procvm.VmSpace, addresses: Any) -> None:
    own = np.zeros(len(addresses), np.uint64)
    rival.gather(addresses, own, 8)
    if not np.array_equal(own, vm.gather(addresses, u64)):
        raise RuntimeError("vm.gather and C read different values")


def _gather_at_random(scene: Scene) -> list[Contender]:
    target, process = _target(scene, _GIB)
    vm, rival = process.vm, _rival(scene, target)
    addresses = _at_random(target.address, _MILLION)
    _same_as_c(rival, vm, addresses)
    bad = _with_bad(addresses)
    found = [
        Contender(_C, _by_c(rival, addresses), 1),
        Contender(_GATHER, _timed(lambda: vm.gather(addresses, u64)), 1),
        Contender(_BAD, _masked(vm, bad), 1),
    ]
    peer = _peer(scene, _DRGN, target, "gather")
    if peer is not None:
        path = _folder(scene) / "addresses"
        addresses[:_PART].tofile(path)
        last = vm.read_val(int(addresses[_PART - 1]), u64)
        found.append(Contender(_DRGN, _asked(peer, str(path), last, _PART / _MILLION), 1))
    return found


def _gather_memory(scene: Scene) -> list[Table]:
    target, _ = _target(scene, _GIB)
    path = _folder(scene) / "addresses"
    _at_random(target.address, _MILLION).tofile(path)
    times = _peak(scene, target, _PEAK_GATHER, path) / (_MILLION * 8)
    rows: Table = [
        ("the peak of resident memory, above the addresses", "x the result", "asked for")
    ]
    rows.append((_GATHER, f"{times:.2f}", f"<= 5: {verdict(times <= 5)}"))
    return [rows]


def _gather_from(scene: Scene, addresses_of: Callable[[int], Any]) -> list[Contender]:
    target, process = _target(scene, _GIB)
    vm, rival = process.vm, _rival(scene, target)
    addresses = addresses_of(target.address)
    _same_as_c(rival, vm, addresses)
    return [
        Contender(_C, _by_c(rival, addresses), 1),
        Contender(_GATHER, _timed(lambda: vm.gather(addresses, u64)), 1),
    ]


def _every_64_bytes(address: int) -> Any:
    return np.arange(address, address + _MILLION * 64, 64, dtype=np.uint64)


_NUMBERS = (10_000, 100_000, _MILLION)
_SOME = "{:,} values"


def _gather_growth(scene: Scene) -> list[Contender]:
    target, process = _target(scene, _GIB)
    vm, rival = process.vm, _rival(scene, target)
    found = []
    for n in reversed(_NUMBERS):
        addresses = _at_random(target.address, n)
        gather = partial(vm.gather, addresses, u64)
        times = _MILLION // n
        found.append(Contender(_SOME.format(n), _timed(gather, part=n), times))
        by_c = _by_c(rival, addresses)
        one = partial(lambda by_c, n, times: by_c(times) / n, by_c, n)
        found.append(Contender(f"C, {n:,}", one, times))
    return found


# Lists


class _List(NamedTuple):
    """A list in a target: nodes of two words, the next node's address and a value."""

    start: int
    n: int
    total: int


def _write(mem: int, address: int, data: Any) -> None:
    view = memoryview(data).cast("B")
    while len(view):
        done = os.pwrite(mem, view, address)
        view, address = view[done:], address + done


def _linked(address: int, offsets: Any) -> tuple[Any, _List]:
    """Returns the nodes, in the order they are walked in, of a list at these offsets."""
    n = len(offsets)
    nodes = np.zeros((n, 2), np.uint64)
    nodes[:-1, 0] = offsets[1:] + np.uint64(address)
    nodes[:, 1] = np.arange(1, n + 1)
    return nodes, _List(address + int(offsets[0]), n, n * (n + 1) // 2)


def _one_after_the_other(mem: int, address: int, n: int) -> _List:
    nodes, made = _linked(address, np.arange(n, dtype=np.uint64) * np.uint64(16))
    _write(mem, address, nodes)
    return made


_CACHED = 64 * _MIB


def _anywhere(mem: int, address: int, n: int) -> _List:
    """Puts a list all over its part of 64 MiB, in any order; a million nodes take all of it."""
    room = _CACHED // 16 * n // _MILLION
    slots = np.random.default_rng(9).permutation(room)[:n].astype(np.uint64)
    nodes, made = _linked(address, slots * np.uint64(16))
    area = np.zeros((room, 2), np.uint64)
    area[slots] = nodes
    _write(mem, address, area)
    return made


_SPARSE = 4 * _GIB


def _a_page_each(mem: int, address: int, n: int) -> _List:
    """Puts each node on a page of its own, in any order, all over 4 GiB."""
    pages = np.random.default_rng(10).permutation(_SPARSE // _PAGE)[:n].astype(np.uint64)
    nodes, made = _linked(address, pages * np.uint64(_PAGE))
    for page, node in zip(pages.tolist(), nodes, strict=True):
        _write(mem, address + page * _PAGE, node)
    return made


def _walk(read_val: Callable[[int, Any], int], start: int, most: int) -> int:
    at, total = start, 0
    for _ in range(most):
        total += read_val(at + 8, u64)
        at = read_val(at, u64)
    return total


def _walked(
    tracee: procvm.Tracee, made: _List, cache_len: int | None, most: int | None = None
) -> Run:
    """Returns a run that holds the target for one walk; without a cache it reads by `tracee.vm`."""
    n = min(made.n, most or made.n)
    total = made.total if n == made.n else n * (n + 1) // 2
    how: dict[str, Any] = {} if cache_len is None else {"cache_len": cache_len}

    def walk() -> int:
        with tracee.stopped(**how) as held:
            return _walk((tracee if cache_len == 0 else held).vm.read_val, made.start, n)

    return _timed(walk, total, n / made.n)


def _list_target(scene: Scene, size: int) -> tuple[Target, procvm.Tracee, int]:
    target = scene.stack.enter_context(Target(scene.program, size, "sparse"))
    tracee = scene.stack.enter_context(procvm.attach(target.pid, longest_hold=None))
    return target, tracee, _rival(scene, target).mem


Place = Callable[[int, int, int], _List]


def _walks(scene: Scene, place: Place, size: int, n: int, cache_len: int | None) -> list[Contender]:
    target, tracee, mem = _list_target(scene, size)
    made = place(mem, target.address, n)
    found = []
    peer = _peer(scene, _DRGN, target, "walk")
    if peer is not None:
        found.append(Contender(_DRGN, _asked(peer, f"{made.start} {n}", made.total), 1))
    found.append(Contender(_HELD, _walked(tracee, made, cache_len), 1))
    found.append(Contender(_NOT_HELD, _walked(tracee, made, 0, _PART), 1))
    return found


_WALKS: list[tuple[str, Place, int | None]] = [
    ("in a row", _one_after_the_other, None),
    ("anywhere", _anywhere, _CACHED),
]
_LENS = (10_000, 100_000)


def _short_walks(scene: Scene) -> list[Contender]:
    found = []
    for how, place, cache_len in _WALKS:
        for n in _LENS:
            target, tracee, mem = _list_target(scene, _CACHED)
            made = place(mem, target.address, n)
            name = f"{n:,} {how}"
            held = _walked(tracee, made, cache_len)
            found.append(Contender(name, partial(_a_time, held, n), 1))
            peer = _peer(scene, _DRGN, target, "walk")
            if peer is not None:
                by_drgn = _asked(peer, f"{made.start} {n}", made.total)
                found.append(Contender(f"drgn, {name}", partial(_a_time, by_drgn, n), 1))
    return found


def _a_time(run: Run, of: int, n: int) -> float:
    return run(n) / of


# In bulk


def _chunks(
    vm: procvm.VmSpace, address: int, buffer: bytearray, n: int = _GIB, threads: int = 1
) -> Callable[[], None]:
    def read() -> None:
        read_into, size = vm.read_into, len(buffer)
        for place in range(address, address + n, size):
            read_into(place, buffer, threads=threads)

    return read


def _c_chunks(rival: Rival, address: int, own: Any, n: int = _GIB) -> Run:
    size = len(own)
    read = rival.run("readv_raw", address, own, size, size)
    return lambda times: sum(read(n // size) for _ in range(times))


def _bulk(scene: Scene, size: int) -> list[Contender]:
    target, process = _target(scene, _GIB)
    buffer = bytearray(size)
    own = (ctypes.c_char * size).from_buffer(buffer)
    return [
        Contender(_C, _c_chunks(_rival(scene, target), target.address, own), 1),
        Contender(_READ_INTO, _timed(_chunks(process.vm, target.address, buffer)), 1),
    ]


def _two_threads(scene: Scene) -> list[Contender]:
    _use_all_cpus(scene)
    target, process = _target(scene, _GIB)
    vm, at, rival = process.vm, target.address, _rival(scene, target)
    buffer = bytearray(_CACHED)
    half = ctypes.c_char * (_CACHED // 2)
    halves = [
        _c_chunks(rival, at + part * _GIB // 2, half.from_buffer(buffer, place), _GIB // 2)
        for part, place in enumerate((0, _CACHED // 2))
    ]

    def both() -> None:
        other = Thread(target=halves[1], args=(1,))
        other.start()
        halves[0](1)
        other.join()

    return [
        Contender(_READ_INTO, _timed(_chunks(vm, at, buffer)), 1),
        Contender(_TWO, _timed(_chunks(vm, at, buffer, threads=2)), 1),
        Contender(_TWO_C, _timed(both), 1),
    ]


# Search


class _What(NamedTuple):
    """Something to look for, that stands once in the target.

    Attributes:
        data: Its bytes, which are put there.
        pattern: As hexadecimal digits, with ``?`` for any.
        how: How a peer takes it: ``bytes``, ``pattern``, or ``aligned`` for a number.
    """

    data: bytes
    pattern: str = ""
    how: str = "bytes"

    def search(self, vm: procvm.VmSpace, where: tuple[int, int], threads: int) -> int:
        """Returns how often it stands in a range of a target."""
        ranges = [where]
        if self.how == "pattern":
            return len(list(vm.search(self.pattern, ranges=ranges, threads=threads)))
        if self.how == "aligned":
            value = int.from_bytes(self.data, sys.byteorder)
            found = vm.search(u32, value=value, ranges=ranges, align=4, threads=threads)
            return len(list(found))
        return len(list(vm.search(self.data, ranges=ranges, threads=threads)))


_LITERAL = _What(bytes.fromhex("9D31F4A7C25E8B63"))
_SMALL = _What((0x4C3B2A).to_bytes(8, sys.byteorder))
_ALIGNED = _What(bytes.fromhex("B5C3D92B"), how="aligned")
_WILDCARD = _What(_LITERAL.data, "9D31??A7??5E8?63", "pattern")


def _planted(scene: Scene, n: int, what: _What) -> tuple[Target, procvm.Process]:
    target, process = _target(scene, n, "heap")
    # Near the end, so that all of it is searched also by whoever stops at the first.
    _write(_rival(scene, target).mem, target.address + n - 2 * _PAGE + 40, what.data)
    return target, process


def _run(*command: str) -> str:
    done = subprocess.run(
        command, check=True, text=True, stdin=subprocess.DEVNULL, capture_output=True
    )
    return done.stdout + done.stderr


def _by_gdb(target: Target, what: _What) -> Run:
    """Returns a run of ``find``, timed by gdb's own Python: to attach takes it longer at times."""
    size = "/g" if len(what.data) == 8 else "/w"
    first = target.address
    find = f"find {size} {first:#x}, +{_PEER_LEN}, {int.from_bytes(what.data, sys.byteorder):#x}"
    code = (
        "python import time; start = time.perf_counter_ns(); "
        f"gdb.execute({find!r}); print('took', time.perf_counter_ns() - start)"
    )

    def run(n: int) -> float:
        took = 0
        for _ in range(n):
            said = _run("gdb", "-nx", "-batch", "-p", str(target.pid), "-ex", code)
            _, _, count = said.partition("took ")
            if "1 pattern found" not in said or not count:
                raise RuntimeError(f"gdb said {said!r}")
            took += int(count.split()[0])
        return took * _GIB / _PEER_LEN

    return run


def _by_scanmem(target: Target, what: _What) -> Run:
    # It takes numbers by their size, and signed.
    value = int.from_bytes(what.data, sys.byteorder, signed=True)
    commands = (
        f"option scan_data_type int{8 * len(what.data)}",
        "option region_scan_level 3",
        "reset",
        str(value),
        "exit",
    )

    def scan() -> bool:
        said = _run("scanmem", "-p", str(target.pid), "-c", ";".join(commands))
        return "currently have 1 matches" in said

    return _timed(scan, True, _PEER_LEN / _GIB)


def _searches(scene: Scene, what: _What) -> list[Contender]:
    _use_all_cpus(scene)
    target, process = _planted(scene, _GIB, what)
    vm, at = process.vm, target.address
    where = (at, at + _GIB)
    found = [
        Contender(_READ, _timed(_chunks(vm, at, bytearray(_MIB))), 1),
        Contender(_SEARCH, _timed(lambda: what.search(vm, where, 1), 1), 1),
        Contender(_SEARCH_2, _timed(lambda: what.search(vm, where, 2), 1), 1),
    ]
    # A target of theirs: scanmem searches everything that there is.
    small, _ = _planted(scene, _PEER_LEN, what)
    for name, tool in ((_GDB, _by_gdb), (_SCANMEM, _by_scanmem)):
        if what.how == "pattern":
            continue  # neither knows any
        if shutil.which(name) is None:
            print(f"{name} is not installed (Debian: apt-get install {name})")
        else:
            found.append(Contender(name, tool(small, what), 1))
    line = f"{what.how} {what.pattern or what.data.hex()}"
    for name in SEARCHERS:
        whole = name == "aobscanfast"
        theirs, n = (target, _GIB) if whole else (small, _PEER_LEN)
        peer = _peer(scene, name, theirs, "search")
        if peer is not None:
            run = _asked(peer, f"{theirs.address} {n} {line}", 1, n / _GIB)
            found.append(Contender(name, run, 1))
    return found


def _search_memory(scene: Scene) -> list[Table]:
    target, _ = _planted(scene, _GIB, _LITERAL)
    where = (target.address, target.address + _GIB)
    peak = _peak(scene, target, _PEAK_SEARCH, *where, _LITERAL.data.hex()) / _MIB
    rows: Table = [("the peak of resident memory", "added", "asked for")]
    rows.append(("vm.search", f"{peak:.1f} MiB", f"<= 32 MiB: {verdict(peak <= 32)}"))
    return [rows]


_SIZES = (10 * _MIB, 100 * _MIB, _GIB)


def _size_name(n: int) -> str:
    return "1 GiB" if n == _GIB else f"{n // _MIB} MiB"


def _search_growth(scene: Scene) -> list[Contender]:
    _use_all_cpus(scene)
    found = []
    for n in reversed(_SIZES):
        target, process = _planted(scene, n, _LITERAL)
        vm, at = process.vm, target.address
        search = partial(_LITERAL.search, vm, (at, at + n), 1)
        found.append(Contender(_size_name(n), _timed(search, 1, n / _GIB), 1))
        read = _chunks(vm, at, bytearray(_MIB), n)
        found.append(Contender(f"{_size_name(n)}, {_READ}", _timed(read, part=n / _GIB), 1))
    return found


def _search_goals(one: float, two: float | None = None) -> dict[str, list[Goal]]:
    goals = {_SEARCH: [_rate_at_least(_SEARCH, _READ, one), _faster_than(_SEARCH, _PEERS)]}
    if two is not None:
        goals[_SEARCH_2] = [_rate_at_least(_SEARCH_2, _READ, two)]
    return goals


_WALK_GOALS: dict[str, list[Goal]] = {
    _HELD: [
        Goal(
            f"<= 0.6 x {_DRGN}",
            lambda found: found.ratio(_HELD, _DRGN) <= 0.6 if _DRGN in found else None,
        )
    ]
}


def _no_dearer(name: str, base: str) -> Goal:
    return Goal(f"<= 1.5 x {base}", lambda found: found.ratio(name, base) <= 1.5)


def _short_walk_goals() -> dict[str, list[Goal]]:
    names = [f"{n:,} {how}" for how, _, _ in _WALKS for n in _LENS]

    def goal(name: str) -> Goal:
        base = f"drgn, {name}"
        return Goal(
            "<= 0.6 x drgn",
            lambda found: found.ratio(name, base) <= 0.6 if base in found else None,
        )

    return {name: [goal(name)] for name in names}


SCALE = [
    Group(
        "Scale: gather, a million numbers at random in a GiB",
        "The times are of the whole job. *C* is a loop of `process_vm_readv` with 1,024 ranges of "
        "8 bytes a call, in the order of the addresses. procvm sorts them first, reads those near "
        "each other as one, and checks the program in every call. drgn reads one by one, in a "
        "process of its own, a tenth of them, times ten. The bad pointers are null, small and "
        'large numbers, read with `faults="mask"`.',
        _gather_at_random,
        unit="ms",
        rounds=5,
        goals={
            _GATHER: [at_most(_GATHER, _C, 0.5), _times_faster(_GATHER, _DRGN, 3)],
            _BAD: [at_most(_BAD, _GATHER, 1.3)],
        },
        tables=_gather_memory,
    ),
    Group(
        "Scale: gather, a million numbers at random in a GiB, sorted beforehand",
        "The same addresses, in their order, for both.",
        partial(_gather_from, addresses_of=lambda at: np.sort(_at_random(at, _MILLION))),
        unit="ms",
        rounds=7,
        goals={_GATHER: [at_most(_GATHER, _C, 1.15)]},
    ),
    Group(
        "Scale: gather, a million numbers, every 64 bytes",
        "In their order, for both; what stands so near is read as one, and picked out.",
        partial(_gather_from, addresses_of=_every_64_bytes),
        unit="ms",
        rounds=7,
        goals={_GATHER: [at_most(_GATHER, _C, 1.15)]},
    ),
    Group(
        "Scale: gather, a value of ten thousand to a million",
        "At random in a GiB; times of one value, which do not grow with their number.",
        _gather_growth,
        rounds=5,
        goals={
            _SOME.format(_MILLION): [
                _no_dearer(_SOME.format(_MILLION), _SOME.format(n)) for n in _NUMBERS[:-1]
            ]
        },
    ),
    Group(
        "Scale: a list of a million nodes in a row",
        "Nodes of two consecutive words: the address of the next node, and a value. Both are "
        "read one by one, as a debugger's script does, in a hold that begins and ends with the "
        "walk. *drgn* does the same in a process of its own, and holds nothing. Without what a "
        "hold keeps a tenth of the nodes is read, times ten.",
        partial(_walks, place=_one_after_the_other, size=_CACHED, n=_MILLION, cache_len=None),
        unit="ms",
        rounds=3,
        goals=_WALK_GOALS,
    ),
    Group(
        "Scale: a list of a million nodes anywhere in 64 MiB",
        "The same, in any order; the hold keeps as much, `stopped(cache_len=64 << 20)`, and begins "
        "with nothing.",
        partial(_walks, place=_anywhere, size=_CACHED, n=_MILLION, cache_len=_CACHED),
        unit="ms",
        rounds=3,
        goals=_WALK_GOALS,
    ),
    Group(
        "Scale: a list of a hundred thousand nodes, a page each, in 4 GiB",
        "Here nothing is met twice but the node itself, and a page is read for its two words.",
        partial(_walks, place=_a_page_each, size=_SPARSE, n=_PART, cache_len=None),
        unit="ms",
        rounds=5,
        goals={_HELD: [at_most(_HELD, _NOT_HELD, 1.15)]},
    ),
    Group(
        "Scale: a list's node, of ten thousand and of a hundred thousand",
        "As above, times of one node: in a row, and anywhere in memory that is smaller as the "
        "list is, in a hold that keeps it.",
        _short_walks,
        rounds=5,
        goals=_short_walk_goals(),
    ),
    *(
        Group(
            f"Scale: a GiB into one buffer, {_size_name(size)} at a time",
            "A buffer that is kept, over and over, in C and in procvm; ratios are of throughput.",
            partial(_bulk, size=size),
            n=_GIB,
            rounds=7,
            goals={_READ_INTO: [_rate_at_least(_READ_INTO, _C, 0.95)]},
        )
        for size in (_MIB, _CACHED)
    ),
    Group(
        "Scale: a GiB by two threads, 64 MiB at a time",
        "This group runs on all processors, the others on one: it needs two that are free. In *C, "
        "two threads* each reads its half of the GiB, and they meet only at the end: where it does "
        "not reach the goal either, the processors were not free.",
        _two_threads,
        n=_GIB,
        rounds=7,
        goals={_TWO: [_rate_of_two(_TWO, _READ_INTO, 1.5, _TWO_C)]},
    ),
    Group(
        "Scale: search of a GiB for 8 bytes",
        "They occur once, near the end, among words such as those of a heap: pointers, small "
        "numbers, "
        "zeros, text. All processors may be used. gdb (`find`), scanmem, PyMemoryEditor search "
        "256 MiB, times four, in a target of theirs. The start of gdb is not included. "
        "aobscanfast uses as many threads as it likes.",
        partial(_searches, what=_LITERAL),
        n=_GIB,
        rounds=5,
        goals=_search_goals(0.5, 0.9),
        tables=_search_memory,
    ),
    Group(
        "Scale: search of a GiB for a small number of 8 bytes",
        "Five of its bytes are zeros, as most of the memory is.",
        partial(_searches, what=_SMALL),
        n=_GIB,
        rounds=5,
        goals=_search_goals(0.5, 0.9),
    ),
    Group(
        "Scale: search of a GiB for a number of 4 bytes, aligned",
        "`align=4`. gdb, scanmem and aobscanfast look at every byte; PyMemoryEditor does not.",
        partial(_searches, what=_ALIGNED),
        n=_GIB,
        rounds=5,
        goals=_search_goals(0.6),
    ),
    Group(
        "Scale: search of a GiB for a pattern with wildcards",
        "`9D 31 ?? A7 ?? 5E 8? 63`; for the peers the half byte is a whole one.",
        partial(_searches, what=_WILDCARD),
        n=_GIB,
        rounds=5,
        goals=_search_goals(0.5),
    ),
    Group(
        "Scale: search of 10 MiB, of 100 MiB and of a GiB",
        "For 8 bytes, by one thread; ratios are of throughput.",
        _search_growth,
        n=_GIB,
        rounds=5,
    ),
]
