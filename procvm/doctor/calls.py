"""Tries on a child the system calls that procvm makes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from procvm._base.address import PAGE_SIZE
from procvm._base.fd import Fd
from procvm._base.text import printable
from procvm._hold.admission import admission, to_admit
from procvm._hold.spawn import attach
from procvm._linux import procfs
from procvm._linux.access import Explanation, explain
from procvm._linux.libc import REFUSALS, libc
from procvm._linux.perf_samples import WRITES, Breakpoints
from procvm._linux.proc_maps import prepared_query
from procvm._linux.process_vm import TOKEN_LEN, Guard, VmCalls
from procvm._local.buffers import Scratch
from procvm.doctor.finding import Finding, said
from procvm.errors import AccessDeniedError, NotTracedError, ProcvmError, UnsupportedError

__all__ = ["CALLS", "killing_call", "print_calls", "try_calls", "way_out"]

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# It writes a byte when it runs: before its exec is complete, /proc shows the parent's program.
_CHILD = "import os; os.write(1, b'.'); os.read(0, 1)"


@contextmanager
def _child() -> Generator[int]:
    """Starts a child that waits, and yields its pid.

    Raises:
        OSError: The child cannot be started.
    """
    with subprocess.Popen(
        [sys.executable or "python3", "-I", "-S", "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        preexec_fn=admission(),  # noqa: PLW1509 (one system call)
    ) as popen:
        try:
            if popen.stdout is not None and not popen.stdout.read(1):
                raise ChildProcessError(f"the child ended at once with status {popen.wait()}")
            yield popen.pid
        finally:
            popen.kill()


CALLS = (
    "pidfd_open",
    "process_vm_readv",
    "process_vm_writev",
    "proc mem",
    "PROCMAP_QUERY",
    "perf_event_open",
    "ptrace",
)


def try_calls(ours: Explanation) -> list[Finding]:
    """Tries each of `CALLS` on a child, and returns one finding for each."""
    # A seccomp filter may kill the caller: another process under the same filter tries the calls.
    found = _calls_elsewhere() if ours.seccomp else list(_calls_here(ours))
    order = {name: place for place, name in enumerate(CALLS)}
    return sorted(found, key=lambda finding: order[finding.check])


def _calls_here(ours: Explanation) -> Iterator[Finding]:
    try:
        with _child() as pid:
            yield from _reaching(pid, ours)
            yield _perf(pid, ours)
            yield _ptrace(pid, ours)
    except OSError as error:
        evidence = f"not known: no child can be started: {said(error)}"
        yield from (Finding(name, "absent", evidence) for name in CALLS)


_ELSEWHERE = """
import sys
sys.path[:] = sys.argv[1:]
from procvm.doctor.calls import print_calls
print_calls()
"""
_KILLS = "the seccomp filter kills the caller [SIGSYS]"


def print_calls() -> None:
    """Prints each finding as a line of JSON; the process of `_calls_elsewhere` runs this."""
    for finding in _calls_here(explain(os.getpid())):
        print(json.dumps(finding), flush=True)


def _calls_elsewhere() -> list[Finding]:
    command = [sys.executable, "-I", "-S", "-c", _ELSEWHERE, _ROOT, *filter(None, sys.path)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        evidence = f"not known: no process can be started to try the call: {said(error)}"
        return [Finding(name, "absent", evidence) for name in CALLS]
    found = [Finding(*json.loads(line)) for line in done.stdout.splitlines()]
    missing = [name for name in CALLS if name not in {finding.check for finding in found}]
    for place, name in enumerate(missing):
        if place == 0 and done.returncode == -signal.SIGSYS:
            fix = f"allow {name} in the seccomp filter of the tool"
            found.append(Finding(name, "fails", _KILLS, fix))
            continue
        why = f"the process that tried the call ended with status {done.returncode}"
        if done.returncode > 0:
            why += f": {printable(done.stderr.strip().rpartition(chr(10))[2])}"
        found.append(Finding(name, "absent", f"not known: {why}"))
    return found


def killing_call(calls: list[Finding]) -> str:
    """Returns the call for which the seccomp filter kills the tool; empty if there is none."""
    # A trace alone uses perf_event_open: no other check would make the call.
    kill = (finding.check for finding in calls if finding.evidence == _KILLS)
    return next((check for check in kill if check != "perf_event_open"), "")


def _reaching(pid: int, ours: Explanation) -> Iterator[Finding]:
    try:
        pidfd = Fd.of(os.pidfd_open, pid)
    except OSError as error:
        fix = way_out("pidfd_open", ours, "Linux 5.3 or later")
        yield Finding("pidfd_open", "fails", f"pidfd_open of a child: {said(error)}", fix)
        rest = "not known: without pidfd_open no process is opened"
        yield from (Finding(name, "absent", rest) for name in CALLS[1:-2])
        return
    yield Finding("pidfd_open", "ok", "pidfd_open of a child")
    try:
        mem = Fd.open(f"/proc/{pid}/mem", os.O_RDONLY)
        maps = Fd.open(f"/proc/{pid}/maps", os.O_RDONLY)
        address = procfs.token_address(f"/proc/{pid}") or 0
        token = os.pread(mem.number, TOKEN_LEN, address)
    except OSError as error:
        why = explain(pid).message or way_out("open", ours, _GUARDED)
        yield Finding("proc mem", "fails", f"/proc/PID/mem of a child: {said(error)}", why)
        rest = "not known: /proc/PID/mem of a child cannot be opened"
        yield from (Finding(name, "absent", rest) for name in CALLS[1:-2] if name != "proc mem")
        return
    yield Finding("proc mem", "ok", f"/proc/PID/mem of a child: {len(token)} bytes")
    if prepared_query(maps.number, 0) is None:
        yield Finding(
            "PROCMAP_QUERY",
            "absent",
            "ioctl(/proc/PID/maps) is not supported: the text is read instead, which is slower",
            way_out("ioctl", ours, "Linux 6.11 or later"),
        )
    else:
        yield Finding("PROCMAP_QUERY", "ok", "ioctl(/proc/PID/maps) of a child")
    try:
        libc()
    except UnsupportedError as error:
        for name in ("process_vm_readv", "process_vm_writev"):
            yield Finding(name, "warning", said(error), "use a C library that has it")
        return
    yield from _by_number(VmCalls(Guard(pid, pidfd.number, address, token, pinned=False)), ours)


_GUARDED = "check the settings of the container and of the security module"


def _by_number(calls: VmCalls, ours: Explanation) -> Iterator[Finding]:
    """Tries both calls on a child, with the 16 bytes that the kernel gave it, unchanged."""
    guard = calls.guard
    token = guard.token or b""
    name = "process_vm_readv"
    arrived, code = calls.peek(guard.token_address, TOKEN_LEN)
    if code:
        yield _refused(name, code, "reads use /proc/PID/mem, which is slower", ours)
    elif arrived != token:
        evidence = f"{name} of a child returned other bytes than /proc/PID/mem"
        yield Finding(name, "fails", evidence, "open with backend='mem'")
    else:
        yield Finding(name, "ok", f"{name} of a child: {TOKEN_LEN} bytes")
    name = "process_vm_writev"
    room = Scratch(len(token))
    room.view[:] = token
    done, code = calls.write(guard.token_address, room.address, len(token))
    if code:
        yield _refused(name, code, "the tool writes its own memory with /proc/self/mem", ours)
    else:
        yield Finding(name, "ok", f"{name} of a child: {done} bytes")


def _refused(name: str, code: int, instead: str, ours: Explanation) -> Finding:
    evidence = f"{name} of a child: {said(OSError(code, ''))}; {instead}"
    fix = way_out(name, ours, _GUARDED) if code in REFUSALS else ""
    return Finding(name, "warning", evidence, fix)


def way_out(call: str, ours: Explanation, otherwise: str) -> str:
    """Returns what to do if a call is refused; names the seccomp filter only if there is one."""
    if ours.seccomp:
        return f"{otherwise}; or allow {call} in the seccomp filter of the tool"
    return otherwise


def _perf(pid: int, ours: Explanation) -> Finding:
    """Tries a hardware breakpoint on a child, as the traces of accesses and calls use it."""
    name = "perf_event_open"
    setting = procfs.read_text("/proc/sys/kernel/perf_event_paranoid") or "not shown"
    paranoid = f"kernel.perf_event_paranoid is {printable(setting)}"
    try:
        breakpoints = Breakpoints(PAGE_SIZE, 8, WRITES, registers=False, stack_len=0)
        try:
            breakpoints.add(pid)
        finally:
            breakpoints.close()
    except OSError as error:
        evidence = f"a hardware breakpoint on a child: {said(error)}; {paranoid}"
        if error.errno in (errno.EACCES, errno.EPERM):
            fix = "sysctl kernel.perf_event_paranoid=2, or give the tool CAP_PERFMON"
            return Finding(name, "warning", evidence, way_out(name, ours, fix))
        if error.errno == errno.ENOSPC:
            return Finding(name, "warning", evidence, "end what else uses the debug registers")
        return Finding(name, "warning", f"{evidence}; accesses and calls cannot be traced")
    return Finding(name, "ok", f"a hardware breakpoint was opened on a child; {paranoid}")


def _ptrace(pid: int, ours: Explanation) -> Finding:
    try:
        with attach(pid) as tracee:
            tracee.stop()
            tracee.resume()
    except (ProcvmError, OSError) as error:
        fix = ""
        if ours.seccomp and isinstance(error, AccessDeniedError | NotTracedError):
            fix = "allow ptrace in the seccomp filter of the tool"
        elif isinstance(error, AccessDeniedError) and ours.yama_scope and not ours.has_sys_ptrace:
            fix = "see yama"
        return Finding("ptrace", "fails", f"holding a child: {said(error)}", fix)
    how = " after it had admitted the tracer (PR_SET_PTRACER)" if to_admit() else ""
    evidence = f"a child was held and resumed (PTRACE_SEIZE, PTRACE_INTERRUPT){how}"
    return Finding("ptrace", "ok", evidence)
