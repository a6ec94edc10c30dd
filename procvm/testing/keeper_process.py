"""The keeper's process: it ends what a test process leaves behind, however that ended.

It is run by its path, by a Python without `site`, and imports nothing of procvm: a few
milliseconds. The rule by which a process and all that it left are ended is here too, since
the test process uses the same one.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

__all__ = ["end_all"]

_PROCESS_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9): the group is the one that was meant, not its number."""

_PATIENCE = 5.0
_NAP = 0.001
_LOOK = 0.0002
_STATE, _PARENT, _SESSION, _START = 0, 1, 3, 19  # counted from what follows the name


def end_all(processes: dict[int, int]) -> None:
    """Kills processes, each the leader of a session, and all that still belongs to them.

    That is every process of such a session, and every descendant that can still be told
    to be one. Nothing is reaped.

    Args:
        processes: Their pids, each with its pidfd.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        # As long as a leader is not reaped its number is its own, and so is its session's.
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
    """Sends a signal; returns False if nobody is left to take it, or the kernel is too old."""
    try:
        signal.pidfd_send_signal(pidfd, signo, None, flags)
    except OSError:
        return False
    return True


def _kill(pid: int, started: bytes) -> None:
    """Kills a process if the number is still that of the one that `started` then."""
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
    """Returns who lives of the leaders' sessions and descendants: pids with their start times."""
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
    """Returns the fields of /proc/PID/stat that follow the name; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


class Kept:
    """The processes that end with the test process: the pidfd of each, by its pid."""

    def __init__(self, owner: int) -> None:
        self._owner = owner
        self.processes: dict[int, int] = {}
        self.births: dict[int, dict[int, int]] = {}

    def told(self, message: bytes, fds: list[int]) -> None:
        """Takes a message.

        ``+PID``, with a pidfd, and ``-PID``: a process to keep, and no more. ``?TID`` and ``!TID``:
        a thread is about to start one, and has done so, or failed.
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
        """Takes what threads have forked that are about to start a process.

        They tell it themselves in the end; this is for those that do not come to that.
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
        """Ends all."""
        everyone = dict(self.processes)
        for born in self.births.values():
            everyone.update(born)
        end_all(everyone)


def keep(line: socket.socket, owner: int, owner_pidfd: int) -> None:
    """Keeps what the line tells, until the owner ends or closes it; then ends who is left."""
    kept = Kept(owner)
    poll = select.poll()
    poll.register(line, select.POLLIN)
    # Not the line alone: a child that the test process forked has a copy of its other end.
    poll.register(owner_pidfd, select.POLLIN)
    over = False
    while not over:
        if kept.births:
            time.sleep(_LOOK)  # poll itself counts whole milliseconds
            kept.look()
        ready = dict(poll.poll(0 if kept.births else None))
        # What was said before the end counts as well.
        while not over and line.fileno() in dict(poll.poll(0)):
            message, fds, _, _ = socket.recv_fds(line, 64, 4)
            over = not message
            if message:
                kept.told(message, fds)
        over = over or owner_pidfd in ready
    kept.end()


def main(line: int, owner: int, owner_pidfd: int) -> None:
    """Becomes the keeper: a process that belongs to nobody, and that no key ends."""
    # A grandchild, so that the test process has no child but its own.
    if os.fork():
        os._exit(0)
    os.setsid()
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(signo, signal.SIG_IGN)
    try:
        keep(socket.socket(fileno=line), owner, owner_pidfd)
    except OSError:
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
