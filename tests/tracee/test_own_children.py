"""A tool that holds its own plain children hears of them what it would hear without."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

import procvm
from tests.support.child import ROOT
from tests.support.patience import eventually
from tests.support.procfs import assert_free, state_of
from tests.tracee.witness import sleeper


def test_poll_and_wait_of_a_held_child_say_that_it_lives() -> None:
    """Popen.poll is None and wait times out while held; then they give the true status."""
    with sleeper() as child, procvm.attach(child.pid) as tracee:
        for _ in range(50):
            with tracee.stopped():
                assert child.poll() is None
                assert child.returncode is None
        with tracee.stopped():
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.01)
            child.terminate()
            assert child.poll() is None
        assert child.wait() == -signal.SIGTERM


def test_a_child_that_is_killed_while_held_is_reaped_with_its_status() -> None:
    """Popen.wait gives -9 for a child killed in a hold."""
    for k in range(10):
        with sleeper() as child, procvm.attach(child.pid, longest_hold=None) as tracee:
            with tracee.stopped():
                child.send_signal(signal.SIGKILL)
                assert child.wait() == -signal.SIGKILL
            assert tracee.poll() == -signal.SIGKILL, k


def test_a_child_that_ends_by_itself_between_holds_has_its_status() -> None:
    """20 children that end in stop cycles give their own exit code."""
    for code in range(20):
        command = [sys.executable, "-S", "-c", f"import os; os._exit({code})"]
        with subprocess.Popen(command) as child:
            try:
                with procvm.attach(child.pid) as tracee:
                    while child.poll() is None:
                        with tracee.stopped():
                            pass
            except (procvm.ProcessExitedError, procvm.ProcessExecedError):
                pass
            assert child.wait() == code


def test_asyncio_children_have_their_status() -> None:
    """Asyncio sees no end of a held child, and the true one after or in a hold."""

    async def run() -> list[int | None]:
        found: list[int | None] = []
        for end in ("hold", "after"):
            child = await asyncio.create_subprocess_exec("sleep", "1000")
            waiting = asyncio.ensure_future(child.wait())
            # Killed in a hold, it is seen to end by that and not by the hold's longest time.
            with procvm.attach(child.pid, longest_hold=None) as tracee:
                for _ in range(20):
                    with tracee.stopped():
                        await asyncio.sleep(0)
                        assert not waiting.done()
                if end == "hold":
                    with tracee.stopped():
                        child.kill()
                        await waiting
                else:
                    child.terminate()
                    await waiting
            found.append(child.returncode)
        return found

    assert asyncio.run(run()) == [-signal.SIGKILL, -signal.SIGTERM]


LOOP = """
import os, signal, sys, subprocess
import procvm
seen = []
def reap(*_):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        seen.append((pid, os.waitstatus_to_exitcode(status)))
signal.signal(signal.SIGCHLD, reap)
children = [os.posix_spawnp("sleep", ["sleep", "1000"], os.environ) for _ in range(6)]
for k, child in enumerate(children):
    with procvm.attach(child, longest_hold=None) as tracee:
        for _ in range(20):
            with tracee.stopped():
                pass
        if k % 2:
            with tracee.stopped():
                os.kill(child, signal.SIGKILL)
                while child not in dict(seen):
                    pass
        else:
            os.kill(child, signal.SIGTERM)
            while child not in dict(seen):
                pass
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
print(seen == [(child, -9 if k % 2 else -15) for k, child in enumerate(children)], seen)
"""


def test_a_loop_of_waitpid_for_any_child_sees_ends_only_and_all_of_them() -> None:
    """A SIGCHLD handler with waitpid(-1) gets each child's end once."""
    found = subprocess.run(
        [sys.executable, "-c", LOOP],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert found.stdout.startswith("True"), found


LAST = """
import os, signal
import procvm
child = os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)
with procvm.attach(child) as tracee:
    with tracee.stopped():
        os.kill(child, signal.SIGKILL)
assert os.waitpid(-1, 0) == (child, 9)
signal.alarm(120)
try:
    print("another", os.waitpid(-1, 0))
except ChildProcessError:
    print("no more")
"""


def test_a_tool_has_no_children_but_its_own() -> None:
    """Waitpid(-1) after the last child: ChildProcessError; the tracer is none."""
    found = subprocess.run(
        [sys.executable, "-c", LAST],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert found.stdout == "no more\n", found


def test_a_stop_is_told_to_the_parent_as_ever() -> None:
    """WUNTRACED reports SIGSTOP and SIGCONT of an attached child, and no hold."""
    with sleeper() as child, procvm.attach(child.pid) as tracee:
        flags = os.WUNTRACED | os.WCONTINUED | os.WNOHANG
        for _ in range(20):
            with tracee.stopped():
                assert os.waitpid(child.pid, flags) == (0, 0)
        assert_free(child.pid)
        assert os.waitpid(child.pid, flags) == (0, 0)
        child.send_signal(signal.SIGSTOP)
        assert eventually(lambda: state_of(child.pid) == "T")
        pid, status = os.waitpid(child.pid, flags)
        assert (pid, os.WIFSTOPPED(status), os.WSTOPSIG(status)) == (child.pid, True, 19)
        with tracee.stopped():
            pass
        assert eventually(lambda: state_of(child.pid) == "T")
        child.send_signal(signal.SIGCONT)
        assert eventually(lambda: state_of(child.pid) == "S")
        pid, status = os.waitpid(child.pid, flags)
        assert (pid, os.WIFCONTINUED(status)) == (child.pid, True)
