"""A tracer that steps by `procvm._hold.server.stepping` alone, and dies where it is told.

Run as a program it serves: for each line "PID HARDWARE POINT" on stdin it forks a child that
seizes PID and steps it for ever, and kills itself at its POINT-th request; it answers "PID" of
the child when that has died, and the number of requests and steps that it made.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from procvm._hold.server import requests
from procvm._hold.server.requests import OPTIONS
from procvm._hold.server.step_outcomes import Progress, Way
from procvm._hold.server.stepping import Step, Stepper
from procvm._linux.perf_event import HardwareBreakpoint

_SEIZE = 0x4206
_INTERRUPT = 0x4207
_DETACH = 17
_WALL = 0x40000000

_ptrace = ctypes.CDLL(None, use_errno=True)["ptrace"]
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request: int, tid: int, arg1: int = 0, arg2: int = 0) -> None:
    """Makes one request; OSError if the kernel refuses."""
    # SAFETY: numbers only.
    if _ptrace(request, tid, arg1, arg2) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Ended(Exception):  # noqa: N818 (an event, not an error)
    """The target ended; the argument is its wait status."""


class RawTracer:
    """One seized and stopped task."""

    def __init__(self, pid: int, *, hardware: bool = True) -> None:
        self.pid = pid
        self.ways: Counter[Way] = Counter()
        self.signals: Counter[int] = Counter()
        self._mem = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        self.stepper = Stepper(self.read, hardware=hardware)
        ptrace(_SEIZE, pid, 0, OPTIONS)
        ptrace(_INTERRUPT, pid)
        self.wait()

    def reopen(self) -> None:
        """Opens the memory of the program that an exec brought."""
        os.close(self._mem)
        self._mem = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY)

    def has_stop(self) -> bool:
        """Returns whether a stop waits to be taken by `wait`."""
        options = os.WSTOPPED | os.WNOHANG | os.WNOWAIT | _WALL
        return os.waitid(os.P_PID, self.pid, options) is not None

    def read(self, address: int, length: int) -> bytes:
        """Reads the target; fewer bytes where it cannot."""
        if address >> 63:
            return b""
        try:
            return os.pread(self._mem, length, address)
        except OSError:
            return b""

    def wait(self) -> tuple[int, int]:
        """Waits for a stop; returns its signal and event."""
        _, status = os.waitpid(self.pid, _WALL)
        if not os.WIFSTOPPED(status):
            raise Ended(status)
        return status >> 8 & 0xFF, status >> 16

    def step(self, signo: int = 0) -> Progress:
        """Steps once, and delivers what signals come."""
        return self.finish(self.stepper.start(self.pid, signo))

    def finish(self, step: Step) -> Progress:
        """Serves a step to its end."""
        self.ways[step.way] += 1
        while True:
            signo, event = self.wait()
            progress = step.stopped(signo, event)
            if progress is Progress.SIGNAL:
                self.signals[signo] += 1
                step.deliver(signo)
            elif progress is not Progress.RUNS:
                return progress

    def close(self) -> None:
        """Closes every descriptor."""
        self.stepper.close()
        if self._mem >= 0:
            os.close(self._mem)
            self._mem = -1

    def detach(self) -> None:
        """Lets the target go."""
        self.stepper.close()
        ptrace(_DETACH, self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_PATCHED: tuple[tuple[Any, str], ...] = (
    (requests, "interrupt"),
    (requests, "cont"),
    (requests, "step"),
    (requests, "syscall"),
    (requests, "set_eflags"),
    (requests, "set_signal_mask"),
    (HardwareBreakpoint, "arm"),
    (HardwareBreakpoint, "disarm"),
    (RawTracer, "wait"),
)


def _die_at(point: int, told: mmap.mmap) -> None:
    """Makes this process kill itself before or after one of the calls that change something."""
    count = 0

    def tick() -> None:
        nonlocal count
        struct.pack_into("=q", told, 0, count)
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            tick()
            result = function(*args)
            tick()
            return result

        return call

    for owner, name in _PATCHED:
        setattr(owner, name, dying(getattr(owner, name)))


def _trace(pid: int, hardware: bool, point: int, told: mmap.mmap) -> None:
    tracer = RawTracer(pid, hardware=hardware)
    _die_at(point, told)
    for steps in range(1, 1 << 62):
        if tracer.step() is not Progress.DONE:
            os._exit(1)
        struct.pack_into("=qq", told, 8, steps, tracer.ways[Way.TRAP])


def serve() -> None:
    """Serves the lines of stdin."""
    told = mmap.mmap(-1, mmap.PAGESIZE)
    for line in sys.stdin:
        pid, hardware, point = map(int, line.split())
        struct.pack_into("=qqq", told, 0, 0, 0, 0)
        child = os.fork()
        if not child:
            try:
                _trace(pid, bool(hardware), point, told)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), *struct.unpack_from("=qqq", told), flush=True)


if __name__ == "__main__":
    serve()
