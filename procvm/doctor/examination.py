"""`examine`: the whole of it, in order."""

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
    """Looks at every way in which access can fail, on this machine and for one process.

    The process is opened and read, never stopped. Of all that could deny access to it one check
    fails, the one that the kernel meets first; what it does not come to is not judged.

    Args:
        pid: The process; without it only the machine and the tool are looked at.

    Returns:
        What was found: the machine first, then the process, in the order of the kernel's checks.

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
