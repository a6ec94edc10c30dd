"""Prints all text on the heap of a process: what strings(1) does for a file.

Usage: heap_strings.py PID [SHORTEST]
"""

import re
import sys

import procvm


def main(pid: int, shortest: int = 6) -> None:
    """Prints the address and the text of each string."""
    printable = re.compile(rb"[\x20-\x7e]{%d,}" % shortest)
    with procvm.open(pid) as process:
        count = 0
        for vma in process.maps().filter(kind=procvm.Kind.HEAP):
            # Without the printable range, escape sequences could reach the terminal.
            for found in printable.finditer(process.vm.read_bytes(vma.start, vma.size)):
                print(f"{vma.start + found.start():#14x}  {found[0].decode('ascii')}")
                count += 1
        print(f"{count} strings of {shortest} or more")


if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
try:
    main(*map(int, sys.argv[1:]))
except (procvm.ProcvmError, ValueError) as error:
    sys.exit(str(error))
