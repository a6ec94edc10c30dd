"""Waiting for a process that is somebody else's, or ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import procvm


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL)],
)
def test_wait_gives_the_status_and_leaves_the_child_to_its_parent(code: str, status: int) -> None:
    """Both `Process.wait` and, after it, `Popen.wait` give the true status."""
    popen = subprocess.Popen([sys.executable, "-c", f"input()\n{code}"], stdin=subprocess.PIPE)
    with popen, procvm.open(popen.pid) as process:
        assert process.is_alive()
        assert popen.stdin is not None
        popen.stdin.write(b"\n")
        popen.stdin.close()
        assert process.wait() == status
        assert not process.is_alive()
        assert popen.wait() == status
        assert process.wait() == status


def test_wait_for_another_ones_child_gives_its_status() -> None:
    """The status of a grandchild is told as well, before and after it is reaped."""
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input(); raise SystemExit(5)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as popen:
        assert popen.stdout is not None
        assert popen.stdin is not None
        with procvm.open(int(popen.stdout.readline())) as process:
            popen.stdin.write(b"\n")
            popen.stdin.close()
            assert process.wait() == 5
            popen.wait()
            assert process.wait() == 5


def test_wait_times_out_with_an_error_of_ours() -> None:
    """A wait that is too short is a WaitTimeoutError, which is a TimeoutError."""
    with procvm.open(os.getpid()) as process:
        with pytest.raises(procvm.WaitTimeoutError) as caught:
            process.wait(timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.pid == os.getpid()
