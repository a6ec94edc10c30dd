"""/proc/PID/mem, made to fault where the target's own access would.

The kernel serves it with page protections ignored, and lets an access below a
stack grow the stack. So every piece is looked up in the target's mappings
first. Both descriptors belong to the address space they were opened on: the
bytes of another image can neither be read nor written through them, whatever
becomes of the process.
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
from procvm._linux.proc_maps import VmaRange, vma_at
from procvm._local.buffers import pin
from procvm.errors import ClosedError, Hint, VmError

__all__ = ["ProcMem"]

_PIECE_LEN = 1 << 20
_TRIES = 1000
_SHORT_TRIES = 8


class _Piece:
    """Room for a piece of what was read, which the kernel can copy out of.

    memmove into a mapping of a file that was made shorter would end the tool;
    a pread from this memfd is a short count.
    """

    def __init__(self) -> None:
        self._file = Fd.of(os.memfd_create, "procvm-piece", os.MFD_CLOEXEC)
        os.ftruncate(self._file.number, _PIECE_LEN)
        self._held = pin(mmap.mmap(self._file.number, _PIECE_LEN), writable=True)
        self.address = self._held.address

    def copy_to(self, own_address: int, n: int) -> tuple[int, int]:
        """Copies the first `n` bytes; returns how many, and the errno that stopped it."""
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
                return done, code
            done += moved
        return done, 0


class ProcMem(Closing):
    """The two descriptors and the walk over the mappings between them.

    Attributes:
        mem: /proc/PID/mem.
        maps: /proc/PID/maps.
        writable: Whether mem could be opened for writing.
    """

    __slots__ = ("_idle", "_pid", "maps", "mem", "writable")

    def __init__(self, mem: Fd, maps: Fd, *, pid: int, writable: bool) -> None:
        self.mem = mem
        self.maps = maps
        self.writable = writable
        self._pid = pid
        # Out of the list while it is used: by one thread, or by a signal handler of it.
        self._idle: list[_Piece] = []

    def prepare(self) -> None:
        """Makes what `read` needs now, so that it needs no descriptor later."""
        self._idle.append(_Piece())

    def read(self, address: int, own_address: int, n: int, need: int) -> tuple[int, int]:
        """Reads up to `n` bytes, of mappings that allow `need` only.

        Returns:
            Bytes that did arrive, and the errno that stopped it, or 0: EIO for a
            fault of the target, EFAULT for one of our own buffer, ESRCH when the
            address space is gone.
        """
        # The mapping is looked up again after the read, as the page may not have
        # allowed it any more; until then the bytes stay here.
        try:
            room = self._idle.pop() if self._idle else _Piece()
        except OSError as error:
            return 0, error.errno or errno.ENOMEM
        try:
            return self._walk(libc().pread, address, own_address, n, need, room)
        finally:
            self._idle.append(room)
            if self.mem.closed:
                self._idle.clear()

    def write(self, address: int, own_address: int, n: int, need: int) -> tuple[int, int]:
        """Writes up to `n` bytes, to mappings that allow `need` only; see `read`."""
        return self._walk(libc().pwrite, address, own_address, n, need, None)

    def _walk(
        self,
        function: Function,
        address: int,
        own_address: int,
        n: int,
        need: int,
        room: _Piece | None,
    ) -> tuple[int, int]:
        # Kept until the walk is over, so that both numbers are ours.
        _owners = self.mem.owner, self.maps.owner
        mem, maps = self.mem.number, self.maps.number
        done = 0
        piece_len = _PIECE_LEN
        tries = 0
        while done < n:
            at, own = address + done, own_address + done
            vma, code = _vma(maps, at)
            if vma is None:
                return done, code or errno.EIO
            if vma.flags & need != need:
                return done, errno.EIO
            piece = min(n - done, vma.end - at, piece_len)
            # SAFETY: the caller keeps `n` bytes at `own_address` alive, and `room`
            # holds a piece; an offset in user space fits off_t.
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
                # Our own buffer faulted, and the count of what went before is
                # lost with it: in pieces that do not cross a page of ours.
                piece_len = min(piece // 2, PAGE_SIZE - own % PAGE_SIZE) or 1
                continue
            if code:
                return done, code
            if moved == 0:
                return done, errno.ESRCH
            if room is not None:
                vma, code = _vma(maps, at)
                if vma is None or vma.flags & need != need:
                    return done, code or errno.EIO
                # What stands behind the end of the mapping now is looked at next.
                moved = min(moved, vma.end - at)
                stored, code = room.copy_to(own, moved)
                if code:
                    return done + stored, code
            done += moved
            tries = 0
        return done, 0

    def readable(self, address: int) -> bool:
        """Returns whether the target itself can read at `address`."""
        with self.maps.use() as maps:
            vma, _ = _vma(maps, address)
        return vma is not None and bool(vma.flags & READ)

    def peek(self, address: int, n: int) -> bytes | None:
        """Returns `n` bytes, protections ignored.

        Empty if the address space is gone, None if nothing is mapped there.

        Raises:
            VmError: The kernel does not answer.
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
        # Not by the gate: an ESRCH here would say that the process has ended, and
        # this descriptor says that by an empty answer.
        raise VmError(
            f"looking at process {self._pid}: {os.strerror(code)} "
            f"[{errno.errorcode.get(code, code)}]"
        )

    def close(self) -> None:
        """Closes both as soon as no access uses them."""
        self.mem.close()
        self.maps.close()
        self._idle.clear()


def _vma(maps: int, address: int) -> tuple[VmaRange | None, int]:
    code = 0
    for _ in range(_TRIES):
        try:
            return vma_at(maps, address), 0
        except OSError as error:
            code = error.errno or errno.EIO
            if code not in TRANSIENT:
                break
    return None, code
