"""Checks the security modules and seccomp."""

from __future__ import annotations

from procvm._base.text import printable
from procvm._linux import procfs
from procvm._linux.access import LSM, Explanation
from procvm.doctor.finding import Finding

__all__ = ["label_of", "seccomp", "security_modules"]

_ENFORCE = "/sys/fs/selinux/enforce"
_DENY_PTRACE = "/sys/fs/selinux/booleans/deny_ptrace"


def label_of(pid: int | str) -> str | None:
    """Returns the security label of a process, printable, or None if it has none."""
    label = procfs.read_text(f"/proc/{pid}/attr/current")
    return printable(label.rstrip("\0\n")) if label and label.strip("\0\n") else None


def security_modules() -> Finding:
    """Returns which security modules are active, and the label of the tool."""
    name = "security modules"
    modules, label = procfs.read_text(LSM), label_of("self")
    listed = f"{LSM}: {printable(modules)}" if modules else f"{LSM} cannot be read"
    ours = "no /proc/self/attr/current" if label is None else f"/proc/self/attr/current: {label}"
    evidence = f"{listed}; {ours}"
    if (procfs.read_text(_DENY_PTRACE) or "").startswith("1"):
        return Finding(
            name, "warning", f"{_DENY_PTRACE} is 1; {evidence}", "setsebool deny_ptrace off"
        )
    if procfs.read_text(_ENFORCE) == "1":
        return Finding(
            name,
            "warning",
            f"{_ENFORCE} is 1: SELinux decides by its policy; {evidence}",
            "if it denies access, see its log: ausearch -m avc -ts recent",
        )
    if label not in (None, "unconfined") and "apparmor" in (modules or ""):
        return Finding(
            name,
            "warning",
            f"AppArmor confines the tool; {evidence}",
            "if it denies access, see the kernel's log, and run the tool unconfined",
        )
    if modules is None:
        return Finding(name, "absent", f"not known: {evidence}")
    return Finding(name, "ok", evidence)


def seccomp(ours: Explanation) -> Finding:
    """Returns whether the tool is under a seccomp filter."""
    mode = ours.seccomp
    evidence = f"Seccomp {mode} in /proc/self/status"
    if mode == 0:
        return Finding("seccomp", "ok", f"{evidence}: no filter")
    return Finding(
        "seccomp", "ok", f"{evidence}: a filter; the check of each call says whether it is refused"
    )
