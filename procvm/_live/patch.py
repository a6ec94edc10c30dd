"""`Patch`: a temporary change of a process's memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple, Self, final

from procvm._base.address import check_range, page_end
from procvm._base.closing import Closing
from procvm._base.fd import Fd
from procvm._local.buffers import Buffer, view_of
from procvm._mm.local import OwnMemory
from procvm._saved.diff import Run
from procvm._space.space import VmSpace
from procvm.errors import (
    Hint,
    InvalidArgsError,
    MismatchError,
    NotStoppedError,
    PageFaultError,
    ProcessExecedError,
    ProcessExitedError,
    ProcvmError,
)

__all__ = ["Patch"]


class _Site(NamedTuple):
    address: int
    data: bytes
    expect: bytes | None


@final
class Patch(Closing):
    r"""Temporarily replaces bytes of a process and restores them on exit.

    ::

        with process.patch(0x401000, b"\x90\x90", expect=b"\x74\x0a") as patch:
            ...

    At the start each site is compared with the bytes that are expected there, and nothing is
    written if one differs. Then all sites are written and read back; if one fails, those before
    it are undone. At the end, also after an exception, each site gets its old bytes back, even if
    the target has changed them since. A `Tracee` is held at the start and at the end, so that its
    threads see all sites change at once; other processes that share the memory run on. A process
    that has ended or runs another program by the end needs no undoing.

    A patch that is dropped while it is in place is not undone: the garbage collector would write
    to the target at an arbitrary moment. It gives a ResourceWarning. Without a ``with``, `close`
    ends the patch, and so does `Process.close`.

    Attributes:
        old: The old bytes of each site by its address, while the patch is in place.
        overwritten: After the end: where the target itself had changed patched bytes, as runs
            of (address, the patched bytes, the bytes found at the end).
    """

    def __init__(
        self, vm: VmSpace, hold: Callable[[], AbstractContextManager[object]], pid: int
    ) -> None:
        self._vm = vm.forced()
        self._pid = pid
        self._hold = hold
        self._sites: list[_Site] = []
        self._in_place = False
        self._owner = 0
        self._warning: Fd | None = None
        # The sites of which at least the first byte may be written, in order.
        self._written: list[_Site] = []
        self.old: dict[int, bytes] = {}
        self.overwritten: list[Run] = []

    def __repr__(self) -> str:
        state = "in place" if self._in_place else "not in place"
        return f"<Patch of {len(self._sites)} sites, {state}>"

    def also(self, address: int, data: Buffer, *, expect: Buffer | None = None) -> Self:
        """Adds a site; returns the same patch.

        Args:
            address: The address of the first byte.
            data: The bytes to write.
            expect: The bytes that must be there before, as many as `data` has; None for any.

        Raises:
            InvalidArgsError: `expect` has another length than `data`, or the site overlaps
                another one.
            ValueError: The patch is in place already.
        """
        if self._in_place:
            raise ValueError("the patch is in place: add sites before the with statement")
        wanted, needed = _bytes(data), None if expect is None else _bytes(expect)
        address, n = check_range(address, len(wanted))
        if needed is not None and len(needed) != n:
            raise InvalidArgsError(f"expect has {len(needed)} bytes, and data {n}: give as many")
        for site in self._sites:
            if address < site.address + len(site.data) and site.address < address + n:
                raise InvalidArgsError(
                    f"[{address:#x}, {address + n:#x}) overlaps the site at {site.address:#x}"
                )
        if n:
            self._sites.append(_Site(address, wanted, needed))
        return self

    def __enter__(self) -> Self:
        """Writes all sites.

        Raises:
            MismatchError: A site has other bytes than expected, and nothing was written; or the
                target overwrote a site at once, and all were undone.
            PageFaultError: A site cannot be read or written; all were undone.
            NotStoppedError: The hold of a `Tracee` ended before all were written; all were undone.
        """
        if self._in_place:
            raise ValueError("the patch is in place already")
        self.overwritten = []
        try:
            with self._hold():
                lasts = self._vm.memory.lasting()
                self.old = {site.address: self._checked(site) for site in self._sites}
                self._in_place, self._owner = True, os.getpid()
                self._warn_if_dropped()
                try:
                    for site in self._sites:
                        over = self._hold_over(lasts, "patched")
                        if over is not None:
                            raise over
                        self._written.append(site)
                        self._put(site.address, site.data)
                except BaseException as error:
                    # Here, since the target may still be held. Sites that were not written are
                    # left alone.
                    self._undo_after(error)
                    raise
            return self  # noqa: TRY300 (Ctrl-C just before it undoes it as well)
        except BaseException as error:
            self._undo_after(error)
            self.overwritten = []
            raise

    def _hold_over(self, lasts: Callable[[], bool] | None, what: str) -> NotStoppedError | None:
        """Returns the error for a hold that has ended since `lasts` was taken, or None."""
        if lasts is None or lasts():
            return None
        pid = self._vm.memory.pid
        return NotStoppedError(
            f"the hold on process {pid} ended before all sites were {what}",
            pid=pid,
            hint=Hint("longest_hold"),
        )

    def _warn_if_dropped(self) -> None:
        # By a descriptor and not by __del__, where the interpreter swallows a Ctrl-C.
        with suppress(OSError):  # no descriptor is left for a warning
            self._warning = Fd.of_file(os.eventfd, 0, os.EFD_CLOEXEC)
            where = ", ".join(f"{site.address:#x}" for site in self._sites)
            self._warning.warn_if_dropped(f"{self!r} at {where} of process {self._pid}")

    def _end_warning(self) -> None:
        if self._warning is not None:
            self._warning.close()

    def _undo_after(self, error: BaseException) -> None:
        """Undoes the sites that were written; adds a failure of that to `error` as a note."""
        try:
            self._undo_all()
        except ProcvmError as again:
            self._end_warning()  # the note says the same
            error.add_note(f"and not all sites could be undone: {again}")

    def _checked(self, site: _Site) -> bytes:
        found = self._vm.read_bytes(site.address, len(site.data))
        if site.expect is not None and found != site.expect:
            k = _first_difference(found, site.expect)
            raise MismatchError(
                f"cannot patch process {self._pid} at {site.address:#x}: the byte at "
                f"{site.address + k:#x} is not the expected one; nothing was written",
                address=site.address + k,
            )
        return found

    def _put(self, address: int, data: bytes) -> None:
        self._vm.write_bytes(address, data)
        found = self._vm.read_bytes(address, len(data))
        if found != data:
            k = _first_difference(found, data)
            raise MismatchError(
                f"cannot patch process {self._pid} at {address:#x}: the byte at {address + k:#x} "
                "was overwritten by the target right after the patch; stop the target first",
                address=address + k,
            )

    def close(self) -> None:
        """Undoes the patch, as the end of the ``with`` does. A second call does nothing.

        Raises:
            PageFaultError: A site is not mapped any more; the others were undone.
            NotStoppedError: The hold of a `Tracee` ended before all were undone, which was done
                nonetheless.
        """
        interrupted = False
        while True:
            try:
                self._undo_all()
            except KeyboardInterrupt:
                interrupted = True  # undone again from the beginning, and raised after that
                continue
            except BaseException:
                self._end_warning()  # the error says the same
                raise
            break
        if interrupted:
            raise KeyboardInterrupt

    def _undo_all(self) -> None:
        if self._owner != os.getpid():
            self._end_warning()
            return  # in a forked child: the patch belongs to the parent
        if not self._in_place:
            return
        failed: ProcvmError | None = None
        try:
            with self._hold():
                lasts = self._vm.memory.lasting()
                # To the end even if the hold is over: a site left patched is worse.
                while self._written:
                    failed = self._undo(self._written[-1]) or failed
                    self._written.pop()
                failed = failed or self._hold_over(lasts, "undone")
        except (ProcessExitedError, ProcessExecedError):
            self._written.clear()  # the patched memory does not exist any more
            self.overwritten = []
        # First: a Ctrl-C between the two lines would leave a warning of an undone patch.
        self._end_warning()
        self._in_place, self.old = False, {}
        if failed is not None:
            try:
                raise failed
            finally:
                # Else the error and this frame would refer to each other.
                failed = None

    def _undo(self, site: _Site) -> ProcvmError | None:
        """Restores the mapped pages of a site; returns the first error, or None."""
        old = self.old[site.address]
        failed: ProcvmError | None = None
        overwritten: list[Run] = []
        at, end = site.address, site.address + len(old)
        while at < end:
            n = min(page_end(at), end) - at
            place = at - site.address
            wanted, patched = old[place : place + n], site.data[place : place + n]
            try:
                found = self._vm.read_bytes(at, n)
                # Bytes that are the old ones were restored before a Ctrl-C.
                if found not in (patched, wanted):
                    overwritten.append(Run(at, patched, found))
                self._vm.write_bytes(at, wanted)
            except PageFaultError as fault:
                failed = failed or fault
            at += n
        known = {run.address for run in self.overwritten}
        self.overwritten = [
            *(run for run in overwritten if run.address not in known),
            *self.overwritten,
        ]
        return failed


def _first_difference(found: bytes, wanted: bytes) -> int:
    return next(k for k, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)


def _bytes(data: Buffer) -> bytes:
    source = OwnMemory.of_buffer(data, writable=False)
    # SAFETY: `source` keeps the buffer until the copy is made.
    return bytes(view_of(source.address, source.n, writable=False))
