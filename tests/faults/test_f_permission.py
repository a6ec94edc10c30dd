"""The message of a refusal names the true cause and no other.

Not provoked on this machine:

*   Yama 1, 2 and 3: this kernel has none. So the word must never appear.
*   SELinux, AppArmor: not active here. Landlock is, and stands for a security module.
*   A kernel that forbids forced access (``proc_mem.force_override=``): a boot parameter.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

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
from tests.faults.tools import Refusal, Tool
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import assert_unharmed

pytestmark = [as_root, needs("setpriv", "unshare")]

# Every cause by a word that its message alone has.
CAUSES = {
    "another user": "belongs to another user",
    "set-uid": "set-uid",
    "not dumpable": "not dumpable",
    "capabilities": "has capabilities",
    "namespace": "namespace",
    "security module": "security module",
    "hidepid": "hidepid",
    "read-only": "read-only",
    "kernel thread": "kernel thread",
    "Yama": "Yama",
    "seccomp": "seccomp",
}


def assert_only_cause(refusal: Refusal, *causes: str) -> None:
    """The message names these causes, and none of the others."""
    assert refusal.name == "AccessDeniedError", refusal
    named = {cause for cause, words in CAUSES.items() if words.lower() in refusal.text.lower()}
    assert named == set(causes), refusal.text
    assert not Path("/proc/sys/kernel/yama").exists()


def assert_refused(tool: Tool, target: Subject, *causes: str) -> Refusal:
    """The target is refused for these causes, at every try, and is unharmed."""
    for backend in ("auto", "mem", "auto"):
        refusal = tool.refused("open", target.pid, backend)
        assert_only_cause(refusal, *causes)
        assert refusal.pid == target.pid
        assert refusal.copied_len == 0
    first = pattern(target.address, 8)[::-1].hex()
    assert target.ask(f"word {target.address:x}") == first
    assert_unharmed(target.pid)
    assert tool.do("fds") == tool.do("fds")
    return refusal


def assert_full_access(tool: Tool, target: Subject, backend: str = "auto") -> None:
    """The tool reads, writes and lists the target."""
    address = target.address
    assert tool.do("open", target.pid, backend) == target.pid
    assert tool.do("read", address, PAGE) == pattern(address, PAGE).hex()
    tool.do("write_val", address + 8, 0x1122334455667788)
    assert target.ask(f"word {address + 8:x}") == "1122334455667788"
    tool.do("write", address + 8, pattern(address + 8, 8).hex())
    assert any(start <= address < end for start, end, *_ in tool.do("maps"))
    assert tool.do("is_alive")
    tool.do("close")
    assert_unharmed(target.pid)


@pytest.fixture(scope="module")
def program() -> str:
    """The subject, for everybody to run."""
    return public("subject")


@pytest.fixture(scope="module")
def nobody() -> Iterator[Tool]:
    """A tool of a user without any capability."""
    with Tool(*run_as(NOBODY)) as tool:
        assert tool.do("who")["CapEff"] == 0
        yield tool


@pytest.fixture(autouse=True)
def nobody_first(nobody: Tool) -> None:
    """Starts the tool that many tests share before what is compared around each is noted."""


# Users


def test_a_process_of_the_same_user(nobody: Tool, program: str) -> None:
    """What the tool's user owns is accessed without any capability."""
    with Subject(prefix=run_as(NOBODY), program=program) as target:
        for backend in ("auto", "mem"):
            assert_full_access(nobody, target, backend)


@pytest.mark.parametrize("uid", [0, DAEMON])
def test_a_process_of_another_user(nobody: Tool, program: str, uid: int) -> None:
    """Another user's process, root's too, is refused as another user's."""
    prefix = run_as(uid) if uid else []
    with Subject(prefix=prefix, program=program) as target:
        assert_refused(nobody, target, "another user")


def test_a_process_of_another_group(nobody: Tool, program: str) -> None:
    """The same user with another group is refused for the ids, and for nothing else."""
    prefix = ["setpriv", f"--reuid={NOBODY}", "--regid=1", "--clear-groups", "--inh-caps=-all"]
    with Subject(prefix=prefix, program=program) as target:
        refusal = nobody.refused("open", target.pid)
        assert refusal.name == "AccessDeniedError"
        assert "gid" in refusal.text
        for cause in ("set-uid", "not dumpable", "Yama", "namespace", "hidepid", "security"):
            assert cause not in refusal.text


