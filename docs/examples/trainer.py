"""Finds where a game keeps a number that changes, and sets it.

Usage: trainer.py PID NEW-VALUE  (asks for what the game shows now, until one place is left)
"""

import sys

import procvm
from procvm import u32


def main(pid: int, new: int) -> None:
    """Drops places with each value that is entered, until one is left."""
    with procvm.open(pid) as process:
        print("what does the game show?", flush=True)
        writable = process.maps().filter(perms="rw")
        scan = process.vm.scan(u32, value=int(input()), ranges=writable)
        while len(scan) > 1:
            print(f"{len(scan)} places; let it change, what does it show now?", flush=True)
            scan = scan.refine(value=int(input()))
        if not len(scan):
            sys.exit("no place is left: it is kept in another way")
        (address,) = scan
        old = process.vm.read_val(address, u32)
        process.vm.write_val(address, u32, new)
        print(f"{process.describe(address)}: {old} -> {process.vm.read_val(address, u32)}")


if len(sys.argv) != 3:
    sys.exit(__doc__)
try:
    main(int(sys.argv[1]), int(sys.argv[2]))
except (procvm.ProcvmError, ValueError, EOFError) as error:
    sys.exit(str(error))
