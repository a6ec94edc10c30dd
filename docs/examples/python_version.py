"""Reads which Python a process runs from its memory: the number, and the text of sys.version.

Usage: python_version.py PID
"""

import re
import sys

import procvm

TEXT = re.compile(rb"\d\.\d+\.\d+[^\0(]{0,20} \([^)\0]{4,80}\) ?\n?\[[^]\0]{3,80}\]")


def main(pid: int) -> None:
    """Prints both."""
    with procvm.open(pid) as process:
        # PY_VERSION_HEX of the interpreter itself, from Python 3.11 on: 0x030b07f0 is 3.11.7.
        address = process.symbol("Py_Version")
        number = process.vm.read_val(address, procvm.usize)
        major, minor, micro = (number >> shift & 0xFF for shift in (24, 16, 8))
        print(f"{process.describe(address)} is {number:#010x}: Python {major}.{minor}.{micro}")
        # Py_GetVersion makes the text once, in a static buffer: near the runtime's own data.
        maps, runtime = process.maps(), process.find_vma(process.symbol("_PyRuntime"))
        place = maps.index(runtime)
        for hit in process.vm.search(TEXT, ranges=maps[max(place - 1, 0) : place + 2]):
            text = process.vm.read_cstring(hit, 256)
            print(f"sys.version at {process.describe(hit)}: {text.decode(errors='replace')!r}")
            break
        else:
            print("no text of sys.version was found")


if len(sys.argv) != 2:
    sys.exit(__doc__)
try:
    main(int(sys.argv[1]))
except (procvm.ProcvmError, ValueError) as error:
    sys.exit(str(error))
