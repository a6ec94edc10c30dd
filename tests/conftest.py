"""Fixtures every test may use."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import procvm
from tests.support import progress
from tests.support.patience import be_patient
from tests.support.playground import Playground

# What a shell starts in its background ignores Ctrl-C, and so would every tool that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# SIGHUP likewise, after nohup: the tools that a test ends by it would go on.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

be_patient()

# On a busy machine an example takes any time.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def playground() -> Iterator[Playground]:
    """A child of its own for the test, ended after it."""
    with Playground() as child:
        yield child


@pytest.fixture(params=["auto", "mem"])
def process(request: pytest.FixtureRequest, playground: Playground) -> Iterator[procvm.Process]:
    """The playground, opened: once served by process_vm_readv, once by /proc/PID/mem."""
    with procvm.open(playground.pid, backend=request.param) as process:
        yield process


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test that needs what this machine or user does not have."""
    root = item.get_closest_marker("root")
    if root and os.geteuid() != 0:
        what = root.args[0] if root.args else "starts processes of other users, or in namespaces"
        pytest.skip(f"needs root: {what}")
    if item.get_closest_marker("strace") and shutil.which("strace") is None:
        pytest.skip("strace is not installed")


@pytest.fixture(scope="module", autouse=True)
def _young_garbage_alone() -> None:
    """Leaves what the run has made so far out of the searches for garbage.

    The tests of faults and of holds collect garbage twice each. Without this each search goes over
    the 200,000 objects of the test modules and takes 0.1 s, which adds up to minutes.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Shows how the run goes on."""
    progress.show(config)
