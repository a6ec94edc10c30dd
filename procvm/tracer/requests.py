"""The ptrace requests: python-ptrace's, and those it lacks through its generic call."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from typing import Any

from ptrace.binding import func as _binding  # pyright: ignore[reportMissingTypeStubs]  # it has none

__all__ = [
    "EVENT_EXEC",
    "EVENT_STOP",
    "OPTIONS",
    "Gone",
    "cont",
    "detach",
    "has_event",
    "interrupt",
    "is_stopped",
    "listen",
    "registers",
    "seize",
    "set_registers",
    "step",
    "wait_any",
]

_func: Any = _binding
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_LISTEN = 0x4208
EVENT_STOP = 128
EVENT_EXEC = int(_func.PTRACE_EVENT_EXEC)

OPTIONS = int(_func.PTRACE_O_TRACECLONE) | int(_func.PTRACE_O_TRACEEXEC)
"""Never EXITKILL, which kills when only a thread of ours ends; nor TRACEFORK: children run on."""

_WALL = 0x40000000
_WNOTHREAD = 0x20000000


class Gone(Exception):  # noqa: N818 (a state, not an error)
    """The task is dead, or was zapped out of its stop."""


def _ptrace(request: int, tid: int, arg1: int = 0, arg2: int = 0) -> int:
    try:
        return int(_func.ptrace(request, tid, arg1, arg2))
    except _func.PtraceError as error:
        raise _gone_or_error(error) from None


def _gone_or_error(error: Any) -> Exception:
    code = int(error.errno or errno.EIO)
    return Gone() if code == errno.ESRCH else OSError(code, os.strerror(code))


def seize(tid: int) -> None:
    """Begins to trace a task, which runs on.

    Raises:
        Gone: There is no such task.
        PermissionError: Dead, traced already, a kernel thread, or not ours to trace.
    """
    _ptrace(_SEIZE, tid, 0, OPTIONS)


def interrupt(tid: int) -> None:
    """Asks a seized task to stop; the stop comes as an event."""
    _ptrace(_INTERRUPT, tid)


def cont(tid: int, signo: int) -> None:
    """Lets a stopped task run on, with a signal delivered."""
    _ptrace(_func.PTRACE_CONT, tid, 0, signo)


def listen(tid: int) -> None:
    """Lets a task that is in a group-stop stay in it, until SIGCONT."""
    _ptrace(_LISTEN, tid)


def step(tid: int, signo: int) -> None:
    """Lets a stopped task run one instruction, with a signal delivered first."""
    _ptrace(_func.PTRACE_SINGLESTEP, tid, 0, signo)


def detach(tid: int, signo: int = 0) -> None:
    """Lets go of a stopped task, with a signal delivered; a group-stop stays one."""
    _ptrace(_func.PTRACE_DETACH, tid, 0, signo)


def is_stopped(tid: int) -> bool:
    """Returns whether a task is one of ours that is in a ptrace-stop."""
    message = ctypes.c_ulong()
    try:
        # SAFETY: `message` outlives the call, which writes one long into it.
        _ptrace(_func.PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(message))
    except Gone:
        return False
    return True


def registers(tid: int) -> dict[str, int]:
    """Returns the general registers of a stopped task, by the kernel's names."""
    try:
        found = _func.ptrace_getregs(tid)
    except _func.PtraceError as error:
        raise _gone_or_error(error) from None
    return {name: int(getattr(found, name)) for name, *_ in found._fields_ if _plain(found, name)}


def set_registers(tid: int, values: dict[str, int]) -> None:
    """Sets some of the general registers of a stopped task."""
    try:
        found = _func.ptrace_getregs(tid)
        for name, value in values.items():
            setattr(found, name, value)
        _func.ptrace_setregs(tid, found)
    except _func.PtraceError as error:
        raise _gone_or_error(error) from None


def _plain(registers: Any, name: str) -> bool:
    return isinstance(getattr(registers, name), int)


class Event:
    """Something that a task of ours did, looked at and not consumed."""

    __slots__ = ("event", "exited", "signo", "tid")

    def __init__(self, tid: int, *, exited: bool, signo: int = 0, event: int = 0) -> None:
        self.tid = tid
        self.exited = exited
        self.signo = signo
        self.event = event

    def consume(self) -> None:
        """Takes it off the queue; a task that exited is reaped, and its parent told."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.tid, _WALL | _WNOTHREAD | os.WNOHANG)


def has_event(tid: int) -> bool:
    """Returns whether a task did something that was not consumed yet."""
    options = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL | _WNOTHREAD
    try:
        return os.waitid(os.P_PID, tid, options) is not None
    except ChildProcessError:
        return False


def reap(tid: int) -> None:
    """Reaps a task that another thread of ours traces, if it has ended; a stop of it stays."""
    with contextlib.suppress(OSError):
        found = os.waitid(os.P_PID, tid, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
        if found is not None and found.si_code in _ENDS:
            os.waitid(os.P_PID, tid, os.WEXITED | os.WNOHANG | _WALL)


_ENDS = (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED)


def wait_any() -> Event | None:
    """Returns what a task traced by this thread did, or None if there is nothing new.

    It is not consumed: a signal that we took off the queue and then could not
    pass on, since we died, would be lost to the target.
    """
    try:
        found = os.waitid(
            os.P_ALL,
            0,
            os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL | _WNOTHREAD,
        )
    except ChildProcessError:
        return None
    if found is None:
        return None
    if found.si_code in _ENDS:
        return Event(found.si_pid, exited=True)
    return Event(
        found.si_pid,
        exited=False,
        signo=found.si_status & 0xFF,
        event=found.si_status >> 8,
    )
