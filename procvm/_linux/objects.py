"""Opens the object of a mapping: a file, a memfd, or shared memory without a name."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Generator, Iterator

from procvm._base.fd import Fd
from procvm._linux import procfs
from procvm._linux.mounts import kinds_by_device
from procvm._linux.own_means import require_own_means
from procvm._linux.proc_maps import VmaEntry

__all__ = ["Objects", "open_object"]

_DELETED = b" (deleted)"
_IN_MEMORY = frozenset({"tmpfs", "hugetlbfs", "ramfs"})
_MEMORY_NAMES = (b"/memfd:", b"/SYSV", b"/dev/zero (deleted)", b"/anon_hugepage")


def open_object(pid: int, entry: VmaEntry, *, writable: bool = False) -> Iterator[Fd]:
    """Yields descriptors of a mapping's regular file, each checked by its device and inode.

    The links of /proc/PID/map_files need CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN. Without them
    the file is opened by its path, or by a descriptor of the process.

    Raises:
        VmError: This process lacks descriptors or memory.
    """
    flags = os.O_RDWR if writable else os.O_RDONLY
    for path in _paths(pid, entry):
        with _absent(path):
            # Checked before it is opened, since opening a device can have side effects.
            if _is_entry(os.stat(path), entry):
                # Without O_NONBLOCK a lease would block, and a fifo that has the name by now.
                fd = Fd.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
                if _is_entry(os.fstat(fd.number), entry):
                    yield fd


@contextlib.contextmanager
def _absent(path: str) -> Generator[None]:
    """Takes an OSError for "not here", unless this process lacks descriptors or memory."""
    try:
        yield
    except OSError as error:
        require_own_means(error, path)


def _is_entry(status: os.stat_result, entry: VmaEntry) -> bool:
    device = os.major(status.st_dev), os.minor(status.st_dev)
    return status.st_ino == entry.inode and device == entry.dev and stat.S_ISREG(status.st_mode)


def _paths(pid: int, entry: VmaEntry) -> Iterator[str]:
    yield f"/proc/{pid}/map_files/{entry.start:x}-{entry.end:x}"
    if entry.name.startswith(b"/") and not entry.name.endswith(_DELETED):
        yield f"/proc/{pid}/root{os.fsdecode(entry.name)}"
    folder = f"/proc/{pid}/fd"
    with _absent(folder):
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            with _absent(path):
                if os.stat(path).st_ino == entry.inode:
                    yield path


class Objects:
    """Opens the objects of one process's mappings, each once, for one walk."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._opened: dict[tuple[tuple[int, int], int], Fd | None] = {}
        self._kinds: dict[tuple[int, int], str] | None = None

    def open(self, entry: VmaEntry) -> Fd | None:
        """Returns the object of a mapping, or None if it is not to be reached.

        Raises:
            VmError: This process lacks descriptors or memory.
        """
        key = entry.dev, entry.inode
        if key not in self._opened:
            if len(self._opened) >= _MOST_OPEN:
                self._opened.clear()
            self._opened[key] = next(open_object(self._pid, entry), None)
        return self._opened[key]

    def is_in_memory(self, entry: VmaEntry) -> bool:
        """Returns whether the pages of a mapping's object have no copy on a disk.

        The kernel can drop a page of a file on a disk when memory is short. A page of a tmpfs, a
        memfd or hugetlbfs stays, and is charged to the target if the target allocates it.
        """
        if entry.name.startswith(_MEMORY_NAMES) or entry.dev == _shmem_device():
            return not self._is_device(entry)
        if self._kinds is None:
            text = procfs.read_bytes(f"/proc/{self._pid}/mountinfo") or b""
            self._kinds = kinds_by_device(text)
        return self._kinds.get(entry.dev) in _IN_MEMORY and not self._is_device(entry)

    def _is_device(self, entry: VmaEntry) -> bool:
        """Returns whether the mapping shows a device whose node lies in a tmpfs."""
        try:
            status = os.stat(f"/proc/{self._pid}/root{os.fsdecode(entry.name)}")
        except (OSError, ValueError):
            return False
        return status.st_ino == entry.inode and not stat.S_ISREG(status.st_mode)


_MOST_OPEN = 64


@functools.cache
def _shmem_device() -> tuple[int, int]:
    """Returns the device number of memfds and of shared memory without a file."""
    try:
        fd = Fd.of(os.memfd_create, "procvm", os.MFD_CLOEXEC)
    except OSError as error:
        require_own_means(error, "a memfd")  # and is asked again at the next call
        return (-1, -1)
    device = os.fstat(fd.number).st_dev
    return os.major(device), os.minor(device)
