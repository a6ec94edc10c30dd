"""The ptrace requests and the waits of the tracer, by python-ptrace's bindings.

python-ptrace lacks SEIZE, INTERRUPT, LISTEN and the signal mask, so these go by its generic
function. Its wrapper formats a message for every failure (7 us); `ptrace` reads errno instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from typing import Any, NamedTuple, cast

from ptrace.binding import func as _binding  # pyright: ignore[reportMissingTypeStubs]  # it has none

__all__ = [
    "EFLAGS_RF",
    "EVENT_CLONE",
    "EVENT_EXEC",
    "EVENT_STOP",
    "OPTIONS",
    "SYSCALL_ENTRY",
    "SYSCALL_EXIT",
    "SYSCALL_STOP",
    "Gone",
    "SigInfo",
    "WaitEvent",
    "cont",
    "cont_and_stop",
    "detach",
    "event_message",
    "interrupt",
    "is_stopped",
    "listen",
    "peek",
    "poke",
    "ptrace",
    "reap",
    "registers",
    "rseq_area",
    "seize",
    "set_eflags",
    "set_registers",
    "set_signal_mask",
    "siginfo",
    "signal_mask",
    "step",
    "syscall",
    "wait_any",
    "wait_for",
]

_func = cast("Any", _binding)
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_LISTEN = 0x4208
_GET_SIGMASK = 0x420A
_SET_SIGMASK = 0x420B
EVENT_STOP = 128
EVENT_EXEC = int(_func.PTRACE_EVENT_EXEC)
EVENT_CLONE = int(_func.PTRACE_EVENT_CLONE)

OPTIONS = (
    int(_func.PTRACE_O_TRACECLONE)
    | int(_func.PTRACE_O_TRACEEXEC)
    | int(_func.PTRACE_O_TRACESYSGOOD)
)
"""Without EXITKILL, which kills the target when a thread of the tracer ends, and TRACEFORK:
forked children run on untraced. Without TRACESYSGOOD a tracer that dies in a syscall-stop would
leave the kernel a SIGTRAP to send to the target; with it the kernel finds 0x85, not a signal.
"""

SYSCALL_STOP = 0x85
"""The signal number of a syscall-stop: SIGTRAP | 0x80."""

SYSCALL_ENTRY, SYSCALL_EXIT = 1, 2
"""The event messages of a syscall-stop. Source: PTRACE_EVENTMSG_SYSCALL_ENTRY and _EXIT."""

EFLAGS_RF = 1 << 16
"""The resume flag: the next instruction runs past a breakpoint at its own address."""

_WALL = 0x40000000
_WNOTHREAD = 0x20000000
_MASK_LEN = 8
_GET_RSEQ_CONFIGURATION = 0x420F
_RSEQ_LEN = 24
_SIGINFO_LEN = 128
_REFUSED_VALUES = frozenset({errno.EIO, errno.EINVAL})


class Gone(Exception):  # noqa: N818 (a state, not an error)
    """The task is dead, or left its ptrace-stop because it was killed."""


def ptrace(request: int, tid: int, arg1: int = 0, arg2: int = 0) -> int:
    """Makes one request; the result as an unsigned word.

    Raises:
        Gone: ESRCH.
        OSError: Any other failure.
    """
    if _func.HAS_CPTRACE:
        try:
            return int(_func.ptrace(request, tid, arg1, arg2, True))
        except _func.PtraceError as error:
            code = int(error.errno or errno.EIO)
    else:
        # SAFETY: addresses among the arguments are of buffers that the caller keeps.
        result = int(_func._ptrace(request, tid, arg1, arg2))
        if result != _MINUS_ONE:
            return result
        # glibc sets errno to 0 when a peek succeeds: a word of all ones is then not an error.
        code = ctypes.get_errno()
        if not code:
            return result
    raise Gone() if code == errno.ESRCH else OSError(code, os.strerror(code))


_MINUS_ONE = (1 << 8 * ctypes.sizeof(ctypes.c_ulong)) - 1


def seize(tid: int) -> None:
    """Begins to trace a task, which runs on.

    Raises:
        Gone: No task has this tid.
        PermissionError: The task is dead, traced already, a kernel thread, or may not be traced.
    """
    ptrace(_SEIZE, tid, 0, OPTIONS)


def interrupt(tid: int) -> None:
    """Asks a seized task to stop; the stop comes as an event."""
    ptrace(_INTERRUPT, tid)


def cont(tid: int, signo: int) -> None:
    """Lets a stopped task run on, with a signal delivered; 0 for none."""
    ptrace(_func.PTRACE_CONT, tid, 0, signo)


def cont_and_stop(tid: int, signo: int) -> None:
    """Ends a signal-delivery-stop with `signo` (0: none), and stops the task again at once.

    The task runs no instruction: its next stop, an event still to come, is at the first
    instruction of the handler, or where the task is now.
    """
    interrupt(tid)
    cont(tid, signo)


def listen(tid: int) -> None:
    """Leaves a task in its group-stop until SIGCONT, and reports that."""
    ptrace(_LISTEN, tid)


def step(tid: int, signo: int) -> None:
    """Lets a stopped task run one instruction, with a signal delivered first; 0 for none."""
    ptrace(_func.PTRACE_SINGLESTEP, tid, 0, signo)


def syscall(tid: int, signo: int = 0) -> None:
    """Lets a stopped task run to the next entry or exit of a system call; see `cont`."""
    ptrace(_func.PTRACE_SYSCALL, tid, 0, signo)


def detach(tid: int, signo: int = 0) -> None:
    """Lets go of a stopped task, with a signal delivered; a group-stop stays one."""
    ptrace(_func.PTRACE_DETACH, tid, 0, signo)


def event_message(tid: int) -> int:
    """Returns the message of a stopped task's event: the new tid of an `EVENT_CLONE`."""
    message = ctypes.c_ulong()
    # SAFETY: `message` outlives the call, which writes one long into it.
    ptrace(_func.PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(message))
    return message.value


