"""The sections that a failed test's report gets: mappings and bytes around a fault, processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import cast

from procvm._base.text import printable
from procvm._hold.tracee import Tracee
from procvm._linux import procfs
from procvm._live.process import Process
from procvm._live.process import open as open_process
from procvm._space.maps import Maps
from procvm.errors import ClosedError, PageFaultError
from procvm.testing.hexdump import hexdump_readable
from procvm.testing.spawned import Spawned
from procvm.testing.spawner import open_spawners

__all__ = ["sections"]

_MOST_FAULTS = 3
_MOST_PROCESSES = 8
_MOST_ERRORS = 100
_MOST_FRAMES = 200
_MOST_DUMP = 4096
_NEIGHBOURS = 3
_LONGEST_LINE = 160

_STATES = {
    b"R": "running",
    b"S": "sleeping",
    b"D": "sleeping uninterruptibly",
    b"T": "stopped by a signal",
    b"t": "held",
    b"Z": "ended",
    b"X": "ended",
}


def sections(error: BaseException, dump_len: int) -> list[tuple[str, str]]:
    """Returns the title and the printable text of each section; does not raise.

    Args:
        error: The exception that made the test fail.
        dump_len: The number of bytes to show around a fault; 0 for none.
    """
    errors = _chain(error)
    faults = [one for one in errors if isinstance(one, PageFaultError)]
    processes = _processes(errors) if faults else {}
    found = [
        (
            f"procvm: page fault at {fault.address:#x} of process {fault.pid}",
            _text(_fault(fault, processes.get(fault.pid), dump_len)),
        )
        for fault in faults[:_MOST_FAULTS]
    ]
    states = _text(_all_states())
    if states:
        found.append(("procvm: processes of the test", states))
    return found


def _text(lines: Iterator[str]) -> str:
    """Returns the lines up to the first exception, which becomes the last line."""
    found: list[str] = []
    try:
        for line in lines:
            # A comprehension would lose the lines before the exception.
            found.append(  # noqa: PERF401
                line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 3] + "..."
            )
    except Exception as error:  # noqa: BLE001 (a failing report must not hide the test's failure)
        found.append(f"({type(error).__name__}: {printable(str(error))[:_LONGEST_LINE]})")
    return "\n".join(found)


def _chain(error: BaseException) -> list[BaseException]:
    """Returns an exception with its causes, contexts and members of groups."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left and len(found) < _MOST_ERRORS:
        one = left.pop(0)
        if one is None or any(one is other for other in found):
            continue
        found.append(one)
        if isinstance(one, BaseExceptionGroup):
            left += cast("BaseExceptionGroup[BaseException]", one).exceptions
        left += [one.__cause__, one.__context__]
    return found


def _processes(errors: list[BaseException]) -> dict[int, Process]:
    """Returns the open processes that a test knows, by their pids.

    A process with the same pid may be another one by now, whose memory must not be shown.
    """
    found: dict[int, Process] = {}
    for error in errors:
        traceback = error.__traceback__
        for _ in range(_MOST_FRAMES):
            if traceback is None:
                break
            for value in list(traceback.tb_frame.f_locals.values()):
                if isinstance(value, Process) and _is_open(value):
                    found[value.pid] = value
            traceback = traceback.tb_next
    for spawner in open_spawners():
        found.update((process.pid, process) for process in spawner.children if _is_open(process))
    return found


def _is_open(process: Process) -> bool:
    try:
        process.is_alive()
    except ClosedError:
        return False
    return True


def _fault(fault: PageFaultError, process: Process | None, dump_len: int) -> Iterator[str]:
    address = fault.address
    if fault.pid == os.getpid():
        yield "this is the test process itself"
    elif process is None:
        yield (
            "(no memory is shown: no fixture started the process, and no variable of the test "
            "has it open)"
        )
        return
    # With /proc/PID/mem: a read by process_vm_readv may wait for a userfaultfd handler for ever.
    with open_process(fault.pid, backend="mem") as look:
        # Asked after the open: an answer proves that `look` has the same program.
        maps = look.maps() if process is None else process.maps()
        yield from _around(maps, address)
        if dump_len:
            start, end = _window(address, dump_len, look.vm.end)
            yield f"what can be read from {start:#x} to {end:#x}:"
            yield from hexdump_readable(look.vm.read_bytes, start, end, lambda at: _name(maps, at))


def _around(maps: Maps, address: int) -> Iterator[str]:
    at = sum(vma.end <= address for vma in maps)
    inside = at < len(maps) and address in maps[at]
    yield f"mappings around {address:#x}:"
    first, last = max(at - _NEIGHBOURS, 0), at + _NEIGHBOURS + inside
    for k, vma in enumerate(maps[first:last], first):
        if k == at and not inside:
            yield f"> {address:#010x}  not mapped"
        yield f"{'>' if inside and k == at else ' '} {vma}"
    if at >= len(maps):
        yield f"> {address:#010x}  not mapped"


def _name(maps: Maps, address: int) -> str:
    for vma in maps:
        if vma.start <= address < vma.end:
            return printable(f"{vma.perms} {vma.kind}")
    return "not mapped"


def _window(address: int, dump_len: int, limit: int) -> tuple[int, int]:
    half = (min(dump_len, _MOST_DUMP) + 1) // 2
    middle = min(address, limit)
    start = max(middle - half, 0) & ~15
    return start, min((middle + half + 15) & ~15, limit)


def _all_states() -> Iterator[str]:
    processes = [process for spawner in open_spawners() for process in spawner.children]
    for process in processes[-_MOST_PROCESSES:]:
        yield _state(process)
    if len(processes) > _MOST_PROCESSES:
        yield f"and {len(processes) - _MOST_PROCESSES} more"


def _state(process: Tracee | Spawned) -> str:
    status = process.poll()
    # The process is not reaped yet, so its pid was not reused.
    stat = procfs.read_stat(process.pid) if status is None else None
    if stat is not None:
        state = _STATES.get(stat[2], printable(stat[2]))
        return f"{process.pid} ({printable(stat[1])}): {state}"
    if status is None or status >= 0:
        return f"{process.pid}: ended with status {status}"
    try:
        return f"{process.pid}: ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"{process.pid}: ended by signal {-status}"
