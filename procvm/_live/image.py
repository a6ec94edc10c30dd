"""`Image`: one program in one process, told from all that may take its place.

A pid is reused, and a process may exec: neither the number nor the pidfd says
which program's memory a call would reach. Identity here is three descriptors
and the token: the pidfd is the process whatever its number, /proc/PID/mem and
/proc/PID/maps are the address space whatever the process, and the token says
of one process_vm_readv which address space it took.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar, cast

from procvm._base import forks
from procvm._base.fd import Fd
from procvm._linux import procfs
from procvm._linux.libc import REFUSALS, TRANSIENT, errno_error
from procvm._linux.pidfd import ended, has_other_memory
from procvm._linux.proc_maps import VmaEntry, read_maps, read_named
from procvm._linux.proc_mem import ProcMem
from procvm._linux.process_vm import TOKEN_LEN, Guard, VmCalls
from procvm._live.facts import read_facts
from procvm._live.identity import Identity, identity_of, is_shared
from procvm._live.opening import open_address_space, open_pidfd, open_settled
from procvm._live.page_cache import PageCache
from procvm._saved.facts import Facts
from procvm._symbols.core_notes import MACHINES
from procvm.errors import (
    ClosedError,
    Hint,
    ProcessExecedError,
    ProcessExitedError,
    ProcvmError,
    UnsupportedError,
)

__all__ = ["Image", "ended", "open_image"]

T = TypeVar("T")

_LOOKS = 4
# What peeking at the token answers when that says something about the target.
_TELLING = REFUSALS | {0, errno.EFAULT, errno.ESRCH}

_PROOF_LASTS = 0.001
"""Seconds for which a proof is believed that no other process shared the address space."""


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
        in_use: Keeps the descriptors of `files` open; None once closed.
        shared: Whether another process has the address space; None while not known.
        proof_due: When an access by a descriptor needs `prove`, on time.monotonic.
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
        self._address_size = 0
        token = files.peek(token_address, TOKEN_LEN) if token_address else None
        # Our own image can not change under us; whoever execs is not us any more.
        self.pinned = pid == os.getpid()
        self._guard = Guard(pid, pidfd.number, token_address, token or b"", pinned=self.pinned)
        self.calls = VmCalls(self._guard)
        # Without a token no answer by number can be believed.
        self.by_calls = by_calls and bool(token)
        if not self.by_calls:
            files.prepare()
        # What a quick write keeps meanwhile, so that the descriptors it uses stay its own.
        self.in_use: object = (files.mem.owner, files.maps.owner)
        # On the clock of time.monotonic: when an access by a descriptor has to be proved
        # again; 0 for each of them, if another process shares the address space.
        self.proof_due = math.inf if self.pinned else 0.0
        self.shared: bool | None = None
        self._identity: Identity | None = None
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

    @property
    def address_size(self) -> int:
        """The bytes of the program's pointers, 4 or 8.

        Raises:
            ProcessExitedError: The process ended before it was asked for the first time.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        if not self._address_size:
            self._address_size = procfs.auxv_word(self.facts().auxv)
        return self._address_size

    def open_files(self, copied_len: int = 0) -> ProcMem:
        """Returns the address space.

        Raises:
            ClosedError: It was closed.
        """
        files = self.files
        if files is None:
            raise ClosedError(
                f"process {self.pid} was closed (or belongs to the process that forked this one)",
                copied_len=copied_len,
                hint=Hint("reopen", {"pid": self.pid}),
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
            raise ClosedError(
                f"process {self.pid} was closed", hint=Hint("reopen", {"pid": self.pid})
            )
        return pidfd

    def warn_if_dropped(self, text: str) -> None:
        """Has the interpreter warn of `text` if the image is dropped and was not closed."""
        self.open_pidfd().warn_if_dropped(text)

    def ask(self, question: Callable[[int], T], what: str) -> T:
        """Asks something of the descriptor of maps.

        Args:
            question: Takes the descriptor; its OSError is turned into ours.
            what: The question, in words, for that error.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        code = 0
        found = None
        try:
            with self.open_files().maps.use() as maps:
                found = question(maps)
        except OSError as error:
            code = error.errno or errno.EIO
        if code:
            self.open_files()
            if code == errno.ESRCH:
                raise self.gone()
            raise errno_error(code, what, pid=self.pid)
        self.prove_if_due()
        return cast(T, found)

    def entries(self) -> list[VmaEntry]:
        """Returns the lines of its maps, sorted and disjoint, as they are now.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        found = self.ask(read_maps, "reading the mappings")
        if not found:
            raise self.gone()
        return found

    def named_entries(self, known: bytes) -> tuple[bytes, list[VmaEntry]]:
        """Returns the text of maps and its mappings that have a name; see `read_named`.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        found = self.ask(lambda number: read_named(number, known), "reading the mappings")
        if not found[0]:
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
        self.prove()
        if found is None:
            raise self.gone()
        return found

    def undumped(self) -> list[tuple[int, int]]:
        """Returns the mappings that are marked MADV_DONTDUMP; none if the kernel does not tell.

        The kernel walks the page tables of the whole process to tell it.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        self.open_files()
        found = procfs.parse_undumped(procfs.read_bytes(f"/proc/{self.pid}/smaps") or b"")
        # Read by the number: it is of this process if that is still there.
        self.prove()
        return found

    def open_pagemap(self) -> Fd | None:
        """Returns its pagemap, or None if that can not be had.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
        """
        if self._pagemap is None:
            self.open_files()
            try:
                pagemap = Fd.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY)
            except OSError:
                return None
            # Opened by the number: it is that of this address space if that is still there.
            try:
                self.prove()
            except BaseException:
                pagemap.close()
                raise
            self._pagemap = pagemap
            if self.closed:
                pagemap.close()
        return self._pagemap

    def identity(self) -> Identity:
        """Returns which process it is, for a process that opens it again.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
            UnsupportedError: /proc does not show when the process started.
        """
        self.open_files()
        if self._identity is None:
            with self.open_pidfd().use() as pidfd:
                found = identity_of(self.pid, pidfd)
            self.prove()
            if found is None:
                raise UnsupportedError(
                    f"/proc does not show when process {self.pid} started, so that another "
                    "process could not tell it from a later one with its pid"
                )
            self._identity = found
        return self._identity

    def current_token(self) -> bytes:
        """Returns the token as it is now, for a process that opens the program again.

        Raises:
            UnsupportedError: There is none.
        """
        token = None
        if self.token_address:
            token = self.open_files().peek(self.token_address, TOKEN_LEN)
        if not token:
            self.prove()
            raise UnsupportedError(
                f"process {self.pid} has no readable AT_RANDOM, so that another process could not "
                "tell whether it runs another program"
            )
        return token

    # Whether it is still there

    def has_ended(self) -> bool:
        """Returns whether the process that was opened has ended."""
        with self.open_pidfd().use() as pidfd:
            found = ended(pidfd)
        self.open_pidfd()  # closed by another thread meanwhile, it tells nothing
        return found

    def prove_if_due(self, copied_len: int = 0) -> None:
        """Calls `prove` if it is time for that."""
        if self.proof_due <= time.monotonic():
            self.prove(copied_len)

    def prove(self, copied_len: int = 0) -> None:
        """Raises unless the process still runs in the address space that was opened.

        The descriptors alone do not tell: they stay good for as long as any process has
        the address space, also one that shared it with the process that has ended.

        Args:
            copied_len: What an error is to say of the access under way.

        Raises:
            ProcessExitedError: It has ended.
            ProcessExecedError: It runs another program.
            ClosedError: It was closed.
            VmError: It shares its address space, and the kernel does not tell which one
                it has now.
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
            # Proofs take a fiftieth of the time at most, where they are slow too.
            self.proof_due = now + min(max(_PROOF_LASTS, 50 * (now - begun)), 20 * _PROOF_LASTS)

    def _answers(self) -> bool:
        """Returns whether a call by number finds the token, in a process that has not ended."""
        return self.by_calls and self.calls.read(self.token_address, 0, 0) == 0

    def _has(self, files: ProcMem) -> bool:
        """Returns whether the address space that the process has now is that of `files`.

        Raises:
            ProcvmError: It is not known, and another process shares that of `files`.
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
            # The target writes its own token all the time, so that it proves nothing.
        except OSError as error:
            code = error.errno or errno.EIO
            if code in (errno.ENOENT, errno.ESRCH):
                return False
        self.open_files()  # closed by another thread meanwhile, it tells nothing
        if not self.shared:
            return not self.has_ended()
        raise errno_error(
            code,
            f"process {self.pid} shares its address space with another process, and which one it "
            "has now cannot be found out",
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
                # The leader has ended and other threads live on, or a policy
                # came over us, or the target keeps its token from itself.
                break
            if not code and len(now) < len(here):
                continue  # cut short, it does not differ
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
        with self.open_pidfd().use() as pidfd:
            runs_another = has_other_memory(self.pid, pidfd)
        self.open_pidfd()  # closed by another thread meanwhile, it tells nothing
        if runs_another:
            return self._execed(copied_len)
        return ProcessExitedError(
            f"process {self.pid} has ended", pid=self.pid, copied_len=copied_len
        )

    def _execed(self, copied_len: int) -> ProcvmError:
        return ProcessExecedError(
            f"process {self.pid} runs another program now",
            pid=self.pid,
            hint=Hint("reopen", {"pid": self.pid}),
            copied_len=copied_len,
        )

    def close(self) -> None:
        """Lets go of the descriptors; every later access raises ClosedError."""
        with self._lock:
            # First of all nothing may be believed any more: a prepared call
            # that is under way compares with this.
            self._guard.token = None
            self.by_calls = False
            self.in_use = None
            owners = (self.files, self.pidfd, self._pagemap)
            # First, so that an access which finds a descriptor closed finds this too.
            self.files = self.pidfd = self._pagemap = None
            # Closed and not only dropped: the frames of an error that is kept have them.
            for owner in owners:
                if owner is not None:
                    owner.close()

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
    with ExitStack() as undo:
        # Closed by it, since the frames of an error that is kept have them.
        pidfd = undo.enter_context(open_pidfd(pid))
        procfs.require_own_proc()
        files, token_address = open_settled(pid, pidfd)
        undo.pop_all()
    image = Image(pid, pidfd, files, token_address, by_calls=by_calls)
    if not image.pinned:
        # Now, since later a sandbox that the tool enters may not let it ask.
        image.shared = is_shared(pid)
    return image
