"""The keeper process: ends the children of a test process after it has ended in any way.

A Python without `site` runs this file by its path. It imports nothing of procvm, so that it starts
in a few milliseconds. `end_all` is here because the test process uses it too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

__all__ = ["end_all"]

_PROCESS_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9): signals the group of a pidfd, not of a reusable pid."""

_PATIENCE = 5.0
_NAP = 0.001
_LOOK = 0.0002
_STATE, _PARENT, _SESSION, _START = 0, 1, 3, 19  # counted from what follows the name


def end_all(processes: dict[int, int]) -> None:
    """Kills session leaders, the other processes of their sessions, and their descendants.

    A descendant whose parents have ended and that left the session is not found. The function
    does not reap.

    Args:
        processes: The pid of each leader, with its pidfd.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        # A pid is not reused before its process is reaped, and neither is the session's ID.
        leaders = {pid for pid, pidfd in processes.items() if _send(pidfd, 0)}
        others = _descendants(leaders)
        for pidfd in processes.values():
            _send(pidfd, signal.SIGKILL)
            _send(pidfd, signal.SIGKILL, _PROCESS_GROUP)
        for pid, started in others.items():
            _kill(pid, started)
        if not others or time.monotonic() > deadline:
            return
        time.sleep(_NAP)


def _send(pidfd: int, signo: int, flags: int = 0) -> bool:
    """Sends a signal; returns False if the process was reaped, or the kernel is too old."""
    try:
        signal.pidfd_send_signal(pidfd, signo, None, flags)
    except OSError:
        return False
    return True


def _kill(pid: int, started: bytes) -> None:
    """Kills a process if its start time is still `started`, so that the pid was not reused."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        stat = _stat(pid)
        if stat is not None and stat[_START] == started:
            _send(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def _descendants(leaders: set[int]) -> dict[int, bytes]:
    """Returns live processes of the sessions and descendants of `leaders`: pid to start time."""
    if not leaders:
        return {}
    stats: dict[int, list[bytes]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            stat = _stat(int(name))
            if stat is not None:
                stats[int(name)] = stat
    found = set(leaders)
    grown = True
    while grown:
        grown = False
        for pid, stat in stats.items():
            if pid in found:
                continue
            if int(stat[_SESSION]) in leaders or int(stat[_PARENT]) in found:
                found.add(pid)
                grown = True
    return {
        pid: stats[pid][_START] for pid in found - leaders if stats[pid][_STATE] not in (b"Z", b"X")
    }


def _stat(pid: int) -> list[bytes] | None:
    """Returns the fields of /proc/PID/stat after the name; None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


class Kept:
    """The processes to end with the test process: pid to pidfd."""

    def __init__(self, owner: int) -> None:
        self._owner = owner
        self.processes: dict[int, int] = {}
        self.births: dict[int, dict[int, int]] = {}

    def told(self, message: bytes, fds: list[int]) -> None:
        """Handles a message.

        ``+PID``, with a pidfd: watch the process. ``-PID``: forget it. ``?TID``: this thread is
        about to start a process. ``!TID``: it has started it, or failed.
        """
        what, number = message[:1], int(message[1:])
        if what == b"+":
            self.processes[number], old = fds[0], self.processes.get(number)
            if old is not None:
                os.close(old)
        elif what == b"-" and number in self.processes:
            os.close(self.processes.pop(number))
        elif what == b"?":
            self.births[number] = {}
        elif what == b"!":
            for pidfd in self.births.pop(number, {}).values():
                os.close(pidfd)

    def look(self) -> None:
        """Finds children of threads that are about to start a process.

        The test process reports a child with ``+PID``. If it is killed before, this has it.
        """
        for tid, born in self.births.items():
            try:
                with open(f"/proc/{self._owner}/task/{tid}/children", "rb") as file:
                    pids = set(map(int, file.read().split()))
            except OSError:
                continue
            for pid in pids - born.keys():
                try:
                    born[pid] = os.pidfd_open(pid)
                except OSError:
                    continue

    def end(self) -> None:
        """Ends all watched processes."""
        everyone = dict(self.processes)
        for born in self.births.values():
            everyone.update(born)
        end_all(everyone)


def keep(line: socket.socket, owner: int, owner_pidfd: int) -> None:
    """Handles messages until the owner ends or closes the line; then ends what is left."""
    kept = Kept(owner)
    poll = select.poll()
    poll.register(line, select.POLLIN)
    # The line alone is not enough: a forked child of the test process has a copy of its other end.
    poll.register(owner_pidfd, select.POLLIN)
    over = False
    while not over:
        if kept.births:
            time.sleep(_LOOK)  # the timeout of poll is in whole milliseconds
            kept.look()
        ready = dict(poll.poll(0 if kept.births else None))
        # Messages sent before the end are still in the queue.
        while not over and line.fileno() in dict(poll.poll(0)):
            message, fds, _, _ = socket.recv_fds(line, 64, 4)
            over = not message
            if message:
                kept.told(message, fds)
        over = over or owner_pidfd in ready
    kept.end()


def main(line: int, owner: int, owner_pidfd: int) -> None:
    """Runs the keeper: an orphan in its own session, which no key of the terminal ends."""
    # A grandchild: otherwise `os.wait` of the test process would see the keeper.
    if os.fork():
        os._exit(0)
    os.setsid()
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(signo, signal.SIG_IGN)
    # A search for a process by its name leaves the keeper out by this name.
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write("procvm-keeper")
    try:
        keep(socket.socket(fileno=line), owner, owner_pidfd)
    except OSError:
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
