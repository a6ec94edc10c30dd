"""What `examine` finds: each cause provoked, its verdict, and that no other cause is named.

Not provoked on this machine: SELinux and AppArmor, which are not active here, and a kernel that
forbids forced access (a boot parameter). Of Yama only the setting is there to be read.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import procvm
from procvm._linux import procfs
from procvm.doctor import examine
from tests.doctor.asking import CAUSES, ROOT, Doctor, Report, report
from tests.faults.subjects import (
    DAEMON,
    NOBODY,
    PROC_READ_ONLY,
    ROOT_WITHOUT_PTRACE,
    Subject,
    as_root,
    everybodys_python,
    in_mounts,
    needs,
    public,
    run_as,
    zombie_of,
)
from tests.support.playground import Playground
from tests.support.procfs import state_of, status_field

pytestmark = [as_root, needs("setpriv", "unshare")]

CALLS = [
    "pidfd_open",
    "process_vm_readv",
    "process_vm_writev",
    "proc mem",
    "PROCMAP_QUERY",
    "perf_event_open",
    "ptrace",
]
MACHINE = [
    "proc",
    "descriptors",
    "hidepid",
    "pid namespace",
    "user namespace",
    "CAP_SYS_PTRACE",
    "yama",
    "security modules",
    "seccomp",
    *CALLS,
    "forced access",
    "PAGEMAP_SCAN",
    "map_files",
    "numpy",
    "pyelftools",
    "drgn",
    "yara-x",
    "click",
    "rich",
    "textual",
    "pytest",
]
TARGET = [
    "target",
    "target owner",
    "target capabilities",
    "target dumpable",
    "target user namespace",
    "target security module",
    "target access",
    "target tracer",
    "target frozen",
    "target FUSE",
    "target hold",
]

WORDS = {
    "target owner": ("another user", "set-uid"),
    "target capabilities": ("has capabilities",),
    "target dumpable": ("not dumpable",),
    "target user namespace": ("user namespace, where",),
    "target file mode": ("CAP_DAC_OVERRIDE as well",),
    "target security module": ("security module (",),
    "target yama": ("Yama",),
    "hidepid": ("hidepid",),
}
"""What a message of each cause says, and no other message does."""


@pytest.fixture(scope="module")
def program() -> str:
    """The subject, for everybody to run."""
    return public("subject")


@pytest.fixture(scope="module")
def root() -> Iterator[Doctor]:
    """A tool with all rights."""
    with Doctor() as doctor:
        yield doctor


@pytest.fixture(scope="module")
def nobody() -> Iterator[Doctor]:
    """A tool of a user without any capability."""
    with Doctor(*run_as(NOBODY), python=everybodys_python()) as doctor:
        yield doctor


def assert_only_cause(found: Report, cause: str, *words: str) -> None:
    """The process is denied for this cause; its message says so, and none says another one."""
    assert found.causes() == [cause], found.text()
    assert found.failing() == [cause, "target access", "target hold"], found.text()
    for word in words:
        assert word in found[cause].fix
    assert found["target access"].fix == found[cause].fix
    assert "AccessDeniedError" in found["target access"].evidence
    later = CAUSES[CAUSES.index(cause) + 1 :]
    for name in later:
        if name in found:
            assert found[name].verdict == "absent"
            assert found[name].evidence == f"not judged: {cause} decides"
    assert_not_named(found, cause)


def assert_not_named(found: Report, *causes: str) -> None:
    """No message about the process names a cause but these."""
    text = "\n".join(finding.fix for name, finding in found.items() if name.startswith("target"))
    for name, words in WORDS.items():
        assert name in causes or not any(word in text for word in words), text


def assert_accessible(found: Report) -> None:
    """Nothing denies access to the process, or holding it."""
    assert [name for name in found if name.startswith("target")] == TARGET
    assert found.failing() == [], found.text()
    assert found["target access"].verdict == "ok"
    assert found["target hold"].verdict == "ok"
    assert_not_named(found)


# A healthy machine, and a healthy process


def test_what_is_looked_at_and_in_which_order() -> None:
    """The names of the checks, in their order, are the same every time."""
    assert [*report(examine())] == MACHINE
    with Subject() as target:
        assert [*report(examine(target.pid))] == [*MACHINE, *TARGET]


def test_a_machine_on_which_all_works(root: Doctor) -> None:
    """Every call was made for real: the verdicts of root without a filter."""
    found = root.examine()
    assert found.failing() == []
    for name in (*CALLS, "proc", "descriptors", "hidepid", "CAP_SYS_PTRACE", "forced access"):
        assert found[name].verdict == "ok", found[name]
    assert found["seccomp"].evidence == "Seccomp 0 in /proc/self/status: no filter"


def test_absent_settings_are_no_cause(root: Doctor) -> None:
    """Where there is no ptrace_scope it is absent, and nothing of it is told of a process."""
    if Path("/proc/sys/kernel/yama").exists():
        pytest.skip("needs a kernel without Yama (CONFIG_SECURITY_YAMA is not set)")
    with Subject() as target:
        found = root.examine(target.pid)
    assert found["yama"].verdict == "absent"
    assert "target yama" not in found
    assert "yama" not in found.text().lower()


@pytest.mark.parametrize("arguments", [[], ["nodump"]])
@pytest.mark.parametrize("prefix", [[], run_as(NOBODY), run_as(DAEMON)], ids=["root", "me", "them"])
def test_root_may_access_everybody(
    root: Doctor, program: str, prefix: Sequence[str], arguments: Sequence[str]
) -> None:
    """For root with its capabilities nothing stands in the way of any user's process."""
    with Subject(*arguments, prefix=prefix, program=program) as target:
        assert_accessible(root.examine(target.pid))
        assert state_of(target.pid) == "S"
        assert status_field(target.pid, "TracerPid") == "0"


