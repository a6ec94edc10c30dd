"""`MappedFile`: the file of a mapping, opened in a way that cannot hang the tool."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from io import FileIO
from typing import NamedTuple, final

from procvm._linux.libc import errno_error
from procvm._linux.mounts import Mount, read_mounts
from procvm._linux.own_means import require_own_means
from procvm._space.maps import Vma

__all__ = ["FileKey", "MappedFile", "SlowFiles", "key_of", "open_mapped"]

FileKey = tuple[int, int, int, int]
"""Device, inode, time of the last change in ns, and size: another one is another content."""

_WAIT_S = 2.0
_LONGEST_COPY = 1 << 30
_COPY = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
facts = os.fstat(fd)
left = facts.st_size
while left and left <= int(sys.argv[3]):
    done = os.sendfile(int(sys.argv[2]), fd, None, left)
    if not done:
        break
    left -= done
if not left:
    print(facts.st_mode, facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
"""


class MappedFile(NamedTuple):
    """A file that may be the one that was mapped.

    Attributes:
        stream: The file, open; the caller closes it.
        exact: Whether it is known to be; otherwise its build has to be compared.
        path: The path that it was opened by; empty if nothing may look there again.
        key: Tells this content of the file from a later one.
    """

    stream: FileIO
    exact: bool
    path: str
    key: FileKey


def key_of(path: str) -> FileKey | None:
    """Returns what tells the content of a file from a later one, or None if it has gone."""
    try:
        return _key(os.stat(path))
    except (OSError, ValueError):
        return None


def _key(facts: os.stat_result) -> FileKey:
    return facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size


def open_mapped(path: str, vma: Vma) -> MappedFile | None:
    """Opens what may be the file of a mapping, or returns None if there is none.

    Raises:
        VmError: This process lacks descriptors or memory.
    """
    try:
        # Before the open: opening a device may do something.
        if not path.startswith("/") or not stat.S_ISREG(os.stat(path).st_mode):
            return None
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        stream = _opened(os.open, path, flags)
    except OSError as error:
        require_own_means(error, path)
        return None
    except ValueError:
        return None
    return _found(stream, path, _key(os.fstat(stream.fileno())), vma, path)


def _opened(function: Callable[[str, int], int], name: str, flags: int) -> FileIO:
    # No bytecode runs between the two: a Ctrl-C there would leave the descriptor open.
    return next(map(FileIO, map(function, (name,), (flags,))))


def _found(stream: FileIO, path: str, key: FileKey, vma: Vma, again: str) -> MappedFile:
    # The kernel itself says which file a path in map_files leads to. btrfs and overlayfs show
    # another device in maps than stat(2) gives.
    same_dev = (os.major(key[0]), os.minor(key[0])) == vma.dev or "/map_files/" in path
    return MappedFile(stream, key[1] == vma.inode and same_dev, again, key)


@final
class SlowFiles:
    """Which files are served by a process (FUSE) that may never answer.

    A read, an open or a stat there can block for ever, beyond any signal. A helper process
    copies such a file, and the tool waits a bounded time for it.
    """

    def __init__(self, pid: int | str = "self") -> None:
        """Takes the process whose mounts count."""
        self._pid = pid
        self._mounts: list[Mount] = []
        self._known: dict[tuple[int, int], bool] = {}
        self._hung: set[tuple[int, int]] = set()

    def is_slow(self, vma: Vma) -> bool:
        """Returns whether the file of a mapping is on such a file system."""
        if not vma.inode:  # from a core file, which tells the path alone
            return self.is_slow_path(os.fsdecode(vma.plain_name))
        found = self._known.get(vma.dev)
        if found is None:
            self._mounts = read_mounts(self._pid)
            found = any(one.dev == vma.dev and _is_slow(one) for one in self._mounts)
            self._known[vma.dev] = found
        return found

    def is_slow_path(self, path: str | bytes) -> bool:
        """Returns whether a path leads to such a file system, as far as its text tells."""
        path = os.fsdecode(path)
        self._mounts = self._mounts or read_mounts(self._pid)
        best: Mount | None = None
        for one in self._mounts:
            inside = path == one.point or path.startswith(one.point.rstrip("/") + "/")
            if inside and (best is None or len(one.point) >= len(best.point)):
                best = one
        return best is not None and _is_slow(best)

    def copy(self, path: str, vma: Vma) -> MappedFile | None:
        """Returns a copy of the file of a mapping, or None if it does not come in time.

        Raises:
            VmError: This process lacks descriptors, memory or processes for the copy.
        """
        if vma.dev in self._hung or not path.startswith("/") or not sys.executable:
            return None
        try:
            stream = _opened(os.memfd_create, "procvm-copy", os.MFD_CLOEXEC)
            facts = _copied(path, stream.fileno())
        except OSError as error:
            raise errno_error(error.errno or 0, f"copying {path}", pid=os.getpid()) from None
        if facts is None:
            self._hung.add(vma.dev)
        elif facts and stat.S_ISREG(facts[0]):
            dev, inode, changed_ns, size = facts[1:]
            stream.seek(0)  # the helper shares the offset
            return _found(stream, path, (dev, inode, changed_ns, size), vma, "")
        stream.close()
        return None


def _is_slow(mount: Mount) -> bool:
    return mount.kind in ("fuse", "fuseblk") or mount.kind.startswith("fuse.")


# Helpers that a signal cannot end, since they wait for the server of a file system.
_left: list[subprocess.Popen[bytes]] = []


def _copied(path: str, to_fd: int) -> list[int] | None:
    """Copies a file by a helper; returns its facts, nothing if it cannot be read, None if late."""
    _left[:] = [one for one in _left if one.poll() is None]
    helper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _COPY, path, str(to_fd), str(_LONGEST_COPY)],
        pass_fds=[to_fd],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        said, _ = helper.communicate(timeout=_WAIT_S)
    except subprocess.TimeoutExpired:
        helper.kill()
        if helper.stdout is not None:
            helper.stdout.close()
        _left.append(helper)
        return None
    except BaseException:
        helper.kill()
        _left.append(helper)
        raise
    return [int(word) for word in said.split()]
