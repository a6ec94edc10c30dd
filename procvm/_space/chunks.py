"""Long ranges read chunk by chunk, up to the first byte that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

from procvm._space.access import Access
from procvm.errors import ProcvmError

__all__ = ["CHUNK_LEN", "read_chunks"]

CHUNK_LEN = 1 << 20
"""Bytes that are read at a time."""


def read_chunks(vm: Access, address: int, n: int, unit: int = 1) -> Iterator[bytes]:
    """Yields the `n` bytes at an address in chunks of whole units, read as they are asked for.

    Raises:
        PageFaultError: Raised after the bytes that could be read, which were yielded.
    """
    vm.reader(address, n)  # refuses a range that leaves user space before anything is read
    step = max(CHUNK_LEN // unit, 1) * unit
    done = 0
    while done < n:
        room = bytearray(min(step, n - done))
        try:
            vm.read_into(address + done, room)
        except ProcvmError as error:
            whole = error.copied_len // unit * unit
            if whole:
                yield bytes(room[:whole])
            error.copied_len += done
            raise
        yield bytes(room)
        done += len(room)
