"""A word that the kernel changes when a thread ends, however it ends.

Before the kernel detaches the tasks of a thread that ends, it goes through the thread's list of
robust futexes and marks each that the thread owns. The tool maps the same word, so that it learns
the end of a hold without a system call.
"""

from __future__ import annotations

import ctypes
import os

from procvm._base.c_library import system_call
from procvm._local.buffers import Scratch

__all__ = ["own_futex"]

_SET_ROBUST_LIST = {"x86_64": 273, "aarch64": 99, "riscv64": 99}
_WORD = 8
_HEAD_LEN = 3 * _WORD


def own_futex(address: int) -> Scratch | None:
    """Makes the kernel look at the futex at `address` when the calling thread ends.

    The list that the C library made for the thread is given up: nothing in the
    tracer takes a robust mutex.

    Returns:
        The list, to be kept for as long as the thread lives; None where the
        kernel does not take one.

    Source:
        set_robust_list(2); the kernel's ``Documentation/locking/robust-futexes.rst``.
    """
    number = _SET_ROBUST_LIST.get(os.uname().machine)
    if number is None:
        return None
    room = Scratch(4 * _WORD)
    head, node = room.address, room.address + _HEAD_LEN
    words = room.view.cast("Q")
    # The head (first node, offset from a node to its futex, none pending), and one node.
    words[0], words[1], words[2], words[3] = node, (address - node) % (1 << 64), 0, head
    # SAFETY: the caller keeps `room` for as long as the thread lives.
    failed = system_call()(ctypes.c_long(number), ctypes.c_void_p(head), ctypes.c_size_t(_HEAD_LEN))
    return None if failed else room
