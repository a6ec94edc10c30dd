"""Frees a lock whose owner is gone: a compare-and-exchange on a word of a hung program.

Usage: unlock.py PID ADDRESS [HELD [FREE]]  (for targets/hung.c: unlock.py PID g_lock)
"""

import sys

import procvm
from procvm import u32


def main(pid: int, where: str, held: int = 1, free: int = 0) -> None:
    """Stores `free` if the word still is `held`, while every thread is stopped."""
    with procvm.attach(pid) as tracee:
        address = tracee.address(where)
        name = tracee.describe(address)
        for thread in tracee.threads():
            print(f"thread {thread.tid} {thread.name!r} is in state {thread.state}")
        found, stored = tracee.vm.atomic_compare_exchange(address, u32, held, free)
        if not stored:
            sys.exit(f"{name} is {found}, not {held}: nothing was written")
        print(f"{name}: {held} -> {free}")


if not 3 <= len(sys.argv) <= 5:
    sys.exit(__doc__)
try:
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
except (procvm.ProcvmError, ValueError) as error:
    sys.exit(str(error))
