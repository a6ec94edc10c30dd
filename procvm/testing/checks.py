"""What a test says of a process's memory: it stays as it is, or it becomes so."""

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
    """Fails if memory is not what it was when the ``with`` statement is left.

    Args:
        process: Whose memory.
        region: One range or several, as `VmSpace.search` takes them: a mapping, or a pair of
            a start and an end. All of it has to be readable, before and after.

    Raises:
        AssertionError: Bytes differ, or can not be read any more; the message shows them, as
            they were and as they are.
        PageFaultError: A byte of it can not be read, to begin with.
    """
    return _Unchanged(process, region)


@final
class _Unchanged:
    # Not a generator: a report would then end in contextlib, and not in the test.
    def __init__(self, process: Process, region: Any) -> None:
        self._process = process
        self._ranges = process.vm.ranges(_several(region), "r")

    def __enter__(self) -> None:
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
                f"memory of process {self._process.pid} changed: {self._watched.gone[0][0]:#x} can "
                "not be read any more"
            )


def _several(region: Any) -> Iterable[Any]:
    """Returns a region as ranges; a pair of ints is one of them, and so is a mapping."""
    if isinstance(region, range) or (hasattr(region, "start") and hasattr(region, "end")):
        return [region]
    several = list(region)
    if len(several) == 2 and all(hasattr(one, "__index__") for one in several):
        return [several]
    return several


def _require_readable(process: Process, ranges: list[tuple[int, int]]) -> None:
    """Reads all that was ever touched: what was not is readable, and would be by then."""
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
    """Reads a value again and again until it is as it should be; returns it.

    Args:
        process: Whose memory.
        address: Of the value.
        pod: Its type.
        predicate: Is given the value, and says whether it is.
        timeout: Seconds until the test fails; None for no limit.

    Raises:
        AssertionError: It was not in time; the message says what the value was last.
        PageFaultError: It can not be read.
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
                f"the {pod_of(pod).name} at {address:#x} of process {process.pid} was not as it "
                f"should be within {timeout} s; it was read {_counted(looks, 'time')}, and is "
                f"{_shown(value)}"
            )
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP)


def _shown(value: Any) -> str:
    """Returns a value in short; by repr, which is printable whatever is in it."""
    if isinstance(value, int):
        return f"{value} ({value:#x})"
    if isinstance(value, float):
        return repr(value)
    if hasattr(value, "_fields_"):
        names = [field[0] for field in value._fields_]
        shown = ", ".join(f"{name}={reprlib.repr(getattr(value, name))}" for name in names)
        return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
    return reprlib.repr(bytes(value))
