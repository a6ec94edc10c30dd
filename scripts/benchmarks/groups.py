"""What is measured, and why each ratio is what it is."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clock import Contender, Run, Times

import procvm
from procvm import VmReader, VmReaderArray, VmWriter, u64

if TYPE_CHECKING:
    from children import Peer, Rival, Target

__all__ = [
    "BULK_LEN",
    "GROUPS",
    "Goal",
    "Group",
    "Scene",
    "Table",
    "at_most",
    "imports",
    "median_at_most",
    "peak_growth",
    "verdict",
]

PAGE = 4096
BULK_LEN = 64 << 20
_WORDS = (1 << 20) // 8
_RANGES = 1024
_RANGE_LEN = 64
_RANGE_STRIDE = 1024
_MANY = 1 << 40
_IMPORTS = 20

Table = list[tuple[str, ...]]


class Goal(NamedTuple):
    """What a number should be, and whether it is; None if it was not measured."""

    text: str
    met: Callable[[Times], bool | None]


class Scene(NamedTuple):
    """Everything that a group needs to be set up.

    Attributes:
        process: The target, opened.
        own: This process, opened.
        target: What is read.
        rival: C on the target.
        own_rival: C on this process.
        peers: The libraries that read, by name.
        program: What a group can make more targets of.
        library: The rivals in C.
        cpus: The processors that this process was given before it chose one.
        stack: What is to be closed after the group.
    """

    process: procvm.Process
    own: procvm.Process
    target: Target
    rival: Rival
    own_rival: Rival
    peers: dict[str, Peer]
    program: Path
    library: ctypes.CDLL
    cpus: set[int]
    stack: ExitStack


class Group(NamedTuple):
    """Contenders for one job.

    Attributes:
        title: What the job is.
        text: What is measured and why the ratios are what they are.
        contenders: Makes them; the first one is what ratios are of.
        same: The contender in C that makes the same calls as procvm; or empty.
        n: Bytes each access moves, where throughput is what counts; else 0.
        unit: What times are shown in: ``ns``, ``us`` or ``ms``.
        goals: What is asked of a contender, by its name.
        rounds: How often they are measured, where that takes long; 0 for as often as is usual.
            Each then runs once in each.
        tables: Makes more tables, of what is no time.
    """

    title: str
    text: str
    contenders: Callable[[Scene], list[Contender]]
    same: str = ""
    n: int = 0
    unit: str = "ns"
    goals: dict[str, list[Goal]] = {}  # noqa: RUF012  (never changed)
    rounds: int = 0
    tables: Callable[[Scene], list[Table]] | None = None


def verdict(met: bool | None) -> str:
    """Returns what a table says of a goal."""
    return "not measured" if met is None else "met" if met else "NOT met"


def _places(address: int, stride: int, n: int) -> Iterable[int]:
    """Returns `n` addresses; with no stride it is one over and over."""
    return range(address, address + n * stride, stride) if stride else repeat(address, n)


def _each(function: Callable[[int, Any], object], address: int, stride: int, what: object) -> Run:
    """Returns a run that calls `function` with one address after the other, and `what`."""

    def run(n: int) -> float:
        places = _places(address, stride, n)
        start = time.perf_counter_ns()
        for place in places:
            function(place, what)
        return time.perf_counter_ns() - start

    return run


def _pread(scene: Scene, size: int, stride: int) -> Run:
    pread, mem, address = os.pread, scene.rival.mem, scene.target.address

    def run(n: int) -> float:
        places = _places(address, stride, n)
        start = time.perf_counter_ns()
        for place in places:
            pread(mem, size, place)
        return time.perf_counter_ns() - start

    return run


def _cursor(reader: Callable[[], VmReader[Any]]) -> Run:
    def run(n: int) -> float:
        read_val = reader().read_val
        start = time.perf_counter_ns()
        for _ in range(n):
            read_val(u64)
        return time.perf_counter_ns() - start

    return run


def at_most(name: str, base: str, times: float) -> Goal:
    """Returns the goal that `name` takes at most so many times as long as `base`."""
    return Goal(f"<= {times:g} x {base}", lambda found: found.ratio(name, base) <= times)


def median_at_most(name: str, us: float) -> Goal:
    """Returns the goal that the median of the single times is at most so many microseconds."""

    def met(found: Times) -> bool | None:
        median = found.median(name)
        return None if median is None else median <= us * 1000

    return Goal(f"median <= {us:g} us" if us < 1000 else f"median <= {us / 1000:g} ms", met)


_RAW, _SAME, _PTRACE, _DRGN = "C", "C, the same calls", "python-ptrace", "drgn"
_FORCED = "vm.forced().read_val(u64)"
_FORCED_WRITE = "vm.forced().write_val(u64, ...)"
_FORCED_INTO = "vm.forced().read_into"
_READER, _READ_INTO, _READ_BYTES = "reader.read_val(u64)", "vm.read_into", "vm.read_bytes"


def _words(scene: Scene) -> list[Contender]:
    vm, at = scene.process.vm, scene.target.address
    own = (ctypes.c_char * 8)()
    rival = scene.rival
    return [
        Contender(_RAW, rival.run("readv_raw", at, own, 8, 8), _WORDS),
        Contender(_SAME, rival.run("readv_checked", at, own, 8, 8), _WORDS),
        Contender(_READER, _cursor(lambda: vm.reader(at, _WORDS * 8)), _WORDS),
        Contender("vm.read_val(u64)", _each(vm.read_val, at, 8, u64), _WORDS),
        Contender(_FORCED, _each(vm.forced().read_val, at, 8, u64), _WORDS),
        Contender("os.pread of mem, 8 bytes", _pread(scene, 8, 8), _WORDS),
        *(Contender(name, peer.run(8), _WORDS) for name, peer in scene.peers.items()),
    ]


def _own_words(scene: Scene) -> list[Contender]:
    area = (ctypes.c_char * (_WORDS * 8))()
    ctypes.memset(area, 1, _WORDS * 8)
    at = ctypes.addressof(area)
    vm = scene.own.vm
    own = (ctypes.c_char * 8)()

    def reader() -> VmReader[Any]:
        assert len(area) == _WORDS * 8  # named, so that it lives
        return vm.reader(at, _WORDS * 8)

    return [
        Contender(_RAW, scene.own_rival.run("readv_raw", at, own, 8, 8), _WORDS),
        Contender(_READER, _cursor(reader), _WORDS),
        Contender("vm.read_val(u64)", _each(vm.read_val, at, 8, u64), _WORDS),
    ]


def _writes(scene: Scene) -> list[Contender]:
    vm, at = scene.process.vm, scene.target.address
    own = (ctypes.c_char * 8)()
    rival = scene.rival

    def cursor(n: int) -> float:
        write_val = vm.writer(at, _WORDS * 8).write_val
        start = time.perf_counter_ns()
        for _ in range(n):
            write_val(u64, 7)
        return time.perf_counter_ns() - start

    def space(n: int) -> float:
        write_val = vm.write_val
        start = time.perf_counter_ns()
        for place in range(at, at + n * 8, 8):
            write_val(place, u64, 7)
        return time.perf_counter_ns() - start

    found = [Contender(_RAW, rival.run("writev_raw", at, own, 8, 8), _WORDS)]
    same = rival.run("pwrite_checked", at, own, 8, 8)
    try:
        same(1)
        found.append(Contender(_SAME, same, _WORDS))
    except RuntimeError:
        print(f"{_SAME}, for writes: this kernel lacks PROCMAP_QUERY (Linux 6.11)")
    found.append(Contender("writer.write_val(u64, ...)", cursor, _WORDS))
    found.append(Contender("vm.write_val(u64, ...)", space, _WORDS))
    forced = vm.forced().write_val

    def by_force(n: int) -> float:
        start = time.perf_counter_ns()
        for place in range(at, at + n * 8, 8):
            forced(place, u64, 7)
        return time.perf_counter_ns() - start

    found.append(Contender(_FORCED_WRITE, by_force, _WORDS))
    return found


def _pages(scene: Scene) -> list[Contender]:
    vm, at = scene.process.vm, scene.target.address
    own = (ctypes.c_char * PAGE)()
    buffer = bytearray(PAGE)
    rival = scene.rival
    return [
        Contender(_RAW, rival.run("readv_raw", at, own, PAGE, 0), _MANY),
        Contender(_SAME, rival.run("readv_checked", at, own, PAGE, 0), _MANY),
        Contender(_READ_INTO, _each(vm.read_into, at, 0, buffer), _MANY),
        Contender(_READ_BYTES, _each(vm.read_bytes, at, 0, PAGE), _MANY),
        Contender(_FORCED_INTO, _each(vm.forced().read_into, at, 0, buffer), _MANY),
        Contender("os.pread of mem", _pread(scene, PAGE, 0), _MANY),
        *(Contender(name, peer.run(PAGE), _MANY) for name, peer in scene.peers.items()),
    ]


def _bulk(scene: Scene) -> list[Contender]:
    vm, at = scene.process.vm, scene.target.address
    buffer = bytearray(BULK_LEN)
    own = (ctypes.c_char * BULK_LEN).from_buffer(buffer)

    def by_bytearray(address: int, n: int) -> bytes:
        fresh = bytearray(n)
        vm.read_into(address, fresh)
        return bytes(fresh)

    return [
        Contender(_RAW, scene.rival.run("readv_raw", at, own, BULK_LEN, 0), 1),
        Contender(_READ_INTO, _each(vm.read_into, at, 0, buffer), 1),
        Contender(_READ_BYTES, _each(vm.read_bytes, at, 0, BULK_LEN), 1),
        Contender("bytes(a new bytearray)", _each(by_bytearray, at, 0, BULK_LEN), 1),
    ]


def _memory(scene: Scene) -> list[Table]:
    """What reading 64 MiB takes of memory at its peak."""
    vm, at = scene.process.vm, scene.target.address

    def by_bytearray() -> bytes:
        fresh = bytearray(BULK_LEN)
        vm.read_into(at, fresh)
        return bytes(fresh)

    rows: Table = [("64 MiB, the peak of resident memory", "x 64 MiB", "asked for")]
    one = peak_growth(lambda: vm.read_bytes(at, BULK_LEN)) / BULK_LEN
    two = peak_growth(by_bytearray) / BULK_LEN
    rows.append(("vm.read_bytes", f"{one:.2f}", f"about 1: {verdict(one < 1.1)}"))
    rows.append(("bytes(a new bytearray)", f"{two:.2f}", ""))
    return [rows]


def _gather(scene: Scene) -> list[Contender]:
    vm, at = scene.process.vm, scene.target.address
    own = (ctypes.c_char * (_RANGES * _RANGE_LEN))()
    buffer = bytearray(_RANGES * _RANGE_LEN)
    places = [at + k * _RANGE_STRIDE for k in range(_RANGES)]

    def readers() -> VmReaderArray[Any]:
        return VmReaderArray([vm.reader(place, _RANGE_LEN) for place in places])

    def ready(n: int) -> float:
        jobs = [(readers(), VmWriter.from_buffer(buffer)) for _ in range(n)]
        start = time.perf_counter_ns()
        for array, writer in jobs:
            array.read(writer)
        return time.perf_counter_ns() - start

    def whole(n: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(n):
            readers().read(VmWriter.from_buffer(buffer))
        return time.perf_counter_ns() - start

    def one_by_one(n: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(n):
            for place in places:
                vm.read_bytes(place, _RANGE_LEN)
        return time.perf_counter_ns() - start

    def all_ranges(name: str) -> Run:
        access = scene.rival.run(name, at, own, _RANGE_LEN, _RANGE_STRIDE)
        return lambda n: sum(access(_RANGES) for _ in range(n))

    return [
        Contender("C, one call", all_ranges("readv_many"), 16),
        Contender("C, a call a range", all_ranges("readv_raw"), 16),
        Contender("VmReaderArray.read", ready, 16),
        Contender("the same, readers made", whole, 16),
        Contender("vm.read_bytes a range", one_by_one, 16),
    ]


def _own(scene: Scene) -> list[Contender]:
    del scene
    buffer = bytearray(_WORDS * 8)
    unpack_from = struct.Struct("@Q").unpack_from

    def by_struct(n: int) -> float:
        start = time.perf_counter_ns()
        for offset in range(0, n * 8, 8):
            unpack_from(buffer, offset)[0]
        return time.perf_counter_ns() - start

    return [
        Contender("struct.unpack_from", by_struct, _WORDS),
        Contender(_READER, _cursor(lambda: VmReader.from_buffer(buffer)), _WORDS),
    ]


GROUPS = [
    Group(
        "One number of a target",
        "8 bytes at a time, each at the next address. *C* is a bare `process_vm_readv` that "
        "believes whatever process has the number. *C, the same calls* makes the calls that "
        "procvm makes: the 16 random bytes of the exec are read by the same call as the value and "
        "compared, and the pidfd is asked whether the process has ended. The second range and "
        "the second call are the cost of never returning another program's bytes. The rest of "
        "procvm's time is the interpreter: the loop, the method, the bounds check, a ctypes "
        "call on arguments made beforehand, the poll, the int; and it starts cold after each "
        "return from the kernel. The peers read a child of their own, and none of them makes "
        "these checks. drgn is C throughout, `os.pread` gives bytes and no number, and both read "
        "/proc/PID/mem, where the right to read was checked once, when it was opened, and what "
        "pages allow does not count. python-ptrace reads by `PTRACE_PEEKTEXT` a child that it "
        "has stopped: one call, with less to look up than `process_vm_readv`, which finds the "
        "process and asks every security module anew each time. Where such a call is expensive, "
        "as in many sandboxes, one call of theirs is faster than the two of procvm. A forced read "
        "uses the same file, since it ignores what pages allow. To read adjacent numbers, use one "
        "`read_slice`.",
        _words,
        same=_SAME,
        goals={
            _FORCED: [
                at_most(_FORCED, _RAW, 1.9),
                Goal(
                    "<= 1.3 x drgn",
                    lambda found: found.ratio(_FORCED, _DRGN) <= 1.3 if _DRGN in found else None,
                ),
            ],
            _READER: [
                at_most(_READER, _RAW, 3.0),
                Goal(
                    "less than python-ptrace",
                    lambda found: found.ratio(_READER, _PTRACE) < 1 if _PTRACE in found else None,
                ),
            ],
        },
    ),
    Group(
        "One number where the image cannot change",
        "The tool's own process, by its number: it cannot exec or end during the call, so there is "
        "nothing to check and one call is all. C reads the same process; the kernel spares both "
        "the permission check, so that C is faster here and the ratio the stricter for it.",
        _own_words,
        goals={_READER: [at_most(_READER, _RAW, 2.5)]},
    ),
    Group(
        "One number written",
        "A write cannot be checked after it has happened. So it uses the descriptor of "
        "/proc/PID/mem, which cannot reach another program. The kernel ignores page permissions "
        "there, so the mapping is looked up first. *C, the same calls* makes these two; *C* is a "
        "bare "
        "`process_vm_writev`, which checks nothing.",
        _writes,
        same=_SAME,
        goals={_FORCED_WRITE: [at_most(_FORCED_WRITE, _RAW, 2.0)]},
    ),
    Group(
        "4 KiB into a buffer that is there",
        "The same page over and over, so that everything is in the processor's cache: here the "
        "fixed price of a call shows most. To what a number costs comes the buffer, which has to "
        "be held in place and its address found, and a local range more. `vm.read_bytes` makes a "
        "new object instead. The peers read into a buffer of theirs where they can.",
        _pages,
        same=_SAME,
        goals={
            _READ_INTO: [at_most(_READ_INTO, _RAW, 2.2), at_most(_READ_INTO, _SAME, 2.2)],
            _FORCED_INTO: [at_most(_FORCED_INTO, _RAW, 2.7)],
        },
    ),
    Group(
        "64 MiB in one call",
        "The kernel's copy is all that counts, so procvm equals C: ratios are of throughput, more "
        "is better. A buffer that is used again is the fast way. A new one costs its pages, which "
        "the kernel must find and clear one by one: by that the last two rows differ from the "
        "first two. `vm.read_bytes` has the new object filled in place; by way of a bytearray "
        "everything is copied twice and held twice, as the peak of memory shows.",
        _bulk,
        n=BULK_LEN,
        tables=_memory,
        goals={
            _READ_INTO: [
                Goal(">= 0.95 x C", lambda found: 1 / found.ratio(_READ_INTO, _RAW) >= 0.95)
            ]
        },
    ),
    Group(
        "1,024 ranges of 64 bytes, a KiB apart",
        "Scattered ranges as one stream: one call takes 1,023 of them besides the token. The "
        "stream then moves every cursor by its part, so that after a fault each tells how far it "
        "came; these Python objects, and making them, are what it takes beyond C. One access a "
        "range, in C and in procvm, is shown for comparison.",
        _gather,
    ),
    Group(
        "One number of the tool's own memory",
        "A cursor over a bytearray: no system call at all, only Python. `struct.unpack_from` on "
        "the bare buffer is what it is made of; the rest is the method, the bounds check and the "
        "step.",
        _own,
        goals={_READER: [Goal("<= 400 ns", lambda found: found.best(_READER) <= 400)]},
    ),
]


def imports() -> tuple[float, list[str]]:
    """Returns the ms that ``import procvm`` takes, and what it imports from elsewhere."""
    code = ("pass", "import procvm")
    best = dict.fromkeys(code, float("inf"))
    for _ in range(_IMPORTS):
        for source in code:
            start = time.perf_counter_ns()
            subprocess.run([sys.executable, "-I", "-c", source], check=True)
            best[source] = min(best[source], time.perf_counter_ns() - start)
    listing = (
        "import sys; before = set(sys.modules); import procvm; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(new - sys.stdlib_module_names - {'procvm'}))"
    )
    foreign = subprocess.run(
        [sys.executable, "-I", "-c", listing], check=True, capture_output=True, text=True
    )
    return (best[code[1]] - best[code[0]]) / 1e6, foreign.stdout.split()


def peak_growth(work: Callable[[], object]) -> int:
    """Returns how far the peak of resident memory rises above where it was before."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    held = work()
    peak = _status("VmHWM")
    del held
    return peak - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))
