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

__all__ = ["is_absent", "open_address_space", "open_pidfd", "open_settled"]

_LOOKS = 4
_A_MOMENT = 0.001  # seconds
_NAPS_FOR_EXEC = 20


def is_absent(error: OSError) -> bool:
    """Returns whether an error of opening a file of /proc/PID says that the task has ended.

    The file is not there (ENOENT) once the task was reaped, and has no process (ESRCH) before.
    """
    return error.errno in (errno.ENOENT, errno.ESRCH)


def _is_denied(error: OSError) -> bool:
    return error.errno in (errno.EACCES, errno.EPERM)


def open_settled(pid: int, pidfd: Fd) -> tuple[ProcMem, int]:
    """Opens the address space of a process, between two of its execs.

    Returns:
        The descriptors, and the address of the token; 0 if the program has none.

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
            if naps and _is_denied(error) and access.explain(pid).cause is None:
                # A thread execs: the leader has ended, and its files belong to root until then.
                naps -= 1
                looks -= 1
                time.sleep(_A_MOMENT)
                continue
            failure = access.denial(pid) if is_absent(error) else access.open_error(pid, error)
            # The cause was found by pid. It counts only if the process lives: another process
            # may have the pid by now, and the files of one that is about to end belong to root.
            if failure is not None and not ended(pidfd.number) and not access.is_ending(pid):
                try:
                    raise failure from None
                finally:
                    del failure  # it and this frame would refer to each other
            continue
        if token_address is None and naps:
            # An exec is under way: the parent may know of it before it is done.
            files.close()
            naps -= 1
            looks -= 1
            time.sleep(_A_MOMENT)
            continue
        token_address = token_address or 0
        # If the address space and the process are both still there, all descriptors were opened
        # on the same program.
        if files.peek(token_address, TOKEN_LEN) != b"" and not ended(pidfd.number):
            return files, token_address
        files.close()
    # In this order: once the process has ended, another process with memory may have its pid.
    has_memory = procfs.has_memory(pid)
    if ended(pidfd.number) or not has_memory:
        raise ProcessExitedError(f"process {pid} has ended, or is about to", pid=pid)
    raise ProcessExecedError(
        f"cannot open process {pid}: it runs one new program after the other; open it when it "
        "has settled",
        pid=pid,
    )


def open_pidfd(pid: int) -> Fd:
    """Opens a process by its pid.

    Raises:
        NoSuchProcessError: No process has the pid, or the pid is that of a thread.
        AccessDeniedError: The kernel or a security policy denies the access.
    """
    try:
        return Fd.of_file(os.pidfd_open, pid)
    except OverflowError:
        pass
    except OSError as error:
        if error.errno != errno.EINVAL and not is_absent(error):
            raise access.open_error(pid, error) from None
        leader = procfs.thread_leader(pid)
        if leader is not None:
            raise NoSuchProcessError(
                f"{pid} is a thread of process {leader}; open {leader}", pid=pid
            ) from None
    raise NoSuchProcessError(f"no process has the pid {pid}", pid=pid)


def open_address_space(pid: int) -> tuple[ProcMem, int | None]:
    """Opens mem and maps by the leader, or by a thread that still runs after the leader ended.

    Returns:
        The descriptors, and the address of the token: 0 if the program has none, None while an
        exec is under way.

    Raises:
        OSError: As open and read.
    """
    try:
        return _open_at(pid, f"/proc/{pid}")
    except OSError as error:
        # The files of a leader that has ended belong to root (EACCES), those of its threads not.
        if not is_absent(error) and not (_is_denied(error) and not procfs.task_has_memory(pid)):
            raise
        for tid in procfs.thread_ids(pid):
            try:
                return _open_at(pid, f"/proc/{pid}/task/{tid}")
            except OSError as again:
                if not is_absent(again):
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
