"""Saves a core file of each process of a group, and prints the rate of each worker.

Usage: save_group.py FOLDER PID...
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import procvm


def save(pid: int, folder: Path) -> tuple[int, int, int, float, str]:
    """Saves one process; an error is part of the row, as the process may have ended."""
    kept, told, begun = 0, "", time.perf_counter()
    try:
        with procvm.open(pid) as process, process.snapshot() as snapshot:
            snapshot.save(folder / f"{pid}.core")
            kept = snapshot.kept_len
    except procvm.ProcvmError as error:
        told = f"{type(error).__name__}: {error}"
    return pid, os.getpid(), kept, time.perf_counter() - begun, told


def main(folder: Path, pids: list[int]) -> None:
    """Prints a row for each process as soon as it is saved, then a row for each worker."""
    sizes: dict[int, int] = {}
    seconds: dict[int, float] = {}
    with ProcessPoolExecutor() as pool:
        for future in as_completed([pool.submit(save, pid, folder) for pid in pids]):
            pid, worker, size, took, told = future.result()
            print(f"{pid:>8} {size / 2**20:>9.1f} MiB  {told}".rstrip())
            sizes[worker] = sizes.get(worker, 0) + size
            seconds[worker] = seconds.get(worker, 0.0) + took
    for worker, size in sizes.items():
        print(f"worker {worker}: {size / 2**20 / seconds[worker]:.0f} MiB/s")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
