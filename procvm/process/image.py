"""`Image`: one program in one process, told from all that may take its place.

A pid is reused, and a process may exec: neither the number nor the pidfd says
which program's memory a call would reach. Identity here is three descriptors
and the token: the pidfd is the process whatever its number, /proc/PID/mem and
/proc/PID/maps are the address space whatever the process, and the token says
of one process_vm_readv which address space it took.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time

from procvm import forks
from procvm.elf.core import MACHINES
from procvm.errors import (
    ClosedError,
    NoSuchProcessError,
    ProcessExecedError,
    ProcessExitedError,
    ProcvmError,
    VmError,
)
from procvm.linux import access, procfs
from procvm.linux.fds import Fd
from procvm.linux.libc import REFUSALS, TRANSIENT, errno_error
from procvm.linux.process_vm import TOKEN_LEN, Guard, VmCalls
from procvm.linux.procmap import VmaEntry, read_maps
from procvm.linux.procmem import ProcMem
from procvm.process.facts import Facts, read_facts
from procvm.process.pages import PageCache

__all__ = ["Image", "ended", "open_image"]

_LOOKS = 4
_TRIES = 100
# What peeking at the token answers when that says something about the target.
_TELLING = REFUSALS | {0, errno.EFAULT, errno.ESRCH}


_A_MOMENT = 0.001
_NAPS_FOR_EXEC = 20


def ended(pidfd: int, timeout_ms: int | None = 0) -> bool:
    """Returns whether the process has ended, at most `timeout_ms` from now; a zombie has.

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
                    f"asking whether a process lives: {os.strerror(code)} "
                    f"[{errno.errorcode.get(code, code)}]"
                ) from None
    return False


class Image:
    """A program that was opened.

    Attributes:
        pid: Its process's number when it was opened.
        pidfd: Its process; None once closed.
        files: Its address space; None once closed.
        calls: The checked calls on it.
        by_calls: Whether they are to be used: not once they were refused.
        end: One past the last address of user space.
        pages: What is kept of it while it is held still; None when it is not.
    """

    def __init__(
        self, pid: int, pidfd: Fd, files: ProcMem, token_address: int, *, by_calls: bool
    ) -> None:
        self.pid = pid
        self.pidfd: Fd | None = pidfd
        self.files: ProcMem | None = files
        self.end = procfs.user_space_end()
        self.pages: PageCache | None = None
        self._pagemap: Fd | None = None
        token = files.peek(token_address, TOKEN_LEN) if token_address else None
        # Our own image can not change under us; whoever execs is not us any more.
        self.pinned = pid == os.getpid()
        self._guard = Guard(pid, pidfd.number, token_address, token or b"", pinned=self.pinned)
        self.calls = VmCalls(self._guard)
        # Without a token no answer by number can be believed.
        self.by_calls = by_calls and bool(token)
        if not self.by_calls:
            files.prepare()
        self._lock = threading.Lock()
        forks.register(self)

    @property
    def token_address(self) -> int:
        """Where the token stands; 0 if the program has none."""
        return self._guard.token_address

    @property
    def token(self) -> bytes:
        """What stands there: 16 bytes that no other program that was started has; or none."""
        return self._guard.token or b""

    def open_files(self, copied_len: int = 0) -> ProcMem:
        """Returns the address space.

        Raises:
            ClosedError: It was closed.
        """
        files = self.files
        if files is None:
            raise ClosedError(
                f"process {self.pid} was closed (or belongs to the process that forked this one); "
                "open it again",
                copied_len=copied_len,
            )
        return files

    def open_pidfd(self) -> Fd:
        """Returns the process.

        Raises:
            ClosedError: It was closed.
        """
        pidfd = self.pidfd
        if pidfd is None:
            self.open_files()
            raise ClosedError(f"process {self.pid} was closed; open it again")
        return pidfd

    def entries(self) -> list[VmaEntry]:
        """Returns the lines of its maps, sorted and disjoint, as they are now.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        files = self.open_files()
        try:
            found = read_maps(files.maps.number)
        except OSError as error:
            code = error.errno or errno.EIO
            raise errno_error(code, "reading the mappings", pid=self.pid) from None
        if not found:
            raise self.gone()
        return found

    def facts(self) -> Facts:
        """Returns what is known of the process beside its memory.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        self.open_files()
        found = read_facts(self.pid, MACHINES.get(os.uname().machine, 0))
        # Read by the number: it is of this process if that is still there.
        if found is None or not self.is_there():
            raise self.gone()
        return found

    def is_there(self) -> bool:
        """Returns whether the process still is what was opened."""
        if self.open_files().peek(self.token_address, TOKEN_LEN) == b"":
            return False
        return not ended(self.open_pidfd().number)

    def open_pagemap(self) -> Fd | None:
        """Returns its pagemap, or None if that can not be had."""
        if self._pagemap is None:
            try:
                pagemap = Fd.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY)
            except OSError:
                return None
            # Opened by the number: it is that of this address space if that is still there.
            if not self.is_there():
                return None
            self._pagemap = pagemap
        return self._pagemap

    def verify(self, copied_len: int, *, refused: bool = False) -> None:
        """Finds out why an answer could not be believed; returns if it is worth asking again.

        Args:
            copied_len: What an error is to say of the access under way.
            refused: Whether the call was refused, so that it is not made again.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        guard = self._guard
        same_token = True
        for look in range(_LOOKS):
            files = self.open_files(copied_len)
            if ended(self.open_pidfd().number):
                raise self.gone(copied_len)
            here = files.peek(guard.token_address, TOKEN_LEN)
            if here == b"":
                raise self.gone(copied_len)
            if refused or not here or not self.by_calls:
                break
            now, code = self.calls.peek(guard.token_address, TOKEN_LEN)
            if code in TRANSIENT or code not in _TELLING:
                return
            if code == errno.ESRCH or code in REFUSALS or not files.readable(guard.token_address):
                # The leader has ended and other threads live on, or a policy
                # came over us, or the target keeps its token from itself.
                break
            if now == here:
                with self._lock:
                    if guard.token is not None:
                        guard.token = here
                return
            same_token = same_token and here == guard.token
            if same_token and look == _LOOKS - 1:
                # The address space that was opened is as it was, kept by a process that
                # shares it, and the number leads to another one.
                raise self._execed(copied_len)
        # No call by number can be believed any more: the token is lost, or never the
        # same twice. The descriptors still are what was opened, and serve.
        self.by_calls = False

    def gone(self, copied_len: int = 0) -> ProcvmError:
        """Returns the error that says how the address space went."""
        if self._runs_another(self.open_pidfd()):
            return self._execed(copied_len)
        return ProcessExitedError(
            f"process {self.pid} has ended", pid=self.pid, copied_len=copied_len
        )

    def _runs_another(self, pidfd: Fd) -> bool:
        """Returns whether the process has memory, though not what was opened."""
        for _ in range(_LOOKS):
            if ended(pidfd.number):
                return False
            # A process on its way out has none. One look is not enough: while a thread
            # execs, the leader has none either and the listing may be empty.
            if procfs.has_memory(self.pid):
                return not ended(pidfd.number)
            time.sleep(_A_MOMENT)
        return False

    def _execed(self, copied_len: int) -> ProcvmError:
        return ProcessExecedError(
            f"process {self.pid} runs another program now; open it again to reach that one",
            pid=self.pid,
            copied_len=copied_len,
        )

    def close(self) -> None:
        """Lets go of the descriptors; every later access raises ClosedError."""
        with self._lock:
            # First of all nothing may be believed any more: a prepared call
            # that is under way compares with this.
            self._guard.token = None
            self.by_calls = False
            self.files = None
            self.pidfd = None
            self._pagemap = None

    def after_fork_in_child(self) -> None:
        """Closes it in a child that the tool forked: a pinned one is the parent's memory."""
        self._lock = threading.Lock()  # a thread that the child lacks may have held it
        self.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.files is None


