"""`Handle`: the descriptors of one program in one process, and the proof that they still mean it.

A pid is reused, and a process may call exec: neither the pid nor the pidfd tells which program's
memory a system call would reach. Identity is three descriptors and the token. The pidfd is the
process, whatever has its pid. /proc/PID/mem and /proc/PID/maps are the address space, whatever
process has it. The token, the 16 bytes at AT_RANDOM, tells of one process_vm_readv which address
space it read.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time

from procvm._base import forks
from procvm._base.fd import Fd
from procvm._linux import procfs
from procvm._linux.libc import REFUSALS, TRANSIENT, errno_error
from procvm._linux.own_means import require_own_means
from procvm._linux.pidfd import ended, has_other_memory
from procvm._linux.proc_maps import VmaEntry, read_maps
from procvm._linux.proc_mem import ProcMem
from procvm._linux.process_vm import TOKEN_LEN, Guard, VmCalls
from procvm._live.identity import is_shared
from procvm._live.opening import is_absent, open_address_space
from procvm._live.page_cache import PageCache
from procvm.errors import (
    ClosedError,
    Hint,
    ProcessExecedError,
    ProcessExitedError,
    ProcvmError,
)

__all__ = ["Handle"]

_LOOKS = 4

_TELLING = REFUSALS | {0, errno.EFAULT, errno.ESRCH}
"""The errnos of a look at the token that say something about the target."""

_PROOF_LASTS = 0.001
"""Seconds for which `Handle.prove` need not be called again."""


class Handle:
    """The open descriptors of one program in one process.

    Attributes:
        pid: The pid of the process when it was opened.
        pidfd: The process; None once closed.
        files: The address space; None once closed.
        calls: process_vm_readv and process_vm_writev on it, checked by the token.
        by_calls: Whether reads use `calls`; False for good once the kernel has refused them, or
            where the token proves nothing.
        end: One past the last address of user space.
        pages: The cached pages during a hold; None otherwise.
        in_use: Keeps the descriptors of `files` open; None once closed.
        pinned: Whether the process is the tool itself, which cannot change meanwhile.
        shared: Whether another process has the same address space; None while not known.
        proof_due: The time, on time.monotonic, after which an access by a descriptor has to
            call `prove` first.
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
        self.pinned = pid == os.getpid()
        self._guard = Guard(pid, pidfd.number, token_address, token or b"", pinned=self.pinned)
        self.calls = VmCalls(self._guard)
        # Without a token a call by pid could have read another program.
        self.by_calls = by_calls and bool(token)
        if not self.by_calls:
            files.prepare()
        self.in_use: object = (files.mem.owner, files.maps.owner)
        self.proof_due = math.inf if self.pinned else 0.0
        self.shared: bool | None = None
        self._lock = threading.Lock()
        forks.register(self)

    # The descriptors

    @property
    def token_address(self) -> int:
        """The address of the token; 0 if the program has none."""
        return self._guard.token_address

    @property
    def token(self) -> bytes:
        """The 16 bytes that tell the program from others; empty if it has none."""
        return self._guard.token or b""

    def open_files(self, copied_len: int = 0) -> ProcMem:
        """Returns the descriptors of the address space.

        Args:
            copied_len: The bytes that the access under way has moved, for the error.

        Raises:
            ClosedError: They were closed.
        """
        files = self.files
        if files is None:
            raise ClosedError(
                f"process {self.pid} was closed (or belongs to the process that forked this one)",
                hint=Hint("reopen", {"pid": self.pid}),
                copied_len=copied_len,
            )
        return files

    def open_pidfd(self) -> Fd:
        """Returns the pidfd.

        Raises:
            ClosedError: It was closed.
        """
        pidfd = self.pidfd
        if pidfd is None:
            self.open_files()
            raise ClosedError(
                f"process {self.pid} was closed", hint=Hint("reopen", {"pid": self.pid})
            )
        return pidfd

    def open_pagemap(self) -> Fd | None:
        """Returns /proc/PID/pagemap, or None if the kernel does not let this process open it.

        Raises:
            VmError: This process lacks descriptors or memory.
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.
            ClosedError: It was closed.
        """
        if self._pagemap is None:
            self.open_files()
            path = f"/proc/{self.pid}/pagemap"
            try:
                pagemap = Fd.open(path, os.O_RDONLY)
            except OSError as error:
                require_own_means(error, path)
                return None
            # It was opened by pid. Without this proof it could be another address space's.
            try:
                self.prove()
            except BaseException:
                pagemap.close()
                raise
            self._pagemap = pagemap
            if self.closed:
                pagemap.close()
        return self._pagemap

    def warn_if_dropped(self, text: str) -> None:
        """Makes the interpreter warn with `text` if this is dropped without `close`."""
        self.open_pidfd().warn_if_dropped(text)

    def close(self) -> None:
        """Closes the descriptors; every later access raises ClosedError."""
        with self._lock:
            # The token first: a prepared call that is under way compares with it, and must not
            # match once the number of the pidfd is free.
            self._guard.token = None
            self.by_calls = False
            self.in_use = None
            owners = (self.files, self.pidfd, self._pagemap)
            # Before the descriptors: an access that finds one closed then finds None here.
            self.files = self.pidfd = self._pagemap = None
            # Dropping them is not enough: the traceback of an error that is kept refers to them.
            for owner in owners:
                if owner is not None:
                    owner.close()

    def after_fork_in_child(self) -> None:
        """Closes the descriptors in a forked child, where a pinned one would be the parent."""
        self._lock = threading.Lock()  # a thread that the child lacks may have held the old one
        self.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.files is None

    # Whether the process and the program are still there

    def has_ended(self) -> bool:
        """Returns whether the process that was opened has ended."""
        with self.open_pidfd().use() as pidfd:
            found = ended(pidfd)
        self.open_pidfd()  # raises if another thread closed it meanwhile
        return found

    def prove_if_due(self, copied_len: int = 0) -> None:
        """Calls `prove` if `proof_due` has passed."""
        if self.proof_due <= time.monotonic():
            self.prove(copied_len)

    def prove(self, copied_len: int = 0) -> None:
        """Raises unless the process still runs in the address space that was opened.

        The descriptors alone do not tell. They stay valid for as long as any process has the
        address space, also one that shared it with a process that has ended.

        Args:
            copied_len: The bytes that the access under way has moved, for the error.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.
            ClosedError: It was closed.
            VmError: The process shares its address space with another one, and the kernel does
                not tell which address space it has now.
        """
        files = self.open_files(copied_len)
        begun = time.monotonic()
        if self.shared is None:
            self.shared = not self.pinned and is_shared(self.pid)
        if not self._answers():
            self.verify(copied_len)
            if not self.pinned and not self._answers() and not self._has(files):
                raise self.gone(copied_len)
        if not self.shared and not self.pinned:
            now = time.monotonic()
            # Where a proof is slow, the next one waits for 50 times as long, so that proofs take
            # 2 % of the time at most.
            self.proof_due = now + min(max(_PROOF_LASTS, 50 * (now - begun)), 20 * _PROOF_LASTS)

    def _answers(self) -> bool:
        """Returns whether a call by pid finds the token, in a process that has not ended."""
        return self.by_calls and self.calls.read(self.token_address, 0, 0) == 0

    def _has(self, files: ProcMem) -> bool:
        """Returns whether the address space that the process has now is that of `files`.

        Raises:
            ProcvmError: It is not known, and another process shares the address space.
        """
        code = errno.EAGAIN
        mark: bytes | list[VmaEntry] = b""
        try:
            with open_address_space(self.pid)[0] as now:
                for _ in range(_LOOKS):
                    mark = self._mark(files)
                    if mark and mark == self._mark(now):
                        return not self.has_ended()
                if mark == self._mark(files):
                    return False
            # Here the target writes its own token all the time, so that the token proves nothing.
        except OSError as error:
            if is_absent(error):
                return False
            code = error.errno or errno.EIO
        self.open_files()  # raises if another thread closed it meanwhile
        if not self.shared:
            return not self.has_ended()
        raise errno_error(
            code,
            f"process {self.pid} shares its address space with another process, and it cannot be "
            "found out which address space it has now",
            pid=self.pid,
        )

    def _mark(self, files: ProcMem) -> bytes | list[VmaEntry]:
        """Returns what tells an address space from others: its token, or else its mappings."""
        token = files.peek(self.token_address, TOKEN_LEN)
        if token is not None:
            return token
        with files.maps.use() as maps:
            return read_maps(maps)

    def verify(self, copied_len: int, *, refused: bool = False) -> None:
        """Finds out why a call by pid failed; returns if the access can be tried again.

        Sets `by_calls` to False where a later call by pid would fail as well.

        Args:
            copied_len: The bytes that the access under way has moved, for the error.
            refused: Whether the kernel refused the call, so that it is not made again.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: The process runs another program.
            ClosedError: It was closed.
        """
        guard = self._guard
        same_token = True
        for look in range(_LOOKS):
            files = self.open_files(copied_len)
            if self.has_ended():
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
                # The leader has ended before its threads, or a security policy came into force,
                # or the target took the permission to read its token away.
                break
            if not code and len(now) < len(here):
                continue  # a short count proves no difference
            if now == here:
                with self._lock:
                    if guard.token is not None:
                        guard.token = here
                return
            same_token = same_token and here == guard.token
            if same_token and look == _LOOKS - 1:
                # The address space that was opened is unchanged, kept by a process that shares
                # it, and the pid leads to another one.
                raise self._execed(copied_len)
        # The token is lost, or the target changes it all the time. The descriptors are still
        # those that were opened, and serve from here on.
        self.by_calls = False

    def gone(self, copied_len: int = 0) -> ProcvmError:
        """Returns the error that says how the address space went: by an exec, or by the end."""
        with self.open_pidfd().use() as pidfd:
            has_execed = has_other_memory(self.pid, pidfd)
        self.open_pidfd()  # raises if another thread closed it meanwhile
        if has_execed:
            return self._execed(copied_len)
        return ProcessExitedError(
            f"process {self.pid} has ended", pid=self.pid, copied_len=copied_len
        )

    def failure(self, code: int, what: str, copied_len: int = 0) -> ProcvmError:
        """Returns the error for an errno of a call on the descriptors: ESRCH means gone.

        Args:
            code: The errno.
            what: The call that failed, in words.
            copied_len: The bytes that the access under way has moved.

        Raises:
            ClosedError: Another thread closed the descriptors meanwhile.
        """
        self.open_files(copied_len)
        if code == errno.ESRCH:
            return self.gone(copied_len)
        return errno_error(code, what, pid=self.pid, copied_len=copied_len)

    def _execed(self, copied_len: int) -> ProcvmError:
        return ProcessExecedError(
            f"process {self.pid} runs another program now",
            hint=Hint("reopen", {"pid": self.pid}),
            pid=self.pid,
            copied_len=copied_len,
        )
