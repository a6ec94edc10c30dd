"""Proof that a task seized by its number belongs to the process and the program that was opened.

ptrace, /proc/PID/task and process_vm_readv go by number. A number names another process
once its own was reaped, and another program after an exec. The descriptors that the
tool opened do not: a pidfd tells whether its process has ended, and /proc/PID/mem reads
the address space that it was opened on, also when the process has left it.
"""

from __future__ import annotations

import errno
import os
import select
from array import array
from ctypes import c_ulong, c_void_p

from procvm._base.fd import Fd
from procvm._linux import procfs
from procvm._linux.libc import REFUSALS, TRANSIENT, call, libc
from procvm._linux.own_means import require_own_means
from procvm._linux.pidfd import has_other_memory
from procvm._local.buffers import Scratch
from procvm.errors import Hint, ProcessExecedError, ProcessExitedError

__all__ = ["Program", "Proof"]

_TOKEN_LEN = 16
_TRIES = 20
_ONE, _NO_FLAGS = c_ulong(1), c_ulong(0)


class Program:
    """The descriptors of one program, as the tool opened them.

    Attributes:
        mem: /proc/PID/mem of its address space.
        maps: /proc/PID/maps of it.
        token_address: The address of the 16 random bytes of its exec; 0 if it has none.
    """

    def __init__(self, mem: int, maps: int, token_address: int) -> None:
        self.mem = Fd(mem)
        self.maps = Fd(maps)
        self.token_address = token_address

    def close(self) -> None:
        """Closes them: a cycle of objects would keep them until the collector runs."""
        self.mem.close()
        self.maps.close()

    def token(self) -> bytes | None:
        """Returns the token's present bytes; None if its page cannot be read.

        Empty bytes say that the address space is gone.

        Raises:
            OSError: As pread.
        """
        try:
            return os.pread(self.mem.number, _TOKEN_LEN, self.token_address)
        except OSError as error:
            if error.errno in TRANSIENT:
                raise
            return None


class Proof:
    """The checks that the tracer makes before it acts on a task of process `pid`.

    Attributes:
        pid: The process.
        program: Its program; None while the process waits for its first exec.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.program: Program | None = None
        self._pidfd = pidfd
        self._ended = select.poll()
        self._ended.register(pidfd, select.POLLIN)
        self._token = Scratch(_TOKEN_LEN)
        self._local = array("Q", (self._token.address, _TOKEN_LEN))
        self._remote = array("Q", (0, _TOKEN_LEN))
        self._local_at = c_void_p(self._local.buffer_info()[0])
        self._remote_at = c_void_p(self._remote.buffer_info()[0])

    def require_process(self) -> None:
        """Proves that every task that is seized under `pid` by now is the process's.

        The number is given to another process only after its own was reaped, and
        then the pidfd is readable.

        Raises:
            ProcessExitedError: The process has ended.
        """
        if self._ended.poll(0):
            raise ProcessExitedError(f"process {self.pid} has ended", pid=self.pid)

    def has_task(self, tid: int) -> bool:
        """Returns whether a seized task is of the process under this id.

        Only an exec of its own changes its id any more, to that of the leader.
        """
        return tid == self.pid or os.path.exists(f"/proc/{self.pid}/task/{tid}")

    def require_program(self) -> None:
        """Proves that the process runs the program that was opened.

        Raises:
            ProcessExitedError: The process has ended.
            ProcessExecedError: It runs another program.
            VmError: The tracer lacks descriptors or memory.
        """
        program = self.program
        if program is None:
            return
        for _ in range(_TRIES):
            try:
                opened = program.token()
            except OSError:
                continue
            if opened == b"":
                break  # the address space that was opened is gone
            now = self._token_by_number(program.token_address) if opened else None
            if now is None or now == opened:
                return
            # The target may have written its own token between the two looks.
        if has_other_memory(self.pid, self._pidfd):
            raise self.execed()
        raise ProcessExitedError(f"process {self.pid} has ended", pid=self.pid)

    def _token_by_number(self, address: int) -> bytes | None:
        """Returns the token of the program that `pid` runs now; None where the kernel refuses.

        Without this, a child of vfork that execs would pass for the program that was opened:
        its parent still has the address space that it left.
        """
        # A leader that ended before its threads has no memory.
        for tid in (self.pid, *procfs.thread_ids(self.pid)):
            self._remote[0] = address
            # SAFETY: both vectors and the room for the token are attributes of this object.
            done, code = call(
                libc().readv, tid, self._local_at, _ONE, self._remote_at, _ONE, _NO_FLAGS
            )
            if done == _TOKEN_LEN:
                return bytes(self._token.view)
            if code == errno.EFAULT:
                return b""
            if code in REFUSALS:
                return _token_by_file(tid, address)
        return None

    def execed(self) -> ProcessExecedError:
        """Returns the error that says that the process runs another program."""
        return ProcessExecedError(
            f"process {self.pid} runs another program now",
            pid=self.pid,
            hint=Hint("reopen", {"pid": self.pid}),
        )


def _token_by_file(tid: int, address: int) -> bytes | None:
    path = f"/proc/{tid}/mem"
    try:
        mem = Fd.open(path, os.O_RDONLY)
        return os.pread(mem.number, _TOKEN_LEN, address)
    except OSError as error:
        # None says that the kernel tells nothing, and passes for the program that was opened.
        require_own_means(error, path)
        return b"" if error.errno == errno.EIO else None
