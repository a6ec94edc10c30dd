"""`examine`: makes all checks in order."""

from __future__ import annotations

import os

from procvm._base.address import as_int
from procvm._linux.access import explain
from procvm.doctor import guards, machine, tool
from procvm.doctor.calls import CALLS, try_calls
from procvm.doctor.finding import Finding
from procvm.doctor.target import target

__all__ = ["examine"]


def examine(pid: int | None = None) -> list[Finding]:
    """Checks every way in which access can fail, and returns the findings.

    The process is opened and read, but never stopped. If access is denied, one check fails: the
    first in the order in which the kernel checks. The later ones are not judged.

    Args:
        pid: The process; None checks only the machine and the tool.

    Returns:
        The findings: first the machine, then the process, in the order of the kernel's checks.

    Raises:
        TypeError: `pid` is not an int.
    """
    number = None if pid is None else as_int(pid, "pid")
    descriptors = machine.descriptors()
    if descriptors.verdict != "ok":
        return [descriptors, *_unknown(number, descriptors)]
    proc = machine.proc()
    if proc.verdict == "fails":
        return [proc, descriptors, *tool.extras(), *_unknown(number, proc)]
    ours = explain(os.getpid())
    calls = try_calls(ours)
    hidepid = machine.hidepid(ours)
    findings = [
        proc,
        descriptors,
        hidepid,
        machine.pid_namespace(),
        machine.user_namespace(),
        machine.sys_ptrace(ours),
        machine.yama(ours),
        guards.security_modules(),
        guards.seccomp(ours),
        *calls,
        tool.forced(calls),
        tool.pagemap_scan(ours),
        tool.map_files(),
        *tool.extras(),
    ]
    if number is not None:
        findings += target(number, calls, hidepid)
    return findings


def _unknown(pid: int | None, because: Finding) -> list[Finding]:
    checks = [*CALLS, *(["target"] if pid is not None else [])]
    return [Finding(name, "absent", f"not known: see {because.check}") for name in checks]
