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
    number of the hold and the tool's mark that it relies on it are one word,
    which both change by locked instructions only. Its lower half is a robust
    futex of the thread that holds: should the tracer be killed, the kernel marks
    it before it lets the target go.
    """

    def __init__(self, memory: Buffer) -> None:
        self._pin = buffers.pin(memory, writable=True)
        self._word = self._pin.view.cast("Q")

    @property
    def address(self) -> int:
        """Where the word stands in our own memory."""
        return self._pin.address

    def _swap(self, old: int, new: int) -> bool:
        # SAFETY: `_pin` keeps the mapping of the word.
        return atomics.compare_exchange(self._pin.address, 8, old, new) == old

    @property
    def held(self) -> bool:
        """Whether there is a hold, in which every task of the target is stopped."""
        return self._word[0] & ~_RELIED_ON != 0 and not self._word[0] & _OWNER_DIED

    def begin(self, hold: int, tid: int) -> None:
        """Says that there is a hold; the tracer alone does.

        Args:
            hold: A number that no other hold of the target has.
            tid: The thread that holds.
        """
        while True:
            old = self._word[0]
            if self._swap(old, hold << _HOLD_SHIFT | old & _RELIED_ON | tid):
                return

    def end(self) -> bool:
        """Says that there is no hold any more; returns whether the tool relied on it just now."""
        while True:
            old = self._word[0]
            if self._swap(old, old & _RELIED_ON):
                return bool(old & _RELIED_ON)

    @property
    def relied_on(self) -> bool:
        """Whether the tool still relies on a hold that has ended."""
        return self._swap(_RELIED_ON, _RELIED_ON)

    def reliance(self) -> Reliance | None:
        """Returns what the tool relies on the present hold by, or None if there is none."""
        word = self._word[0] & ~_RELIED_ON
        return Reliance(self._pin, word) if word and not word & _OWNER_DIED else None


_OWNER_DIED = 0x40000000  # FUTEX_OWNER_DIED
_RELIED_ON = 1 << 32
_HOLD_SHIFT = 33


class Reliance:
    """The tool's side of `Flags`, for one hold and one thread at a time.

    Attributes:
        word: The word that both sides map, as a view of one element.
        held: What stands there while the target is held and nothing relies on it.
    """

    def __init__(self, pinned: Pin, held: int) -> None:
        self.word = pinned.view.cast("Q")
        self.held = held
        # SAFETY: `word` keeps the mapping for as long as these are used.
        self._begin = atomics.prepare(pinned.address, 8, held, held | _RELIED_ON)
        self._end = atomics.prepare(pinned.address, 8, held | _RELIED_ON, held)
        self._address = pinned.address

    def __bool__(self) -> bool:
        """Whether the hold lasts."""
        return self.word[0] & ~_RELIED_ON == self.held

    def begin(self) -> bool:
        """Begins to rely on the hold; returns whether it lasts. `end` ends it, in both cases."""
        return self._begin() == self.held

    def end(self) -> bool:
        """Ends what `begin` began; returns whether the tracer lived until here."""
        old = self._end()
        if old == self.held | _RELIED_ON:
            return True
        while old & _RELIED_ON:
            # SAFETY: `word` keeps the mapping.
            found = atomics.compare_exchange(self._address, 8, old, old & ~_RELIED_ON)
            if found == old:
                break
            old = found
        return not old & _OWNER_DIED
