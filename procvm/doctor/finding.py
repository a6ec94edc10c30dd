"""`Finding`: the result of one check, with its evidence."""

from __future__ import annotations

import errno
import os
from typing import Literal, NamedTuple, TypeAlias

from procvm._base.text import printable
from procvm.errors import ProcvmError

__all__ = ["Finding", "Verdict", "said"]

Verdict: TypeAlias = Literal["ok", "warning", "fails", "absent"]


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        check: The stable name of the check: ``"ptrace"``, ``"numpy"``. Names of checks of the one
            process begin with ``"target"``.
        verdict: ``"ok"``; ``"warning"``: something works less well, or not for every process;
            ``"fails"``: something does not work; ``"absent"``: it does not exist, or is not
            known; the evidence says which.
        evidence: The file or the call that proves it, with its value; printable.
        fix: What to do; empty if there is nothing to do.
    """

    check: str
    verdict: Verdict
    evidence: str
    fix: str = ""


def said(error: BaseException) -> str:
    """Returns the message of an error, with the name of its errno if it has one."""
    code = getattr(error, "errno", None)
    if isinstance(error, ProcvmError):
        return f"{type(error).__name__}: {printable(error.message)}"
    if isinstance(code, int):
        return f"{os.strerror(code)} [{errno.errorcode.get(code, code)}]"
    return f"{type(error).__name__}: {printable(str(error))}"