def is_stopped(tid: int) -> bool:
    """Returns whether a task is traced by this thread and in a ptrace-stop."""
    try:
        event_message(tid)
    except Gone:
        return False
    return True


class SigInfo(NamedTuple):
    """The fields of a siginfo_t that every signal has.

    Attributes:
        signo: si_signo.
        code: si_code.
        raw: All of it, 128 bytes.
    """

    signo: int
    code: int
    raw: bytes

    @property
    def fd(self) -> int:
        """si_fd, which a signal of a descriptor has (SIGPOLL codes)."""
        return int.from_bytes(self.raw[24:28], "little", signed=True)


def siginfo(tid: int) -> SigInfo | None:
    """Returns the siginfo of a task in a signal-delivery-stop; None in any other stop."""
    room = ctypes.create_string_buffer(_SIGINFO_LEN)
    try:
        # SAFETY: `room` outlives the call, which writes one siginfo_t of 128 bytes into it.
        ptrace(_func.PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(room))
    except OSError:
        return None  # EINVAL: a group-stop has none
    signo, _, code = (int.from_bytes(room.raw[i : i + 4], "little", signed=True) for i in (0, 4, 8))
    return SigInfo(signo, code, room.raw)


def signal_mask(tid: int) -> int:
    """Returns which signals a stopped task blocks: bit `signo - 1` of each."""
    mask = ctypes.c_uint64()
    # SAFETY: `mask` outlives the call, which writes its 8 bytes.
    ptrace(_GET_SIGMASK, tid, _MASK_LEN, ctypes.addressof(mask))
    return mask.value


def set_signal_mask(tid: int, mask: int) -> None:
    """Sets which signals a stopped task blocks; see `signal_mask`."""
    value = ctypes.c_uint64(mask)
    # SAFETY: `value` outlives the call, which reads its 8 bytes.
    ptrace(_SET_SIGMASK, tid, _MASK_LEN, ctypes.addressof(value))


def peek(tid: int, address: int) -> int:
    """Returns the word of 8 bytes at an aligned address of a stopped task.

    Page protections are ignored.

    Raises:
        Gone: The task left its stop.
        OSError: EIO, no page is there.
    """
    return ptrace(_func.PTRACE_PEEKDATA, tid, address)


def poke(tid: int, address: int, word: int) -> None:
    """Stores a word of 8 bytes at an aligned address of a stopped task; see `peek`."""
    ptrace(_func.PTRACE_POKEDATA, tid, address, word)


def registers(tid: int) -> dict[str, int]:
    """Returns the general registers of a stopped task, by the kernel's names."""
    return _plain(_get_registers(tid))


def set_eflags(tid: int, value: int) -> None:
    """Sets the flags of a stopped task on x86-64, and no other register."""
    offset = _func.ptrace_registers_t.eflags.offset
    ptrace(_func.PTRACE_POKEUSER, tid, offset, value)


def rseq_area(tid: int) -> int:
    """Returns the address of a task's ``struct rseq``; 0 without one, or before Linux 5.13."""
    room = ctypes.create_string_buffer(_RSEQ_LEN)
    try:
        # SAFETY: `room` has the 24 bytes that the request names, and outlives the call.
        ptrace(_GET_RSEQ_CONFIGURATION, tid, _RSEQ_LEN, ctypes.addressof(room))
    except OSError:
        return 0
    return int.from_bytes(room.raw[:8], "little")


