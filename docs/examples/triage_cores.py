"""Sorts the core files of a folder by where they crashed, on all workers of a dask cluster.

Usage: triage_cores.py FOLDER [WORKERS]  (needs the package distributed)
"""

import os
import sys
import time
from collections import Counter
from pathlib import Path
from signal import Signals

from distributed import Client, as_completed

import procvm


def triage(path: str) -> tuple[str, int, float]:
    """Returns why and where a core file crashed; a file that cannot be read is a row, too."""
    begun = time.perf_counter()
    try:
        with procvm.open_core(path) as core:
            registers = core.registers()
            ip = registers.get("rip", registers.get("pc", 0))
            signal = Signals(core.signal).name if core.signal else "no signal"
            row = f"{signal} in {core.describe(ip)}"
    except (procvm.ProcvmError, OSError) as error:
        row = type(error).__name__
    return row, os.getpid(), time.perf_counter() - begun


def main(folder: str, workers: int) -> None:
    """Prints how many files crashed at each place, then the rate of each worker."""
    rows, files, seconds = Counter[str](), Counter[int](), dict[int, float]()
    with Client(n_workers=workers, threads_per_worker=1, dashboard_address=None) as client:
        futures = client.map(triage, sorted(map(str, Path(folder).iterdir())), pure=False)
        for _, (row, worker, took) in as_completed(futures, with_results=True):
            rows[row] += 1
            files[worker] += 1
            seconds[worker] = seconds.get(worker, 0.0) + took
    for row, count in rows.most_common():
        print(f"{count:>6}  {row}")
    for worker, count in files.items():
        print(f"worker {worker}: {count} files, {count / seconds[worker]:.0f} a second")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(sys.argv[1], int((sys.argv[2:] or ["2"])[0]))