def test_a_user_may_access_his_own(nobody: Doctor, program: str) -> None:
    """For a user without capabilities nothing stands in the way of a process of his own."""
    with Subject(prefix=run_as(NOBODY), program=program) as target:
        found = nobody.examine(target.pid)
    assert_accessible(found)
    assert found["CAP_SYS_PTRACE"].verdict == "warning"
    assert found["ptrace"].verdict == "ok"


def test_perf_events_of_a_user_without_rights_are_judged_by_the_setting(program: str) -> None:
    """It works for uid 1000 up to 2; a process of root is out of its reach for its owner alone."""
    paranoid = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    with (
        Doctor(*run_as(1000), python=everybodys_python()) as doctor,
        Subject(program=program) as it,
    ):
        found = doctor.examine(it.pid)
    finding = found["perf_event_open"]
    assert finding.verdict == ("ok" if paranoid <= 2 else "warning")
    assert f"perf_event_paranoid is {paranoid}" in finding.evidence
    assert_only_cause(found, "target owner", "belongs to another user")


def test_perf_events_that_are_refused_say_the_setting_and_the_capability(program: str) -> None:
    del program
    with Doctor() as doctor:
        doctor.take_away(seccomp={"perf_event_open": errno.EACCES})
        finding = doctor.examine()["perf_event_open"]
    assert finding.verdict == "warning"
    assert "EACCES" in finding.evidence
    for word in ("kernel.perf_event_paranoid=2", "CAP_PERFMON", "seccomp filter"):
        assert word in finding.fix


def test_nothing_is_left_behind(playground: Playground) -> None:
    """No descriptor, no child and no stop remains after two looks at a process."""
    examine(playground.pid)  # the tracer is started by the first

    def kept() -> tuple[int, set[str]]:
        return len(os.listdir("/proc/self/fd")), {
            *Path("/proc/thread-self/children").read_text().split()
        }

    before = kept()
    report(examine(playground.pid))
    assert kept() == before
    assert playground.ask("random")


# Causes


@pytest.mark.parametrize("uid", [0, DAEMON])
def test_another_user(nobody: Doctor, program: str, uid: int) -> None:
    """Another user's process, root's too, fails for its owner and nothing else."""
    with Subject(prefix=run_as(uid) if uid else [], program=program) as target:
        found = nobody.examine(target.pid)
    assert_only_cause(found, "target owner", "belongs to another user", f"uid {NOBODY}")
    assert f"Uid {uid}/{uid}/{uid}" in found["target owner"].evidence


