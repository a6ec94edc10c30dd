"""One peer library, with a child of its own: run as ``peers.py JOB NAME PID ADDRESS``.

Each is a process by itself: some of them trace the child, and none of their code
belongs into the process that measures procvm. Told "8 N" or "4096 N" on
stdin, it does its job N times with that many bytes and answers the nanoseconds
that took. The job is to ``read``, or to ``attach``: to stop the child, read
a word, and let go of it.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["NAMES", "TRACERS"]

Read = Callable[[int], Any]


def _ptrace(pid: int) -> tuple[Read, Read]:
    from ptrace.debugger import PtraceDebugger  # noqa: PLC0415

    global _debugger  # noqa: PLW0603  (it lets go of the child when it dies)
    _debugger = PtraceDebugger()
    process = _debugger.addProcess(pid, False)
    return process.readWord, lambda address: process.readBytes(address, 4096)


def _drgn(pid: int) -> tuple[Read, Read]:
    import drgn  # noqa: PLC0415

    program = drgn.Program()
    program.set_pid(pid)
    return program.read_u64, lambda address: program.read(address, 4096)


def _py_memory_editor(pid: int) -> tuple[Read, Read]:
    from PyMemoryEditor import OpenProcess  # noqa: PLC0415

    process = OpenProcess(pid=pid)
    buffer = bytearray(4096)
    return (
        lambda address: process.read_process_memory(address, int, 8),
        lambda address: process.read_process_memory_into(address, buffer),
    )


def _mem_edit(pid: int) -> tuple[Read, Read]:
    process = import_module("mem_edit").Process(pid)  # it has no types
    word = ctypes.c_uint64()
    page = (ctypes.c_char * 4096)()
    return (
        lambda address: process.read_memory(address, word).value,
        lambda address: process.read_memory(address, page),
    )


def _attach_by_ptrace(pid: int) -> Read:
    from ptrace.debugger import PtraceDebugger  # noqa: PLC0415

    debugger = PtraceDebugger()

    def once(address: int) -> int:
        process = debugger.addProcess(pid, False)
        word: int = process.readWord(address)
        process.detach()
        return word

    return once


def _attach_by_libdebug(pid: int) -> Read:
    import libdebug  # noqa: PLC0415

    debugger = libdebug.debugger()

    def once(address: int) -> bytes:
        debugger.attach(pid)
        word: bytes = debugger.memory[address, 8, "absolute"]
        debugger.detach()
        return word

    return once


_debugger: Any = None
_PEERS = {
    "python-ptrace": _ptrace,
    "drgn": _drgn,
    "PyMemoryEditor": _py_memory_editor,
    "mem_edit": _mem_edit,
}
NAMES = tuple(_PEERS)
_TRACERS = {"python-ptrace": _attach_by_ptrace, "libdebug": _attach_by_libdebug}
TRACERS = tuple(_TRACERS)


def _job(job: str, name: str, pid: int) -> tuple[Read, Read]:
    """Returns what is done with 8 bytes, and with 4096."""
    if job == "read":
        return _PEERS[name](pid)
    once = _TRACERS[name](pid)
    return once, once


def _main() -> None:
    job, name, pid, address = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
    try:
        read_word, read_page = _job(job, name, pid)
        read_word(address)
        read_page(address)
    except Exception as error:  # noqa: BLE001  (whatever a peer raises is why it does not run)
        print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)
        return
    print("ready", flush=True)
    gc.disable()
    for line in sys.stdin:
        size, n = map(int, line.split())
        read = read_word if size == 8 else read_page
        # As procvm reads them: word after word, and the same page over and over.
        places = range(address, address + n * 8, 8) if size == 8 else itertools.repeat(address, n)
        start = time.perf_counter_ns()
        for place in places:
            read(place)
        print(time.perf_counter_ns() - start, flush=True)


if __name__ == "__main__":
    _main()
