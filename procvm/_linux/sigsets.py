"""Reads the signals that a thread blocks, ignores, catches, or has pending."""

from __future__ import annotations

import signal
from typing import NamedTuple

from procvm._linux import procfs

__all__ = ["SignalSets", "bit", "parse_signal_sets", "read_signal_sets"]

_IGNORED_BY_DEFAULT = (signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD)

_IGNORABLE = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGHUP,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
)
"""Signals whose sending has no other effect than their delivery.

SIGCONT wakes a stopped process, and SIGTSTP, SIGTTIN and SIGTTOU cancel a pending SIGCONT, as
they are sent. A real-time signal that cannot be queued is replaced by SIGIO, which kills.
"""


def bit(signo: int) -> int:
    """Returns the mask of one signal in a signal set."""
    return 1 << (signo - 1)


class SignalSets(NamedTuple):
    """The signal sets of one thread, each as a mask.

    Attributes:
        pending: Sent to the thread itself and not delivered yet.
        shared: Sent to its process and not delivered yet.
        blocked: The signals that it blocks.
        ignored: The signals whose action is SIG_IGN.
        caught: The signals with a handler.
        uids: The real, effective and saved uid of the thread.
    """

    pending: int
    shared: int
    blocked: int
    ignored: int
    caught: int
    uids: tuple[int, ...]

    def free_signal(self) -> int | None:
        """Returns a signal whose delivery the thread would not notice, or None."""
        taken = self.blocked | self.caught
        for signo in _IGNORED_BY_DEFAULT:
            if not taken & bit(signo):
                return int(signo)
        for signo in _IGNORABLE:
            if self.ignored & bit(signo) and not taken & bit(signo):
                return int(signo)
        return None


def parse_signal_sets(data: bytes) -> SignalSets:
    """Parses /proc/PID/status.

    Raises:
        ValueError: A field is missing or not a number.
    """
    fields = procfs.status_fields(data)
    try:
        masks = [int(fields[b"Sig" + name], 16) for name in (b"Pnd", b"Blk", b"Ign", b"Cgt")]
        pending, blocked, ignored, caught = masks
        return SignalSets(
            pending=pending,
            shared=int(fields[b"ShdPnd"], 16),
            blocked=blocked,
            ignored=ignored,
            caught=caught,
            uids=tuple(map(int, fields[b"Uid"].split()))[:3],
        )
    except KeyError as error:
        raise ValueError(f"no {error} in a status file") from None


def read_signal_sets(tid: int) -> SignalSets | None:
    """Returns the signal sets of a thread, or None if it has ended."""
    data = procfs.read_bytes(f"/proc/{tid}/status")
    return parse_signal_sets(data) if data else None