def test_another_user_who_is_not_dumpable(nobody: Doctor, program: str) -> None:
    """Of two causes the one that the kernel meets first fails; the other one is not judged."""
    with Subject("nodump", prefix=run_as(DAEMON), program=program) as target:
        assert_only_cause(nobody.examine(target.pid), "target owner")


@pytest.mark.parametrize("bit", [0o4000, 0o2000])
def test_a_set_uid_program(nobody: Doctor, bit: int) -> None:
    """A set-uid or set-gid program of the same user fails as that."""
    program = public("subject", owner=DAEMON, mode=bit | 0o755)
    with Subject(prefix=run_as(NOBODY), program=program) as target:
        found = nobody.examine(target.pid)
    assert_only_cause(found, "target owner", "is a set-uid or set-gid program")
    assert "another user" not in found["target owner"].fix


def test_not_dumpable(nobody: Doctor, program: str) -> None:
    """A process that asked not to be dumped fails for that, by the owner of its files."""
    with Subject("nodump", prefix=run_as(NOBODY), program=program) as target:
        found = nobody.examine(target.pid)
        assert os.stat(f"/proc/{target.pid}/mem").st_uid == 0
    assert_only_cause(found, "target dumpable", "PR_SET_DUMPABLE")


def test_a_program_that_may_not_be_read(nobody: Doctor) -> None:
    """A program that its user may run and not read fails as not dumpable."""
    program = public("subject", mode=0o711)
    prefix = [*run_as(NOBODY), "sh", "-c", 'exec "$0" "$@"']
    with Subject(prefix=prefix, program=program) as target:
        assert_only_cause(nobody.examine(target.pid), "target dumpable")


def test_root_without_the_capability(program: str) -> None:
    """Root without CAP_SYS_PTRACE: fails by capabilities, by the owner, by dumpability, or not."""
    with Doctor(*ROOT_WITHOUT_PTRACE) as doctor:
        with Subject(program=program) as target:
            found = doctor.examine(target.pid)
            assert_only_cause(found, "target capabilities", "CAP_SYS_PTRACE")
            assert found["CAP_SYS_PTRACE"].verdict == "warning"
            assert "cap-add" in found["CAP_SYS_PTRACE"].fix
        with Subject(prefix=run_as(NOBODY), program=program) as target:
            assert_only_cause(doctor.examine(target.pid), "target owner")
        with Subject("nodump", prefix=ROOT_WITHOUT_PTRACE, program=program) as target:
            assert_only_cause(doctor.examine(target.pid), "target dumpable")
        with Subject(prefix=ROOT_WITHOUT_PTRACE, program=program) as target:
            assert_accessible(doctor.examine(target.pid))


def test_a_tool_that_may_trace_and_may_not_open(program: str) -> None:
    """A tool with CAP_SYS_PTRACE alone fails by the mode of /proc/PID/mem, and by nothing else."""
    rights = ["--inh-caps", "+sys_ptrace", "--ambient-caps", "+sys_ptrace"]
    prefix = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *rights]
    with (
        Doctor(*prefix, python=everybodys_python()) as doctor,
        Subject(program=program) as target,
    ):
        found = doctor.examine(target.pid)
        assert_only_cause(found, "target file mode", "CAP_DAC_OVERRIDE")
        assert f"only uid 0 may open /proc/{target.pid}/mem" in found["target file mode"].evidence


def test_a_user_namespace(program: str) -> None:
    """In a user namespace of its own the tool is told that, and a process outside fails for it."""
    with Doctor("unshare", "-Ur") as doctor, Subject(program=program) as target:
        found = doctor.examine(target.pid)
        assert found["user namespace"].verdict == "warning"
        assert "/proc/self/ns/user is user:[" in found["user namespace"].evidence
        assert_only_cause(found, "target user namespace")


def test_a_target_in_a_user_namespace(root: Doctor, program: str) -> None:
    """A process in a user namespace that the tool's own made is no cause for anything."""
    with Subject(prefix=["unshare", "-Ur"], program=program) as target:
        assert_accessible(root.examine(target.pid))


