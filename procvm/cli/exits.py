"""Which exit code an error gives: the one place that says so."""

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
"""It is done, or something was found."""
NOTHING = 1
"""Nothing was found, or it is not as it was said to be."""
BAD_USE = 2
"""The command line is wrong, or a package is missing."""
DENIED = 3
"""Something that may say no said no."""
GONE = 4
"""There is no such process, or it has ended, or it runs another program by now."""
FAULT = 5
"""It broke off; what there is up to there was given out."""
DEFECT = 70
"""A defect of procvm itself."""
INTERRUPTED = 130
"""Ctrl-C."""
PIPE_CLOSED = 141
"""Whoever read the output wants no more of it: what a shell shows for SIGPIPE."""

# The most special first: the first that fits decides, and the last fits every error.
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
    """Returns the exit code for an error of the library; there is one for each."""
    if isinstance(error, AccessDeniedError) and error.errno == errno.EFAULT:
        return FAULT  # an address outside of user space: nobody's right is missing
    return next(code for kind, code in _CODES if isinstance(error, kind))


def exit_code_of_file(error: OSError) -> int:
    """Returns the exit code for a file of the user that could not be read or written."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DENIED
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
        return FAULT
    return BAD_USE
