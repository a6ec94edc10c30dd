"""`verdict_on`: the findings in one sentence, which a person reads first."""

from __future__ import annotations

from procvm.doctor.finding import Finding

__all__ = ["verdict_on"]


def verdict_on(findings: list[Finding], pid: int | None = None) -> str:
    """Returns what the tool can do, and what prevents the rest, as one sentence.

    Args:
        findings: The findings of `examine`.
        pid: The process that was examined; None for the machine alone.
    """
    found = {finding.check: finding for finding in findings}
    for check in ("descriptors", "proc"):
        if check in found and found[check].verdict == "fails":
            return f"You cannot read any process, because {found[check].evidence}."
    return _on_machine(found) if pid is None else _on_target(found, pid)


def _fails(found: dict[str, Finding], check: str) -> bool:
    return check in found and found[check].verdict == "fails"


def _on_machine(found: dict[str, Finding]) -> str:
    for check in ("pidfd_open", "proc mem"):
        if _fails(found, check):
            return f"You cannot read any process, because {found[check].evidence}."
    verb = "read, write" if found["proc"].verdict == "ok" else "read"
    if _fails(found, "ptrace"):
        able, but = verb.replace(", ", " and "), f"cannot stop one, because {_why_no_stop(found)}"
    else:
        able, but = f"{verb} and stop", ""
    if found["CAP_SYS_PTRACE"].verdict == "ok":
        inside = found["user namespace"].verdict == "warning"
        whom = "every process of this user namespace" if inside else "every process"
        return f"You can {able} {whom}{f', but {but}' if but else ''}."
    restricted = found["yama"].verdict == "warning"
    whom = "processes you started" if restricted else "processes of your own user"
    because = "this tool does not have CAP_SYS_PTRACE"
    if restricted:
        because += f", and {found['yama'].evidence}"
    rest = f"; you {but}" if but else ""
    return f"You can {able} {whom}; other processes need sudo, because {because}{rest}."


def _why_no_stop(found: dict[str, Finding]) -> str:
    return found["yama" if _fails(found, "yama") else "ptrace"].evidence


def _on_target(found: dict[str, Finding], pid: int) -> str:
    here = found["target"]
    if here.verdict != "ok":
        return f"You cannot read process {pid}, because {here.evidence}."
    access = found["target access"]
    if access.verdict == "fails":
        return f"You cannot read process {pid}, because {access.fix or access.evidence}."
    able = "read and write" if found["proc"].verdict == "ok" else "read"
    hold = found["target hold"]
    if hold.verdict == "ok":
        return f"You can {able.replace(' and ', ', ')} and stop process {pid}."
    why = _why(found, hold)
    if hold.verdict == "absent":
        return f"You can {able} process {pid}; whether you can stop it is {why}."
    return f"You can {able} process {pid}, but cannot stop it, because {why}."


def _why(found: dict[str, Finding], finding: Finding) -> str:
    """Returns the evidence of a finding; that of the check which it refers to, if it does."""
    before, see, rest = finding.evidence.partition("see ")
    name = rest.partition(":")[0].partition(",")[0]
    if not see or before or name not in found:
        return finding.evidence
    return _why_no_stop(found) if name == "ptrace" else found[name].evidence
