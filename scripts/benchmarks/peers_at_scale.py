"""A peer library at a large job: run as ``peers_at_scale.py JOB NAME PID ADDRESS``.

As peers.py, but a job is told on stdin with what it needs, and answered by the
nanoseconds it took and what came of it, which whoever asked compares. The job
is to ``gather``: told the path of a file of addresses; to ``walk`` a list: told
where it begins and how many nodes to look at; or to ``search``: told the first
address, the length and what for.
"""

from __future__ import annotations

import gc
import sys
import time
from array import array
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["SEARCHERS"]

Job = Callable[..., int]


def _program(pid: int) -> Any:
    import drgn  # noqa: PLC0415

    program = drgn.Program()
    program.set_pid(pid)
    return program


def _gather_by_drgn(pid: int) -> Callable[[str], Job]:
    read_u64 = _program(pid).read_u64

    def prepared(path: str) -> Job:
        addresses = array("Q", Path(path).read_bytes())

        def gather() -> int:
            values: list[int] = [read_u64(address) for address in addresses]
            return values[-1]

        return gather

    return prepared


def _walk_by_drgn(pid: int) -> Callable[[str, str], Job]:
    read_u64 = _program(pid).read_u64

    def prepared(start: str, most: str) -> Job:
        def walk() -> int:
            at, total = int(start), 0
            for _ in range(int(most)):
                total += read_u64(at + 8)
                at = read_u64(at)
            return total

        return walk

    return prepared


def _search_by_py_memory_editor(pid: int) -> Callable[..., Job]:
    from PyMemoryEditor import OpenProcess  # noqa: PLC0415

    process = OpenProcess(pid=pid)

    def prepared(address: str, n: str, how: str, what: str) -> Job:
        first, size = int(address), int(n)
        here = [
            region
            for region in process.snapshot_memory_regions()
            if region.address <= first < region.address + region.size
        ]
        here = [type(here[0])(first, size, here[0].struct, is_readable=True)]
        data = bytes.fromhex(what.replace("?", "0"))
        if how == "pattern":
            pattern = " ".join(
                "?" if "?" in what[k : k + 2] else what[k : k + 2] for k in range(0, len(what), 2)
            )
            return lambda: len(list(process.search_by_pattern(pattern, memory_regions=here)))
        if how == "aligned":
            value = int.from_bytes(data, sys.byteorder, signed=True)
            return lambda: len(
                list(process.search_by_value(int, len(data), value, memory_regions=here))
            )
        return lambda: len(
            list(process.search_by_value(bytes, len(data), data, memory_regions=here))
        )

    return prepared


def _search_by_aobscanfast(pid: int) -> Callable[..., Job]:
    scanner = import_module("aobscanfast").AobScanner(pid)  # it has no types

    def prepared(address: str, n: str, how: str, what: str) -> Job:
        del how  # it finds any pattern of whole bytes, at any place
        bytes_of_it = [what[k : k + 2] for k in range(0, len(what), 2)]
        pattern = " ".join("??" if "?" in byte else byte for byte in bytes_of_it)
        first, last = int(address), int(address) + int(n)
        return lambda: len(scanner.scan(pattern, first, last))

    return prepared


_JOBS: dict[str, dict[str, Callable[[int], Callable[..., Job]]]] = {
    "gather": {"drgn": _gather_by_drgn},
    "walk": {"drgn": _walk_by_drgn},
    "search": {
        "PyMemoryEditor": _search_by_py_memory_editor,
        "aobscanfast": _search_by_aobscanfast,
    },
}
SEARCHERS = tuple(_JOBS["search"])


def _main() -> None:
    job, name, pid = *sys.argv[1:3], int(sys.argv[3])
    try:
        prepare = _JOBS[job][name](pid)
    except Exception as error:  # noqa: BLE001  (whatever a peer raises is why it does not run)
        print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)
        return
    print("ready", flush=True)
    gc.disable()
    for line in sys.stdin:
        work = prepare(*line.split())
        start = time.perf_counter_ns()
        found = work()
        print(time.perf_counter_ns() - start, found, flush=True)


if __name__ == "__main__":
    _main()
