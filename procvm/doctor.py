"""`examine`: every way in which access can fail on this machine, or for one process.

Nothing is guessed: a verdict comes from a file that was read or a call that was made, which the
evidence names with its value. What can not be known is said to be not known. Calls are tried on
a child made for that; the process that is asked about is opened and read, and never stopped.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, TypeAlias

from procvm.address import PAGE_SIZE, as_int
from procvm.errors import (
    AccessDeniedError,
    NotTracedError,
    PageFaultError,
    ProcvmError,
    UnsupportedError,
)
from procvm.escape import printable
from procvm.linux import procfs
from procvm.linux.access import Explanation, explain, is_ending
from procvm.linux.fds import Fd
from procvm.linux.libc import REFUSALS, libc
from procvm.linux.pagemap import touched
from procvm.linux.process_vm import TOKEN_LEN, Guard, VmCalls
from procvm.linux.procmap import prepared_query
from procvm.own.buffers import Scratch, pin
from procvm.process.process import open_process
from procvm.tracee.spawn import attach

__all__ = ["Finding", "Verdict", "examine"]

Verdict: TypeAlias = Literal["ok", "warning", "fails", "absent"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        check: What, in a few words that stay the same: ``"ptrace"``, ``"numpy"``. What is
            about the one process begins with ``"target"``.
        verdict: ``"ok"``; ``"warning"``: something works less well, or not for every process;
            ``"fails"``: something does not work; ``"absent"``: it is not there, or it is not
            known, and the evidence says which.
        evidence: The file or the call that says so, with its value; printable.
        fix: What to do; empty if there is nothing to do.
    """

    check: str
    verdict: Verdict
    evidence: str
    fix: str = ""


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
    descriptors = _descriptors()
    if descriptors.verdict != "ok":
        return [descriptors, *_unknown(number, descriptors)]
    proc = _proc()
    if proc.verdict == "fails":
        return [proc, descriptors, *_extras(), *_unknown(number, proc)]
    ours = explain(os.getpid())
    calls = _calls(ours)
    hidepid = _hidepid(ours)
    findings = [
        proc,
        descriptors,
        hidepid,
        _pid_namespace(),
        _user_namespace(),
        _sys_ptrace(ours),
        _yama(ours),
        _security_modules(),
        _seccomp(ours),
        *calls,
        _forced(calls),
        _pagemap_scan(ours),
        _map_files(),
        *_extras(),
    ]
    if number is not None:
        findings += _target(number, calls, hidepid)
    return findings


def _unknown(pid: int | None, because: Finding) -> list[Finding]:
    checks = [*_CALLS, *(["target"] if pid is not None else [])]
    return [Finding(name, "absent", f"not known: see {because.check}") for name in checks]


def _said(error: BaseException) -> str:
    """Returns what an error says, with the name of the errno if it has one."""
    code = getattr(error, "errno", None)
    if isinstance(error, ProcvmError):
        return f"{type(error).__name__}: {printable(error.message)}"
    if isinstance(code, int):
        return f"{os.strerror(code)} [{errno.errorcode.get(code, code)}]"
    return f"{type(error).__name__}: {printable(str(error))}"


# /proc and the rights of the tool


