"""Identifies a process in terms that another process of the same machine can check."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from procvm._base.fd import Fd
from procvm._linux import procfs
from procvm._linux.access import open_error
from procvm._linux.libc import same_memory
from procvm._live.opening import open_pidfd
from procvm.errors import NoSuchProcessError, ProcessExitedError, UnsupportedError

__all__ = ["Identity", "identity_of", "is_shared", "require_same"]

_PARENT, _START_TIME = 3, 21  # proc_pid_stat(5), fields 4 and 22
_A_MOMENT = 0.002


class Identity(NamedTuple):
    """Tells one process from all others of this machine.

    Attributes:
        pid: The pid, in the pid namespace of the tool.
        boot: The kernel's boot_id.
        namespace: The inode of the tool's pid namespace.
        inode: The inode of the pidfd, which no other process gets before the next boot; 0 before
            Linux 6.9, where all pidfds have the same inode.
        start: The start time, in clock ticks after the boot; -1 if it is not known.
    """

    pid: int
    boot: str
    namespace: int
    inode: int
    start: int


def identity_of(pid: int, pidfd: int) -> Identity | None:
    """Returns the identity of the process of a pidfd, or None if /proc does not tell it.

    The start time is read by pid, so the caller has to check *afterwards* that the process has
    not ended. The function waits until the clock tick of the start is over, so that a process
    that gets the pid later has a later start time.

    Raises:
        VmError: This process lacks descriptors or memory.
    """
    try:
        inode = _inode_of(pidfd)
    except OSError as error:
        raise open_error(pid, error) from None
    start = _start_of(pid)
    if start is None and not inode:
        return None
    while start is not None and not inode and _now() <= start:
        time.sleep(_A_MOMENT)
    boot, namespace = _here()
    return Identity(pid, boot, namespace, inode, -1 if start is None else start)


def require_same(known: Identity) -> None:
    """Raises unless the process that has the pid now is the identified one.

    Raises:
        ProcessExitedError: The process has ended, even if another process has its pid now.
        UnsupportedError: The pid belongs to another pid namespace.
        VmError: This process lacks descriptors or memory.
    """
    pid = known.pid
    boot, namespace = _here()
    if known.boot != boot:
        raise ProcessExitedError(
            f"process {pid} was opened on another machine, or before the last boot of this one",
            pid=pid,
        )
    if known.namespace != namespace:
        raise UnsupportedError(
            f"cannot open process {pid} again: it was opened in another pid namespace, where the "
            "pid means another process; unpickle it in a process of the same pid namespace"
        )
    try:
        with open_pidfd(pid) as pidfd:
            inode = _inode_of(pidfd.number)
    except NoSuchProcessError:
        raise ProcessExitedError(f"process {pid} has ended", pid=pid) from None
    except OSError as error:
        raise open_error(pid, error) from None
    same = inode == known.inode if inode and known.inode else _start_of(pid) == known.start
    if not same:
        raise ProcessExitedError(
            f"process {pid} has ended, and another process has its pid now", pid=pid
        )


def _here() -> tuple[str, int]:
    return (
        procfs.read_text("/proc/sys/kernel/random/boot_id") or "",
        os.stat("/proc/self/ns/pid").st_ino,
    )


def _inode_of(pidfd: int) -> int:
    """Returns the inode of a pidfd; 0 where it is the anonymous inode that all share."""
    status = os.fstat(pidfd)
    with Fd.of(os.eventfd, 0, os.EFD_CLOEXEC) as anonymous:
        return 0 if status.st_dev == os.fstat(anonymous.number).st_dev else status.st_ino


def _start_of(pid: int) -> int | None:
    stat = procfs.read_stat(pid)
    return None if stat is None else int(stat[_START_TIME])


def _now() -> int:
    """Returns the start time that a process gets if it starts now, in clock ticks."""
    ticks = os.sysconf("SC_CLK_TCK")
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * ticks // 1_000_000_000


_NEAR = 32
_MOST_CHILDREN = 32


def is_shared(pid: int) -> bool:
    """Returns whether another process probably runs in the same address space.

    It asks about the parent, at most 32 children of the leader, and the 64 nearest pids. To ask
    about all processes of a large machine would take milliseconds. The answer is True where the
    kernel does not tell.
    """
    task = procfs.task_with_memory(pid)
    if not same_memory(task, task):
        return True
    stat = procfs.read_stat(pid)
    parent = [] if stat is None else [int(stat[_PARENT])]
    others = {*parent, *procfs.children(pid, [pid])[:_MOST_CHILDREN]}
    others.update(range(max(pid - _NEAR, 1), pid + _NEAR + 1))
    others.difference_update((0, pid, *procfs.thread_ids(pid)))
    return any(same_memory(task, other) for other in others)
