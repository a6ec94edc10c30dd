"""However a run of pytest ends, no process that its fixtures started is left, nor stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.plugin.inner import Inner


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of all the inner runs: the playground is compiled once."""
    return tmp_path_factory.mktemp("cache")


# What a run that can still do so says at its end: which children it has, zombies too.
CHILDREN = """
from pathlib import Path

def pytest_unconfigure(config):
    lists = Path("/proc/self/task").glob("*/children")
    print("CHILDREN", [pids for pids in (path.read_text().strip() for path in lists) if pids])
"""


def write_conftest(folder: Path) -> None:
    (folder / "conftest.py").write_text(CHILDREN)


@pytest.mark.parametrize(
    ("body", "arguments", "status"),
    [
        ("pass", (), 0),
        ("assert 0", ("-x",), 1),
        ("pytest.exit('enough', 7)", (), 7),
    ],
    ids=["passes", "fails with -x", "pytest.exit"],
)
def test_an_orderly_end_leaves_nothing(
    tmp_path: Path, cache: Path, body: str, arguments: tuple[str, ...], status: int
) -> None:
    """At the end of the test all is ended and reaped, whatever state it was in."""
    write_conftest(tmp_path)
    code = f"""
        def test_it(everything):
            {body}
        """
    with Inner(tmp_path, code, "-s", *arguments, cache=cache) as inner:
        found, text = inner.ended()
        assert found == status, text
        assert "CHILDREN []" in text
        assert "rror" not in text or status == 1, text
        assert inner.left() == []


SETUP_FAILS = """
    @pytest.fixture
    def broken(everything):
        raise RuntimeError("the fixture fails")

    def test_it(broken):
        pass
    """


def test_a_fixture_that_fails_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    """An error between the start of processes and the test ends them."""
    write_conftest(tmp_path)
    with Inner(tmp_path, SETUP_FAILS, "-s", cache=cache) as inner:
        status, text = inner.ended()
        assert status == 1
        assert "RuntimeError: the fixture fails" in text
        assert "CHILDREN []" in text
        assert inner.left() == []


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_nothing(tmp_path: Path, cache: Path, signo: signal.Signals) -> None:
    """Ctrl-C in a test, and signals that give no time for a teardown, end all."""
    code = """
        def test_it(everything):
            tell_ready()
            time.sleep(1000)
        """
    with Inner(tmp_path, code, cache=cache) as inner:
        inner.await_ready()
        inner.signal(signo)
        status, text = inner.ended()
        assert status == (2 if signo == signal.SIGINT else -signo), text
        assert inner.left() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os.execv('/bin/true', ['true'])", 0),
        ("os.fork() or time.sleep(1000); os._exit(3)", 3),
    ],
    ids=["_exit", "segv", "exec", "fork and _exit"],
)
def test_a_crash_of_the_test_process_leaves_nothing(
    tmp_path: Path, cache: Path, body: str, status: int
) -> None:
    """A test process that ends without its teardown: the keeper ends all that it had."""
    code = f"""
        import resource

        def test_it(everything):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            {body}
        """
    with Inner(tmp_path, code, "-p", "no:faulthandler", cache=cache) as inner:
        assert inner.popen.wait() == status
        # A child that the test itself forked is its own.
        assert inner.left(but="pytest") == []


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_a_timeout_leaves_nothing(tmp_path: Path, cache: Path, method: str) -> None:
    """pytest-timeout ends a test by an exception, or the process by ``os._exit``."""
    pytest.importorskip("pytest_timeout")
    code = """
        def test_it(everything):
            time.sleep(1000)
        """
    arguments = ("-p", "pytest_timeout", "--timeout=1", f"--timeout-method={method}")
    with Inner(tmp_path, code, *arguments, cache=cache) as inner:
        status, text = inner.ended()
        assert status == 1, text
        assert "Timeout" in text
        assert inner.left() == []


def test_xdist_leaves_nothing(tmp_path: Path) -> None:
    """Two workers start the same programs at the same time, compiled by neither twice in part."""
    pytest.importorskip("xdist")
    code = """
        @pytest.mark.parametrize("k", range(4))
        def test_it(everything, k):
            assert everything.peek(everything.base, 1)
        """
    with Inner(tmp_path, code, "-p", "xdist", "-n", "2") as inner:
        status, text = inner.ended()
        assert status == 0, text
        assert "4 passed" in text
        assert inner.left() == []
    kept = tmp_path / ".pytest_cache" / "d" / "procvm"
    assert sorted(path.suffix for path in kept.iterdir()) == ["", ".c"]


def test_a_worker_of_xdist_that_crashes_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    """A worker is killed in the middle of a test, and xdist goes on with another one."""
    pytest.importorskip("xdist")
    code = """
        def test_crashes(everything):
            os.kill(os.getpid(), signal.SIGKILL)

        def test_passes(everything):
            pass
        """
    with Inner(tmp_path, code, "-p", "xdist", "-n", "1", cache=cache) as inner:
        status, text = inner.ended()
        assert status == 1, text
        assert "1 failed, 1 passed" in text
        assert inner.left() == []


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGKILL])
def test_an_end_in_the_middle_of_a_start_leaves_nothing(
    tmp_path: Path, cache: Path, signo: signal.Signals
) -> None:
    """Ctrl-C or a kill at any instant of starting processes: none of them is left."""
    code = """
        def test_it(procvm_spawn):
            tell_ready()
            while True:
                procvm_spawn(["sleep", "1000"])
        """
    for k in range(2):
        with Inner(tmp_path, code, cache=cache) as inner:
            inner.await_ready()
            time.sleep(0.05 + 0.021 * k)
            inner.signal(signo)
            inner.ended()
            assert inner.left() == [], k


def test_a_daemon_is_not_ours(tmp_path: Path, cache: Path) -> None:
    """What left the session, and whose parent is gone, can not be told to be the program's."""
    code = """
        def test_it(procvm_spawn):
            daemon = "exec setsid sh -c 'sleep 1000 > /dev/null 2>&1 & echo $!'"
            child = procvm_spawn(["sh", "-c", daemon])
            print("DAEMON", int(child.stdout.readline()))
            assert child.wait() == 0
        """
    with Inner(tmp_path, code, "-s", cache=cache) as inner:
        _, text = inner.ended()
        daemon = int(text.split("DAEMON ")[1].split()[0])
        assert inner.left(but="sleep") == []
        os.kill(daemon, signal.SIGKILL)
