"""The messages between the tool and the tracer.

Two kinds of sockets, both SOCK_SEQPACKET: one *control* for the life of the
tracer, over which each tracee's own *channel* is passed. A request is one packet, with
its descriptors; an answer is as many packets as it takes. The end of a socket
lets go of everything that was held by it.
"""

from __future__ import annotations

import array
import marshal
import os
import pickle
import socket
import struct
from enum import IntEnum
from typing import Any, NamedTuple, cast

from procvm._local import atomics, buffers
from procvm._local.buffers import Buffer, Pin
from procvm.errors import ProcvmError

__all__ = [
    "HELLO",
    "SETTLE_TIME",
    "Answers",
    "Flags",
    "Op",
    "Reliance",
    "Request",
    "answer_packets",
    "receive_request",
    "send_request",
]

HELLO = 0
"""The number of the first answer on a control socket, which the tracer sends unasked."""

SETTLE_TIME = 20.0
"""Seconds that `cont` may take to hold the target again after an event."""

_LONGEST = 1 << 17
_MOST_FDS = 5
_PART = struct.Struct("@QB")  # the number of the request, and whether more parts follow
_PART_LEN = 1 << 15


class Op(IntEnum):
    """A request: `OPEN` on the control socket, the others on a channel."""

    STOP = 1
    RESUME = 2
    IS_STOPPED = 3
    OPEN = 4
    ATOMIC = 5
    DETACH = 6
    IMAGE = 7
    AWAIT_EXEC = 8
    GET_REGISTERS = 9
    SET_REGISTERS = 10
    STEP = 11
    CONT = 12
    ECHO = 13
    PENDING = 14
    DELIVER = 15
    GET_FLOATS = 16
    ADD_POINT = 17
    REMOVE_POINT = 18
    CALL = 19
    WRITE = 20


class Request(NamedTuple):
    """A request as it arrived.

    Attributes:
        number: Its number, which its answer carries.
        op: What is asked for.
        args: Its arguments.
        fds: The descriptors that came with it, open.
        complete: Whether all descriptors that were sent did arrive; a receiver
            without free descriptors gets fewer (MSG_CTRUNC).
    """

    number: int
    op: int
    args: tuple[Any, ...]
    fds: list[int]
    complete: bool

    def close(self) -> None:
        """Closes the descriptors."""
        while self.fds:
            os.close(self.fds.pop())


