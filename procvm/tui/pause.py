"""`Pause`: holds the target for the viewer, and resumes it however the viewer ends."""

from __future__ import annotations

import time

from procvm._base.closing import Closing
from procvm._hold.held import Held
from procvm._hold.spawn import attach
from procvm._hold.tracee import Tracee
from procvm._live.process import Process

__all__ = ["Pause"]


class Pause(Closing):
    """The holds of one process; `close` resumes and detaches it.

    Attributes:
        longest: Seconds after which a hold ends by itself.
    """

    def __init__(self, process: Process, longest: float) -> None:
        self.longest = longest
        self._process = process
        self._tracee: Tracee | None = None
        self._held: Held | None = None
        self._until = 0.0
        self._is_over = False

    @property
    def is_held(self) -> bool:
        """Whether a hold was begun and not ended; `look` checks that it lasts."""
        return self._held is not None

    @property
    def left(self) -> float:
        """Seconds until the hold ends by itself."""
        return max(self._until - time.monotonic(), 0.0)

    def begin(self) -> bool:
        """Holds the process; returns False if `close` was called meanwhile, else True.

        Raises:
            AlreadyTracedError: Another process traces it.
            AccessDeniedError: This user may not trace it.
            StopTimeoutError: It could not be stopped.
            ProcessExitedError: It has ended.
            ProcessExecedError: It runs another program.
        """
        if self._held is not None:
            return True
        if self._tracee is None:
            self._tracee = attach(self._process.pid, longest_hold=self.longest)
        self._until = time.monotonic() + self.longest
        self._held = self._tracee.stopped()
        try:
            # Raises if the pid belongs to another process by now.
            self._process.find_vma(0)
        except BaseException:
            self._detach()
            raise
        if self._is_over:
            self._detach()
        return not self._is_over

    def look(self) -> bool:
        """Returns whether the hold lasts; forgets one that ended by itself.

        Raises:
            ProcessExitedError: The process has ended.
        """
        if self._held is None or self._tracee is None:
            return False
        if self._tracee.is_stopped():
            return True
        self.end()
        return False

    def address(self, expression: str) -> int:
        """Returns the address of an expression; while held it may name registers.

        Raises:
            ProcvmError: As `Tracee.address`.
        """
        held = self._tracee if self._held is not None else None
        return (held or self._process).address(expression)

    def end(self) -> None:
        """Resumes the process. May be called twice."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def close(self) -> None:
        """Resumes the process and detaches from it. May be called twice, and during `begin`."""
        self._is_over = True
        self._detach()

    def _detach(self) -> None:
        self.end()
        tracee, self._tracee = self._tracee, None
        if tracee is not None:
            tracee.close()
