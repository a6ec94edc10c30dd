"""Asks a pidfd whether its process has ended, and how."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import time

from procvm._linux.libc import TRANSIENT
from procvm._linux.procfs import has_memory, read_stat
from procvm.errors import VmError

__all__ = ["ended", "exit_status", "has_other_memory"]

_TRIES = 100
_LOOKS = 8
_A_MOMENT = 0.001  # seconds
_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, the first published struct pidfd_info)
_INFO_LEN = 64
_INFO_EXIT = 1 << 3
_EXIT_CODE_AT = 60
_STAT_EXIT_CODE = 51


def ended(pidfd: int, timeout_ms: int | None = 0) -> bool:
    """Waits at most `timeout_ms` milliseconds; returns whether the process has ended.

    A zombie has ended. A timeout of None waits without a limit.

    Raises:
        VmError: The kernel does not tell.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    for tries in range(_TRIES):
        try:
            return bool(poll.poll(timeout_ms))
        except OSError as error:
            code = error.errno or errno.EIO
            if code not in TRANSIENT or tries == _TRIES - 1:
                raise VmError(
                    f"cannot find out whether a process has ended: {os.strerror(code)} "
                    f"[{errno.errorcode.get(code, code)}]"
                ) from None
    return False


def has_other_memory(pid: int, pidfd: int) -> bool:
    """Returns whether a process that left its address space has another one, after an exec.

    Takes up to 8 ms where the process is about to end. One look is not enough: while a thread
    execs, no thread may have memory for a moment, and a process that is killed has none before
    its pidfd tells that it has ended.

    Raises:
        VmError: The kernel does not tell whether the process has ended.
    """
    for _ in range(_LOOKS):
        if ended(pidfd):
            return False
        if has_memory(pid):
            # Without this, the memory of a process that got the pid later would count.
            return not ended(pidfd)
        time.sleep(_A_MOMENT)
    return False


def exit_status(fd: int, pid: int) -> int | None:
    """Returns the status of an ended process, as subprocess gives it; None if it is not known.

    A child of the tool is not reaped.

    Source:
        PIDFD_GET_INFO with PIDFD_INFO_EXIT (Linux 6.15); proc_pid_stat(5), exit_code.
    """
    try:
        found = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except OSError:  # not a child of the tool
        found = None
    if found is not None:
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    code = _code_of_reaped(fd)
    if code is None:
        # The process is not reaped yet, or the kernel is older. The stat of a zombie has the
        # status if the tool may trace it.
        try:
            stat = read_stat(pid)
        except VmError:  # no free descriptor; the process is reaped by now, or its status unknown
            stat = None
        if stat is not None and len(stat) > _STAT_EXIT_CODE and stat[2] == b"Z":
            code = int(stat[_STAT_EXIT_CODE])
        else:
            code = _code_of_reaped(fd)
    return None if code is None else os.waitstatus_to_exitcode(code)


def _code_of_reaped(fd: int) -> int | None:
    info = bytearray(_INFO_LEN)
    struct.pack_into("@Q", info, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(fd, _GET_INFO, info)
    except OSError:  # before Linux 6.15, or not reaped yet
        return None
    (mask,) = struct.unpack_from("@Q", info, 0)
    if not mask & _INFO_EXIT:
        return None
    (code,) = struct.unpack_from("@i", info, _EXIT_CODE_AT)
    return int(code)
