"""Searches a group of processes for a text, and prints the rate of each worker.

Usage: search_group.py TEXT PID...  (or search_group.py TEXT /sys/fs/cgroup/GROUP)
"""

import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import procvm


def look(pid: int, text: bytes) -> tuple[int, int, int, int, float, str]:
    """Searches one process; an error is part of the row, as the process may have ended."""
    hits, searched, told, begun = 0, [0], "", time.perf_counter()
    try:
        with procvm.open(pid) as process:
            found = process.vm.search(text, threads=1, progress=lambda n, _all: searched.append(n))
            hits = sum(1 for _ in found)
    except procvm.ProcvmError as error:
        told = f"{type(error).__name__}: {error}"
    return pid, os.getpid(), hits, searched[-1], time.perf_counter() - begun, told


def main(text: bytes, pids: list[int]) -> None:
    """Prints a row for each process as soon as it is searched, then a row for each worker."""
    sizes, seconds = Counter[int](), dict[int, float]()
    with ProcessPoolExecutor() as pool:
        for future in as_completed([pool.submit(look, pid, text) for pid in pids]):
            pid, worker, hits, size, took, told = future.result()
            print(f"{pid:>8} {hits:>6} hits {size / 2**20:>9.1f} MiB  {told}".rstrip())
            sizes[worker] += size
            seconds[worker] = seconds.get(worker, 0.0) + took
    for worker in sizes:
        print(f"worker {worker}: {sizes[worker] / 2**20 / seconds[worker]:.0f} MiB/s")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    group = Path(sys.argv[2], "cgroup.procs")
    words = group.read_text().split() if group.exists() else sys.argv[2:]
    main(os.fsencode(sys.argv[1]), [int(word) for word in words])