@pytest.mark.parametrize("owner", [0, DAEMON])
@pytest.mark.parametrize("bit", [0o4000, 0o2000])
def test_a_set_uid_program(nobody: Tool, owner: int, bit: int) -> None:
    """A set-uid or set-gid program that the same user started is refused as that."""
    program = public("subject", owner=owner, mode=bit | 0o755)
    with Subject(prefix=run_as(NOBODY), program=program) as target:
        assert_refused(nobody, target, "set-uid")


def test_a_set_uid_program_that_gains_nothing(nobody: Tool) -> None:
    """A set-uid bit that changes no id is no cause: it is accessed."""
    program = public("subject", owner=NOBODY, mode=0o4755)
    with Subject(prefix=run_as(NOBODY), program=program) as target:
        assert_full_access(nobody, target)


@pytest.mark.parametrize("prefix", [[], run_as(NOBODY), run_as(DAEMON)], ids=["root", "me", "them"])
def test_root_may_access_everybody(prefix: Sequence[str], program: str) -> None:
    """Root with its capabilities accesses every user's process, dumpable or not."""
    with Tool() as tool:
        for arguments in ((), ("nodump",)):
            with Subject(*arguments, prefix=prefix, program=program) as target:
                assert_full_access(tool, target)
                assert_full_access(tool, target, "mem")


# Not dumpable


def test_a_process_that_is_not_dumpable(nobody: Tool, program: str) -> None:
    """The user's own process that asked not to be dumped is refused as that."""
    with Subject("nodump", prefix=run_as(NOBODY), program=program) as target:
        assert_refused(nobody, target, "not dumpable")


def test_a_program_that_may_not_be_read(nobody: Tool) -> None:
    """A program whose file its user may run and not read is not dumpable either."""
    program = public("subject", mode=0o711)
    # By a shell: setpriv itself may still read everything when it runs a program.
    prefix = [*run_as(NOBODY), "sh", "-c", 'exec "$0" "$@"']
    with Subject(prefix=prefix, program=program) as target:
        assert_refused(nobody, target, "not dumpable")


def test_another_users_process_that_is_not_dumpable(nobody: Tool, program: str) -> None:
    """Of two causes the one that the kernel meets first is named: the other user."""
    with Subject("nodump", prefix=run_as(DAEMON), program=program) as target:
        assert_refused(nobody, target, "another user")


def test_a_process_of_root_that_is_not_dumpable(program: str) -> None:
    """Root without CAP_SYS_PTRACE and a process of root that is not dumpable."""
    with Tool(*ROOT_WITHOUT_PTRACE) as tool:
        with Subject("nodump", prefix=ROOT_WITHOUT_PTRACE, program=program) as target:
            assert_refused(tool, target, "not dumpable")
        with Subject(prefix=ROOT_WITHOUT_PTRACE, program=program) as target:
            assert_full_access(tool, target)


# Capabilities


def test_root_without_the_capability_and_a_process_with_more(program: str) -> None:
    """Root without CAP_SYS_PTRACE may not access a process with more capabilities."""
    with Tool(*ROOT_WITHOUT_PTRACE) as tool, Subject(program=program) as target:
        assert not tool.do("who")["CapEff"] & 1 << 19
        refusal = assert_refused(tool, target, "capabilities")
        assert "CAP_SYS_PTRACE" in refusal.text


def test_root_without_the_capability_and_another_user(program: str) -> None:
    """Root without CAP_SYS_PTRACE may not access another user's process."""
    with (
        Tool(*ROOT_WITHOUT_PTRACE) as tool,
        Subject(prefix=run_as(NOBODY), program=program) as target,
    ):
        refusal = assert_refused(tool, target, "another user")
        assert "CAP_SYS_PTRACE" in refusal.text


