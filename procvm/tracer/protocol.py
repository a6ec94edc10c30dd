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
from procvm.own.buffers import Buffer

__all__ = ["Flags", "Op", "receive", "receive_answer", "send", "send_answer", "send_error"]

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
    """Two words that both sides map: which hold there is, and whether it is relied on.

    A hold has a longest time, after which the tracer lets go whatever the tool
    does. So that it never does so in the middle of an atomic of the tool, each
    side announces itself before it looks at the other's word; the locked
    instructions that they do it with order the two.
    """

    _HOLD = 0
    _BUSY = 8

    def __init__(self, memory: Buffer) -> None:
        self._pin = buffers.pin(memory, writable=True)
        self._at = self._pin.address

    def _swap(self, offset: int, old: int, new: int) -> int:
        # SAFETY: `_pin` keeps the mapping of both words.
        return atomics.compare_exchange(self._at + offset, 8, old, new)

    @property
    def hold(self) -> int:
        """The number of the hold in which every task of the target is stopped; 0 for none."""
        return self._swap(self._HOLD, 0, 0)

    def set_hold(self, hold: int) -> None:
        """Says which hold there is, or 0 for none; the tracer alone does."""
        self._swap(self._HOLD, self.hold, hold)  # nobody else writes the word

    def rely(self) -> int:
        """Begins to rely on the hold; returns its number, or 0. If there is one, `done` ends it."""
        self._swap(self._BUSY, 0, 1)
        hold = self.hold
        if not hold:
            self.done()
        return hold

    def done(self) -> None:
        """Ends what `rely` began."""
        self._swap(self._BUSY, 1, 0)

    @property
    def relied_on(self) -> bool:
        """Whether the tool relies on the hold just now."""
        return self._swap(self._BUSY, 1, 1) == 1
