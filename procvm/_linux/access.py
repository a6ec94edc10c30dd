"""Explains why access to a process is denied, and what to do about it.

The order is that of the kernel's own checks (``__ptrace_may_access`` and the
security modules after it), so the cause is the check that fails first.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from procvm._base.fd import Fd
from procvm._base.text import printable
from procvm._linux import procfs, yama
from procvm._linux.libc import errno_error
from procvm._linux.mounts import hiding, proc_options
from procvm.errors import AccessDeniedError, Hint, ProcessExitedError, ProcvmError

__all__ = ["LSM", "WITHOUT_A_SAY", "Explanation", "denial", "explain", "is_ending", "open_error"]

CAP_DAC_OVERRIDE = 1 << 1
CAP_SYS_PTRACE = 1 << 19
_NOT_DUMPABLE = (
    "{who} is not dumpable: it changed its ids, runs a file that may not be read, or asked for it "
    "(PR_SET_DUMPABLE); run the tool as root, or with {rights}"
)
_OUTSIDE = (
    "process {pid} belongs to a user namespace in which the tool has no capabilities; run the "
    "tool in that namespace"
)
_RIGHTS = "CAP_SYS_PTRACE and CAP_DAC_OVERRIDE"
"""The second is needed since only the owner may open the file /proc/PID/mem."""


class Explanation(NamedTuple):
    """The facts that decide whether a process may be accessed and held.

    Attributes:
        pid: The process.
        cause: The cause, or None if nothing is known to deny access:
            ``"tool"``, ``"no process"``, ``"zombie"``, ``"hidden"``, ``"kernel thread"``,
            ``"user namespace"``, ``"other user"``, ``"set-uid"``, ``"file mode"``,
            ``"capabilities"``, ``"not dumpable"``, ``"yama"``.
        message: The cause and what to do, in words; empty without a cause.
        tracer_pid: The pid of its tracer, which denies a hold only; 0 without one.
        uids: Its real, effective and saved uid; empty if /proc does not show them.
        gids: Its real, effective and saved gid.
        missing_capabilities: The capabilities that it has and the tool lacks, as a mask.
        has_sys_ptrace: Whether the tool has CAP_SYS_PTRACE.
        same_user_namespace: Whether it and the tool are in the same user namespace; None if the
            tool may not see that.
        dumpable: Whether it is dumpable (PR_SET_DUMPABLE); None if it is not known.
        yama_scope: The value of kernel.yama.ptrace_scope; None without Yama.
        is_descendant: Whether it descends from the tool, as Yama's scope 1 demands.
        seccomp: The tool's own seccomp mode: 0 for none, 2 for a filter. A filter may refuse a
            call that everything else allows.
        kernel_thread: Whether it is a kernel thread.
        zombie: Whether it has ended and waits to be reaped.
    """

    pid: int
    cause: str | None
    message: str
    tracer_pid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    missing_capabilities: int
    has_sys_ptrace: bool
    same_user_namespace: bool | None
    dumpable: bool | None
    yama_scope: int | None
    is_descendant: bool
    seccomp: int
    kernel_thread: bool
    zombie: bool


def open_error(pid: int, error: OSError) -> ProcvmError:
    """Returns the error for an OSError raised while opening process `pid`."""
    code = error.errno or errno.EIO
    if code in (errno.EPERM, errno.EACCES):
        found = explain(pid)
        if found.cause is None and found.dumpable is None and not found.has_sys_ptrace:
            # A process of root, whose files belong to root whether or not it is dumpable. No
            # other cause is left.
            return AccessDeniedError(
                _NOT_DUMPABLE.format(who=f"process {pid}", rights=_RIGHTS), pid=pid, errno=code
            )
        return denial(pid) or AccessDeniedError(
            f"the kernel denied access to process {pid} [{errno.errorcode[code]}], and the reason "
            f"is not visible: {_maybe(found)}",
            pid=pid,
            errno=code,
        )
    if code == errno.ESRCH:
        return ProcessExitedError(f"process {pid} has ended", pid=pid)
    what = f"opening process {pid}"
    if code in (errno.EMFILE, errno.ENFILE):
        what += " (it takes 3 descriptors; close some or raise the limit)"
    return errno_error(code, what, pid=pid)


LSM = "/sys/kernel/security/lsm"
"""The file that lists the active security modules."""
WITHOUT_A_SAY = {
    "capability",
    "yama",
    "lockdown",
    "integrity",
    "ima",
    "evm",
    "safesetid",
    "loadpin",
}
"""Security modules that never deny access to a process, or whose verdict `explain` knows."""


def _maybe(found: Explanation) -> str:
    """Returns the possible causes that `explain` cannot see, in words."""
    causes: list[str] = []
    names = procfs.read_text(LSM)
    if names is None:
        causes.append(
            f"a security module (whether one is active is not known: {LSM} cannot be read)"
        )
    elif active := [name for name in names.strip().split(",") if name not in WITHOUT_A_SAY]:
        causes.append(f"a security module ({', '.join(active)} {_is(active)} active)")
    if yama.is_unknown() and not found.has_sys_ptrace:
        causes.append("Yama (/proc does not show kernel.yama.ptrace_scope)")
    if found.seccomp:
        causes.append("the tool's own seccomp filter")
    return "it may be " + ", or ".join(causes or ["a policy of this kernel"])


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def denial(pid: int, *, holds: bool = False) -> AccessDeniedError | None:
    """Returns the error for a living process to which access is denied; None without a cause.

    Args:
        pid: The process.
        holds: Whether the caller is the tracer. Yama then asks for an ancestor of the process
            that the tracer never is, whatever the tool is.
    """
    found = _explain(pid, holds=holds)
    if found.cause in (None, "no process", "zombie"):
        return None
    admit = holds and found.cause == "yama" and found.yama_scope == 1
    return AccessDeniedError(
        found.message, pid=pid, errno=errno.EACCES, hint=Hint("admit") if admit else None
    )


def is_ending(pid: int) -> bool:
    """Returns whether a process is about to end, which has released its memory already."""
    status = procfs.read_status(pid)
    return status is not None and not status.kernel_thread and not procfs.has_memory(pid)


def explain(pid: int) -> Explanation:
    """Explains whether process `pid` may be accessed, without opening or attaching to it.

    Returns:
        The facts. The `cause` is the first check that the kernel would fail, or None.
    """
    return _explain(pid, holds=False)


def _explain(pid: int, *, holds: bool) -> Explanation:
    status = procfs.read_status(pid)
    ours = procfs.read_status("self")
    facts = Explanation(
        pid=pid,
        cause=None,
        message="",
        tracer_pid=status.tracer_pid if status else 0,
        uids=status.uids[:3] if status else (),
        gids=status.gids[:3] if status else (),
        missing_capabilities=status.permitted & ~ours.permitted if status and ours else 0,
        has_sys_ptrace=bool(ours and ours.effective & CAP_SYS_PTRACE),
        same_user_namespace=_same_user_namespace(pid),
        dumpable=_dumpable(pid, status) if status else None,
        yama_scope=yama.scope(),
        is_descendant=_is_descendant(pid),
        seccomp=ours.seccomp if ours else 0,
        kernel_thread=bool(status and status.kernel_thread),
        zombie=bool(status and status.state in "ZX"),
    )
    cause, message = _cause(facts, status, ours, holds=holds)
    return facts._replace(cause=cause, message=message)


def _cause(
    facts: Explanation, status: procfs.Status | None, ours: procfs.Status | None, *, holds: bool
) -> tuple[str | None, str]:
    pid = facts.pid
    if status is None or ours is None:
        if not _lives(pid):
            return "no process", f"no process has the pid {pid}"
        refusal = None if ours is not None else _why_not("/proc/self/status")
        if refusal is not None:
            return (
                "tool",
                f"the tool cannot open /proc/self/status ({refusal}): with too many open files, "
                "close some or raise RLIMIT_NOFILE; else mount proc on /proc",
            )
        return "hidden", f"process {pid} lives but /proc does not show it{_hidden_by()}"
    if facts.zombie:
        return "zombie", f"process {pid} has ended and waits to be reaped by its parent"
    if facts.kernel_thread:
        return "kernel thread", f"{pid} is a kernel thread: it has no user address space"
    if pid == os.getpid():
        return None, ""
    return _by_credentials(facts, status, ours) or _by_yama(facts, holds=holds) or (None, "")


def _by_credentials(
    facts: Explanation, status: procfs.Status, ours: procfs.Status
) -> tuple[str, str] | None:
    pid = facts.pid
    if facts.has_sys_ptrace:
        if facts.same_user_namespace is not False:
            return _by_owner_of_file(facts, status, ours)
        return (
            "user namespace",
            _OUTSIDE.format(pid=pid),
        )
    who = f"process {pid} ({printable(status.name)})"
    if {*facts.uids} != {ours.uids[0]} or {*facts.gids} != {ours.gids[0]}:
        theirs = f"uids {_ids(facts.uids)}, gids {_ids(facts.gids)}"
        if len({*facts.uids}) > 1 or len({*facts.gids}) > 1:
            return (
                "set-uid",
                f"{who} is a set-uid or set-gid program ({theirs}); run the tool as root or with "
                f"{_RIGHTS}",
            )
        return (
            "other user",
            f"{who} belongs to another user ({theirs}; the tool has uid {ours.uids[0]}, gid "
            f"{ours.gids[0]}); run the tool as that user, as root, or with {_RIGHTS}",
        )
    # Capabilities of another namespace are compared with none of ours.
    if facts.missing_capabilities and not _has_other_ids(pid):
        return (
            "capabilities",
            f"{who} has capabilities that the tool lacks ({facts.missing_capabilities:#x}); run "
            "the tool with CAP_SYS_PTRACE",
        )
    if facts.dumpable is False:
        return (
            "not dumpable",
            _NOT_DUMPABLE.format(who=who, rights=_RIGHTS),
        )
    if facts.same_user_namespace is False:
        return "user namespace", _OUTSIDE.format(pid=pid)
    return None


def _by_owner_of_file(
    facts: Explanation, status: procfs.Status, ours: procfs.Status
) -> tuple[str, str] | None:
    """Returns the cause where the tool may trace the process but may not open the file mem."""
    if ours.effective & CAP_DAC_OVERRIDE:
        return None
    try:
        owner = os.stat(f"/proc/{facts.pid}/mem").st_uid
    except OSError:
        return None
    if owner == ours.uids[1]:
        return None
    return (
        "file mode",
        f"process {facts.pid} ({printable(status.name)}) may be traced by the tool, but "
        f"/proc/{facts.pid}/mem is a file of uid {owner}'s alone; run the tool with "
        "CAP_DAC_OVERRIDE as well",
    )


def _by_yama(facts: Explanation, *, holds: bool) -> tuple[str, str] | None:
    message = yama.reason(
        facts.pid,
        facts.yama_scope,
        related=facts.is_descendant,
        capable=facts.has_sys_ptrace,
        holds=holds,
    )
    return ("yama", message) if message else None


def _why_not(path: str) -> str | None:
    try:
        Fd.open(path, os.O_RDONLY).close()
    except OSError as error:
        return os.strerror(error.errno or errno.EIO)
    return None


def _hidden_by() -> str:
    """Returns the option of /proc that hides processes, and what to do, as the rest of a text."""
    hidden = hiding(proc_options() or [])
    if hidden is None:
        return "; its mount options do not say why"
    ways = [f"add the user to group {hidden.group}"] if hidden.group is not None else []
    ways += ["remount it without hidepid", "run the tool as root, or with CAP_SYS_PTRACE"]
    return f": /proc is mounted with {printable(hidden.option)}; {', '.join(ways)}"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid > 0


def _ids(ids: tuple[int, ...]) -> str:
    return "/".join(map(str, dict.fromkeys(ids)))


def _same_user_namespace(pid: int) -> bool | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    except OSError:
        pass
    # The link cannot be read. In the initial user namespace the tool only lacks a capability; in
    # another one the process is outside of the tool's namespace.
    ours = (procfs.read_text("/proc/self/uid_map") or "").split()
    return None if ours == ["0", "0", "4294967295"] else False


def _has_other_ids(pid: int) -> bool:
    """Returns whether a process is surely in another user namespace, as its map of uids differs.

    Every user may read the map, also where the link of the namespace is denied.
    """
    theirs = procfs.read_text(f"/proc/{pid}/uid_map")
    return theirs is not None and theirs != procfs.read_text("/proc/self/uid_map")


def _is_descendant(pid: int) -> bool:
    ancestor = pid
    while ancestor > 1:
        stat = procfs.read_stat(ancestor)
        if stat is None:
            return False
        ancestor = int(stat[3])
        if ancestor == os.getpid():
            return True
    return False


def _dumpable(pid: int, status: procfs.Status) -> bool | None:
    # The files of a process that is not dumpable belong to root, those of a dumpable one to its
    # effective user. Those of a process of root belong to root either way.
    try:
        owner = os.stat(f"/proc/{pid}/mem").st_uid
    except OSError:
        return None
    if status.uids[1] != owner:
        return False
    return None if owner == 0 else True