# Yama: the setting alone


def _with_scope(scope: int) -> list[str]:
    kernel = "/proc/sys/kernel"
    return in_mounts(
        f"cap=$(cat {kernel}/cap_last_cap)\n"
        f"mount -t tmpfs none {kernel}\nmkdir {kernel}/yama\n"
        f"echo $cap > {kernel}/cap_last_cap\necho {scope} > {kernel}/yama/ptrace_scope"
    )


@pytest.mark.parametrize("scope", [0, 1, 2, 3])
def test_the_setting_of_yama(scope: int) -> None:
    """What each ptrace_scope means, for root and for a user without capabilities."""
    with Doctor(*_with_scope(scope)) as doctor:
        assert doctor.examine()["yama"].verdict == ("fails" if scope == 3 else "ok")
    with Doctor(*_with_scope(scope), *run_as(NOBODY), python=everybodys_python()) as doctor:
        found = doctor.examine()["yama"]
        assert found.verdict == ["ok", "warning", "fails", "fails"][scope]
        assert found.evidence.startswith(f"kernel.yama.ptrace_scope is {scope}")
        assert ("sysctl" in found.fix) == (scope in (1, 2))
        assert ("boot" in found.fix) == (scope == 3)


# Filters

REFUSED = {
    "process_vm_readv": (errno.EPERM, "warning", []),
    "process_vm_writev": (errno.ENOSYS, "warning", []),
    "ptrace": (errno.EPERM, "fails", ["ptrace", "target hold"]),
    "pidfd_open": (errno.ENOSYS, "fails", ["pidfd_open", "ptrace", "target access", "target hold"]),
    "ioctl": (errno.ENOTTY, "absent", []),
}


@pytest.mark.parametrize("call", REFUSED)
def test_a_filter_that_refuses_a_call(program: str, call: str) -> None:
    """The call that a filter refuses is told by the call itself, with what follows from it."""
    code, verdict, failing = REFUSED[call]
    with Doctor() as doctor, Subject(program=program) as target:
        doctor.take_away(seccomp={call: code})
        found = doctor.examine(target.pid)
    row = found["PROCMAP_QUERY" if call == "ioctl" else call]
    assert row.verdict == verdict
    assert "seccomp filter" in row.fix
    if call.startswith(("process_vm", "pidfd")):
        assert f"[{errno.errorcode[code]}]" in row.evidence
    assert found.failing() == failing
    assert found.causes() == []
    assert found["seccomp"].evidence.startswith("Seccomp 2 in /proc/self/status")
    assert found["PAGEMAP_SCAN"].verdict == ("absent" if call == "ioctl" else "ok")
    others = {*CALLS} - {row.check, *failing} if call != "pidfd_open" else set()
    if call == "ioctl":  # which joins the rings of the breakpoints
        others.remove("perf_event_open")
        assert found["perf_event_open"].verdict == "warning"
    assert {found[name].verdict for name in others} <= {"ok"}
    assert_not_named(found)


# Of the two halves of an action a filter's data is the lower one; no such action kills.
KILLED = 0x8000_0000


@pytest.mark.parametrize("call", ["process_vm_readv", "pidfd_open", "ptrace"])
def test_a_filter_that_kills(program: str, call: str) -> None:
    """A call that would end the tool is found out, and the tool lives on."""
    with Doctor() as doctor, Subject(program=program) as target:
        doctor.take_away(seccomp={call: KILLED})
        for _ in range(2):
            found = doctor.examine(target.pid)
            assert found[call].verdict == "fails"
            assert found["target hold"].verdict == "fails"
            if call == "ptrace":  # it is the tracer that makes this one
                assert found["target access"].verdict == "ok"
                assert "the tracer process has ended" in found[call].evidence
            else:
                assert "[SIGSYS]" in found[call].evidence
                assert found["target access"].evidence == f"not tried: {call} would end the tool"
            assert "seccomp filter" in found[call].fix
            assert found.causes() == []


# Security modules


