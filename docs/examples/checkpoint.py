"""Keeps a region of a process as it is, shows what changes, and puts it back.

Usage: checkpoint.py PID ADDRESS LENGTH  (then Enter to go back to it, as often as you like)
"""

import sys

import procvm


def main(pid: int, where: str, length: int) -> None:
    """Goes back to the checkpoint at every line of input, until that ends."""
    with procvm.attach(pid) as tracee:
        start = tracee.address(where)
        with tracee.snapshot([(start, start + length)]) as checkpoint:
            print(f"kept {length} bytes at {tracee.describe(start)}; Enter goes back", flush=True)
            for _ in sys.stdin:
                with tracee.stopped():  # nothing changes between the look and the restoring
                    for run in checkpoint.diff(tracee.vm):
                        print(f"  {run.address:#x}: {run.new.hex(' ')} -> {run.old.hex(' ')}")
                    changed = checkpoint.restore()
                print(f"{changed} bytes put back", flush=True)


if len(sys.argv) != 4:
    sys.exit(__doc__)
try:
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3], 0))
except (procvm.ProcvmError, ValueError) as error:
    sys.exit(str(error))
