"""What must hold after every fault, checked around every test here."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator

import pytest

from tests.faults.subjects import assert_works
from tests.support.patience import eventually
from tests.support.playground import Playground
from tests.support.procfs import assert_unharmed, own_children, own_fds, own_threads


@pytest.fixture(scope="session")
def control() -> Iterator[tuple[int, int]]:
    """A healthy target, for the whole run: its pid and a page of it."""
    with Playground() as child:
        yield child.pid, child.layout("rw")


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers whether the test failed: its traceback then holds what it was about."""
    report = yield
    if call.when == "call":
        item.stash[_failed] = report.failed
    return report


@pytest.fixture(autouse=True)
def invariants(request: pytest.FixtureRequest, control: tuple[int, int]) -> Iterator[None]:
    """Nothing is left behind, and the next access on a healthy target succeeds."""
    gc.collect()
    before = own_fds(), own_threads(), own_children()

    yield
    gc.collect()
    if not request.node.stash.get(_failed, False):
        fds, threads, children = before
        # The kernel lists a thread for a moment after it was joined.
        eventually(lambda: {*own_threads()} <= {*threads}, 5.0)
        left = [
            *(fd for fd in own_fds() if fd not in fds),
            *(f"thread {tid}" for tid in own_threads() if tid not in threads),
            *(f"child {pid}" for pid in own_children() if pid not in children),
        ]
        assert not left, "left behind in the tool"
    assert_works(*control)
    assert_unharmed(control[0])


@pytest.fixture
def playground() -> Iterator[Playground]:
    """A child of its own for the test, which must be alive and untraced after it."""
    with Playground() as child:
        yield child
        assert child.ask("peek 0 0") == ""
        assert_unharmed(child.pid)
