"""`Patches`: patches that are undone after a test."""

from __future__ import annotations

from typing import final

from procvm._base.closing import Closing
from procvm._live.patch import Patch
from procvm._live.process import Process
from procvm._local.buffers import Buffer

__all__ = ["Patches"]


@final
class Patches(Closing):
    """Patches memory when it is called, and undoes all patches at the end of its ``with``.

    Each patch is one of `Process.patch`. The last patch is undone first.
    """

    def __init__(self) -> None:
        self._made: list[Patch] = []

    def __call__(
        self, process: Process, address: int, data: Buffer, *, expect: Buffer | None = None
    ) -> Patch:
        """Writes bytes now, ignoring page permissions, and returns the patch.

        Args:
            process: The process whose memory is written.
            address: The address of the first byte.
            data: The bytes to write.
            expect: The bytes that must be there before, as many as `data`; None accepts any.

        Raises:
            MismatchError: Other bytes are there; nothing was written.
            PageFaultError: The memory is not mapped, or cannot be written; nothing was written.
        """
        patch = process.patch(address, data, expect=expect)
        self._made.append(
            patch
        )  # first: otherwise a Ctrl-C during the write would leave it in place
        patch.__enter__()
        return patch

    def close(self) -> None:
        """Undoes all patches; those of processes that have ended are dropped.

        Raises:
            ClosedError: A process was closed and still runs: its memory stays patched.
            PageFaultError: A place is not mapped any more; all others are undone.
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
