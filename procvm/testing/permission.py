"""Whether this machine lets a test trace a process."""

from __future__ import annotations

import functools
import sys

from procvm._base.text import printable
from procvm._hold.spawn import spawn
from procvm.doctor import examine
from procvm.errors import ProcvmError

__all__ = ["why_no_ptrace"]


@functools.cache
def why_no_ptrace() -> str:
    """Returns why a child cannot be traced; empty if it can.

    The function traces a child. If that fails, it returns the finding of `procvm.doctor`, which
    also says what to do.
    """
    try:
        # Held at its first instruction, and ended there.
        with spawn([sys.executable], stopped=True):
            return ""
    except (ProcvmError, OSError) as error:
        for finding in examine():
            if finding.check == "ptrace" and finding.verdict == "fails":
                return f"{finding.evidence}; {finding.fix}" if finding.fix else finding.evidence
        return f"{type(error).__name__}: {printable(str(error))}"
