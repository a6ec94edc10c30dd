"""What the tool and the tracer say to each other.

Two kinds of sockets, both SOCK_SEQPACKET: one *control* for the life of the
tracer, over which each tracee's own *channel* is passed; a request and its
answer are one packet each. The end of a socket means: let go of everything.
"""

from __future__ import annotations

import array
import marshal
import pickle
import socket
import struct
from enum import IntEnum
from typing import Any, cast

from procvm.errors import ProcvmError
from procvm.own import atomics, buffers
from procvm.own.buffers import Buffer, Pin

__all__ = [
    "Flags",
    "Op",
    "Reliance",
    "receive",
    "receive_answer",
    "send",
    "send_answer",
    "send_error",
]

_LONGEST = 1 << 16
_FDS = 4


class Op(IntEnum):
    """A request on a channel."""

    STOP = 1
    RESUME = 2
    IS_STOPPED = 3
    THREADS = 4
    ATOMIC = 5
    DETACH = 6
    IMAGE = 7
    AWAIT_EXEC = 8
    GET_REGISTERS = 9
    SET_REGISTERS = 10
    STEP = 11
    CONT = 12
    ECHO = 13


def send(channel: socket.socket, message: tuple[Any, ...], fds: tuple[int, ...] = ()) -> None:
    """Sends one packet, with descriptors beside it.

    Raises:
        OSError: The other side is gone.
    """
    data = marshal.dumps(message)
    if not fds:
        channel.send(data)
        return
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    channel.sendmsg([data], ancillary)


def receive(channel: socket.socket) -> tuple[tuple[Any, ...], list[int]] | None:
    """Returns the next packet and its descriptors, or None at the end of the socket."""
    space = socket.CMSG_SPACE(_FDS * struct.calcsize("i"))
    data, ancillary, _, _ = channel.recvmsg(_LONGEST, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data:
        return None
    return cast("tuple[Any, ...]", marshal.loads(data)), list(fds)


def send_answer(channel: socket.socket, number: int, value: Any = None) -> None:
    """Answers request `number` with a value of plain types."""
    channel.send(marshal.dumps((number, True, value)))


def send_error(channel: socket.socket, number: int, error: ProcvmError) -> None:
    """Answers request `number` with an error, which is raised at the other side."""
    channel.send(marshal.dumps((number, False, pickle.dumps(error))))


def receive_answer(channel: socket.socket) -> tuple[int, bool, Any]:
    """Returns (number, True, value) or (number, False, error): what a request was answered with.

    Raises:
        EOFError: The tracer is gone.
    """
    data = channel.recv(_LONGEST)
    if not data:
        raise EOFError
    number, good, value = marshal.loads(data)
    # SAFETY: the packet comes from the tracer that this process started.
    return number, good, value if good else pickle.loads(value)


class Flags:
    """A word that both sides map: which hold there is, and whether it is relied on.

    A hold has a longest time, after which the tracer lets go whatever the tool
    does. So that it never does so in the middle of an atomic of the tool, the
    number of the hold (times two) and the tool's mark that it relies on it
    (one) are one word, which both change by locked instructions only.
    """

    def __init__(self, memory: Buffer) -> None:
        self._pin = buffers.pin(memory, writable=True)
        self._word = self._pin.view.cast("Q")

    def _swap(self, old: int, new: int) -> bool:
        # SAFETY: `_pin` keeps the mapping of the word.
        return atomics.compare_exchange(self._pin.address, 8, old, new) == old

    @property
    def hold(self) -> int:
        """The number of the hold in which every task of the target is stopped; 0 for none."""
        return self._word[0] // 2

    def begin(self, hold: int) -> None:
        """Says which hold there is, when there was none; the tracer alone does."""
        while not (self._swap(0, hold * 2) or self._swap(1, hold * 2 + 1)):
            pass  # the tool's mark went, or came, between the two

    def end(self) -> bool:
        """Says that there is no hold any more; returns whether the tool relied on it just now."""
        hold = self.hold
        while True:
            if self._swap(hold * 2, 0):
                return False
            if self._swap(hold * 2 + 1, 1):
                return True

    @property
    def relied_on(self) -> bool:
        """Whether the tool relies on the hold just now."""
        return self._swap(1, 1)

    def reliance(self, hold: int) -> Reliance:
        """Returns what the tool relies on one hold by."""
        return Reliance(self._pin, hold)


class Reliance:
    """The tool's side of `Flags`, for one hold and one thread at a time.

    Attributes:
        word: The word that both sides map, as a view of one element.
        held: What stands there while the target is held and nothing relies on it.
    """

    def __init__(self, held: Pin, hold: int) -> None:
        self.word = held.view.cast("Q")
        self.held = hold * 2
        # SAFETY: `word` keeps the mapping for as long as these are used.
        self._begin = atomics.prepare(held.address, 8, self.held, self.held + 1)
        self._end = atomics.prepare(held.address, 8, self.held + 1, self.held)
        self._end_late = atomics.prepare(held.address, 8, 1, 0)

    def __bool__(self) -> bool:
        """Whether the hold lasts."""
        return self.word[0] // 2 == self.held // 2

    def begin(self) -> bool:
        """Begins to rely on the hold; returns whether it lasts. `end` ends it, in both cases."""
        return self._begin() == self.held

    def end(self) -> None:
        """Ends what `begin` began."""
        if self._end() == 1:
            self._end_late()
