"""Shows which instructions of a running program write to a variable, without stopping it.

Usage: writers.py PID ADDRESS [WRITES]  (for targets/game.c: writers.py PID '*gold' 10)
"""

import sys
from collections import Counter

import procvm
from procvm import u32


def main(pid: int, where: str, writes: int = 10) -> None:
    """Counts the first `writes` writes by the instruction after each."""
    with procvm.open(pid) as process:
        address = process.address(where)
        found: Counter[str] = Counter()
        with process.trace_accesses(address, u32) as trace:
            print(f"who writes to {process.describe(address)}?", flush=True)
            for hit in trace:
                found[process.describe(hit.ip)] += 1
                if found.total() >= writes:
                    break
        for place, n in found.most_common():
            print(f"{n:>6} right before {place}")
        print(f"{trace.lost} came too fast")


if not 3 <= len(sys.argv) <= 4:
    sys.exit(__doc__)
try:
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
except (procvm.ProcvmError, ValueError) as error:
    sys.exit(str(error))