def _get_registers(tid: int) -> Any:
    try:
        return _func.ptrace_getregs(tid)
    except _func.PtraceError as error:
        raise _gone_or_error(error) from None


def _put_registers(tid: int, found: Any) -> None:
    try:
        _func.ptrace_setregs(tid, found)
    except _func.PtraceError as error:
        raise _gone_or_error(error) from None


def _gone_or_error(error: Any) -> Exception:
    code = int(error.errno or errno.EIO)
    return Gone() if code == errno.ESRCH else OSError(code, os.strerror(code))


def _plain(found: Any) -> dict[str, int]:
    values = {name: getattr(found, name) for name, *_ in found._fields_}
    return {name: value for name, value in values.items() if isinstance(value, int)}


# Registers whose values the kernel checks: selectors, bases and flags.
_CHECKED = ["cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base", "eflags", "pstate"]


def set_registers(tid: int, values: dict[str, int]) -> str | None:
    """Sets some of the general registers of a stopped task: all of them, or none.

    Returns:
        None, or the name of a register whose value the kernel refuses or changes;
        all registers are then as they were.
    """
    before = _get_registers(tid)
    wanted = cast("Any", type(before)).from_buffer_copy(before)
    # SETREGS stores one register after the other and ends at the first that it refuses. Those
    # that it may refuse go first, one by one: a tracer that is killed here would otherwise
    # leave the others changed.
    for name in filter(values.__contains__, _CHECKED):
        setattr(wanted, name, values[name])
        if not _try_registers(tid, wanted, {name: values[name]}):
            _put_registers(tid, before)
            return name
    for name, value in values.items():
        setattr(wanted, name, value)
    if not _try_registers(tid, wanted, values):
        _put_registers(tid, before)
        return ", ".join(values)
    return None


def _try_registers(tid: int, wanted: Any, values: dict[str, int]) -> bool:
    """Sets all registers; returns whether those of `values` have their values now."""
    try:
        _put_registers(tid, wanted)
    except OSError as error:
        if error.errno in _REFUSED_VALUES:
            return False
        raise
    # The kernel drops bits of eflags that a program may not set, without an error.
    now = _plain(_get_registers(tid))
    return all(now[name] == value for name, value in values.items())


class WaitEvent:
    """A stop or the end of a traced task, as a wait reports it without consuming it.

    An event that was not consumed stays with the kernel: should the tracer be killed, a
    signal that the task stopped for is delivered and not lost.
    """

    __slots__ = ("event", "exited", "signo", "tid")

    def __init__(self, tid: int, *, exited: bool, signo: int = 0, event: int = 0) -> None:
        self.tid = tid
        self.exited = exited
        self.signo = signo
        self.event = event

    def consume(self) -> None:
        """Takes the event off the queue; a task that exited is reaped, and its parent told."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.tid, _WALL | _WNOTHREAD | os.WNOHANG)


_ENDS = (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED)


def _wait(kind: int, tid: int, states: int) -> WaitEvent | None:
    try:
        # Without __WNOTHREAD it would report the tasks of the other workers as well.
        found = os.waitid(kind, tid, states | os.WNOHANG | os.WNOWAIT | _WALL | _WNOTHREAD)
    except ChildProcessError:
        return None
    if found is None:
        return None
    if found.si_code in _ENDS:
        return WaitEvent(found.si_pid, exited=True)
    signo, event = found.si_status & 0xFF, found.si_status >> 8
    return WaitEvent(found.si_pid, exited=False, signo=signo, event=event)


def wait_any() -> WaitEvent | None:
    """Returns an event of any task that this thread traces; None if there is none.

    The same event comes again until it is consumed or its task goes on. A wait for ends
    alone would report stops of traced tasks as well.
    """
    return _wait(os.P_ALL, 0, os.WSTOPPED | os.WEXITED)


def wait_for(tid: int) -> WaitEvent | None:
    """Returns an event of one task; None if there is none."""
    return _wait(os.P_PID, tid, os.WSTOPPED | os.WEXITED)


def reap(tid: int) -> None:
    """Reaps a task that another thread of the tracer traces, if it has ended; a stop stays."""
    with contextlib.suppress(OSError):
        found = os.waitid(os.P_PID, tid, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
        if found is not None and found.si_code in _ENDS:
            os.waitid(os.P_PID, tid, os.WEXITED | os.WNOHANG | _WALL)
