"""`Patches`: changes of memory that are undone after a test."""

from __future__ import annotations

from typing import final

from procvm._base.closing import Closing
from procvm._live.patch import Patch
from procvm._live.process import Process
from procvm._local.buffers import Buffer

__all__ = ["Patches"]


@final
class Patches(Closing):
    """Changes memory of processes until it is closed: a context manager, and a function to call.

    See `Process.patch`, of which it makes many. What was patched last is undone first.
    """

    def __init__(self) -> None:
        self._made: list[Patch] = []

    def __call__(
        self, process: Process, address: int, data: Buffer, *, expect: Buffer | None = None
    ) -> Patch:
        """Writes bytes now, whatever the pages allow; returns what is in place.

        Args:
            process: Whose memory.
            address: Where to write.
            data: What to write.
            expect: What has to be there before, as many bytes; without it anything.

        Raises:
            MismatchError: Something else is there; nothing was written.
            PageFaultError: It can not be written.
        """
        patch = process.patch(address, data, expect=expect)
        self._made.append(patch)  # first: it is undone if Ctrl-C comes just then
        patch.__enter__()
        return patch

    def close(self) -> None:
        """Undoes all of it. What a process that has ended had in its memory is gone anyway.

        Raises:
            ClosedError: A process was closed that still lives: its memory stays patched.
            PageFaultError: Something is not mapped any more; all else is undone.
        """
        failures: list[Exception] = []
        while self._made:
            patch = self._made.pop()
            if not patch.old:
                continue  # it never was in place
            try:
                patch.__exit__(None, None, None)
            except Exception as error:  # noqa: BLE001 (raised below, when all is undone)
                failures.append(error)
        if len(failures) == 1:
            raise failures.pop()
        if failures:
            raise ExceptionGroup("patches that could not be undone", failures)
