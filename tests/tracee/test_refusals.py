"""A refused request leaves nothing: no frame of the caller waits for the cyclic collector."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator

import pytest

import procvm
from tests.faults.tools import Strace
from tests.support.procfs import own_fds, tracer_of
from tests.tracee.witness import Work


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Turns the cyclic collector off."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class File:
    """A file of the caller's, which its frame alone keeps open."""

    def __init__(self) -> None:
        self.fd = os.open("/dev/null", os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.fd)


def failed(use: Callable[[], object]) -> type[procvm.ProcvmError] | None:
    """Makes a call whose error passes a frame with a file open; returns the error's class."""

    def inner() -> None:
        file = File()
        use()
        raise AssertionError(f"not refused, with {file.fd} open")

    try:
        inner()
    except procvm.ProcvmError as error:
        return type(error)
    return None


def test_resume_refused_closes_the_files_of_the_frames_that_it_passed() -> None:
    """The error of a request dies with its handler, and with it every frame of its traceback."""
    with Work("tick", 1) as target, procvm.attach(target.pid) as tracee, no_collector():
        before = own_fds()
        assert failed(tracee.resume) is procvm.NotStoppedError
        assert own_fds() == before
        assert failed(lambda: tracee.registers(1)) is procvm.NotStoppedError
        assert own_fds() == before


@pytest.mark.strace
def test_attach_refused_a_channel_closes_the_files_of_the_frames_that_it_passed() -> None:
    """The same of the request that opens a channel: here the tracer has no memory for it."""
    with Work("tick", 1) as target, procvm.attach(target.pid) as tracee:
        with tracee.stopped():
            tracer = tracer_of(target.pid)
        with (
            no_collector(),
            Strace(tracer, "-e", "trace=mmap", "-e", "inject=mmap:error=ENOMEM:when=1") as strace,
        ):
            before = own_fds()
            assert failed(lambda: procvm.attach(target.pid)) is procvm.VmError
            assert own_fds() == before
            assert strace.hits() == 1
