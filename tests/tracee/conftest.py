"""What must hold around every test here: the tool keeps nothing."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Generator, Iterator

import pytest

import procvm
from tests.support.patience import eventually
from tests.support.procfs import own_children, own_fds
from tests.tracee.witness import sleeper


@pytest.fixture(scope="session")
def _tracer_runs() -> None:
    """The tracer is started before anything is counted: one serves the whole tool."""
    with sleeper() as target, procvm.attach(target.pid) as tracee:
        tracee.stop()
        tracee.resume()


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, _tracer_runs: None) -> Iterator[None]:
    """No descriptor, thread or child of the test's own outlives it."""
    gc.collect()
    before = own_fds(), sorted(os.listdir("/proc/self/task")), len(own_children())
    yield
    if request.node.stash.get(FAILED, False):
        return  # what it left is the smaller harm, and pytest keeps its frames
    gc.collect()
    fds, threads, children = before
    assert not kinds(own_fds()) - kinds(fds)
    # The kernel lists a thread for a moment after it was joined.
    assert eventually(lambda: {*os.listdir("/proc/self/task")} <= {*threads}, 5.0)
    assert len(own_children()) <= children


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes that a test has failed, for its fixtures."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


def kinds(fds: list[tuple[int, str]]) -> Counter[str]:
    """Returns how many descriptors there are of each kind: pipe, socket, the path of a file."""
    return Counter(what.partition(":[")[0] for _, what in fds)
