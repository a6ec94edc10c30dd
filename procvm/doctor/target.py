"""Checks one process, in the order of the kernel's checks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from procvm._base.text import printable
from procvm._linux import procfs
from procvm._linux.access import LSM, WITHOUT_A_SAY, Explanation, explain, is_ending
from procvm._linux.mounts import Mount, read_mounts
from procvm._live.process import open as open_process
from procvm._symbols.mapped_file import SlowFiles
from procvm.doctor.calls import killing_call
from procvm.doctor.finding import Finding, said
from procvm.doctor.guards import label_of
from procvm.errors import AccessDeniedError, PageFaultError, ProcvmError

__all__ = ["target"]


class _Row(NamedTuple):
    """A check of one process.

    Attributes:
        check: Its name.
        causes: The causes of `Explanation` for which it fails.
        evidence: Returns the file that proves it, with its value; begins with "not known" if
            there is none.
    """

    check: str
    causes: tuple[str, ...]
    evidence: Callable[[Explanation, procfs.Status | None], str]


def _ids(numbers: tuple[int, ...]) -> str:
    return "/".join(map(str, numbers)) or "not shown"


def _owner(found: Explanation, ours: procfs.Status | None) -> str:
    theirs = f"Uid {_ids(found.uids)}, Gid {_ids(found.gids)} in /proc/{found.pid}/status"
    own = f"{ours.uids[0]}, {ours.gids[0]}" if ours else "not shown"
    return f"{theirs}; the tool has {own}"


def _more_capabilities(found: Explanation, _: procfs.Status | None) -> str:
    if not found.missing_capabilities:
        return f"CapPrm in /proc/{found.pid}/status has nothing that the tool lacks"
    return (
        f"CapPrm in /proc/{found.pid}/status has {found.missing_capabilities:#x}, which the tool "
        "lacks"
    )


def _dumpable(found: Explanation, _: procfs.Status | None) -> str:
    path = f"/proc/{found.pid}/mem"
    if found.dumpable is None:
        return f"not known: {path} belongs to root, and so does its process"
    return (
        f"{path} belongs to its user" if found.dumpable else f"{path} does not belong to its user"
    )


def _namespace(found: Explanation, _: procfs.Status | None) -> str:
    path = f"/proc/{found.pid}/ns/user"
    if found.same_user_namespace is None:
        return f"not known: {path} may not be read"
    if found.same_user_namespace:
        return f"{path} is /proc/self/ns/user"
    return f"{path} is not /proc/self/ns/user, or may not be read"


def _scope(found: Explanation, _: procfs.Status | None) -> str:
    related = "is" if found.is_descendant else "is not"
    return f"kernel.yama.ptrace_scope is {found.yama_scope}; it {related} the tool's descendant"


def _file_mode(found: Explanation, ours: procfs.Status | None) -> str:
    path = f"/proc/{found.pid}/mem"
    own = f"uid {ours.uids[1]}" if ours else "a uid that is not shown"
    try:
        owner = os.stat(path).st_uid
    except OSError as error:
        return f"not known: stat({path}): {said(error)}"
    return f"only uid {owner} may open {path}; the tool has {own}, and not CAP_DAC_OVERRIDE"


# In the order of the kernel's checks.
_ROWS = (
    _Row("target owner", ("other user", "set-uid"), _owner),
    _Row("target capabilities", ("capabilities",), _more_capabilities),
    _Row("target dumpable", ("not dumpable",), _dumpable),
    _Row("target user namespace", ("user namespace",), _namespace),
    _Row("target file mode", ("file mode",), _file_mode),
    _Row("target yama", ("yama",), _scope),
)


def target(pid: int, calls: list[Finding], hidepid: Finding) -> Iterator[Finding]:
    """Yields the findings for one process."""
    found = explain(pid)
    here = _existence(pid, found, hidepid)
    yield here
    if here.verdict == "fails":
        return
    access, cause, message = _access(pid, found, calls)
    ours = procfs.read_status("self")
    decided = ""
    for row in _ROWS:
        if row.check == "target yama" and not found.yama_scope:
            continue
        if row.check == "target file mode" and cause not in row.causes:
            continue  # without the right to trace, that is the cause
        evidence = row.evidence(found, ours)
        if decided:
            yield Finding(row.check, "absent", f"not judged: {decided} decides")
        elif cause in row.causes:
            decided = row.check
            yield Finding(row.check, "fails", evidence, message)
        elif access.verdict == "ok":
            yield Finding(row.check, "ok", evidence)
        else:
            known = not evidence.startswith("not known")
            yield Finding(row.check, "ok" if known else "absent", evidence)
    yield _module(pid, access, cause, decided)
    yield access
    tracer, frozen = _tracer(found), _frozen(pid)
    yield tracer
    yield frozen
    if access.verdict == "ok":
        yield _fuse(pid)
    yield _hold(found, (access, tracer, frozen), calls[-1])


def _existence(pid: int, found: Explanation, hidepid: Finding) -> Finding:
    path = f"/proc/{pid}/status"
    status = procfs.read_status(pid)
    if found.cause == "hidden":
        evidence = f"kill({pid}, 0) finds the process, {path} does not"
        if hidepid.verdict == "warning":
            return Finding("target", "fails", evidence, found.message)
        return Finding("target", "fails", f"{evidence}; why is not known: see hidepid")
    if found.cause == "no process" or status is None:
        return Finding("target", "fails", f"kill({pid}, 0): no process has the pid {pid}")
    name = printable(status.name)
    if status.tgid != pid:
        evidence = f"Tgid {status.tgid} in {path}: {pid} is a thread of process {status.tgid}"
        return Finding("target", "fails", evidence, f"use {status.tgid}")
    if found.cause == "zombie":
        if procfs.has_memory(pid):
            evidence = f"State {status.state} in {path}: its leader has ended, other threads live"
            return Finding("target", "ok", evidence)
        evidence = f"State {status.state} in {path}: {name} has ended and waits to be reaped"
        return Finding("target", "fails", evidence)
    if found.cause == "kernel thread":
        evidence = f"Kthread in {path}: {name} is a kernel thread, and has no memory"
        return Finding("target", "fails", evidence)
    if is_ending(pid):
        return Finding("target", "fails", f"/proc/{pid}/statm is 0: {name} is about to end")
    return Finding("target", "ok", f"State {status.state} in {path}: {name}")


def _access(pid: int, found: Explanation, calls: list[Finding]) -> tuple[Finding, str, str]:
    """Opens and reads a process; returns the finding, the cause of a denial, and its message."""
    name, call = "target access", f"procvm.open({pid})"
    if killing_call(calls):
        return (
            Finding(name, "fails", f"not tried: {killing_call(calls)} would end the tool"),
            "",
            "",
        )
    try:
        with open_process(pid) as process:
            first = next(iter(process.maps().filter(perms="r")), None)
            if first is None:
                return Finding(name, "warning", f"{call}: no mapping of it may be read"), "", ""
            try:
                process.vm.read_bytes(first.start, 1)
            except PageFaultError as error:
                evidence = f"{call}, and a read at {first.start:#x}: {said(error)}"
            else:
                evidence = f"{call}, and a read of the byte at {first.start:#x}"
            return Finding(name, "ok", evidence), "", ""
    except AccessDeniedError as error:
        cause = found.cause or _unexplained(found)
        evidence = f"{call}: {type(error).__name__} [{errno.errorcode.get(error.errno or 0, '')}]"
        return Finding(name, "fails", evidence, error.message), cause, error.message
    except ProcvmError as error:
        return Finding(name, "fails", f"{call}: {said(error)}"), "", ""


def _unexplained(found: Explanation) -> str:
    # As in `open_error`: /proc does not show whether a process of root is dumpable.
    if found.dumpable is None and not found.has_sys_ptrace:
        return "not dumpable"
    return "security module"


def _module(pid: int, access: Finding, cause: str, decided: str) -> Finding:
    name = "target security module"
    label, ours = label_of(pid), label_of("self")
    shown = f"/proc/{pid}/attr/current: {label or 'nothing'}; the tool's: {ours or 'nothing'}"
    if decided:
        return Finding(name, "absent", f"not judged: {decided} decides")
    if cause != "security module":
        return Finding(name, "ok" if access.verdict == "ok" else "absent", shown)
    modules = procfs.read_text(LSM)
    evidence = (
        f"no other check denies access; {LSM}: {printable(modules or 'cannot be read')}; {shown}"
    )
    if label or ours or (modules and {*modules.split(",")} - WITHOUT_A_SAY):
        return Finding(name, "fails", evidence, access.fix)
    return Finding(name, "absent", f"not known: {evidence}")


def _tracer(found: Explanation) -> Finding:
    tid = found.tracer_pid
    evidence = f"TracerPid {tid} in /proc/{found.pid}/status"
    if not tid:
        return Finding("target tracer", "ok", evidence)
    # The field is the id of a thread, which may not be the leader.
    leader = procfs.thread_leader(tid) or tid
    status = procfs.read_status(leader)
    who = f"{printable(status.name)} (pid {leader})" if status else f"pid {leader}"
    return Finding(
        "target tracer",
        "warning",
        f"{evidence}: {who} traces it; reads and writes work, holds do not",
        f"to hold it, make {who} detach",
    )


def _frozen(pid: int) -> Finding:
    name = "target frozen"
    text = procfs.read_text(f"/proc/{pid}/cgroup")
    if text is None:
        return Finding(name, "absent", f"not known: /proc/{pid}/cgroup cannot be read")
    mounts = read_mounts()
    looked: list[str] = []
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "freezer" not in controllers.split(","):
            continue
        state = _freezer_file(mounts, controllers, path)
        value = procfs.read_text(state) if state else None
        if state is None or value is None:
            continue  # not mounted here, or the root group, which cannot be frozen
        looked.append(state)
        if controllers and value in ("FROZEN", "FREEZING"):
            return Finding(
                name,
                "warning",
                f"{printable(state)} is {value}: reads and writes work, a hold would wait",
                f"to hold it, thaw it: echo THAWED > {printable(state)}",
            )
        if not controllers and "frozen 1" in value.splitlines():
            return Finding(
                name,
                "warning",
                f"{printable(state)} says frozen 1: it runs no instruction until it is thawed",
                f"echo 0 > {printable(state.removesuffix('events') + 'freeze')}",
            )
    evidence = " and ".join(map(printable, looked)) or f"/proc/{pid}/cgroup: no group of a freezer"
    return Finding(name, "ok", f"not frozen: {evidence}" if looked else evidence)


def _freezer_file(mounts: list[Mount], controllers: str, path: str) -> str | None:
    """Returns the file with the state of a frozen group, or None if it is not mounted."""
    for mount in mounts:
        if controllers:
            fits, file = mount.kind == "cgroup" and "freezer" in mount.options, "freezer.state"
        else:
            fits, file = mount.kind == "cgroup2", "cgroup.events"
        root = mount.root.rstrip("/")
        inside = path.removeprefix(root)
        if fits and path.startswith(root) and inside[:1] in ("", "/"):
            return f"{mount.point}/{inside.strip('/')}/{file}".replace("//", "/")
    return None


def _fuse(pid: int) -> Finding:
    """Returns whether a mapping is of a file that a process serves."""
    name = "target FUSE"
    try:
        with open_process(pid) as process:
            files = SlowFiles(pid)
            slow = sorted({printable(vma.name) for vma in process.maps() if files.is_slow(vma)})
    except ProcvmError as error:
        return Finding(name, "absent", f"not known: {said(error)}")
    if not slow:
        return Finding(name, "ok", f"/proc/{pid}/maps has no file that another process serves")
    rest = f", and {len(slow) - 1} more" if len(slow) > 1 else ""
    return Finding(
        name,
        "warning",
        f"/proc/{pid}/mountinfo: {slow[0]}{rest} is on a file system that a process or a server "
        "provides; a read of a page of it waits for an answer",
        "if a read waits, restart the server, or read other mappings",
    )


def _hold(found: Explanation, before: tuple[Finding, ...], ptrace: Finding) -> Finding:
    """Returns whether the process could be held; does not try, since that would stop it."""
    name, (access, tracer, frozen) = "target hold", before
    if found.pid == os.getpid():
        return Finding(name, "fails", "the process is the tool itself, which cannot stop itself")
    if access.verdict == "fails":
        return Finding(name, "fails", f"see {access.check}")
    if ptrace.verdict == "fails":
        return Finding(name, "fails", f"see {ptrace.check}")
    if tracer.verdict != "ok":
        return Finding(name, "fails", f"see {tracer.check}: a process has one tracer", tracer.fix)
    if "freezer.state" in frozen.evidence and frozen.verdict != "ok":
        return Finding(
            name, "fails", f"see {frozen.check}: a frozen thread does not stop", frozen.fix
        )
    if procfs.read_stat(found.pid) is None:
        return Finding(name, "fails", f"/proc/{found.pid}/stat: the process has ended")
    if ptrace.verdict != "ok":
        return Finding(name, "absent", f"not known: see {ptrace.check}")
    if found.yama_scope == 1 and not found.has_sys_ptrace:
        # /proc does not show which process a process has admitted.
        return Finding(
            name,
            "absent",
            "not known: kernel.yama.ptrace_scope is 1, so only a process that admits the tracer "
            "can be held: one of procvm.spawn, or of preexec_fn=procvm.allow_attach()",
        )
    return Finding(name, "ok", "nothing denies it; not tried, since it would stop the process")