def test_a_process_of_the_same_user_with_a_capability(nobody: Tool, program: str) -> None:
    """The user's own process that has a capability the tool lacks is refused as that."""
    prefix = [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--inh-caps=+net_bind_service",
        "--ambient-caps=+net_bind_service",
    ]
    with Subject(prefix=prefix, program=program) as target:
        assert_refused(nobody, target, "capabilities")


# User namespaces


@pytest.mark.parametrize("options", ["-Ur", "-U"])
def test_a_tool_in_a_user_namespace(program: str, options: str) -> None:
    """The same user's process outside the tool's user namespace is refused for that."""
    with (
        Tool(*run_as(NOBODY), "unshare", options, python=everybodys_python()) as tool,
        Subject(prefix=run_as(NOBODY), program=program) as target,
    ):
        assert_refused(tool, target, "namespace")


def test_a_tool_of_root_in_a_user_namespace(program: str) -> None:
    """Root of the machine in a user namespace of its own is refused for that too."""
    with Tool("unshare", "-Ur") as tool, Subject(program=program) as target:
        assert tool.do("who")["CapEff"] & 1 << 19  # which counts in its namespace only
        assert_refused(tool, target, "namespace")


def test_a_tool_in_a_user_namespace_and_another_user(program: str) -> None:
    """Another user's process outside: one of the two is named, both are true."""
    with (
        Tool(*run_as(NOBODY), "unshare", "-Ur", python=everybodys_python()) as tool,
        Subject(prefix=run_as(DAEMON), program=program) as target,
    ):
        refusal = tool.refused("open", target.pid)
        assert refusal.name == "AccessDeniedError"
        assert "another user" in refusal.text or "namespace" in refusal.text, refusal.text
        for cause in ("set-uid", "not dumpable", "Yama", "hidepid", "security module"):
            assert cause not in refusal.text


def test_a_target_in_a_user_namespace_of_its_own(nobody: Tool, program: str) -> None:
    """Who made a user namespace may access the processes in it."""
    with Subject(prefix=[*run_as(NOBODY), "unshare", "-U"], program=program) as target:
        assert_full_access(nobody, target)
    with Tool() as tool, Subject(prefix=["unshare", "-Ur"], program=program) as target:
        assert_full_access(tool, target)


def test_both_in_one_user_namespace(program: str) -> None:
    """In its own user namespace the tool accesses what it may."""
    with Subject(prefix=[*run_as(NOBODY), "unshare", "-Ur"], program=program) as target:
        inside = ["nsenter", "-t", str(target.pid), "-U", "--preserve-credentials"]
        with Tool(*run_as(NOBODY), *inside, python=everybodys_python()) as tool:
            assert_full_access(tool, target)


# Filters and security modules

REFUSED = [
    {"process_vm_readv": errno.EPERM, "process_vm_writev": errno.EPERM},
    {"process_vm_readv": errno.ENOSYS, "process_vm_writev": errno.ENOSYS},
    {"process_vm_readv": errno.EACCES},
    {"process_vm_writev": errno.EPERM},
    {"ptrace": errno.EPERM},
    {"ioctl": errno.ENOTTY},
    {"ioctl": errno.EPERM},
]


