"""However the tool ends, its target runs on at once and has lost nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.patience import eventually, pass_time
from tests.support.procfs import assert_free, state_of, tracer_of, tracers
from tests.tracee.witness import Tool, Work
from tests.tracee.workloads import ctrl_c, races_met, tool_killed


@pytest.fixture
def work() -> Iterator[Work]:
    """Three threads that tick."""
    with Work("tick", 3) as target:
        yield target


@pytest.mark.parametrize("how", ["stop", "with"])
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("segv", -signal.SIGSEGV),
        ("abort", -signal.SIGABRT),
        ("_exit", 0),
        ("exception", 1),
        ("exec", None),
        ("thread", 0),
        ("plain", 0),
        ("sys.exit", 0),
    ],
)
def test_a_tool_that_ends_while_holding_lets_go(
    work: Work, ending: str, status: int | None, how: str
) -> None:
    """A hold without a longest time ends with the tool."""
    with Tool("hold", work.pid, "none", how, stderr=subprocess.DEVNULL) as tool:
        tool.line()
        work.assert_stands_still()
        tracer = tracer_of(work.pid)
        tool.send(ending)
        if status is None:
            assert eventually(
                lambda: os.readlink(f"/proc/{tool.pid}/exe").endswith(("sleep", "coreutils"))
            )
        else:
            assert tool.popen.wait() == status
        work.assert_runs()
        assert eventually(lambda: _is_gone(tracer)), "the tracer outlives its tool"


def _is_gone(pid: int) -> bool:
    try:
        return state_of(pid) in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("how", ["stop", "with"])
@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_tool_that_is_killed_while_holding_lets_go(
    work: Work, signo: signal.Signals, how: str
) -> None:
    """A signal that ends the tool ends its hold."""
    with Tool("hold", work.pid, "none", how) as tool:
        tool.line()
        work.assert_stands_still()
        tool.send("wait")
        tool.signal(signo)
        assert tool.popen.wait() == -signo
        work.assert_runs()


@pytest.mark.parametrize("how", ["stop", "with"])
def test_a_fork_of_the_tool_keeps_nothing(work: Work, how: str) -> None:
    """A child left behind with all the descriptors does not keep the hold."""
    with Tool("hold", work.pid, "none", how) as tool:
        tool.line()
        tool.send("fork")
        child = int(tool.line().split()[1])
        try:
            assert tool.popen.wait() == 0
            work.assert_runs()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_stopped_tool_holds_no_longer_than_the_longest_time(work: Work) -> None:
    """The tool is suspended: its target runs when the longest time is over."""
    with Tool("hold", work.pid, "0.5") as tool:
        tool.line()
        tool.signal(signal.SIGSTOP)
        assert eventually(lambda: state_of(tool.pid) == "T")
        work.assert_stands_still_while_held()
        work.assert_runs()
        tool.signal(signal.SIGCONT)
        tool.send("plain")
        assert tool.popen.wait() == 0
    work.assert_runs()


def test_a_killed_tracer_lets_go(work: Work) -> None:
    """The end of the tracer itself ends the hold; the tool lives."""
    with Tool("hold", work.pid, "none") as tool:
        tool.line()
        os.kill(tracer_of(work.pid), signal.SIGKILL)
        work.assert_runs()
        tool.send("plain")
        assert tool.popen.wait() == 0
    work.assert_runs()


@pytest.mark.slow
@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGTERM])
def test_tools_killed_at_random_instants_lose_nothing(signo: int) -> None:
    """4 tools are killed: the target runs on, with every signal in order."""
    found = races_met({"held at that moment": 2}, lambda: tool_killed(4, signo))
    assert found["lost"] == 0, found
    assert found["out of order"] == 0, found


@pytest.mark.parametrize("how", ["with", "nested", "calls"])
def test_ctrl_c_in_and_around_holds_leaves_nothing_stopped(how: str) -> None:
    """100 Ctrl-C at random instants: each is one KeyboardInterrupt, and the target runs."""
    found = races_met({"inside the with": 2}, lambda: ctrl_c(100, how=how))
    assert found["surfaced"] == found["sent"], found
    assert found["swallowed"] == 0, found
    assert found["left stopped"] == 0, found


@pytest.mark.slow
def test_a_tool_killed_in_the_middle_of_spawn_leaves_nothing_held() -> None:
    """No process that a killed tool was just spawning stays traced, or stopped."""
    for k in range(8):
        with Tool("spawner") as tool:
            assert tool.line() == "spawning"
            pass_time(k * 0.004)
            children = _descendants(tool.pid)
            tool.signal(signal.SIGKILL)
            tool.popen.wait()
            for child in children:
                assert eventually(partial(_is_gone_or_free, child)), child
                _kill(child)


def _is_gone_or_free(pid: int) -> bool:
    return _is_gone(pid) or not tracers(pid)


def _descendants(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return list(map(int, file.read().split()))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_holds_end_with_the_interpreter_and_its_atexit_functions(work: Work) -> None:
    """A hold taken in an atexit function is over with the tool, which does not fail."""
    with Tool("at_exit", work.pid, stderr=subprocess.PIPE) as tool:
        assert tool.line() == "end"
        assert tool.line() == "held at exit"
        assert tool.popen.wait() == 0
        assert tool.popen.stderr is not None
        assert tool.popen.stderr.read() == b""
        work.assert_runs()
    assert_free(work.pid)
