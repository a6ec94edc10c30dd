"""/proc/PID/mem, made to fault where the target's own access would.

The kernel ignores page protections for /proc/PID/mem, and an access below a stack makes the stack
grow. So each piece of a transfer is looked up in the target's mappings first. Both descriptors
belong to the address space that they were opened on: no byte of another program can be read or
written through them, even after the process has called exec or has ended.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

from procvm._base.address import PAGE_SIZE
from procvm._base.c_library import Function
from procvm._base.closing import Closing
from procvm._base.fd import Fd
from procvm._base.perms import READ
from procvm._linux.libc import TRANSIENT, call, libc
from procvm._linux.outcome import Moved, Outcome
from procvm._linux.proc_maps import VmaRange, vma_at
from procvm._local.buffers import pin
from procvm._local.pool import Pool
from procvm.errors import ClosedError, Hint, VmError

__all__ = ["ProcMem"]

_PIECE_LEN = 1 << 20
_TRIES = 1000
_SHORT_TRIES = 8


class _Piece:
    """A memfd of 1 MiB that holds what was read until it may be given to the caller.

    Copying from it by memmove would end the tool by SIGBUS if the caller's buffer is a mapping of
    a file that was truncated. A pread from the memfd returns a short count there.
    """

    def __init__(self) -> None:
        self._file = Fd.of(os.memfd_create, "procvm-piece", os.MFD_CLOEXEC)
        os.ftruncate(self._file.number, _PIECE_LEN)
        self._held = pin(mmap.mmap(self._file.number, _PIECE_LEN), writable=True)
        self.address = self._held.address

    def copy_to(self, own_address: int, n: int) -> Moved:
        """Copies the first `n` bytes to the tool's own memory."""
        done = tries = 0
        while done < n:
            # SAFETY: the caller keeps `n` bytes at `own_address` alive.
            moved, code = call(
                libc().pread,
                self._file.number,
                ctypes.c_void_p(own_address + done),
                ctypes.c_size_t(n - done),
                ctypes.c_longlong(done),
            )
            if code in TRANSIENT and tries < _TRIES:
                tries += 1
                continue
            if code:
                return done, *_ending(code)
            done += moved
        return done, Outcome.DONE, 0


