"""Saves a region of a process, shows what changes, and restores it.

Usage: checkpoint.py PID ADDRESS LENGTH  (each Enter restores the region)
"""

import sys

import procvm


def main(pid: int, where: str, length: int) -> None:
    """Restores the checkpoint at every line of input."""
    with procvm.attach(pid) as tracee:
        start = tracee.address(where)
        with tracee.snapshot([(start, start + length)]) as checkpoint:
            name = tracee.describe(start)
            print(f"kept {length} bytes at {name}; Enter restores them", flush=True)
            for _ in sys.stdin:
                with tracee.stopped():  # nothing changes between diff and restore
                    for run in checkpoint.diff(tracee.vm):
                        print(f"  {run.address:#x}: {run.new.hex(' ')} -> {run.old.hex(' ')}")
                    changed = checkpoint.restore()
                print(f"{changed} bytes restored", flush=True)


if len(sys.argv) != 4:
    sys.exit(__doc__)
try:
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3], 0))
except (procvm.ProcvmError, ValueError) as error:
    sys.exit(str(error))
