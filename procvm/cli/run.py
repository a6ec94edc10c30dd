"""Runs the command: arguments in, exit code out, one line for every error."""

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
    PIPE_CLOSED,
    exit_code,
    exit_code_of_file,
)
from procvm.cli.output import (
    InterruptedByUserError,
    OutputError,
    begin_line,
    message_of,
    tell,
    tell_more,
)
from procvm.cli.root import root
from procvm.cli.target import AmbiguousError
from procvm.errors import ProcvmError

__all__ = ["run"]


def run(args: Sequence[str]) -> int:
    """Runs the command with these arguments; returns its exit code and raises nothing."""
    _occupy_streams()
    try:
        code = _code_of(lambda: _invoke(args))
        return _code_of(_flushed(code))
    except KeyboardInterrupt:
        return INTERRUPTED  # a second one, while the first was told of


def _occupy_streams() -> None:
    """Sees to it that no file which is opened later becomes stdin, stdout or stderr."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def _invoke(args: Sequence[str]) -> int:
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] (closed: None)
        # Before anything is done of which nobody could be told.
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
        # Of the Ctrl-C's that a person in a hurry sends one is told of.
        old = _ignore_interrupts()
        begin_line()
        tell("interrupted")
        if old is not None:
            signal.signal(signal.SIGINT, old)
        return INTERRUPTED
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
        tell(f"out of memory: {type(error).__name__}")
        return FAULT
    except (ValueError, TypeError, OverflowError) as error:
        # What the library raises for a mistake of its caller: here that is the command line.
        _trace()
        tell(str(error))
        return BAD_USE
    except Exception as error:  # noqa: BLE001 (a person is told in one line, whatever it is)
        _trace()
        tell(f"a defect of procvm: {type(error).__name__}: {error} (PROCVM_TRACEBACK=1 tells more)")
        return DEFECT


def _trace() -> None:
    if os.environ.get("PROCVM_TRACEBACK"):
        traceback.print_exc()


def _ignore_interrupts() -> Any:
    try:
        return signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:
        return None  # not the main thread, which alone gets them


def _told_of_use(error: click.ClickException) -> int:
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None and not isinstance(error, AmbiguousError):
        message = f"{message.rstrip('.')} ({context.command_path} --help tells more)"
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
    """Keeps the interpreter from writing, as it ends, what can not be written."""
    try:
        fd = sys.stdout.fileno()
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, fd)
        os.close(devnull)
    except (OSError, ValueError, AttributeError):
        return  # no stream of a descriptor: nothing is written behind our back
