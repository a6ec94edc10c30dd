"""process_vm_readv and process_vm_writev on the program that was opened, and on no other.

Both calls take a pid, which says nothing about the program that the process runs now. Two checks
prove where the bytes of a read came from:

*   The first element of every read is the *token*: the 16 random bytes that the kernel gave the
    program at its exec. The call looks up the target's address space once, so a token that
    matches proves that the other bytes came from the same address space.
*   A forked child has the same token, and a pid is reused after its process was reaped. So the
    pidfd is polled after the call: if its process has not ended, the pid was its own all along.

A write cannot be checked that way, since the check would come too late. Writes use
`_linux.proc_mem`, whose descriptor belongs to the address space. The tool's own program cannot
change meanwhile (`pinned`), and is written by process_vm_writev.
"""

from __future__ import annotations

import ctypes
import os
import select
from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

from procvm._base.pods import Pod
from procvm._linux.libc import MAX_RW_COUNT, call, libc
from procvm._local.buffers import Buffer, Scratch, address_of, fill_zeros, writable_cell
from procvm._local.pool import Pool

__all__ = ["IOV_MAX", "NR_RANGES", "TOKEN_LEN", "Guard", "VmCalls"]

T = TypeVar("T")

IOV_MAX = 1024
"""The most elements of an iovec. Source: the kernel's ``UIO_MAXIOV``."""

NR_RANGES = IOV_MAX - 1
"""The most ranges of one `VmCalls.readv`: the token is an element too."""

TOKEN_LEN = 16
"""Bytes at AT_RANDOM. Source: getauxval(3)."""


