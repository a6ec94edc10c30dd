"""Checks the machine: /proc, descriptors, namespaces, capabilities, and Yama."""

from __future__ import annotations

import errno
import os
import resource

from procvm._base.fd import Fd
from procvm._linux import procfs
from procvm._linux import yama as settings
from procvm._linux.access import Explanation
from procvm._linux.mounts import hiding, proc_options
from procvm.doctor.finding import Finding, Verdict, said
from procvm.errors import UnsupportedError

__all__ = [
    "descriptors",
    "hidepid",
    "pid_namespace",
    "proc",
    "sys_ptrace",
    "user_namespace",
    "yama",
]


def proc() -> Finding:
    """Returns whether /proc belongs to this pid namespace, and is writable."""
    try:
        Fd.open("/proc/self/status", os.O_RDONLY).close()
    except OSError as error:
        evidence = f"open(/proc/self/status): {said(error)}"
        return Finding("proc", "fails", evidence, "mount proc on /proc")
    try:
        procfs.require_own_proc()
    except UnsupportedError as error:
        text, _, fix = error.message.rpartition("; ")
        return Finding("proc", "fails", text, fix)
    try:
        Fd.open("/proc/self/mem", os.O_RDWR).close()
    except OSError as error:
        evidence = f"open(/proc/self/mem, O_RDWR): {said(error)}"
        if error.errno == errno.EROFS:
            return Finding(
                "proc",
                "warning",
                f"{evidence}: /proc is read-only; reads work, writes to other processes do not",
                "remount it: mount -o remount,rw /proc",
            )
        return Finding("proc", "fails", evidence)
    return Finding("proc", "ok", "/proc is that of this pid namespace, and writable")


_MORE_DESCRIPTORS = "close some, or raise the limit: ulimit -n"
_DESCRIPTORS_NEEDED = 24
"""More than a child, the tracer and two processes need. With fewer, EMFILE would look like a
missing file."""


def descriptors() -> Finding:
    """Returns whether enough files can still be opened."""
    name = "descriptors"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        listed = os.listdir("/proc/self/fd")
    except OSError as error:
        short = error.errno in (errno.EMFILE, errno.ENFILE)
        evidence = f"listing /proc/self/fd: {said(error)}"
        if short:
            return Finding(name, "fails", evidence, _MORE_DESCRIPTORS)
        return Finding(name, "ok", f"RLIMIT_NOFILE is {soft}; how many are open is not known")
    if soft == resource.RLIM_INFINITY:
        return Finding(name, "ok", f"RLIMIT_NOFILE is unlimited, {len(listed) - 1} are open")
    # One of them is the descriptor of the listing itself.
    used = len([number for number in listed if int(number) < soft]) - 1
    evidence = f"RLIMIT_NOFILE is {soft}, {used} below it are open"
    if soft - used >= _DESCRIPTORS_NEEDED:
        return Finding(name, "ok", evidence)
    evidence += f"; procvm.open needs 3, all checks together {_DESCRIPTORS_NEEDED}"
    verdict: Verdict = "warning" if soft - used >= 3 else "fails"
    return Finding(name, verdict, evidence, _MORE_DESCRIPTORS)


def hidepid(ours: Explanation) -> Finding:
    """Returns whether /proc hides processes of other users."""
    options = proc_options()
    if options is None:
        return Finding(
            "hidepid", "absent", "not known: /proc/self/mountinfo does not show a proc on /proc"
        )
    hidden = hiding(options)
    if hidden is None:
        return Finding("hidepid", "ok", f"no hidepid in /proc/self/mountinfo: {','.join(options)}")
    evidence = f"{hidden.option} in /proc/self/mountinfo"
    if ours.has_sys_ptrace:
        return Finding("hidepid", "ok", f"{evidence}, and the tool has CAP_SYS_PTRACE")
    if hidden.group is not None:
        if hidden.group in {os.getegid(), *os.getgroups()}:
            return Finding(
                "hidepid", "ok", f"{evidence}, and the tool is in its group {hidden.group}"
            )
        way = f"add the user to group {hidden.group}, or remount /proc without hidepid"
    else:
        way = "remount /proc without hidepid, or run the tool with CAP_SYS_PTRACE"
    return Finding("hidepid", "warning", f"{evidence}: processes of other users are hidden", way)


def pid_namespace() -> Finding:
    """Returns in which pid namespace the tool is."""
    # Source of the numbers: the kernel's PROC_PID_INIT_INO and PROC_USER_INIT_INO.
    return _namespace("pid", 0xEFFFFFFC, "ok", "processes outside of it have no pid here")


def user_namespace() -> Finding:
    """Returns in which user namespace the tool is."""
    return _namespace(
        "user",
        0xEFFFFFFD,
        "warning",
        "the tool has no capabilities outside of it",
        "to access a process outside of it, run the tool there",
    )


def _namespace(kind: str, number: int, status: Verdict, limit: str, way: str = "") -> Finding:
    """Returns whether the tool is in the first namespace of a kind; else what limits it."""
    name, path = f"{kind} namespace", f"/proc/self/ns/{kind}"
    try:
        link = os.readlink(path)
    except OSError as error:
        return Finding(name, "absent", f"not known: readlink({path}): {said(error)}")
    if link == f"{kind}:[{number}]":
        return Finding(name, "ok", f"{path} is {link}, the first one")
    return Finding(name, status, f"{path} is {link}, not the first one: {limit}", way)


def sys_ptrace(ours: Explanation) -> Finding:
    """Returns whether the tool has CAP_SYS_PTRACE."""
    status = procfs.read_status("self")
    if status is None:
        return Finding("CAP_SYS_PTRACE", "absent", "not known: /proc/self/status cannot be read")
    evidence = f"CapEff {status.effective:#x} in /proc/self/status"
    if ours.has_sys_ptrace:
        return Finding("CAP_SYS_PTRACE", "ok", f"{evidence} has it")
    return Finding(
        "CAP_SYS_PTRACE",
        "warning",
        f"{evidence} lacks it: the tool can access only processes of its own user, and not all",
        "start the container with it (docker run --cap-add SYS_PTRACE), or the tool outside of it"
        if os.geteuid() == 0
        else "to access a process of another user, run the tool as root, or with CAP_SYS_PTRACE",
    )


def yama(ours: Explanation) -> Finding:
    """Returns whether Yama allows the tool to trace."""
    scope, name = ours.yama_scope, "kernel.yama.ptrace_scope"
    if scope is None:
        if settings.is_unknown():
            evidence = "not known: /proc has no folder sys (mounted with subset=pid)"
            return Finding("yama", "absent", f"{name}: {evidence}")
        return Finding("yama", "absent", f"{name}: this kernel has no such setting")
    evidence = f"{name} is {scope}"
    if scope == 3:
        return Finding(
            "yama",
            "fails",
            f"{evidence}: no process may trace",
            f"boot with {name} less than 3: it cannot be lowered before a reboot",
        )
    if scope == 0 or ours.has_sys_ptrace:
        rest = "" if scope == 0 else ", and the tool has CAP_SYS_PTRACE"
        return Finding("yama", "ok", evidence + rest)
    way = f"run the tool with CAP_SYS_PTRACE, or: sysctl {name}=0"
    if scope == 1:
        return Finding(
            "yama",
            "warning",
            f"{evidence}: the tool may open its descendants, and hold those that admit its tracer "
            "(procvm.spawn, procvm.allow_attach)",
            way,
        )
    return Finding("yama", "fails", f"{evidence}: only a tool with CAP_SYS_PTRACE may trace", way)
