"""`allow_attach`: a child of the tool admits the tracer, which Yama would refuse."""

from __future__ import annotations

from collections.abc import Callable

from procvm._hold.client import tracer_pid
from procvm._linux import yama

__all__ = ["admission", "allow_attach", "to_admit"]

_ONLY_DESCENDANTS = 1


def allow_attach() -> Callable[[], None]:
    """Returns a function for the preexec_fn of a child that `attach` may hold under Yama.

    Where kernel.yama.ptrace_scope is 1, as on Ubuntu and Arch, an ordinary user may trace only
    descendants of the tracing process. The tracer of procvm is a process of its own, so `attach`
    is refused even for the tool's children. A child that runs the returned function admits the
    tracer, and no other process. `spawn` does the same by itself.

        popen = subprocess.Popen(argv, preexec_fn=procvm.allow_attach())

    The permission outlives an exec of the child. It is lost when the tracer ends, which is when
    the tool ends, and when a thread of the child other than the first execs. Children of the child
    do not have it. Elsewhere than under scope 1 the function does nothing.

    Raises:
        UnsupportedError: The tracer cannot be started.
        VmError: The tool has no descriptor, memory or process left for it.

    Source:
        prctl(2), PR_SET_PTRACER.
    """
    return admission() or (lambda: None)


def admission() -> Callable[[], None] | None:
    """Returns the function of `allow_attach`, or None where a child has nothing to do.

    Raises:
        UnsupportedError: As `allow_attach`, and so is VmError.
    """
    tracer = to_admit()
    if not tracer:
        return None
    return yama.admission(tracer)


def to_admit() -> int:
    """Returns the pid of the tracer where a child has to admit it, or may have to; else 0.

    Raises:
        UnsupportedError: As `allow_attach`, and so is VmError.
    """
    scope = yama.scope()
    if scope == _ONLY_DESCENDANTS or (scope is None and yama.is_unknown()):
        return tracer_pid()
    return 0
