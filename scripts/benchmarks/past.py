"""What snapshots, cores and symbols take."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from children import Rival, Target
from clock import Contender, Run
from groups import Goal, Group, Scene, Table, at_most, verdict

import procvm
from procvm import u64

__all__ = ["PAST"]

_HERE = Path(__file__).parent
_MIB, _GIB = 1 << 20, 1 << 30
_SPARSE, _USED, _STRIDE = 64 * _GIB, 256 * _MIB, 16 * _MIB
"""A target of 64 GiB, of which sixteen stretches of 16 MiB are in use."""

_C, _READ = "C, into 256 MiB that are there", "vm.read_into, the same"
_SNAPSHOT, _SAVE = "process.snapshot", "process.save, to memory (tmpfs)"
_MEMCMP, _DIFF, _DIFF_LIVE = "memcmp in C", "snapshot.diff(snapshot)", "snapshot.diff(vm)"
_OPEN, _READ_VAL, _READ_BYTES = "open_core", "core.vm.read_val(u64)", "core.vm.read_bytes, 64 bytes"
_SYMBOL, _AGAIN = "process.symbol, of libc and the executable, at first", "process.symbol, then"
_MEMORY = "/dev/shm"  # noqa: S108 (memory)

_PEAK = """
import sys
sys.path.insert(0, sys.argv[1])
import procvm
from groups import peak_growth
process = procvm.open(int(sys.argv[2]))
start, end = map(int, sys.argv[3:5])
process.snapshot([(start, start + 4096)]).close()
process.save(sys.argv[5], [(start, start + 4096)])
if sys.argv[6] == "snapshot":
    print(peak_growth(lambda: process.snapshot([(start, end)])))
else:
    print(peak_growth(lambda: process.save(sys.argv[5], [(start, end)])))
"""


def _clocked(work: Callable[[], object]) -> Run:
    """Returns a run that closes what came of the work, outside of the time."""

    def run(n: int) -> float:
        took = 0.0
        for _ in range(n):
            start = time.perf_counter_ns()
            found = work()
            took += time.perf_counter_ns() - start
            if isinstance(found, procvm.Snapshot):
                found.close()
        return took

    return run


def _folder(scene: Scene, place: str | None = None) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="procvm-bench-", dir=place)
    return Path(scene.stack.enter_context(folder))


def _sparse(scene: Scene) -> tuple[Target, procvm.Process, list[int]]:
    target = scene.stack.enter_context(Target(scene.program, _SPARSE, "sparse"))
    process = scene.stack.enter_context(procvm.open(target.pid))
    places = [target.address + k * 4 * _GIB + 12288 for k in range(_USED // _STRIDE)]
    data = bytes(range(1, 256)) * (_STRIDE // 255 + 1)
    for place in places:
        process.vm.write_bytes(place, data[:_STRIDE])
    return target, process, places


def _snapshots(scene: Scene) -> list[Contender]:
    target, process, places = _sparse(scene)
    everything = [(target.address, target.address + _SPARSE)]
    buffers = [bytearray(_STRIDE) for _ in places]
    rival = Rival(scene.library, target.pid)
    reads = [
        rival.run("readv_raw", place, (ctypes.c_char * _STRIDE).from_buffer(buffer), _STRIDE, 0)
        for place, buffer in zip(places, buffers, strict=True)
    ]

    def by_c(times: int) -> float:
        return sum(read(1) for _ in range(times) for read in reads)

    def read() -> None:
        for place, buffer in zip(places, buffers, strict=True):
            process.vm.read_into(place, buffer)

    path = _folder(scene, _MEMORY) / "core"
    return [
        Contender(_C, by_c, 1),
        Contender(_READ, _clocked(read), 1),
        Contender(_SNAPSHOT, _clocked(lambda: process.snapshot(everything)), 1),
        Contender(_SAVE, _clocked(lambda: process.save(path, everything)), 1),
    ]


def _kib(pid: int, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(field + ":")[2].split()[0])


def _peak(target: Target, path: Path, what: str) -> int:
    command = [sys.executable, "-c", _PEAK, str(_HERE), str(target.pid), str(target.address)]
    return int(subprocess.check_output([*command, str(target.address + _SPARSE), str(path), what]))


def _snapshot_memory(scene: Scene) -> list[Table]:
    target, process, _ = _sparse(scene)
    path = _folder(scene) / "core"
    tables = _kib(target.pid, "VmPTE")
    times = _peak(target, path, "snapshot") / _USED
    peak = _peak(target, path, "save") / _MIB
    grown = _kib(target.pid, "VmPTE") - tables
    used = path.stat().st_blocks * 512 / _USED
    process.close()
    return [
        [
            ("what it takes besides", "", "asked for"),
            ("the target's page tables grow by", f"{grown} KiB", _asked("<= 1 MiB", grown <= 1024)),
            ("the tool's memory, x what was kept", f"{times:.3f}", _asked("<= 1.1", times <= 1.1)),
            ("the same, straight to a file", f"{peak:.1f} MiB", _asked("<= 64 MiB", peak <= 64)),
            ("the file on the disk, x what was kept", f"{used:.3f}", ""),
        ]
    ]


def _asked(text: str, met: bool) -> str:
    return f"{text}: {verdict(met)}"


def _kept(scene: Scene, n: int) -> tuple[Target, procvm.Process, procvm.Snapshot]:
    target = scene.stack.enter_context(Target(scene.program, n))
    process = scene.stack.enter_context(procvm.open(target.pid))
    snapshot = process.snapshot([(target.address, target.address + n)])
    return target, process, scene.stack.enter_context(snapshot)


def _diffs(scene: Scene) -> list[Contender]:
    target, process, first = _kept(scene, _GIB)
    second = scene.stack.enter_context(process.snapshot([(target.address, target.address + _GIB)]))
    memcmp: Any = ctypes.CDLL(None).memcmp
    memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    # Where both are kept, piece by piece.
    kept: list[Any] = [first.vm.memory, second.vm.memory]
    both = zip(kept[0].pieces(), kept[1].pieces(), strict=True)
    places = [(one.own.address, other.own.address, one.own.n) for one, other in both]

    def by_c(n: int) -> float:
        took = 0.0
        for _ in range(n):
            start = time.perf_counter_ns()
            # SAFETY: both snapshots keep their bytes until the group is over.
            if any(memcmp(*place) for place in places):
                raise RuntimeError("two snapshots of a target that sleeps differ")
            took += time.perf_counter_ns() - start
        return took

    return [
        Contender(_MEMCMP, by_c, 1),
        Contender(_DIFF, _clocked(lambda: first.diff(second)), 1),
        Contender(_DIFF_LIVE, _clocked(lambda: first.diff(process.vm)), 1),
    ]


def _restores(scene: Scene) -> list[Table]:
    target, process, snapshot = _kept(scene, 256 * _MIB)
    before = _written(snapshot)
    for k in range(256):
        process.vm.write_bytes(target.address + k * _MIB + 5, b"\x01\x02\x03"[k % 3 :][:1])
    written = snapshot.restore()
    return [
        [
            ("restore of 256 MiB, one byte in each MiB changed", "bytes", "asked for"),
            ("written", f"{written}", _asked("only what changed", written <= 256)),
            ("differences left", f"{_written(snapshot) - before}", ""),
        ]
    ]


def _written(snapshot: procvm.Snapshot) -> int:
    return sum(len(run.old) for run in snapshot.diff(snapshot))


def _cores(scene: Scene) -> list[Contender]:
    target, _, snapshot = _kept(scene, _GIB)
    path = _folder(scene) / "core"
    snapshot.save(path)
    core = scene.stack.enter_context(procvm.open_core(path))
    read_val, read_bytes, at = core.vm.read_val, core.vm.read_bytes, target.address + 4096

    def val(n: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(n):
            read_val(at, u64)
        return time.perf_counter_ns() - start

    def some(n: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(n):
            read_bytes(at, 64)
        return time.perf_counter_ns() - start

    return [
        Contender(_OPEN, _clocked(lambda: procvm.open_core(path)), 20),
        Contender(_READ_VAL, val, 100_000),
        Contender(_READ_BYTES, some, 100_000),
    ]


_FIRST = """
import sys, time, procvm
with procvm.open(int(sys.argv[1])) as process:
    start = time.perf_counter_ns()
    process.symbol("libc.so.6!environ")
    process.symbol("main")
    print(time.perf_counter_ns() - start)