def _results(tool: Tool, base: int) -> list[object]:
    """Returns the answers over a layout "rw rw r none rw hole", which writes leave as it was."""
    edge = base + 2 * PAGE
    calls: list[list[object]] = [
        ["read", base, 2 * PAGE],
        ["read_val", base + 5],
        ["read_into", base + 2 * PAGE, 2 * PAGE],
        ["read_into", base + 3 * PAGE, 8],
        ["read_into", base + 5 * PAGE - 3, 8],
        ["read", base, 5 * PAGE, True],
        ["cstring", base, 16],
        ["gather", [[base, 5], [base + PAGE, 7], [base + 2 * PAGE, 3]]],
        ["write", base + 16, pattern(base + 16, 100).hex()],
        ["write", edge - 4, pattern(edge - 4, 4).hex() + "00" * 4],
        ["write_val", base + 8, int.from_bytes(pattern(base + 8, 8), "little")],
        ["write_val", edge, 1],
        ["fill", edge, 8],
        ["find", base],
        ["find", base + 5 * PAGE],
        ["is_alive"],
        ["maps"],
    ]
    answers: list[object] = []
    for answer in tool.each(*calls):
        if isinstance(answer, Refusal):
            # Not what it says of the caller's code lines.
            answers.append(answer._replace(seen=""))
        elif isinstance(answer, list) and answer and isinstance(answer[0], dict):
            answers.append([{**answer[0], "seen": ""}, answer[1]])
        else:
            answers.append(answer)
    return answers


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: f"{refused}")
def test_a_filter_on_system_calls(
    playground: Playground, refused: dict[str, int], when: str
) -> None:
    """Where a filter refuses system calls the results are the same as without it."""
    base = playground.layout("rw rw r none rw hole")
    there = playground.peek(base, 5 * PAGE)
    with Tool() as tool:
        tool.do("open", playground.pid)
        expected = _results(tool, base)
        if when == "before":
            tool.do("close")
            tool.do("seccomp", refused)
            tool.do("open", playground.pid)
        else:
            tool.do("seccomp", refused)
        assert _results(tool, base) == expected
        assert _results(tool, base) == expected
        tool.do("close")
    assert playground.peek(base, 5 * PAGE) == there


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_a_filter_on_the_opening(program: str, code: int) -> None:
    """Where a filter refuses pidfd_open the message says so, and names no other cause."""
    with Tool() as tool, Subject(program=program) as target:
        tool.do("seccomp", {"pidfd_open": code})
        refusal = tool.refused("open", target.pid)
        assert refusal.name in ("AccessDeniedError", "UnsupportedError")
        assert "seccomp" in refusal.text or "pidfd_open" in refusal.text or "kernel" in refusal.text
        for cause in ("user", "set-uid", "not dumpable", "Yama", "hidepid", "has capabilities"):
            assert cause not in refusal.text


@pytest.mark.parametrize("prefix", [[], run_as(NOBODY)], ids=["root", "nobody"])
def test_a_security_module(prefix: Sequence[str], program: str) -> None:
    """A tool in a Landlock domain is refused by a security module, and by nothing else."""
    with Tool(*prefix) as tool, Subject(prefix=prefix, program=program) as target:
        assert_full_access(tool, target)
        tool.do("open", target.pid)
        try:
            tool.do("landlock")
        except AssertionError as error:  # a kernel without it
            pytest.skip(f"no Landlock: {error}")
        # What was opened before is open; by the number it may not be asked any more.
        assert tool.do("read", target.address, 64) == pattern(target.address, 64).hex()
        assert tool.do("read_val", target.address) == int.from_bytes(
            pattern(target.address, 8), "little"
        )
        tool.do("write", target.address, pattern(target.address, 8).hex())
        tool.do("close")
        refusal = tool.refused("open", target.pid)
        assert refusal.name == "AccessDeniedError"
        assert "Seccomp:\t0\n" in Path(f"/proc/{tool.pid}/status").read_text()
        assert_only_cause(refusal, "security module")
        own = tool.do("who")["pid"]
        assert tool.do("open", own) == own
        tool.do("close")


# /proc


def test_a_read_only_proc(playground: Playground) -> None:
    """Where /proc is read-only reads are as without it; a write too, or it says why."""
    base = playground.layout("rw rw r none rw hole")
    there = playground.peek(base, 5 * PAGE)
    with Tool() as tool:
        tool.do("open", playground.pid)
        expected = _results(tool, base)
        tool.do("close")
    with Tool(*in_mounts(PROC_READ_ONLY)) as tool:
        for backend in ("auto", "mem"):
            tool.do("open", playground.pid, backend)
            for given, right in zip(_results(tool, base), expected, strict=True):
                if isinstance(given, Refusal) and given.name == "AccessDeniedError":
                    assert_only_cause(given, "read-only")
                    assert right is None or isinstance(right, Refusal)
                    assert (given.pid, given.copied_len) == (playground.pid, 0)
                else:
                    assert given == right, backend
            refusal = tool.refused("write", base + 2 * PAGE, "00", True)
            assert_only_cause(refusal, "read-only")
            assert refusal.pid == playground.pid
            tool.do("close")
    assert playground.peek(base, 5 * PAGE) == there


