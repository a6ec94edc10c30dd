"""The errors of procvm, one tree.

::

    ProcvmError                 .message .hint
    ├─ VmError                  .copied_len: bytes that did take effect
    │  ├─ InvalidArgsError       (ValueError)
    │  ├─ PageFaultError         (OSError)          .address .copied_len .errno .pid
    │  ├─ AccessDeniedError      (PermissionError)  .pid
    │  ├─ AddressOverflowError   (OverflowError)
    │  └─ MismatchError                             .address
    ├─ ProcessError             .pid .copied_len
    │  ├─ NoSuchProcessError     (ProcessLookupError)
    │  ├─ AmbiguousNameError     (LookupError)      .name .candidates
    │  ├─ ProcessExitedError
    │  ├─ ProcessExecedError
    │  ├─ AlreadyTracedError     .tracer_pid
    │  ├─ NotTracedError
    │  ├─ NotStoppedError
    │  ├─ StopTimeoutError       (TimeoutError)
    │  └─ WaitTimeoutError       (TimeoutError)
    ├─ SharedMemoryError
    ├─ NoSuchSymbolError        (KeyError)          .name .reason .near
    ├─ AmbiguousSymbolError     (LookupError)       .name .candidates
    ├─ MalformedError           (ValueError)
    ├─ UnsupportedError         (NotImplementedError)
    └─ ClosedError              (ValueError)

A condition of the target, of the machine or of a range is one of these. A
mistake in the calling program (a cursor skipped past its end, a misaligned
atomic, a wrong type) is a plain ``ValueError`` or ``TypeError``, as the seed
panics there.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Mapping
from typing import Any, ClassVar

from procvm._error_values import WORDINGS, Candidate, Hint, ProcessCandidate

__all__ = [
    "AccessDeniedError",
    "AddressOverflowError",
    "AlreadyTracedError",
    "AmbiguousNameError",
    "AmbiguousSymbolError",
    "Candidate",
    "ClosedError",
    "Hint",
    "InvalidArgsError",
    "MalformedError",
    "MismatchError",
    "NoSuchProcessError",
    "NoSuchSymbolError",
    "NotStoppedError",
    "NotTracedError",
    "PageFaultError",
    "ProcessCandidate",
    "ProcessError",
    "ProcessExecedError",
    "ProcessExitedError",
    "ProcvmError",
    "SharedMemoryError",
    "StopTimeoutError",
    "UnsupportedError",
    "VmError",
    "WaitTimeoutError",
]


def _rebuild(cls: type[ProcvmError], message: str, fields: dict[str, Any]) -> ProcvmError:
    return cls(message, **fields)


class ProcvmError(Exception):
    """Base of every error that procvm raises for a condition it met.

    Attributes:
        message: What failed, where and why. It names no Python method and no option of the
            command; ``str()`` of the error adds the hint and the count of bytes.
        hint: The way out, for a front end to put into words; None if there is none to name.
        copied_len: Bytes that did take effect before the error, in transfer
            order from the start of the range that was asked for.
    """

    _fields: ClassVar[tuple[str, ...]] = ("copied_len",)

    def __init__(self, message: str, *, copied_len: int = 0, hint: Hint | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.copied_len = copied_len
        self.hint = hint

    def __str__(self) -> str:
        return self.worded(WORDINGS)

    def worded(self, wordings: Mapping[str, str]) -> str:
        """Returns the whole error as one sentence, its hint worded by a table.

        Args:
            wordings: A text for each key of a hint, with ``{values}`` in it.
        """
        text = self.message
        if self.hint is not None:
            text += f"; {self.hint.worded(wordings)}"
        if self.copied_len:
            text += f" (copied_len={self.copied_len}: the bytes before it did take effect)"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in ("hint", *self._fields)}
        return _rebuild, (type(self), self.message, fields)


class VmError(ProcvmError):
    """An access to memory that did not complete."""


class InvalidArgsError(VmError, ValueError):
    """The range does not fit the object or the cursor; nothing was touched.

    Source:
        OSTD ``Error::InvalidArgs``.
    """


class AddressOverflowError(VmError, OverflowError):
    """Address plus length passes 2^64; nothing was touched.

    Source:
        OSTD ``Error::Overflow``.
    """


class PageFaultError(VmError, OSError):
    """A page of the range cannot be read or written as requested.

    Attributes:
        address: First byte that could not be accessed.
        copied_len: Bytes before it that did arrive or were written.
        errno: EFAULT, or EIO from /proc/PID/mem.
        pid: The process whose memory faulted: the target, or the tool if its own buffer
            did (a mapping of a file that was truncated).
        index: The index of the address in a gather or a scatter; else None.

    Source:
        OSTD ``Error::PageFault``; process_vm_readv(2), EFAULT.
    """

    _fields: ClassVar[tuple[str, ...]] = ("copied_len", "address", "pid", "errno", "index")

    def __init__(
        self,
        message: str,
        *,
        address: int,
        pid: int,
        copied_len: int = 0,
        errno: int = _errno.EFAULT,
        index: int | None = None,
        hint: Hint | None = None,
    ) -> None:
        OSError.__init__(self, errno, message)
        self.message = message
        self.copied_len = copied_len
        self.hint = hint
        self.address = address
        self.pid = pid
        self.index = index


class AccessDeniedError(VmError, PermissionError):
    """The kernel or a security policy denied the access; the message says which.

    Attributes:
        pid: The process, or None for a range outside user space.
        errno: EPERM, EACCES, or EFAULT for a range outside user space.
    """

    _fields: ClassVar[tuple[str, ...]] = ("copied_len", "pid", "errno")

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        copied_len: int = 0,
        errno: int = _errno.EPERM,
        hint: Hint | None = None,
    ) -> None:
        OSError.__init__(self, errno, message)
        self.message = message
        self.copied_len = copied_len
        self.hint = hint
        self.pid = pid


class MismatchError(VmError):
    """The target does not have the expected bytes; nothing was changed.

    Attributes:
        address: First byte that differs.
    """

    _fields: ClassVar[tuple[str, ...]] = ("copied_len", "address")

    def __init__(
        self, message: str, *, address: int, copied_len: int = 0, hint: Hint | None = None
    ) -> None:
        super().__init__(message, copied_len=copied_len, hint=hint)
        self.address = address


class ProcessError(ProcvmError):
    """The target process is not in a state that allows the operation.

    Attributes:
        pid: The target.
        copied_len: Bytes of the access that did take effect.
    """

    _fields: ClassVar[tuple[str, ...]] = ("copied_len", "pid")

    def __init__(
        self, message: str, *, pid: int, copied_len: int = 0, hint: Hint | None = None
    ) -> None:
        super().__init__(message, copied_len=copied_len, hint=hint)
        self.pid = pid


class _ProcessOSError(ProcessError, OSError):
    """A process error that is an OSError as well."""

    _errno: ClassVar[int]

    def __init__(
        self, message: str, *, pid: int, copied_len: int = 0, hint: Hint | None = None
    ) -> None:
        OSError.__init__(self, self._errno, message)
        self.message = message
        self.copied_len = copied_len
        self.hint = hint
        self.pid = pid


class NoSuchProcessError(_ProcessOSError, ProcessLookupError):
    """No process has this pid or name; or the pid is the id of a thread."""

    _errno = _errno.ESRCH


class AmbiguousNameError(ProcessError, LookupError):
    """Several processes have the name; none of them was opened.

    Attributes:
        pid: 0: the error is about no single process.
        name: The name that was given.
        candidates: The processes that have it, sorted by pid.
    """

    _fields: ClassVar[tuple[str, ...]] = ("copied_len", "pid", "name", "candidates")

    def __init__(
        self,
        message: str,
        *,
        name: str,
        candidates: tuple[ProcessCandidate, ...],
        pid: int = 0,
        copied_len: int = 0,
        hint: Hint | None = None,
    ) -> None:
        super().__init__(message, pid=pid, copied_len=copied_len, hint=hint)
        self.name = name
        self.candidates = candidates


class ProcessExitedError(ProcessError):
    """The process that was opened has ended; its memory is gone."""


class ProcessExecedError(ProcessError):
    """The process has executed another program; the memory that was opened is gone.

    Open the pid again to reach the new program.
    """


class AlreadyTracedError(ProcessError):
    """Another process traces the target; reading and writing still work.

    Attributes:
        tracer_pid: The pid of that tracer.
    """

    _fields: ClassVar[tuple[str, ...]] = ("copied_len", "pid", "tracer_pid")

    def __init__(
        self,
        message: str,
        *,
        pid: int,
        tracer_pid: int,
        copied_len: int = 0,
        hint: Hint | None = None,
    ) -> None:
        super().__init__(message, pid=pid, copied_len=copied_len, hint=hint)
        self.tracer_pid = tracer_pid


class NotTracedError(ProcessError):
    """The operation needs a `Tracee`; or the tracer process ended, which ended every hold."""


class NotStoppedError(ProcessError):
    """The operation needs a stopped target, but the target runs, or ran meanwhile."""


class StopTimeoutError(_ProcessOSError, TimeoutError):
    """The target did not stop in time and runs on; or a step took too long and it is held."""

    _errno = _errno.ETIMEDOUT


class WaitTimeoutError(_ProcessOSError, TimeoutError):
    """The process did not end within the timeout of a ``wait``."""

    _errno = _errno.ETIMEDOUT


class SharedMemoryError(ProcvmError):
    """An atomic on memory that other processes, which are not stopped, can write too."""


class NoSuchSymbolError(ProcvmError, KeyError):
    """No file that the process has loaded defines the symbol.

    Attributes:
        name: The requested symbol.
        reason: Why the symbol may have no address: it is thread-local, or the names of a
            file cannot be read. Empty if the symbol is simply absent.
        near: Names that are spelled alike, the nearest first.
    """

    _fields: ClassVar[tuple[str, ...]] = ("copied_len", "name", "reason", "near")

    def __init__(
        self,
        message: str,
        *,
        name: str,
        reason: str = "",
        near: tuple[str, ...] = (),
        copied_len: int = 0,
        hint: Hint | None = None,
    ) -> None:
        super().__init__(message, copied_len=copied_len, hint=hint)
        self.name = name
        self.reason = reason
        self.near = near


class AmbiguousSymbolError(ProcvmError, LookupError):
    """Several symbols have the requested name.

    Attributes:
        name: The symbol that was asked for.
        candidates: The symbols, each with a name that means it alone.
    """

    _fields: ClassVar[tuple[str, ...]] = ("copied_len", "name", "candidates")

    def __init__(
        self,
        message: str,
        *,
        name: str,
        candidates: tuple[Candidate, ...],
        copied_len: int = 0,
        hint: Hint | None = None,
    ) -> None:
        super().__init__(message, copied_len=copied_len, hint=hint)
        self.name = name
        self.candidates = candidates


class MalformedError(ProcvmError, ValueError):
    """A core file, or an ELF file that a process maps, is malformed."""


class UnsupportedError(ProcvmError, NotImplementedError):
    """This kernel, machine or installation does not support the operation."""


class ClosedError(ProcvmError, ValueError):
    """The object was closed, or it belongs to the parent that forked this process."""