def open_image(pid: int, *, by_calls: bool = True) -> Image:
    """Opens the program that process `pid` runs now.

    Raises:
        NoSuchProcessError: No process has the number.
        ProcessExitedError: It has ended and waits to be reaped.
        AccessDeniedError: Something does not allow it; the message names it.
        UnsupportedError: /proc is not mounted, or is that of another pid namespace.
    """
    pidfd = _open_pidfd(pid)
    procfs.require_own_proc()
    naps = _NAPS_FOR_EXEC
    looks = 0
    while looks < _LOOKS:
        looks += 1
        if ended(pidfd.number):
            raise ProcessExitedError(
                f"process {pid} has ended and waits to be reaped by its parent", pid=pid
            )
        try:
            files, token_address = _open_address_space(pid)
        except OSError as error:
            absent = error.errno in (errno.ENOENT, errno.ESRCH)
            failure = access.denial(pid) if absent else access.open_error(pid, error)
            # What was found out by the number is believed of a process that lives: the
            # number may be another's by now, and one on its way out belongs to root.
            if failure is not None and not ended(pidfd.number) and not access.is_ending(pid):
                raise failure from None
            continue
        if token_address is None and naps:
            # Who started it knows of the exec before the exec is done.
            naps -= 1
            looks -= 1
            time.sleep(_A_MOMENT)
            continue
        token_address = token_address or 0
        # All were opened on one program, and on that of the pidfd, only if it is still there.
        if files.peek(token_address, TOKEN_LEN) != b"" and not ended(pidfd.number):
            return Image(pid, pidfd, files, token_address, by_calls=by_calls)
    if ended(pidfd.number) or not procfs.has_memory(pid):
        raise ProcessExitedError(f"process {pid} has ended, or is about to", pid=pid)
    raise ProcessExecedError(
        f"process {pid} runs one new program after the other; open it when it has settled",
        pid=pid,
    )


def _open_pidfd(pid: int) -> Fd:
    try:
        return Fd(os.pidfd_open(pid))
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


def _open_address_space(pid: int) -> tuple[ProcMem, int | None]:
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
    maps = Fd.open(f"{path}/maps", os.O_RDONLY)
    token_address = procfs.token_address(path)
    return ProcMem(mem, maps, pid=pid, writable=writable), token_address