def test_a_read_only_proc_and_a_filter(playground: Playground) -> None:
    """Where /proc is read-only and a filter refuses the calls, only writes do not work."""
    base = playground.layout("rw r")
    with Tool(*in_mounts(PROC_READ_ONLY)) as tool:
        tool.do("seccomp", REFUSED[0])
        tool.do("open", playground.pid)
        assert tool.do("read", base, PAGE) == pattern(base, PAGE).hex()
        for call in (["write", base, "00"], ["write_val", base, 0], ["fill", base, 8]):
            refusal = tool.refused(*call)
            assert refusal.name in ("AccessDeniedError", "UnsupportedError"), refusal
            assert "read-only" in refusal.text, refusal.text
            assert refusal.copied_len == 0
            for cause in ("user", "dumpable", "Yama", "hidepid"):
                assert cause not in refusal.text
        tool.do("close")
    assert playground.peek(base, PAGE) == pattern(base, PAGE)


def test_a_read_only_proc_for_another_user(program: str) -> None:
    """A read-only /proc is not the cause where the process is another user's."""
    with Tool(*in_mounts(PROC_READ_ONLY), *run_as(NOBODY)) as tool:
        with Subject(program=program) as target:
            assert_refused(tool, target, "another user")
        with Subject(prefix=run_as(NOBODY), program=program) as target:
            tool.do("open", target.pid)
            assert tool.do("read", target.address, 8) == pattern(target.address, 8).hex()
            tool.do("close")


HIDEPID = "mount -t proc -o hidepid={} proc /proc"


@pytest.mark.parametrize("hidepid", [1, 2, 4])
def test_hidepid_for_the_users_own(program: str, hidepid: int) -> None:
    """What the user may access is accessed whatever /proc hides of others."""
    with (
        Tool(*in_mounts(HIDEPID.format(hidepid)), *run_as(NOBODY)) as tool,
        Subject(prefix=run_as(NOBODY), program=program) as target,
    ):
        assert_full_access(tool, target)
        assert_full_access(tool, target, "mem")


@pytest.mark.parametrize("hidepid", [2, 4])
@pytest.mark.parametrize("who", ["root", "daemon", "not dumpable"])
def test_hidepid_for_others(program: str, hidepid: int, who: str) -> None:
    """A process that /proc hides is refused for hidepid; one that is not there is not."""
    prefix = {"root": [], "daemon": run_as(DAEMON), "not dumpable": run_as(NOBODY)}[who]
    arguments = ["nodump"] if who == "not dumpable" else []
    with Tool(*in_mounts(HIDEPID.format(hidepid)), *run_as(NOBODY)) as tool:
        with Subject(*arguments, prefix=prefix, program=program) as target:
            for _ in range(2):
                refusal = tool.refused("open", target.pid)
                assert refusal.name == "AccessDeniedError"
                assert "hidepid" in refusal.text
                for cause in ("set-uid", "Yama", "namespace", "security module", "capabilities"):
                    assert cause not in refusal.text
            pid = target.pid
        assert tool.refused("open", pid).name == "NoSuchProcessError"


def test_a_zombie_under_hidepid(program: str) -> None:
    """A zombie that /proc hides is a zombie, and hidepid is not named."""
    with (
        Tool(*in_mounts(HIDEPID.format(2)), *run_as(NOBODY)) as tool,
        Subject(program=program) as parent,
        zombie_of(parent, 0) as pid,
    ):
        refusal = tool.refused("open", pid)
        assert refusal.name == "ProcessExitedError"
        for word in ("permission", "allow", "user", "hidepid", "dumpable", "CAP_", "Yama"):
            assert word not in refusal.text


def test_the_proc_of_another_pid_namespace(program: str) -> None:
    """Under another pid namespace's /proc nothing is opened, and the message says why."""
    with Tool("unshare", "--pid", "--fork", "--kill-child") as tool:
        assert tool.do("who")["pid"] == 1
        with Subject(program=program) as target:
            for pid in (target.pid, 1):
                refusal = tool.refused("open", pid)
                if pid != 1 and refusal.name == "NoSuchProcessError":
                    continue  # the number is nobody's in there
                assert "pid namespace" in refusal.text, refusal.text
                assert refusal.name in ("UnsupportedError", "AccessDeniedError")


