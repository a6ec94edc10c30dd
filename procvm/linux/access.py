"""Why a process may not be accessed: the one true cause, and the way out.

The order is that of the kernel's own checks (``__ptrace_may_access`` and the
security modules after it), so the cause named is the one that was met first.
"""

from __future__ import annotations

import errno
import os

from procvm.errors import AccessDeniedError, ProcessExitedError, ProcvmError
from procvm.escape import printable
from procvm.linux import procfs
from procvm.linux.libc import errno_error

__all__ = ["denial", "open_error"]

_CAP_SYS_PTRACE = 1 << 19


def open_error(pid: int, error: OSError) -> ProcvmError:
    """Returns the error for an OSError met while opening process `pid`."""
    code = error.errno or errno.EIO
    if code in (errno.EPERM, errno.EACCES):
        return denial(pid) or AccessDeniedError(
            f"process {pid} may not be accessed, though owner, dumpability and capabilities "
            "allow it: a security module (SELinux, AppArmor, Landlock) or a seccomp filter "
            "says no; look at its audit log",
            pid=pid,
            errno=code,
        )
    if code == errno.ESRCH:
        return ProcessExitedError(f"process {pid} has ended", pid=pid)
    what = f"opening process {pid}"
    if code in (errno.EMFILE, errno.ENFILE):
        what += " (it takes 3 descriptors; close some or raise the limit)"
    return errno_error(code, what, pid=pid)


def denial(pid: int) -> AccessDeniedError | None:
    """Returns the cause that denies access to a living process, or None if none is found."""
    status = procfs.read_status(pid)
    if status is None:
        return (
            _deny(
                pid,
                f"process {pid} lives but /proc does not show it: /proc is mounted with hidepid; "
                "join its gid= group, or remount it without hidepid",
            )
            if _lives(pid)
            else None
        )
    if status.state in "ZX":
        return None
    if status.kernel_thread:
        return _deny(pid, f"{pid} is a kernel thread: it has no user address space")
    ours = procfs.read_status("self")
    if ours is None:
        return None
    ours_has_ptrace = bool(ours.effective & _CAP_SYS_PTRACE)
    if ours_has_ptrace and _same_user_namespace(pid) is not False:
        return _yama(pid, ours_has_ptrace=True)
    if ours_has_ptrace:
        return _deny(
            pid,
            f"process {pid} lives in another user namespace, over which CAP_SYS_PTRACE of this "
            "one does not reach; run the tool in its namespace or as its owner outside",
        )
    name = printable(status.name)
    if {*status.uids[:3]} != {ours.uids[0]} or {*status.gids[:3]} != {ours.gids[0]}:
        theirs = f"uids {_ids(status.uids)}, gids {_ids(status.gids)}"
        if len({*status.uids[:3]}) > 1 or len({*status.gids[:3]}) > 1:
            return _deny(
                pid,
                f"process {pid} ({name}) is a set-uid or set-gid program ({theirs}); run the tool "
                "as root or with CAP_SYS_PTRACE",
            )
        return _deny(
            pid,
            f"process {pid} ({name}) belongs to another user ({theirs}; the tool has uid "
            f"{ours.uids[0]}, gid {ours.gids[0]}); run the tool as that user, as root, or with "
            "CAP_SYS_PTRACE",
        )
    if status.permitted & ~ours.permitted:
        return _deny(
            pid,
            f"process {pid} ({name}) has capabilities that the tool lacks "
            f"({status.permitted & ~ours.permitted:#x}); run the tool with CAP_SYS_PTRACE",
        )
    if _not_dumpable(pid, status):
        return _deny(
            pid,
            f"process {pid} ({name}) is not dumpable: it changed its ids, runs a file that may "
            "not be read, or asked for it (PR_SET_DUMPABLE); run the tool with CAP_SYS_PTRACE",
        )
    return _yama(pid, ours_has_ptrace=False)


def _yama(pid: int, *, ours_has_ptrace: bool) -> AccessDeniedError | None:
    scope = procfs.read_text("/proc/sys/kernel/yama/ptrace_scope") or "0"
    if scope == "3":
        return _deny(
            pid,
            "Yama forbids all tracing (kernel.yama.ptrace_scope is 3, until the next boot); no "
            "process can be accessed but the tool itself",
        )
    if scope == "2" and not ours_has_ptrace:
        return _deny(
            pid,
            "Yama allows tracing to CAP_SYS_PTRACE only (kernel.yama.ptrace_scope is 2); run the "
            "tool with it",
        )
    if scope == "1" and not ours_has_ptrace:
        return _deny(
            pid,
            f"Yama allows a tool its own descendants only (kernel.yama.ptrace_scope is 1), and "
            f"process {pid} is none; start it from the tool, have it call "
            "prctl(PR_SET_PTRACER), set the scope to 0, or run with CAP_SYS_PTRACE",
        )
    return None


def _deny(pid: int, message: str) -> AccessDeniedError:
    return AccessDeniedError(message, pid=pid, errno=errno.EACCES)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _ids(ids: tuple[int, ...]) -> str:
    return "/".join(map(str, dict.fromkeys(ids[:3])))


def _same_user_namespace(pid: int) -> bool | None:
    """Returns whether the process shares our user namespace; None where we may not look."""
    try:
        return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    except OSError:
        return None


def _not_dumpable(pid: int, status: procfs.Status) -> bool:
    # The files of a process that may not be dumped belong to root; those of
    # one that may, to its effective user.
    try:
        owner = os.stat(f"/proc/{pid}/mem").st_uid
    except OSError:
        return True
    if status.uids[1] != owner:
        return True
    # Root's files belong to root either way: there is no telling them apart,
    # and nothing else is left that would deny what root's own process is.
    return status.uids[1] == 0