def _in_a_domain(doctor: Doctor) -> None:
    try:
        doctor.take_away(landlock=True)
    except AssertionError as error:
        pytest.skip(f"needs Landlock (CONFIG_SECURITY_LANDLOCK): {error}")


def test_a_security_module_that_nothing_tells_of(program: str) -> None:
    """Where no list of modules is to be read the refusal is told, and its cause is not known."""
    if Path("/sys/kernel/security/lsm").exists():
        pytest.skip("needs a machine without securityfs (/sys/kernel/security/lsm)")
    with Doctor() as doctor, Subject(program=program) as target:
        _in_a_domain(doctor)
        found = doctor.examine(target.pid)
    assert found.failing() == ["target access", "target hold"]
    assert found["security modules"].verdict == "absent"
    assert found["target security module"].verdict == "absent"
    evidence = found["target security module"].evidence
    assert evidence.startswith("not known: no other check denies access")
    assert_not_named(found, "target security module")


def test_a_security_module_in_the_list(program: str) -> None:
    """Where the list of modules has one that may say no, it is the cause, as nothing else is."""
    prefix = in_mounts("mount -t securityfs none /sys/kernel/security")
    with Doctor(*prefix) as doctor, Subject(program=program) as target:
        _in_a_domain(doctor)
        found = doctor.examine(target.pid)
    assert "landlock" in found["security modules"].evidence
    assert_only_cause(found, "target security module", "security module")


# /proc


def test_a_read_only_proc(program: str) -> None:
    """A read-only /proc is a warning: a process is read all the same."""
    with Doctor(*in_mounts(PROC_READ_ONLY)) as doctor, Subject(program=program) as target:
        found = doctor.examine(target.pid)
    assert found["proc"].verdict == "warning"
    assert "[EROFS]" in found["proc"].evidence
    assert "read-only" in found["forced access"].evidence
    assert_accessible(found)


@pytest.mark.parametrize("value", ["2", "4"])
def test_hidepid(program: str, value: str) -> None:
    """A process that /proc hides fails for that; one's own and root's view do not."""
    script = f"mount -t proc -o hidepid={value} proc /proc"
    python = everybodys_python()
    with Subject(program=program) as target:
        with Doctor(*in_mounts(script), *run_as(NOBODY), python=python) as doctor:
            found = doctor.examine(target.pid)
            assert found.failing() == ["target"]
            assert found["hidepid"].verdict == "warning"
            assert "hidepid=" in found["hidepid"].evidence
            assert "hidepid" in found["target"].fix
            assert_not_named(found, "hidepid")
            with Subject(prefix=run_as(NOBODY), program=program) as own:
                assert_accessible(doctor.examine(own.pid))
        with Doctor(*in_mounts(script)) as doctor:
            found = doctor.examine(target.pid)
            assert found["hidepid"].verdict == "ok"
            assert_accessible(found)


def test_the_group_of_hidepid(program: str) -> None:
    """Who is in the group that /proc names sees everybody, and is told so."""
    script = f"mount -t proc -o hidepid=2,gid={NOBODY} proc /proc"
    with (
        Doctor(*in_mounts(script), *run_as(NOBODY), python=everybodys_python()) as doctor,
        Subject(program=program) as target,
    ):
        found = doctor.examine(target.pid)
        assert found["hidepid"].verdict == "ok"
        assert f"group {NOBODY}" in found["hidepid"].evidence
        assert_only_cause(found, "target owner")


@pytest.mark.parametrize("script", ["mount -t tmpfs none /proc", "mount --bind /tmp /proc"])
def test_no_proc(program: str, script: str) -> None:
    """Without /proc that is what fails, and nothing is said of the process."""
    with Doctor(*in_mounts(script)) as doctor, Subject(program=program) as target:
        found = doctor.examine(target.pid)
    assert found.failing() == ["proc"]
    assert "mount proc" in found["proc"].fix
    assert found["target"].verdict == "absent"
    assert found["ptrace"].evidence == "not known: see proc"


