"""Our own mapping of an object that a target has mapped shared."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator

from procvm.address import PAGE_SIZE
from procvm.errors import SharedMemoryError
from procvm.fds import Fd
from procvm.linux.procmap import VmaEntry
from procvm.own.buffers import Pin, pin

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
    for path in _links(pid, entry):
        try:
            file = Fd.open(path, os.O_RDWR if writable else os.O_RDONLY)
        except OSError:
            continue
        try:
            status = os.fstat(file.number)
            same = (
                status.st_ino == entry.inode
                and (
                    os.major(status.st_dev),
                    os.minor(status.st_dev),
                )
                == entry.dev
            )
            # A page behind the end of the object would kill us with SIGBUS.
            if same and offset + PAGE_SIZE <= -(-status.st_size // PAGE_SIZE) * PAGE_SIZE:
                page = mmap.mmap(file.number, PAGE_SIZE, mmap.MAP_SHARED, prot, offset=offset)
                return pin(page, writable=writable)
        except (OSError, ValueError):
            continue
        finally:
            file.close()
    raise SharedMemoryError(
        f"the memory at {address:#x} of process {pid} is shared, so that holding the process does "
        "not keep others from writing it, and the object behind it can not be mapped here: run "
        "the tool with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"
    )


def _links(pid: int, entry: VmaEntry) -> Iterator[str]:
    """Yields the paths in /proc that may lead to the object."""
    yield f"/proc/{pid}/map_files/{entry.start:x}-{entry.end:x}"
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{name}"
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == entry.inode:
                    yield path
