"""Follows a chain of pointers from a symbol: the same in every run, wherever things are loaded.

Usage: pointer_chain.py PID TYPE START OFFSET...  (pointer_chain.py 1234 i32 g_world 8 16)
"""

import re
import sys

import procvm


def main(pid: int, kind: str, start: str, *offsets: str) -> None:
    """Prints every step, and the number of type `kind` at the end of the chain."""
    pod = getattr(procvm, kind)
    with procvm.open(pid) as process:
        address = process.address(start)
        print(f"{start} is at {process.describe(address)} ({address:#x})")
        for offset in offsets:
            pointer = process.vm.read_val(address, procvm.usize)
            address = pointer + int(offset, 0)
            print(f"  points to {process.describe(pointer)}; + {offset} is {address:#x}")
        print(f"there is the {kind} {process.vm.read_val(address, pod)}")


if len(sys.argv) < 4 or not re.fullmatch("[ui](8|16|32|64|size)|f32|f64", sys.argv[2]):
    sys.exit(__doc__)
try:
    main(int(sys.argv[1]), *sys.argv[2:])
except (procvm.ProcvmError, ValueError) as error:
    sys.exit(str(error))
