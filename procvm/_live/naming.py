"""Finds the process that the caller of `open` or `attach` means, by its pid or its name."""

from __future__ import annotations

from procvm._base.address import as_int
from procvm._base.text import printable
from procvm._linux.processes import NamedProcess, named_process, processes_called
from procvm._live.image import Image, open_image
from procvm.errors import (
    AmbiguousNameError,
    Hint,
    NoSuchProcessError,
    ProcessCandidate,
    ProcessExitedError,
)

__all__ = ["open_target", "the_process"]

_LOOKS = 8


def open_target(target: int | str, *, by_calls: bool = True) -> Image:
    """Opens the program that a process runs now, by the process's pid or name.

    Raises:
        NoSuchProcessError: No process has the pid or the name.
        AmbiguousNameError: Several processes have the name.
        ProcvmError: As `open_image`.
        TypeError: `target` is neither an int nor a str.
        ValueError: `target` is an empty name.
    """
    if not isinstance(target, str):
        return open_image(as_int(target, "pid"), by_calls=by_calls)
    if not target:
        raise ValueError("the name of a process is empty; give a pid or a name")
    for look in range(_LOOKS):
        found = the_process(target, processes_called(target))
        try:
            image = open_image(found.pid, by_calls=by_calls)
        except (NoSuchProcessError, ProcessExitedError):
            if found.has_ended or look == _LOOKS - 1:
                raise
            continue
        # Without this, a process that got the pid since it was listed would be opened instead.
        now = named_process(found.pid)
        if now is not None and now.is_called(target) and not image.has_ended():
            return image
        image.close()
    raise _nothing_called(target)


def the_process(name: str, found: list[NamedProcess]) -> NamedProcess:
    """Returns the one process that has a name.

    Args:
        name: The name.
        found: The processes that have it.

    Raises:
        NoSuchProcessError: There is none.
        AmbiguousNameError: There are several.
    """
    if not found:
        raise _nothing_called(name)
    if len(found) > 1:
        pids = ", ".join(str(process.pid) for process in found)
        raise AmbiguousNameError(
            f"{len(found)} processes are called {printable(name)} (pids {pids}); give a pid",
            name=name,
            candidates=tuple(
                ProcessCandidate(process.pid, printable(process.comm), process.command)
                for process in found
            ),
        )
    return found[0]


def _nothing_called(name: str) -> NoSuchProcessError:
    hint = Hint("pid_as_int", {"pid": int(name)}) if name.isdecimal() else Hint("processes")
    return NoSuchProcessError(f"no process is called {printable(name)}", pid=0, hint=hint)
