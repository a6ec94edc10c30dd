"""How a transfer between memory of the target and memory of the tool ended."""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeAlias

__all__ = ["Moved", "Outcome"]


class Outcome(Enum):
    """How a transfer ended.

    The system calls do not agree on an errno: a fault of the target's page is EFAULT from
    process_vm_readv and EIO from /proc/PID/mem, where EFAULT is a fault of the tool's buffer.
    """

    DONE = auto()
    """Every byte was moved."""

    TARGET_FAULT = auto()
    """The target's own access to the next byte would fault."""

    OWN_FAULT = auto()
    """The tool's own buffer faults at the next byte."""

    GONE = auto()
    """The address space that was opened does not exist any more."""

    FAILED = auto()
    """The system call failed with another errno."""


Moved: TypeAlias = tuple[int, Outcome, int]
"""The count of bytes moved, how the transfer ended, and the errno of `FAILED` (else 0)."""
