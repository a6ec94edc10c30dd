"""The exit codes of the command, and which error gives which."""

from __future__ import annotations

import errno

from procvm.errors import (
    AccessDeniedError,
    AddressOverflowError,
    AlreadyTracedError,
    AmbiguousNameError,
    AmbiguousSymbolError,
    ClosedError,
    InvalidArgsError,
    MalformedError,
    MismatchError,
    NoSuchSymbolError,
    NotStoppedError,
    NotTracedError,
    PageFaultError,
    ProcessError,
    ProcvmError,
    SharedMemoryError,
    StopTimeoutError,
    UnsupportedError,
    VmError,
    WaitTimeoutError,
)

__all__ = [
    "BAD_USE",
    "DEFECT",
    "DENIED",
    "DIFFERENT",
    "DONE",
    "FAULT",
    "GONE",
    "INTERRUPTED",
    "NOTHING",
    "PIPE_CLOSED",
    "exit_code",
    "exit_code_of_file",
]

DONE = 0
"""The command is done, or something was found; for diff: there is no difference."""
NOTHING = 1
"""Nothing was found, or the value is not the expected one."""
DIFFERENT = 1
"""For diff, as diff(1): there is a difference."""
BAD_USE = 2
"""The command line is wrong, or a package is missing."""
DENIED = 3
"""The kernel or a security policy denied the access."""
GONE = 4
"""The process does not exist, has ended, or runs another program now."""
FAULT = 5
"""The work was cut short; all that was read before is in the output."""
DEFECT = 70
"""A defect of procvm itself."""
INTERRUPTED = 130
"""Ctrl-C."""
PIPE_CLOSED = 141
"""The reader of the output closed the pipe: the code that a shell shows for SIGPIPE."""

# The first class that fits decides, so a subclass comes before its base.
_CODES: tuple[tuple[type[ProcvmError], int], ...] = (
    (PageFaultError, FAULT),
    (AccessDeniedError, DENIED),
    (InvalidArgsError, BAD_USE),
    (AddressOverflowError, BAD_USE),
    (MismatchError, NOTHING),
    (VmError, FAULT),
    (AlreadyTracedError, DENIED),
    (NotTracedError, BAD_USE),
    (AmbiguousNameError, BAD_USE),
    (NotStoppedError, FAULT),
    (StopTimeoutError, FAULT),
    (WaitTimeoutError, NOTHING),
    (ProcessError, GONE),
    (SharedMemoryError, DENIED),
    (NoSuchSymbolError, NOTHING),
    (AmbiguousSymbolError, BAD_USE),
    (MalformedError, BAD_USE),
    (UnsupportedError, BAD_USE),
    (ClosedError, GONE),
    (ProcvmError, FAULT),
)


def exit_code(error: ProcvmError) -> int:
    """Returns the exit code of an error of the library."""
    if isinstance(error, AccessDeniedError) and error.errno == errno.EFAULT:
        return FAULT  # an address outside user space: no permission would help
    return next(code for kind, code in _CODES if isinstance(error, kind))


def exit_code_of_file(error: OSError) -> int:
    """Returns the exit code of a file that could not be read or written."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DENIED
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
        return FAULT
    return BAD_USE
