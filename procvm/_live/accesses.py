"""Who touches an address, and who calls a function, told without stopping anything."""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple, final

from procvm._base import forks
from procvm._base.address import as_address, as_int, as_timeout
from procvm._base.closing import Closing
from procvm._linux import procfs
from procvm._linux.perf_event import refusal
from procvm._linux.perf_samples import READS_AND_WRITES, RUNS, WRITES, Breakpoints, Sample
from procvm._live.image import Image
from procvm._types.sources import ThreadState
from procvm.errors import ClosedError, ProcessExitedError, ProcvmError

if TYPE_CHECKING:
    from procvm._types.stacks import Frame

__all__ = ["Access", "AccessTrace", "trace"]

_KINDS = {"write": WRITES, "access": READS_AND_WRITES, "call": RUNS}

_LOOK_MS = 100
"""How often a wait looks whether the program is still the one that was opened.

An exec does not end the wait: the kernel only removes the breakpoints.
"""

_LONGEST_STACK = 65_528
"""The kernel's limit for the copy of a stack, which is a multiple of 8 and below 64 KiB."""

_X86_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_ARM_ARGUMENTS = tuple(f"x{n}" for n in range(8))


class _Sampled(NamedTuple):
    """One hit as the kernel reports it."""

    tid: int
    time: int
    ip: int
    address: int
    registers: Mapping[str, int]
    stack_bytes: bytes


class Access(_Sampled):
    """One access to the traced address, or one call of the traced function.

    Attributes:
        tid: The thread that made it.
        time: When, in nanoseconds of `time.monotonic_ns`.
        ip: The instruction pointer. For an access on x86-64 that is the instruction after the
            one that made it, or a repeated instruction such as ``rep stosb`` that is not done
            yet; for a call it is the function.
        address: The address that is traced.
        registers: The general registers at that instant, by the kernel's names; empty unless
            they were asked for.
        stack_bytes: The bytes from the stack pointer upwards; empty unless they were asked for.
    """

    unwind: Callable[[ThreadState], list[Frame]] | None = None
    """Returns the frames of registers and bytes; `stack` calls it."""

    def stack(self) -> list[Frame]:
        """Returns the calls that the thread was in, the innermost first; see `Tracee.stack`.

        They are unwound from `registers` and `stack_bytes`, as they were at the hit. Frames
        beyond these bytes are missing, or are read from the stack as it is now.

        Raises:
            ValueError: The trace was made without ``registers=True``, or the hit was pickled.
            UnsupportedError: drgn or pyelftools is not installed.
            ProcessExitedError: The process has ended, and its files were not looked at before.
        """
        if not self.registers or self.unwind is None:
            raise ValueError("a stack needs the registers: trace with registers=True")
        kept = ((self.registers.get("rsp", 0), self.stack_bytes),) if self.stack_bytes else ()
        return self.unwind(ThreadState(dict(self.registers), kept))

    @property
    def arguments(self) -> tuple[int, ...]:
        """The registers that carry the integer arguments of a call, in order.

        Six on x86-64 (the System V convention), eight on arm64. A function with fewer
        parameters leaves what it likes in the rest. Empty without registers.
        """
        names = _X86_ARGUMENTS if "rdi" in self.registers else _ARM_ARGUMENTS
        return tuple(self.registers[name] for name in names if name in self.registers)


