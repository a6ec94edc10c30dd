"""Changes that are undone, and memory that is to stay as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, final

from procvm._base.address import check_range, page_end
from procvm._base.closing import Closing
from procvm._base.fd import Fd
from procvm._local.buffers import Buffer, view_of
from procvm._mm.local import OwnMemory
from procvm._saved.diff import Run, without
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

if TYPE_CHECKING:
    from procvm._live.process import Process

__all__ = ["Patch", "Unchanged"]


class _Site(NamedTuple):
    address: int
    data: bytes
    expect: bytes | None


@final
class Patch(Closing):
    r"""Bytes of a process that are others for as long as the ``with`` lasts.

    ::

        with process.patch(0x401000, b"\x90\x90", expect=b"\x74\x0a") as patch:
            ...

    At its begin every site is compared with what it has to be, and nothing is
    written if one differs. Then all are written and read back; should one fail,
    those before it are undone. At the end, after an exception too, each site gets
    the bytes that it had, whatever it has by then. A `Tracee` is held for each of
    the two, so that its threads see all sites change at once; other processes run.
    What has ended or runs another program by the end needs no undoing.

    A patch that is dropped while it is in place is not undone, since the garbage collector
    would write to the target at a moment that nobody chose: it gives a ResourceWarning.
    Where there was no ``with`` to end it, `close` does, and so does `Process.close`.

    Attributes:
        old: What was there, by address, while it is in place.
        overwritten: After the end: where the target itself had changed what was
            patched, as runs of (address, what was patched, what it had become).
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
        # Those of which the beginning at least is in place.
        self._written: list[_Site] = []
        self.old: dict[int, bytes] = {}
        self.overwritten: list[Run] = []

    def __repr__(self) -> str:
        state = "in place" if self._in_place else "not in place"
        return f"<Patch of {len(self._sites)} sites, {state}>"

    def also(self, address: int, data: Buffer, *, expect: Buffer | None = None) -> Self:
        """Adds a site; returns the same patch.

        Args:
            address: Where to write.
            data: What to write.
            expect: What has to be there before, as many bytes; without it anything.

        Raises:
            InvalidArgsError: `expect` is of another length, or the site overlaps
                another one.
            ValueError: The patch is in place.
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
        """Puts it in place.

        Raises:
            MismatchError: A site has other bytes than expected; nothing was written.
            PageFaultError: A site can not be read or written; nothing is changed.
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
                    # While it is still held; what was not written is the target's.
                    self._undo_after(error)
                    raise
            return self  # noqa: TRY300 (Ctrl-C just before it undoes it as well)
        except BaseException as error:
            self._undo_after(error)
            self.overwritten = []
            raise

    def _hold_over(self, lasts: Callable[[], bool] | None, what: str) -> NotStoppedError | None:
        """Returns the error of a target that was held to begin with and is not any more."""
        if lasts is None or lasts():
            return None
        pid = self._vm.memory.pid
        return NotStoppedError(
            f"the hold on process {pid} ended before all sites were {what}",
            pid=pid,
            hint=Hint("longest_hold"),
        )

    def _warn_if_dropped(self) -> None:
        # Not by __del__, where a Ctrl-C is swallowed.
        with suppress(OSError):  # no descriptor is left for a warning
            self._warning = Fd.of_file(os.eventfd, 0, os.EFD_CLOEXEC)
            where = ", ".join(f"{site.address:#x}" for site in self._sites)
            self._warning.warn_if_dropped(f"{self!r} at {where} of process {self._pid}")

    def _end_warning(self) -> None:
        if self._warning is not None:
            self._warning.close()

    def _undo_after(self, error: BaseException) -> None:
        """Undoes what was begun; a failure of that is told beside the error that led to it."""
        try:
            self._undo_all()
        except ProcvmError as again:
            self._end_warning()  # the note tells of it
            error.add_note(f"and not all could be put back: {again}")

    def _checked(self, site: _Site) -> bytes:
        found = self._vm.read_bytes(site.address, len(site.data))
        if site.expect is not None and found != site.expect:
            k = _first_difference(found, site.expect)
            raise MismatchError(
                f"the byte at {site.address + k:#x} is not the one that was expected, of "
                f"{len(site.data)} at {site.address:#x}; nothing was written",
                address=site.address + k,
            )
        return found

    def _put(self, address: int, data: bytes) -> None:
        self._vm.write_bytes(address, data)
        found = self._vm.read_bytes(address, len(data))
        if found != data:
            k = _first_difference(found, data)
            raise MismatchError(
                f"the byte at {address + k:#x} did not keep what was written: the target writes "
                "it as well; hold it, or patch what it does not write",
                address=address + k,
            )

    def close(self) -> None:
        """Undoes it, as the end of the ``with`` does. Twice is fine.

        Raises:
            PageFaultError: A site is not mapped any more; the others were undone.
        """
        interrupted = False
        while True:
            try:
                self._undo_all()
            except KeyboardInterrupt:
                interrupted = True  # all of it is done all the same, from the beginning
                continue
            except BaseException:
                self._end_warning()  # the error tells of it
                raise
            break
        if interrupted:
            raise KeyboardInterrupt

    def _undo_all(self) -> None:
        if self._owner != os.getpid():
            self._end_warning()
            return  # a child that the tool forked has no part in it
        if not self._in_place:
            return
        failed: ProcvmError | None = None
        try:
            with self._hold():
                lasts = self._vm.memory.lasting()
                # Undone to the end, whether or not the hold lasts.
                while self._written:
                    failed = self._undo(self._written[-1]) or failed
                    self._written.pop()
                failed = failed or self._hold_over(lasts, "undone")
        except (ProcessExitedError, ProcessExecedError):
            self._written.clear()  # with the memory went the patch
            self.overwritten = []
        # First, so that a Ctrl-C between the two leaves no warning of what was undone.
        self._end_warning()
        self._in_place, self.old = False, {}
        if failed is not None:
            try:
                raise failed
            finally:
                # The error and its frame would keep each other until the collector runs.
                failed = None

    def _undo(self, site: _Site) -> ProcvmError | None:
        """Puts back what is still there of a site, page by page; returns what failed first."""
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
                # What is as it was before was put back already, before Ctrl-C.
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


@final
class Unchanged:
    """Ranges that were looked at before and after.

    Attributes:
        runs: After the ``with``: what is other than it was, in order.
        gone: What could be read before and can not be now, as (start, end).
        new: What can be read now and could not be before, as (start, end).
    """

    def __init__(self, process: Process, ranges: Iterable[Any]) -> None:
        self._process = process
        self._ranges = list(ranges)
        self.runs: list[Run] = []
        self.gone: list[tuple[int, int]] = []
        self.new: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        self.runs, self.gone, self.new = [], [], []
        self._before = self._process.snapshot(self._ranges)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._before as before:
            try:
                with self._process.snapshot(self._ranges) as after:
                    self.runs = before.diff(after)
                    was, now = before.kept_ranges(), after.kept_ranges()
                    self.gone, self.new = list(without(was, now)), list(without(now, was))
            except ProcvmError:
                # What went wrong in the with statement says more.
                if error is None:
                    raise
