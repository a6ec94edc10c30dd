"""What containers take away: each cause is provoked, named by the doctor, and no other one is."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.doctor.asking import Doctor, Report
from tests.faults.subjects import (
    NOBODY,
    Subject,
    as_root,
    everybodys_python,
    in_mounts,
    needs,
    public,
    run_as,
)
from tests.support.patience import eventually

pytestmark = needs("nsenter", "setpriv", "unshare")

WRONG = {
    "filter": ("seccomp filter",),
    "hidepid": ("hidepid",),
    "Yama": ("Yama", "sysctl"),
    "kernel": ("kernel lacks",),
    "namespace": ("namespace",),
    "group": ("add the user to group",),
}
"""Words of hints that are wrong where the cause is another one."""


def assert_hints(found: Report, *right: str) -> None:
    """No message of what is not in order has the words of a cause but these."""
    text = "\n".join(
        f"{finding.evidence}: {finding.fix}"
        for name, finding in found.items()
        if finding.verdict in ("warning", "fails") and not name.startswith("user namespace")
    )
    for cause, words in WRONG.items():
        assert cause in right or not any(word in text for word in words), text


# Filters, as those of container engines


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.EACCES])
@pytest.mark.parametrize(
    "calls",
    [
        ("process_vm_readv", "process_vm_writev"),
        ("ptrace",),
        ("process_vm_readv", "process_vm_writev", "ptrace"),
    ],
    ids=["process_vm", "ptrace", "both"],
)
def test_doctor_of_a_filter_names_it_whatever_its_errno(calls: Sequence[str], code: int) -> None:
    """It reads and writes all the same; without ptrace it cannot hold, and says why."""
    with Doctor() as doctor, Subject() as target:
        doctor.take_away(seccomp=dict.fromkeys(calls, code))
        found = doctor.examine(target.pid)
    assert found.causes() == []
    assert found["target access"].verdict == "ok"
    assert found.failing() == (["ptrace", "target hold"] if "ptrace" in calls else [])
    for call in calls:
        assert found[call].verdict == ("fails" if call == "ptrace" else "warning")
        assert f"allow {call} in the seccomp filter of the tool" in found[call].fix
    assert_hints(found, "filter")


# Namespaces


@as_root
def test_doctor_of_a_target_in_a_pid_namespace_takes_its_pid_outside() -> None:
    """The pid that the tool's /proc shows is the one to give; nothing denies access."""
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with Doctor() as doctor, Subject(prefix=alone) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        assert eventually(lambda: len(children.read_text().split()) == 1)
        pid = int(children.read_text())
        assert Path(f"/proc/{pid}/status").read_text().split("NSpid:\t")[1].split("\n")[0] == (
            f"{pid}\t1"
        )
        found = doctor.examine(pid)
    assert found.failing() == []
    assert found["target access"].verdict == found["target hold"].verdict == "ok"
    assert_hints(found)


@as_root
def test_doctor_of_a_container_without_the_capability_names_it() -> None:
    """Root of a user namespace without CAP_SYS_PTRACE: it decides inside, the namespace outside."""
    program = public("subject")
    with Doctor("unshare", "-Ur", "setpriv", "--bounding-set=-sys_ptrace") as doctor:
        inside = ["nsenter", "-t", str(doctor.pid), "-U", "--preserve-credentials"]
        with Subject(prefix=inside, program=program) as target:
            found = doctor.examine(target.pid)
            assert found.causes() == ["target capabilities"]
            assert "run the tool with CAP_SYS_PTRACE" in found["target access"].fix
            assert_hints(found)
        with Subject(program=program) as target:
            found = doctor.examine(target.pid)
            assert found.causes() == ["target user namespace"]
            assert_hints(found, "namespace")
        assert found["CAP_SYS_PTRACE"].verdict == "warning"
        assert "--cap-add SYS_PTRACE" in found["CAP_SYS_PTRACE"].fix


# /proc

PIDS_ALONE = "mount -t proc -o subset=pid proc /proc"


@as_root
def test_doctor_of_a_proc_without_settings_calls_them_not_known() -> None:
    """``subset=pid`` hides /proc/sys: whether Yama restricts is not known, and is no cause."""
    program = public("subject")
    with Doctor(*in_mounts(PIDS_ALONE)) as doctor, Subject(program=program) as target:
        found = doctor.examine(target.pid)
        assert found.failing() == []
        assert found["yama"].verdict == "absent"
        assert "not known" in found["yama"].evidence
        assert "subset=pid" in found["yama"].evidence
        assert_hints(found)
    python = everybodys_python()
    with Doctor(*in_mounts(PIDS_ALONE), *run_as(NOBODY), python=python) as doctor:
        with Subject(prefix=run_as(NOBODY), program=program) as target:
            found = doctor.examine(target.pid)
            assert found.failing() == []
            assert_hints(found)
        with Subject(program=program) as target:
            found = doctor.examine(target.pid)
            assert found.causes() == ["target owner"]
            assert_hints(found)


@as_root
def test_doctor_of_a_denial_without_settings_names_yama_as_possible() -> None:
    """A user is denied by a security module; Yama, whose setting is hidden, may be the one."""
    program = public("subject")
    prefix = [*in_mounts(PIDS_ALONE), *run_as(NOBODY)]
    with (
        Doctor(*prefix, python=everybodys_python()) as doctor,
        Subject(prefix=run_as(NOBODY), program=program) as target,
    ):
        try:
            doctor.take_away(landlock=True)
        except AssertionError as error:
            pytest.skip(f"needs Landlock (CONFIG_SECURITY_LANDLOCK): {error}")
        found = doctor.examine(target.pid)
    assert found["target access"].verdict == "fails"
    assert "the reason is not visible" in found["target access"].fix
    assert "Yama (/proc does not show kernel.yama.ptrace_scope)" in found["target access"].fix


@as_root
@pytest.mark.parametrize("group", [None, 4711])
@pytest.mark.parametrize("value", ["1", "2", "4"])
def test_doctor_of_hidepid_names_a_group_only_if_there_is_one(
    value: str, group: int | None
) -> None:
    """The kernel ignores the group of the strictest kind, and so does the advice."""
    options = f"hidepid={value}" + (f",gid={group}" if group else "")
    prefix = [*in_mounts(f"mount -t proc -o {options} proc /proc"), *run_as(NOBODY)]
    with (
        Doctor(*prefix, python=everybodys_python()) as doctor,
        Subject(program=public("subject")) as target,
    ):
        found = doctor.examine(target.pid)
    helps = group is not None and value != "4"
    for name in ("hidepid", "target"):
        assert ("add the user to group 4711" in found[name].fix) == helps
        assert "without hidepid" in found[name].fix
    assert found.failing() == ["target"]
    assert_hints(found, "hidepid", *(["group"] if helps else []))
