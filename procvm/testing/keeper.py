"""`Keeper`: a helper process that ends the children of a test process that is killed.

A test process may be killed, or call ``os._exit`` as pytest-timeout does, and then it does not run
its teardown. PR_SET_PDEATHSIG does not help: it reacts to the end of the *thread* that forked,
the child itself must set it, and grandchildren do not inherit it. So a small process has the
pidfds of the children, and waits on the pidfd of the test process.
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
    """The connection of the test process to its keeper process."""

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
        """Makes the keeper watch the children that this thread starts during the ``with``.

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
        """Makes the keeper end a process with this one; `pidfd` must stay open until `drop`.

        Raises:
            OSError: The keeper has been killed.
        """
        socket.send_fds(self._line, [b"+%d" % pid], [pidfd])
        self.kept[pid] = pidfd

    def drop(self, pid: int) -> None:
        """Makes the keeper forget a process that has ended.

        Raises:
            OSError: The keeper has been killed.
        """
        self.kept.pop(pid, None)
        self._line.send(b"-%d" % pid)

    def alive(self) -> bool:
        """Returns whether the keeper process is running."""
        poll = select.poll()
        poll.register(self._line, 0)  # POLLHUP is reported even if no event is requested
        return not poll.poll(0)

    def close(self) -> None:
        """Ends the keeper, which first ends the processes that it still watches."""
        self._line.close()


_lock = threading.Lock()
_running: Keeper | None = None


@atexit.register
def _at_exit() -> None:
    if _running is not None:
        _running.close()


def keeper() -> Keeper:
    """Returns the keeper of this process, and starts it at the first call.

    It stays until the process ends; several runs of pytest in one process share it. If it was
    killed, a new one takes over its processes.

    Raises:
        UnsupportedError: The keeper cannot be started.
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
                f"the helper process that ends what a killed test leaves does not start: {error}"
            ) from error
        if before is not None and before.owner == os.getpid():
            for pid, pidfd in before.kept.items():
                _running.keep(pid, pidfd)
        return _running
