"""`Line`: a socket to the tracer, on which requests go out and answers come in."""

from __future__ import annotations

import select
import socket
import time
from typing import Any

from procvm._hold.server import protocol
from procvm._hold.server.protocol import HELLO, Answers, Op

__all__ = ["Line"]


class Line:
    """A socket to the tracer, with the answers received from it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._number = HELLO
        self._answers = Answers()
        self._waiting: set[int] = set()

    def ask(
        self, op: Op, args: tuple[object, ...], fds: tuple[int, ...], limit: float | None
    ) -> tuple[bool, Any]:
        """Sends a request, and waits for its answer.

        Returns:
            True and the value, or False and the error.

        Raises:
            TimeoutError: No answer came within `limit` seconds.
            EOFError: The tracer has ended.
            OSError: As send and recv.
        """
        number = self._number = self._number + 1
        self._waiting.add(number)
        try:
            protocol.send_request(self._line, number, op, args, fds)
            return self.await_answer(number, limit)
        finally:
            self._waiting.discard(number)

    def await_answer(self, number: int, limit: float | None) -> tuple[bool, Any]:
        """Waits for the answer to a request that was sent; see `ask`."""
        until = None if limit is None else time.monotonic() + limit
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        while (found := self._answers.take(number)) is None:
            left = None if until is None else max(until - time.monotonic(), 0) * 1000
            if not poll.poll(left):
                raise TimeoutError
            whose = self._answers.receive(self._line)
            if whose == number or whose is None:
                continue
            if whose in self._waiting:
                # A signal handler makes this request in the middle of another one,
                # which waits for something to arrive.
                protocol.send_request(self._line, whose, Op.ECHO, ())
            else:
                self._answers.take(whose)
        return found

    @property
    def closed(self) -> bool:
        """Whether the socket was closed."""
        return self._line.fileno() < 0

    def close(self) -> None:
        """Closes the socket. May be called twice."""
        self._line.close()
