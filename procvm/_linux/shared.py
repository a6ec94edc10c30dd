"""Our own mapping of an object that a target has mapped shared."""

from __future__ import annotations

import contextlib
import mmap
import os

from procvm._base.address import PAGE_SIZE
from procvm._linux.objects import open_object
from procvm._linux.proc_maps import VmaEntry
from procvm._local.buffers import Pin, pin
from procvm.errors import SharedMemoryError

__all__ = ["map_page"]


def map_page(pid: int, entry: VmaEntry, address: int, *, writable: bool) -> Pin:
    """Maps the page of the object that a shared mapping has at `address`.

    Only for a shared mapping: the link of a private one is the file itself, and
    writing that would write the file.

    Returns:
        The page, with what the mapping itself allows and no more.

    Raises:
        SharedMemoryError: The object can not be had, or ends before the page.
    """
    offset = entry.offset + (address - entry.start) // PAGE_SIZE * PAGE_SIZE
    prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    for fd in open_object(pid, entry, writable=writable):
        # A page behind the end of the object would kill us with SIGBUS.
        size = os.fstat(fd.number).st_size
        if offset + PAGE_SIZE <= -(-size // PAGE_SIZE) * PAGE_SIZE:
            with contextlib.suppress(OSError, ValueError):
                page = mmap.mmap(fd.number, PAGE_SIZE, mmap.MAP_SHARED, prot, offset=offset)
                return pin(page, writable=writable)
    raise SharedMemoryError(
        f"the memory at {address:#x} of process {pid} is shared, so that holding the process does "
        "not keep others from writing it, and the object behind it can not be mapped here: run "
        "the tool with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"
    )
