"""Yama: which processes its setting lets a process trace, and the one exception that it has."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from procvm._base.c_library import c_function
from procvm._linux import procfs

__all__ = ["ADMIT", "RIGHTS_OF_ROOT", "admission", "is_unknown", "reason", "scope"]

_SETTINGS = "/proc/sys"
_SCOPE = f"{_SETTINGS}/kernel/yama/ptrace_scope"

ADMIT = 0x59616D61
"""The option of prctl that lets one more process trace the caller. Source: PR_SET_PTRACER."""

RIGHTS_OF_ROOT = (
    "run the tool as root (sudo), give CAP_SYS_PTRACE to an interpreter that is used for nothing "
    "else (setcap: all who run it may trace every process of theirs), or set "
    "kernel.yama.ptrace_scope to 0 (sysctl: each process may then trace all others of its user)"
)


def scope() -> int | None:
    """Returns the value of kernel.yama.ptrace_scope, or None without Yama.

    Source:
        Documentation/admin-guide/LSM/Yama.rst: 0 restricts nothing, 1 only descendants, 2 only
        CAP_SYS_PTRACE, 3 nothing.
    """
    text = procfs.read_text(_SCOPE)
    return int(text) if text and text.isdecimal() else None


def is_unknown() -> bool:
    """Returns whether /proc shows no settings of the kernel (it is mounted with subset=pid)."""
    return scope() is None and not os.path.isdir(_SETTINGS)


def admission(tracer_pid: int) -> Callable[[], None]:
    """Returns a function that lets a process trace the calling one under scope 1.

    The kernel refuses without Yama, and where no process has the pid; the function then does
    nothing. The permission outlives an exec of the first thread. It is lost when the tracer ends
    or another thread execs, and a forked child does not have it.

    Source:
        prctl(2), PR_SET_PTRACER.
    """
    # Looked up here: the child of a program with threads must not load a library after the fork.
    prctl = c_function("prctl", ctypes.c_int)
    numbers = [ctypes.c_ulong(number) for number in (tracer_pid, 0, 0, 0)]

    def admit() -> None:
        # SAFETY: numbers only.
        prctl(ADMIT, *numbers)

    return admit


def reason(pid: int, value: int | None, *, related: bool, capable: bool, holds: bool) -> str:
    """Returns why Yama refuses access to a process, and what to do; empty if it does not.

    Args:
        pid: The process.
        value: The scope.
        related: Whether the process descends from the one that asks.
        capable: Whether that one has CAP_SYS_PTRACE.
        holds: Whether the tracer asks, a process of its own, so that the process may be held.
    """
    if value == 3:
        return (
            "Yama forbids all tracing (kernel.yama.ptrace_scope is 3, until the next boot); no "
            "process can be accessed but the tool itself"
        )
    if capable:
        return ""
    if value == 2:
        return (
            "Yama allows tracing to CAP_SYS_PTRACE only (kernel.yama.ptrace_scope is 2); "
            f"{RIGHTS_OF_ROOT}"
        )
    if value != 1 or related:
        return ""
    if holds:
        return (
            f"Yama does not allow process {pid} to be held (kernel.yama.ptrace_scope is 1): the "
            "tracer, a process of its own, is not its ancestor, and the process has not admitted "
            "the tracer, or no longer does, since the tracer ended or a thread other than the "
            f"first made an exec; {RIGHTS_OF_ROOT}"
        )
    return (
        f"Yama allows a process its own descendants only (kernel.yama.ptrace_scope is 1), and "
        f"process {pid} does not descend from the tool; start it from the tool, {RIGHTS_OF_ROOT}"
    )
