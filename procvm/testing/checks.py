"""Checks of memory for tests: it stays unchanged, or a value becomes as expected."""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar, final, overload

from procvm._base.address import as_timeout
from procvm._base.pods import C, Pod, PodLike, pod_of
from procvm._live.process import Process
from procvm._local.buffers import Scratch
from procvm._mm.extent import Content
from procvm._saved.snapshot import Run
from procvm._space.walk import parts, read_extents
from procvm.testing.hexdump import hexdump

__all__ = ["assert_unchanged", "wait_until"]

T = TypeVar("T")

_FIRST_NAP = 0.0002
_LONGEST_NAP = 0.01
_LOOK_LEN = 1 << 20
_MOST_SHOWN = 300
_MOST_RUNS = 8
_MOST_BYTES = 64


def assert_unchanged(process: Process, region: Any) -> AbstractContextManager[None]:
    """Returns a context manager that fails if memory has changed at its end.

    Args:
        process: The process whose memory is compared.
        region: One range or several, as `VmSpace.search` takes them: a mapping, or a pair of
            a start and an end (not included). All of it must be readable.

    Raises:
        AssertionError: Bytes differ, or cannot be read any more; the message shows the old and
            the new bytes.
        PageFaultError: A byte of the region cannot be read at the start.
    """
    return _Unchanged(process, region)


@final
class _Unchanged:
    # With a generator, the traceback of a failure would end in contextlib instead of the test.
    def __init__(self, process: Process, region: Any) -> None:
        self._process = process
        self._ranges = process.vm.ranges(_several(region), "r")

    def __enter__(self) -> None:
        __tracebackhide__ = True
        _require_readable(self._process, self._ranges)
        self._watched = self._process.unchanged(self._ranges).__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        self._watched.__exit__(kind, error, traceback)
        if error is not None:
            return
        if self._watched.runs:
            raise AssertionError("\n".join(_told(self._process, self._watched.runs)))
        if self._watched.gone:
            raise AssertionError(
                f"memory of process {self._process.pid} changed: {self._watched.gone[0][0]:#x} "
                "cannot be read any more"
            )


def _several(region: Any) -> Iterable[Any]:
    """Returns a region as a list of ranges; a pair of ints or a mapping is one range."""
    if isinstance(region, range) or (hasattr(region, "start") and hasattr(region, "end")):
        return [region]
    several = list(region)
    if len(several) == 2 and all(hasattr(one, "__index__") for one in several):
        return [several]
    return several


def _require_readable(process: Process, ranges: list[tuple[int, int]]) -> None:
    """Raises PageFaultError if a byte cannot be read; untouched pages are not read."""
    __tracebackhide__ = True
    memory = process.vm.memory
    room = Scratch(_LOOK_LEN)
    for part in parts(memory, ranges, _LOOK_LEN):
        if part.content is Content.HOLE:
            raise memory.hole(part.start, 0)
        for extent in read_extents(memory, part.extents, part.start, room.address):
            if extent.content is Content.HOLE:
                raise memory.hole(extent.start, 0)


def _told(process: Process, runs: Sequence[Run]) -> list[str]:
    n = sum(len(run.new) for run in runs)
    lines = [
        f"memory of process {process.pid} changed: {_counted(n, 'byte')} in "
        f"{_counted(len(runs), 'place')}"
    ]
    for run in runs[:_MOST_RUNS]:
        lines.append(f"{run.address:#x}: {_counted(len(run.new), 'byte')}")
        lines += [f"  was {line}" for line in hexdump(run.address, run.old[:_MOST_BYTES])]
        lines += [f"  is  {line}" for line in hexdump(run.address, run.new[:_MOST_BYTES])]
        if len(run.new) > _MOST_BYTES:
            lines.append(f"  and {_counted(len(run.new) - _MOST_BYTES, 'byte')} more")
    if len(runs) > _MOST_RUNS:
        lines.append(f"and {_counted(len(runs) - _MOST_RUNS, 'place')} more")
    return lines


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


@overload
def wait_until(
    process: Process,
    address: int,
    pod: Pod[T],
    predicate: Callable[[T], object],
    timeout: float | None = ...,
) -> T: ...
@overload
def wait_until(
    process: Process,
    address: int,
    pod: type[C],
    predicate: Callable[[C], object],
    timeout: float | None = ...,
) -> C: ...
def wait_until(
    process: Process,
    address: int,
    pod: PodLike[Any],
    predicate: Callable[[Any], object],
    timeout: float | None = 5.0,
) -> Any:
    """Reads a value repeatedly until a predicate is true for it, and returns the value.

    Args:
        process: The process whose memory is read.
        address: The address of the value.
        pod: Its type.
        predicate: Called with the value; returns whether it is as expected.
        timeout: Seconds until the test fails; None for no limit.

    Raises:
        AssertionError: The predicate was not true in time; the message has the last value.
        PageFaultError: The value cannot be read.
        ProcessExitedError: The process has ended.
    """
    __tracebackhide__ = True
    timeout = as_timeout(timeout)
    begun = time.monotonic()
    nap = _FIRST_NAP
    looks = 0
    while True:
        late = timeout is not None and time.monotonic() - begun >= timeout
        value = process.vm.read_val(address, pod)
        looks += 1
        if predicate(value):
            return value
        if late:
            raise AssertionError(
                f"the {pod_of(pod).name} at {address:#x} of process {process.pid} did not "
                f"satisfy the predicate within {timeout} s; it was read {_counted(looks, 'time')}, "
                f"and is {_shown(value)}"
            )
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP)


def _shown(value: Any) -> str:
    """Returns a short, printable text of a value."""
    if isinstance(value, int):
        return f"{value} ({value:#x})"
    if isinstance(value, float):
        return repr(value)
    if hasattr(value, "_fields_"):
        names = [field[0] for field in value._fields_]
        shown = ", ".join(f"{name}={reprlib.repr(getattr(value, name))}" for name in names)
        return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
    return reprlib.repr(bytes(value))
