"""What Yama denies, by its setting: a mount namespace has the file that this kernel lacks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.faults.subjects import ROOT_WITHOUT_PTRACE, Subject, as_root, in_mounts, needs
from tests.faults.tools import ROOT

# Of a process that is not the tool's, and of a child of the tool: cause and message.
ASK = """
import json, subprocess, sys
from procvm._linux.access import explain
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
found = [explain(pid) for pid in (int(sys.argv[1]), child.pid)]
child.communicate()
print(json.dumps([[one.cause, one.message, one.yama_scope] for one in found]))
"""


def scope_is(scope: int) -> str:
    return (
        "mount -t tmpfs none /proc/sys/kernel; mkdir /proc/sys/kernel/yama\n"
        f"echo {scope} >/proc/sys/kernel/yama/ptrace_scope"
    )


@as_root
@needs("setpriv", "unshare")
@pytest.mark.parametrize(
    ("scope", "may_trace", "stranger", "child"),
    [
        (0, False, None, None),
        (1, False, "yama", None),
        (2, False, "yama", "yama"),
        (3, False, "yama", "yama"),
        (0, True, None, None),
        (1, True, None, None),
        (2, True, None, None),
        (3, True, "yama", "yama"),
    ],
)
def test_yama_by_its_scope_denies_what_the_kernel_would(
    scope: int, may_trace: bool, stranger: str | None, child: str | None
) -> None:
    """1 allows descendants, 2 CAP_SYS_PTRACE, 3 nothing; the message names the scope."""
    rights = [] if may_trace else ROOT_WITHOUT_PTRACE
    with Subject(prefix=rights) as target:
        done = subprocess.run(
            [*in_mounts(scope_is(scope)), *rights, sys.executable, "-c", ASK, str(target.pid)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    assert [cause for cause, _, _ in found] == [stranger, child]
    for cause, message, told in found:
        assert told == scope
        assert (f"ptrace_scope is {scope}" in message) == (cause == "yama")
