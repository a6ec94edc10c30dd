"""Prints a linked list of C structures as a table, while the program is stopped.

Usage: walk_list.py PID ADDRESS-OF-HEAD  (for targets/inventory.c: walk_list.py PID g_items)
"""

import ctypes
import sys

import procvm


class Item(ctypes.Structure):
    """``struct item`` of the program; its pointers are numbers here."""

    _fields_ = (
        ("next", ctypes.c_uint64),
        ("id", ctypes.c_uint32),
        ("weight", ctypes.c_float),
        ("name", ctypes.c_char * 16),
    )


def main(pid: int, head: str) -> None:
    """Walks from the pointer that `head` names to the end, or until the list repeats."""
    with procvm.attach(pid) as tracee, tracee.stopped() as held:
        address, seen = held.vm.read_val(tracee.address(head), procvm.usize), set[int]()
        print(f"{'address':>14}  {'id':>5}  {'weight':>7}  name")
        while address and address not in seen:
            seen.add(address)
            item = held.vm.read_val(address, Item)
            print(f"{address:#14x}  {item.id:5}  {item.weight:7.2f}  {item.name!r}")
            address = item.next
        print(f"{len(seen)} items" + (", and round again" if address else ""))


if len(sys.argv) != 3:
    sys.exit(__doc__)
try:
    main(int(sys.argv[1]), sys.argv[2])
except (procvm.ProcvmError, ValueError) as error:
    sys.exit(str(error))
