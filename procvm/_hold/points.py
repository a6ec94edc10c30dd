"""`Breakpoint` and `Watchpoint`: where a traced target stops during `cont`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, final

from procvm._base.closing import Closing
from procvm._base.pods import Pod
from procvm._hold.calls import Calls
from procvm._hold.server.protocol import Op
from procvm.errors import ProcvmError

__all__ = ["Breakpoint", "Watchpoint", "stops_at", "watched"]

_LONG = 8
_SIZES = (1, 2, 4, 8)
_KINDS = ("write", "access")


class _Point(Closing):
    """The common part: a place, a condition, and a number at the tracer."""

    def __init__(
        self,
        calls: Calls,
        address: int,
        on: str,
        size: int,
        condition: Callable[..., object] | None,
    ) -> None:
        if condition is not None and not callable(condition):
            raise TypeError(f"a condition is called with the event; {condition!r} cannot be called")
        self.address = address
        self.condition = condition
        self.hits = 0
        self._calls = calls
        number: int = calls.request(Op.ADD_POINT, on, address, size)
        self._number: int | None = number
        calls.points[number] = self

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._number is None

    def close(self) -> None:
        """Disarms it in every thread; events of it that were not told yet are dropped."""
        number, self._number = self._number, None
        if number is not None:
            self._calls.points.pop(number, None)
            if self._calls.is_open:
                # With the tracer or the target it has ended by itself.
                with suppress(ProcvmError):
                    self._calls.request(Op.REMOVE_POINT, number)


@final
class Breakpoint(_Point):
    """A breakpoint of all threads, also of those born later; `close` or its ``with`` ends it.

    Attributes:
        address: The address of the instruction; a thread stops before it runs it.
        condition: Called with each event; `cont` returns only events for which it is true.
        hits: How often threads have come there, as far as `cont` has told or passed over it.
    """

    def __init__(self, calls: Calls, address: int, condition: Callable[..., object] | None) -> None:
        super().__init__(calls, address, "breakpoint", _LONG, condition)

    def __repr__(self) -> str:
        return f"<Breakpoint {self.address:#x}{', closed' if self.closed else ''}>"


@final
class Watchpoint(_Point):
    """A watchpoint of all threads, also of those born later; `close` or its ``with`` ends it.

    Attributes:
        address: The address of the value.
        pod: Its type.
        on: ``"write"``, or ``"access"`` for reads and writes.
        condition: Called with each event; `cont` returns only events for which it is true.
        hits: How often it was hit, as far as `cont` has told or passed over it.
    """

    def __init__(
        self,
        calls: Calls,
        address: int,
        pod: Pod[Any],
        on: Literal["write", "access"],
        condition: Callable[..., object] | None,
    ) -> None:
        self.pod = pod
        self.on = on
        super().__init__(calls, address, on, watched(address, pod, on), condition)

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"<Watchpoint {self.address:#x} {self.pod.name} on {self.on}{state}>"


def watched(address: int, pod: Pod[Any], on: str) -> int:
    """Returns how many bytes a watchpoint covers.

    Raises:
        ValueError: No debug register can watch them.
    """
    if on not in _KINDS:
        raise ValueError(f"on is 'write' or 'access', not {on!r}")
    if pod.size not in _SIZES:
        raise ValueError(f"a debug register watches 1, 2, 4 or 8 bytes, not {pod.size}")
    if address % pod.size:
        raise ValueError(f"{address:#x} is not a multiple of the {pod.size} bytes to watch")
    return pod.size


def stops_at(point: Breakpoint | Watchpoint, event: object) -> bool:
    """Counts a hit; returns whether the point's condition lets `cont` return it."""
    point.hits += 1
    return point.condition is None or bool(point.condition(event))