def test_the_proc_of_another_pid_namespace(program: str) -> None:
    """Under another pid namespace's /proc nothing is said of whoever has the number there."""
    with (
        Doctor("unshare", "--pid", "--fork", "--kill-child") as doctor,
        Subject(program=program) as target,
    ):
        found = doctor.examine(target.pid)
    assert found.failing() == ["proc"]
    assert "pid namespace" in found["proc"].evidence
    assert "mount the proc" in found["proc"].fix
    assert found["target"].verdict == "absent"


def test_a_pid_namespace(program: str) -> None:
    """In a pid namespace with its /proc all works, and who is outside has no pid."""
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with Doctor(*alone) as doctor, Subject(program=program) as target:
        assert "not the first one" in doctor.examine()["pid namespace"].evidence
        found = doctor.examine(target.pid)
        assert found.failing() == ["target"]
        assert "no process has the pid" in found["target"].evidence


# Not a matter of permission


def test_a_zombie(nobody: Doctor, root: Doctor, program: str) -> None:
    """A zombie has ended: nothing else is said of it, whoever asks."""
    with Subject(program=program) as parent, zombie_of(parent, 0) as pid:
        for doctor in (nobody, root):
            found = doctor.examine(pid)
            assert found.failing() == ["target"]
            assert found["target"].evidence.startswith(f"State Z in /proc/{pid}/status")
            assert found["target"].fix == ""
            assert [*found][-1] == "target"


def test_a_leader_that_ended_before_its_threads(root: Doctor) -> None:
    """A process whose leader has ended and whose threads live can be accessed."""
    with Subject() as target:
        target.send("leader")
        assert target.line() == "ok"
        found = root.examine(target.pid)
    assert "other threads live" in found["target"].evidence
    assert_accessible(found)


def test_a_kernel_thread(nobody: Doctor, root: Doctor) -> None:
    """A kernel thread has no memory, whoever asks."""
    kernel = [
        pid
        for pid in procfs.pids()  # some of which end meanwhile
        if "Kthread:\t1" in (procfs.read_text(f"/proc/{pid}/status") or "")
    ]
    if not kernel:
        pytest.skip("needs the first pid namespace, where /proc shows kernel threads")
    for doctor in (nobody, root):
        found = doctor.examine(kernel[0])
        assert found.failing() == ["target"]
        assert "is a kernel thread" in found["target"].evidence


def test_a_thread(root: Doctor) -> None:
    """The id of a thread is told from a pid, and the pid to give is named."""
    with Subject() as target:
        tid = int(target.ask("thread"))
        found = root.examine(tid)
        assert found.failing() == ["target"]
        assert found["target"].fix == f"use {target.pid}"


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 9, 2**31, 2**64])
def test_the_pid_of_nobody(nobody: Doctor, pid: int) -> None:
    """A number that no process has fails as that."""
    found = nobody.examine(pid)
    assert found.failing() == ["target"]
    assert f"no process has the pid {pid}" in found["target"].evidence


@pytest.mark.parametrize("pid", ["1", 1.0, True])
def test_what_is_no_pid(pid: object) -> None:
    """What is no int is a TypeError."""
    with pytest.raises(TypeError):
        examine(pid)  # type: ignore[arg-type]


def test_the_tool_itself() -> None:
    """The tool may access itself; it can not hold itself."""
    found = report(examine(os.getpid()))
    assert found["target access"].verdict == "ok"
    assert found.failing() == ["target hold"]
    assert "the tool itself" in found["target hold"].evidence


# What keeps a process from being held


def test_a_process_that_is_traced(nobody: Doctor, program: str) -> None:
    """A tracer stands in the way of a hold alone, and is named."""
    with Subject(prefix=run_as(NOBODY), program=program) as target:
        with procvm.attach(target.pid) as tracee, tracee.stopped():
            found = nobody.examine(target.pid)
            tid = status_field(target.pid, "TracerPid")
            tracer = status_field(int(tid), "Tgid")
        assert found.failing() == ["target hold"]
        assert found["target tracer"].verdict == "warning"
        assert f"TracerPid {tid} " in found["target tracer"].evidence
        assert f"(pid {tracer}) traces it" in found["target tracer"].evidence
        assert found["target access"].verdict == "ok"
        assert_not_named(found)
        assert_accessible(nobody.examine(target.pid))