@final
class AccessTrace(Closing):
    """A running trace of the accesses to an address, or of the calls of a function.

    It is armed when it is made and disarmed by `close`, by the end of its ``with``, and by the
    kernel if this process dies. Iterating waits for each hit in turn, and ends when the
    target has ended. One thread at a time may take hits from it.
    """

    def __init__(
        self,
        image: Image,
        breakpoints: Breakpoints,
        unwind: Callable[[ThreadState], list[Frame]] | None,
    ) -> None:
        self._image = image
        self._unwind = unwind
        self._breakpoints: Breakpoints | None = breakpoints
        self._lock = threading.Lock()
        self._hits: deque[Access] = deque()
        # By thread, whose breakpoint tells its hits: see _is_first.
        self._origins: dict[int, int] = {}
        self._lost = 0
        self._count = 0
        forks.register(self)

    def __repr__(self) -> str:
        state = "closed" if self._breakpoints is None else "armed"
        return f"<AccessTrace of process {self._image.pid}, {state}, {self._count} hits>"

    @property
    def lost(self) -> int:
        """How many hits were lost so far, because they came faster than they were taken."""
        breakpoints = self._breakpoints
        return self._lost if breakpoints is None else breakpoints.lost

    @property
    def count(self) -> int:
        """How many hits came so far: taken, waiting to be taken, and lost."""
        with self._lock:
            self._drain()
        return self._count + self.lost

    def read(self, timeout: float | None = None) -> list[Access]:
        """Returns the hits that wait, in the order of their times; waits for the first.

        Args:
            timeout: Seconds to wait for a hit; None waits until there is one, and 0 does not
                wait.

        Returns:
            The hits; none if the time is over, or the target has ended.

        Raises:
            ProcessExecedError: The target runs another program, in which nothing is traced.
            ClosedError: The trace was closed.
        """
        timeout = as_timeout(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._breakpoints is None:
                    raise ClosedError("the trace was closed")
                # Before the drain: what came before the end is in the rings by then.
                ended = self._image.has_ended()
                self._drain()
                if self._hits or ended:
                    found = list(self._hits)
                    self._hits.clear()
                    return found
                fds = self._breakpoints.fds
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return []
            # If it ended just now, the next round takes what came before the end.
            with suppress(ProcessExitedError):
                self._image.prove()
            poll = select.poll()
            for fd in fds:
                poll.register(fd, select.POLLIN)
            poll.poll(_LOOK_MS if left is None else min(left * 1000, _LOOK_MS))

    def __iter__(self) -> Iterator[Access]:
        while True:
            found = self.read()
            if not found:
                return
            yield from found

    def _drain(self) -> None:
        breakpoints = self._breakpoints
        if breakpoints is None:
            return
        for sample in breakpoints.drain():
            if sample.pid == self._image.pid and self._is_first(sample):
                self._count += 1
                hit = Access(
                    sample.tid,
                    sample.time,
                    sample.ip,
                    sample.address,
                    sample.registers,
                    sample.stack,
                )
                hit.unwind = self._unwind
                self._hits.append(hit)

    def _is_first(self, sample: Sample) -> bool:
        """Returns whether a sample is the one that tells a hit.

        A thread that was born while the breakpoints were opened can have two: its own, and one
        that it inherited. Both tell each of its hits.
        """
        return self._origins.setdefault(sample.tid, sample.origin) == sample.origin

    def close(self) -> None:
        """Disarms it. Hits that were not taken are dropped; `count` and `lost` stay."""
        with self._lock:
            breakpoints = self._breakpoints
            if breakpoints is None:
                return
            self._drain()
            self._hits.clear()
            self._lost = breakpoints.lost
            self._breakpoints = None
            breakpoints.close()

    def after_fork_in_child(self) -> None:
        """Closes the child's descriptors, which would keep the breakpoints armed."""
        breakpoints, self._breakpoints = self._breakpoints, None
        self._lock = threading.Lock()
        if breakpoints is not None:
            breakpoints.close()


def trace(
    image: Image,
    address: int,
    size: int,
    *,
    on: Literal["write", "access", "call"],
    registers: bool,
    stack_len: int,
    unwind: Callable[[ThreadState], list[Frame]] | None = None,
) -> AccessTrace:
    """Returns an armed trace of all threads of a process; see `Process.trace_accesses`."""
    address = as_address(address)
    if on not in _KINDS:
        raise ValueError(f"on is 'write' or 'access', not {on!r}")
    if size not in (1, 2, 4, 8):
        raise ValueError(f"a debug register watches 1, 2, 4 or 8 bytes, not {size}")
    if address % size:
        raise ValueError(f"{address:#x} is not a multiple of the {size} bytes to watch")
    stack_len = as_int(stack_len, "stack_len")
    if not 0 <= stack_len <= _LONGEST_STACK or stack_len % 8:
        raise ValueError(f"stack_len is a multiple of 8 up to {_LONGEST_STACK}, not {stack_len}")
    image.prove()
    try:
        breakpoints = Breakpoints(
            address, size, _KINDS[on], registers=registers, stack_len=stack_len
        )
    except OSError as error:
        raise _refused(image.pid, address, error) from None
    found = AccessTrace(image, breakpoints, unwind)
    try:
        _open_all(image, address, breakpoints)
    except BaseException:
        found.close()
        raise
    return found


def _open_all(image: Image, address: int, breakpoints: Breakpoints) -> None:
    """Opens and arms breakpoints of all threads, also of those that are born meanwhile."""
    known: set[int] = set()
    try:
        while new := _threads(image.pid) - known:
            for tid in new:
                with suppress(ProcessLookupError):
                    breakpoints.add(tid)
            known |= new
            # A thread may have ended, and a thread of another process have its number. Its
            # breakpoint is closed before any is armed.
            breakpoints.drop(new - _threads(image.pid))
            image.prove()
        breakpoints.arm()
    except OSError as error:
        raise _refused(image.pid, address, error) from None
    image.prove()


def _threads(pid: int) -> set[int]:
    return {pid, *procfs.thread_ids(pid)}


def _refused(pid: int, address: int, error: OSError) -> ProcvmError:
    return refusal(f"cannot trace accesses to {address:#x} of process {pid}", pid, error)