class ProcMem(Closing):
    """The descriptors of one address space, and transfers that ask its mappings first.

    Attributes:
        mem: /proc/PID/mem.
        maps: /proc/PID/maps.
        writable: Whether mem could be opened for writing.
    """

    __slots__ = ("_pid", "_pieces", "maps", "mem", "writable")

    def __init__(self, mem: Fd, maps: Fd, *, pid: int, writable: bool) -> None:
        self.mem = mem
        self.maps = maps
        self.writable = writable
        self._pid = pid
        self._pieces = Pool(8, _Piece)

    def prepare(self) -> None:
        """Makes the memfd that `read` needs, so that a later read opens no descriptor."""
        self._pieces.leave(_Piece())

    def read(self, address: int, own_address: int, n: int, need: int) -> Moved:
        """Reads up to `n` bytes from mappings whose permissions include `need` (see `Perms`)."""
        # The bytes stay in a piece until the mapping was looked up a second time: the target may
        # have taken the permission away before the read.
        try:
            room = self._pieces.take()
        except OSError as error:
            return 0, Outcome.FAILED, error.errno or errno.ENOMEM
        try:
            return self._walk(libc().pread, address, own_address, n, need, room)
        finally:
            self._pieces.leave(room)
            if self.mem.closed:
                self._pieces.clear()

    def write(self, address: int, own_address: int, n: int, need: int) -> Moved:
        """Writes up to `n` bytes to mappings whose permissions include `need` (see `Perms`)."""
        return self._walk(libc().pwrite, address, own_address, n, need, None)

    def _walk(
        self,
        function: Function,
        address: int,
        own_address: int,
        n: int,
        need: int,
        room: _Piece | None,
    ) -> Moved:
        # Without these references another thread's `close` could free the numbers meanwhile, and
        # the kernel could give them to other files.
        _owners = self.mem.owner, self.maps.owner
        mem, maps = self.mem.number, self.maps.number
        done = 0
        piece_len = _PIECE_LEN
        tries = 0
        while done < n:
            at, own = address + done, own_address + done
            vma, refusal = _allowed(maps, at, need)
            if vma is None:
                return done, *refusal
            piece = min(n - done, vma.end - at, piece_len)
            # SAFETY: the caller keeps `n` bytes at `own_address` alive, and `room` has
            # `_PIECE_LEN` bytes. An offset in user space fits off_t.
            moved, code = call(
                function,
                mem,
                ctypes.c_void_p(own if room is None else room.address),
                ctypes.c_size_t(piece),
                ctypes.c_longlong(at),
            )
            if code in TRANSIENT and tries < _TRIES:
                tries += 1
                continue
            if code == errno.EFAULT and piece > 1:
                # The tool's buffer faulted, and the kernel does not say how many bytes it moved
                # before that. Pieces that do not cross a page of the buffer give the exact count.
                piece_len = min(piece // 2, PAGE_SIZE - own % PAGE_SIZE) or 1
                continue
            if code:
                return done, *_ending(code)
            if moved == 0:
                return done, Outcome.GONE, 0
            if room is not None:
                vma, refusal = _allowed(maps, at, need)
                if vma is None:
                    return done, *refusal
                # The mapping may be shorter by now. The next round looks at what follows it.
                moved = min(moved, vma.end - at)
                stored, outcome, code = room.copy_to(own, moved)
                if outcome is not Outcome.DONE:
                    return done + stored, outcome, code
            done += moved
            tries = 0
        return done, Outcome.DONE, 0

    def readable(self, address: int) -> bool:
        """Returns whether the target itself can read at `address`."""
        with self.maps.use() as maps:
            return _allowed(maps, address, READ)[0] is not None

    def peek(self, address: int, n: int) -> bytes | None:
        """Returns `n` bytes, with page protections ignored.

        Returns:
            No bytes if the address space does not exist any more; None if nothing is mapped at
            `address`.

        Raises:
            ClosedError: The descriptors were closed.
            VmError: The kernel refuses to tell.
        """
        code = 0
        for tries in range(_TRIES):
            try:
                with self.mem.use() as mem:
                    found = os.pread(mem, n, address)
                if len(found) in (0, n) or tries > _SHORT_TRIES:
                    return found
            except OSError as error:
                code = error.errno or errno.EIO
                if code not in TRANSIENT:
                    break
        if code == errno.EIO:
            return None
        if self.mem.closed:
            raise ClosedError(
                f"process {self._pid} was closed", hint=Hint("reopen", {"pid": self._pid})
            )
        # `errno_error` would take ESRCH for the end of the process, which this descriptor tells
        # by an empty answer.
        raise VmError(
            f"cannot read process {self._pid} at {address:#x}: {os.strerror(code)} "
            f"[{errno.errorcode.get(code, code)}]"
        )

    def close(self) -> None:
        """Closes both descriptors as soon as no access uses them."""
        self.mem.close()
        self.maps.close()
        self._pieces.clear()


def _ending(code: int) -> tuple[Outcome, int]:
    """Returns what an errno of /proc/PID/mem means for a transfer."""
    outcome = _OUTCOMES.get(code, Outcome.FAILED)
    return outcome, code if outcome is Outcome.FAILED else 0


_OUTCOMES = {
    errno.EIO: Outcome.TARGET_FAULT,
    errno.EFAULT: Outcome.OWN_FAULT,
    errno.ESRCH: Outcome.GONE,
}

_FAULT = Outcome.TARGET_FAULT, 0


def _allowed(maps: int, address: int, need: int) -> tuple[VmaRange | None, tuple[Outcome, int]]:
    """Returns the mapping at `address` if it allows `need`; else None and the reason."""
    code = 0
    for _ in range(_TRIES):
        try:
            vma = vma_at(maps, address)
        except OSError as error:
            code = error.errno or errno.EIO
            if code not in TRANSIENT:
                break
        else:
            is_allowed = vma is not None and vma.flags & need == need
            return vma if is_allowed else None, _FAULT
    return None, _ending(code)
