"""`require_own_means`: tells what this process lacks from what the target does not have."""

from __future__ import annotations

import errno
import os

from procvm.errors import VmError

__all__ = ["is_own_shortage", "require_own_means"]

_OWN_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def is_own_shortage(error: OSError) -> bool:
    """Returns whether an error says that this process lacks descriptors or memory."""
    return error.errno in _OWN_SHORTAGE


def require_own_means(error: OSError, path: str) -> None:
    """Raises VmError for an error that says nothing about the file or process that is asked for.

    Code that takes the error of an open or a listing for "absent" calls this first. Without it, a
    process without free descriptors would tell that its target has ended, and read pages that
    the target never touched.

    Args:
        error: What the open, the listing or the mapping raised.
        path: What was asked for.

    Raises:
        VmError: This process lacks descriptors or memory.
    """
    if is_own_shortage(error):
        code = error.errno or 0
        remedy = "" if code == errno.ENOMEM else "; close some descriptors or raise RLIMIT_NOFILE"
        name = errno.errorcode[code]
        raise VmError(f"cannot open {path}: {os.strerror(code)} [{name}]{remedy}") from None
