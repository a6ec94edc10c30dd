"""`Spawned`: a started process that is not traced, with its pipes."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Any, NoReturn, final

from procvm._hold.tracee import wait_for
from procvm._live.image import open_image
from procvm._live.process import Process
from procvm.errors import ProcessExitedError

__all__ = ["Spawned"]

_OF_OPEN = ("_image", "_memory", "_subject", "_vm")


@final
class Spawned(Process):
    """A started process that is not traced: a `Process` with pipes, as subprocess.Popen has.

    It runs before procvm opens it. If it ends in that time, each use of its memory raises
    ProcessExitedError, while its exit status and its pipes remain usable.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        with contextlib.suppress(ProcessExitedError):
            super().__init__(open_image(popen.pid))

    if not TYPE_CHECKING:  # with it, type checkers would accept every attribute

        def __getattr__(self, name: str) -> NoReturn:
            if name in _OF_OPEN:
                raise ProcessExitedError(
                    f"process {self.pid} had ended before it could be opened", pid=self.pid
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return super().__repr__() if self._was_opened else f"<{type(self).__name__} {self.pid}>"

    @property
    def _was_opened(self) -> bool:
        return "_image" in vars(self)

    @property
    def pid(self) -> int:
        """The pid of the process."""
        return self._popen.pid

    def is_alive(self) -> bool:
        """Returns whether the process has not ended; see `Process.is_alive`."""
        return self._was_opened and super().is_alive()

    def close(self) -> None:
        """Closes the access to its memory; the process runs on. See `Process.close`."""
        if self._was_opened:
            super().close()

    @property
    def stdin(self) -> Any:
        """The pipe to its standard input; None without one."""
        return self._popen.stdin

    @property
    def stdout(self) -> Any:
        """The pipe from its standard output; None without one."""
        return self._popen.stdout

    @property
    def stderr(self) -> Any:
        """The pipe from its standard error; None without one."""
        return self._popen.stderr

    @property
    def returncode(self) -> int | None:
        """The exit status from the last `wait` or `poll`; None while it runs."""
        return self._popen.returncode

    def poll(self) -> int | None:
        """Returns the exit status, or None while the process runs; reaps it if it has ended."""
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the process has ended, reaps it, and returns the exit status.

        Raises:
            WaitTimeoutError: It has not ended within `timeout` seconds.
            ValueError: `timeout` is negative, infinite or nan.
        """
        return wait_for(self._popen, timeout)

    def kill(self) -> None:
        """Kills the process with SIGKILL; does nothing if it has ended."""
        self._popen.kill()
