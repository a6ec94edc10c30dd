"""`Calls`: a tracee's requests to the tracer, and its atomics."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from procvm._base import forks
from procvm._base.address import PAGE_SIZE
from procvm._hold.client import Channel, open_channel
from procvm._hold.defaults import DEFAULT, Default
from procvm._hold.held import Grip
from procvm._hold.server.protocol import Op
from procvm._hold.standstill import Standstill, atomic_cut_short
from procvm._linux.libc import REFUSALS
from procvm._linux.peers import require_no_peer
from procvm._live.atomics import Atomic, atomic_fault, under_hold
from procvm._live.image import Image
from procvm._local.buffers import Buffer
from procvm._mm.memory import UserMemory
from procvm.errors import (
    ClosedError,
    Hint,
    NotTracedError,
    ProcvmError,
    VmError,
)

__all__ = ["CACHE_LEN", "Calls"]

CACHE_LEN = 1 << 20
"""Bytes that `Held.vm` keeps by default."""

_ANSWER_TIMEOUT = 2.0
"""Least seconds for a request that does not stop or move the target; the channel adds its grace."""

_MOVING = frozenset({Op.STEP, Op.CONT, Op.CALL})


class Calls:
    """One tracee's requests to the tracer, and the atomics that use them.

    Attributes:
        timeout: Seconds that a stop for an atomic may take; None for no limit.
        closed: Whether the tracee was closed.
        points: The breakpoints and watchpoints that are not closed, by their numbers.
    """

    def __init__(
        self, image: Image, channel: Channel | None = None, *, timeout: float | None
    ) -> None:
        self._image = image
        self.timeout = timeout
        self._lock = threading.RLock()
        # An atomic under a hold reads, compares and writes. Without the lock, two threads of the
        # tool could do so at the same time.
        self._atomic_lock = threading.RLock()
        self._in_atomic = False
        self._channel = channel
        self._still: Standstill | None = None
        self._has_no_peer = False
        self._refuses_writes = False
        # References without a callback: see `procvm._base.forks`.
        self._grips: list[weakref.ref[Grip]] = []
        self.closed = False
        self.points: dict[int, Any] = {}
        forks.register(self)

    def request(
        self,
        op: Op,
        *args: object,
        fds: tuple[int, ...] = (),
        timeout: float | Default | None = DEFAULT,
    ) -> Any:
        """Asks the tracer, and waits for the answer; see `Channel.request`."""
        if timeout is DEFAULT:
            # A short time for stops is not meant for the others, a long one is.
            timeout = None if self.timeout is None else max(self.timeout, _ANSWER_TIMEOUT)
        with self._lock:
            still = self._still if op in _MOVING else None
            change = None
            try:
                if still is not None:
                    change = still.pages.begin_change()
                    still.forget()
                return self._open().request(self._image.pid, op, args, fds=fds, timeout=timeout)
            finally:
                if still is not None and change is not None:
                    still.forget()
                    still.pages.end_change(change)

    def _open(self) -> Channel:
        if self.closed:
            pid = self._image.pid
            raise ClosedError(f"process {pid} was detached from", hint=Hint("reopen", {"pid": pid}))
        if self._channel is None or not self.is_open:
            self.drop()
            image = self._image
            files = image.open_files()
            with (
                image.open_pidfd().use() as pidfd,
                files.mem.use() as mem,
                files.maps.use() as maps,
            ):
                self._channel = open_channel(image.pid, pidfd, (mem, maps), image.token_address)
        return self._channel

    @property
    def is_open(self) -> bool:
        """Whether there is a channel to the tracer."""
        return self._channel is not None and not self._channel.closed

    def has_expired(self, hold: int) -> bool:
        """Returns whether a hold ended by its longest time."""
        return self._channel is not None and self._channel.flags.has_expired(hold)

    def remember(self, grip: Grip) -> None:
        """Makes `drop` close a hold of the tool too."""
        self._grips = [ref for ref in self._grips if ref() is not None]
        self._grips.append(weakref.ref(grip))

    def look_for_peers(self) -> None:
        """Looks once through all processes for one that runs in the same address space.

        It takes longer the more processes there are, so it is done before a hold and not in
        it: there only the relatives of the target are asked, which a new peer is one of.

        Raises:
            SharedMemoryError: There is such a process.
        """
        if not self._has_no_peer:
            require_no_peer(self._image.pid, everyone=True)
            self._has_no_peer = True

    def drop(self) -> None:
        """Ends the channel, and with it every hold."""
        still, self._still = self._still, None
        if still is not None:
            still.end()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        # Every hold has ended with the channel, so its socket can be closed.
        grips, self._grips = self._grips, []
        for ref in grips:
            grip = ref()
            if grip is not None:
                grip.abandon()

    def close(self) -> None:
        """Ends the channel for good."""
        self.closed = True
        self.drop()

    def after_fork_in_child(self) -> None:
        """As `close`, in a child that the tool forked."""
        self._lock = threading.RLock()
        self._atomic_lock = threading.RLock()
        self._in_atomic = False
        self.close()

    def standstill(self, cache_len: int = 0) -> Standstill | None:
        """Returns the hold that there is now, or None.

        Args:
            cache_len: Bytes that may be kept of it; the most that was ever said counts.
        """
        channel, still = self._channel, self._still
        if still is None or not still.lasts:
            reliance = None if channel is None else channel.flags.reliance()
            if reliance is None:
                return None
            still = Standstill(self._image, reliance, self.look_for_peers)
            # If two threads get here with a Standstill each, the first one counts.
            if self._still is None or self._still.reliance.held != still.reliance.held:
                self._still = still
                self._image.pages = still.pages
            still = self._still
        still.pages.limit = max(still.pages.limit, cache_len // PAGE_SIZE)
        return still

    def quick_atomic(self, what: Atomic, *, forced: bool) -> bytes | None:
        """Performs an atomic in a hold that has seen one already; see `Holder`."""
        still = self._still
        if still is None or not still.lasts:
            return None
        with self._atomic_lock:
            self._refuse_within()
            try:
                self._in_atomic = True
                return still.atomic(what, forced=forced)
            except NotTracedError:
                self.drop()
                raise
            finally:
                self._in_atomic = False

    def write_ranges(self, ranges: Buffer, data: Buffer) -> int:
        """Has the tracer write to ranges of the held target by one call; see `Holder`."""
        # Another thread may wait in `cont` with the lock, and the target then runs.
        if (
            self._refuses_writes
            or self.standstill() is None
            or not self._lock.acquire(blocking=False)
        ):
            return -1
        try:
            if self._channel is None or self.closed:
                return -1
            answer = self._channel.attempt(self._image.pid, Op.WRITE, (ranges, data))
        except ProcvmError:
            return -1  # perhaps they were written: the caller writes the same bytes again
        finally:
            self._lock.release()
        if answer is None:
            return -1
        done, code = answer
        self._refuses_writes = code in REFUSALS
        return int(done)

    def _refuse_within(self) -> None:
        if self._in_atomic:
            # The lock is the same thread's: a signal handler came between the look and the write.
            raise VmError(
                f"cannot do an atomic on process {self._image.pid}: a signal handler interrupted "
                "another atomic of the same thread; do it after the handler"
            )

    def atomic(self, memory: UserMemory, what: Atomic) -> bytes:
        """Performs an atomic on private memory while the target is held; see `Holder`."""
        with self._atomic_lock:
            self._refuse_within()
            try:
                self._in_atomic = True
                return self._atomic(memory, what)
            except NotTracedError:
                self.drop()
                raise
            finally:
                self._in_atomic = False

    def _atomic(self, memory: UserMemory, what: Atomic) -> bytes:
        self.look_for_peers()
        still = self.standstill()
        if still is not None:
            found, lived = None, True
            try:
                if still.reliance.begin():
                    still.require_alone()
                    found = under_hold(memory, what)
            finally:
                lived = still.reliance.end()
            if not lived:
                raise atomic_cut_short(self._image.pid, still.reliance)
            if found is not None:
                return found
        answer = self.request(
            Op.ATOMIC, self.timeout, memory.is_forced, *what, timeout=self.timeout
        )
        if answer is None:
            raise atomic_fault(self._image, what, forced=memory.is_forced)
        return bytes(answer)