class Guard:
    """Identity check for process_vm_readv: the expected AT_RANDOM bytes and a pidfd.

    Attributes:
        pid: The pid that the calls take.
        pidfd: The process.
        token_address: The address of the token; 0 if the program has none.
        token: The expected token; None once no answer may be believed any more.
        pinned: Whether the process is the tool itself, whose program and pid cannot change.
    """

    __slots__ = ("pid", "pidfd", "pinned", "token", "token_address")

    def __init__(
        self, pid: int, pidfd: int, token_address: int, token: bytes, *, pinned: bool
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.token_address = token_address
        self.token: bytes | None = token
        self.pinned = pinned


def _poller(pidfd: int) -> Callable[[int], list[tuple[int, int]]]:
    # A poll object serves one thread at a time, so each scratch has its own.
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return poll.poll


# The words of a scratch: two local elements, two remote elements, then the bytes that were read.
_LOCAL, _REMOTE, _BYTES, _WORDS = 0, 4, 8, 11
_WORD = 8

Once = Callable[[int, int, int], int]


class _Scratch:
    """The vectors of one prepared call: the token first, then one range.

    The program of a pinned guard cannot change, so its token is not read.
    """

    def __init__(self, guard: Guard) -> None:
        self.memory = Scratch(_WORDS * _WORD)
        self.bytes_at = self.memory.address + _BYTES * _WORD
        # Both refer to the memory, so it lives as long as a function that uses them.
        self.words = self.memory.view.cast("Q")
        self.token = (ctypes.c_char * TOKEN_LEN).from_buffer(self.memory.view, _BYTES * _WORD)
        self.words[_LOCAL], self.words[_LOCAL + 1] = self.bytes_at, TOKEN_LEN
        self.words[_REMOTE], self.words[_REMOTE + 1] = guard.token_address, TOKEN_LEN
        self.ended = _poller(guard.pidfd)

    def args(self, pid: int, first: int, nr_local: int, nr_remote: int) -> tuple[object, ...]:
        """Returns the call's arguments, from element `first` of both vectors on.

        They are converted here: to convert six of them takes 200 to 350 ns of each call.
        """
        base = self.memory.address
        pointer, word = ctypes.c_void_p.from_param, ctypes.c_ulong.from_param
        return (
            ctypes.c_int.from_param(pid),
            pointer(base + (_LOCAL + 2 * first) * _WORD),
            word(nr_local),
            pointer(base + (_REMOTE + 2 * first) * _WORD),
            word(nr_remote),
            word(0),
        )


def _prepare_once(guard: Guard) -> Once:
    """Returns `VmCalls.read` for one thread, with its call prepared."""
    scratch = _Scratch(guard)
    words, token, ended = scratch.words, scratch.token, scratch.ended
    function = libc().readv_quiet
    own_at, own_len, at, length = _LOCAL + 2, _LOCAL + 3, _REMOTE + 2, _REMOTE + 3

    def once(address: int, own_address: int, n: int) -> int:
        n = min(n, _MOST)
        words[own_at] = own_address
        words[own_len] = n
        words[at] = address
        words[length] = n
        # SAFETY: the vectors and the token's bytes are in the scratch that
        # `words` views; the caller keeps its own bytes alive.
        done = function(*args)
        try:
            # The token last: `close` sets it to None before the pidfd's number is free.
            if done >= TOKEN_LEN and not ended(0) and token.raw == guard.token:
                return done - TOKEN_LEN
        except OSError:
            pass  # not known whether it lives
        if done > TOKEN_LEN:
            # The bytes may be those of another process that has the pid now, so the caller must
            # not see them.
            fill_zeros(own_address, done - TOKEN_LEN)
        return -1

    def once_pinned(address: int, own_address: int, n: int) -> int:
        if guard.token is None:
            return -1
        n = min(n, _MOST)
        words[own_at] = own_address
        words[own_len] = n
        words[at] = address
        words[length] = n
        # SAFETY: as above. An error is a result of -1, and no byte has moved.
        return max(function(*args), 0)

    if guard.pinned:
        args = scratch.args(guard.pid, 1, 1, 1)
        return once_pinned
    args = scratch.args(guard.pid, 0, 2, 2)
    return once


_MOST = MAX_RW_COUNT - TOKEN_LEN


class VmCalls:
    """The checked calls on one image; any thread may use them."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        # As many as threads may read at once: making one costs several reads.
        self._prepared = Pool(64, lambda: _prepare_once(guard))

    def read(self, address: int, own_address: int, n: int) -> int:
        """Reads once and checks where the bytes came from.

        Returns:
            The count of bytes that arrived from the program. A count below `n` means that the
            call failed after them; -1 that no byte may be believed (`Handle.verify` finds out
            why).
        """
        prepared = self._prepared
        once = prepared.take()
        try:
            return once(address, own_address, n)
        finally:
            prepared.leave(once)

    def _read_unchecked(self, pid: int, address: int, own_address: int, n: int) -> tuple[int, int]:
        remote = array("Q", (address, n))
        local = array("Q", (own_address, n))
        # SAFETY: the two vectors live until the call returns; the caller keeps
        # `n` bytes at `own_address` alive.
        return call(
            libc().readv,
            pid,
            ctypes.c_void_p(local.buffer_info()[0]),
            ctypes.c_ulong(1),
            ctypes.c_void_p(remote.buffer_info()[0]),
            ctypes.c_ulong(1),
            ctypes.c_ulong(0),
        )

    def peek(self, address: int, n: int) -> tuple[bytes, int]:
        """Returns the bytes and the errno of an unchecked read; no bytes if errno is not 0."""
        scratch = Scratch(n)
        done, code = self._read_unchecked(self.guard.pid, address, scratch.address, n)
        return bytes(scratch.view[: max(done, 0)]), code

    def own_faults(self, own_address: int) -> bool:
        """Returns whether the tool's own byte at `own_address` faults."""
        scratch = Scratch(1)
        return self._read_unchecked(os.getpid(), own_address, scratch.address, 1)[1] != 0

    def own_bytes(self, own_address: int, n: int) -> Buffer | None:
        """Returns a copy of the tool's own bytes; None where one of them faults."""
        scratch = Scratch(n)
        done, _ = self._read_unchecked(os.getpid(), own_address, scratch.address, n)
        return scratch.view if done == n else None

    def readv(self, ranges: Sequence[tuple[int, int]], first: int, own_address: int) -> int:
        """Reads ranges from index `first` on, as many as one call takes, to consecutive bytes.

        Returns:
            As `read`, for the bytes of the ranges in order.
        """
        some = ranges[first : first + NR_RANGES]
        total = sum([n for _, n in some])
        remote = array("Q", (0, 0))
        if total <= _MOST:
            remote.extend(chain.from_iterable(some))
        else:
            total = room = _MOST
            for address, n in some:
                remote.extend((address, min(n, room)))
                room -= min(n, room)
        return self.readv_packed(memoryview(remote), len(some), own_address, total)

    def readv_packed(self, words: memoryview, count: int, own_address: int, total: int) -> int:
        """Reads ranges as `readv` does, given as the words of an iovec.

        Args:
            words: Two words that are overwritten, then the address and the length of each range.
            count: The number of ranges, at most `NR_RANGES`.
            own_address: The address of the tool's memory that receives the bytes.
            total: The number of bytes.
        """
        guard = self.guard
        words[0], words[1] = guard.token_address, TOKEN_LEN
        token = Scratch(TOKEN_LEN)
        local = array("Q", (token.address, TOKEN_LEN, own_address, total))
        # SAFETY: the vectors and the token's scratch live until the call
        # returns; the caller keeps the bytes at `own_address` alive.
        done, _ = call(
            libc().readv,
            guard.pid,
            ctypes.c_void_p(local.buffer_info()[0]),
            ctypes.c_ulong(2),
            ctypes.c_void_p(address_of(writable_cell(words))),
            ctypes.c_ulong(count + 1),
            ctypes.c_ulong(0),
        )
        arrived = bytes(token.view)
        try:
            if not guard.pinned and _poller(guard.pidfd)(0):
                return -1
        except OSError:
            return -1  # not known whether it lives
        # The token last, as in `_prepare_once`.
        return done - TOKEN_LEN if done >= TOKEN_LEN and arrived == guard.token else -1

    def write(self, address: int, own_address: int, n: int) -> tuple[int, int]:
        """Writes once; returns (bytes written, 0) or (-1, errno). Nothing is checked."""
        n = min(n, MAX_RW_COUNT)
        remote = array("Q", (address, n))
        local = array("Q", (own_address, n))
        # SAFETY: the two vectors live until the call returns; the caller keeps
        # `n` bytes at `own_address` alive.
        return call(
            libc().writev,
            self.guard.pid,
            ctypes.c_void_p(local.buffer_info()[0]),
            ctypes.c_ulong(1),
            ctypes.c_void_p(remote.buffer_info()[0]),
            ctypes.c_ulong(1),
            ctypes.c_ulong(0),
        )

    def loader(self, pod: Pod[T], slow: Callable[[int], T]) -> Callable[[int], T]:
        """Returns a function that reads one number with a prepared call.

        Args:
            pod: The type of the number.
            slow: The complete read, which serves where the prepared call fails.
        """
        guard = self.guard
        size = pod.size
        scratch = _Scratch(guard)
        words, token, ended = scratch.words, scratch.token, scratch.ended
        function = libc().readv_quiet
        # The token and the value arrive in consecutive bytes, so one local element is enough.
        value_at = scratch.bytes_at + TOKEN_LEN
        words[_LOCAL + 1] = whole = TOKEN_LEN + size
        words[_LOCAL + 2], words[_LOCAL + 3] = value_at, size
        words[_REMOTE + 3] = size
        # Cells of the scratch, which keep it alive.
        view = scratch.memory.view
        where = ctypes.c_uint64.from_buffer(view, (_REMOTE + 2) * _WORD)
        value = pod.ctype.from_buffer(view, _BYTES * _WORD + TOKEN_LEN)

        def load(address: int) -> T:
            where.value = address
            # SAFETY: the vectors and their bytes are in the scratch, which `where` and `value`
            # keep alive.
            try:
                if function(*args) == whole and not ended(0) and token.raw == guard.token:
                    found: T = value.value
                    # A signal handler that called this meanwhile left its own address.
                    if where.value == address:
                        return found
            except OSError:
                pass  # not known whether it lives
            return slow(address)

        def load_pinned(address: int) -> T:
            where.value = address
            # SAFETY: as above.
            if guard.token is not None and function(*args) == size:
                found: T = value.value
                if where.value == address:
                    return found
            return slow(address)

        if guard.pinned:
            args = scratch.args(guard.pid, 1, 1, 1)
            return load_pinned
        args = scratch.args(guard.pid, 0, 1, 2)
        return load