"""


def _symbols(scene: Scene) -> list[Contender]:
    process, target = scene.process, scene.target
    process.symbol("libc.so.6!environ")  # the first time is another contender
    symbol = process.symbol

    def first(n: int) -> float:
        command = [sys.executable, "-c", _FIRST, str(target.pid)]
        return sum(int(subprocess.check_output(command)) for _ in range(n))

    def again(n: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(n):
            symbol("libc.so.6!environ")
        return time.perf_counter_ns() - start

    return [Contender(_SYMBOL, first, 1), Contender(_AGAIN, again, 100_000)]


def _within(name: str, text: str, ns: float) -> Goal:
    return Goal(text, lambda found: found.best(name) <= ns)


PAST = [
    Group(
        title="The past: a snapshot of 64 GiB, 256 MiB of which are in use",
        text=(
            "A snapshot keeps the bytes in memory of its own, whose pages the kernel has to make "
            "first; `save` copies them a second time, to a file. Untouched pages are found by "
            "PAGEMAP_SCAN and left out."
        ),
        contenders=_snapshots,
        unit="ms",
        rounds=5,
        goals={_SNAPSHOT: [at_most(_SNAPSHOT, _C, 3)]},
        tables=_snapshot_memory,
    ),
    Group(
        title="The past: what differs in a GiB",
        text=(
            "Nothing does, so that memcmp has to look at all of it. `diff` compares blocks by "
            "memcmp as well, and looks closer with numpy where one differs; of a live process the "
            "bytes have to be read first."
        ),
        contenders=_diffs,
        unit="ms",
        rounds=5,
        goals={_DIFF: [at_most(_DIFF, _MEMCMP, 2)]},
        tables=_restores,
    ),
    Group(
        title="The past: a core file of a GiB",
        text="It is read by pread where it is asked for; to open it is to read its headers.",
        contenders=_cores,
        unit="us",
        goals={
            _OPEN: [_within(_OPEN, "<= 50 ms", 50e6)],
            _READ_VAL: [_within(_READ_VAL, "<= 2 us", 2e3)],
            _READ_BYTES: [_within(_READ_BYTES, "<= 2 us", 2e3)],
        },
    ),
    Group(
        title="The past: a symbol",
        text=(
            "At first the tables of all files up to the one that has it are read, in a tool that "
            "has just been started; then it is one question to the kernel, whether the same file "
            "is mapped there still."
        ),
        contenders=_symbols,
        unit="us",
        goals={
            _SYMBOL: [_within(_SYMBOL, "<= 1.5 s", 1.5e9)],
            _AGAIN: [_within(_AGAIN, "<= 5 us", 5e3)],
        },
    ),
]