def test_the_proc_of_this_pid_namespace(program: str) -> None:
    """In a pid namespace with its own /proc the pids are those of the namespace."""
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with Tool(*alone) as tool:
        assert tool.do("who")["pid"] == 1
        assert tool.do("open", 1) == 1
        assert len(tool.do("maps")) > 5
        tool.do("close")
        with Subject(program=program) as target:
            assert tool.refused("open", target.pid).name == "NoSuchProcessError"


@pytest.mark.parametrize("script", ["mount -t tmpfs none /proc", "mount --bind /tmp /proc"])
def test_no_proc(program: str, script: str) -> None:
    """Without /proc nothing is opened, and the message says that it is missing."""
    with Tool(*in_mounts(script)) as tool, Subject(program=program) as target:
        refusal = tool.refused("open", target.pid)
        assert refusal.name in ("UnsupportedError", "AccessDeniedError")
        assert "/proc" in refusal.text
        assert "mount" in refusal.text
        for cause in ("user", "set-uid", "dumpable", "Yama", "hidepid", "seccomp"):
            assert cause not in refusal.text


# Neither of these for what is something else


def test_a_zombie_is_not_a_matter_of_permission(nobody: Tool, program: str) -> None:
    """Zombies of every kind have ended, and no message speaks of permission."""
    set_uid = public("subject", mode=0o4755)
    for prefix, arguments, path in (
        ([], [], program),
        (run_as(DAEMON), [], program),
        (run_as(NOBODY), ["nodump"], program),
        (run_as(NOBODY), [], set_uid),
    ):
        with (
            Subject(*arguments, prefix=prefix, program=path) as parent,
            zombie_of(parent, 1) as pid,
        ):
            refusal = nobody.refused("open", pid)
            assert refusal.name == "ProcessExitedError"
            for word in ("permission", "allow", "user", "dumpable", "set-uid", "CAP_", "Yama"):
                assert word not in refusal.text
    with Subject(program=program) as parent:
        pid = int(parent.ask("zombie 1"))
    assert nobody.refused("open", pid).name in ("NoSuchProcessError", "ProcessExitedError")


def test_a_pid_of_nobody_is_not_a_matter_of_permission(nobody: Tool) -> None:
    """A user who opens what is not there is told that."""
    for pid in (0, -1, 2**31, 2**22 + 9, 2**64):
        assert nobody.refused("open", pid).name == "NoSuchProcessError"


@pytest.mark.strace
def test_a_traced_target_is_not_a_matter_of_permission(nobody: Tool, program: str) -> None:
    """A tracer is no obstacle for an opened process, and no message names one."""
    strace = ["strace", "-o", "/dev/null", "-e", "trace=none"]
    with Subject(prefix=[*run_as(NOBODY), *strace], program=program) as tracer:
        children = Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()
        (pid,) = map(int, children)
        assert f"TracerPid:\t{tracer.pid}\n" in Path(f"/proc/{pid}/status").read_text()
        assert nobody.do("open", pid) == pid
        assert nobody.do("read", tracer.address, 8) == pattern(tracer.address, 8).hex()
        nobody.do("write_val", tracer.address, 5)
        assert tracer.ask(f"word {tracer.address:x}") == f"{5:016x}"
        nobody.do("close")


def test_the_target_of_another_user_with_a_playground(nobody: Tool) -> None:
    """What a user may access faults where the target faults, as for root."""
    program = public("playground")
    with Playground(prefix=run_as(NOBODY), program=program) as playground:
        base = playground.layout("rw rw r none rw hole")
        with Tool() as tool:
            tool.do("open", playground.pid)
            expected = _results(tool, base)
            tool.do("close")
        for backend in ("auto", "mem"):
            nobody.do("open", playground.pid, backend)
            assert _results(nobody, base) == expected
            nobody.do("close")
        assert_unharmed(playground.pid)
