"""Much memory at once: by several threads, or as a stream."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable
from typing import Any

from procvm._base.address import PAGE_SIZE
from procvm._base.atomic_file import new_file
from procvm._local.buffers import Scratch, fill_zeros
from procvm._mm.extent import Content
from procvm._mm.memory import Memory, UserMemory
from procvm._space.walk import Part, parts
from procvm.errors import ProcvmError

__all__ = ["copy_to", "read_by_threads"]

_WORTH = 1 << 21
"""Bytes below which a thread costs more than it brings."""

_CHUNK_LEN = 1 << 20


def read_by_threads(memory: Memory, address: int, own_address: int, n: int, threads: int) -> None:
    """Reads as `Memory.read` does, in as many parts at a time.

    Raises:
        ProcvmError: `copied_len` bytes did arrive before the first that did not;
            of those behind it some may have.
    """
    parts = max(min(threads, n // _WORTH), 1)
    part_len = -(-n // parts // PAGE_SIZE) * PAGE_SIZE
    errors: list[tuple[int, BaseException]] = []
    gate = threading.Condition()
    waiting = set(range(part_len, n, part_len))  # parts that no thread has begun
    nr_begun = 0

    def read(done: int) -> None:
        try:
            memory.read(address + done, own_address + done, min(part_len, n - done))
        except BaseException as error:  # noqa: BLE001 (it is raised by the thread that asked)
            errors.append((done, error))

    def read_part(done: int) -> None:
        nonlocal nr_begun
        with gate:
            if done not in waiting:
                return  # given up before it began
            waiting.remove(done)
            nr_begun += 1
        read(done)
        with gate:
            nr_begun -= 1
            gate.notify_all()

    # A thread that is left would write to the caller's buffer later. Joins do not prevent it: a
    # thread whose start was interrupted cannot be joined, and may begin all the same.
    try:
        for done in sorted(waiting):
            threading.Thread(
                target=read_part, args=(done,), name="procvm-read", daemon=True
            ).start()
        read(0)
        with gate:
            gate.wait_for(lambda: not waiting and not nr_begun)
    except BaseException:
        _give_up(gate, waiting, lambda: nr_begun)
        raise
    if errors:
        done, error = min(errors, key=lambda one: one[0])
        if isinstance(error, ProcvmError):
            error.copied_len += done
        errors.clear()
        try:
            raise error
        finally:
            # It and this frame would keep each other, and a target's descriptors, until the
            # collector runs.
            del error


def _give_up(gate: threading.Condition, waiting: set[int], nr_begun: Callable[[], int]) -> None:
    """Returns when no part is read any more, however often it is interrupted."""
    while True:
        try:
            with gate:
                waiting.clear()
                gate.wait_for(lambda: not nr_begun())
        except KeyboardInterrupt:
            continue  # one was raised already
        return


def copy_to(
    memory: UserMemory,
    dest: Any,
    ranges: list[tuple[int, int]],
    progress: Callable[[int, int], object] | None,
) -> int:
    """Streams ranges to a file; see `VmSpace.copy_to`."""
    if not hasattr(dest, "write"):
        with new_file(dest) as fd, open(fd, "wb", buffering=0, closefd=False) as file:
            return copy_to(memory, file, ranges, progress)
    total = sum(end - start for start, end in ranges)
    room = Scratch(min(_CHUNK_LEN, total))
    done = 0
    for part in parts(memory, ranges, _CHUNK_LEN):
        if part.content is Content.HOLE:
            raise memory.hole(part.start, done)
        try:
            _read_part(memory, part, room)
        except ProcvmError as error:
            _write(dest, room.view[: error.copied_len])
            error.copied_len += done
            raise
        # Zeros are one part, however long they are.
        for at in range(part.start, part.end, _CHUNK_LEN):
            n = min(part.end - at, _CHUNK_LEN)
            _write(dest, room.view[:n])
            done += n
            if progress is not None:
                progress(done, total)
    return done


def _read_part(memory: UserMemory, part: Part, room: Scratch) -> None:
    """Reads a part of a walk, or fills the room with zeros where it is zeros."""
    if part.content is Content.ZEROS:
        fill_zeros(room.address, len(room.view))
    for extent in part.extents:
        before = extent.start - part.start
        try:
            source = extent.source or memory
            source.read(extent.start, room.address + before, extent.end - extent.start)
        except ProcvmError as error:
            error.copied_len += before
            raise


def _write(file: Any, data: memoryview) -> None:
    """Writes all of `data`, also to a file that takes less at a time."""
    while len(data):
        taken = file.write(data)
        if taken is None and isinstance(file, io.RawIOBase):
            # It does not wait, and has no room now.
            raise BlockingIOError(errno.EAGAIN, "the file takes no more; give one that waits")
        # Another one without a count took everything.
        data = data[len(data) if taken is None else taken :]