def send_request(
    line: socket.socket, number: int, op: Op, args: tuple[Any, ...], fds: tuple[int, ...] = ()
) -> None:
    """Sends one request, with descriptors beside it.

    Raises:
        OSError: The other side is gone, or the socket is full.
    """
    data = marshal.dumps((number, int(op), len(fds), args))
    if not fds:
        line.send(data)
        return
    line.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def receive_request(line: socket.socket) -> Request | None:
    """Returns the next request, or None at the end of the socket."""
    space = socket.CMSG_SPACE(_MOST_FDS * struct.calcsize("i"))
    data, ancillary, _, _ = line.recvmsg(_LONGEST, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data:
        return None
    number, op, nr_fds, args = cast("tuple[int, int, int, tuple[Any, ...]]", marshal.loads(data))  # noqa: S302 (of our own tool)
    return Request(number, op, args, list(fds), len(fds) == nr_fds)


def answer_packets(number: int, answer: Any) -> list[bytes]:
    """Returns the packets of an answer: a value of plain types, or an error to be raised."""
    good = not isinstance(answer, ProcvmError)
    data = marshal.dumps((good, answer if good else pickle.dumps(answer)))
    # A packet larger than the socket's buffer could not be sent.
    starts = range(0, len(data), _PART_LEN)
    return [
        _PART.pack(number, start + _PART_LEN < len(data)) + data[start : start + _PART_LEN]
        for start in starts
    ]


class Answers:
    """The answers received at one socket of the tool, by the numbers of their requests."""

    def __init__(self) -> None:
        self._whole: dict[int, tuple[bool, Any]] = {}
        self._parts: dict[int, list[bytes]] = {}

    def receive(self, line: socket.socket) -> int | None:
        """Receives one packet; returns the number of a request that is now answered.

        Raises:
            EOFError: The tracer has ended.
            OSError: As recv.
        """
        data = line.recv(_LONGEST)
        if not data:
            raise EOFError
        number, more = _PART.unpack_from(data)
        parts = self._parts.setdefault(number, [])
        parts.append(data[_PART.size :])
        if more:
            return None
        del self._parts[number]
        # The packet comes from the tracer that this process started, so it may be unpickled.
        good, answer = marshal.loads(b"".join(parts))  # noqa: S302
        self._whole[number] = good, answer if good else pickle.loads(answer)  # noqa: S301
        return int(number)

    def __contains__(self, number: int) -> bool:
        return number in self._whole

    def take(self, number: int) -> tuple[bool, Any] | None:
        """Returns (True, value) or (False, error) of a request; None before its answer came."""
        return self._whole.pop(number, None)


class Flags:
    """Three words that both sides map: the present hold, the last that expired or was given up.

    The tracer ends a hold after its longest time. An atomic of the tool that is under way has to
    finish first, so one word has both the number of the hold and the tool's mark that it relies
    on the hold; both sides change it only by locked instructions. The word's lower half is a
    robust futex of the tracing thread: if the tracer is killed, the kernel marks the futex before
    it detaches the target.
    """

    def __init__(self, memory: Buffer) -> None:
        self._pin = buffers.pin(memory, writable=True)
        self._word = self._pin.view.cast("Q")

    @property
    def address(self) -> int:
        """The address of the first word in our own memory."""
        return self._pin.address

    def _swap(self, old: int, new: int) -> bool:
        # SAFETY: `_pin` keeps the mapping of the word.
        return atomics.compare_exchange(self._pin.address, 8, old, new) == old

    @property
    def held(self) -> bool:
        """Whether there is a hold, in which every task of the target is stopped."""
        return self._word[0] & ~_RELIED_ON != 0 and not self._word[0] & _OWNER_DIED

    def begin(self, hold: int, tid: int) -> None:
        """Announces a hold; only the tracer calls it.

        Args:
            hold: A number that is larger than those of earlier holds of the target.
            tid: The thread that holds.
        """
        while True:
            old = self._word[0]
            if self._swap(old, hold << _HOLD_SHIFT | old & _RELIED_ON | tid):
                return

    def end(self) -> bool:
        """Announces the end of the hold; returns whether the tool relied on it."""
        while True:
            old = self._word[0]
            if self._swap(old, old & _RELIED_ON):
                return bool(old & _RELIED_ON)

    def expire(self) -> None:
        """Records that the present hold's longest time is over; only the tracer calls it."""
        self._word[_EXPIRED] = self._word[0] >> _HOLD_SHIFT

    def has_expired(self, hold: int) -> bool:
        """Returns whether the longest time of a hold, or of a later one, was over."""
        return self._word[_EXPIRED] >= hold

    def give_up_waiting(self, hold: int) -> None:
        """Records that a hold ends before an atomic of the tool does; the tracer calls it."""
        self._word[_GIVEN_UP] = hold

    @property
    def relied_on(self) -> bool:
        """Whether the tool still relies on a hold that has ended."""
        return self._swap(_RELIED_ON, _RELIED_ON)

    def reliance(self) -> Reliance | None:
        """Returns the tool's `Reliance` on the present hold, or None if there is none."""
        word = self._word[0] & ~_RELIED_ON
        return Reliance(self._pin, word) if word and not word & _OWNER_DIED else None


_EXPIRED, _GIVEN_UP = 1, 2  # indices of the words
_OWNER_DIED = 0x40000000  # FUTEX_OWNER_DIED
_RELIED_ON = 1 << 32
_HOLD_SHIFT = 33


class Reliance:
    """The tool's side of `Flags`, for one hold and one thread at a time.

    Attributes:
        word: The word that both sides map, as a view of one element.
        held: The value of the word while the target is held and no atomic relies on it.
        given_up: Whether the tracer ended the hold during the last atomic.
    """

    def __init__(self, pinned: Pin, held: int) -> None:
        self.word = pinned.view.cast("Q")
        self.held = held
        self.given_up = False
        self._number = held >> _HOLD_SHIFT
        # SAFETY: `word` keeps the mapping for as long as these are used.
        self._begin = atomics.prepare(pinned.address, 8, held, held | _RELIED_ON)
        self._end = atomics.prepare(pinned.address, 8, held | _RELIED_ON, held)
        self._address = pinned.address

    def __bool__(self) -> bool:
        """Whether the hold lasts."""
        return self.word[0] & ~_RELIED_ON == self.held

    @property
    def ended_by_itself(self) -> bool:
        """Whether the hold ended by its longest time or with the tracer."""
        word = self.word[0]
        died = bool(word & _OWNER_DIED) and word >> _HOLD_SHIFT == self._number
        return died or self.word[_EXPIRED] >= self._number

    def begin(self) -> bool:
        """Begins to rely on the hold; returns whether it lasts. `end` ends it, in both cases."""
        return self._begin() == self.held

    def end(self) -> bool:
        """Ends what `begin` began; returns whether the hold lasted until here.

        If it did not (the tracer died, or gave up waiting), the target may have run meanwhile.
        """
        old = self._end()
        while old & _RELIED_ON and old != self.held | _RELIED_ON:
            # SAFETY: `word` keeps the mapping.
            found = atomics.compare_exchange(self._address, 8, old, old & ~_RELIED_ON)
            if found == old:
                break
            old = found
        # Also where the hold is there again, as after a `cont`.
        self.given_up = self.word[_GIVEN_UP] == self._number
        if self.given_up:
            self.word[_GIVEN_UP] = 0
        return not (old & _OWNER_DIED or self.given_up)
