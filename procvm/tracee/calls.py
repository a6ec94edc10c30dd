"""A tracee's requests to the tracer, and its atomics, which seldom need one."""

from __future__ import annotations

import threading
from typing import Any

from procvm.errors import ClosedError, NotTracedError, VmError
from procvm.process.atomic import Atomic, require_no_peer, under_hold
from procvm.process.image import Image
from procvm.process.memory import ProcessMemory
from procvm.tracee.held import Standstill
from procvm.tracee.tracer import Channel, open_channel
from procvm.tracer.protocol import Op

__all__ = ["CACHE_LEN", "STOP_TIMEOUT", "Calls"]

STOP_TIMEOUT = 2.0
"""Seconds that a stop may take, unless it is told otherwise."""

CACHE_LEN = 1 << 20
"""Bytes that `Held.vm` keeps, unless it is told otherwise."""

_MOVING = frozenset({Op.STEP, Op.CONT})


class _OneAtomic:
    """One atomic at a time: it is one step to the target, and to the tool's threads as well."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._lock = threading.RLock()
        self._under_way = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._under_way:
            # The same thread: between the look and the write of the other one.
            self._lock.release()
            raise VmError(
                f"an atomic on process {self._pid} was begun by a signal handler in the middle of "
                "another one; do it after the handler"
            )
        self._under_way = True

    def __exit__(self, *_: object) -> None:
        self._under_way = False
        self._lock.release()


class Calls:
    """One tracee's requests to the tracer, and the atomics that use them."""

    def __init__(self, image: Image, channel: Channel | None = None) -> None:
        self._image = image
        self._lock = threading.RLock()
        self._one_atomic = _OneAtomic(image.pid)
        self._channel = channel
        self._still: Standstill | None = None
        self.closed = False

    def request(
        self, op: Op, *args: object, fds: tuple[int, ...] = (), timeout: float | None = STOP_TIMEOUT
    ) -> Any:
        """Asks the tracer, and waits for the answer; see `Channel.request`."""
        with self._lock:
            try:
                return self._open().request(self._image.pid, op, args, fds=fds, timeout=timeout)
            finally:
                if op in _MOVING and self._still is not None:
                    self._still.forget()

    def _open(self) -> Channel:
        if self.closed:
            raise ClosedError(f"process {self._image.pid} was detached from; attach again")
        if self._channel is None or self._channel.closed:
            self.drop()
            self._channel = open_channel(self._image.pid, self._image.open_pidfd().number)
        return self._channel

    def drop(self) -> None:
        """Ends the channel, and with it every hold."""
        still, self._still = self._still, None
        if still is not None:
            still.end()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Ends the channel for good."""
        self.closed = True
        self.drop()

    def forget(self) -> None:
        """As `close`, in a child that the tool forked."""
        self._lock = threading.RLock()
        self._one_atomic = _OneAtomic(self._image.pid)
        self.close()

    def standstill(self, cache_len: int = CACHE_LEN) -> Standstill | None:
        """Returns the hold that there is now, or None."""
        channel = self._channel
        number = 0 if channel is None else channel.flags.hold
        if channel is None or not number:
            return None
        if self._still is None or self._still.number != number:
            self._still = Standstill(self._image, channel, number, cache_len)
        return self._still

    def quick_atomic(self, what: Atomic, *, forced: bool) -> bytes | None:
        """Performs an atomic in a hold that has seen one already; see `Holder`."""
        still = self._still
        if still is None or not still.lasts:
            return None
        with self._one_atomic:
            try:
                return still.atomic(what, forced=forced)
            except NotTracedError:
                self.drop()
                raise

    def atomic(self, memory: ProcessMemory, what: Atomic) -> bytes:
        """Performs an atomic on private memory while the target is held; see `Holder`."""
        with self._one_atomic:
            channel = self._channel
            # The tracer's word for a hold outlives a tracer that was killed, and the hold does not.
            if channel is not None and channel.alive() and (still := self.standstill()):
                try:
                    if still.reliance.begin():
                        still.require_alone()
                        found = under_hold(memory, what)
                        still.require_alive()
                        return found
                except NotTracedError:
                    self.drop()
                    raise
                finally:
                    still.reliance.end()
            if self._channel is None or not self._channel.image_named:
                require_no_peer(self._image.pid, everyone=True)
            self._name_image()
            return bytes(self.request(Op.ATOMIC, STOP_TIMEOUT, memory.is_forced, *what))

    def _name_image(self) -> None:
        """Gives the tracer our own descriptors of the program, once a channel."""
        with self._lock:
            channel = self._open()
            if channel.image_named:
                return
            files = self._image.open_files()
            fds = (files.mem.number, files.maps.number)
            self.request(Op.IMAGE, self._image.token_address, files.writable, fds=fds)
            channel.image_named = True