def test_a_process_that_a_signal_stopped(root: Doctor) -> None:
    """A stop by a signal stands in no way, and stays."""
    with Subject() as target:
        os.kill(target.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, target.pid, os.WSTOPPED | os.WNOWAIT)
        found = root.examine(target.pid)
        assert found["target"].evidence.startswith("State T ")
        assert_accessible(found)
        assert state_of(target.pid) == "T"


def _write(path: Path, text: str) -> None:
    # In one call, and not truncated first: these are no files.
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


@pytest.fixture(params=["freezer", "unified"])
def freezer(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A group of either version of cgroups that can be frozen; skips where there is none."""
    top = Path("/sys/fs/cgroup", request.param)
    if request.param == "unified" and not top.is_dir():
        top = top.parent
    group = top / f"procvm-doctor-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"needs a cgroup file system that can be written: {error}")
    try:
        if not any((group / name).exists() for name in ("freezer.state", "cgroup.freeze")):
            pytest.skip(f"{top} freezes nothing")
        yield group
    finally:
        group.rmdir()


def test_a_frozen_group(root: Doctor, freezer: Path) -> None:
    """A frozen process can be read; whether it could be held is what a hold of it shows."""
    old = (freezer / "freezer.state").exists()
    file, on, off = (
        (freezer / "freezer.state", "FROZEN", "THAWED")
        if old
        else (freezer / "cgroup.freeze", "1", "0")
    )
    with Subject() as target:
        try:
            _write(freezer / "cgroup.procs", str(target.pid))
            assert_accessible(root.examine(target.pid))
            _write(file, on)
            told = freezer / ("freezer.state" if old else "cgroup.events")
            while ("FROZEN" if old else "frozen 1") not in told.read_text():
                pass  # the kernel gets there by itself
            found = root.examine(target.pid)
            with procvm.attach(target.pid) if not old else procvm.open(target.pid) as process:
                assert process.vm.read_bytes(target.address, 4)
        finally:
            _write(file, off)
            _write(freezer.parent / "cgroup.procs", str(target.pid))
    assert found["target access"].verdict == "ok"
    assert found["target frozen"].verdict == "warning"
    assert str(told) in found["target frozen"].evidence
    assert found.failing() == (["target hold"] if old else [])
    assert_not_named(found)


# What the tool has


@pytest.mark.parametrize("free", [0, 1, 2, 3, 5, 10, 20])
def test_few_descriptors(program: str, free: int) -> None:
    """With few descriptors left that is what is told, and nothing else is taken for a cause."""
    with Doctor() as doctor, Subject(program=program) as target:
        doctor.take_away(descriptors=free)
        found = doctor.examine(target.pid)
        assert found["descriptors"].verdict == ("fails" if free < 3 else "warning")
        assert "ulimit -n" in found["descriptors"].fix
        assert [*found] == ["descriptors", *CALLS, "target"]
        assert {found[name].evidence for name in [*found][1:]} == {"not known: see descriptors"}


def test_packages_that_are_not_there() -> None:
    """A package that is not installed is absent, with the extra that brings it."""
    code = "import json; from procvm.doctor import examine; print(json.dumps(examine()))"
    # Without `site` this Python sees the standard library alone.
    command = f"cd / && PYTHONPATH={ROOT} exec {sys.executable} -S -c '{code}'"
    with os.popen(command) as pipe:  # noqa: S605 (a string of this test)
        found = report(json.loads(pipe.read()))
    assert found["numpy"].verdict == "absent"
    assert found["numpy"].fix == "pip install 'procvm[numpy]'"
    assert found["textual"].fix == "pip install 'procvm[tui]'"
    # It is what the tracer needs, and no extra.
    assert found.failing() == ["ptrace"]
    assert "tracer" in found["ptrace"].evidence


def test_a_hostile_name(root: Doctor, playground: Playground) -> None:
    """What a process calls itself is told escaped."""
    playground.set_comm(b"\x1b[31m\nx\xff\\y")
    found = root.examine(playground.pid)
    assert "\\x1b[31m\\x0ax\\xff\\\\y" in found["target"].evidence
