"""Draws how fast a counter of a running program counts.

Usage: watch_rate.py PID ADDRESS [SAMPLES [INTERVAL]]  (watch_rate.py 1234 g_ticks 20 0.5)
"""

import sys
import time

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

import procvm


def main(pid: int, where: str, samples: int = 10, interval: float = 0.2) -> None:
    """Prints the value, the counts per second and a bar for each sample."""
    console = Console(highlight=False, markup=False)
    with procvm.open(pid) as process:
        address = process.address(where)
        console.print(f"{process.describe(address)} of process {pid}, counts a second:")
        before, then, most = process.vm.read_val(address, procvm.u64), time.monotonic(), 1.0
        for _ in range(samples):
            time.sleep(interval)
            value, now = process.vm.read_val(address, procvm.u64), time.monotonic()
            rate = (value - before) / (now - then)
            most, before, then = max(most, rate), value, now
            row = Table.grid(padding=(0, 1), expand=True)
            row.add_row(f"{value:>12}", f"{rate:>10.0f}", Bar(most, 0, max(rate, 0), width=40))
            console.print(row)


if not 3 <= len(sys.argv) <= 5:
    sys.exit(__doc__)
try:
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:4]), *map(float, sys.argv[4:]))
except (procvm.ProcvmError, ValueError) as error:
    sys.exit(str(error))
