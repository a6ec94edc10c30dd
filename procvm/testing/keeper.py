"""`Keeper`: what ends the children of a test process that has no time to do it itself.

A test process may be killed, or call ``os._exit`` as pytest-timeout does, and then runs none of
its teardown. PR_SET_PDEATHSIG would not do: it obeys the end of the *thread* that
forked, it has to be asked for by the child itself, and grandchildren do not have it. So
a small process waits for the end of the test process, by its pidfd, and has the pidfds of
its children.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

from procvm.errors import UnsupportedError
from procvm.testing import keeper_process

__all__ = ["Keeper", "keeper"]


class Keeper:
    """The test process's end of its keeper."""

    def __init__(self) -> None:
        if not sys.executable:
            raise UnsupportedError("this Python does not know its own program (sys.executable)")
        self.owner = os.getpid()
        self.kept: dict[int, int] = {}
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        owner = os.pidfd_open(self.owner)
        try:
            with theirs:
                subprocess.run(
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        keeper_process.__file__,
                        str(theirs.fileno()),
                        str(self.owner),
                        str(owner),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), owner],
                    cwd="/",
                    check=True,
                )
        except BaseException:
            self._line.close()
            raise
        finally:
            os.close(owner)

    @contextmanager
    def birth(self) -> Generator[None]:
        """Has whatever this thread starts meanwhile ended with the test process.

        Raises:
            OSError: The keeper has been killed.
        """
        tid = threading.get_native_id()
        self._line.send(b"?%d" % tid)
        try:
            yield
        finally:
            self._line.send(b"!%d" % tid)

    def keep(self, pid: int, pidfd: int) -> None:
        """Has a process ended with the test process; `pidfd` stays open until it is dropped.

        Raises:
            OSError: The keeper has been killed.
        """
        socket.send_fds(self._line, [b"+%d" % pid], [pidfd])
        self.kept[pid] = pidfd

    def drop(self, pid: int) -> None:
        """Has it left alone: it has ended.

        Raises:
            OSError: The keeper has been killed.
        """
        self.kept.pop(pid, None)
        self._line.send(b"-%d" % pid)

    def alive(self) -> bool:
        """Returns whether it is there."""
        poll = select.poll()
        poll.register(self._line, 0)  # the end of the other side is told unasked
        return not poll.poll(0)

    def close(self) -> None:
        """Ends it; it ends whomever it still keeps."""
        self._line.close()


_lock = threading.Lock()
_running: Keeper | None = None


@atexit.register
def _at_exit() -> None:
    if _running is not None:
        _running.close()


def keeper() -> Keeper:
    """Returns the keeper of this process, started if there is none.

    It stays until the process ends: several runs of pytest in one process share it. Another
    one takes over from one that was killed.

    Raises:
        UnsupportedError: It can not be started.
    """
    global _running  # noqa: PLW0603 (one serves all of the process)
    with _lock:
        before = _running
        if before is not None and before.owner == os.getpid() and before.alive():
            return before
        if before is not None:
            before.close()
        try:
            _running = Keeper()
        except (OSError, subprocess.SubprocessError) as error:
            raise UnsupportedError(
                f"the process that ends what a killed test leaves does not start: {error}"
            ) from error
        if before is not None and before.owner == os.getpid():
            for pid, pidfd in before.kept.items():
                _running.keep(pid, pidfd)
        return _running
