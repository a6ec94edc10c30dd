"""`Finding`: one thing that was looked at, and what says so."""

from __future__ import annotations

import errno
import os
from typing import Literal, NamedTuple, TypeAlias

from procvm._base.text import printable
from procvm.errors import ProcvmError

__all__ = ["Finding", "Verdict", "said"]

Verdict: TypeAlias = Literal["ok", "warning", "fails", "absent"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        check: What, in a few words that stay the same: ``"ptrace"``, ``"numpy"``. What is
            about the one process begins with ``"target"``.
        verdict: ``"ok"``; ``"warning"``: something works less well, or not for every process;
            ``"fails"``: something does not work; ``"absent"``: it is not there, or it is not
            known, and the evidence says which.
        evidence: The file or the call that says so, with its value; printable.
        fix: What to do; empty if there is nothing to do.
    """

    check: str
    verdict: Verdict
    evidence: str
    fix: str = ""


def said(error: BaseException) -> str:
    """Returns what an error says, with the name of the errno if it has one."""
    code = getattr(error, "errno", None)
    if isinstance(error, ProcvmError):
        return f"{type(error).__name__}: {printable(error.message)}"
    if isinstance(code, int):
        return f"{os.strerror(code)} [{errno.errorcode.get(code, code)}]"
    return f"{type(error).__name__}: {printable(str(error))}"
