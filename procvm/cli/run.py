"""Runs the command and turns every error into one line and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import click

from procvm.cli.exits import (
    BAD_USE,
    DEFECT,
    DONE,
    FAULT,
    INTERRUPTED,
    NOTHING,
    PIPE_CLOSED,
    exit_code,
    exit_code_of_file,
)
from procvm.cli.output import (
    AmbiguousError,
    InterruptedByUserError,
    NothingFoundError,
    OutputError,
    begin_line,
    message_of,
    tell,
    tell_more,
)
from procvm.cli.root import root
from procvm.errors import ProcvmError

__all__ = ["run"]


def run(args: Sequence[str]) -> int:
    """Runs the command with these arguments; returns its exit code, never raises."""
    _occupy_streams()
    try:
        code = _code_of(lambda: _invoke(args))
        return _code_of(_flushed(code))
    except KeyboardInterrupt:
        return INTERRUPTED  # a second Ctrl-C, while the message about the first was written


def _occupy_streams() -> None:
    """Opens /dev/null for closed standard streams: a file opened later could take their place."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the kernel gives the lowest free number: fd


def _invoke(args: Sequence[str]) -> int:
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] (closed: None)
        # Checked first: a write to the target must not happen without a report.
        raise OutputError(OSError(errno.EBADF, "stdout is closed"))
    if not args and "_PROCVM_COMPLETE" not in os.environ:
        root.main(["--help"], prog_name="procvm", standalone_mode=False)
        return BAD_USE
    result: Any = root.main(list(args), prog_name="procvm", standalone_mode=False)
    return result if isinstance(result, int) else DONE


def _flushed(code: int) -> Callable[[], int]:
    def flush() -> int:
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] (closed: None)
            try:
                sys.stdout.flush()
            except OSError as error:
                raise OutputError(error) from None
        return code

    return flush


def _code_of(act: Callable[[], int]) -> int:
    try:
        return act()
    except OutputError as error:
        _forget_output()
        if not error.is_quiet:
            tell(str(error))
        return error.code
    except (InterruptedByUserError, KeyboardInterrupt, click.Abort):
        # Without this, a second Ctrl-C would interrupt the message about the first.
        old = _ignore_interrupts()
        begin_line()
        tell("interrupted")
        if old is not None:
            signal.signal(signal.SIGINT, old)
        return INTERRUPTED
    except NothingFoundError as error:
        tell(str(error))
        return NOTHING
    except click.ClickException as error:
        return _told_of_use(error)
    except ProcvmError as error:
        tell(message_of(error))
        return exit_code(error)
    except OSError as error:
        return _told_of_file(error)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else BAD_USE
    except (MemoryError, RecursionError) as error:
        tell(f"procvm ran out of memory: {type(error).__name__}")
        return FAULT
    except (ValueError, TypeError, OverflowError) as error:
        # The library raises these for a mistake of its caller, here the command line.
        _trace()
        tell(str(error))
        return BAD_USE
    except Exception as error:  # noqa: BLE001 (a defect is one line too)
        _trace()
        tell(
            f"a defect of procvm: {type(error).__name__}: {error} "
            "(PROCVM_TRACEBACK=1 shows the traceback)"
        )
        return DEFECT


def _trace() -> None:
    if os.environ.get("PROCVM_TRACEBACK"):
        traceback.print_exc()


def _ignore_interrupts() -> Any:
    try:
        return signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:
        return None  # not the main thread: only that one gets signals


def _told_of_use(error: click.ClickException) -> int:
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None and not isinstance(error, AmbiguousError):
        message = f"{message.rstrip('.')} (see {context.command_path} --help)"
    tell(message)
    if isinstance(error, AmbiguousError):
        tell_more(error.choices)
    return BAD_USE


def _told_of_file(error: OSError) -> int:
    if error.errno == errno.EPIPE:
        _forget_output()
        return PIPE_CLOSED
    name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    tell(f"{name}{error.strerror or error}")
    return exit_code_of_file(error)


def _forget_output() -> None:
    """Sends unwritten output to /dev/null: the interpreter would fail on it at its end."""
    try:
        fd = sys.stdout.fileno()
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, fd)
        os.close(devnull)
    except (OSError, ValueError, AttributeError):
        return  # not a stream with a descriptor: the interpreter does not flush it
