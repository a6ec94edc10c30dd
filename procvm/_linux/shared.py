"""Maps an object that a target has mapped shared into the tool's own memory."""

from __future__ import annotations

import mmap
import os

from procvm._base.address import PAGE_SIZE
from procvm._linux.objects import open_object
from procvm._linux.own_means import require_own_means
from procvm._linux.proc_maps import VmaEntry
from procvm._local.buffers import Pin, pin
from procvm.errors import SharedMemoryError

__all__ = ["map_page"]


def map_page(pid: int, entry: VmaEntry, address: int, *, writable: bool) -> Pin:
    """Maps the page of the object that a shared mapping has at `address`.

    Only for a shared mapping: a write to the object of a private mapping would change the file.

    Returns:
        The page; writable only if `writable`.

    Raises:
        SharedMemoryError: The object cannot be opened, or ends before the page.
        VmError: This process lacks descriptors or memory.
    """
    offset = entry.offset + (address - entry.start) // PAGE_SIZE * PAGE_SIZE
    prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    for fd in open_object(pid, entry, writable=writable):
        # An access to a page after the end of the object would end the tool by SIGBUS.
        size = os.fstat(fd.number).st_size
        if offset + PAGE_SIZE <= -(-size // PAGE_SIZE) * PAGE_SIZE:
            try:
                page = mmap.mmap(fd.number, PAGE_SIZE, mmap.MAP_SHARED, prot, offset=offset)
            except OSError as error:
                require_own_means(error, f"the page at {address:#x} of process {pid}")
            except ValueError:
                pass  # the object became shorter
            else:
                return pin(page, writable=writable)
    raise SharedMemoryError(
        f"cannot access the memory at {address:#x} of process {pid} atomically: it is shared, so "
        "other processes may write it during a hold, and the tool cannot map the object; run the "
        "tool with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"
    )