def _proc() -> Finding:
    try:
        os.close(os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        evidence = f"open(/proc/self/status): {_said(error)}"
        return Finding("proc", "fails", evidence, "mount proc on /proc")
    try:
        procfs.require_own_proc()
    except UnsupportedError as error:
        text, _, fix = error.message.rpartition("; ")
        return Finding("proc", "fails", text, fix)
    try:
        os.close(os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        evidence = f"open(/proc/self/mem, O_RDWR): {_said(error)}"
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
"""More than a child, the tracer and two processes take. With less, what can not be opened would
be taken for what is not there."""


def _descriptors() -> Finding:
    name = "descriptors"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        listed = os.listdir("/proc/self/fd")
    except OSError as error:
        short = error.errno in (errno.EMFILE, errno.ENFILE)
        evidence = f"listing /proc/self/fd: {_said(error)}"
        if short:
            return Finding(name, "fails", evidence, _MORE_DESCRIPTORS)
        return Finding(name, "ok", f"RLIMIT_NOFILE is {soft}; how many are open is not known")
    if soft == resource.RLIM_INFINITY:
        return Finding(name, "ok", f"RLIMIT_NOFILE is unlimited, {len(listed) - 1} are open")
    # One of them was that of the listing.
    used = len([number for number in listed if int(number) < soft]) - 1
    evidence = f"RLIMIT_NOFILE is {soft}, {used} below it are open"
    if soft - used >= _DESCRIPTORS_NEEDED:
        return Finding(name, "ok", evidence)
    evidence += f"; procvm.open takes 3, looking at everything {_DESCRIPTORS_NEEDED}"
    verdict: Verdict = "warning" if soft - used >= 3 else "fails"
    return Finding(name, verdict, evidence, _MORE_DESCRIPTORS)


class _Mount(NamedTuple):
    root: str
    point: str
    kind: str
    options: list[str]


def _mounts() -> list[_Mount]:
    """Returns what is mounted, the last one of a place last."""
    found: list[_Mount] = []
    for line in (procfs.read_text("/proc/self/mountinfo") or "").splitlines():
        place, dash, rest = line.partition(" - ")
        left, right = place.split(), rest.split()
        if dash and len(left) >= 6 and len(right) >= 3:
            found.append(_Mount(left[3], left[4], right[0], right[2].split(",")))
    return found


def _hidepid(ours: Explanation) -> Finding:
    here = [mount for mount in _mounts() if mount.point == "/proc" and mount.kind == "proc"]
    if not here:
        return Finding(
            "hidepid", "absent", "not known: /proc/self/mountinfo does not show a proc on /proc"
        )
    options = here[-1].options
    hidden = next((option for option in options if option.startswith("hidepid=")), "hidepid=off")
    value = hidden.partition("=")[2]
    evidence = f"{hidden} in /proc/self/mountinfo"
    if value in ("0", "off"):
        return Finding("hidepid", "ok", f"no hidepid in /proc/self/mountinfo: {','.join(options)}")
    if ours.has_sys_ptrace:
        return Finding("hidepid", "ok", f"{evidence}, and the tool has CAP_SYS_PTRACE")
    group = next((option[4:] for option in options if option.startswith("gid=")), "")
    # The group does not count for the strictest kind.
    if value not in ("4", "ptraceable") and group.isdecimal():
        if int(group) in {os.getegid(), *os.getgroups()}:
            return Finding("hidepid", "ok", f"{evidence}, and the tool is in its group {group}")
        way = f"add the user to group {group}, or remount /proc without hidepid"
    else:
        way = "remount /proc without hidepid, or run the tool with CAP_SYS_PTRACE"
    return Finding("hidepid", "warning", f"{evidence}: processes of others are hidden", way)


def _first_namespace(kind: str, number: int) -> tuple[bool | None, str]:
    """Returns whether the tool is in the first namespace of a kind, and what says so."""
    path = f"/proc/self/ns/{kind}"
    try:
        link = os.readlink(path)
    except OSError as error:
        return None, f"not known: readlink({path}): {_said(error)}"
    return link == f"{kind}:[{number}]", f"{path} is {link}"


def _pid_namespace() -> Finding:
    # Source of the numbers: the kernel's PROC_PID_INIT_INO and PROC_USER_INIT_INO.
    first, evidence = _first_namespace("pid", 0xEFFFFFFC)
    if first is None:
        return Finding("pid namespace", "absent", evidence)
    if first:
        return Finding("pid namespace", "ok", f"{evidence}, the first one")
    return Finding(
        "pid namespace", "ok", f"{evidence}, not the first one: who is outside of it has no pid"
    )


def _user_namespace() -> Finding:
    first, evidence = _first_namespace("user", 0xEFFFFFFD)
    if first is None:
        return Finding("user namespace", "absent", evidence)
    if first:
        return Finding("user namespace", "ok", f"{evidence}, the first one")
    return Finding(
        "user namespace",
        "warning",
        f"{evidence}, not the first one: no right of the tool's reaches out of it",
        "for a process outside of it run the tool there",
    )


def _sys_ptrace(ours: Explanation) -> Finding:
    status = procfs.read_status("self")
    if status is None:
        return Finding("CAP_SYS_PTRACE", "absent", "not known: /proc/self/status can not be read")
    evidence = f"CapEff {status.effective:#x} in /proc/self/status"
    if ours.has_sys_ptrace:
        return Finding("CAP_SYS_PTRACE", "ok", f"{evidence} has it")
    return Finding(
        "CAP_SYS_PTRACE",
        "warning",
        f"{evidence} lacks it: only processes of the tool's own user, and not all of those",
        "start the container with it (docker run --cap-add SYS_PTRACE), or the tool outside of it"
        if os.geteuid() == 0
        else "for a process of somebody else run the tool as root, or with CAP_SYS_PTRACE",
    )


def _yama(ours: Explanation) -> Finding:
    scope, name = ours.yama_scope, "kernel.yama.ptrace_scope"
    if scope is None:
        return Finding("yama", "absent", f"{name}: there is no such setting here")
    evidence = f"{name} is {scope}"
    if scope == 3:
        return Finding(
            "yama",
            "fails",
            f"{evidence}: nobody may trace",
            f"boot with {name} less than 3: it can not be lowered while the machine runs",
        )
    if scope == 0 or ours.has_sys_ptrace:
        rest = "" if scope == 0 else ", and the tool has CAP_SYS_PTRACE"
        return Finding("yama", "ok", evidence + rest)
    way = f"run the tool with CAP_SYS_PTRACE, or: sysctl {name}=0"
    if scope == 1:
        return Finding("yama", "warning", f"{evidence}: a tool may trace its descendants", way)
    return Finding("yama", "fails", f"{evidence}: CAP_SYS_PTRACE alone may trace", way)


_LSM = "/sys/kernel/security/lsm"
_ENFORCE = "/sys/fs/selinux/enforce"
_DENY_PTRACE = "/sys/fs/selinux/booleans/deny_ptrace"


def _label(pid: int | str) -> str | None:
    """Returns what a security module calls a process, printable, or None if none does."""
    label = procfs.read_text(f"/proc/{pid}/attr/current")
    return printable(label.rstrip("\0\n")) if label and label.strip("\0\n") else None


def _security_modules() -> Finding:
    name = "security modules"
    modules, label = procfs.read_text(_LSM), _label("self")
    listed = f"{_LSM}: {printable(modules)}" if modules else f"{_LSM} can not be read"
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
            "if it says no, look at its log: ausearch -m avc -ts recent",
        )
    if label not in (None, "unconfined") and "apparmor" in (modules or ""):
        return Finding(
            name,
            "warning",
            f"AppArmor confines the tool; {evidence}",
            "if it says no, look at the kernel's log, and run the tool unconfined",
        )
    if modules is None:
        return Finding(name, "absent", f"not known: {evidence}")
    return Finding(name, "ok", evidence)


def _seccomp(ours: Explanation) -> Finding:
    mode = ours.seccomp
    evidence = f"Seccomp {mode} in /proc/self/status"
    if mode == 0:
        return Finding("seccomp", "ok", f"{evidence}: no filter")
    return Finding("seccomp", "ok", f"{evidence}: a filter; what it refuses is told at each call")


# The system calls, on a child


_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# It says when it runs: until then its exec may not have told the kernel all of itself.
_CHILD = "import os; os.write(1, b'.'); os.read(0, 1)"


@contextmanager
def _child() -> Generator[int]:
    """Gives the pid of a child that waits.

    Raises:
        OSError: It can not be started.
    """
    with subprocess.Popen(
        [sys.executable or "python3", "-I", "-S", "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as popen:
        try:
            if popen.stdout is not None and not popen.stdout.read(1):
                raise ChildProcessError(f"it ended at once, with {popen.wait()}")
            yield popen.pid
        finally:
            popen.kill()


_CALLS = (
    "pidfd_open",
    "process_vm_readv",
    "process_vm_writev",
    "proc mem",
    "PROCMAP_QUERY",
    "ptrace",
)


def _calls(ours: Explanation) -> list[Finding]:
    """Tries what procvm does with a process on a child; a finding for each of `_CALLS`."""
    # A filter may kill who makes a call: then by another process, under the same filter.
    found = _calls_elsewhere() if ours.seccomp else list(_calls_here(ours))
    order = {name: place for place, name in enumerate(_CALLS)}
    return sorted(found, key=lambda finding: order[finding.check])


def _calls_here(ours: Explanation) -> Iterator[Finding]:
    try:
        with _child() as pid:
            yield from _reaching(pid, ours)
            yield _ptrace(pid, ours)
    except OSError as error:
        evidence = f"not known: no child can be started: {_said(error)}"
        yield from (Finding(name, "absent", evidence) for name in _CALLS)


_ELSEWHERE = """
import sys
sys.path[:] = sys.argv[1:]
from procvm import doctor
doctor.print_calls()
"""
_KILLS = "the filter kills who makes the call [SIGSYS]"


def print_calls() -> None:
    for finding in _calls_here(explain(os.getpid())):
        print(json.dumps(finding), flush=True)


def _calls_elsewhere() -> list[Finding]:
    command = [sys.executable, "-I", "-S", "-c", _ELSEWHERE, _ROOT, *filter(None, sys.path)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        evidence = f"not known: no process can be started to try it: {_said(error)}"
        return [Finding(name, "absent", evidence) for name in _CALLS]
    found = [Finding(*json.loads(line)) for line in done.stdout.splitlines()]
    missing = [name for name in _CALLS if name not in {finding.check for finding in found}]
    for place, name in enumerate(missing):
        if place == 0 and done.returncode == -signal.SIGSYS:
            fix = f"the tool is under a seccomp filter: let it allow what {name} needs"
            found.append(Finding(name, "fails", _KILLS, fix))
            continue
        why = f"the process that was to try it ended with {done.returncode}"
        if done.returncode > 0:
            why += f": {printable(done.stderr.strip().rpartition(chr(10))[2])}"
        found.append(Finding(name, "absent", f"not known: {why}"))
    return found


def _kills(calls: list[Finding]) -> str:
    """Returns the call that the tool's filter kills it for, or nothing."""
    return next((finding.check for finding in calls if finding.evidence == _KILLS), "")


def _reaching(pid: int, ours: Explanation) -> Iterator[Finding]:
    try:
        pidfd = Fd(os.pidfd_open(pid))
    except OSError as error:
        fix = _way_out("pidfd_open", ours, "Linux 5.3 or later")
        yield Finding("pidfd_open", "fails", f"pidfd_open of a child: {_said(error)}", fix)
        rest = "not known: without pidfd_open no process is opened"
        yield from (Finding(name, "absent", rest) for name in _CALLS[1:-1])
        return
    yield Finding("pidfd_open", "ok", "pidfd_open of a child")
    try:
        mem = Fd.open(f"/proc/{pid}/mem", os.O_RDONLY)
        maps = Fd.open(f"/proc/{pid}/maps", os.O_RDONLY)
        address = procfs.token_address(f"/proc/{pid}") or 0
        token = os.pread(mem.number, TOKEN_LEN, address)
    except OSError as error:
        why = explain(pid).message or _way_out("open", ours, _GUARDED)
        yield Finding("proc mem", "fails", f"/proc/PID/mem of a child: {_said(error)}", why)
        rest = "not known: /proc/PID/mem of a child can not be opened"
        yield from (Finding(name, "absent", rest) for name in _CALLS[1:-1] if name != "proc mem")
        return
    yield Finding("proc mem", "ok", f"/proc/PID/mem of a child: {len(token)} bytes")
    if prepared_query(maps.number, 0) is None:
        yield Finding(
            "PROCMAP_QUERY",
            "absent",
            "ioctl(/proc/PID/maps) is not answered: the text is read instead, which is slower",
            _way_out("ioctl", ours, "Linux 6.11 or later"),
        )
    else:
        yield Finding("PROCMAP_QUERY", "ok", "ioctl(/proc/PID/maps) of a child")
    try:
        libc()
    except UnsupportedError as error:
        for name in ("process_vm_readv", "process_vm_writev"):
            yield Finding(name, "warning", _said(error), "use a C library that has it")
        return
    yield from _by_number(VmCalls(Guard(pid, pidfd.number, address, token, pinned=False)), ours)


_GUARDED = "look at what guards this process: its container, its security module"


def _by_number(calls: VmCalls, ours: Explanation) -> Iterator[Finding]:
    """Tries both calls on a child, with the 16 bytes that the kernel gave it, unchanged."""
    guard = calls.guard
    token = guard.token or b""
    name = "process_vm_readv"
    arrived, code = calls.peek(guard.token_address, TOKEN_LEN)
    if code:
        yield _refused(name, code, "reads go by /proc/PID/mem, which is slower", ours)
    elif arrived != token:
        evidence = f"{name} of a child gave other bytes than /proc/PID/mem"
        yield Finding(name, "fails", evidence, "give open backend='mem'")
    else:
        yield Finding(name, "ok", f"{name} of a child: {TOKEN_LEN} bytes")
    name = "process_vm_writev"
    room = Scratch(len(token))
    room.view[:] = token
    done, code = calls.write(guard.token_address, room.address, len(token))
    if code:
        yield _refused(name, code, "the tool writes to itself by /proc/self/mem", ours)
    else:
        yield Finding(name, "ok", f"{name} of a child: {done} bytes")


def _refused(name: str, code: int, instead: str, ours: Explanation) -> Finding:
    evidence = f"{name} of a child: {_said(OSError(code, ''))}; {instead}"
    fix = _way_out(name, ours, _GUARDED) if code in REFUSALS else ""
    return Finding(name, "warning", evidence, fix)


def _way_out(call: str, ours: Explanation, otherwise: str) -> str:
    """Returns the way out where a call is refused: a filter is named only if there is one."""
    if ours.seccomp:
        return f"{otherwise}; or let the seccomp filter that the tool is under allow {call}"
    return otherwise


def _ptrace(pid: int, ours: Explanation) -> Finding:
    try:
        with attach(pid) as tracee:
            tracee.stop()
            tracee.resume()
    except (ProcvmError, OSError) as error:
        fix = ""
        if ours.seccomp and isinstance(error, AccessDeniedError | NotTracedError):
            fix = "see that the seccomp filter that the tool is under allows ptrace"
        elif isinstance(error, AccessDeniedError) and ours.yama_scope and not ours.has_sys_ptrace:
            fix = "see yama"
        return Finding("ptrace", "fails", f"holding a child: {_said(error)}", fix)
    return Finding("ptrace", "ok", "a child was held and let go (PTRACE_SEIZE, PTRACE_INTERRUPT)")


# What the tool can do to itself


def _forced(calls: list[Finding]) -> Finding:
    name, option = "forced access", "proc_mem.force_override"
    if _kills(calls):
        return Finding(name, "absent", f"not known: {_kills(calls)} would end the tool")
    page = mmap.mmap(
        -1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ
    )
    held = pin(page, writable=False)
    boot = procfs.read_text("/proc/cmdline") or ""
    given = next((word for word in boot.split() if word.startswith(option + "=")), "")
    try:
        with open_process(os.getpid()) as process:
            process.vm.forced().write_bytes(held.address, b"\x01")
    except PageFaultError as error:
        return Finding(
            name,
            "warning",
            f"a write to a read-only page of our own: {_said(error)}; "
            + (
                f"{printable(given)} in /proc/cmdline" if given else f"no {option} in /proc/cmdline"
            ),
            f"boot with {option}=always, if forced() is needed",
        )
    except AccessDeniedError as error:
        return Finding(name, "warning", f"a write to a read-only page of our own: {_said(error)}")
    except ProcvmError as error:
        return Finding(name, "absent", f"not known: {_said(error)}")
    if held.view[0] != 1:
        return Finding(name, "fails", "a write to a read-only page of our own had no effect")
    return Finding(name, "ok", "a read-only page of our own was written by /proc/self/mem")


def _pagemap_scan(ours: Explanation) -> Finding:
    name = "PAGEMAP_SCAN"
    page = mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held = pin(page, writable=True)
    # A page that was read alone: the scan tells it from one that was written, nothing else does.
    seen = held.view[0]
    try:
        pagemap = Fd.open("/proc/self/pagemap", os.O_RDONLY)
        runs = touched(pagemap.number, held.address, held.address + PAGE_SIZE)
    except OSError as error:
        return Finding(
            name,
            "warning",
            f"/proc/self/pagemap: {_said(error)}; untouched memory is searched like any other",
        )
    if seen or runs:
        return Finding(
            name,
            "absent",
            "ioctl(/proc/self/pagemap) is not answered: its entries are read, which is slower",
            _way_out("ioctl", ours, "Linux 6.7 or later"),
        )
    return Finding(name, "ok", "ioctl(/proc/self/pagemap)")


def _map_files() -> Finding:
    name, folder = "map_files", "/proc/self/map_files"
    try:
        link = f"{folder}/{os.listdir(folder)[0]}"
        os.stat(link)
    except OSError as error:
        return Finding(
            name,
            "warning",
            f"{folder}: {_said(error)}; an atomic on shared memory works only where the target "
            "has the object open as well",
            "run the tool with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"
            if error.errno == errno.EPERM
            else "",
        )
    return Finding(name, "ok", f"a link of {folder} can be followed")


# The name of a package, what it is for, and the extra that brings it.
_EXTRAS = (
    ("numpy", "arrays, scan", "numpy"),
    ("pyelftools", "symbols", "symbols"),
    ("yara-x", "rules in a search", "yara"),
    ("click", "the command", "cli"),
    ("rich", "the command", "cli"),
    ("textual", "the viewer", "tui"),
    ("pytest", "the pytest plugin", "pytest"),
)


def _extras() -> Iterator[Finding]:
    for name, purpose, extra in _EXTRAS:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            evidence = f"{name} is not installed: {purpose}"
            yield Finding(name, "absent", evidence, f"pip install 'procvm[{extra}]'")
        else:
            yield Finding(name, "ok", f"{name} {printable(version)}: {purpose}")


# One process


class _Row(NamedTuple):
    """A check of one process.

    Attributes:
        check: Its name.
        causes: The causes of `Explanation` that it stands for.
        evidence: What says so, with its value; it begins with "not known" where nothing does.
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
        return f"not known: {path} may not be looked at"
    if found.same_user_namespace:
        return f"{path} is /proc/self/ns/user"
    return f"{path} is not /proc/self/ns/user, or may not be looked at from there"


def _scope(found: Explanation, _: procfs.Status | None) -> str:
    related = "is" if found.is_descendant else "is not"
    return f"kernel.yama.ptrace_scope is {found.yama_scope}; it {related} the tool's descendant"


# In the order of the kernel's checks.
_ROWS = (
    _Row("target owner", ("other user", "set-uid"), _owner),
    _Row("target capabilities", ("capabilities",), _more_capabilities),
    _Row("target dumpable", ("not dumpable",), _dumpable),
    _Row("target user namespace", ("user namespace",), _namespace),
    _Row("target yama", ("yama",), _scope),
)


def _target(pid: int, calls: list[Finding], hidepid: Finding) -> Iterator[Finding]:
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
    yield _hold(found, (access, tracer, frozen), calls[-1])


def _existence(pid: int, found: Explanation, hidepid: Finding) -> Finding:
    path = f"/proc/{pid}/status"
    status = procfs.read_status(pid)
    if found.cause == "hidden":
        evidence = f"kill({pid}, 0) finds it, {path} does not show it"
        if hidepid.verdict == "warning":
            return Finding("target", "fails", evidence, found.message)
        return Finding("target", "fails", f"{evidence}; why is not known: see hidepid")
    if found.cause == "no process" or status is None:
        return Finding("target", "fails", f"kill({pid}, 0): no process has the pid {pid}")
    name = printable(status.name)
    if status.tgid != pid:
        evidence = f"Tgid {status.tgid} in {path}: {pid} is a thread of process {status.tgid}"
        return Finding("target", "fails", evidence, f"give {status.tgid}")
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
    """Opens and reads a process; returns that, the cause that denies it, and it in words."""
    name, call = "target access", f"procvm.open({pid})"
    if _kills(calls):
        return Finding(name, "fails", f"not tried: {_kills(calls)} would end the tool"), "", ""
    try:
        with open_process(pid) as process:
            first = next(iter(process.maps().filter(perms="r")), None)
            if first is None:
                return Finding(name, "warning", f"{call}: no mapping of it may be read"), "", ""
            try:
                process.vm.read_bytes(first.start, 1)
            except PageFaultError as error:
                evidence = f"{call}, and a read at {first.start:#x}: {_said(error)}"
            else:
                evidence = f"{call}, and a read of the byte at {first.start:#x}"
            return Finding(name, "ok", evidence), "", ""
    except AccessDeniedError as error:
        cause = found.cause or _unexplained(found)
        evidence = f"{call}: {type(error).__name__} [{errno.errorcode.get(error.errno or 0, '')}]"
        return Finding(name, "fails", evidence, error.message), cause, error.message
    except ProcvmError as error:
        return Finding(name, "fails", f"{call}: {_said(error)}"), "", ""


def _unexplained(found: Explanation) -> str:
    # As `open_error` has it: of root's own process /proc does not tell whether it is dumpable.
    if found.dumpable is None and not found.has_sys_ptrace:
        return "not dumpable"
    return "security module"


def _module(pid: int, access: Finding, cause: str, decided: str) -> Finding:
    name = "target security module"
    label, ours = _label(pid), _label("self")
    shown = f"/proc/{pid}/attr/current: {label or 'nothing'}; the tool's: {ours or 'nothing'}"
    if decided:
        return Finding(name, "absent", f"not judged: {decided} decides")
    if cause != "security module":
        return Finding(name, "ok" if access.verdict == "ok" else "absent", shown)
    modules = procfs.read_text(_LSM)
    evidence = f"nothing else says no; {_LSM}: {printable(modules or 'can not be read')}; {shown}"
    if label or ours or (modules and {*modules.split(",")} - _NOT_ASKED):
        return Finding(name, "fails", evidence, access.fix)
    return Finding(name, "absent", f"not known: {evidence}")


# Modules that have no say in who accesses whom, or are looked at by themselves.
_NOT_ASKED = {"capability", "yama", "lockdown", "loadpin", "safesetid", "integrity", "ima", "evm"}


def _tracer(found: Explanation) -> Finding:
    tid = found.tracer_pid
    evidence = f"TracerPid {tid} in /proc/{found.pid}/status"
    if not tid:
        return Finding("target tracer", "ok", evidence)
    # The field has the id of a thread.
    leader = procfs.thread_leader(tid) or tid
    status = procfs.read_status(leader)
    who = f"{printable(status.name)} (pid {leader})" if status else f"pid {leader}"
    return Finding(
        "target tracer",
        "warning",
        f"{evidence}: {who} traces it; reading and writing work, holding it does not",
        f"to hold it, have {who} detach",
    )


def _frozen(pid: int) -> Finding:
    name = "target frozen"
    text = procfs.read_text(f"/proc/{pid}/cgroup")
    if text is None:
        return Finding(name, "absent", f"not known: /proc/{pid}/cgroup can not be read")
    mounts = _mounts()
    looked: list[str] = []
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "freezer" not in controllers.split(","):
            continue
        state = _freezer_file(mounts, controllers, path)
        value = procfs.read_text(state) if state else None
        if state is None or value is None:
            continue  # not mounted here, or the root, which can not be frozen
        looked.append(state)
        if controllers and value in ("FROZEN", "FREEZING"):
            return Finding(
                name,
                "warning",
                f"{printable(state)} is {value}: reading and writing work, a hold would wait",
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


def _freezer_file(mounts: list[_Mount], controllers: str, path: str) -> str | None:
    """Returns the file that tells whether a group is frozen, if its hierarchy is mounted."""
    for mount in mounts:
        if controllers:
            fits, file = mount.kind == "cgroup" and "freezer" in mount.options, "freezer.state"
        else:
            fits, file = mount.kind == "cgroup2", "cgroup.events"
        inside = path.removeprefix(mount.root.rstrip("/"))
        if fits and path.startswith(mount.root):
            return f"{mount.point}/{inside.strip('/')}/{file}".replace("//", "/")
    return None


def _hold(found: Explanation, before: tuple[Finding, ...], ptrace: Finding) -> Finding:
    """Tells whether it could be held; it is not tried, for that would stop it."""
    name, (access, tracer, frozen) = "target hold", before
    if found.pid == os.getpid():
        return Finding(name, "fails", "it is the tool itself, which can not stop itself")
    if access.verdict == "fails":
        return Finding(name, "fails", f"see {access.check}")
    if ptrace.verdict == "fails":
        if found.yama_scope == 1 and not found.has_sys_ptrace:
            # What a child of ours was refused, another process may have allowed to everybody.
            return Finding(name, "absent", f"not known: see {ptrace.check}, and PR_SET_PTRACER")
        return Finding(name, "fails", f"see {ptrace.check}")
    if tracer.verdict != "ok":
        return Finding(name, "fails", f"see {tracer.check}: a process has one tracer", tracer.fix)
    if "freezer.state" in frozen.evidence and frozen.verdict != "ok":
        return Finding(name, "fails", f"see {frozen.check}: no stop comes until then", frozen.fix)
    if procfs.read_stat(found.pid) is None:
        return Finding(name, "fails", f"/proc/{found.pid}/stat: it has ended meanwhile")
    if ptrace.verdict != "ok":
        return Finding(name, "absent", f"not known: see {ptrace.check}")
    return Finding(name, "ok", "nothing stands in the way; not tried, it would stop the process")
