"""Opens the descriptors of one program in one process."""

from __future__ import annotations

import errno
import os
import time

from procvm._base.fd import Fd
from procvm._linux import access, procfs
from procvm._linux.pidfd import ended
from procvm._linux.proc_mem import ProcMem
from procvm._linux.process_vm import TOKEN_LEN
from procvm.errors import NoSuchProcessError, ProcessExecedError, ProcessExitedError

__all__ = ["open_address_space", "open_pidfd", "open_settled"]

_LOOKS = 4
_A_MOMENT = 0.001
_NAPS_FOR_EXEC = 20


def open_settled(pid: int, pidfd: Fd) -> tuple[ProcMem, int]:
    """Opens the address space of a process, with the address of its token, 0 if it has none.

    Raises:
        ProcvmError: As `open_image`.
    """
    naps = _NAPS_FOR_EXEC
    looks = 0
    while looks < _LOOKS:
        looks += 1
        if ended(pidfd.number):
            raise ProcessExitedError(
                f"process {pid} has ended and waits to be reaped by its parent", pid=pid
            )
        try:
            files, token_address = open_address_space(pid)
        except OSError as error:
            absent = error.errno in (errno.ENOENT, errno.ESRCH)
            failure = access.denial(pid) if absent else access.open_error(pid, error)
            # What was found out by the number is believed of a process that lives: the
            # number may be another's by now, and one on its way out belongs to root.
            if failure is not None and not ended(pidfd.number) and not access.is_ending(pid):
                try:
                    raise failure from None
                finally:
                    del failure  # it and this frame would keep each other
            continue
        if token_address is None and naps:
            # Who started it knows of the exec before the exec is done.
            files.close()
            naps -= 1
            looks -= 1
            time.sleep(_A_MOMENT)
            continue
        token_address = token_address or 0
        # All were opened on one program, and on that of the pidfd, only if it is still there.
        if files.peek(token_address, TOKEN_LEN) != b"" and not ended(pidfd.number):
            return files, token_address
        files.close()
    # In this order: once the process has ended its number may be another's, which has memory.
    has_memory = procfs.has_memory(pid)
    if ended(pidfd.number) or not has_memory:
        raise ProcessExitedError(f"process {pid} has ended, or is about to", pid=pid)
    raise ProcessExecedError(
        f"process {pid} runs one new program after the other; open it when it has settled",
        pid=pid,
    )


def open_pidfd(pid: int) -> Fd:
    """Opens a process by its pid.

    Raises:
        NoSuchProcessError: No process has the pid, or it is that of a thread.
        AccessDeniedError: Something does not allow it.
    """
    try:
        return Fd.of_file(os.pidfd_open, pid)
    except OverflowError:
        pass
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            raise access.open_error(pid, error) from None
        leader = procfs.thread_leader(pid)
        if leader is not None:
            raise NoSuchProcessError(
                f"{pid} is a thread of process {leader}; open {leader}", pid=pid
            ) from None
    raise NoSuchProcessError(f"no process has the pid {pid}", pid=pid)


def open_address_space(pid: int) -> tuple[ProcMem, int | None]:
    """Opens mem and maps by the leader, or by a thread that outlived it."""
    try:
        return _open_at(pid, f"/proc/{pid}")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            raise
        for tid in procfs.thread_ids(pid):
            try:
                return _open_at(pid, f"/proc/{pid}/task/{tid}")
            except OSError as again:
                if again.errno not in (errno.ENOENT, errno.ESRCH):
                    raise
        raise


def _open_at(pid: int, path: str) -> tuple[ProcMem, int | None]:
    try:
        mem, writable = Fd.open(f"{path}/mem", os.O_RDWR), True
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        mem, writable = Fd.open(f"{path}/mem", os.O_RDONLY), False
    files = [mem]
    try:
        files.append(Fd.open(f"{path}/maps", os.O_RDONLY))
        token_address = procfs.token_address(path)
    except BaseException:
        for file in files:
            file.close()
        raise
    return ProcMem(*files, pid=pid, writable=writable), token_address
